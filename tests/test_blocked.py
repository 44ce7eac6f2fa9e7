"""What an owner's open transaction locks holds up nobody else: no claim, no report."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from harness import WORKER, wait_until
from workers import Jobs, Start, jobs, start

__all__ = ["jobs", "start"]

Connect = Callable[[str], psycopg.Connection[Any]]
CLAIM = "select run_id, token from rowcron.claim(%s, 10, lease => '1 hour')"
FINISH = "select accepted from rowcron.finish(%s, %s, %s, %s)"


@pytest.fixture
def worker(connect: Connect) -> psycopg.Connection[Any]:
    """A worker without Python that gives up on what takes seconds."""
    worker = connect(WORKER)
    worker.execute("set statement_timeout = '5s'")
    return worker


def test_a_claim_passes_over_parked_runs_that_are_locked(
    jobs: Jobs, worker: psycopg.Connection[Any], connect: Connect
) -> None:
    me = uuid.uuid4()
    limited = jobs.add("sql", "select 1", max_running=1)
    waits = jobs.add("sql", "select 1", max_running=1)
    first = jobs.start(limited)
    jobs.start(waits)
    parked = [jobs.start(limited), jobs.start(waits)]
    claimed = worker.execute(CLAIM, (me,)).fetchall()
    assert first in [run for run, _ in claimed]
    ids, tokens = [run for run, _ in claimed], [token for _, token in claimed]
    with connect("alice").transaction():
        jobs.owner.execute("begin")
        jobs.owner.execute("select rowcron.cancel(%s)", (parked[0],))
        worker.execute(FINISH, (me, ids, tokens, ["succeeded"] * 2))
        assert [run for run, _ in worker.execute(CLAIM, (me,)).fetchall()] == [parked[1]]
        jobs.owner.execute("rollback")
    assert [run for run, _ in worker.execute(CLAIM, (me,)).fetchall()] == [parked[0]]


def test_a_report_is_not_held_up_by_another_run_that_its_owner_has_locked(
    jobs: Jobs, start: Start
) -> None:
    start("--kind", "python", "--concurrency", "10")
    mine = jobs.run("python", "sleep", {"seconds": 1})
    jobs.wait_running(mine)
    jobs.owner.execute("begin")
    jobs.owner.execute("select rowcron.cancel(%s)", (mine,))
    name = "job-others"
    with jobs.db.transaction():
        jobs.db.execute("set local role alice")
        jobs.db.execute(
            "insert into rowcron.job (name, kind, command, args)"
            " values (%s, 'python', 'sleep', '{\"seconds\": 1}')",
            (name,),
        )
    enqueue = "select rowcron.enqueue(%s, owner => 'alice')"
    others = [jobs.db.execute(enqueue, (name,)).fetchone()[0] for _ in range(5)]
    assert {jobs.end(run)["outcome"] for run in others} == {"succeeded"}
    assert jobs.running(mine)
    jobs.owner.execute("rollback")
    assert jobs.end(mine)["outcome"] == "succeeded"
    assert len(jobs.entries(mine)) == 1


def test_an_owner_who_has_locked_many_runs_holds_up_no_others(
    jobs: Jobs, start: Start, bob: psycopg.Connection[Any]
) -> None:
    """A look at a lock takes half a second: not one a run, however many they are."""
    start("--kind", "python", "--concurrency", "100", "--poll", "0.5")
    jobs.db.execute("grant rowcron_user, rowcron_python to bob")
    bobs = Jobs(bob, jobs.db)
    name = jobs.add("python", "sleep_async", args={"seconds": 2})
    mine = [jobs.start(name) for _ in range(40)]
    count = "select count(*) from rowcron.run where state = 'running'"
    wait_until(lambda: jobs.db.execute(count).fetchone() == (40,), what="all to run")
    jobs.owner.execute("begin")
    jobs.owner.execute("select count(rowcron.cancel(id)) from rowcron.run")
    name = bobs.add("python", "nothing")
    waiting = """
      select count(*) from pg_stat_activity
      where wait_event_type = 'Lock' and query like '%rowcron.finish(%' and pid <> pg_backend_pid()
    """
    wait_until(lambda: jobs.db.execute(waiting).fetchone() != (0,), what="reports to be refused")
    waits = []
    for _ in range(10):
        begin = time.monotonic()
        assert bobs.end(bobs.start(name))["outcome"] == "succeeded"
        waits.append(time.monotonic() - begin)
    assert max(waits) < 2.5, waits
    assert sum(waits) < 10, waits
    assert jobs.db.execute(count).fetchone() == (40,)
    jobs.owner.execute("rollback")
    begin = time.monotonic()
    assert {jobs.end(run)["outcome"] for run in mine} == {"succeeded"}
    assert time.monotonic() - begin < 5
    assert {len(jobs.entries(run)) for run in mine} == {1}


def test_what_counts_from_the_end_sees_what_became_of_its_job(
    jobs: Jobs, worker: psycopg.Connection[Any], connect: Connect
) -> None:
    """A report that waits for its owner's resume plans by the job as it is then."""
    me = uuid.uuid4()
    name = jobs.add("sql", "select 1", schedule="@after 1 hour")
    wait_until(lambda: jobs.db.execute("select 1 from rowcron.agenda").fetchone())
    jobs.db.execute("update rowcron.agenda set next_run_at = clock_timestamp()")
    ((run, token),) = worker.execute(CLAIM, (me,)).fetchall()
    jobs.owner.execute("select rowcron.pause(%s)", (name,))
    jobs.owner.execute("begin")
    jobs.owner.execute("select rowcron.resume(%s)", (name,))
    answers: list[Any] = []

    def report() -> None:
        query = "select recorded from rowcron.finish(%s, %s)"
        answers.append(worker.execute(query, (run, token)).fetchone())

    thread = threading.Thread(target=report)
    thread.start()
    waits = "select 1 from pg_locks where not granted"
    wait_until(lambda: jobs.db.execute(waits).fetchone(), what="the report to wait")
    jobs.owner.execute("commit")
    thread.join()
    assert answers == [("succeeded",)]
    query = "select enabled, next_run_at > now() + interval '50 minutes' from rowcron.agenda"
    assert jobs.db.execute(query).fetchone() == (True, True)


def test_a_run_whose_job_moves_meanwhile_goes_where_its_job_is(
    jobs: Jobs, worker: psycopg.Connection[Any], connect: Connect
) -> None:
    me = uuid.uuid4()
    name = jobs.add("sql", "select 1", queue="here")
    other = connect("alice")
    jobs.owner.execute("begin")
    run = jobs.start(name)
    other.execute("update rowcron.job set queue = 'there' where name = %s", (name,))
    jobs.owner.execute("commit")
    claimed = [row[0] for _ in range(2) for row in worker.execute(CLAIM, (me,)).fetchall()]
    assert claimed == [run]
    assert jobs.entries(run) == []


def test_a_cancel_waits_for_an_edit_and_does_not_deadlock_with_it(
    jobs: Jobs, worker: psycopg.Connection[Any], connect: Connect
) -> None:
    name = jobs.add("sql", "select 1", schedule="@after 1 hour")
    jobs.db.execute("update rowcron.agenda set next_run_at = clock_timestamp()")
    worker.execute("select rowcron.claim(capacity => 0)")
    (run,) = jobs.db.execute("select id from rowcron.run").fetchone() or (None,)
    edit = f"update rowcron.job set {{}} where name = '{name}'"
    jobs.owner.execute("begin")
    jobs.owner.execute(edit.format("schedule = '@after 2 hours'").encode())
    answers: list[Any] = []

    def cancel() -> None:
        answers.append(connect("alice").execute("select rowcron.cancel(%s)", (run,)).fetchone())

    thread = threading.Thread(target=cancel)
    thread.start()
    waits = "select 1 from pg_locks where not granted"
    wait_until(lambda: jobs.db.execute(waits).fetchone(), what="the cancel to wait")
    jobs.owner.execute(edit.format("queue = 'there'").encode())
    jobs.owner.execute("commit")
    thread.join()
    assert answers == [("cancelled",)]
    query = "select next_run_at > now() + interval '110 minutes' from rowcron.agenda"
    assert jobs.db.execute(query).fetchone() == (True,)


def test_the_first_job_of_a_queue_waits_for_another_but_not_for_long(
    jobs: Jobs, connect: Connect
) -> None:
    insert = "insert into rowcron.job (name, queue, command) values (%s, 'new', 'select 1')"
    other = connect("alice")
    own = "insert into rowcron.job (name, command) values (%s, 'select 1')"
    for name, author in (("a", jobs.owner), ("b", other)):
        author.execute(own, (name,))  # so that its executor stands
    jobs.owner.execute("begin")
    jobs.owner.execute(insert, ("first",))
    begin = time.monotonic()
    with pytest.raises(psycopg.errors.LockNotAvailable) as refused:
        other.execute(insert, ("second",))
    assert time.monotonic() - begin < 20
    assert refused.value.diag.message_primary == 'the first sql job of queue "new" has to wait'
    jobs.owner.execute("commit")
    other.execute(insert, ("second",))
