"""What falls due in a moment is claimed for its instant: never before it, and once."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime

import psycopg
import pytest

from harness import Database, wait_until
from workers import Jobs, Start, jobs, start

__all__ = ["jobs", "start"]
AHEAD = (
    "select scheduled_for, started_at from rowcron.claim(gen_random_uuid(), 9, null, '{sql}',"
    " ahead => true)"
)


def due_soon(jobs: Jobs, name: str, seconds: float = 0.2) -> datetime:
    """Let a job be due in a moment, and return when."""
    query = (
        "update rowcron.agenda as a set next_run_at = clock_timestamp() + %s * interval '1 s'"
        " from rowcron.job as j where j.id = a.job_id and j.name = %s returning a.next_run_at"
    )
    return jobs.db.execute(query, (seconds, name)).fetchone()[0]


@pytest.fixture
def worker(database: Database) -> psycopg.Connection:
    """The session of a worker, in a transaction."""
    with psycopg.connect(database.url("w_worker")) as connection:
        yield connection
        connection.close()


def test_what_one_worker_leaves_another_does_not_start_early(jobs: Jobs, start: Start) -> None:
    """The first has no such handler: it fires ahead and hands nothing out."""
    for number in range(10):
        jobs.add("python", "late", schedule="* * * * * *", name=f"each-{number}")
    without = ("--app", "recovery_app", "--handler-database-url", "")
    start(*without)
    start("--poll", "0.5")
    count = "select count(*), min(result::float8) from rowcron.ledger where outcome = 'succeeded'"
    wait_until(lambda: jobs.db.execute(count).fetchone()[0] > 60, 30)
    assert jobs.db.execute(count).fetchone()[1] >= 0


def test_a_pause_comes_after_what_is_claimed_ahead(
    jobs: Jobs, worker: psycopg.Connection, alice: psycopg.Connection
) -> None:
    name = jobs.add("sql", "select 1", schedule="0 0 1 1 *")
    due = due_soon(jobs, name)
    assert worker.execute(AHEAD).fetchall() == [(due, due)]
    paused = threading.Thread(target=alice.execute, args=("select rowcron.pause(%s)", (name,)))
    paused.start()
    time.sleep(0.05)
    assert paused.is_alive()
    assert jobs.db.execute("select count(*) from rowcron.run").fetchone() == (0,)
    worker.execute("select pg_sleep_until(%s)", (due,))
    worker.commit()
    paused.join(10)
    run, enabled = jobs.db.execute(
        "select r.started_at, j.enabled from rowcron.run as r join rowcron.job as j on j.id ="
        " r.job_id"
    ).fetchone()
    assert (run, enabled) == (due, False)


def test_what_is_not_committed_is_fired_at_the_instant(
    jobs: Jobs, worker: psycopg.Connection, start: Start
) -> None:
    name = jobs.add("sql", "select 1", schedule="0 0 1 1 *")
    start("--poll", "0.2")
    for _ in range(3):
        due = due_soon(jobs, name)
        worker.execute(AHEAD)
        worker.rollback()
        entry = wait_until(
            lambda due=due: jobs.db.execute(
                "select started_at, outcome from rowcron.ledger where scheduled_for = %s", (due,)
            ).fetchone()
        )
        assert entry[0] >= due
        assert entry[1] == "succeeded"


def test_who_falls_silent_with_a_claim_ahead_holds_it_up_for_a_second(
    jobs: Jobs, worker: psycopg.Connection, start: Start
) -> None:
    """As a worker that is stopped, or cut off, between its claim and the instant."""
    name = jobs.add("sql", "select 1", schedule="0 0 1 1 *")
    due = due_soon(jobs, name)
    assert worker.execute(AHEAD).fetchall() == [(due, due)]
    start("--poll", "0.2")
    query = "select started_at, outcome from rowcron.ledger where scheduled_for = %s"
    entry = wait_until(lambda: jobs.db.execute(query, (due,)).fetchone(), 10)
    assert entry[1] == "succeeded"
    with pytest.raises(psycopg.Error):
        worker.commit()


def test_nothing_starts_early_and_each_once_with_two_workers(jobs: Jobs, start: Start) -> None:
    """Handlers tell by the machine's clock, which is the database's, too."""
    for number in range(20):
        jobs.add("python", "late", schedule="* * * * * *", name=f"each-{number}")
    jobs.add("sql", "insert into public.effect values (1)", schedule="* * * * * *", name="sql")
    for _ in range(2):
        start()
    query = "select count(*) from rowcron.ledger where outcome = 'succeeded'"
    wait_until(lambda: jobs.db.execute(query).fetchone()[0] > 150, 30)
    jobs.db.execute("select rowcron.hold('enough')")
    wait_until(lambda: jobs.db.execute("select count(*) from rowcron.run").fetchone() == (0,))
    late = "select min(result::float8), count(result) from rowcron.ledger where kind = 'python'"
    least, told = jobs.db.execute(late).fetchone()
    assert 0 <= least < 0.5
    assert told > 100
    ahead = "select count(*) from rowcron.ledger where started_at = scheduled_for"
    assert jobs.db.execute(ahead).fetchone()[0] > 20
    twice = (
        "select job, scheduled_for from rowcron.ledger where run_id is not null"
        " group by 1, 2 having count(*) > 1"
    )
    assert jobs.db.execute(twice).fetchall() == []
    begun = "select count(*) from rowcron.ledger where started_at < scheduled_for"
    assert jobs.db.execute(begun).fetchone() == (0,)
    gaps = (
        "select job, count(*), extract(epoch from max(scheduled_for) - min(scheduled_for)) + 1"
        " from rowcron.ledger where final group by job"
    )
    for job, count, seconds in jobs.db.execute(gaps).fetchall():
        assert count == seconds, job


def test_no_run_starts_after_a_pause(jobs: Jobs, start: Start, alice: psycopg.Connection) -> None:
    """Pauses just before an instant, when the worker has it ready."""
    name = jobs.add("sql", "select 1", schedule="* * * * * *")
    start()
    query = "select count(*) from rowcron.ledger where job = %s and started_at > %s"
    ran = "select max(started_at) > %s from rowcron.ledger where job = %s and outcome = 'succeeded'"
    for tenths in range(5):
        before = 0.03 - tenths * 0.007
        time.sleep(1 - (time.time() + before) % 1)
        alice.execute("select rowcron.pause(%s)", (name,))
        at = datetime.now(UTC)
        time.sleep(1.3)
        assert jobs.db.execute(query, (name, at)).fetchone() == (0,)
        alice.execute("select rowcron.resume(%s)", (name,))
        wait_until(lambda at=at: jobs.db.execute(ran, (at, name)).fetchone()[0])
