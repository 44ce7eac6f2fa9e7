"""Raw limits: what pgbench reaches on tables of rowcron's shape, without rowcron's functions.

Claim and finish with history, in batches and one transaction a job. The tables are copies of
rowcron's, with their indexes and storage parameters; the statements are as plain as can be.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg

from bench.plan import Case, Context
from bench.tools import ROWCRON, Tool

NAME = "raw"
ONLY = ("pgbench",)
BATCH = 500
SET_UP = """
create schema raw;
create table raw.run (like rowcron.run including all);
create table raw.ledger (like rowcron.ledger including all);
insert into raw.run (job_id, job, owner, queue, kind, handler, state, due_at, args)
select 1, 'bench', 'bench_user'::regrole, 'default', 'python', 'bench_async', 'ready',
  now() + i * interval '1 microsecond', jsonb_build_object('i', i)
from generate_series(1, {count}) as i;
vacuum analyze raw.run;
"""
PICK = """
  select id from raw.run
  where queue = 'default' and kind = 'python' and state = 'ready'
  order by priority desc, due_at, id
  limit {batch} for update skip locked
"""
TWO = (
    "with picked as (" + PICK + "), claimed as ("
    " update raw.run as r set state = 'running', worker_id = '{worker}', started_at = now(),"
    " seal = gen_random_uuid() from picked as p where r.id = p.id returning r.id, r.args)"
    " select array_agg(id) as ids, count(args) as n from claimed \\gset\n"
    "with ended as (delete from raw.run where id = any (:ids::bigint[]) returning *)"
    " insert into raw.ledger ({columns}, run_id, final, finished_at, outcome)"
    " select {columns}, id, true, clock_timestamp(), 'succeeded' from ended;\n"
)
ONE = (
    "with picked as (" + PICK + "), ended as ("
    " delete from raw.run as r using picked as p where r.id = p.id returning r.*)"
    " insert into raw.ledger ({columns}, run_id, final, finished_at, outcome)"
    " select {columns}, id, true, clock_timestamp(), 'succeeded' from ended;\n"
)
SHARED = """
select string_agg(quote_ident(a.attname), ', ' order by a.attnum)
from pg_attribute as a
join pg_attribute as b on b.attname = a.attname and b.attrelid = 'rowcron.ledger'::regclass
where a.attrelid = 'rowcron.run'::regclass and a.attnum > 0 and not a.attisdropped
"""


def cases(context: Context) -> Iterator[Case]:
    """Batches with one client and two, one transaction a job with one client and eight."""
    for clients in (1, 2):
        title = f"pgbench, claim and finish in batches of {BATCH}, {clients} client(s)"
        yield Case(f"batch-{clients}", "jobs/s", title, {"batch": BATCH, "clients": clients},
                   rounds=3)  # fmt: skip
    for clients in (1, 8):
        title = f"pgbench, one transaction a job, {clients} client(s)"
        yield Case(f"each-{clients}", "jobs/s", title, {"batch": 1, "clients": clients},
                   rounds=3)  # fmt: skip


def sample(context: Context, tool: Tool, case: Case) -> dict[str, Any] | str:
    """One round."""
    batch, clients = case.load["batch"], case.load["clients"]
    jobs = context.jobs or (20_000 if context.short else 60_000)
    jobs = jobs if batch > 1 else jobs // 5
    turns = jobs // batch // clients
    server = context.server
    database = ROWCRON.fresh(server)
    try:
        with server.admin(database) as conn:
            for statement in SET_UP.format(count=turns * batch * clients).split(";\n")[:-1]:
                conn.execute(statement.encode())
            columns = conn.execute(SHARED).fetchone()[0]
            conn.execute("checkpoint")
        names = {
            "batch": batch,
            "columns": columns,
            "worker": "0" * 8 + "-0000" * 3 + "-" + "0" * 12,
        }
        script = (TWO if batch > 1 else ONE).format(**names)
        rate, _ = server.pgbench(database, script, t=turns, c=clients, j=min(clients, 2))
        with psycopg.connect(server.url("postgres", database)) as conn:
            done = conn.execute("select count(*) from raw.ledger").fetchone()[0]
        # a client that found the last ones locked has got fewer; those do not count
        return {"value": rate * done / (turns * clients), "jobs": done}
    finally:
        server.drop(database)
