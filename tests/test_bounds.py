"""Bounds (chapter 058): a claim begins where the last ended, and yet nothing is lost or late.

While a transaction is open, the index entries of all that was handed out since stay. Here seven
thousand do, so that each sweep passes over enough of them for bounds to be kept.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from harness import Database, wait_until

DEAD = 7_000  # more than the 5,000 that a session passes over without remembering
PASSED = "select rowcron._passed_over()"
NOTES = "select current_setting(rowcron._reach_key(null, '{sql}', null), true)"
Row = tuple[Any, ...]


class Worker:
    """One worker in one session, which claims by hand."""

    def __init__(self, url: str) -> None:
        self.db = psycopg.connect(url, autocommit=True)
        self.id = uuid4()
        self.held: list[tuple[int, UUID]] = []

    def claim(self, capacity: int) -> list[int]:
        """Claim; return the runs in order."""
        query = "select run_id, token from rowcron.claim(%s, %s, null, '{sql}', null, '1 hour')"
        rows = self.db.execute(query, (self.id, capacity)).fetchall()
        self.held += rows
        return [row[0] for row in rows]

    def finish(self, outcome: str = "succeeded") -> None:
        """Report all that is held."""
        ids, tokens = [row[0] for row in self.held], [row[1] for row in self.held]
        query = "select from rowcron.finish(%s, %s, %s, %s, terse => true)"
        self.db.execute(query, (self.id, ids, tokens, [outcome] * len(ids)))
        self.held = []

    def work(self, capacity: int) -> list[int]:
        """Claim and finish."""
        runs = self.claim(capacity)
        self.finish()
        return runs

    def beat(self) -> Row:
        """Say that it sleeps; return after what time there is something, and when to look again."""
        query = """
          select wake_after <= '0', look_after, settled
          from rowcron.heartbeat(%s, null, '{sql}', asleep => true)
        """
        row = self.db.execute(query, (self.id,)).fetchone()
        assert row is not None
        return row

    def passed(self, capacity: int) -> int:
        """Claim; return how many dead entries that passed over."""
        with self.db.transaction():
            before = self.db.execute(PASSED).fetchone()[0]
            self.claim(capacity)
            return int(self.db.execute(PASSED).fetchone()[0] - before)


def enqueue(
    db: psycopg.Connection, count: int, ago: float = 60, priority: int = 0, job: str = "on-demand"
) -> list[int]:
    """Runs that were due so many seconds ago."""
    query = """
      select rowcron.enqueue_many(%s, array_fill('{}'::jsonb, array[%s]),
        now() - make_interval(secs => %s), %s)
    """
    return [row[0] for row in db.execute(query, (job, count, ago, priority)).fetchall()]


@pytest.fixture
def worker(database: Database, alice: psycopg.Connection) -> Iterator[Worker]:
    """A worker whose session remembers bounds, under a held snapshot."""
    alice.execute("set client_min_messages = error")
    for name, queue in (("on-demand", "default"), ("elsewhere", "other")):
        alice.execute(
            "insert into rowcron.job (name, queue, command) values (%s, %s, 'select 1')",
            (name, queue),
        )
    worker = Worker(database.url("postgres"))
    with psycopg.connect(database.url("postgres")) as holder:
        holder.execute("set transaction isolation level repeatable read")
        holder.execute("select txid_current(), count(*) from pg_class")
        enqueue(alice, DEAD, 3600)
        for _ in range(DEAD // 1000):  # and not once more, which would raise the bounds to now
            assert len(worker.work(1000)) == 1000
        assert worker.db.execute(NOTES.encode()).fetchone()[0]
        worker.holder = holder  # type: ignore[attr-defined]
        yield worker
    worker.db.close()


def full_load_until(worker: Worker, run: int, limit: float = 30) -> None:
    """Claim less than there is until the run comes."""

    def found() -> bool:
        runs = worker.work(5)
        assert len(runs) == 5, "there must be more to do all the time"
        return run in runs

    wait_until(found, limit, "a run below the bound")


def test_dead_entries_are_passed_over_once(worker: Worker, alice: psycopg.Connection) -> None:
    enqueue(alice, 1_000)
    worker.claim(10)
    assert sum(sorted(worker.passed(10) for _ in range(3))[:2]) < 200 < DEAD  # one may be a sweep
    assert worker.beat()[0]
    with psycopg.connect(worker.db.info.dsn, autocommit=True) as fresh:
        before = fresh.execute(PASSED).fetchone()[0]
        with fresh.transaction():
            fresh.execute("select rowcron.claim(capacity => 1)")
            assert fresh.execute(PASSED).fetchone()[0] - before >= DEAD  # another session's way


def test_a_worker_that_is_woken_wades_once(worker: Worker, alice: psycopg.Connection) -> None:
    ready = "select run_id, token from rowcron.claim_ready(%s, 1, null, '{sql}', null, '1 hour')"

    def woken() -> int:
        enqueue(alice, 1)
        with worker.db.transaction():
            before = worker.db.execute(PASSED).fetchone()[0]
            rows = worker.db.execute(ready, (worker.id,)).fetchall()
            passed = worker.db.execute(PASSED).fetchone()[0] - before
        assert rows.pop() == (None, None)  # there may be more
        assert len(rows) == 1
        worker.held += rows
        worker.finish()
        return passed

    worker.db.execute("select rowcron.pin_plans()")
    assert woken() >= DEAD
    assert sum(sorted(woken() for _ in range(3))[:2]) < 200 < DEAD  # one may be a sweep


TICKS = """
do $$
declare
  t timestamptz := clock_timestamp() - interval '2 hours';
begin
  for i in 1..6000 loop
    update rowcron.agenda as a set high_water = t, next_run_at = t + interval '1 s'
    from rowcron.job as j where j.id = a.job_id and j.name = 'tick';
    t := t + interval '1 s';
  end loop;
  update rowcron.agenda as a set next_run_at = t + interval '1 day'
  from rowcron.job as j where j.id = a.job_id and j.name = 'tick';
end
$$
"""


@pytest.mark.parametrize("what", ["fired", "promoted"])
def test_what_was_fired_or_waited_is_passed_over_once(
    worker: Worker, alice: psycopg.Connection, what: str
) -> None:
    if what == "fired":
        alice.execute(
            "insert into rowcron.job (name, schedule, command)"
            " values ('tick', '0 3 1 1 *', 'select 1')"
        )
        worker.db.execute(TICKS.encode())
    else:
        enqueue(alice, 6_000, -0.02)
        wait_until(lambda: worker.work(1_000) == [] and worker.beat()[0] is not True)
        worker.db.execute("select pg_sleep(0.6)")  # a bound lies half a second in the past
    enqueue(alice, 100, 0)
    other = Worker(worker.db.info.dsn)
    assert other.passed(1) >= DEAD + 6_000
    assert min(other.passed(1) for _ in range(3)) < 200  # one may be a sweep
    other.db.close()


def test_runs_come_in_their_order(worker: Worker, alice: psycopg.Connection) -> None:
    wanted = []
    for priority in (3, 0, -7):
        for ago in (50, 40, 30):
            wanted += enqueue(alice, 20, ago, priority=priority)
    got: list[int] = []
    while runs := worker.work(7):
        got += runs
    assert got == wanted


def test_a_higher_priority_goes_next(worker: Worker, alice: psycopg.Connection) -> None:
    enqueue(alice, 1_000)
    worker.work(10)
    for priority in (1, 2_147_483_647, 5):
        urgent = enqueue(alice, 1, 0, priority=priority)
        assert worker.work(3)[0] == urgent[0]
        # and again, above the bound that its priority has now
        urgent = enqueue(alice, 2, 0, priority=priority)
        assert worker.work(3)[:2] == urgent


def test_a_lower_priority_is_not_lost(worker: Worker, alice: psycopg.Connection) -> None:
    low = enqueue(alice, 3, priority=-2_147_483_648) + enqueue(alice, 1, priority=-5)
    high = enqueue(alice, 30)
    got = [run for _ in range(17) for run in worker.work(2)]
    assert got == high + low[3:] + low[:3]


def test_of_more_priorities_than_are_remembered_none_is_lost(
    worker: Worker, alice: psycopg.Connection
) -> None:
    wanted = []
    for priority in random.sample(range(-300, 300), 250):
        job = random.choice(("on-demand", "elsewhere"))
        wanted += [(-priority, run) for run in enqueue(alice, 2, 60, priority, job)]
    got: list[int] = []
    while runs := worker.work(7):
        got += runs
    assert got == [run for _, run in sorted(wanted)]


def test_a_commit_below_the_bound_is_found_under_full_load(
    worker: Worker, alice: psycopg.Connection, database: Database
) -> None:
    with psycopg.connect(database.url("alice")) as late:
        run = enqueue(late, 1, 59)[0]
        enqueue(alice, 10_000, 58)
        assert run not in [run for _ in range(20) for run in worker.work(50)]
        late.commit()
        full_load_until(worker, run)


def test_an_earlier_instant_is_found_under_full_load(
    worker: Worker, alice: psycopg.Connection
) -> None:
    enqueue(alice, 10_000)
    worker.work(50)
    full_load_until(worker, enqueue(alice, 1, 3000)[0])
    full_load_until(worker, enqueue(alice, 1, 3000, job="elsewhere")[0])


def test_what_is_given_back_is_found_under_full_load(
    worker: Worker, alice: psycopg.Connection
) -> None:
    enqueue(alice, 10_000)
    run = worker.claim(1)[0]
    held, worker.held = worker.held, []
    worker.work(500)
    worker.held = held
    worker.finish("released")
    full_load_until(worker, run)


def test_what_a_dead_worker_held_is_found_under_full_load(
    worker: Worker, alice: psycopg.Connection, database: Database
) -> None:
    run = enqueue(alice, 1, 3000)[0]
    other = Worker(database.url("postgres"))
    assert other.claim(1) == [run]
    enqueue(alice, 10_000, -0.001)  # a lost run is due at once, behind what is there
    worker.work(50)
    worker.db.execute(
        "update rowcron.worker set expires_at = now(), seen_at = now() where id = %s", (other.id,)
    )
    worker.work(1)
    # put where one is that was lost earlier: below the bound
    worker.db.execute(
        "update rowcron.run set due_at = now() - interval '1 hour'"
        " where id = %s and state = 'ready'",
        (run,),
    )
    full_load_until(worker, run)
    other.db.close()


def test_a_failed_attempt_comes_again(worker: Worker, alice: psycopg.Connection) -> None:
    alice.execute("update rowcron.job set max_attempts = 2, retry_delay = '0' where true")
    runs = enqueue(alice, 20)
    worker.claim(5)
    worker.finish("failed")
    got: list[int] = []
    wait_until(lambda: got.extend(worker.work(4)) or len(got) == 20)
    assert sorted(got) == runs
    assert sorted(got[15:]) == runs[:5]


def test_whoever_has_room_finds_it_soon(worker: Worker, alice: psycopg.Connection) -> None:
    for ago in (3000, 2000):
        enqueue(alice, 100, 0)
        assert len(worker.work(100)) == 100
        assert worker.work(100) == []
        run = enqueue(alice, 1, ago)[0]
        got: list[int] = []
        wait_until(lambda got=got: got.extend(worker.work(100)) or got)  # type: ignore[misc]
        assert got == [run]


def test_a_sleeper_looks_again_until_all_was_seen(
    worker: Worker, alice: psycopg.Connection
) -> None:
    assert worker.work(10) == []
    due, look_after, _ = worker.beat()
    assert not due
    if look_after is not None:  # a sweep is not due yet
        assert look_after.total_seconds() < 60

    def settled() -> bool:
        due, look_after, settled = worker.beat()
        assert not due
        return settled and look_after is None

    wait_until(settled, what="all was looked at while settled")
    run = enqueue(alice, 1, 3000)[0]
    wait_until(
        lambda: worker.beat()[0], what="a run below the bound, in time without a notification"
    )
    assert worker.work(10) == [run]


def test_a_job_that_falls_due_is_fired_however_late_it_is_committed(
    worker: Worker, alice: psycopg.Connection
) -> None:
    enqueue(alice, 10_000)
    worker.work(50)
    # as if its transaction had been open for an hour
    alice.execute(
        "insert into rowcron.job (name, schedule, command) values ('late', '0 3 1 1 *', 'select 1')"
    )
    worker.db.execute(
        "update rowcron.agenda set next_run_at = now() - interval '1 hour',"
        " high_water = now() - interval '2 hours'"
        " where job_id = (select id from rowcron.job where name = 'late')"
    )
    fired = "select from rowcron.agenda as a join rowcron.job as j on j.id = a.job_id"
    fired += " where j.name = 'late' and a.next_run_at > now()"
    wait_until(lambda: worker.work(5) and worker.db.execute(fired.encode()).fetchone() is not None)


def test_what_is_fired_late_is_claimed_at_once(worker: Worker, alice: psycopg.Connection) -> None:
    alice.execute(
        "insert into rowcron.job (name, schedule, command)"
        " select 'herd-' || i, '0 3 1 1 *', 'select 1' from generate_series(1, 600) as i"
    )
    assert worker.work(10) == []  # so that the bounds are half a second ago
    worker.db.execute(
        "update rowcron.agenda set next_run_at = now() - interval '1 minute',"
        " high_water = now() - interval '2 hours' where next_run_at > now()"
    )
    # no sweep for an hour
    worker.db.execute(
        "select rowcron._remember(k.key, row(clock_timestamp(), 360, false, false, null, null,"
        " (r.reached).bounds)::rowcron._reached)"
        " from (select rowcron._reach_key('{default,other}', '{sql,sql}', null)) as k (key)"
        " cross join lateral (select rowcron._recall(k.key)) as r (reached)"
    )
    runs = [run for _ in range(3) for run in worker.work(1_000)]
    assert len(set(runs)) == len(runs) == 600


def test_a_waiting_run_is_promoted_however_late_it_is_committed(
    worker: Worker, alice: psycopg.Connection
) -> None:
    enqueue(alice, 10_000)
    worker.work(50)
    run = alice.execute(
        "select rowcron.enqueue('on-demand', due_at => now() + interval '1 hour')"
    ).fetchone()[0]
    worker.db.execute(
        "update rowcron.run set due_at = now() - interval '1 hour' where id = %s", (run,)
    )
    full_load_until(worker, run)


def test_a_limited_job_goes_on(worker: Worker, alice: psycopg.Connection) -> None:
    alice.execute("update rowcron.job set max_running = 2 where name = 'elsewhere'")
    enqueue(alice, 5_000, 50)
    limited = enqueue(alice, 60, 55, job="elsewhere")
    got = [run for _ in range(40) for run in worker.work(10)]
    # each claim releases what the last has made room for, and it goes first
    assert [run for run in got if run in set(limited)] == limited


def test_each_run_is_claimed_once_whatever_comes(
    worker: Worker, alice: psycopg.Connection, database: Database
) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    dice = random.Random(seed)
    others = [worker, Worker(database.url("postgres"))]
    late = psycopg.connect(database.url("alice"))
    wanted: list[int] = []
    got: list[int] = []
    for _ in range(150):
        ago = dice.choice((0, 0, 1, 30, 3600))
        db, job = dice.choice((alice, late)), dice.choice(("on-demand", "elsewhere"))
        wanted += enqueue(db, dice.randint(1, 40), ago, dice.randint(-3, 3), job)
        if dice.random() < 0.2:
            late.commit()
        hand = dice.choice(others)
        runs = hand.claim(dice.randint(1, 30))
        if runs and dice.random() < 0.1:
            hand.finish("released")
        else:
            got += runs
            hand.finish()
    late.commit()
    wait_until(lambda: got.extend(worker.work(500)) or len(got) == len(wanted), what="the rest")
    assert sorted(got) == sorted(wanted)
    others[1].db.close()
    late.close()


def test_what_somebody_else_has_set_does_no_harm(worker: Worker, alice: psycopg.Connection) -> None:
    name = worker.db.execute("select rowcron._reach_key(null, '{sql}', null)").fetchone()[0]
    for value in (
        "x",
        "(infinity,1,t,t,,,{})",
        "(2000-01-01,-5,t,t,infinity,infinity,{})",
        "(,,,,,,)",
    ):
        run = enqueue(alice, 1)
        worker.db.execute("select set_config(%s, %s, false)", (name, value))
        assert worker.work(10) == run, value


def test_once_the_snapshot_is_gone_nothing_is_remembered(
    worker: Worker, alice: psycopg.Connection
) -> None:
    worker.holder.rollback()  # type: ignore[attr-defined]
    worker.db.execute("vacuum rowcron.run")
    enqueue(alice, 100)
    wait_until(lambda: worker.work(1) and not worker.db.execute(NOTES.encode()).fetchone()[0])
    assert worker.passed(10) < 100


def test_a_claim_that_gives_up_raises_no_bound(
    worker: Worker, alice: psycopg.Connection, database: Database
) -> None:
    """Before what it would have found stood too much that may not start."""
    limited = "insert into rowcron.job (name, command, max_running) values (%s, 'select 1', 1)"
    for n in range(40):
        alice.execute(limited, (f"limited-{n}",))
        enqueue(alice, 1, 120, job=f"limited-{n}")
    [run] = enqueue(alice, 1)
    with psycopg.connect(database.url("alice")) as editor:
        editor.execute("update rowcron.job set max_running = 2 where max_running = 1")
        claims = [worker.claim(1) for _ in range(4)]
    assert [found for runs in claims for found in runs] == [run]
