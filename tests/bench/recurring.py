"""Recurring jobs: many due in one second; many each second; 200 due at once, beside the peers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import psycopg

from bench.clock import lateness, share, starts
from bench.plan import Case, Context
from bench.server import Server, with_cron
from bench.sqljobs import CRON_JOBS, NO_CRON, cron_starts, pg_cron
from bench.tools import ROWCRON, TOOLS, Failure, Load, Tool

NAME = "recurring"
ONLY = (*TOOLS, "pg_cron")
OURS = ("burst", "flow")
SECONDS = ("rowcron", "pgqueuer", "procrastinate")  # whose schedules know them
AT_ONCE = 200


def cases(context: Context) -> Iterator[Case]:
    """See the module."""
    burst = context.jobs or (2_000 if context.short else 10_000)
    flow = min(context.jobs or 1_000, 1_000)
    seconds = context.seconds or (30 if context.short else 300)
    title = f"{burst:,} jobs due in one second: last start"
    yield Case("burst", "ms", title, {"count": burst}, lower_is_better=True, takes=60)
    title = f"{flow:,} jobs each second for {seconds} s: start minus instant, p50"
    yield Case("flow", "ms", title, {"count": flow, "seconds": seconds}, lower_is_better=True,
               takes=seconds + 20, limit=seconds + 200)  # fmt: skip
    title = f"{AT_ONCE} jobs due at once: last start"
    yield Case("at_once", "ms", title, {"count": AT_ONCE}, lower_is_better=True, takes=70)


def sample(context: Context, tool: Tool, case: Case) -> dict[str, Any] | str:
    """One round."""
    if case.name in OURS and tool is not ROWCRON:
        return f"not asked of it: see {AT_ONCE} due at once, and one job each second"
    if tool.name == "pg_cron":
        beside = with_cron(context.server)
        return cron(beside) if beside else NO_CRON
    server = context.server
    database = tool.fresh(server)
    try:
        return {"burst": burst, "flow": flow, "at_once": at_once}[case.name](
            context, tool, database, **case.load
        )
    finally:
        server.drop(database)


def cron(server: Server) -> dict[str, Any]:
    """pg_cron's starts, of the sample that `sqljobs` has taken, or of another one."""
    if not cron_starts:
        pg_cron(server)
    return {"value": cron_starts[1], "first start": cron_starts[0], "n": CRON_JOBS}


def store(context: Context, database: str, count: int, schedule: str, name: str = "due") -> None:
    """Jobs whose handler writes down which occurrence it was called for."""
    with psycopg.connect(context.server.url("bench_user", database), autocommit=True) as conn:
        conn.execute(
            "insert into rowcron.job (name, kind, command, schedule)"
            f" select '{name}-' || i, 'python', 'bench_due', %s from generate_series(1, %s) as i",
            (schedule, count),
        )


def burst(context: Context, tool: Tool, database: str, count: int) -> dict[str, Any]:
    """All due at one instant; five jobs each second show what is late afterwards."""
    due = int(time.time()) + 15 + count // 400
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(due))
    store(context, database, count, f"@at {stamp}")
    store(context, database, 5, "* * * * * *", "pulse")
    context.server.settle(database)
    if time.time() > due - 4:
        raise Failure("storing the jobs took too long")
    load = Load(0, concurrency=1000, starts=True, options=context.rowcron_options)
    with tool.working(context.server, database, load) as workers:
        while time.time() < due + 8:
            workers.alive()
            time.sleep(0.2)
    found = starts(workers)
    mine = sorted(at - due for instant, at in found if instant == due)
    later = [at - instant for instant, at in found if due < instant <= due + 6]
    if len(mine) < count or not later:
        raise Failure(f"{len(mine)} of {count} started, {len(later)} in the seconds after")
    # the pulse of that second is among them; that is five more, due at the same instant
    return {
        "value": mine[-1] * 1000, "first start": mine[0] * 1000, "p50": share(mine, 0.5) * 1000,
        "late in the seconds after, max": max(later) * 1000, "n": len(mine),
    }  # fmt: skip


def flow(context: Context, tool: Tool, database: str, count: int, seconds: int) -> dict[str, Any]:
    """Every occurrence must stand in the ledger, and nearly all must have run."""
    store(context, database, count, "* * * * * *")
    load = Load(0, concurrency=1000, starts=True, options=context.rowcron_options)
    with tool.working(context.server, database, load) as workers:
        time.sleep(5)
        begin = int(time.time()) + 1
        end = begin + seconds
        while time.time() < end + 3:
            workers.alive()
            time.sleep(0.2)
    with context.server.admin(database) as conn:
        accounted, ran = conn.execute(
            # one entry may stand for several seconds, some of them outside of the time measured
            "select sum(extract(epoch from least(l.scheduled_for, to_timestamp(%(last)s))"
            " - greatest(coalesce(l.first_scheduled_for, l.scheduled_for),"
            " to_timestamp(%(begin)s))) + 1)::int, count(*) filter (where l.outcome = 'succeeded')"
            " from rowcron.ledger as l where l.final and l.scheduled_for >= to_timestamp(%(begin)s)"
            " and coalesce(l.first_scheduled_for, l.scheduled_for) <= to_timestamp(%(last)s)",
            {"begin": begin, "last": end - 1},
        ).fetchone()
    found = [at - instant for instant, at in starts(workers) if begin <= instant < end]
    total = count * seconds
    if not found or accounted > total:
        raise Failure(f"{len(found)} started, {accounted} of {total} occurrences in the ledger")
    return lateness(found) | {
        "ran %": 100 * ran / total, "occurrences": total, "not in the ledger": total - accounted,
    }  # fmt: skip


def at_once(context: Context, tool: Tool, database: str, count: int) -> dict[str, Any]:
    """All due at one second, or minute for those that know none: the last start after it."""
    if tool.name in SECONDS:
        due = int(time.time()) + 15
        field = time.gmtime(due)
        ours = f"{field.tm_sec} {field.tm_min} {field.tm_hour} * * *"
        theirs = f"{field.tm_min} {field.tm_hour} * * * {field.tm_sec}"  # croniter's
    else:
        if time.time() % 60 > 40:  # a worker needs time to start
            time.sleep(61 - time.time() % 60)
        due = (int(time.time()) // 60 + 1) * 60
        ours = theirs = "* * * * *"
    if tool is ROWCRON:
        store(context, database, count, ours)
    load = Load(count, concurrency=tool.batch, starts=True, latency=True, cron=theirs,
                options=context.options(tool))  # fmt: skip
    verb = "work" if tool is ROWCRON else "at_once"
    with tool.working(context.server, database, load, verb) as workers:
        early = False  # pg-boss begins with the minute that has passed already
        while time.time() < due + (30 if early else 50):
            workers.alive()
            if not early and any(r["last"] for r in workers.reports()):
                if time.time() > due:
                    break
                early = True
            time.sleep(0.2)
    found = sorted(at - due for _, at in starts(workers) if due - 1 < at < due + 55)
    if not found:
        raise Failure(f"{tool.name}: none ran")
    return {"value": found[-1] * 1000, "first start": found[0] * 1000, "n": len(found)}
