# ruff: noqa: E501 -- the statements read better whole
"""Transactions and sessions that a job would leave open, or cut short for those who come after it."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from attack.conftest import Attack
from harness import Database, TestServer, wait_until
from test_execute import Hands, add, only
from workers import Jobs, Start, jobs, start

__all__ = ["jobs", "start"]
PROCEDURE = "create procedure {0}() language plpgsql as $$ begin {1}; end $$; call {0}()"

ENDS = {
    "prepare transaction 'left'": "0A000 25001 2D000",
    "begin": "0A000",
    "start transaction": "0A000",
    "commit": "0A000",
    "commit and chain": "0A000",
    "rollback": "0A000",
    "rollback and chain": "0A000",
    "savepoint s": "0A000",
    "commit prepared 'left'": "0A000 25001",
    "do $$ begin execute 'prepare transaction ''left'''; end $$": "0A000 25001",
    "do $$ begin commit; end $$": "2D000",
    PROCEDURE.format("p_commit", "commit and chain"): "2D000",
    PROCEDURE.format("p_rollback", "rollback"): "2D000",
    "set transaction read only": "25006",
    "set transaction_read_only = on; select 1": "25006",
    "set transaction isolation level serializable": "25001",
}


@pytest.mark.parametrize("what", ENDS)
def test_a_job_cannot_end_or_keep_its_transaction(
    alice: psycopg.Connection, db: psycopg.Connection, hands: Hands, attack: Attack, what: str
) -> None:
    tried = attack(what)
    run = add(alice, "job", f"select 1; {what}")  # alone it would be refused at insert
    answer = hands.execute(hands.claim()[0])
    assert answer["outcome"] == "failed"
    assert answer["error"][:5] in ENDS[what].split(), answer["error"]
    assert only(alice, "select outcome from rowcron.history where run_id = %s", run) == "failed"
    assert hands.session.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    assert only(db, "select count(*) from pg_prepared_xacts") == 0
    add(alice, "next", "create table made as select current_user::text as who")
    assert hands.execute(hands.claim()[0])["outcome"] == "succeeded"
    tried.stopped(answer["error"].splitlines()[0])


TIMERS = {
    "statement_timeout": "1ms",
    "lock_timeout": "1ms",
    "idle_in_transaction_session_timeout": "1ms",
    "idle_session_timeout": "1ms",
    "transaction_timeout": "20ms",
    "default_transaction_read_only": "on",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "tcp_user_timeout": "1ms",
    "client_connection_check_interval": "1ms",
}


@pytest.mark.parametrize("how", ["set by the job", "set by alter role"])
def test_timers_of_a_job_or_its_owner_do_not_strike_the_next(
    jobs: Jobs, start: Start, db: psycopg.Connection, attack: Attack, how: str
) -> None:
    start("--kind", "sql", "--sql-connections", "1")
    session = "select pid from pg_stat_activity where usename = 'w_worker' and query ~ 'execute'"
    slow = "select 1 as x from pg_sleep(0.05)"
    for setting, value in TIMERS.items():
        if setting == "transaction_timeout" and db.info.server_version < 170000:
            continue
        tried = attack(f"{setting} = {value}, {how}")
        try:
            if how == "set by the job":
                run = jobs.run("sql", f"set {setting} = '{value}'; {slow}", max_lost=1)
            else:
                db.execute(f"alter role alice set {setting} = '{value}'")
                run = jobs.run("sql", slow, max_lost=1)
            first = jobs.end(run, 30)
            before = db.execute(session).fetchall()
        finally:
            db.execute("alter role alice reset all")
        table = f"made_{setting}"
        last = jobs.end(jobs.run("sql", f"create table {table} as {slow}", max_lost=1), 30)
        assert last["outcome"] == "succeeded", (setting, last)
        if (setting, how) == ("transaction_timeout", "set by the job"):
            assert first["outcome"] == "lost"
        else:
            assert first["outcome"] == "succeeded", (setting, first)
            assert db.execute(session).fetchall() == before, "the session lives on"
        tried.stopped(f"the job {first['outcome']} {first['reason'] or ''}; the next one succeeds")


def test_an_owner_sets_nothing_for_others(
    alice: psycopg.Connection, database: Database, attack: Attack
) -> None:
    for statement in (
        "alter role w_worker set statement_timeout = '1ms'",
        "alter role rowcron_worker set statement_timeout = '1ms'",
        "alter role all set idle_session_timeout = '1ms'",
        f"alter database {database.name} set idle_in_transaction_session_timeout = '1ms'",
        "alter system set max_connections = 1",
        "alter function rowcron.execute(bigint, uuid) set statement_timeout = '1ms'",
        "alter role w_worker connection limit 0",
    ):
        attack.refused(alice, statement, "42501")


@pytest.fixture
def address(server: TestServer, database: Database, db: psycopg.Connection) -> Iterator[str]:
    """Where alice and bob connect to this database with a password, as dblink asks of them."""
    hba = server.base / "data" / "pg_hba.conf"
    before = hba.read_text("utf-8")
    for role in ("alice", "bob"):
        db.execute(f"alter role {role} password 'sesame'")
    hba.write_text(f"local {database.name} alice,bob scram-sha-256\n{before}", "utf-8")
    db.execute("select pg_reload_conf()")
    wait_until(
        lambda: only(db, "select count(*) from pg_hba_file_rules where 'alice' = any (user_name)")
    )
    yield f"dbname={database.name} host={server.base}/socket"
    hba.write_text(before, "utf-8")
    db.execute("select pg_reload_conf()")
    for role in ("alice", "bob"):
        db.execute(f"alter role {role} password null")


def test_a_session_that_a_job_opened_is_not_the_next_owner_s(
    alice: psycopg.Connection,
    bob: psycopg.Connection,
    db: psycopg.Connection,
    hands: Hands,
    address: str,
    attack: Attack,
) -> None:
    try:
        db.execute("create extension dblink")
    except psycopg.errors.FeatureNotSupported:
        pytest.skip("there is no dblink")
    tried = attack("a dblink session without a password, as the server's user")
    add(alice, "trusted", f"select dblink_connect('{address} user=postgres')")
    answer = hands.execute(hands.claim()[0])
    assert answer["error"][:5] == "2F003", answer
    tried.stopped(answer["error"].splitlines()[0])
    number = 0
    for name in ("'left', ", ""):
        kept = f"select dblink_connect({name}'{address} user=alice password=sesame')"
        for then in (f"select dblink_exec({name}'begin')", "select 1 / 0"):
            number += 1
            tried = attack(f"a dblink session left open, used by the next owner: {name}{then}")
            add(alice, f"open{number}", f"{kept}; {then}")
            answer = hands.execute(hands.claim()[0])
            assert answer["outcome"] == ("failed" if "/" in then else "succeeded"), answer
            query = f"select who from dblink({name}'select current_user') as x (who text)"
            add(bob, f"use{number}", query)
            answer = hands.execute(hands.claim()[0])
            assert answer["outcome"] == "failed", answer
            tried.stopped(answer["error"].splitlines()[0])
    idle = "select count(*) from pg_stat_activity where usename = 'alice' and query ~ 'begin'"
    wait_until(lambda: only(db, idle) == 0, what="the end of the sessions")


def test_dblink_that_cannot_be_closed_is_refused_to_those_who_may_open_it(
    alice: psycopg.Connection,
    bob: psycopg.Connection,
    db: psycopg.Connection,
    hands: Hands,
    attack: Attack,
) -> None:
    try:
        db.execute("create extension dblink")
    except psycopg.errors.FeatureNotSupported:
        pytest.skip("there is no dblink")
    for call in ("dblink_get_connections()", "dblink_disconnect()", "dblink_disconnect(text)",
                 "dblink_connect(text, text)", "dblink_connect(text)"):  # fmt: skip
        db.execute(f"revoke execute on function {call} from public")
    db.execute("grant execute on function dblink_connect(text, text) to alice")
    tried = attack("a dblink session that only its owner could close")
    add(alice, "hers", "create table made (x integer)")
    (claimed,) = hands.claim()
    with pytest.raises(psycopg.Error) as refused:
        hands.execute(claimed)
    assert refused.value.sqlstate == "RCEXE"
    assert only(db, "select to_regclass('made')") is None
    tried.stopped(f"RCEXE {refused.value.diag.message_primary}")
    add(bob, "his", "select 1")
    assert hands.execute(hands.claim()[0])["outcome"] == "succeeded"
    hint = str(refused.value.diag.message_hint)
    db.execute(hint.partition(": ")[2].encode())
    assert hands.execute(claimed)["outcome"] == "succeeded"
