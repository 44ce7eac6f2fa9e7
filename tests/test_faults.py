"""Faults and bad input seen from outside: workers die, stop, find nothing; the ledger tells it."""

from __future__ import annotations

import http.server
import json
import signal
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from harness import Database, wait_until
from soak.compare import compare
from soak.jobs import Job
from test_cli import rowcron
from test_worker_faults import MortalServer, connected, mortal
from workers import Jobs, Start, jobs, start

__all__ = ["jobs", "mortal", "start"]
APP = ("--app", "fault_app")
ALL = ("--kind", "sql,shell,http,python", *APP)
MIB = 1_048_576


class HangsOnce(http.server.BaseHTTPRequestHandler):
    """Never answers the first request under a key; the second one at once."""

    keys: list[str]
    over: threading.Event

    def do_GET(self) -> None:
        """Hang or answer."""
        key = self.headers["Idempotency-Key"]
        self.keys.append(key)
        if self.keys.count(key) == 1:
            self.over.wait(60)
            return
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def hanging() -> Iterator[tuple[str, list[str]]]:
    """The address of such a server, and the keys that it has seen."""
    keys: list[str] = []
    over = threading.Event()
    answers = type("Answers", (HangsOnce,), {"keys": keys, "over": over})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/", keys
        over.set()
        server.shutdown()
        thread.join()


def test_runs_of_a_killed_worker_are_another_s_within_15_s_whatever_their_kind(
    jobs: Jobs, start: Start, hanging: tuple[str, list[str]]
) -> None:
    url, keys = hanging
    effect = "insert into public.effect select {attempt}, current_setting('rowcron.run_id')::bigint"
    hang = "select case when current_setting('rowcron.attempt') = '1' then pg_sleep(60) end"
    first = start(*ALL)
    runs = {
        "sql": jobs.run("sql", f"{effect.format(attempt='1')}; {hang}"),
        "shell": jobs.run("shell", '[ "$ROWCRON_ATTEMPT" -gt 1 ] || exec sleep 60'),
        "http": jobs.run("http", url),
        "python": jobs.run("python", "first_attempt_hangs", {}),
    }
    for run in runs.values():
        jobs.wait_running(run)
    wait_until(lambda: keys, what="the first request")
    start(*ALL)
    first.send(signal.SIGKILL)
    begin = time.monotonic()
    for kind, run in runs.items():
        end = jobs.end(run, 30)
        took = time.monotonic() - begin
        assert end["outcome"] == "succeeded", (kind, end)
        entries = jobs.entries(run)
        assert [entry["outcome"] for entry in entries] == ["lost", "succeeded"], kind
        assert [entry["final"] for entry in entries] == [False, True], kind
        assert took < 15, (kind, took)
    assert keys == keys[:1] * 2  # the second attempt shows the key of the first
    effects = jobs.db.execute("select run_id from public.effect order by run_id").fetchall()
    assert effects == sorted([(runs["sql"],), (runs["python"],)])


def test_a_worker_stopped_past_its_lease_is_refused_and_doubles_nothing(
    jobs: Jobs, start: Start
) -> None:
    first = start(*APP, "--lease", "2", "--poll", "0.5")
    slow = jobs.run("python", "first_attempt_hangs", {"seconds": 3})
    jobs.wait_running(slow)
    wait_until(
        lambda: jobs.db.execute(
            "select 1 from pg_stat_activity where state = 'idle in transaction'"
            " and datname = current_database()"
        ).fetchone(),
        what="the handler's insert",
    )
    first.send(signal.SIGSTOP)
    start(*APP, "--lease", "2", "--poll", "0.5")
    assert jobs.end(slow)["attempt"] == 2
    first.send(signal.SIGCONT)
    assert first.wait_for("refused", run_id=slow)["code"] == "RCCLM"
    assert first.wait_for("lost")["code"] == "RCWRK"
    assert [entry["outcome"] for entry in jobs.entries(slow)] == ["lost", "succeeded"]
    assert jobs.db.execute("select n, run_id from public.effect").fetchall() == [(2, slow)]


def test_a_schedule_of_each_second_survives_crashes_of_the_server(
    mortal: MortalServer, start: Start
) -> None:
    database = mortal.create_database()
    worker = start(*APP, "--poll", "1", url=database.url("w_worker"))
    commands = {
        "sql": "select pg_sleep(0.3); insert into public.effect"
        " select 1, current_setting('rowcron.run_id')::bigint",
        "sql again": "insert into public.effect"
        " select 2, current_setting('rowcron.run_id')::bigint; select pg_sleep(0.6)",
    }
    with connected(database) as jobs:
        jobs.db.execute("create table public.effect (n integer, run_id bigint)")
        jobs.db.execute("grant all on public.effect to alice")
        now = jobs.db.execute("select date_trunc('second', clock_timestamp())").fetchone()[0]
        begin, end = now + timedelta(seconds=2), now + timedelta(seconds=12)
        window = {"starts_at": begin, "ends_at": end, "max_lost": 100}
        for name, command in commands.items():
            jobs.add("sql", command, name=name, schedule="* * * * * *", **window)
    for number in (signal.SIGQUIT, signal.SIGINT):
        with connected(database) as jobs:
            seen = jobs.db.execute("select count(*) from rowcron.ledger where final").fetchone()[0]
            wait_until(lambda jobs=jobs, seen=seen: _final(jobs) > seen + 1, what="progress")
            at_work = "select count(*) from pg_stat_activity where query like '%rowcron.execute(%'"
            at_work += " and state = 'active' and pid <> pg_backend_pid()"
            wait_until(
                lambda jobs=jobs, at_work=at_work: jobs.db.execute(at_work).fetchone() != (0,),
                what="a run under way",
            )
        down = _cli_while_down(mortal, database, number)
        assert "Error:" in down
        assert "Traceback" not in down
        mortal.start_again()
    with connected(database) as jobs:
        wait_until(lambda: datetime.now(UTC) > end and not _left(jobs), 30, "the last run")
        for name in commands:
            entries = _entries(jobs, name)
            compared = compare(Job("alice", name, "sql", "* * * * * *", ""), entries, begin, end)
            assert compared.differences == [], compared
            assert compared.outcomes.keys() <= {"succeeded", "skipped", "missed"}, compared
            assert compared.outcomes["succeeded"] >= 1, compared
        effects = jobs.db.execute("select run_id from public.effect order by 1").fetchall()
        succeeded = jobs.db.execute(
            "select run_id from rowcron.ledger where final and outcome = 'succeeded' order by 1"
        ).fetchall()
        assert effects == succeeded
        lost = "select count(*) from rowcron.ledger where outcome = 'lost' and not final"
        assert jobs.db.execute(lost).fetchone() != (0,)  # else nothing was hit
    assert len(worker.events("unavailable")) == 2  # said once each time
    assert worker.stop() == 0


def _final(jobs: Jobs) -> int:
    return int(jobs.db.execute("select count(*) from rowcron.ledger where final").fetchone()[0])


def _left(jobs: Jobs) -> bool:
    live = jobs.db.execute("select 1 from rowcron.run").fetchone()
    due = jobs.db.execute("select 1 from rowcron.agenda where next_run_at is not null").fetchone()
    return live is not None or due is not None


def _entries(jobs: Jobs, name: str) -> list[dict[str, str]]:
    names = ("final", "outcome", "scheduled_for", "first_scheduled_for", "occurrences")
    columns = ", ".join(f"coalesce({name}::text, '')" for name in names[1:])
    query = f"select left(final::text, 1), {columns} from rowcron.ledger where job = %s"
    rows = jobs.db.execute(query.encode(), (name,)).fetchall()
    return [dict(zip(names, row, strict=True)) for row in rows]


def _cli_while_down(mortal: MortalServer, database: Database, number: signal.Signals) -> str:
    mortal.end(number)
    done = rowcron("upcoming", env={"ROWCRON_DATABASE_URL": database.url("alice")})
    assert done.returncode == 1, done.stdout
    return done.stderr


@pytest.mark.parametrize(
    ("kind", "command", "with_it", "says"),
    [
        ("shell", "echo here", ("--kind", "shell"), 'queue "default" and kind "shell"'),
        ("python", "length", APP, 'no live worker has the handler "length"'),
    ],
)  # fmt: skip
def test_what_no_worker_has_waits_and_says_why(
    jobs: Jobs, start: Start, database: Database, kind: str, command: str, with_it: Any, says: str
) -> None:
    other = start()
    name = jobs.add(kind, command)
    run = jobs.start(name, {"text": "abc"})
    assert jobs.end(jobs.run("sql", "select 1"))["outcome"] == "succeeded"  # others go on
    assert not jobs.running(run)
    told = rowcron("why", name, env={"ROWCRON_DATABASE_URL": database.url("alice")})
    assert told.returncode == 0, told.stderr
    (line,) = [line for line in told.stdout.splitlines() if line.startswith("\N{BALLOT X}")]
    assert says in line
    start(*with_it)
    assert jobs.end(run)["outcome"] == "succeeded"
    assert other.stop() == 0


def test_a_megabyte_is_taken_and_a_byte_more_refused_whatever_the_kind(
    jobs: Jobs, start: Start, database: Database
) -> None:
    start(*ALL)
    env = {"ROWCRON_DATABASE_URL": database.url("alice")}
    comment = "select 1 -- "
    longest = comment + "x" * (MIB - len(comment))
    done = rowcron("job", "add", "long", "@yearly", "-", input=longest, env=env)
    assert done.returncode == 0, done.stderr
    assert jobs.end(jobs.start("long"))["result"]["first"] == {"?column?": 1}
    done = rowcron("job", "add", "longer", "@yearly", "-", input=longest + "x", env=env)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "longer than 1 MiB" in done.stderr
    assert "Hint:" in done.stderr

    frame = len(json.dumps({"text": ""}))  # as jsonb is written
    args = {"text": "ä" * ((MIB - frame) // 2)}
    assert jobs.end(jobs.run("python", "length", args))["result"] == len(args["text"])
    measured = "select length(current_setting('rowcron.args')::jsonb ->> 'text') as n"
    assert jobs.end(jobs.run("sql", measured, args))["result"]["first"] == {"n": len(args["text"])}
    with pytest.raises(psycopg.Error) as refused:
        jobs.start("long", {"text": args["text"] + "ä"})
    assert refused.value.sqlstate == "RCCMD"
    assert "1 MiB" in (refused.value.diag.message_detail or "")


def test_a_job_removed_while_it_runs_ends_without_further_attempts(
    jobs: Jobs, start: Start, database: Database, tmp_path: Path
) -> None:
    start(*ALL)
    env = {"ROWCRON_DATABASE_URL": database.url("alice")}
    wait = f"until [ -e {tmp_path}/removed ]; do sleep 0.05; done"
    good = jobs.run("shell", f"{wait}; echo done", name="good")
    bad = jobs.run("shell", f"{wait}; exit 3", name="bad", max_attempts=5, retry_delay="0 s")
    for run in (good, bad):
        jobs.wait_running(run)
    done = rowcron("job", "remove", "good", "bad", env=env)
    assert done.returncode == 0, done.stderr
    (tmp_path / "removed").touch()
    entry = jobs.end(good)
    assert (entry["job"], entry["outcome"], entry["output"]) == ("good", "succeeded", "done\n")
    entry = jobs.end(bad)
    assert (entry["job"], entry["outcome"], len(jobs.entries(bad))) == ("bad", "failed", 1)
    assert "job deleted" in entry["reason"]
    told = rowcron("history", "--run", str(bad), env=env)
    assert (told.returncode, "bad" in told.stdout) == (0, True), told.stderr
