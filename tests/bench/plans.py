"""What the hot statements touch and how they are planned, at scale: docs/decisions/018.

    cd tests && ../.venv/bin/python -m bench.plans [--bin /usr/lib/postgresql/15/bin] [--scale 1]
      [--plans] [--only claim,finish]

Prints the buffers that each statement touches in an empty database and in the loaded one of
`bench.loaded` (--scale 1: millions), and with --plans the EXPLAIN (ANALYZE, BUFFERS) of every
statement that touches ten or more in the loaded one, functions' own statements included.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from bench.loaded import AGENDA, JOBS, load
from bench.server import Server
from bench.tools import ROWCRON

WORKER = "00000000-0000-4000-8000-000000000001"
BATCH = 500
LEAST = 10  # buffers of a statement whose plan is worth a look
CLAIM = f"select * from rowcron.claim('{WORKER}', {BATCH}, '{{default}}', '{{python}}')"
STATEMENTS = {
    "claim of 500": CLAIM,
    "claim in vain": CLAIM,
    "short claim of 3": f"select * from rowcron.claim_ready('{WORKER}', 10, '{{default}}',"
    " '{python}')",
    "promote of 500": CLAIM.replace(f", {BATCH},", ", 0,"),
    "fire of 50": CLAIM.replace(f", {BATCH},", ", 0,"),
    "finish of 500": f"select * from rowcron.finish('{WORKER}', %s::bigint[], %s::uuid[],"
    " %s::text[], terse => true)",
    "heartbeat": f"select * from rowcron.heartbeat('{WORKER}', kinds => '{{python}}')",
    "heartbeat asleep": f"select * from rowcron.heartbeat('{WORKER}', kinds => '{{python}}',"
    " asleep => true)",
    "maintenance": f"select * from rowcron.heartbeat('{WORKER}', kinds => '{{python}}')",
    "upcoming page": "select * from rowcron.upcoming_page()",
    "history page": "select * from rowcron.history limit 50",
}
ENQUEUE = (
    "select count(*) from rowcron.enqueue_many('async', array_fill('{}'::jsonb, array[%s]),"
    " owner => 'bench_user')"
)


class Explained:
    """What auto_explain has said about one statement and those within its functions."""

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        self.plans: list[str] = []
        self.on = False
        conn.add_notice_handler(self._said)
        for setting in (
            "auto_explain.log_min_duration = 0", "auto_explain.log_analyze = on",
            "auto_explain.log_buffers = on", "auto_explain.log_nested_statements = on",
            "auto_explain.log_timing = off", "auto_explain.log_level = notice",
            "client_min_messages = notice",
        ):  # fmt: skip
            conn.execute(f"set {setting}".encode())

    def _said(self, said: psycopg.errors.Diagnostic) -> None:
        text = said.message_primary or ""
        if self.on and "plan:\n" in text:
            self.plans.append(text.split("plan:\n", 1)[1])

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Keep the plans of what runs meanwhile."""
        self.plans, self.on = [], True
        yield
        self.on = False

    def buffers(self) -> int:
        """Of the statement itself, which comes last and contains the others."""
        return touched(self.plans[-1])


def touched(plan: str) -> int:
    """The buffers of a plan's top node."""
    head = plan.split("\n")
    for line in head:
        if found := re.match(r"^  Buffers: shared(?: hit=(\d+))?(?: read=(\d+))?", line):
            return sum(int(number or 0) for number in found.groups())
    return 0


def prepare(conn: psycopg.Connection[Any], name: str) -> tuple[Any, ...]:
    """Make that there is something to do; return the statement's values."""
    at = "now() - interval '1 hour'" if name == "maintenance" else "now()"
    conn.execute(
        f"update rowcron.setting set value = to_jsonb({at}) where name = 'maintained_at'".encode()
    )
    if name.startswith(("claim of", "finish")):
        conn.execute(ENQUEUE.encode(), (BATCH,))
    if name.startswith("short"):
        conn.execute(ENQUEUE.encode(), (3,))
        conn.execute(
            "insert into rowcron.worker (id, kinds, concurrency, lease, poll, seen_at, expires_at)"
            f" values ('{WORKER}', '{{python}}', 1, '1 hour', '5 s', now(),"
            " now() + interval '1 hour') on conflict (id) do update set lease = '1 hour',"
            " expires_at = now() + interval '1 hour'".encode()
        )
    if name.startswith("promote"):
        conn.execute(
            ENQUEUE.replace(", owner", ", clock_timestamp() + interval '5 ms', owner").encode(),
            (BATCH,),
        )
        conn.execute("select pg_sleep(0.01)")
    if name.startswith("fire"):
        conn.execute(
            "update rowcron.agenda set next_run_at = now() - interval '1 s',"
            " high_water = now() - interval '1 day' where job_id in ("
            " select job_id from rowcron.agenda where job_id > 1000000 and enabled"
            " order by job_id limit 50)"
        )
    if name.startswith("finish"):
        rows = conn.execute(CLAIM.encode()).fetchall()
        assert len(rows) == BATCH, len(rows)
        ids, tokens = [row[0] for row in rows], [row[1] for row in rows]
        return ids, tokens, ["succeeded"] * BATCH
    return ()


def measured(server: Server, database: str, name: str) -> tuple[int, list[str]]:
    """Buffers and plans, of the second time in a session: the first looks up the catalog."""
    query = STATEMENTS[name].encode()
    with psycopg.connect(server.url("postgres", database), autocommit=True) as conn:
        conn.execute("load 'auto_explain'")
        conn.execute("set session_replication_role = replica")  # bench_user's triggers aside
        explained = Explained(conn)
        for _ in range(2):
            with conn.transaction(force_rollback=True):
                values = prepare(conn, name)
                with explained.listening():
                    conn.execute(query, values or None).fetchall()
        return explained.buffers(), explained.plans


def main() -> int:
    """Print buffers, and plans if asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bin", type=Path, help="server binaries (default: embedded)")
    parser.add_argument("--scale", type=float, default=0.05, help="of the loaded database")
    parser.add_argument("--plans", action="store_true", help="print the plans, too")
    parser.add_argument("--only", default="", help="names begin with one of these, comma between")
    options = parser.parse_args()
    server = Server(options.bin, fsync="off", synchronous_commit="off")
    try:
        server.start()
        empty = ROWCRON.fresh(server)
        with server.admin(empty) as conn:  # as many jobs as are fired
            conn.execute("set session_replication_role = replica")
            conn.execute(JOBS.format(jobs=50, paused=0).encode())
            conn.execute(AGENDA.encode())
            conn.execute("vacuum (analyze)")
        loaded = load(server, options.scale)
        print(f"PostgreSQL {server.version}, scale {options.scale}: buffers touched")
        print(f"{'':18} {'empty':>9} {'loaded':>9}")
        for name in STATEMENTS:
            if not name.startswith(tuple(options.only.split(","))):
                continue
            before, _ = measured(server, empty, name)
            after, plans = measured(server, loaded, name)
            print(f"{name:18} {before:9,} {after:9,}", flush=True)
            for plan in plans if options.plans else ():
                if touched(plan) >= LEAST:
                    print(f"\n{plan}\n")
    finally:
        server.stop()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
