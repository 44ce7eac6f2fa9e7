"""Runs that could not see what became of their job, because it was done at the same time."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from conftest import Connect
from test_retention import maintain

Row = tuple[Any, ...]


def add(alice: psycopg.Connection, **columns: Any) -> None:
    """Store a job named j."""
    names = "".join(f", {name}" for name in columns)
    places = ", %s" * len(columns)
    alice.execute(
        f"insert into rowcron.job (name{names}) values ('j'{places})".encode(),
        list(columns.values()),
    )


def enqueue(conn: psycopg.Connection) -> int:
    """Enqueue a run of j; its number."""
    row = conn.execute("select rowcron.enqueue('j')").fetchone()
    assert row is not None
    return int(row[0])


def live(db: psycopg.Connection, run_id: int) -> Row | None:
    """Where a run stands."""
    return db.execute(
        "select queue, handler, state, waits_for from rowcron.run where id = %s", [run_id]
    ).fetchone()


def claim(db: psycopg.Connection, kind: str, queue: str, *handlers: str) -> list[Row]:
    """What a worker gets."""
    return db.execute(
        "select run_id, token from rowcron.claim(queues => %s, kinds => %s, handlers => %s)",
        [[queue], [kind], list(handlers)],
    ).fetchall()


def test_a_run_enqueued_beside_an_edit_goes_where_its_job_is(
    db: psycopg.Connection, alice: psycopg.Connection, connect: Connect
) -> None:
    db.execute("grant rowcron_python to alice")
    add(alice, kind="python", command="old", queue="q1")
    other = connect("alice")
    with other.transaction():
        run_id = enqueue(other)
        alice.execute("update rowcron.job set command = 'new', queue = 'q2'")
    assert live(db, run_id) == ("q1", "old", "ready", None)
    assert claim(db, "python", "q2", "new") == []
    maintain(db)
    assert live(db, run_id) == ("q2", "new", "ready", None)
    assert [row[0] for row in claim(db, "python", "q2", "new")] == [run_id]


def test_a_retry_beside_an_edit_goes_where_its_job_is(
    db: psycopg.Connection, alice: psycopg.Connection, connect: Connect
) -> None:
    add(alice, command="x", queue="q1", max_attempts=3, retry_delay="1 hour")
    run_id = enqueue(alice)
    [held] = claim(db, "sql", "q1")
    other = connect("alice")
    with other.transaction():
        other.execute("update rowcron.job set queue = 'q2'")
        db.execute("select rowcron.finish(%s, %s, 'failed')", held)
    maintain(db)
    assert live(db, run_id) == ("q2", None, "waiting", "time")


def test_a_resume_that_has_not_seen_the_parking_is_made_up_for(
    db: psycopg.Connection, alice: psycopg.Connection, connect: Connect
) -> None:
    add(alice, command="x")
    run_id = enqueue(alice)
    alice.execute("select rowcron.pause('j')")
    other = connect("alice")
    other.execute("begin isolation level repeatable read")
    other.execute("select from rowcron.job")
    assert claim(db, "sql", "default") == []
    other.execute("select rowcron.resume('j')")
    other.execute("commit")
    assert live(db, run_id) == ("default", None, "waiting", "resume")
    maintain(db)
    assert live(db, run_id) == ("default", None, "ready", None)


def test_a_pause_stays_one(db: psycopg.Connection, alice: psycopg.Connection) -> None:
    add(alice, command="x")
    run_id = enqueue(alice)
    alice.execute("select rowcron.pause('j')")
    assert claim(db, "sql", "default") == []
    maintain(db)
    assert live(db, run_id) == ("default", None, "waiting", "resume")


def test_a_run_whose_deleted_job_did_not_see_it_ends(
    db: psycopg.Connection, alice: psycopg.Connection, connect: Connect
) -> None:
    add(alice, command="x", max_running=1)
    other = connect("alice")
    other.execute("begin isolation level repeatable read")
    other.execute("select from rowcron.job")
    first, second = enqueue(alice), enqueue(alice)
    [held] = claim(db, "sql", "default")
    claim(db, "sql", "default")
    assert live(db, second) == ("default", None, "waiting", "limit")
    other.execute("delete from rowcron.job where name = 'j'")
    other.execute("commit")
    maintain(db)
    assert (held[0], live(db, second)) == (first, None)
    entry = db.execute(
        "select outcome, reason, final from rowcron.ledger where run_id = %s", [second]
    )
    assert entry.fetchone() == ("cancelled", "job deleted", True)
    assert live(db, first) == ("default", None, "running", None), "it ends as it would"


def test_what_runs_unseen_by_a_new_limit_counts(
    db: psycopg.Connection, alice: psycopg.Connection, connect: Connect
) -> None:
    add(alice, command="x")
    other = connect("alice")
    other.execute("begin isolation level repeatable read")
    other.execute("select from rowcron.job")
    enqueue(alice)
    assert len(claim(db, "sql", "default")) == 1
    other.execute("update rowcron.job set max_running = 1")
    other.execute("commit")
    maintain(db)
    enqueue(alice)
    assert claim(db, "sql", "default") == []


def stand(db: psycopg.Connection) -> Row | None:
    """Whether j is due at some time, within an hour's distance, and how many entries it has."""
    return db.execute(
        "select a.next_run_at is not null,"
        " a.next_run_at between clock_timestamp() + '59 minutes' and clock_timestamp() + '1 hour',"
        " (select count(*) from rowcron.ledger) from rowcron.agenda as a"
    ).fetchone()


def test_a_run_that_ends_beside_the_edit_to_after_is_counted_from(
    db: psycopg.Connection, alice: psycopg.Connection, connect: Connect
) -> None:
    add(alice, command="x", schedule="0 0 1 1 *")
    db.execute("update rowcron.agenda set next_run_at = clock_timestamp()")
    [held] = claim(db, "sql", "default")
    other = connect("alice")
    with other.transaction():
        other.execute("update rowcron.job set schedule = '@after 1 hour'")
        maintain(db)  # passes an open edit over
        db.execute("select rowcron.finish(%s, %s)", held)
    assert stand(db) == (False, None, 1)
    with connect("postgres") as holder, holder.transaction():
        holder.execute("select from rowcron.agenda for update")
        maintain(db)  # and whatever else holds it
    assert stand(db) == (False, None, 1)
    maintain(db)
    assert stand(db) == (True, True, 1)
    due = db.execute("select next_run_at from rowcron.agenda").fetchone()
    maintain(db)
    assert db.execute("select next_run_at from rowcron.agenda").fetchone() == due


@pytest.mark.parametrize(
    "edit", ["enabled = false", "max_runs = 1", "ends_at = clock_timestamp() + '1 minute'"]
)
def test_what_is_over_or_paused_stays_so(
    db: psycopg.Connection, alice: psycopg.Connection, edit: str
) -> None:
    add(alice, command="x", schedule="@after 1 hour")
    db.execute("update rowcron.agenda set next_run_at = clock_timestamp()")
    [held] = claim(db, "sql", "default")
    alice.execute(f"update rowcron.job set {edit}".encode())
    maintain(db)
    assert stand(db) == (False, None, 0)
    db.execute("select rowcron.finish(%s, %s)", held)
    maintain(db)
    assert stand(db) == (False, None, 1)


def test_what_cannot_be_computed_is_told_once(
    db: psycopg.Connection, alice: psycopg.Connection
) -> None:
    add(alice, command="x", schedule="@after 1 day")
    db.execute("update rowcron.agenda set next_run_at = clock_timestamp()")
    [held] = claim(db, "sql", "default")
    alice.execute("update rowcron.job set queue = 'q'")
    db.execute("begin; set local session_replication_role = replica")
    db.execute("update rowcron.job set timezone = 'Atlantis/Capital'")
    db.execute("commit")
    db.execute("select rowcron.finish(%s, %s)", held)
    assert stand(db) == (False, None, 2), "of the run, and of what follows"
    maintain(db)
    assert stand(db) == (False, None, 2)


def test_of_many_runs_those_of_changed_jobs_alone_are_looked_at(
    db: psycopg.Connection, alice: psycopg.Connection
) -> None:
    def blocks() -> int:
        plan = db.execute(
            "explain (analyze, buffers, format json)"
            " select rowcron._reconcile(clock_timestamp(), 5000)"
        ).fetchone()
        assert plan is not None
        return int(plan[0][0]["Plan"]["Shared Hit Blocks"])

    add(alice, command="x")
    alice.execute("update rowcron.job set queue = 'q'")
    enqueue(alice)
    blocks()
    few = blocks()
    alice.execute(
        "insert into rowcron.job (name, command) select 'n' || n, 'x'"
        " from generate_series(1, 1000) as n"
    )
    db.execute(
        "insert into rowcron.run (job_id, job, owner, queue, kind, state, due_at)"
        " select j.id, j.name, j.owner, j.queue, j.kind, 'ready', now() from rowcron.job as j,"
        " generate_series(1, 50) where j.name <> 'j'"
    )
    db.execute("delete from rowcron.change where action = 'insert'")
    db.execute("vacuum analyze rowcron.run, rowcron.job, rowcron.change")
    blocks()
    assert blocks() < few + 100
