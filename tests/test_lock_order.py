"""A job's agenda is locked before its runs: its owner and who ends a run do not deadlock."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from harness import WORKER, wait_until
from workers import Jobs, jobs

__all__ = ["jobs"]

Connect = Callable[[str], psycopg.Connection[Any]]
GATE = 7007  # an advisory lock that the jobs below wait for
WORKS = f"select nextval('public.begun'), pg_advisory_xact_lock({GATE})"
FAILS = (
    f"select nextval('public.begun'), pg_advisory_xact_lock({GATE}), 1 / (0 * random())::integer"
)
EXECUTE = "select outcome from rowcron.execute(%s, %s)"
FINISH = "select recorded from rowcron.finish(%s, %s)"
AFTER = "@after 1 hour"


class Background:
    """One statement on a connection of its own, in a thread."""

    def __init__(self, connection: psycopg.Connection[Any], query: str, *values: Any) -> None:
        self.connection = connection
        self.answer: Any = None
        self.thread = threading.Thread(target=self._run, args=(query, values), daemon=True)
        self.thread.start()

    def _run(self, query: str, values: tuple[Any, ...]) -> None:
        try:
            (self.answer,) = self.connection.execute(query.encode(), values).fetchone() or (None,)
        except psycopg.Error as error:
            self.answer = error.sqlstate

    def join(self) -> Any:
        """Its answer, or the SQLSTATE of its error."""
        self.thread.join(20)
        assert not self.thread.is_alive()
        return self.answer

    def wait_locked(self, db: psycopg.Connection[Any]) -> None:
        """Wait until it waits for a lock of a row, which is that of a transaction."""
        query = (
            "select 1 from pg_locks where pid = %s and not granted and locktype in"
            " ('transactionid', 'tuple')"
        )
        pid = self.connection.info.backend_pid
        wait_until(lambda: db.execute(query, (pid,)).fetchone(), what="a statement to wait")


@pytest.fixture
def gate(db: psycopg.Connection[Any], connect: Connect) -> Iterator[psycopg.Connection[Any]]:
    """Holds up the jobs until it lets go of its lock; public.begun counts how often one began."""
    db.execute("create sequence public.begun; grant usage on sequence public.begun to alice")
    gate = connect("postgres")
    gate.execute("select pg_advisory_lock(%s)", (GATE,))
    yield gate
    gate.execute("select pg_advisory_unlock_all()")


@pytest.fixture
def heir(db: psycopg.Connection[Any]) -> Iterator[str]:
    """A role that alice may hand her jobs over to."""
    db.execute("drop role if exists lock_heir; create role lock_heir")
    db.execute("grant rowcron_user to lock_heir; grant lock_heir to alice")
    yield "lock_heir"
    db.execute("drop owned by lock_heir; drop role lock_heir")


def due(jobs: Jobs, kind: str, command: str, schedule: str = AFTER, **columns: Any) -> str:
    """A job whose next occurrence is now; its name."""
    name = jobs.add(kind, command, schedule=schedule, **columns)
    jobs.db.execute("update rowcron.agenda set next_run_at = clock_timestamp()")
    return name


def claim(connect: Connect) -> tuple[int, uuid.UUID]:
    query = "select run_id, token from rowcron.claim(%s, 1, lease => '1 hour')"
    row = connect(WORKER).execute(query, (uuid.uuid4(),)).fetchone()
    assert row is not None
    return row[0], row[1]


def begin(jobs: Jobs, connect: Connect, gate: psycopg.Connection[Any]) -> tuple[int, Background]:
    """Execute what is due; returns the run when its job stands before the gate."""
    session = connect(WORKER)
    session.prepare_threshold = None
    run, token = claim(connect)
    executes = Background(session, EXECUTE, run, token)
    query = "select 1 from pg_locks where locktype = 'advisory' and not granted"
    wait_until(lambda: jobs.db.execute(query).fetchone(), what="the job to begin")
    return run, executes


def opened(gate: psycopg.Connection[Any]) -> None:
    gate.execute("select pg_advisory_unlock(%s)", (GATE,))


def begun(jobs: Jobs) -> int:
    """How often a job has begun."""
    (count,) = jobs.db.execute("select last_value from public.begun").fetchone() or (0,)
    return int(count)


@pytest.mark.parametrize("schedule", [AFTER, "0 0 1 1 *"])
def test_a_job_that_executes_is_not_handed_over_and_not_disturbed(
    jobs: Jobs, connect: Connect, heir: str, gate: psycopg.Connection[Any], schedule: str
) -> None:
    name = due(jobs, "sql", WORKS, schedule)
    run, executes = begin(jobs, connect, gate)
    jobs.owner.execute("set statement_timeout = '5s'")
    with pytest.raises(psycopg.Error) as refused:
        jobs.owner.execute("select rowcron.hand_over(%s, %s)", (name, heir))
    assert refused.value.sqlstate == "RCLIM"
    assert refused.value.diag.message_primary == f'job "{name}" is running'
    opened(gate)
    assert executes.join() == "succeeded"
    assert begun(jobs) == 1
    assert len(jobs.entries(run)) == 1


@pytest.mark.parametrize(
    ("kind", "report"), [("python", FINISH), ("sql", EXECUTE)], ids=["python", "sql"]
)
def test_a_cancel_that_waited_for_an_edit_does_not_deadlock_with_the_end(
    jobs: Jobs, connect: Connect, gate: psycopg.Connection[Any], kind: str, report: str
) -> None:
    due(jobs, kind, "select nextval('public.begun')" if kind == "sql" else "sleep")
    connect(WORKER).execute("select rowcron.claim(capacity => 0)")
    (run,) = jobs.db.execute("select id from rowcron.run").fetchone() or (None,)
    jobs.owner.execute("begin")
    jobs.owner.execute("update rowcron.job set ends_at = '2100-01-01'")
    cancels = Background(connect("alice"), "select rowcron.cancel(%s)", run)
    cancels.wait_locked(jobs.db)
    session = connect(WORKER)
    session.prepare_threshold = None
    reports = Background(session, report, *claim(connect))
    reports.wait_locked(jobs.db)
    jobs.owner.execute("commit")
    assert reports.join() == "succeeded"
    assert cancels.join() in ("asked", "RCNOR")  # whoever of the two gets the agenda first
    assert begun(jobs) == 1
    query = "select next_run_at > now() + interval '50 minutes' from rowcron.agenda"
    assert jobs.db.execute(query).fetchone() == (True,)


@pytest.mark.parametrize(
    ("command", "outcome"), [(WORKS, "succeeded"), (FAILS, "failed")], ids=["works", "fails"]
)
@pytest.mark.parametrize("cancel_first", [False, True])
def test_who_pauses_a_job_and_cancels_its_run_does_not_deadlock_with_its_end(
    jobs: Jobs,
    connect: Connect,
    gate: psycopg.Connection[Any],
    command: str,
    outcome: str,
    cancel_first: bool,
) -> None:
    name = due(jobs, "sql", command)
    run, executes = begin(jobs, connect, gate)
    steps = [("select rowcron.pause(%s)", name), ("select rowcron.cancel(%s)", run)]
    if cancel_first:
        steps.reverse()
    jobs.owner.execute("begin")
    for number, (step, value) in enumerate(steps):
        if number == 1:
            opened(gate)
            executes.wait_locked(jobs.db)
        jobs.owner.execute(step.encode(), (value,))
    jobs.owner.execute("commit")
    assert executes.join() == outcome
    assert begun(jobs) == 1
    assert [entry["outcome"] for entry in jobs.entries(run)] == [outcome]
    query = "select enabled, next_run_at from rowcron.agenda"
    assert jobs.db.execute(query).fetchone() == (False, None)


@pytest.mark.parametrize("cancel_first", [False, True])
def test_nor_with_the_report_of_one_run(jobs: Jobs, connect: Connect, cancel_first: bool) -> None:
    name = due(jobs, "python", "sleep")
    run, token = claim(connect)
    steps = [("select rowcron.pause(%s)", name), ("select rowcron.cancel(%s)", run)]
    if cancel_first:
        steps.reverse()
    jobs.owner.execute("begin")
    jobs.owner.execute(steps[0][0].encode(), (steps[0][1],))
    reports = Background(connect(WORKER), FINISH, run, token)
    reports.wait_locked(jobs.db)
    jobs.owner.execute(steps[1][0].encode(), (steps[1][1],))
    jobs.owner.execute("commit")
    assert reports.join() == "succeeded"


def test_another_attempt_does_not_wait_for_an_edit(
    jobs: Jobs, connect: Connect, gate: psycopg.Connection[Any]
) -> None:
    """Nothing counts from the end of an attempt that is not the last."""
    due(jobs, "sql", FAILS, max_attempts=2)
    run, executes = begin(jobs, connect, gate)
    with jobs.owner.transaction():
        jobs.owner.execute("update rowcron.job set schedule = '@after 2 hours'")
        opened(gate)
        assert executes.join() == "failed"
    assert [entry["final"] for entry in jobs.entries(run)] == [False]
