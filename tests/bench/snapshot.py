"""A held snapshot: throughput while a transaction is open that is older than many finished runs.

After it has ended and a vacuum has passed, the buffers of a claim, against those of a fresh
database.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg

from bench.plan import Case, Context
from bench.throughput import work_off
from bench.tools import ROWCRON, Load, Tool

NAME = "snapshot"
ONLY = ("rowcron",)
CLAIM = (
    "explain (analyze, buffers, format json) select run_id from rowcron.claim("
    "gen_random_uuid(), 500, null, '{python}', '{bench_async,bench_plain,bench_due}')"
)


def cases(context: Context) -> Iterator[Case]:
    """Without and with."""
    before = 50_000 if context.short else 500_000
    before = context.jobs or before
    for held in ("fresh", "held"):
        title = f"after {before:,} finished runs, " + (
            "an open transaction older than all" if held == "held" else "no open transaction"
        )
        yield Case(held, "jobs/s", title, {"before": before}, takes=60, limit=600)


def sample(context: Context, tool: Tool, case: Case) -> dict[str, Any] | str:
    """One round."""
    server = context.server
    database = ROWCRON.fresh(server)
    count = 20_000 if context.short else 100_000  # long enough to hold several sweeps
    try:
        holder = psycopg.connect(server.url("bench_user", database))
        with server.admin(database) as conn:
            conn.execute("vacuum")
            if case.name == "held":
                holder.execute("set transaction isolation level repeatable read")
                holder.execute("select txid_current(), count(*) from pg_class")
            for number in (case.load["before"], count):
                load = Load(number, concurrency=tool.batch, options=context.options(tool))
                tool.fill(server, database, load)
                conn.execute("checkpoint")
                if number == count:
                    conn.execute("delete from rowcron.ledger")
                figures = work_off(context, tool, database, load, conn, 300.0)
            holder.close()
            conn.execute("vacuum rowcron.run")
            tool.fill(server, database, Load(5_000))
            figures["buffers of a claim of 500"] = buffers(conn)
        return figures
    finally:
        server.drop(database)


def buffers(conn: psycopg.Connection[Any]) -> int:
    """The second claim's, because the first looks up the catalog."""
    found = 0
    for _ in range(2):
        plan = conn.execute(CLAIM.encode()).fetchone()[0]
        plan = json.loads(plan) if isinstance(plan, str) else plan
        top = plan[0]["Plan"]
        found = top["Shared Hit Blocks"] + top["Shared Read Blocks"]
    return int(found)
