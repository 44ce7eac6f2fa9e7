"""A worker's memory: flat however many runs it has seen, bounded however slow the database is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from chaos.cluster import resident
from chaos.size import sized, table
from harness import Database, wait_until
from workers import Jobs, WorkerProcess, jobs

__all__ = ["jobs"]
RUNS = sized(5_000, 1_000_000)
BATCH = sized(500, 5_000)
GROWTH = 16.0  # MiB that it may grow after the first tenth
CONCURRENCY = 200
BACKLOG = 3 * CONCURRENCY + 4_000  # runs that one worker may hold, whatever happens

StartQuietly = Callable[..., WorkerProcess]


@pytest.fixture
def quietly(worker_url: str, database: Database, tmp_path: Path) -> Iterator[StartQuietly]:
    """Starts a worker that writes no log of its runs."""
    started: list[WorkerProcess] = []

    def start_one(*options: str) -> WorkerProcess:
        common = ("--app", "chaos.app", "--log-level", "warning")
        handed = ("--handler-database-url", database.url("alice"))
        concurrency = ("--concurrency", str(CONCURRENCY))
        worker = WorkerProcess(
            worker_url, tmp_path, *common, *handed, *concurrency, *options, quiet=True
        )
        started.append(worker)
        return worker

    yield start_one
    for worker in started:
        worker.kill()


def enqueue(jobs: Jobs, name: str, count: int) -> None:
    """Enqueue so many runs of a job."""
    many = "select count(*) from rowcron.enqueue_many(%s, array_fill('{}'::jsonb, array[%s]))"
    jobs.owner.execute(many, (name, count))


def present(db: psycopg.Connection) -> bool:
    """Return whether a worker is known."""
    return db.execute("select 1 from rowcron.worker").fetchone() is not None


def left(db: psycopg.Connection) -> int:
    """Return how many runs are left."""
    return int(db.execute("select count(*) from rowcron.run").fetchone()[0])


def held(db: psycopg.Connection) -> int:
    """Return how many runs are held by workers."""
    query = "select count(*) from rowcron.run where state = 'running'"
    return int(db.execute(query).fetchone()[0])


def test_memory_of_a_worker_is_flat(jobs: Jobs, quietly: StartQuietly) -> None:
    kinds = {"python": "nothing", "sql": "select 1"}
    names = [jobs.add(kind, command) for kind, command in kinds.items()]
    worker = quietly()
    wait_until(
        lambda: jobs.db.execute("select 1 from rowcron.worker").fetchone(), what="the worker"
    )
    sizes = [resident(worker.process)]
    begin, done = time.monotonic(), 0
    while done < RUNS:
        # SQL jobs are a fifth: they take longer
        for name, share in zip(names, (0.8, 0.2), strict=True):
            enqueue(jobs, name, int(BATCH * share))
        wait_until(lambda: left(jobs.db) < BATCH // 2, 300, "half a batch")
        done += BATCH
        sizes.append(resident(worker.process))
    wait_until(lambda: left(jobs.db) == 0, 300, "the last run")
    sizes.append(resident(worker.process))
    tenth = sizes[max(len(sizes) // 10, 1)]
    figures = {
        "runs": done,
        "runs/s": f"{done / (time.monotonic() - begin):.0f}",
        "resident at start": f"{sizes[0]:.1f} MiB",
        "after a tenth": f"{tenth:.1f} MiB",
        "after a half": f"{sizes[len(sizes) // 2]:.1f} MiB",
        "at the end": f"{sizes[-1]:.1f} MiB",
        "largest": f"{max(sizes):.1f} MiB",
    }
    print(table("memory of a worker", figures))
    assert max(sizes) - tenth < GROWTH
    assert worker.stop() == 0


def beats_waiting(db: psycopg.Connection) -> int:
    """Return how many heartbeats wait for a lock: the loop's and its thread's."""
    query = (
        "select count(*) from pg_stat_activity where datname = current_database()"
        " and wait_event_type = 'Lock' and query like '%rowcron.heartbeat(%'"
    )
    return int(db.execute(query).fetchone()[0])


def test_reports_that_are_answered_during_a_heartbeat_make_room(
    jobs: Jobs, quietly: StartQuietly, database: Database
) -> None:
    name = jobs.add("python", "nothing")
    quietly("--kind", "python", "--poll", "1")
    wait_until(lambda: present(jobs.db), what="the worker")
    with (
        psycopg.connect(database.url("postgres")) as ends,
        psycopg.connect(database.url("postgres")) as beats,
    ):
        ends.execute("lock table rowcron.ledger in share mode")
        enqueue(jobs, name, BACKLOG)
        wait_until(lambda: held(jobs.db) > 2 * CONCURRENCY + 2_000, 60, "a backlog of reports")
        beats.execute("select from rowcron.worker for update")
        wait_until(lambda: beats_waiting(jobs.db) == 2, what="both heartbeats to wait")
        ends.rollback()
        wait_until(lambda: held(jobs.db) == 0, 60, "the reports to be answered")
    wait_until(lambda: left(jobs.db) == 0, 60, "the last run")


def test_a_slow_database_makes_a_worker_claim_less(
    jobs: Jobs, quietly: StartQuietly, database: Database
) -> None:
    runs = sized(4_000, 60_000)
    name = jobs.add("python", "nothing")
    worker = quietly("--kind", "python")
    wait_until(
        lambda: jobs.db.execute("select 1 from rowcron.worker").fetchone(), what="the worker"
    )
    enqueue(jobs, name, 1_000)
    wait_until(lambda: left(jobs.db) == 0, 60, "the first runs")
    before = resident(worker.process)
    sizes: list[float] = []
    with psycopg.connect(database.url("postgres")) as slow:
        slow.execute("lock table rowcron.ledger in share mode")  # claims go on, ends do not
        enqueue(jobs, name, runs)
        counts: list[int] = []

        def steady() -> bool:  # it claims no more
            counts.append(held(jobs.db))
            sizes.append(resident(worker.process))
            time.sleep(0.1)
            return len(counts) > 20 and 0 < counts[-1] == counts[-20]

        wait_until(steady, 60, "a worker that has had enough")
        most = max(counts)
        slow.rollback()
        # slow from now on, rather than standing: open for a moment only
        deadline = time.monotonic() + 120
        while left(jobs.db) > runs // 2:
            assert time.monotonic() < deadline, f"{left(jobs.db)} runs are left"
            slow.execute("lock table rowcron.ledger in share mode")
            most = max(most, held(jobs.db))
            time.sleep(0.1)
            slow.rollback()
            sizes.append(resident(worker.process))
            time.sleep(0.01)
    wait_until(lambda: left(jobs.db) == 0, 120, "the last run")
    figures = {
        "runs": runs,
        "most held by the worker": most,
        "resident before, largest meanwhile": f"{before:.1f} MiB, {max(sizes):.1f} MiB",
    }
    print(table("a slow database", figures))
    assert CONCURRENCY <= most <= BACKLOG
    assert max(sizes) - before < 2 * GROWTH
    query = "select count(*) from rowcron.ledger where outcome = 'succeeded'"
    assert jobs.db.execute(query).fetchone() == (runs + 1_000,)
    assert jobs.db.execute("select count(*) from rowcron.ledger").fetchone() == (runs + 1_000,)
    assert worker.stop() == 0
