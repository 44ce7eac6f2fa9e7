"""Flat as it grows: throughput, wake-up and pages on a loaded database against an empty one.

--scale 1 is a million jobs due in the future, a million runs of the same queue for the future at
mixed priorities, a million waiting runs of other queues, 20 million ledger rows in 30 partitions,
10,000 paused jobs (`bench.loaded`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import psycopg

from bench.clock import lateness
from bench.loaded import load
from bench.plan import Case, Context
from bench.throughput import work_off
from bench.tools import ROWCRON, Load, Tool
from bench.wakeup import idle

NAME = "flat"
ONLY = ("rowcron",)
NAMES = ("throughput", "wakeup", "upcoming_page", "history")
_loaded: dict[int, str] = {}
DONE = (
    "select count(distinct run_id) from rowcron.ledger"
    " where job = 'async' and final and outcome = 'succeeded'"
)
# each by an index: it is asked again and again while the worker works
LEFT = (
    "select (exists (select from rowcron.run where state = 'running') or exists (select from"
    " rowcron.run where queue = 'default' and kind = 'python' and state = 'ready'))::int"
)
OURS = ("--queue", "default")  # the loaded database has a million ready runs of other queues


def cases(context: Context) -> Iterator[Case]:
    """Each figure empty and loaded."""
    for name in NAMES:
        for state in ("empty", "loaded"):
            rate = name == "throughput"
            loading = state == "loaded" and rate
            yield Case(
                f"{name}-{state}", "jobs/s" if rate else "ms", f"{name}, {state} database",
                {}, lower_is_better=not rate, takes=240 if loading else 20,
                limit=900 if loading else 240,
            )  # fmt: skip


def sample(context: Context, tool: Tool, case: Case) -> dict[str, Any] | str:
    """One round."""
    server = context.server
    name, _, state = case.name.partition("-")
    database = loaded(context) if state == "loaded" else ROWCRON.fresh(server)
    try:
        if name == "throughput":
            work = Load(context.jobs or 40_000, concurrency=tool.batch,
                        options=(*OURS, *context.options(tool)))  # fmt: skip
            with server.admin(database) as conn:
                # that nothing is left was found by reading all that waits: 0.2 s of a sample's 0.8
                conn.execute("set enable_seqscan = off")
                conn.execute("delete from rowcron.ledger where job = 'async'")
                tool.fill(server, database, work)
                conn.execute("vacuum analyze rowcron.run")
                conn.execute("checkpoint")
                ours = replace(tool, left=LEFT, done=DONE)
                return work_off(context, ours, database, work, conn)
        if name == "wakeup":
            return idle(context, tool, database, 100, OURS)
        return page(context, database, name)
    finally:
        if state == "empty":
            server.drop(database)


def page(context: Context, database: str, name: str) -> dict[str, Any]:
    """The first page as its owner sees it, 50 rows, twenty times or for ten seconds."""
    query = {
        "upcoming_page": "select * from rowcron.upcoming_page()",
        "history": "select * from rowcron.history limit 50",
    }[name]
    took = []
    with psycopg.connect(context.server.url("bench_user", database), autocommit=True) as conn:
        until = time.perf_counter() + 10
        while len(took) < 21 and (len(took) < 2 or time.perf_counter() < until):
            begin = time.perf_counter()
            conn.execute(query.encode()).fetchall()
            took.append(time.perf_counter() - begin)
    return lateness(took[1:])


def loaded(context: Context) -> str:
    """The loaded database of this server, made at the first call."""
    server = context.server
    if id(server) not in _loaded:
        begin = time.monotonic()
        _loaded[id(server)] = load(server, context.scale)
        print(f"flat: loaded in {time.monotonic() - begin:.0f} s", flush=True)
    return _loaded[id(server)]
