"""SQL jobs, exactly once: effect, record and end of the run in one commit each.

rowcron from one process over several connections; pgbench with one transaction a job, which claims,
has the effect and writes the history; pg_cron with the same statement, where it is installed, and
rowcron on the same server as pg_cron.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import psycopg

from bench.plan import Case, Context
from bench.raw import ONE, SET_UP, SHARED
from bench.server import Server, with_cron
from bench.tools import ROWCRON, Failure, Load, Tool

NAME = "sqljobs"
ONLY = ("rowcron", "pgbench", "pg_cron")
cron_starts: list[float] = []  # ms after the minute: the first, the last
EFFECT = "insert into public.effect (at) values (clock_timestamp())"
TABLE = "create table public.effect (id bigint generated always as identity, at timestamptz)"
CRON_JOBS = 200
NO_CRON = "pg_cron is not installed (Debian: postgresql-15-cron)"


def cases(context: Context) -> Iterator[Case]:
    """Over several connections; beside pg_cron."""
    count = context.jobs or (4_000 if context.short else 12_000)
    for connections in (4, 8):
        title = f"one transaction a job, {connections} connections"
        load = {"connections": connections, "count": count}
        yield Case(f"connections-{connections}", "jobs/s", title, load, rounds=3)
    title = "the same statement, on the server that has pg_cron"
    yield Case("cron", "jobs/s", title, {"connections": 8, "count": count}, takes=70)


def sample(context: Context, tool: Tool, case: Case) -> dict[str, Any] | str:
    """One round."""
    server: Server | None = context.server
    if case.name == "cron":
        server = with_cron(context.server)
        if server is None:
            return NO_CRON
        if tool.name == "pg_cron":
            return pg_cron(server)
        if tool is not ROWCRON:
            return "see above"
    elif tool.name == "pg_cron":
        return "its own server: see below"
    assert server is not None
    database = ROWCRON.fresh(server)
    try:
        return (ours if tool is ROWCRON else pgbench)(context, server, database, **case.load)
    finally:
        server.drop(database)


def ours(
    context: Context, server: Server, database: str, count: int, connections: int
) -> dict[str, Any]:
    """The job is its owner's; the worker may do nothing."""
    with psycopg.connect(server.url("bench_user", database), autocommit=True) as conn:
        conn.execute(TABLE)
        conn.execute("insert into rowcron.job (name, command) values ('effect', %s)", (EFFECT,))
        conn.execute(
            "select count(*) from rowcron.enqueue_many('effect', array_fill(null::jsonb, %s))",
            ([count],),
        )
    server.settle(database)
    load = Load(count, concurrency=max(50, connections), options=(
        "--kind", "sql", "--sql-connections", str(connections), *context.rowcron_options,
    ))  # fmt: skip
    with server.admin(database) as conn, ROWCRON.working(server, database, load) as workers:
        deadline = time.monotonic() + context.patience
        while ROWCRON.ask(conn, ROWCRON.left):
            workers.alive()
            if time.monotonic() > deadline:
                raise Failure(f"SQL jobs not done after {context.patience} s")
            time.sleep(0.02)
        done = ROWCRON.ask(conn, ROWCRON.done or "")
        effects, seconds = conn.execute(
            "select count(*), extract(epoch from max(at) - min(at))::float from public.effect"
        ).fetchone()
    if not effects == done == count:
        raise Failure(f"{effects} effects and {done} entries for {count} runs")
    return {"value": count / seconds, "jobs": count}


def pgbench(
    _: Context, server: Server, database: str, count: int, connections: int
) -> dict[str, Any]:
    """The least that one transaction a job costs."""
    clients = connections
    turns = count // clients
    with server.admin(database) as conn:
        for statement in SET_UP.format(count=turns * clients).split(";\n")[:-1]:
            conn.execute(statement.encode())
        conn.execute(TABLE)
        columns = conn.execute(SHARED).fetchone()[0]
        conn.execute("checkpoint")
    script = "begin;\n" + ONE.format(batch=1, columns=columns) + EFFECT + ";\ncommit;\n"
    rate, _ = server.pgbench(database, script, t=turns, c=clients, j=min(clients, 2))
    with server.admin(database) as conn:
        done = conn.execute("select count(*) from raw.ledger").fetchone()[0]
    return {"value": rate * done / (turns * clients), "jobs": done}


def pg_cron(server: Server) -> dict[str, Any]:
    """Jobs of every minute, because it knows no way to run one now; its own background workers.

    The rate is that from the first start to the last end; what starts when is kept, because
    `recurring` wants it too.
    """
    with server.cron() as conn:
        conn.execute("drop table if exists public.effect")
        conn.execute(TABLE)
        conn.execute("truncate cron.job_run_details")
        conn.execute(
            "select count(cron.schedule('effect-' || i, '* * * * *', %s))"
            f" from generate_series(1, {CRON_JOBS}) as i",
            (EFFECT,),
        )
        ran = "from cron.job_run_details where status = 'succeeded'"
        deadline = time.monotonic() + 130
        try:
            while ROWCRON.ask(conn, f"select count(*) {ran}") < CRON_JOBS:
                if time.monotonic() > deadline:
                    raise Failure("pg_cron did not run all of its jobs within two minutes")
                time.sleep(0.2)
        finally:
            conn.execute("select count(cron.unschedule(jobid)) from cron.job")
        effects = ROWCRON.ask(conn, "select count(*) from public.effect")
        if effects < CRON_JOBS:
            raise Failure(f"pg_cron: {effects} effects of {CRON_JOBS}")
        first, last, end = conn.execute(
            "select extract(epoch from min(start_time))::float,"
            " extract(epoch from max(start_time))::float,"
            f" extract(epoch from max(end_time))::float from (select start_time, end_time {ran}"
            f" order by runid limit {CRON_JOBS}) as r"
        ).fetchone()
    minute = first // 60 * 60
    cron_starts[:] = [(first - minute) * 1e3, (last - minute) * 1e3]
    return {"value": CRON_JOBS / (end - first), "jobs": CRON_JOBS}
