"""`rowcron worker --until-idle`: it does what there is to do now, then ends."""

from __future__ import annotations

import time

import psycopg
import pytest

from workers import Jobs, Start, WorkerProcess, jobs, start

__all__ = ["jobs", "start"]


def drained(worker: WorkerProcess, limit: float = 20.0) -> None:
    """It ends by itself, and well."""
    assert worker.process.wait(limit) == 0, worker.console.read_text("utf-8")
    assert "nothing is left to do now" in worker.console.read_text("utf-8")


def outcomes(jobs: Jobs) -> dict[str, int]:
    """How many runs have ended how."""
    query = "select outcome, count(*) from rowcron.ledger where final group by outcome"
    return dict(jobs.db.execute(query).fetchall())


def live(jobs: Jobs) -> list[tuple[str, str | None]]:
    """What has not ended."""
    return jobs.db.execute("select state, waits_for from rowcron.run").fetchall()


def test_with_nothing_to_do_it_ends_at_once(jobs: Jobs, start: Start) -> None:
    jobs.add("sql", "select 1", schedule="@every 1 hour")
    began = time.monotonic()
    drained(start("--until-idle", "--poll", "60", "--lease", "120", wait=False))
    assert time.monotonic() - began < 10


def test_all_that_is_ready_is_run_by_few_slots(jobs: Jobs, start: Start) -> None:
    names = [jobs.add("python", "nothing"), jobs.add("sql", "select pg_sleep(0.05)")]
    for _ in range(20):
        for name in names:
            jobs.start(name)
    jobs.run("python", "fail", {"how": "plainly"})
    # not asked again at the end of a poll, but when a run has ended
    drained(start("--until-idle", "--concurrency", "3", "--poll", "60", "--lease", "120"))
    assert (outcomes(jobs), live(jobs)) == ({"succeeded": 40, "failed": 1}, [])


@pytest.mark.parametrize("processes", ["1", "2"])
def test_what_a_run_enqueues_is_run_too(jobs: Jobs, start: Start, processes: str) -> None:
    jobs.run("python", "enqueue_more", {"left": 5}, name="chain")
    drained(start("--until-idle", "--processes", processes))
    assert (outcomes(jobs), live(jobs)) == ({"succeeded": 6}, [])


def test_what_waits_for_another_run_is_run_after_it(jobs: Jobs, start: Start) -> None:
    # so many that some end while the worker asks whether anything is left
    name = jobs.add("python", "nothing", max_running=1)
    for _ in range(300):
        jobs.start(name)
    drained(start("--until-idle"))
    assert (outcomes(jobs), live(jobs)) == ({"succeeded": 300}, [])


def test_a_retry_at_once_is_tried_and_one_in_an_hour_is_left(jobs: Jobs, start: Start) -> None:
    again = {"how": "plainly"}
    jobs.run("python", "fail", again, max_attempts=3, retry_delay="0 s", retry_jitter=0)
    jobs.run("python", "fail", again, max_attempts=3, retry_delay="1 hour")
    drained(start("--until-idle"))
    assert outcomes(jobs) == {"failed": 1}
    assert live(jobs) == [("waiting", "time")]


def test_what_is_due_is_fired_first(jobs: Jobs, start: Start) -> None:
    name = jobs.add("sql", "select 1", schedule="@daily")
    jobs.db.execute(
        "update rowcron.agenda set next_run_at = clock_timestamp()"
        " where job_id = (select id from rowcron.job where name = %s)",
        (name,),
    )
    drained(start("--until-idle"))
    assert outcomes(jobs) == {"succeeded": 1}


def test_somebody_elses_open_transaction_does_not_keep_it(
    jobs: Jobs, start: Start, alice: psycopg.Connection
) -> None:
    name = jobs.add("sql", "select 1")
    with alice.transaction():
        jobs.start(name)
        drained(start("--until-idle"))
        assert outcomes(jobs) == {}


def test_what_no_handler_of_its_takes_does_not_keep_it(jobs: Jobs, start: Start) -> None:
    jobs.run("python", "nobody-has-this")
    drained(start("--until-idle"))
    assert live(jobs) == [("ready", None)]
