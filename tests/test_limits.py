"""Limits under many claimers: never exceeded, and nothing is forgotten."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import psycopg
import pytest

from harness import WORKER, Database
from workers import Jobs, Start, jobs, start

__all__ = ["jobs", "start"]

CLAIMERS = 8
RUNS = 150
ALLOWED = {"one": 1, "three": 3, "skip": 1, "wait": 1}


class Gauge:
    """Counts what runs, by job; its count is never above what the database counts."""

    def __init__(self) -> None:
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.lock = threading.Lock()

    def begin(self, job: str) -> None:
        with self.lock:
            self.now[job] += 1
            self.most[job] = max(self.most[job], self.now[job])

    def end(self, job: str) -> None:
        with self.lock:
            self.now[job] -= 1


def test_no_limit_is_exceeded_by_many_claimers(
    database: Database, worker_url: str, connect: Callable[[str], psycopg.Connection]
) -> None:
    alice, db = connect("alice"), connect("postgres")
    for name, columns in {
        "one": "max_running => 1",
        "three": "max_running => 3",
        "skip": "schedule => '@every 20 milliseconds'",
        "wait": "schedule => '@every 20 milliseconds', on_overlap => 'wait'",
    }.items():
        alice.execute(
            f"select rowcron.schedule('{name}', command => 'select 1', {columns})".encode()
        )
    for name in ("one", "three"):
        alice.execute(
            "select rowcron.enqueue_many(%s, array_fill('{}'::jsonb, array[%s]))", (name, RUNS)
        )
    gauge, over = Gauge(), threading.Event()

    def claimer(_: int) -> int:
        me, done = uuid4(), 0
        with psycopg.connect(worker_url, autocommit=True) as conn:
            while not over.is_set():
                runs = conn.execute(
                    "select run_id, token, job from rowcron.claim(%s, 3)", (me,)
                ).fetchall()
                for _, _, job in runs:
                    gauge.begin(job)
                time.sleep(0.002)
                for run_id, token, job in runs:
                    gauge.end(job)
                    conn.execute(
                        "select rowcron.finish(run_id => %s, token => %s)", (run_id, token)
                    )
                done += len(runs)
        return done

    with ThreadPoolExecutor(CLAIMERS) as pool:
        futures = [pool.submit(claimer, n) for n in range(CLAIMERS)]
        try:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and not any(f.done() for f in futures):
                row = db.execute(
                    "select count(*) from rowcron.run where job in ('one', 'three')"
                ).fetchone()
                if row == (0,):
                    break
                time.sleep(0.05)
        finally:
            over.set()
        counts = [future.result() for future in futures]
    ended = dict(
        db.execute(
            "select job, count(*) from rowcron.ledger where outcome = 'succeeded' group by 1"
        ).fetchall()
    )
    assert ended["one"] == ended["three"] == RUNS
    assert sum(counts) == sum(ended.values())
    assert {job: gauge.most[job] for job in ALLOWED} == ALLOWED
    assert sum(count > 0 for count in counts) > 1
    doubled = db.execute(
        "select count(*) from (select from rowcron.ledger where scheduled_for is not null"
        " group by job, scheduled_for having count(*) > 1) as d"
    ).fetchone()
    assert doubled == (0,)


def test_an_older_snapshot_claims_nothing(connect: Callable[[str], psycopg.Connection]) -> None:
    """It would not see what began, or was paused or held, after it was taken."""
    worker = connect(WORKER)
    for level in ("repeatable read", "serializable"):
        worker.execute(f"begin isolation level {level}".encode())
        with pytest.raises(psycopg.Error) as refused:
            worker.execute("select * from rowcron.claim()")
        worker.execute("rollback")
        assert refused.value.sqlstate == "RCISO"
        assert level in (refused.value.diag.message_detail or "")
    hint = refused.value.diag.message_hint or ""
    assert hint == f"alter role {WORKER} set default_transaction_isolation = 'read committed';"


def test_workers_keep_limits_where_snapshots_are_old_by_default(jobs: Jobs, start: Start) -> None:
    alter = "alter database {} set default_transaction_isolation = 'serializable'"
    jobs.db.execute(alter.format(jobs.db.info.dbname).encode())
    options = ("--kind", "sql,python", "--concurrency", "20", "--sql-connections", "4")
    for _ in range(2):
        start(*options)
    two = jobs.add("python", "sleep", args='{"seconds": 0.1}', max_running=2)
    free = jobs.add("sql", "select 1")
    runs = [jobs.start(name) for _ in range(40) for name in (two, free)]
    for run in runs:
        assert jobs.end(run)["outcome"] == "succeeded"
    most = jobs.db.execute(
        "select max((select count(*) from rowcron.ledger as o where o.job = l.job"
        " and o.started_at <= l.started_at and o.finished_at > l.started_at + interval '50 ms'))"
        " from rowcron.ledger as l where l.job = %s",
        (two,),
    ).fetchone()
    assert most is not None
    assert 1 <= most[0] <= 2
