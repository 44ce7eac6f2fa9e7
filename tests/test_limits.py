"""Limits under many claimers: never exceeded, and nothing is forgotten."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import psycopg

from harness import Database

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
