"""SQL jobs run in read committed transactions, whatever a database's or a role's default is."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from harness import WORKER, wait_until
from workers import Jobs, Start, jobs, start

__all__ = ["jobs", "start"]
LEVELS = ("repeatable read", "serializable")
LEVEL = "select current_setting('transaction_isolation') as level"
# begins before the update of another transaction, and updates the same row after its commit
LATE = "select pg_sleep(1); update public.effect set n = n + 1"


@pytest.fixture
def defaults(jobs: Jobs) -> Iterator[psycopg.Connection]:
    """A connection on which defaults are altered; taken back at the end, for roles are shared."""
    yield jobs.db
    for role in (WORKER, "alice"):
        reset = sql.SQL("alter role {} in database {} reset default_transaction_isolation")
        jobs.db.execute(reset.format(sql.Identifier(role), sql.Identifier(jobs.db.info.dbname)))


def alter(db: psycopg.Connection, role: str, level: str) -> None:
    statement = "alter role {} in database {} set default_transaction_isolation = {}"
    names = sql.Identifier(role), sql.Identifier(db.info.dbname)
    db.execute(sql.SQL(statement).format(*names, sql.Literal(level)))


@pytest.mark.parametrize("level", LEVELS)
def test_the_login_s_default_has_no_effect_on_jobs(
    defaults: psycopg.Connection, jobs: Jobs, start: Start, level: str
) -> None:
    jobs.db.execute("insert into public.effect (n) values (0)")
    alter(defaults, WORKER, level)
    worker = start()
    for _ in range(2):  # the first has reset the session's settings
        assert jobs.end(jobs.run("sql", LEVEL))["result"]["first"] == {"level": "read committed"}
    run = jobs.run("sql", LATE)
    sleeping = "select from pg_stat_activity where wait_event = 'PgSleep' and datname = %s"
    asked = (jobs.db.info.dbname,)
    wait_until(lambda: jobs.db.execute(sleeping, asked).fetchone() is not None, what="its snapshot")
    jobs.db.execute("update public.effect set n = 10")
    assert jobs.end(run)["outcome"] == "succeeded"
    assert jobs.db.execute("select n from public.effect").fetchone() == (11,)
    assert worker.events("unavailable") == []


def test_the_owner_s_default_has_no_effect_on_its_jobs(
    defaults: psycopg.Connection, jobs: Jobs, start: Start
) -> None:
    alter(defaults, "alice", "serializable")
    start()
    for _ in range(2):
        assert jobs.end(jobs.run("sql", LEVEL))["result"]["first"] == {"level": "read committed"}
