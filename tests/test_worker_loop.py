"""The worker's loop: waking, sleeping, stopping, many of them together."""

from __future__ import annotations

import os
import re
import signal
import time
from itertools import pairwise
from pathlib import Path

import psycopg
import pytest
from psycopg.types.json import Jsonb

from harness import ROOT, TestServer, wait_until
from workers import Jobs, Start, WorkerProcess, jobs, start

__all__ = ["jobs", "start"]


def asleep(db: psycopg.Connection) -> bool:
    """Whether a worker sleeps, and not lightly."""
    query = "select from rowcron.worker where asleep and unsettled = '{}' and lost_at is null"
    return db.execute(query).fetchone() is not None


def lateness(jobs: Jobs, run: int) -> float:
    """Seconds from a run's due instant to its claim, by the database's clock."""
    entry = jobs.end(run)
    return float((entry["started_at"] - entry["due_at"]).total_seconds())


def test_an_idle_worker_wakes_by_notification(jobs: Jobs, start: Start) -> None:
    start("--poll", "30", "--lease", "120")
    name = jobs.add("python", "nothing")
    for _ in range(3):
        wait_until(lambda: asleep(jobs.db), what="sleep")
        assert lateness(jobs, jobs.start(name)) < 0.5


def test_without_notifications_it_polls(jobs: Jobs, start: Start) -> None:
    jobs.db.execute("update rowcron.setting set value = 'false' where name = 'notify'")
    start("--poll", "0.3")
    name = jobs.add("python", "nothing")
    for _ in range(3):
        wait_until(lambda: asleep(jobs.db), what="sleep")
        assert lateness(jobs, jobs.start(name)) < 2


def test_a_schedule_of_each_second_runs_each_second(jobs: Jobs, start: Start) -> None:
    start("--poll", "30", "--lease", "120")
    name = jobs.add("sql", "select 1", schedule="* * * * * *")
    query = """
      select scheduled_for, started_at, outcome from rowcron.ledger
      where job = %s order by scheduled_for
    """
    rows = wait_until(
        lambda: len(found := jobs.db.execute(query, (name,)).fetchall()) >= 4 and found, 15
    )
    assert {outcome for _, _, outcome in rows} == {"succeeded"}
    instants = [scheduled_for for scheduled_for, _, _ in rows]
    gaps = {(b - a).total_seconds() for a, b in pairwise(instants)}
    assert gaps == {1.0}
    late = sorted((started - due).total_seconds() for due, started, _ in rows)
    assert late[0] >= 0
    assert late[len(late) // 2] < 0.2


def test_idle_means_one_statement_a_poll(jobs: Jobs, start: Start, server: TestServer) -> None:
    jobs.db.execute("alter role w_worker set log_statement to 'all'")
    try:
        start("--poll", "0.5", "--lease", "30")
        wait_until(lambda: asleep(jobs.db), what="sleep")
        log = server.base / "log"
        begin = log.stat().st_size
        time.sleep(2)  # what is measured: two seconds of idleness
        with log.open("rb") as file:
            file.seek(begin)
            statements = re.findall(rb"LOG: +(?:statement|execute)", file.read())
    finally:
        jobs.db.execute("alter role w_worker reset log_statement")
    assert 3 <= len(statements) <= 5


def test_nothing_wakes_an_idle_worker_between_its_polls(jobs: Jobs, start: Start) -> None:
    worker = start("--poll", "30", "--lease", "120")
    wait_until(lambda: asleep(jobs.db), what="sleep")

    def woken() -> int:
        status = Path(f"/proc/{worker.process.pid}/status").read_text("ascii")
        return int(re.findall(r"^voluntary_ctxt_switches:\s+(\d+)", status, re.MULTILINE)[0])

    # the proof that notifications arrive, and the announcement of sleep, may be under way still
    wait_until(lambda: (before := woken()) == (time.sleep(1) or woken()) and before, what="silence")
    before = woken()
    time.sleep(2)  # what is measured: two seconds of idleness
    assert woken() - before <= 2


def test_a_full_worker_still_fires(jobs: Jobs, start: Start) -> None:
    start("--concurrency", "1")
    held = jobs.run("python", "sleep", {"seconds": 30})
    jobs.wait_running(held)
    name = jobs.add("python", "nothing", schedule="* * * * * *", on_overlap="allow")
    query = "select count(*) from rowcron.run where job = %s and state = 'ready'"
    wait_until(lambda: jobs.db.execute(query, (name,)).fetchone()[0] >= 2, 10)
    assert jobs.running(held)


def test_sql_jobs_beyond_the_connections_wait_in_the_database(jobs: Jobs, start: Start) -> None:
    start("--sql-connections", "1", "--concurrency", "10")
    name = jobs.add("sql", "select pg_sleep(30)")
    first, second = jobs.start(name), jobs.start(name)
    jobs.wait_running(first)
    assert jobs.end(jobs.run("python", "nothing"))["outcome"] == "succeeded"
    assert not jobs.running(second)
    jobs.owner.execute("select rowcron.cancel(%s)", (second,))
    jobs.owner.execute("select rowcron.cancel(%s)", (first,))
    assert jobs.end(first)["outcome"] == "cancelled"


def test_sql_jobs_taken_ahead_are_given_back_when_the_lane_is_busy(
    jobs: Jobs, start: Start
) -> None:
    start("--sql-connections", "1", "--concurrency", "10", "--kind", "sql")
    short, long = jobs.add("sql", "select 1"), jobs.add("sql", "select pg_sleep(30)")
    query = "select count(*) from rowcron.enqueue_many(%s, array_fill('{}'::jsonb, array[100]))"
    jobs.owner.execute(query, (short,))
    left = "select count(*) from rowcron.run"
    wait_until(lambda: jobs.db.execute(left).fetchone() == (0,), 30)
    with jobs.owner.transaction():  # so that both are claimed at once
        first, second = jobs.start(long), jobs.start(long)
    jobs.wait_running(first)
    wait_until(lambda: not jobs.running(second), what="what waits to be given back")
    assert jobs.running(first)
    assert jobs.entries(second) == []


def test_workers_never_run_one_run_twice(jobs: Jobs, start: Start) -> None:
    start("--processes", "2", "--concurrency", "7", wait=False)
    start("--concurrency", "50")
    known = "select count(*) from rowcron.worker where lost_at is null"
    wait_until(lambda: jobs.db.execute(known).fetchone() == (3,), what="three workers")
    effect = "insert into public.effect values (0, current_setting('rowcron.run_id')::bigint)"
    sql, python = jobs.add("sql", effect), jobs.add("python", "insert")
    query = "select count(*) from rowcron.enqueue_many(%s, array_fill('{}'::jsonb, array[200]))"
    for name in (sql, python):
        jobs.owner.execute(query, (name,))
    left = "select count(*) from rowcron.run"
    wait_until(lambda: jobs.db.execute(left).fetchone() == (0,), 30)
    counts = "select count(*), count(distinct run_id) from public.effect"
    assert jobs.db.execute(counts).fetchone() == (400, 400)
    ended = "select count(*), count(distinct run_id) from rowcron.ledger where final"
    assert jobs.db.execute(ended).fetchone() == (400, 400)
    workers = "select count(distinct worker_id) from rowcron.ledger"
    assert jobs.db.execute(workers).fetchone()[0] >= 2


def test_a_drain_lets_runs_end(jobs: Jobs, start: Start) -> None:
    worker = start("--kind", "sql,shell,python")
    runs = [
        jobs.run("python", "sleep", {"seconds": 0.7}),
        jobs.run("python", "sleep_async", {"seconds": 0.7}),
        jobs.run("sql", "select pg_sleep(0.7)"),
        jobs.run("shell", "sleep 0.7"),
    ]
    for run in runs:
        jobs.wait_running(run)
    worker.send(signal.SIGTERM)
    worker.wait_for("drain")
    later = jobs.start(jobs.add("python", "nothing"))
    assert worker.process.wait(15) == 0
    assert {jobs.end(run)["outcome"] for run in runs} == {"succeeded"}
    assert jobs.entries(later) == []
    assert not jobs.running(later)


@pytest.mark.parametrize("how", ["grace", "second signal", "hangup"])
def test_what_does_not_end_is_broken_off(jobs: Jobs, start: Start, how: str) -> None:
    grace = "0.3" if how == "grace" else "60"
    worker = start("--kind", "sql,shell,python", "--grace", grace)
    begun = [
        jobs.run("python", "sleep", {"seconds": 60}),
        jobs.run("python", "sleep_async", {"seconds": 60}),
        jobs.run("shell", "sleep 60"),
    ]
    undone = jobs.run("sql", "select pg_sleep(60)")
    for run in (*begun, undone):
        worker.wait_for("start", run_id=run)
    begin = time.monotonic()
    worker.send(signal.SIGHUP if how == "hangup" else signal.SIGTERM)
    if how == "second signal":
        worker.wait_for("drain")
        worker.send(signal.SIGINT)
    assert worker.process.wait(15) == 0
    assert time.monotonic() - begin < 8
    query = "select state, attempt from rowcron.run where id = any (%s)"
    assert jobs.db.execute(query, (begun,)).fetchall() == [("ready", 2)] * 3
    assert jobs.db.execute(query, ([undone],)).fetchall() == [("ready", 1)]
    assert jobs.entries(undone) == []
    for run in begun:
        (entry,) = jobs.entries(run)
        assert (entry["outcome"], entry["reason"]) == ("lost", "its worker was stopped")


def test_several_processes_stop_together_and_are_replaced(
    jobs: Jobs, start: Start, tmp_path_factory: pytest.TempPathFactory
) -> None:
    farewells = tmp_path_factory.mktemp("farewells")
    worker = start("--processes", "2", wait=False, TEST_FAREWELLS=str(farewells))
    query = "select pid from rowcron.worker where lost_at is null order by started_at"

    def pids() -> list[int]:
        return [pid for (pid,) in jobs.db.execute(query).fetchall()]

    wait_until(lambda: len(pids()) == 2, what="two processes")
    victim = pids()[0]
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: len(set(pids()) - {victim}) == 2, what="a replacement")
    living = {str(pid) for pid in set(pids()) - {victim}}
    assert worker.stop() == 0
    assert living <= {path.name for path in farewells.iterdir()}  # what an app registers is called
    wait_until(lambda: not set(pids()) - {victim}, what="no worker left")


def test_a_worker_says_what_it_uses_and_who_changed_what(jobs: Jobs, start: Start) -> None:
    jobs.add("python", "nothing")
    worker = start("--sql-connections", "3")
    assert worker.events("worker")[0]["connections"] == 5 + 3 + 8
    assert "up to 16 connections" in worker.console.read_text("utf-8")
    wait_until(lambda: asleep(jobs.db), what="sleep")
    name = jobs.add("python", "nothing")
    run = jobs.start(name)
    change = worker.wait_for("change", job=name, action="insert")
    assert change["by"] == "alice"
    events = ("claim", "start", "end")
    records = [worker.wait_for(event, run_id=run) for event in events]
    assert records[-1]["outcome"] == "succeeded"
    assert records[-1]["duration"] >= 0
    assert f"alice.{name} run {run} succeeded" in worker.console.read_text("utf-8")


def test_the_console_says_why_a_run_was_abandoned(jobs: Jobs, start: Start) -> None:
    worker = start()
    name = jobs.add("python", "fail")
    run = jobs.start(name, {"how": "abandon"})
    jobs.end(run)
    assert worker.stop() == 0
    (line,) = re.findall(rf"alice\.{name} run {run} .*", worker.console.read_text("utf-8"))
    assert line.endswith(": rowcron.handlers.Abandon: never again")


def test_an_app_or_schema_that_is_missing_ends_it_with_a_sentence(
    jobs: Jobs, start: Start, server: TestServer, worker_url: str, tmp_path: Path
) -> None:
    def last_words(worker: WorkerProcess) -> str:
        assert worker.process.wait(15) == 1
        return worker.console.read_text("utf-8")

    words = last_words(start("--app", "no_such_module", wait=False))
    assert 'Error: app "no_such_module" cannot be imported' in words
    assert "Traceback" not in words
    (tmp_path / "ends.py").write_text("import sys; sys.exit(0)", "utf-8")
    path = f"{ROOT / 'worker'}:{tmp_path}"
    words = last_words(start("--app", "ends", wait=False, PYTHONPATH=path))
    assert 'Error: app "ends" cannot be imported' in words
    assert "SystemExit: 0\nHint: an app is imported, not run" in words
    empty = server.create_database(template="template0")
    words = last_words(start(wait=False, url=empty.url("w_worker")))
    server.drop_database(empty)
    assert "rowcron is not installed in this database" in words
    assert "rowcron install" in words
    jobs.db.execute("update rowcron.setting set value = '\"99.0.0\"' where name = 'oldest_worker'")
    words = last_words(start(wait=False))
    assert "is too old for this schema" in words
    assert "Traceback" not in words


def claimed_ahead(jobs: Jobs, seconds: float) -> str:
    """A job whose runs, the fast ones and then ten slow ones, are about to be executed."""
    name = jobs.add("python", "count_inside")
    many = "select count(*) from rowcron.enqueue_many(%s, array_fill('{}'::jsonb, array[3000]))"
    with jobs.owner.transaction():
        jobs.owner.execute(many, (name,))
        for _ in range(10):
            args = Jsonb({"seconds": seconds})
            jobs.owner.execute("select rowcron.enqueue(%s, %s)", (name, args))
    return name


def wait_for_slow_ones(jobs: Jobs) -> None:
    """Wait until the fast ones have ended, so that of the slow ones some stand in line."""
    fast = "select from rowcron.run where args = '{}'"
    wait_until(lambda: jobs.db.execute(fast).fetchone() is None, 30, "the fast ones' end")


def test_what_is_claimed_ahead_goes_to_others_when_no_room_comes(jobs: Jobs, start: Start) -> None:
    name = claimed_ahead(jobs, 60)
    worker = start("--concurrency", "2", "--kind", "python")
    query = "select state, count(*) from rowcron.run group by state"
    wait_until(
        lambda: (
            [event for event in worker.events("end") if not event.get("final", True)]
            and dict(jobs.db.execute(query).fetchall()) == {"running": 2, "ready": 8}
        ),
        what="eight runs given back",
    )
    start("--concurrency", "8", "--kind", "python")
    wait_until(lambda: dict(jobs.db.execute(query).fetchall()) == {"running": 10})
    query = "select max(result::text::integer), count(*) from rowcron.history where job = %s"
    assert jobs.db.execute(query, (name,)).fetchone() == (2, 3000)


def test_a_drain_gives_back_what_was_claimed_ahead(jobs: Jobs, start: Start) -> None:
    claimed_ahead(jobs, 3)
    worker = start("--concurrency", "2", "--kind", "python")
    wait_for_slow_ones(jobs)
    assert worker.stop() == 0
    query = "select state, count(*) from rowcron.run group by state"
    assert dict(jobs.db.execute(query).fetchall()) == {"ready": 8}
    query = "select count(*) filter (where outcome = 'succeeded'), count(*) from rowcron.ledger"
    assert jobs.db.execute(query).fetchone() == (3002, 3002)


def test_a_run_that_stands_in_line_can_be_cancelled(jobs: Jobs, start: Start) -> None:
    claimed_ahead(jobs, 0.2)
    start("--concurrency", "1", "--kind", "python")
    wait_for_slow_ones(jobs)
    last = jobs.db.execute("select max(id) from rowcron.run").fetchone()[0]
    jobs.owner.execute("select rowcron.cancel(%s)", (last,))
    assert jobs.end(last)["outcome"] == "cancelled"
    wait_until(lambda: jobs.db.execute("select from rowcron.run").fetchone() is None)
    query = "select outcome, count(*) from rowcron.ledger where final group by outcome"
    assert dict(jobs.db.execute(query).fetchall()) == {"succeeded": 3009, "cancelled": 1}


def test_what_a_killed_worker_had_claimed_ahead_is_rescued_as_any_other(
    jobs: Jobs, start: Start
) -> None:
    name = jobs.add("python", "nothing")
    # so many that they are not all on their way to the database when it is killed
    many = "select count(*) from rowcron.enqueue_many(%s, array_fill('{}'::jsonb, array[80000]))"
    jobs.owner.execute(many, (name,))
    worker = start("--kind", "python", "--lease", "2", "--concurrency", "10")
    ahead = "select count(*) from rowcron.run where state = 'running'"
    wait_until(lambda: jobs.db.execute(ahead).fetchone()[0] > 100, what="runs claimed ahead")
    worker.kill()
    assert jobs.db.execute("select count(*) from rowcron.run").fetchone()[0] > 0
    start("--kind", "python", "--lease", "2")
    wait_until(lambda: jobs.db.execute("select from rowcron.run").fetchone() is None, 60)
    query = """
      select count(*) filter (where final), count(distinct run_id) filter (where final),
        bool_and(outcome = 'succeeded') filter (where final), bool_or(outcome = 'lost')
      from rowcron.ledger
    """
    assert jobs.db.execute(query).fetchone() == (80_000, 80_000, True, True)
