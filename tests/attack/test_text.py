"""Text that would steer a terminal, forge a line of a log, or pass for another text."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from attack.conftest import Attack
from harness import ROOT, Database
from rowcron.text import safe
from workers import Jobs, Start, jobs, start

__all__ = ["jobs", "start"]
EVIL = {
    "ESC [ 2 J (clears the screen)": "\x1b[2J",
    "ESC ] 0 (sets the title)": "\x1b]0;owned\x07",
    "ESC ] 52 (writes the clipboard)": "\x1b]52;c;cm0gLXJmIH4=\x1b\\",
    "ESC P (device control)": "\x1bPq\x1b\\",
    "ESC c (resets)": "\x1bc",
    "ESC [ 6 n (makes the terminal type)": "\x1b[6n",
    "CSI as one byte": "\x9b31m",
    "OSC as one byte": "\x9d0;owned\x9c",
    "BEL": "\x07",
    "backspaces over what was shown": "good\x08\x08\x08\x08evil",
    "carriage return over the line": "evil\rgood",
    "DEL": "\x7f",
    "a line feed that forges a line": "x\n12:00:00.000 alice.job run 1 succeeded in 1 ms",
    "vertical tab and form feed": "\x0b\x0c",
    "NEL": "x\x85forged",
    "line and paragraph separators": "x\u2028forged\u2029forged",
    "right-to-left override": "\u202ecod.exe",
    "right-to-left isolate": "\u2067abc\u2069",
    "zero width space": "ad\u200bmin",
    "word joiner, BOM": "ad\u2060mi\ufeffn",
    "soft hyphen": "ad\u00admin",
    "tags, which nobody sees": "x\U000e0041\U000e0042",
    "Hangul filler": "\u3164",
    "private use": "\ue000\U000f0000",
    "an unassigned character": "\U0001fbff\u0378",
}
ALL_OF_IT = "".join(EVIL.values())
SOME_OF_IT = ALL_OF_IT.encode()[:200].decode(errors="ignore")  # as much as a short column takes
REFUSED = re.compile("[\x01-\x1f\x7f-\x9f\u200b\u2028-\u202e\u2060\u2066-\u2069\ufeff]")


def steering(text: str, allowed: str = "\n") -> list[str]:
    """The characters of a text that no terminal and no log should get."""
    return [
        f"U+{ord(c):04X}"
        for c in text
        if c not in allowed
        and (
            unicodedata.category(c) in ("Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp")
            or c in "\u3164\u115f\u1160\uffa0"
        )
    ]


Say = Callable[..., str]


@pytest.fixture
def say(database: Database) -> Say:
    """Runs `rowcron` on a terminal, without colours; returns what the terminal gets."""

    def run(*arguments: str, role: str = "alice") -> str:
        here, there = pty.openpty()
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("ROWCRON_", "PG"))}
        more = {"NO_COLOR": "1", "COLUMNS": "400", "PYTHONPATH": str(ROOT / "worker")}
        process = subprocess.Popen(
            [sys.executable, "-m", "rowcron", *arguments, "--database-url", database.url(role)],
            stdin=there,
            stdout=there,
            stderr=there,
            env=clean | more,
        )
        os.close(there)
        found = b""
        while True:
            try:
                block = os.read(here, 65_536)
            except OSError:
                break
            if not block:
                break
            found += block
        os.close(here)
        process.wait(20)
        return found.decode().replace("\r\n", "\n")

    return run


def test_one_function_makes_all_text_harmless(attack: Attack) -> None:
    for what, text in EVIL.items():
        tried = attack(f"{what}, to a terminal")
        shown = safe(f"a{text}b")
        assert steering(f"a{text}b", "") != []
        assert steering(shown, "") == []
        tried.stopped(shown)
    for text in ("naïve", "日本語　です", "🚀", "a\u00a0b", "e\u0301", "שלום", "❤\ufe0f"):
        assert safe(text) == text


@pytest.mark.parametrize("column", ["name", "queue"])
def test_names_and_queues_are_refused(
    alice: psycopg.Connection, attack: Attack, column: str
) -> None:
    for what, text in EVIL.items():
        tried = attack(f"{what}, in the column {column}")
        columns = {"name": "plain", "command": "select 1", column: f"a{text}b"}
        marks = ", ".join("%s" for _ in columns)
        statement = f"insert into rowcron.job ({', '.join(columns)}) values ({marks})".encode()
        if not REFUSED.search(text):
            tried.possible("stored, since other letters look alike too; shown spelt out")
            continue
        with pytest.raises(psycopg.Error) as caught:
            alice.execute(statement, list(columns.values()))
        assert caught.value.sqlstate == "RCNAM"
        tried.stopped(f"RCNAM {safe(str(caught.value.diag.message_detail))}")


def test_nul_is_no_text(alice: psycopg.Connection, attack: Attack) -> None:
    for what, query, value in (
        ("as a byte", "select rowcron.schedule(%s, null, 'select 1')", "a\0b"),
        ("as an escape in JSON", "select rowcron.run_now('x', %s::jsonb)", '{"a": "\\u0000"}'),
    ):
        tried = attack(f"NUL {what}")
        with pytest.raises(psycopg.Error) as caught:
            alice.execute(query.encode(), [value])
        tried.stopped(str(caught.value).splitlines()[0])


def test_other_columns_are_refused_in_harmless_words(
    alice: psycopg.Connection, say: Say, attack: Attack
) -> None:
    for column, code in (
        ("timezone", "RCTZN"),
        ("schedule", "RCSCH"),
        ("kind", "RCKND"),
        ("connection", "RCCON"),
        ("on_missed", "RCLIM"),
    ):
        tried = attack(f"all of it, in the column {column}")
        text = SOME_OF_IT if column == "connection" else ALL_OF_IT
        columns = {"name": "plain", "command": "select 1", column: text}
        marks = ", ".join("%s" for _ in columns)
        statement = f"insert into rowcron.job ({', '.join(columns)}) values ({marks})".encode()
        with pytest.raises(psycopg.Error) as caught:
            alice.execute(statement, list(columns.values()))
        assert caught.value.sqlstate == code
        tried.stopped(f"{code}, at insert")
    for arguments in (
        ("job", "add", ALL_OF_IT.replace("\n", ""), "@daily", "select 1"),
        ("job", "add", "x", ALL_OF_IT, "select 1"),
        ("job", "add", "x", "@daily", "select 1", "--timezone", ALL_OF_IT),
        ("next", ALL_OF_IT),
        ("explain", ALL_OF_IT),
        ("why", ALL_OF_IT),
        ("job", "show", ALL_OF_IT),
        ("job", "pause", ALL_OF_IT),
        ("upcoming", "--queue", ALL_OF_IT),
        ("hold", ALL_OF_IT),
    ):
        tried = attack(f"rowcron {' '.join(arguments[:2])[:20]} with all of it: its error")
        shown = say(*arguments)
        assert shown != ""
        assert "Traceback" not in shown
        assert steering(shown) == []
        tried.stopped(" ".join(shown.split())[:90])


def plant(db: psycopg.Connection, jobs: Jobs) -> int:
    """Put all of it wherever text stands, also where no user could."""
    name = jobs.add("sql", f"select 1 -- {ALL_OF_IT}", args={"a": ALL_OF_IT}, schedule="@daily",
                    description=ALL_OF_IT)  # fmt: skip
    run = jobs.start(name, {"b": ALL_OF_IT})
    jobs.owner.execute("select rowcron.enqueue(%s, key => %s)", [name, ALL_OF_IT[:400]])
    db.execute("select rowcron.grant_connection(%s, 'alice')", [SOME_OF_IT])
    jobs.add("sql", "vacuum", connection=SOME_OF_IT, schedule="@daily")
    packed = json.dumps([ALL_OF_IT])
    with db.transaction():
        db.execute("set local session_replication_role = replica")
        evil = ALL_OF_IT.replace(".", "")[:100]
        db.execute(
            "update rowcron.job set name = %s, queue = %s where name = %s", [evil, evil, name]
        )
        db.execute("update rowcron.agenda set queue = %s where queue = 'default'", [evil])
        db.execute("update rowcron.run set queue = %s", [evil])
        db.execute(
            "insert into rowcron.ledger (job_id, job, owner, queue, kind, run_id, attempt, final,"
            " due_at, started_at, finished_at, outcome, reason, error, output, result, key, args)"
            " select j.id, j.name, j.owner, j.queue, j.kind, %s, 1, true, now(), now(), now(),"
            " 'failed', %s, %s, %s, %s::jsonb, %s, %s::jsonb from rowcron.job as j"
            " where j.name = %s",
            [run, *[ALL_OF_IT] * 3, packed, ALL_OF_IT, packed, evil],
        )
        db.execute(
            "insert into rowcron.worker (id, host, pid, version, queues, kinds, handlers,"
            " concurrency, lease, poll, started_at, seen_at, expires_at) values"
            " (gen_random_uuid(), %s, 1, %s, %s, '{sql}', %s, 1, '10 s', '5 s', now(), now(),"
            " now() + interval '1 hour')",
            [ALL_OF_IT[:200], ALL_OF_IT[:40], [ALL_OF_IT], [ALL_OF_IT]],
        )
    return run


PLAIN = (
    "job list", "job show NAME", "runs list", "runs list --job NAME", "runs output RUN", "history",
    "history --run RUN", "history --job NAME", "upcoming", "why NAME",
)  # fmt: skip
AS_JSON = ("job list --json", "history --json", "runs list --json", "why NAME --json")


@pytest.mark.parametrize("form", ["plain", "json"])
def test_what_was_planted_is_shown_spelt_out(
    jobs: Jobs, say: Say, db: psycopg.Connection, attack: Attack, form: str
) -> None:
    run = plant(db, jobs)
    number = jobs.db.execute("select min(id) from rowcron.job").fetchone()[0]
    name = jobs.db.execute("select name from rowcron.job where id = %s", [number]).fetchone()[0]
    for words in PLAIN if form == "plain" else AS_JSON:
        arguments = [{"NAME": name, "RUN": str(run)}.get(word, word) for word in words.split()]
        tried = attack(f"all of it planted in every column: rowcron {words}")
        shown = say(*arguments)
        assert "\\x1b" in shown or "\\u001b" in shown, (arguments, shown[:500])
        assert steering(shown, "\n\t") == [], (arguments, shown[:500])
        if arguments[0] != "runs" and "show" not in arguments:
            assert "\n12:00:00.000 alice.job run 1 succeeded" not in shown
        tried.stopped("nothing but printable characters and line ends reaches the terminal")


def lines_of(worker: Any) -> list[str]:
    """The console's lines."""
    return worker.console.read_text("utf-8").split("\n")  # type: ignore[no-any-return]


def test_logs_tell_one_line_an_event(jobs: Jobs, start: Start, attack: Attack) -> None:
    worker = start("--kind", "sql,shell,http,python", "--log-level", "debug")
    literal = "E'" + "".join(f"\\U{ord(c):08x}" for c in ALL_OF_IT) + "'"
    octal = "".join(f"\\0{byte:03o}" for byte in ALL_OF_IT.encode())
    runs = {
        "the error of a SQL job": ("sql", f"do $$ begin raise exception '%', {literal}; end $$"),
        "a notice of a SQL job": ("sql", f"do $$ begin raise notice '%', {literal}; end $$"),
        "the detail and hint of an error": (
            "sql",
            f"do $$ begin raise exception 'x' using detail = {literal}, hint = {literal}; end $$",
        ),
        "the name of a missing table": (
            "sql",
            f"do $$ begin execute format('select * from %I', left({literal}, 40)); end $$",
        ),
        "the output of a shell job": ("shell", f"printf '%b' '{octal}'; exit 1"),
        "an answer that is no http": ("http", "http://127.0.0.1:1/\nX-A: b"),
    }
    for what, (kind, command) in runs.items():
        tried = attack(f"all of it in {what}: the worker's log")
        run = jobs.run(kind, command)
        jobs.end(run)
        worker.wait_for("end", run_id=run)
        tried.stopped("one line on the console, one ASCII line of JSON in the file")
    text = worker.console.read_text("utf-8")
    assert "\\x1b" in text
    assert steering(text) == []
    assert not [line for line in lines_of(worker) if line.startswith("12:00:00.000 alice.job")]
    raw = worker.log.read_bytes()
    assert raw.isascii()
    assert not set(raw) - set(range(0x20, 0x7F)) - {0x0A}
    assert all(json.loads(line) for line in raw.decode().splitlines())


def test_output_is_kept_as_it_came(jobs: Jobs, start: Start, say: Say, attack: Attack) -> None:
    start("--kind", "sql,shell")
    octal = "".join(f"\\0{byte:03o}" for byte in ALL_OF_IT.encode())
    run = jobs.run("shell", f"printf '%b' '{octal}'")
    assert jobs.end(run)["output"] == ALL_OF_IT
    tried = attack("escape sequences in the output of a shell job: rowcron runs output")
    shown = say("runs", "output", str(run))
    assert steering(shown) == []
    assert "\\x1b[2J" in shown
    tried.stopped("spelt out on a terminal; the ledger and a pipe have what the job wrote")


def test_who_sees_commands_and_args(
    jobs: Jobs, bob: psycopg.Connection, connect: Any, db: psycopg.Connection, attack: Attack
) -> None:
    jobs.add("http", "https://x.example/hidden-path", args={"a": "hidden-arg"}, schedule="@daily")
    jobs.start("job-0", {"a": "hidden-arg"})
    jobs.owner.execute("update rowcron.job set description = 'hidden-too'")
    jobs.owner.execute("delete from rowcron.job where name = 'job-0'")
    tables = [
        row[0]
        for row in db.execute(
            "select c.oid::regclass::text from pg_class as c where c.relkind in ('r', 'p', 'v')"
            " and c.relnamespace = 'rowcron'::regnamespace and not c.relispartition"
        )
    ]
    seen = {}
    for who in ("alice", "bob", "w_worker"):
        conn, found = connect(who), []
        for table in tables:
            try:
                rows = conn.execute(f"select x::text from {table} as x".encode()).fetchall()
            except psycopg.errors.InsufficientPrivilege:
                continue
            found += [table for (text,) in rows if "hidden" in text]
        seen[who] = sorted(set(found))
    assert "rowcron.ledger" in seen["alice"]
    assert "rowcron.change" in seen["alice"]
    for who in ("bob", "w_worker"):
        tried = attack(
            f"read commands and args of alice's, as {who}, in {len(tables)} tables, views"
        )
        assert seen[who] == []
        tried.stopped("row security, or no right at all")
