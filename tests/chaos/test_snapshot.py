"""A transaction left open keeps every dead row of a busy queue, and nobody is slower for it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from chaos.size import LONG, sized, table
from harness import WORKER, Database, wait_until
from workers import Jobs, WorkerProcess, jobs

__all__ = ["jobs"]
RUNS = sized(3_000, 200_000)
TENTH = RUNS // 10


def empty_claim(db: psycopg.Connection[Any]) -> tuple[int, float]:
    """Return the buffers that a claim touches which finds nothing to do, and its milliseconds."""
    worker = uuid4()
    query = "select from rowcron.claim(%s, 100)"
    explain = f"explain (analyze, buffers, format json) {query}"
    db.execute(query, (worker,))  # plans are made
    found = []
    for _ in range(3):  # one may have had to look into the catalog anew
        plan = db.execute(explain, (worker,)).fetchone()[0][0]  # type: ignore[index]
        touched = plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"]
        found.append((int(touched), float(plan["Execution Time"])))
    db.execute("select from rowcron.heartbeat(%s, stopping => true)", (worker,))
    return min(found)


def cpu_of_sessions(jobs: Jobs) -> float:
    """Return the seconds of CPU that the server's processes for the worker have used."""
    query = "select pid from pg_stat_activity where usename = %s and datname = current_database()"
    pids = [row[0] for row in jobs.db.execute(query, (WORKER,)).fetchall()]
    return sum(int(Path(f"/proc/{p}/schedstat").read_text().split()[0]) for p in pids) / 1e9


def round_of(jobs: Jobs, name: str) -> tuple[float, float]:
    """Enqueue a tenth, wait for its end; return how many ended a second, and CPU a run in us."""
    spent = cpu_of_sessions(jobs)
    many = "rowcron.enqueue_many(%s, array_fill('{}'::jsonb, array[%s]))"
    query = f"select min(id), max(id) from {many} as id"
    first, last = jobs.owner.execute(query, (name, TENTH)).fetchone()
    found = """
      select count(*), extract(epoch from max(finished_at) - min(started_at))::float
      from rowcron.ledger where run_id between %s and %s and final
    """

    def ended() -> float | None:
        count, seconds = jobs.db.execute(found, (first, last)).fetchone()
        time.sleep(0.1)
        return seconds if count == last - first + 1 else None

    rate = TENTH / wait_until(ended, 600, "the end of a tenth")
    return rate, (cpu_of_sessions(jobs) - spent) / TENTH * 1e6


@pytest.mark.parametrize("held", [True, False] if LONG else [True])
def test_a_held_snapshot_makes_nobody_wait(
    jobs: Jobs, database: Database, worker_url: str, tmp_path: Path, held: bool
) -> None:
    name = jobs.add("python", "nothing")
    options = ("--app", "chaos.app", "--kind", "python", "--concurrency", "500")
    worker = WorkerProcess(worker_url, tmp_path, *options, "--log-level", "warning", quiet=True)
    holder = psycopg.connect(database.url("postgres"))
    try:
        round_of(jobs, name)  # warm
        if held:
            holder.execute("set transaction isolation level repeatable read")
            holder.execute("select count(*) from rowcron.run")
        before, ms_before = empty_claim(jobs.db)
        tenths = [round_of(jobs, name) for _ in range(10)]
        rates = [rate for rate, _ in tenths]
        after, ms_after = empty_claim(jobs.db)
        dead = jobs.db.execute("select pg_relation_size('rowcron.run')").fetchone()[0]
        holder.rollback()
        figures = {
            "runs": 10 * TENTH,
            "runs/s of the first tenth": f"{rates[0]:.0f}",
            "runs/s of the last tenth": f"{rates[-1]:.0f} ({rates[-1] / rates[0]:.0%})",
            "runs/s of each": " ".join(f"{rate:.0f}" for rate in rates),
            "server's CPU a run of each, us": " ".join(f"{cpu:.0f}" for _, cpu in tenths),
            "size of rowcron.run at the end": f"{dead / 1024**2:.1f} MiB",
            "buffers of a claim of nothing": f"{before}, at the end {after}",
            "milliseconds of one": f"{ms_before:.1f}, at the end {ms_after:.1f}",
        }
        print(table(f"{'held snapshot' if held else 'no snapshot held'}", figures))
        assert worker.stop() == 0
        assert after < 2 * before + 2_000
        if LONG:  # CPU, because others may be busy on the machine, too
            last = min(cpu for _, cpu in tenths[7:])
            assert last <= min(cpu for _, cpu in tenths[:3]) / 0.7, "at least 70 % of fresh"
    finally:
        holder.close()
        worker.kill()
