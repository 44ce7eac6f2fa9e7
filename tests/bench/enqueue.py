"""Enqueuing: single statements at 1, 8 and 32 clients, and a thousand in one statement.

rowcron's statements are pgbench's, so that no client's language is measured; the peers enqueue with
their own clients. With 0, 1 and 20 workers that listen (to another queue), with a worker that is
busy, and the same with the wake trigger disabled.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bench.plan import Case, Context
from bench.throughput import SLOW
from bench.tools import ROWCRON, Failure, Load, Tool

NAME = "enqueue"
BACKLOG = 120_000
ONE = "select rowcron.enqueue('async', '{\"i\": 1}');\n"
MANY = (
    "select count(*) from rowcron.enqueue_many('async',"
    " array(select jsonb_build_object('i', i) from generate_series(1, 1000) as i));\n"
)


def cases(context: Context) -> Iterator[Case]:
    """See the module."""
    few = context.jobs or (2_000 if context.short else 4_000)
    load = {"count": max(few * 5 // 1000, 1) * 1000}
    yield Case("bulk", "jobs/s", "1,000 in a statement, one client", load, rounds=3)
    title = "single statements, 32 clients, a busy worker (also: wake trigger disabled)"
    load = {"count": max(few // 32, 1) * 32, "clients": 32}
    yield Case("busy", "jobs/s", title, load, takes=40)
    for workers in (0, 1, 20):
        for clients in (1, 8, 32):
            heard = {0: "no worker", 1: "a worker listening", 20: "20 workers listening"}[workers]
            load = {"count": max(few // clients, 1) * clients, "clients": clients}
            yield Case(
                f"listening-{workers}-{clients}" if workers else f"single-{clients}", "jobs/s",
                f"single statements, {clients} client(s), {heard}", load | {"workers": workers},
                rounds=1 if workers or clients == 8 else 3,
            )  # fmt: skip


def sample(context: Context, tool: Tool, case: Case) -> dict[str, Any] | str:
    """One round."""
    server, load = context.server, case.load
    ours_only = case.name.partition("-")[0] in ("listening", "busy")
    if ours_only and tool is not ROWCRON:
        return "measured without workers only"
    database = tool.fresh(server)
    count, clients = load["count"], load.get("clients", 1)
    try:
        server.settle(database)
        if tool is not ROWCRON:
            slow = SLOW.get(tool.name, 1) if case.name == "bulk" else 1
            count = max(count // slow, 1000)
            verb = case.name.partition("-")[0]
            value = tool.verb(server, database, verb, Load(count, concurrency=clients))
            count = count // clients * clients
        elif case.name == "bulk":
            rate, _ = server.pgbench(database, MANY, "bench_user", t=count // 1000)
            value = rate * 1000
        elif case.name == "busy":
            return busy(context, database, count, clients)
        else:
            with listening(context, database, load.get("workers", 0)):
                value = singles(context, database, count, clients)
        with server.admin(database) as conn:
            found = tool.ask(conn, f"select count(*) from {tool.table}")
        if found != count:
            raise Failure(f"{tool.name}: {found} of {count} enqueued")
        return {"value": value, "jobs": count}
    finally:
        server.drop(database)


def singles(context: Context, database: str, count: int, clients: int) -> float:
    """A statement a job; pgbench's clients."""
    turns = count // clients
    rate, _ = context.server.pgbench(
        database, ONE, "bench_user", t=turns, c=clients, j=min(clients, 2)
    )
    return rate


@contextmanager
def listening(context: Context, database: str, workers: int) -> Iterator[None]:
    """Workers that sleep, and serve another queue."""
    if not workers:
        yield
        return
    load = Load(0, concurrency=10, processes=workers, options=("--queue", "elsewhere"))
    with ROWCRON.working(context.server, database, load):
        _asleep(context, database, workers)
        yield


def busy(context: Context, database: str, count: int, clients: int) -> dict[str, Any]:
    """A worker works off a backlog meanwhile; the wake trigger enabled and disabled, in turn.

    Without a backlog the worker would sleep, and leave the cores to the clients, while the trigger
    is disabled.
    """
    rates: dict[str, list[float]] = {"enable": [], "disable": []}
    load = Load(0, concurrency=1000, options=context.rowcron_options)
    with ROWCRON.working(context.server, database, load), context.server.admin(database) as conn:
        _asleep(context, database, 1)
        for state in ("enable", "disable", "disable", "enable", "enable", "disable"):
            ROWCRON.fill(context.server, database, Load(BACKLOG))
            conn.execute(f"alter table rowcron.run {state} trigger e10_wake".encode())
            rates[state].append(singles(context, database, count, clients))
            if not ROWCRON.ask(conn, "select count(*) from rowcron.run"):
                raise Failure("rowcron: the worker was not busy to the end")
            conn.execute("alter table rowcron.run enable trigger e10_wake")
            conn.execute("select rowcron._notify()")
            _idle(context, conn)
    on, off = (statistics.median(rates[state]) for state in ("enable", "disable"))
    return {"value": on, "trigger disabled": off}


def _idle(context: Context, conn: Any) -> None:
    deadline = time.monotonic() + context.patience
    while ROWCRON.ask(conn, ROWCRON.left):
        if time.monotonic() > deadline:
            raise RuntimeError("the backlog was not worked off")
        time.sleep(0.05)


def _asleep(context: Context, database: str, workers: int) -> None:
    deadline = time.monotonic() + 60
    with context.server.admin(database) as conn:
        while ROWCRON.ask(conn, "select count(*) from rowcron.worker where asleep") < workers:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{workers} workers did not fall asleep within a minute")
            time.sleep(0.1)
