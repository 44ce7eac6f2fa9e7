"""SQL jobs over a connection of the worker's configuration: statement by statement."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness import Database, wait_until
from workers import Jobs, Start, WorkerProcess, jobs, start

__all__ = ["jobs", "start"]
DEAF = (
    "do $$ begin loop begin perform pg_sleep(1), 'deaf';"
    " exception when query_canceled then null; end; end loop; end $$"
)
LIVING = "select count(*) from pg_stat_activity where query ~ %s and pid <> pg_backend_pid()"


class Named:
    """A worker that has the connection `named`, and jobs over it."""

    def __init__(self, jobs: Jobs, start: Start, url: str) -> None:
        jobs.db.execute("select rowcron.grant_connection('named', 'alice')")
        self.jobs = jobs
        self.worker: WorkerProcess = start("--kind", "sql", ROWCRON_CONNECTION_NAMED=url)

    def run(self, command: str, **columns: Any) -> int:
        """Start a job of that command."""
        return self.jobs.run("sql", command, connection="named", **columns)

    def end(self, command: str, **columns: Any) -> dict[str, Any]:
        """The final entry of such a job."""
        return self.jobs.end(self.run(command, **columns))

    def nobody_executes(self, text: str, limit: float) -> None:
        """Wait until no session executes a statement with that text."""
        count = self.jobs.db.execute
        wait_until(lambda: count(LIVING, (text,)).fetchone() == (0,), limit, f"the end of {text}")


@pytest.fixture
def named(jobs: Jobs, start: Start, database: Database) -> Named:
    """Over the login of alice, who is not a superuser."""
    return Named(jobs, start, database.url("alice"))


def test_a_statement_that_swallows_its_timeout_is_terminated(named: Named) -> None:
    entry = named.end(DEAF, timeout="200 ms")
    assert (entry["outcome"], entry["reason"]) == ("failed", "timeout")
    assert entry["error"] == "timed out after 0:00:00.200000"
    named.nobody_executes("deaf", 0.5)
    assert named.end("select 1 as one")["result"] == {"one": 1}


def test_a_statement_that_swallows_its_cancel_is_terminated(named: Named) -> None:
    run = named.run(DEAF)
    named.jobs.wait_running(run)
    named.jobs.owner.execute("select rowcron.cancel(%s)", (run,))
    assert named.jobs.end(run)["outcome"] == "cancelled"
    named.nobody_executes("deaf", 0.5)


def test_what_cannot_be_terminated_is_said_and_ends_when_nobody_listens(named: Named) -> None:
    named.jobs.db.execute(
        "revoke execute on function pg_terminate_backend(integer, bigint) from public"
    )
    entry = named.end(DEAF, timeout="200 ms")
    assert (entry["outcome"], entry["reason"]) == ("failed", "timeout")
    assert entry["error"].endswith("the statement did not end and may go on")
    named.nobody_executes("deaf", 5)


@pytest.mark.parametrize(
    "row",
    [
        "'infinity'::timestamptz as t, 'infinity'::date as d, '24:00'::time as h",
        "'4000 years'::interval as i, 'NaN'::float8 as f, 1.50 as n, 5 as five, true as b",
        "'2026-05-01 12:00+02'::timestamptz as t, '{\"a\": [1, null]}'::json as j",
        "array[[1, 2], [3, 4]] as a, '\\x00ff'::bytea as b, '10.0.0.0/8'::cidr as c",
        "'[1,3)'::int4range as r, 'a\"b' as \"odd \"\" name\", 'pg_class'::regclass as k, '' as e",
        "1 as same, 2 as same, pg_sleep(0) as nothing",
        "repeat('x', 70000) as long",
    ],
)
def test_a_result_is_written_as_that_of_any_sql_job(named: Named, row: str) -> None:
    over = named.end(f"select {row}")
    usual = named.jobs.end(named.jobs.run("sql", f"select {row}"))
    assert (over["outcome"], over["error"]) == ("succeeded", None)
    if "truncated" in usual["result"]:
        assert over["result"] == {"truncated": True, "bytes": 70_000}
    else:
        assert over["result"] == usual["result"]["first"]


def test_what_was_committed_has_succeeded_whatever_it_returned(named: Named) -> None:
    command = "insert into effect values (1) returning n, 'infinity'::timestamptz as t, row(1, 'a')"
    entry = named.end(command, max_attempts=2)
    assert (entry["outcome"], entry["attempt"]) == ("succeeded", 1)
    assert entry["result"] == {"n": "1", "t": "infinity", "row": "(1,a)"}
    assert named.jobs.db.execute("select count(*) from effect").fetchone() == (1,)


def test_rows_beyond_the_first_are_not_held(named: Named) -> None:
    named.end("select 1")
    before = _peak(named.worker)
    entry = named.end("select x, repeat('x', 1000) as y from generate_series(1, 200000) as x")
    assert (entry["outcome"], entry["output"]) == ("succeeded", "SELECT 200000")
    assert entry["result"] == {"x": 1, "y": "x" * 1000}
    assert _peak(named.worker) - before < 20_000  # of 200 MB


def _peak(worker: WorkerProcess) -> int:
    """The most memory that the process has ever had, in KiB."""
    status = Path(f"/proc/{worker.process.pid}/status").read_text("ascii")
    return int(status.partition("VmHWM:")[2].split()[0])


def test_rows_without_end_leave_others_their_turn(named: Named) -> None:
    flood = named.run("select x from generate_series(1, 1000000000) as x", timeout="1 min")
    named.jobs.wait_running(flood)
    assert named.jobs.end(named.jobs.run("sql", "select 1"), 5)["outcome"] == "succeeded"
    named.jobs.owner.execute("select rowcron.cancel(%s)", (flood,))
    assert named.jobs.end(flood, 5)["outcome"] == "cancelled"


def test_rows_that_end_in_an_error_are_a_failure(named: Named) -> None:
    entry = named.end("select 1 / (3 - x) from generate_series(1, 3) as x")
    assert (entry["outcome"], entry["reason"]) == ("failed", "22012")
    assert "division by zero" in entry["error"]


def test_a_transaction_that_is_left_open_is_a_failure(named: Named) -> None:
    entry = named.end("insert into effect values (1); begin; insert into effect values (2)")
    assert (entry["outcome"], entry["reason"]) == ("failed", "transaction")
    assert "left a transaction open; it was rolled back" in entry["error"]
    assert entry["output"] == "INSERT 0 1\nBEGIN\nINSERT 0 1"
    assert named.jobs.db.execute("select n from effect").fetchall() == [(1,)]
    assert named.end("begin; insert into effect values (3); commit")["outcome"] == "succeeded"
    assert named.jobs.db.execute("select n from effect").fetchall() == [(1,), (3,)]


def test_copy_to_the_client_is_refused(named: Named) -> None:
    for command in ("copy effect to stdout", "copy effect from stdin"):
        entry = named.end(command)
        assert entry["outcome"] == "failed"
        assert "COPY" in entry["error"]
    assert named.end("select 1 as one")["result"] == {"one": 1}


def test_statements_are_sent_in_the_encoding_that_the_job_sets(named: Named) -> None:
    entry = named.end("set client_encoding = 'latin1'; select 'ü' as u, 'ü' = U&'\\00fc' as same")
    assert entry["result"] == {"u": "ü", "same": True}
