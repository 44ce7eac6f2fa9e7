"""Three clients that share nothing, psql, psycopg and Node's pg: refused alike, served alike."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest

import node
from harness import Database, wait_until
from workers import Start, start

__all__ = ["start"]

GOOD = {"name": "good", "schedule": "0 3 * * *", "command": "select 1"}


@dataclass
class Answer:
    """What a client was told: rows, or an error's SQLSTATE and texts; and warnings."""

    rows: list[list[Any]] = field(default_factory=list)
    code: str = ""
    message: str = ""
    detail: str = ""
    hint: str = ""
    warnings: list[str] = field(default_factory=list)


Ask = Callable[[str, dict[str, Any]], Answer]  # SQL with :name for values, as alice


def with_psql(database: Database) -> Ask:
    """psql: the values stand in the statement, everything comes back as text."""

    def ask(statement: str, values: dict[str, Any]) -> Answer:
        variables = [part for k, v in values.items() for part in ("-v", f"{k}={as_text(v)}")]
        text = re.sub(r"(?<!:):(\w+)", r":'\1'", statement)
        options = ["-XqAt", "-v", "VERBOSITY=verbose", "-v", "ON_ERROR_STOP=1", "-F", "\t"]
        done = subprocess.run(
            [str(database.server.bin / "psql"), *options, *variables, "-d", database.url("alice")],
            input=text + ";",
            capture_output=True,
            text=True,
            check=False,
        )
        rows = [line.split("\t") for line in done.stdout.splitlines()]
        told = dict(
            re.findall(r"^(\w+):  (.*)$", done.stderr.replace("psql:<stdin>:1: ", ""), re.M)
        )
        warnings = [told["WARNING"]] if "WARNING" in told else []
        if done.returncode == 0:
            return Answer(rows, warnings=warnings)
        code, message = told["ERROR"].split(": ", 1)
        return Answer([], code, message, told.get("DETAIL", ""), told.get("HINT", ""), warnings)

    return ask


def with_psycopg(database: Database) -> Ask:
    """psycopg: the values travel apart from the statement, in binary where it knows how."""

    def ask(statement: str, values: dict[str, Any]) -> Answer:
        answer = Answer()
        with psycopg.connect(database.url("alice"), autocommit=True) as connection:
            connection.add_notice_handler(
                lambda notice: answer.warnings.append(notice.message_primary or "")
            )
            text = re.sub(r"(?<!:):(\w+)", r"%(\1)s", statement)
            values = {k: json.dumps(v) if isinstance(v, dict) else v for k, v in values.items()}
            try:
                cursor = connection.execute(text.encode(), values)
                answer.rows = [list(row) for row in cursor] if cursor.description else []
            except psycopg.Error as error:
                diag = error.diag
                answer.code, answer.message = error.sqlstate or "", diag.message_primary or ""
                answer.detail, answer.hint = diag.message_detail or "", diag.message_hint or ""
        return answer

    return ask


def with_node(database: Database) -> Ask:
    """Node's pg: the values travel as text, their types are the server's to find."""
    connection = {
        "host": str(database.server.base / "socket"),
        "user": "alice",
        "database": database.name,
    }

    def ask(statement: str, values: dict[str, Any]) -> Answer:
        names = list(values)
        text = re.sub(r"(?<!:):(\w+)", lambda match: f"${names.index(match[1]) + 1}", statement)
        (answer,) = node.query(connection, [(text, [values[name] for name in names])])
        warnings = [notice["message"] for notice in answer["notices"]]
        if "error" not in answer:
            return Answer(answer["rows"], warnings=warnings)
        return Answer(
            warnings=warnings, **{k: v for k, v in answer["error"].items() if v is not None}
        )

    return ask


CLIENTS = {"psql": with_psql, "psycopg": with_psycopg, "node": with_node}


@pytest.fixture(params=CLIENTS)
def ask(request: pytest.FixtureRequest, database: Database) -> Ask:
    """One client after the other, each as alice, who has never had a job."""
    return CLIENTS[request.param](database)


def as_text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict) else str(value)


def insert(ask: Ask, **columns: Any) -> Answer:
    """Insert a job; the good one with some columns changed."""
    columns = GOOD | columns
    names, marks = ", ".join(columns), ", ".join(f":{name}" for name in columns)
    return ask(f"insert into rowcron.job ({names}) values ({marks}) returning id", columns)


def stored(db: psycopg.Connection[Any]) -> dict[str, Any]:
    """How much stands in each table of ours, and which functions and grants executors have."""
    tables = db.execute(
        "select oid::regclass::text from pg_class where relnamespace = 'rowcron'::regnamespace"
        " and relkind = 'r'"
    ).fetchall()
    counts = {
        table: db.execute(f"select count(*) from {table}".encode()).fetchone()
        for (table,) in tables
    }
    executors = db.execute(
        "select (select count(*) from pg_proc where pronamespace = n.oid), nspacl::text"
        " from pg_namespace as n where nspname = 'rowcron_executor'"
    ).fetchone()
    return {**counts, "executors": executors}


# the columns that are wrong, the code, and words that must stand in the message and in the detail
REFUSED: list[tuple[dict[str, Any], str, str, str]] = [
    ({"schedule": "61 * * * *"}, "RCSCH", "61", "minute"),
    ({"schedule": "* * * *"}, "RCSCH", "* * * *", "field"),
    ({"schedule": "@every 0 seconds"}, "RCSCH", "0 seconds", ""),
    ({"schedule": "0 3 31 2 *"}, "RCSCH", "0 3 31 2 *", ""),
    ({"kind": "perl"}, "RCKND", "perl", "sql, shell, http, python"),
    ({"timezone": "Mars/Olympus"}, "RCTZN", "Mars/Olympus", ""),
    ({"timezone": "EST5EDT4"}, "RCTZN", "EST5EDT4", ""),
    ({"timeout": "0 seconds"}, "RCLIM", "timeout", "more than 0, at most 30 days"),
    ({"timeout": "31 days"}, "RCLIM", "timeout", "more than 0, at most 30 days"),
    ({"retry_delay": "-1 second"}, "RCLIM", "retry_delay", "0 to 30 days"),
    ({"max_attempts": 0}, "RCLIM", "max_attempts", "1 to 1000"),
    ({"max_running": 0}, "RCLIM", "max_running", "1 or more"),
    ({"on_missed": "never"}, "RCLIM", "on_missed", "latest, skip, all"),
    ({"name": "a.b"}, "RCNAM", "a.b", "1 to 200 bytes"),
    ({"name": "\u20ac" * 67}, "RCNAM", "\u20ac\u20ac", "1 to 200 bytes"),
    ({"name": "tab\there"}, "RCNAM", "here", "no control characters"),
    ({"command": " "}, "RCCMD", "empty", "1 byte to 1 MiB"),
    ({"command": "vacuum"}, "RCCMD", "vacuum", "one transaction"),
    ({"kind": "shell"}, "RCOWN", "shell", "rowcron_shell"),
]


def test_a_bad_row_is_refused_with_what_would_be_right_and_leaves_nothing(
    ask: Ask, db: psycopg.Connection[Any]
) -> None:
    before = stored(db)
    for columns, code, message, detail in REFUSED:
        answer = insert(ask, **columns)
        assert answer.code == code, (columns, answer)
        assert message in answer.message, (columns, answer)
        assert detail in answer.detail, (columns, answer)
        assert answer.hint, (columns, answer)
        assert answer.message[0] not in "ABCDEFGHIJKLMNOPQRSTUVWXYZ", answer
        assert not answer.message.endswith("."), answer
    assert stored(db) == before


def test_what_postgresql_itself_refuses_leaves_nothing_either(
    ask: Ask, db: psycopg.Connection[Any]
) -> None:
    before = stored(db)
    answer = ask(
        "insert into rowcron.job (name, command, args) values ('nul', 'select 1', :args::jsonb)",
        {"args": '{"text": "a\\u0000b"}'},
    )
    assert answer.code == "22P05", answer
    answer = insert(ask, timeout="soon")
    assert answer.code == "22007", answer
    assert stored(db) == before


def test_a_good_row_warns_without_a_worker_and_runs_with_one(ask: Ask, start: Start) -> None:
    columns = {
        "name": "each second, \"now\" 'and' then \N{ROCKET}",
        "schedule": "* * * * * *",
        "command": "select current_setting('rowcron.args')::jsonb ->> 'n' as n, user as who",
        "args": {"n": 7},
    }
    answer = insert(ask, **columns)
    assert len(answer.rows) == 1, answer
    assert ["no live worker" in warning for warning in answer.warnings] == [True], answer
    name = {"name": columns["name"]}
    start()
    ended = "select result -> 'first' ->> 'n', result -> 'first' ->> 'who', outcome"
    ended += " from rowcron.history where job = :name and run_id = :run::bigint"
    latest = "select max(run_id) from rowcron.history where job = :name and outcome = 'succeeded'"

    def first_run() -> Any:
        return ask(latest, name).rows[0][0]

    run = wait_until(first_run, what="the first scheduled run")
    assert ask(ended, {**name, "run": run}).rows == [["7", "alice", "succeeded"]]

    pause = ask("update rowcron.job set enabled = false where name = :name", name)
    assert not pause.code, pause
    enqueue = "select rowcron.enqueue(:name, :args::jsonb, key => :key)"
    asked = {**name, "args": {"n": 8}, "key": "invoice 4711"}
    (run,) = ask(enqueue, asked).rows[0]
    found = wait_until(lambda: ask(ended, {**name, "run": run}).rows, what="the enqueued run")
    assert found == [["8", "alice", "succeeded"]]
    assert ask(enqueue, asked).rows == [[run]]  # the same key names the run that exists


def test_enqueue_refuses_what_cannot_be(ask: Ask, db: psycopg.Connection[Any]) -> None:
    assert not insert(ask, schedule="@yearly").code
    before = stored(db)
    answer = ask("select rowcron.enqueue(:name)", {"name": "nothing"})
    assert (answer.code, "nothing" in answer.message) == ("RCNOJ", True), answer
    assert answer.hint
    answer = ask("select rowcron.enqueue(:name, key => :key)", {"name": "good", "key": ""})
    assert (answer.code, "1 to 500 bytes" in answer.detail) == ("RCKEY", True), answer
    answer = ask(
        "select rowcron.enqueue(:name, jsonb_build_object('x', repeat('x', 1048576)))",
        {"name": "good"},
    )
    assert (answer.code, "1 MiB" in answer.detail) == ("RCCMD", True), answer
    assert stored(db) == before
