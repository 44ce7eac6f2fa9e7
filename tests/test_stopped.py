"""What becomes of a run that its worker breaks off because it was told to stop."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Iterator

import pytest

from chaos.silent_proxy import Proxy
from harness import WORKER, Database, TestServer, wait_until
from workers import Jobs, Start, WorkerProcess, jobs, start

__all__ = ["jobs", "start"]
STOPPED = "its worker was stopped"
AT_ONCE = ("--kind", "sql,shell,http,python", "--grace", "0")


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A server that takes requests and answers none."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        yield server


def begun(worker: WorkerProcess, run: int) -> None:
    """Wait until it is executed."""
    worker.wait_for("start", run_id=run)


def test_what_has_begun_is_an_attempt_and_the_last_where_a_loss_is_final(
    jobs: Jobs, start: Start, database: Database, silent: socket.socket
) -> None:
    jobs.db.execute("select rowcron.grant_connection('admin', 'alice')")
    worker = start(*AT_ONCE, ROWCRON_CONNECTION_ADMIN=database.url("alice"))
    once = {"on_lost": "fail", "max_attempts": 5}
    effect = "insert into public.effect values (7); select pg_sleep(60)"
    url = f"POST http://127.0.0.1:{silent.getsockname()[1]}/"
    runs = [
        jobs.run("shell", "echo it has begun; sleep 60", **once),
        jobs.run("python", "sleep", {"seconds": 60}, **once),
        jobs.run("python", "sleep_async", {"seconds": 60}, **once),
        jobs.run("python", "insert", {"then": "sleep"}, **once),
        jobs.run("python", "insert_async", {"then": "sleep"}, **once),
        jobs.run("python", "stubborn", **once),
        jobs.run("sql", effect, connection="admin", **once),
        jobs.run("http", url, **once),
    ]
    asleep = "select count(*) from pg_stat_activity where query = 'select pg_sleep(30)'"
    wait_until(lambda: jobs.db.execute(asleep).fetchone() == (2,), what="two handlers' statements")
    wait_until(lambda: jobs.db.execute("select 1 from public.effect where n = 7").fetchone())
    asked, _ = silent.accept()
    for run in runs:
        begun(worker, run)
    assert worker.stop() == 0
    asked.close()
    for run in runs:
        (entry,) = jobs.entries(run)
        assert (entry["outcome"], entry["final"], entry["attempt"], entry["reason"]) == (
            "lost",
            True,
            1,
            f"{STOPPED}; on_lost = fail",
        )
    assert jobs.entries(runs[0])[0]["output"] == "it has begun\n"
    start(*AT_ONCE)
    assert jobs.end(jobs.run("python", "nothing"))["outcome"] == "succeeded"
    assert [len(jobs.entries(run)) for run in runs] == [1] * len(runs)


def test_of_what_has_not_begun_nothing_is_recorded(jobs: Jobs, start: Start) -> None:
    worker = start(*AT_ONCE, "--handler-connections", "1", "--sql-connections", "2")
    once = {"on_lost": "fail"}
    holds = jobs.run("python", "insert_async", {"then": "sleep"}, **once)
    asleep = "select 1 from pg_stat_activity where query = 'select pg_sleep(30)'"
    wait_until(lambda: jobs.db.execute(asleep).fetchone(), what="the connection's use")
    waits = jobs.run("python", "insert_async", **once)
    undone = jobs.run("sql", "select pg_sleep(60)", **once)
    for run in (waits, undone):
        begun(worker, run)
    assert worker.stop() == 0
    assert jobs.entries(holds)[0]["reason"] == f"{STOPPED}; on_lost = fail"
    for run in (waits, undone):
        assert jobs.entries(run) == []
    query = "select state, attempt from rowcron.run order by id"
    assert jobs.db.execute(query).fetchall() == [("ready", 1), ("ready", 1)]


class Slow(Proxy):
    """Takes its time to connect."""

    def _connect(self) -> socket.socket | None:
        time.sleep(1)
        return super()._connect()


def test_a_job_whose_stop_comes_while_its_connection_is_made_does_not_begin(
    jobs: Jobs, start: Start, server: TestServer, database: Database
) -> None:
    slow = Slow(server.base / "socket" / ".s.PGSQL.5432")
    url = f"postgresql://{WORKER}@127.0.0.1:{slow.port}/{database.name}"
    try:
        worker = start(*AT_ONCE, "--sql-database-url", url)
        run = jobs.run("sql", "select pg_sleep(60)")
        begun(worker, run)
        assert worker.stop() == 0
    finally:
        slow.close()
    assert jobs.entries(run) == []
    query = "select state, attempt from rowcron.run"
    assert jobs.db.execute(query).fetchall() == [("ready", 1)]


def test_a_job_that_outlasts_every_deployment_is_not_lost_by_them(jobs: Jobs, start: Start) -> None:
    command = 'test "$ROWCRON_ATTEMPT" = 4 || sleep 60'
    run = jobs.run("shell", command, on_lost="retry", max_lost=1)
    for attempt in (1, 2, 3):
        worker = start(*AT_ONCE)
        worker.wait_for("start", run_id=run, attempt=attempt)
        assert worker.stop() == 0
        assert worker.wait_for("end", run_id=run)["reason"] == STOPPED
    start(*AT_ONCE)
    assert jobs.end(run)["outcome"] == "succeeded"
    found = [(e["attempt"], e["outcome"], e["final"], e["reason"]) for e in jobs.entries(run)]
    lost = [(attempt, "lost", False, STOPPED) for attempt in (1, 2, 3)]
    assert found == [*lost, (4, "succeeded", True, None)]


def test_what_could_not_be_reported_before_the_last_word_was_lost_all_the_same(
    jobs: Jobs, start: Start
) -> None:
    """Its row is locked by a transaction for as long as the worker lives."""
    worker = start(*AT_ONCE)
    run = jobs.run("python", "sleep_async", {"seconds": 60}, on_lost="fail")
    begun(worker, run)
    with jobs.db.transaction():
        jobs.db.execute("select from rowcron.run where id = %s for update", (run,))
        worker.send(signal.SIGTERM)
        assert worker.process.wait(30) == 1
    start(*AT_ONCE)
    assert jobs.end(run)["reason"] == f"{STOPPED}; on_lost = fail"
