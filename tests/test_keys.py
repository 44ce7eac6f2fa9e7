"""The same key of the same job is one run, whoever asks for it, however many, and how isolated."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest

from harness import ROOT, Database, wait_until

Connection = psycopg.Connection[Any]
ENQUEUE = "select rowcron.enqueue('job', key => %s, key_ttl => %s::interval)"


@pytest.fixture
def job(alice: psycopg.Connection) -> None:
    """A job of alice."""
    alice.execute("set client_min_messages = error")
    alice.execute("insert into rowcron.job (name, command) values ('job', 'select 1')")


def enqueue(conn: Connection, key: str = "key", ttl: str = "1 day") -> int:
    """The run that the key names now."""
    return int(conn.execute(ENQUEUE, (key, ttl)).fetchone()[0])


def later(pool: ThreadPoolExecutor, conn: Connection, db: Connection) -> Future[int]:
    """Enqueue in a thread; returns once it waits for somebody."""
    waiting = "select wait_event_type from pg_stat_activity where pid = %s"
    future = pool.submit(enqueue, conn)
    pid = conn.info.backend_pid
    wait_until(lambda: db.execute(waiting, (pid,)).fetchone() == ("Lock",), what="waiting")
    return future


@pytest.mark.usefixtures("job")
@pytest.mark.parametrize("level", ["read committed", "repeatable read", "serializable"])
def test_a_hundred_callers_at_once_get_one_run(
    database: Database, db: psycopg.Connection, level: str
) -> None:
    callers = 100
    barrier = threading.Barrier(callers)
    again = threading.Lock()
    refused: list[str] = []

    def call(_: int) -> int:
        with psycopg.connect(database.url("alice"), autocommit=True) as conn:
            conn.execute(f"set default_transaction_isolation = '{level}'".encode())
            barrier.wait(60)
            while True:
                try:
                    return enqueue(conn)
                except psycopg.errors.SerializationFailure:
                    with again:
                        refused.append(level)

    with ThreadPoolExecutor(callers) as pool:
        runs = set(pool.map(call, range(callers)))
    assert len(runs) == 1
    assert db.execute("select array_agg(id) from rowcron.run").fetchone() == (list(runs),)
    assert level != "read committed" or refused == []


@pytest.mark.usefixtures("job")
def test_behind_an_open_transaction_it_waits_and_gets_that_run_or_its_own(
    alice: psycopg.Connection, db: psycopg.Connection, database: Database
) -> None:
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(1))
        other = stack.enter_context(psycopg.connect(database.url("alice"), autocommit=True))
        for ends, same in (("rollback", False), ("commit", True)):
            alice.execute("begin")
            first = enqueue(alice)
            future = later(pool, other, db)
            assert not future.done()
            alice.execute(ends)
            assert (future.result(20) == first) == same
            db.execute("delete from rowcron.key")
            db.execute("delete from rowcron.run")


@pytest.mark.usefixtures("job")
def test_an_older_snapshot_is_told_to_try_again(
    alice: psycopg.Connection, db: psycopg.Connection, database: Database
) -> None:
    """It cannot see the run that the key names, and must not make another."""
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(1))
        old = stack.enter_context(psycopg.connect(database.url("alice"), autocommit=True))
        # the run was committed after the snapshot
        old.execute("begin isolation level repeatable read")
        old.execute("select 1")
        first = enqueue(alice)
        with pytest.raises(psycopg.errors.SerializationFailure):
            enqueue(old)
        old.execute("rollback")
        assert enqueue(old) == first
        # the run that it waits for is committed
        alice.execute("begin")
        enqueue(alice, "other")
        old.execute("begin isolation level repeatable read")
        old.execute("select 1")
        query = pool.submit(enqueue, old, "other")
        waiting = "select wait_event_type from pg_stat_activity where pid = %s"
        pid = old.info.backend_pid
        wait_until(lambda: db.execute(waiting, (pid,)).fetchone() == ("Lock",), what="waiting")
        alice.execute("commit")
        with pytest.raises(psycopg.errors.SerializationFailure):
            query.result(20)
        old.execute("rollback")
        # the run that it sees
        old.execute("begin isolation level repeatable read")
        assert enqueue(old) == first
        # the same transaction twice
        mine = enqueue(old, "third")
        assert enqueue(old, "third") == mine
        old.execute("commit")
        assert db.execute("select count(*) from rowcron.run").fetchone() == (3,)


@pytest.mark.usefixtures("job")
def test_an_expired_key_is_taken_by_one_of_a_hundred(
    database: Database, db: psycopg.Connection, alice: psycopg.Connection
) -> None:
    old = enqueue(alice, ttl="1 ms")
    time.sleep(0.002)  # that it expires is what the test is about
    callers = 30
    barrier = threading.Barrier(callers)

    def call(_: int) -> int:
        with psycopg.connect(database.url("alice"), autocommit=True) as conn:
            barrier.wait(60)
            return enqueue(conn)

    with ThreadPoolExecutor(callers) as pool:
        runs = set(pool.map(call, range(callers)))
    assert len(runs) == 1
    assert runs != {old}
    assert db.execute("select count(*) from rowcron.run").fetchone() == (2,)


@pytest.mark.usefixtures("job")
def test_a_key_lives_from_when_it_was_taken_not_from_when_it_was_asked_for(
    connect: Callable[[str], psycopg.Connection], alice: psycopg.Connection
) -> None:
    other = connect("alice")
    alice.execute("begin")
    enqueue(alice)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(enqueue, other, ttl="1 s")
        time.sleep(1.2)  # longer than it lives
        alice.execute("rollback")
        mine = waiting.result(20)
    assert enqueue(alice) == mine


@pytest.mark.usefixtures("job")
def test_expired_keys_cost_nothing(db: psycopg.Connection, alice: psycopg.Connection) -> None:
    """A key is found by its index among any number of others, and these are cleared away."""
    db.execute(
        "insert into rowcron.key (job_id, key, run_id, expires_at)"
        " select j.id, 'old-' || n, n, clock_timestamp() - interval '1 s'"
        " from rowcron.job as j, generate_series(1, 25000) as n"
    )
    db.execute("analyze rowcron.key")
    read = """
      select idx_tup_fetch, seq_scan from pg_stat_xact_user_tables
      where relid = 'rowcron.key'::regclass
    """
    with db.transaction():
        db.execute("set local role alice")
        enqueue(db)
        enqueue(db)
        db.execute("reset role")
        fetched, scans = db.execute(read).fetchone()
    assert scans == 0
    assert fetched < 10
    left = "select count(*) from rowcron.key where expires_at <= clock_timestamp()"
    for _ in range(6):  # once a minute, by whichever worker comes first
        db.execute("select rowcron._maintain(clock_timestamp() + interval '1 hour')")
        db.execute(
            "update rowcron.setting set value = '\"1970-01-01T00:00:00Z\"'"
            " where name = 'maintained_at'"
        )
    assert db.execute(left).fetchone() == (0,)
    assert db.execute("select count(*) from rowcron.key").fetchone() == (1,)


def test_the_readme_s_key_gives_a_run_an_hour(alice: Connection, db: Connection) -> None:
    (example,) = re.findall(r"^select .*'once-an-hour'.*?;", (ROOT / "README.md").read_text(), re.M)
    alice.execute("set client_min_messages = error")
    alice.execute("insert into rowcron.job (name, command) values ('ping', 'select 1')")

    def ask() -> int:
        return int(alice.execute(example.encode()).fetchone()[0])

    def key_ages(by: str) -> None:
        db.execute("update rowcron.key set expires_at = expires_at - %s::interval", (by,))

    first = ask()
    due = "select due_at <= clock_timestamp() from rowcron.run where id = %s"
    assert db.execute(due, (first,)).fetchone() == (True,), "the first call does not wait"
    alice.execute("select rowcron.cancel(%s)", (first,))  # the run has ended, the key lives on
    key_ages("59 minutes")
    assert ask() == first
    key_ages("1 minute")
    assert ask() != first
