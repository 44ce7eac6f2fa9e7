# ruff: noqa: E501 -- the statements read better whole
"""A worker's connection in hostile hands: four verbs, and nothing else."""

from __future__ import annotations

import uuid

import psycopg
import pytest

from attack.conftest import Attack, Connect
from harness import Database, wait_until
from test_execute import Hands, add, only
from workers import Jobs, Start, jobs, start

__all__ = ["jobs", "start"]

REFUSED = [
    "select * from rowcron.job", "select * from rowcron.run", "select * from rowcron.ledger",
    "select * from rowcron.change", "select * from rowcron.worker", "select * from rowcron.setting",
    "select * from rowcron.jobs", "select * from rowcron.upcoming", "select * from rowcron.tick",
    "insert into rowcron.job (name, command) values ('x', 'select 1')",
    "insert into rowcron.run (job_id) values (1)", "insert into rowcron.change (action) values ('hold')",
    "select rowcron.schedule('x', command => 'select 1')", "select rowcron.run_now('job')",
    "select rowcron.cancel(1)", "select rowcron.hold()", "select rowcron.enrol()",
    "select rowcron.hand_over('job', 'bob', 'alice')", "select rowcron.job_as_of('job', now())",
    "select rowcron._claim(gen_random_uuid(), 1, null, '{sql}', null, now())",
    "select rowcron._end_execute(1, gen_random_uuid(), null, null, 1, null)",
    "select rowcron._begin_execute(1, gen_random_uuid())", "select rowcron._rescue(now())",
    "select rowcron._claimed_command(1, gen_random_uuid(), 'alice')",
    "set role alice", "set role rowcron_owner", "set role rowcron_gate", "set role rowcron_worker_x",
    "create table rowcron.t (x integer)", "create function rowcron.f() returns int return 1",
    "create function rowcron_executor.f() returns int return 1", "create schema mine",
    "create table public.t (x integer)", "do $$ begin lock table rowcron.job in access exclusive mode; end $$",
    "drop function rowcron.execute", "alter role alice set work_mem = '64kB'",
]  # fmt: skip


def test_a_worker_calls_the_four_verbs_and_nothing_else(
    alice: psycopg.Connection, hands: Hands, db: psycopg.Connection, attack: Attack
) -> None:
    add(alice, "job", "select 1")
    for statement in REFUSED:
        attack.refused(hands.control, statement, "42501", "22023")
    members = db.execute(
        "select r.rolname from pg_auth_members as m join pg_roles as r on r.oid = m.roleid"
        " where m.member in ('w_worker'::regrole, 'rowcron_worker'::regrole,"
        " 'rowcron_execute'::regrole, 'rowcron_gate'::regrole)"
    ).fetchall()
    assert members == [("rowcron_worker",)]
    owned = db.execute(
        "select count(*) from pg_shdepend where refobjid in ('rowcron_worker'::regrole,"
        " 'rowcron_execute'::regrole) and deptype = 'o'"
    ).fetchone()
    assert owned == (0,)


def test_a_login_for_execution_may_execute_alone(
    alice: psycopg.Connection,
    db: psycopg.Connection,
    connect: Connect,
    hands: Hands,
    attack: Attack,
) -> None:
    db.execute("create role runner login")
    db.execute("grant rowcron_execute to runner")
    try:
        runner = connect("runner")
        add(alice, "job", "select current_user::text as who")
        (claimed,) = hands.claim()
        for statement in [*REFUSED, "select * from rowcron.claim()",
                          "select rowcron.heartbeat(gen_random_uuid())",
                          f"select rowcron.finish({claimed['run_id']}, '{claimed['token']}')"]:  # fmt: skip
            attack.refused(runner, statement, "42501", "22023")
        hands.session = runner
        assert hands.execute(claimed)["result"] == {"who": "alice"}
    finally:
        db.execute("drop owned by runner")
        runner.close()
        db.execute("drop role runner")


def test_a_worker_executes_on_connections_of_another_login(
    jobs: Jobs, start: Start, db: psycopg.Connection, database: Database, attack: Attack
) -> None:
    db.execute("create role runner login")
    db.execute("grant rowcron_execute to runner")
    try:
        worker = start("--kind", "sql", "--sql-database-url", database.url("runner"))
        entry = jobs.end(jobs.run("sql", "select session_user::text as s, current_user::text as u"))
        assert entry["result"]["first"] == {"s": "runner", "u": "alice"}
        stubborn = jobs.run(
            "sql",
            "do $$ begin loop begin perform pg_sleep(60); exception when query_canceled then"
            " null; end; end loop; end $$",
        )
        sleeping = (
            "select 1 from pg_stat_activity where usename = 'runner' and wait_event = 'PgSleep'"
        )
        wait_until(lambda: db.execute(sleeping).fetchone(), what="the job")
        jobs.owner.execute("select rowcron.cancel(%s)", [stubborn])
        assert jobs.end(stubborn)["outcome"] == "cancelled", "terminated by its own login"
        attack.note("a job that survives its cancel", "pg_terminate_backend after the grace")
        worker.stop()
    finally:
        db.execute("drop owned by runner")
        db.execute("drop role runner")


TROJANS = """
create temp table job (id bigint); create temp table run (id bigint); create temp table lane (q text);
create temp table setting (name text, value jsonb); create temp table executor (owner regrole);
create function pg_temp.md5(text) returns text language sql as $$ select 'x' $$;
create function pg_temp.now() returns timestamptz language sql as $$ select 'infinity'::timestamptz $$;
create function pg_temp.clock_timestamp() returns timestamptz language sql
  as $$ select '-infinity'::timestamptz $$;
create function pg_temp.format(text, text) returns text language sql as $$ select 'reset role' $$;
create function pg_temp.eq(text, text) returns boolean language sql as $$ select true $$;
create operator pg_temp.= (leftarg = text, rightarg = text, function = pg_temp.eq);
create function pg_temp.eq(bigint, bigint) returns boolean language sql as $$ select true $$;
create operator pg_temp.= (leftarg = bigint, rightarg = bigint, function = pg_temp.eq);
set search_path = pg_temp, pg_catalog;
"""


@pytest.mark.parametrize("who", ["worker", "owner"])
def test_trojans_in_pg_temp_and_the_path_catch_nobody(
    alice: psycopg.Connection,
    bob: psycopg.Connection,
    hands: Hands,
    attack: Attack,
    who: str,
) -> None:
    add(alice, "job", "select current_user::text as who")
    if who == "worker":
        hands.session.execute(TROJANS.encode())
        hands.control.execute(TROJANS.encode())
    else:
        bob.execute(TROJANS.encode())
        assert bob.execute("select rowcron.schedule('his', command => 'select 1')").fetchone()
        attack.refused(bob, "select rowcron.run_now('job', owner => 'alice')", "RCNOJ")
        assert only(bob, "select count(*)::text from rowcron.jobs") == "1"
    (claimed,) = hands.claim()
    with pytest.raises(psycopg.Error) as refused:
        hands.execute({**claimed, "token": uuid.uuid4()})
    assert refused.value.sqlstate == "RCCLM"
    assert hands.execute(claimed)["result"] == {"who": "alice"}
    attack.note(f"trojans in pg_temp and search_path by the {who}", "pinned search_path")
