"""WAL and bytes: what a run costs from its insert to its end, and what it leaves behind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench.plan import Case, Context
from bench.throughput import work_off
from bench.tools import Load, Tool

NAME = "wal"
HOT = (
    "select coalesce(sum(n_tup_hot_upd), 0)::bigint, coalesce(sum(n_tup_upd), 0)::bigint"
    " from pg_stat_user_tables where schemaname not in ('pg_catalog')"
)
# Not those that a constraint needs; partitions count as one.
UNUSED = """
select distinct regexp_replace(s.schemaname || '.' || s.indexrelname, '_[0-9]{8}', '')
from pg_stat_user_indexes as s join pg_index as i on i.indexrelid = s.indexrelid
where not i.indisunique
group by 1 having sum(s.idx_scan) = 0
order by 1
"""


def cases(context: Context) -> Iterator[Case]:
    """One case; the figure is WAL, the rest stands beside it."""
    count = context.jobs or (10_000 if context.short else 30_000)
    title = "WAL a run, enqueued in bulk and worked off"
    yield Case("run", "bytes", title, {"count": count}, lower_is_better=True)


def sample(context: Context, tool: Tool, case: Case) -> dict[str, Any] | str:
    """One round."""
    server = context.server
    count = case.load["count"]
    if tool.name in ("procrastinate", "oban"):
        count //= 10
    load = Load(count, concurrency=tool.batch, options=context.options(tool))
    database = tool.fresh(server)
    try:
        with server.admin(database) as conn:
            server.settle(database)

            def lsn() -> int:
                return tool.ask(conn, "select pg_current_wal_lsn() - '0/0'::pg_lsn")

            def size() -> int:
                return tool.ask(conn, "select pg_database_size(current_database())")

            empty, begin = size(), lsn()
            tool.fill(server, database, load)
            filled = lsn()
            work_off(context, tool, database, load, conn)
            worked = lsn()
            conn.execute("select pg_stat_force_next_flush()")
            hot, updated = conn.execute(HOT).fetchone()
            unused = [row[0] for row in conn.execute(UNUSED.encode()).fetchall()]
            grown = size() - empty
            conn.execute("vacuum")
            vacuumed = lsn()
            return {
                "value": (worked - begin) / count,
                "enqueue": (filled - begin) / count,
                "work": (worked - filled) / count,
                "vacuum": (vacuumed - worked) / count,
                "growth": grown / count,
                "HOT %": 100 * hot / updated if updated else 0.0,
                "indexes without a scan": len(unused),
                "note": f"not scanned: {', '.join(unused)}" if unused else "every index scanned",
            }
    finally:
        server.drop(database)
