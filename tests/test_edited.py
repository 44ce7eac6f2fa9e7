"""An open edit of a job delays that job alone, not the runs of others that wait behind it."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from harness import WORKER, wait_until
from test_retention import maintain
from workers import Jobs, Start, jobs, start

__all__ = ["jobs", "start"]

Connect = Callable[[str], psycopg.Connection[Any]]


class Hands:
    """A worker that claims by hand, and gives up on what takes seconds."""

    def __init__(self, session: psycopg.Connection[Any]) -> None:
        self.session = session
        self.session.execute("set statement_timeout = '5s'")
        self.id = uuid.uuid4()

    def claim(self, capacity: int = 10) -> list[str]:
        """Claim; return the names of the jobs in order."""
        query = "select job from rowcron.claim(%s, %s, lease => '1 hour')"
        return [row[0] for row in self.session.execute(query, (self.id, capacity)).fetchall()]

    def beat(self) -> Any:
        """Say that it sleeps; return for how many seconds it may."""
        query = (
            "select extract(epoch from wake_after)::float"
            " from rowcron.heartbeat(%s, asleep => true)"
        )
        row = self.session.execute(query, (self.id,)).fetchone()
        assert row is not None
        return row[0]


@pytest.fixture
def hands(connect: Connect) -> Hands:
    """A worker."""
    return Hands(connect(WORKER))


def add(author: psycopg.Connection[Any], name: str, count: int = 0, **columns: Any) -> None:
    """Store a job and enqueue so many runs of it."""
    columns = {"name": name, "command": "select 1", **columns}
    marks = ", ".join(["%s"] * len(columns))
    author.execute("set client_min_messages = error")
    author.execute(
        f"insert into rowcron.job ({', '.join(columns)}) values ({marks})".encode(),
        list(columns.values()),
    )
    enqueue(author, name, count)


def enqueue(author: psycopg.Connection[Any], name: str, count: int) -> None:
    """Enqueue so many runs of a job."""
    if count > 0:
        many = "select rowcron.enqueue_many(%s, array_fill('{}'::jsonb, array[%s]))"
        author.execute(many, (name, count))


def states(db: psycopg.Connection[Any], name: str) -> dict[str, int]:
    """How many runs of a job are in each state, or wait for what."""
    query = (
        "select coalesce(r.waits_for, r.state), count(*) from rowcron.run as r"
        " where r.job = %s group by 1"
    )
    return dict(db.execute(query, (name,)).fetchall())


@pytest.mark.parametrize("capacity", [1, 20])
def test_an_edit_of_a_limited_job_hides_no_others(
    alice: psycopg.Connection, bob: psycopg.Connection, hands: Hands, capacity: int
) -> None:
    add(alice, "limited", 3_000, max_running=2)
    add(bob, "other", 1)
    with alice.transaction(force_rollback=True):
        alice.execute("update rowcron.job set max_running = 3 where name = 'limited'")
        assert hands.claim(capacity) == ["other"]
        why = "select detail from rowcron.why_not_running('limited') where gate = 'limit' and holds"
        (detail,) = alice.execute(why).fetchone() or ("the gate is open",)
        assert detail.endswith("waits for the next claim, or for an open edit of its job")
        assert hands.beat() > 0.5  # it need not look again and again
    assert hands.claim() == ["limited"] * 2
    assert hands.claim() == []


def test_many_edits_hide_no_others(
    alice: psycopg.Connection, bob: psycopg.Connection, hands: Hands
) -> None:
    for n in range(50):
        add(alice, f"limited-{n}", 3, max_running=1)
    add(bob, "other", 1)
    with alice.transaction():
        alice.execute("update rowcron.job set max_running = 2")
        claims = [hands.claim(1) for _ in range(5)]
        assert [name for names in claims for name in names] == ["other"]
    started = Counter(name for _ in range(3) for name in hands.claim(100))
    assert started == {f"limited-{n}": 2 for n in range(50)}


@pytest.mark.parametrize("outcome", ["commit", "rollback"])
def test_a_resume_that_is_open_hides_no_others(
    db: psycopg.Connection,
    alice: psycopg.Connection,
    bob: psycopg.Connection,
    hands: Hands,
    outcome: str,
) -> None:
    add(alice, "paused", 2_000)
    alice.execute("select rowcron.pause('paused')")
    add(bob, "other", 1)
    alice.execute("begin")
    alice.execute("select rowcron.resume('paused')")
    assert hands.claim(1) == ["other"]
    alice.execute(outcome.encode())
    claimed = [name for _ in range(3) for name in hands.claim(1000)]
    if outcome == "commit":
        assert len(claimed) == 2_000
        return
    assert claimed == []
    assert states(db, "paused") == {"resume": 2_000}
    alice.execute("select rowcron.resume('paused')")
    assert hands.claim(2_000) == ["paused"] * 2_000


def test_what_is_started_in_spite_of_a_pause_is_claimed_once(
    alice: psycopg.Connection, hands: Hands
) -> None:
    """And counts once against what the worker can take."""
    add(alice, "paused", 1)
    alice.execute("select rowcron.pause('paused')")
    for _ in range(2):
        alice.execute("select rowcron.run_now('paused')")
    add(alice, "other", 5)
    assert Counter(hands.claim(5)) == {"paused": 2, "other": 3}


def test_a_run_that_a_pause_holds_stands_in_the_way_of_none_that_it_does_not(
    db: psycopg.Connection, alice: psycopg.Connection, hands: Hands
) -> None:
    add(alice, "limited", 31, max_running=1)
    assert hands.claim() == ["limited"]
    assert states(db, "limited") == {"running": 1, "limit": 30}
    alice.execute("select rowcron.pause('limited')")
    alice.execute("select rowcron.run_now('limited')")
    assert hands.claim() == []
    db.execute("delete from rowcron.run where state = 'running'")
    assert hands.claim() == ["limited"]
    assert states(db, "limited") == {"running": 1, "resume": 30}
    alice.execute("select rowcron.resume('limited')")
    db.execute("delete from rowcron.run where state = 'running'")
    assert hands.claim() == ["limited"]


@pytest.fixture
def counted(db: psycopg.Connection, alice: psycopg.Connection, bob: psycopg.Connection) -> int:
    """A run of a job that counts from its end, and is not begun twice; another job's after it."""
    db.execute("grant rowcron_python to alice")
    add(alice, "counted", kind="python", command="h", schedule="@after 1 hour", on_lost="fail")
    db.execute("update rowcron.agenda set next_run_at = clock_timestamp()")
    db.execute("select rowcron.claim(capacity => 0)")
    add(bob, "other", 1)
    ((run,),) = db.execute("select id from rowcron.run where job = 'counted'").fetchall()
    return int(run)


def ends(db: psycopg.Connection[Any], run: int) -> list[tuple[str, str]]:
    """The final entries of a run."""
    query = "select outcome, reason from rowcron.ledger where run_id = %s and final"
    return db.execute(query, (run,)).fetchall()


EDIT = "update rowcron.job set ends_at = '2100-01-01' where name = 'counted'"


def test_a_lost_run_whose_job_is_edited_keeps_nobody_from_claiming(
    db: psycopg.Connection,
    alice: psycopg.Connection,
    connect: Connect,
    hands: Hands,
    counted: int,
) -> None:
    lost = Hands(connect(WORKER))
    assert lost.claim(1) == ["counted"]
    with alice.transaction():
        alice.execute(EDIT)
        db.execute("update rowcron.worker set expires_at = now()")
        hands.beat()
        assert hands.claim() == ["other"]
        assert ends(db, counted) == []
    hands.claim()
    assert ends(db, counted) == [
        ("lost", "its worker was silent for longer than its lease; on_lost = fail")
    ]
    after = (
        "select next_run_at > now() + interval '50 minutes' from rowcron.agenda"
        " where (parsed).form = 'after'"
    )
    assert db.execute(after).fetchone() == (True,)


def test_a_worker_that_stops_waits_for_no_edit_of_what_it_has_begun(
    db: psycopg.Connection,
    alice: psycopg.Connection,
    connect: Connect,
    hands: Hands,
    counted: int,
) -> None:
    stopping = Hands(connect(WORKER))
    assert stopping.claim() == ["counted", "other"]
    with alice.transaction():
        alice.execute(EDIT)
        bye = "select rowcron.heartbeat(%s, stopping => true, holding => array[%s::bigint])"
        stopping.session.execute(bye, (stopping.id, counted))
        assert hands.claim() == ["other"]
        assert ends(db, counted) == []
    hands.claim()
    assert ends(db, counted) == [("lost", "its worker was stopped; on_lost = fail")]


def test_a_run_that_may_not_start_any_more_keeps_nobody_from_claiming(
    db: psycopg.Connection, alice: psycopg.Connection, hands: Hands, counted: int
) -> None:
    with alice.transaction():
        alice.execute(EDIT)
        db.execute("revoke rowcron_python from alice")
        assert hands.claim(1) == ["other"]
        assert ends(db, counted) == []
    hands.claim()
    assert ends(db, counted) == [("cancelled", "kind python is not granted to alice")]


def test_a_queue_that_is_being_opened_keeps_nobody_from_cleaning_up(
    db: psycopg.Connection, alice: psycopg.Connection
) -> None:
    add(alice, "job")
    for queue in ("taken", "free"):
        alice.execute(
            "insert into rowcron.run (job_id, job, owner, queue, kind, state, due_at)"
            " select j.id, j.name, j.owner, %s, j.kind, 'ready', now() from rowcron.job as j",
            (queue,),
        )
    db.execute("set statement_timeout = '5s'")
    lanes = "select queue from rowcron.lane order by queue"
    with alice.transaction(force_rollback=True):
        add(alice, "new", queue="taken")
        assert maintain(db) < 2
        assert db.execute(lanes).fetchall() == [("default",), ("free",)]
    maintain(db)
    assert db.execute(lanes).fetchall() == [("default",), ("free",), ("taken",)]


def test_a_worker_soon_starts_what_stands_behind_many_edits(
    jobs: Jobs, bob: psycopg.Connection, start: Start
) -> None:
    for n in range(60):
        add(jobs.owner, f"limited-{n}", 1, max_running=1)
    add(bob, "other", 1)
    query = "select from rowcron.ledger where job = 'other' and outcome = 'succeeded'"
    with jobs.owner.transaction(force_rollback=True):
        jobs.owner.execute("update rowcron.job set max_running = 2")
        start("--kind", "sql", "--concurrency", "1", "--sql-connections", "1")
        wait_until(lambda: jobs.db.execute(query).rowcount, 10, "the other's run")
