"""How much the hot statements touch, counted: it must not grow with what lies around.

Time says little on a busy machine; buffers and rows say the same everywhere. Each statement is
measured beside few rows and beside many: jobs and runs that are due in the future, waiting runs of
other queues, paused jobs, and the ledger's past.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from operator import sub
from typing import Any

import psycopg
import pytest

from harness import Database, TestServer, wait_until

FEW, MANY = 1_000, 100_000
RUNS = 50  # that the statement in question handles
WORKER = "00000000-0000-4000-8000-000000000001"
TABLES = (
    "('agenda', 'change', 'job', 'key', 'lane', 'run', 'setting', 'worker')"
    " or c.relname ~ '^ledger'"
)
# Rows that scans have read and heap rows fetched, of tables and through indexes.
READ = f"""
select coalesce(sum(pg_stat_get_xact_tuples_returned(c.oid)
  + pg_stat_get_xact_tuples_fetched(c.oid)), 0)::bigint
from pg_class as c
where c.relnamespace = 'rowcron'::regnamespace and c.relkind in ('r', 'i')
  and (c.relkind = 'i' or c.relname in {TABLES})
"""
JOBS = """
insert into rowcron.job (name, owner, kind, command, schedule, queue, enabled)
select 'load-' || i, 'alice'::regrole, 'sql', 'select 1', '0 3 1 1 *', 'default', i % 10 > 0
from generate_series(1, {count}) as i
"""
AGENDA = """
insert into rowcron.agenda (job_id, owner, queue, kind, enabled, parsed, next_run_at, high_water)
select j.id, j.owner, j.queue, j.kind, j.enabled, p.parsed,
  case when j.enabled then now() + interval '1 day' + j.id * interval '1 s' end, now()
from rowcron.job as j, (select rowcron._parse('0 3 1 1 *') as parsed) as p
where j.name like 'load-%'
"""
LIVE = """
insert into rowcron.run (job_id, job, owner, queue, kind, state, waits_for, priority, due_at)
select j.id, j.name, j.owner, s.queue, 'sql', s.state, s.waits_for, i % 10, now() + s.due
  + i * interval '1 ms'
from rowcron.job as j, generate_series(1, {count}) as i, (values
  ('default', 'waiting', 'time', interval '1 day'),
  ('elsewhere', 'ready', null, interval '-1 hour')
) as s (queue, state, waits_for, due)
where j.name = 'on-demand'
"""
# of the oldest 5,000 the maintenance looks at each, and of the newest 10,000
CHANGES = """
insert into rowcron.change (changed_by, action, job_id, job, owner)
select 'alice', 'insert', i, 'load-' || i, 'alice'::regrole
from generate_series(1, greatest(12000, {count})) as i
"""
PAST = """
insert into rowcron.ledger (job_id, job, owner, queue, kind, run_id, attempt, final, due_at,
  started_at, finished_at, outcome)
select 0, 'load-1', 'alice'::regrole, 'default', 'sql', -i, 1, true, now(), now(), now(),
  'succeeded'
from generate_series(1, {count}) as i
"""


def loaded(server: TestServer, around: int) -> Database:
    """A database in which so many rows lie around."""
    database = server.create_database()
    with psycopg.connect(database.url("alice"), autocommit=True) as alice:
        alice.execute("insert into rowcron.job (name, command) values ('on-demand', 'select 1')")
    with psycopg.connect(database.url("postgres"), autocommit=True) as db:
        db.execute("set session_replication_role = replica")  # set-wise, past the triggers
        db.execute(JOBS.format(count=around).encode())
        db.execute(AGENDA.encode())
        for text in (CHANGES, LIVE, PAST):
            db.execute(text.format(count=around).encode())
        db.execute("insert into rowcron.lane values ('elsewhere', 'sql') on conflict do nothing")
        # what an installation leaves to be done once
        db.execute("select rowcron._renew_agenda(clock_timestamp(), 1000000)")
        db.execute("vacuum (analyze)")
    return database


@pytest.fixture(scope="module")
def pair(server: TestServer) -> Iterator[tuple[Database, Database]]:
    """The same database with few rows around, and with many."""
    databases = (loaded(server, FEW), loaded(server, MANY))
    yield databases
    for database in databases:
        server.drop_database(database)


def work(db: psycopg.Connection[Any], statement: str, *values: Any) -> dict[str, int]:
    """What a statement touches, of the second time in this session: the first fills caches."""
    found: dict[str, int] = {}
    for _ in range(2):
        with db.transaction(force_rollback=True):
            before = db.execute(READ.encode()).fetchone()[0]
            query = f"explain (analyze, buffers, format json, timing off) {statement}"
            plan = db.execute(query.encode(), values).fetchone()[0]
            after = db.execute(READ.encode()).fetchone()[0]
        top = (json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]
        buffers = top["Shared Hit Blocks"] + top["Shared Read Blocks"]
        found = {"buffers": buffers, "rows": after - before, "out": int(top["Actual Rows"])}
    return found


CLAIM = f"select * from rowcron.claim('{WORKER}', {RUNS}, '{{default}}', '{{sql}}')"

FEW_READY = 10  # that a short claim hands out at most
SHORT = f"select * from rowcron.claim_ready('{WORKER}', {FEW_READY}, '{{default}}', '{{sql}}')"
# else the short claim leaves all to the other
PIN = b"select rowcron.pin_plans()"
ALIVE = f"""
insert into rowcron.worker (id, kinds, concurrency, lease, poll, seen_at, expires_at)
values ('{WORKER}', '{{sql}}', 1, '1 hour', '5 s', now(), now() + interval '1 hour')
on conflict (id) do update set lease = '1 hour', expires_at = now() + interval '1 hour'
"""


def vacuum(db: psycopg.Connection[Any]) -> None:
    """Clear dead runs away, once nobody can see them any more: autovacuum's workers, say."""
    wait_until(
        lambda: (
            not db.execute(
                "select from pg_stat_activity where datname = current_database()"
                " and pid <> pg_backend_pid() and backend_xmin is not null"
            ).rowcount
        )
    )
    db.execute("vacuum rowcron.run")


def claim_work(database: Database) -> dict[str, int]:
    """A claim of runs that are ready."""
    with psycopg.connect(database.url("postgres"), autocommit=True) as db:
        return work(db, CLAIM)


def enqueue(database: Database) -> None:
    """Runs that are ready now."""
    with psycopg.connect(database.url("alice"), autocommit=True) as alice:
        alice.execute(
            "select count(*) from rowcron.enqueue_many('on-demand',"
            f" array_fill(null::jsonb, '{{{RUNS}}}'))"
        )


def compare(few: dict[str, int], many: dict[str, int], handled: int) -> None:
    """A tree is one or two levels higher when it is a hundred times larger; nothing else grows."""
    assert few["out"] == many["out"]
    assert few["rows"] > 0 or few["buffers"] > 0
    assert many["rows"] <= few["rows"] * 1.1 + 10, (few, many)
    # nor is a scan of all allowed where it is cheap: plans stay when tables have grown
    assert max(few["rows"], many["rows"]) <= 12 * handled + 50, (few, many)
    # each run is found in, or put into, some indexes; two more levels in each of them
    assert many["buffers"] <= few["buffers"] * 1.5 + 2 * handled + 50, (few, many)


def test_a_claim_touches_no_more_beside_many_rows(pair: tuple[Database, Database]) -> None:
    figures = []
    for database in pair:
        enqueue(database)
        figures.append(claim_work(database))
    assert figures[0]["out"] == RUNS
    compare(*figures, RUNS)


def test_a_claim_in_vain_touches_no_more_beside_many_rows(
    pair: tuple[Database, Database],
) -> None:
    figures = []
    for database in pair:
        with psycopg.connect(database.url("postgres"), autocommit=True) as db:
            db.execute("delete from rowcron.run where queue = 'default' and state = 'ready'")
            vacuum(db)
        figures.append(claim_work(database))
    assert figures[0]["out"] == 0
    compare(*figures, 0)


def test_a_short_claim_touches_no_more_beside_many_rows(pair: tuple[Database, Database]) -> None:
    some, none = [], []
    for database in pair:
        enqueue(database)
        with psycopg.connect(database.url("postgres"), autocommit=True) as db:
            db.execute(ALIVE.encode())
            db.execute(PIN)
            some.append(work(db, SHORT))
            db.execute("delete from rowcron.run where queue = 'default' and state = 'ready'")
            vacuum(db)
            none.append(work(db, SHORT))
    assert some[0]["out"] == FEW_READY + 1  # and word that there are more
    compare(*some, FEW_READY)
    assert none[0]["out"] == 1  # when to look after others
    compare(*none, 0)


def test_finishing_touches_no_more_beside_many_rows(pair: tuple[Database, Database]) -> None:
    figures = []
    for database in pair:
        enqueue(database)
        with psycopg.connect(database.url("postgres"), autocommit=True) as db:
            rows = db.execute(
                f"select run_id, token from rowcron.claim('{WORKER}', {RUNS}, '{{default}}',"
                " '{sql}')"
            ).fetchall()
            ids, tokens = [row[0] for row in rows], [row[1] for row in rows]
            done = ["succeeded"] * len(rows)
            statement = (
                f"select * from rowcron.finish('{WORKER}', %s::bigint[], %s::uuid[], %s::text[])"
            )
            figures.append(work(db, statement, ids, tokens, done))
    assert figures[0]["out"] == RUNS
    compare(*figures, RUNS)


def test_finishing_reads_no_run_of_others_when_planned_while_there_was_none(
    database: Database,
) -> None:
    finish = f"select * from rowcron.finish('{WORKER}', %s::bigint[], %s::uuid[], %s::text[])"
    with psycopg.connect(database.url("alice"), autocommit=True) as alice:
        alice.execute("insert into rowcron.job (name, command) values ('on-demand', 'select 1')")
    with psycopg.connect(database.url("postgres"), autocommit=True) as db:
        db.execute("vacuum (analyze) rowcron.run")
        db.execute(finish.encode(), ([0], [WORKER], ["succeeded"]))
        for _ in range(40):
            enqueue(database)
        rows = db.execute(CLAIM.replace(f" {RUNS},", " 2000,").encode()).fetchall()[-RUNS:]
        ids, tokens = [row[0] for row in rows], [row[1] for row in rows]
        found = work(db, finish, ids, tokens, ["succeeded"] * RUNS)
    assert found["out"] == RUNS
    assert found["rows"] <= 12 * RUNS + 50, found


@pytest.mark.parametrize(("claim", "out"), [(CLAIM, RUNS), (SHORT, FEW_READY + 1)])
def test_a_claim_reads_no_other_jobs_when_planned_while_there_was_none(
    database: Database, claim: str, out: int
) -> None:
    with psycopg.connect(database.url("alice"), autocommit=True) as alice:
        alice.execute("insert into rowcron.job (name, command) values ('on-demand', 'select 1')")
    with (
        psycopg.connect(database.url("postgres"), autocommit=True) as db,
        psycopg.connect(database.url("postgres"), autocommit=True) as loader,
    ):
        for table in ("job", "agenda", "run"):
            loader.execute(f"alter table rowcron.{table} set (autovacuum_enabled = off)".encode())
        loader.execute("delete from rowcron.job")  # its queue is still known
        loader.execute("vacuum (analyze)")
        db.execute(ALIVE.encode())
        db.execute(PIN)
        db.execute(claim.encode())  # all is planned now
        loader.execute("set session_replication_role = replica")
        loader.execute(JOBS.format(count=FEW).encode())
        loader.execute(AGENDA.encode())
        loader.execute(
            "insert into rowcron.run (job_id, job, owner, queue, kind, state, due_at) select j.id,"
            " j.name, j.owner, 'default', 'sql', 'ready', now() from rowcron.job as j"
            f" where j.name like 'load-%' and j.enabled order by j.id limit {RUNS}".encode()
        )
        found = work(db, claim)
    assert found["out"] == out
    assert found["rows"] <= 12 * RUNS + 50, found


def test_firing_touches_no_more_beside_many_rows(pair: tuple[Database, Database]) -> None:
    figures = []
    for database in pair:
        with psycopg.connect(database.url("postgres"), autocommit=True) as db:
            # all that load-... is left as it is; these are due
            db.execute("set session_replication_role = replica")
            db.execute(
                "update rowcron.agenda set next_run_at = now() - interval '1 s',"
                " high_water = now() - interval '1 day' where job_id in (select id from"
                " rowcron.job where name like 'load-%' and enabled order by id limit 50)"
            )
            db.execute("set session_replication_role = origin")
            db.execute("vacuum rowcron.agenda")
            figures.append(work(db, CLAIM.replace(f" {RUNS},", " 0,")))
    assert figures[0]["rows"] >= RUNS
    compare(*figures, RUNS)


def test_what_falls_due_is_written_once_and_begun(database: Database) -> None:
    with psycopg.connect(database.url("postgres"), autocommit=True) as db:
        db.execute("grant rowcron_python to alice")
    with psycopg.connect(database.url("alice"), autocommit=True) as alice:
        alice.execute(
            "insert into rowcron.job (name, kind, command, schedule)"
            " select 'due-' || i, 'python', 'tick', '0 3 1 1 *' from generate_series(1, %s) as i",
            (RUNS,),
        )
    claim = CLAIM.replace("{sql}", "{python}").replace(f" {RUNS},", f" {2 * RUNS},")
    writes = (
        "select c.relname, pg_stat_get_xact_tuples_inserted(c.oid),"
        " pg_stat_get_xact_tuples_updated(c.oid) from pg_class as c"
        " where c.oid in ('rowcron.run'::regclass, 'rowcron.agenda'::regclass) order by c.relname"
    )
    with psycopg.connect(database.url("postgres"), autocommit=True) as db:
        db.execute(
            "update rowcron.agenda set next_run_at = now() - interval '1 s',"
            " high_water = now() - interval '1 day'"
        )
        db.execute("vacuum rowcron.agenda")
        figures = work(db, claim)
        with db.transaction(force_rollback=True):
            before = db.execute(writes.encode()).fetchall()
            rows = db.execute(claim.encode()).fetchall()
            after = db.execute(writes.encode()).fetchall()
    assert len(rows) == RUNS
    written = [tuple(map(sub, row[1:], old[1:])) for row, old in zip(after, before, strict=True)]
    assert written == [(0, RUNS), (RUNS, 0)]  # agenda, run: inserted, updated
    # about 23 each: agenda, job, live runs, the new run and its entries in four indexes
    assert figures["buffers"] <= 26 * RUNS + 100, figures


@pytest.mark.parametrize(
    ("statement", "handled"),
    [
        (f"select * from rowcron.heartbeat('{WORKER}')", 0),
        (f"select * from rowcron.heartbeat('{WORKER}', asleep => true)", 0),
        ("select rowcron._maintain(clock_timestamp() + interval '2 minutes')", 3000),
        ("select * from rowcron.upcoming_page()", 2 * 50 * 20),  # a page a priority
        ("select * from rowcron.history limit 50", 50),
    ],
)
def test_looking_touches_no_more_beside_many_rows(
    pair: tuple[Database, Database], statement: str, handled: int
) -> None:
    figures = []
    for database in pair:
        with psycopg.connect(database.url("postgres"), autocommit=True) as db:
            db.execute("update rowcron.setting set value = to_jsonb(now()) where name = %s",
                       ("maintained_at",))  # fmt: skip
            figures.append(work(db, statement))
    compare(*figures, handled)


def test_promoting_touches_no_more_beside_many_rows(pair: tuple[Database, Database]) -> None:
    figures = []
    statement = CLAIM.replace(f" {RUNS},", " 0,")
    ready = "select count(*) from rowcron.run where queue = 'default' and state = 'ready'"
    for database in pair:
        with psycopg.connect(database.url("postgres"), autocommit=True) as db:
            db.execute(statement.encode())  # fires what is due
            found = []
            for _ in range(3):  # something else may fall due meanwhile
                vacuum(db)
                before = db.execute(ready.encode()).fetchone()[0]
                db.execute(
                    "select count(*) from rowcron.enqueue_many('on-demand', array_fill(null::jsonb,"
                    f" '{{{RUNS}}}'), clock_timestamp() + interval '10 ms',"
                    " owner => 'alice')".encode()
                )
                db.execute("select pg_sleep(0.02)")
                found.append(work(db, statement))
                db.execute(statement.encode())
                assert db.execute(ready.encode()).fetchone()[0] == before + RUNS
            figures.append(min(found, key=lambda figure: figure["rows"]))
    compare(*figures, RUNS)


@pytest.mark.parametrize("held", [True, False], ids=["held snapshot", "no vacuum yet"])
def test_a_claim_touches_no_more_when_many_have_ended(database: Database, held: bool) -> None:
    with psycopg.connect(database.url("alice"), autocommit=True) as alice:
        alice.execute("insert into rowcron.job (name, command) values ('on-demand', 'select 1')")
    found = []
    with (
        psycopg.connect(database.url("postgres"), autocommit=True) as db,
        psycopg.connect(database.url("postgres")) as holder,
    ):
        for finished in (0, 20_000, 0):
            if finished:
                if held:
                    holder.execute("set transaction isolation level repeatable read")
                    holder.execute("select txid_current(), count(*) from pg_class")
            else:
                holder.rollback()
                db.execute("vacuum (analyze) rowcron.run")
                db.execute("select pg_sleep(1.1)")  # then the next is a sweep, and forgets bounds
                db.execute(CLAIM.encode())
            for _ in range(finished // RUNS):
                enqueue(database)
                done = db.execute(CLAIM.encode()).fetchall()
                db.execute(
                    f"select from rowcron.finish('{WORKER}', %s, %s, %s, terse => true)",
                    (
                        [row[0] for row in done],
                        [row[1] for row in done],
                        ["succeeded"] * len(done),
                    ),
                )
            enqueue(database)
            figures = []
            for _ in range(4):  # one may be a sweep, which looks at everything
                enqueue(database)
                figures.append(work(db, CLAIM))
                db.execute(CLAIM.encode())
            assert all(figure["out"] == RUNS for figure in figures)
            found.append(min(figures, key=lambda figure: figure["buffers"]))
    fresh, many, after = found
    bound = 2 * fresh["buffers"] + 100 if held else fresh["buffers"] + 150
    assert many["buffers"] <= bound, found
    assert many["rows"] <= 2 * fresh["rows"] + 5_500, found  # so few are not remembered
    compare(fresh, after, RUNS)  # the trees stay as high as they have become
