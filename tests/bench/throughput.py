"""Throughput: runs enqueued before are worked off by one worker process, then by two.

The time is from the first handler's start to the moment at which the tool's tables hold nothing
live any more. Then its effects are checked: as many handler calls, and as many jobs recorded.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import psycopg

from bench.plan import Case, Context
from bench.tools import Failure, Load, Tool

NAME = "throughput"


def cases(context: Context) -> Iterator[Case]:
    """No-op handlers, waiting bodies, two processes."""
    many = context.jobs or (20_000 if context.short else 30_000)
    bodies = {"async": (min(many, 20_000), 3), "plain": (min(many, 5_000), 1)}
    yield Case("async", "jobs/s", "no-op async handler, one process", {"count": many}, rounds=3)
    title = "no-op plain handler, one process"
    yield Case("plain", "jobs/s", title, {"count": many, "mode": "plain"}, rounds=3)
    title = "no-op async handler, two processes"
    yield Case("two", "jobs/s", title, {"count": many, "processes": 2}, rounds=3)
    if context.short and not context.wanted_case:
        return
    for body in (1, 20):
        for concurrency in (100, 1000):
            for mode, (count, rounds) in bodies.items():
                title = f"{mode} handler waits {body} ms, concurrency {concurrency}"
                load = {"count": count, "mode": mode, "body": body, "concurrency": concurrency}
                name = f"{mode}-{body}ms-{concurrency}"
                yield Case(name, "jobs/s", title, load, rounds=rounds)


SLOW = {"procrastinate": 20, "oban": 10}  # a share of the runs is enough to know their rate


def sample(context: Context, tool: Tool, case: Case) -> dict[str, Any] | str:
    """One round of one tool; a sentence says what it cannot do."""
    given = {"concurrency": tool.batch, **case.load}
    given["count"] = max(given["count"] // SLOW.get(tool.name, 1), min(given["count"], 1000))
    load = Load(**given, options=context.options(tool))
    if load.mode in tool.cannot:
        return tool.cannot[load.mode]
    server = context.server
    database = tool.fresh(server)
    try:
        tool.fill(server, database, load)
        server.settle(database)
        with server.admin(database) as conn:
            return work_off(context, tool, database, load, conn)
    finally:
        server.drop(database)


def work_off(
    context: Context, tool: Tool, database: str, load: Load, conn: psycopg.Connection[Any],
    patience: float = 0.0,
) -> dict[str, Any]:  # fmt: skip
    """Start the worker and wait until nothing is left."""
    patience = patience or context.patience
    deadline = time.monotonic() + patience
    with tool.working(context.server, database, load) as workers:
        begin = time.time()
        # of one process the handlers tell when it is worth looking into the tables
        while load.processes == 1 and not any(r["last"] for r in workers.reports()):
            workers.alive()
            if time.monotonic() > deadline:
                raise Failure(f"{tool.name}: not all had started after {patience:.0f} s")
            time.sleep(0.005)
        while tool.ask(conn, tool.left):
            workers.alive()
            if time.monotonic() > deadline:
                raise Failure(f"{tool.name}: not done after {patience:.0f} s")
            time.sleep(0.005)
        end = time.time()
        told = time.monotonic() + 5
        while sum(r["count"] for r in workers.reports()) < load.count and time.monotonic() < told:
            time.sleep(0.05)
    reports = workers.reports()
    started = sum(report["count"] for report in reports)
    if tool.done is not None:
        deadline = time.monotonic() + 5
        while (recorded := tool.ask(conn, tool.done)) < load.count and time.monotonic() < deadline:
            time.sleep(0.05)
        if recorded != load.count:
            raise Failure(f"{tool.name}: {recorded} of {load.count} recorded")
    if started != load.count:
        raise Failure(f"{tool.name}: {started} handler calls for {load.count} jobs")
    first = min(report["first"] for report in reports if report["count"])
    return {
        "value": load.count / (end - first),
        "jobs": load.count,
        "seconds": end - first,
        "to first start": first - begin,
    }
