"""Whoever enqueues while a worker falls asleep is not kept waiting for its poll."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime
from typing import Any

import psycopg
import pytest

from chaos.size import sized, table
from harness import WORKER, Database, TestServer, wait_until
from test_worker_loop import asleep
from workers import Jobs, Start, jobs, start

__all__ = ["jobs", "start"]
POLL = 30.0
LANES = 3
Connection = psycopg.Connection[Any]


def enqueue(conn: Connection, dice: random.Random) -> int:
    """A run that is due now."""
    return int(conn.execute("select rowcron.enqueue('job')").fetchone()[0])


def enqueue_soon(conn: Connection, dice: random.Random) -> int:
    """A run that is due in a moment, which may have come when it is committed."""
    query = "select rowcron.enqueue('job', due_at => clock_timestamp() + %s * interval '1 ms')"
    return int(conn.execute(query, (dice.uniform(0, 60),)).fetchone()[0])


def enqueue_behind_savepoints(conn: Connection, dice: random.Random) -> int:
    """One that is taken back, and one that stays."""
    conn.execute("savepoint a")
    enqueue(conn, dice)
    time.sleep(dice.uniform(0, 0.02))
    conn.execute("rollback to a")
    conn.execute("savepoint b")
    run = enqueue(conn, dice)
    conn.execute("release b")
    return run


def insert_job(conn: Connection, dice: random.Random) -> str:
    """A job that is due at the next second, once."""
    name = f"once-{dice.getrandbits(60)}"
    conn.execute(
        "insert into rowcron.job (name, schedule, max_runs, command)"
        " values (%s, '* * * * * *', 1, 'select 1')",
        (name,),
    )
    return name


WAYS: list[tuple[str, Callable[..., int | str], int]] = [  # name, how, how often
    ("enqueue", enqueue, 8),
    ("due in a moment", enqueue_soon, 4),
    ("savepoints", enqueue_behind_savepoints, 5),
    ("insert of a job", insert_job, 1),
]
LEVELS = ("read committed", "repeatable read")


def sleep_a_bit(dice: random.Random) -> None:
    """Mostly as long as falling asleep takes, sometimes longer."""
    time.sleep(dice.choice((dice.uniform(0, 0.01), dice.uniform(0, 0.04), dice.uniform(0, 0.2))))


def try_it(conn: Connection, other: Connection, dice: random.Random) -> tuple[str, float]:
    """Hold a transaction that makes a run; return how, and the seconds from commit to start."""
    name, way, _ = dice.choices(WAYS, [often for _, _, often in WAYS])[0]
    level = dice.choice(LEVELS)
    conn.execute(f"begin isolation level {level}".encode())
    if dice.random() < 0.9:  # keeps the worker awake for some milliseconds
        enqueue(other, dice)
        time.sleep(dice.uniform(0, 0.012))
    if dice.random() < 0.5:
        conn.execute("select 1")  # the snapshot is taken here
        sleep_a_bit(dice)
    run = way(conn, dice)
    sleep_a_bit(dice)
    committed = conn.execute("select clock_timestamp()").fetchone()[0]
    conn.execute("commit")
    column = "run_id" if isinstance(run, int) else "job"
    query = f"select due_at, started_at from rowcron.ledger where {column} = %s and final"

    def ended() -> tuple[datetime, datetime] | None:
        found: tuple[datetime, datetime] | None = conn.execute(query.encode(), (run,)).fetchone()
        return found

    due_at, started_at = wait_until(ended, POLL + 10, f"{name}, {level}")
    return f"{name}, {level}", (started_at - max(due_at, committed)).total_seconds()


def quantiles(values: list[float]) -> str:
    """p50, p99, p99.9 and the largest."""
    ordered = sorted(values)
    p50, p99, p999 = (ordered[int((len(ordered) - 1) * q)] * 1000 for q in (0.5, 0.99, 0.999))
    text = f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, p99.9 {p999:.1f} ms, max {ordered[-1] * 1000:.1f}"
    return f"{text} ms (n = {len(ordered)})"


@pytest.fixture
def lanes(server: TestServer) -> Iterator[list[Database]]:
    """Databases: in one, what wakes one worker would wake all."""
    databases = [server.create_database() for _ in range(LANES)]
    yield databases
    for database in databases:
        server.drop_database(database)


def test_no_transaction_held_across_falling_asleep_waits_for_the_poll(
    lanes: list[Database], start: Start
) -> None:
    seed = random.SystemRandom().getrandbits(32)
    late: dict[str, list[float]] = defaultdict(list)

    def tries(lane: Database) -> None:
        dice = random.Random(f"{seed}/{lanes.index(lane)}")
        with ExitStack() as stack:
            conn, other = (
                stack.enter_context(psycopg.connect(lane.url("alice"), autocommit=True))
                for _ in range(2)
            )
            for _ in range(sized(60, 10_000) // LANES):
                sleep_a_bit(dice)
                name, seconds = try_it(conn, other, dice)
                late[name].append(seconds)

    for lane in lanes:
        with psycopg.connect(lane.url("alice"), autocommit=True) as conn:
            conn.execute("insert into rowcron.job (name, command) values ('job', 'select 1')")
        start("--poll", str(POLL), "--lease", "300", url=lane.url(WORKER))
    with ThreadPoolExecutor(LANES) as pool:
        list(pool.map(tries, lanes))
    rows: dict[str, object] = {name: quantiles(late[name]) for name in sorted(late)}
    every = [seconds for values in late.values() for seconds in values]
    title = f"Sleepers: from commit (or due) to start, poll {POLL:.0f} s, seed {seed}"
    print(table(title, rows | {"all": quantiles(every)}))
    assert max(every) < POLL / 10, seed


def test_a_run_due_after_the_poll_of_a_transaction_held_across_it_is_not_late(
    jobs: Jobs, start: Start, database: Database
) -> None:
    """The worker announces when it has something to do, not when it looks anyhow."""
    poll = 2.0
    start("--poll", str(poll), "--lease", "60")
    name = jobs.add("sql", "select 1")
    wait_until(lambda: asleep(jobs.db), what="sleep")
    looked = "select seen_at from rowcron.worker"
    before = jobs.db.execute(looked).fetchone()
    wait_until(lambda: jobs.db.execute(looked).fetchone() != before, what="the end of a poll")
    with psycopg.connect(database.url("alice")) as conn:
        before = jobs.db.execute(looked).fetchone()
        query = "select rowcron.enqueue(%s, due_at => clock_timestamp() + %s * interval '1 s')"
        run = conn.execute(query, (name, poll + 1)).fetchone()[0]
        wait_until(lambda: jobs.db.execute(looked).fetchone() != before, what="the next look")
    end = jobs.end(run)
    assert (end["started_at"] - end["due_at"]).total_seconds() < 0.5


@pytest.mark.parametrize("put_off", ["later", "never"])
def test_who_relied_on_a_wake_that_is_put_off_is_not_late(
    jobs: Jobs, start: Start, database: Database, put_off: str
) -> None:
    start("--poll", "1", "--lease", "60")
    name = jobs.add("sql", "select 1")
    at = "clock_timestamp() + %s * interval '1 s'"
    jobs.owner.execute(f"select rowcron.enqueue(%s, due_at => {at})".encode(), (name, 3))
    wait_until(lambda: asleep(jobs.db), what="sleep")
    with psycopg.connect(database.url("alice")) as conn:
        query = f"select rowcron.enqueue(%s, due_at => {at})"
        run = conn.execute(query.encode(), (name, 3.5)).fetchone()[0]
        if put_off == "later":
            jobs.db.execute("update rowcron.run set due_at = due_at + interval '1 hour'")
        else:
            jobs.db.execute("delete from rowcron.run")
        known = "select from rowcron.worker where wake_at is null or wake_at > now() + '1 min'"
        wait_until(lambda: jobs.db.execute(known).fetchone() is not None, what="the worker's look")
    end = jobs.end(run)
    assert (end["started_at"] - end["due_at"]).total_seconds() < 0.5
