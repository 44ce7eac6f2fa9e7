"""Wake-up: from the commit of an insert to the handler's start, while the worker is idle.

One machine, one clock: taken in the client when the commit has returned, and in the handler. A
handler may start before the client has heard of its own commit; then the figure is negative, and
"since sent" tells more. Tools that document a call in SQL are asked by the same client (one that is
slow to hear of its commit makes its tool look quick: 0.3 ms with Graphile Worker's own), the others
by their own. And: one job each second, start minus the
instant that the schedule names.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import Any

import psycopg

from bench.clock import lateness, share, starts
from bench.plan import Case, Context
from bench.tools import ROWCRON, Failure, Load, Tool

NAME = "wakeup"
IN_SQL = {
    "rowcron": "select rowcron.enqueue('async', jsonb_build_object('i', %s::int))",
    "graphile": "select graphile_worker.add_job('bench', json_build_object('i', %s::int))",
}
NO_SECONDS = {
    "oban": "its schedules know no seconds",
    "graphile": "its schedules know no seconds",
    # six fields and a look each second (cronMonitorIntervalSeconds) change nothing about that
    "pgboss": "it begins a schedule once a minute at most",
}


def cases(context: Context) -> Iterator[Case]:
    """Idle worker; one job a second."""
    pings = min(context.jobs or 60, 40 if context.short else 60)
    seconds = context.seconds or (15 if context.short else 30)
    title = "commit of an insert to start, idle worker, p50"
    yield Case("idle", "ms", title, {"count": pings}, lower_is_better=True, rounds=3)
    title = "one job each second, start minus instant, p50"
    load = {"seconds": seconds}
    yield Case("second", "ms", title, load, lower_is_better=True, takes=seconds + 10)


def sample(context: Context, tool: Tool, case: Case) -> dict[str, Any] | str:
    """One round."""
    server = context.server
    if case.name == "second" and tool.name in NO_SECONDS:
        return NO_SECONDS[tool.name]
    database = tool.fresh(server)
    try:
        if case.name == "idle":
            return idle(context, tool, database, case.load["count"])
        return each_second(context, tool, database, case.load["seconds"])
    finally:
        server.drop(database)


def idle(
    context: Context, tool: Tool, database: str, count: int, more: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Insert, again and again, with pauses in which the worker falls asleep."""
    server = context.server
    load = Load(count, concurrency=100, starts=True, latency=True,
                options=(*more, *context.options(tool)))  # fmt: skip
    with tool.working(server, database, load) as workers:
        time.sleep(3)  # to start, and to fall asleep
        enqueue = IN_SQL.get(tool.name)
        sent = (
            ping(server.url("bench_user", database), count, enqueue)
            if enqueue
            else tool.verb(server, database, "ping", load)
        )
        deadline = time.monotonic() + 10
        while not any(r["last"] for r in workers.reports()) and time.monotonic() < deadline:
            time.sleep(0.05)
    started = dict(starts(workers))
    if len(started) != count:
        raise Failure(f"{tool.name}: {len(started)} of {count} started")
    since_sent = [(started[i] - before) * 1000 for i, before, _ in sent]
    figures = lateness(started[i] - after for i, _, after in sent)
    return figures | {
        "since sent p50": share(since_sent, 0.5),
        "since sent p99": share(since_sent, 0.99),
    }


def ping(url: str, count: int, enqueue: str) -> list[tuple[int, float, float]]:
    """The same client for all that can be asked in SQL."""
    sent = []
    with psycopg.connect(url, autocommit=True) as conn:
        for i in range(count):
            time.sleep(random.uniform(0.05, 0.15))
            before = time.time()
            conn.execute(enqueue.encode(), (i,))
            sent.append((i, before, time.time()))
    return sent


def each_second(context: Context, tool: Tool, database: str, seconds: int) -> dict[str, Any]:
    """Each tool tells its handler the instant for which it was called."""
    server = context.server
    if tool is ROWCRON:
        with psycopg.connect(server.url("bench_user", database), autocommit=True) as conn:
            conn.execute(
                "insert into rowcron.job (name, kind, command, schedule)"
                " values ('each', 'python', 'bench_due', '* * * * * *')"
            )
    verb = "work" if tool is ROWCRON else "tick"
    load = Load(1, concurrency=100, starts=True, latency=True, options=context.options(tool))
    with tool.working(server, database, load, verb) as workers:
        time.sleep(2 + seconds)
        workers.alive()
    found = sorted(starts(workers), key=lambda start: start[1])
    if not found:
        raise Failure(f"{tool.name}: nothing ran in {seconds} s")
    begin = found[0][1] + 1
    found = [start for start in found if begin <= start[1]]
    return lateness(at - due for due, at in found) | {
        "ran a second": len(found) / max(found[-1][1] - begin, 1)
    }
