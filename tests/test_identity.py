"""A restored or copied installation stands still until somebody releases it; a failover goes on."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from harness import INSTALLER, WORKER, Database, TestServer, wait_until
from rowcron import embedded_os
from rowcron.install import install
from test_cli import rowcron
from workers import Start, jobs, start

__all__ = ["jobs", "start"]
COPIED = "restored or copied from it"


def copy_by_template(source: Database, server: TestServer) -> Database:
    """CREATE DATABASE ... TEMPLATE; the harness binds what it makes of its own template only."""
    return server.create_database(template=source.name)


def restore(source: Database, server: TestServer, target: Database) -> Database:
    """pg_dump | pg_restore, by a superuser as backups are."""
    dump = subprocess.run(
        [str(server.bin / "pg_dump"), "-Fc", "-d", source.url("postgres")],
        capture_output=True,
        check=True,
    )
    done = subprocess.run(
        [str(target.server.bin / "pg_restore"), "-d", target.url("postgres")],
        input=dump.stdout,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return target


def restore_beside(source: Database, server: TestServer) -> Database:
    """Into another database of the same server."""
    return restore(source, server, server.create_database(template="template0"))


def restore_over(source: Database, server: TestServer) -> Database:
    """Over a dropped database, under the same name."""
    dump = subprocess.run(
        [str(server.bin / "pg_dump"), "-Fc", "-d", source.url("postgres")],
        capture_output=True,
        check=True,
    )
    server.drop_database(source)
    with psycopg.connect(server.admin_url, autocommit=True) as conn:
        conn.execute(f'create database "{source.name}" owner {INSTALLER}'.encode())
    subprocess.run(
        [str(server.bin / "pg_restore"), "-d", source.url("postgres")],
        input=dump.stdout,
        check=True,
    )
    return source


def value(database: Database, query: str, role: str = "postgres") -> Any:
    """One value."""
    with psycopg.connect(database.url(role), autocommit=True) as conn:
        row = conn.execute(query.encode()).fetchone()
        return row and row[0]


@pytest.fixture
def original(database: Database) -> Database:
    """A database with a job that is due each second, an operator, and nobody connected."""
    with psycopg.connect(database.url("alice"), autocommit=True) as alice:
        alice.execute("set client_min_messages = error")
        alice.execute(
            "insert into rowcron.job (name, schedule, command) values ('each', '* * * * * *', 'x')"
        )
    return database


@pytest.mark.parametrize("make", [copy_by_template, restore_beside, restore_over])
def test_a_copy_is_held_until_it_is_released(
    original: Database,
    server: TestServer,
    start: Start,
    make: Callable[[Database, TestServer], Database],
) -> None:
    assert value(original, "select rowcron._held()") is None
    copy = make(original, server)
    fired = "select count(*) from rowcron.ledger"
    claimed = "select count(*) from rowcron.claim()"
    assert value(copy, claimed, WORKER) == 0
    worker = start("--poll", "0.5", url=copy.url(WORKER))
    held = worker.wait_for("held")
    assert COPIED in held["text"]
    assert "rowcron release" in held["text"]
    why = "select detail || ' ' || hint from rowcron.why_not_running('each') where gate = 'held'"
    assert COPIED in value(copy, why, "alice")
    assert "select rowcron.release();" in value(copy, why, "alice")
    assert COPIED in value(copy, "select held from rowcron.queue_health limit 1", "alice")
    assert COPIED in rowcron("why", "each", env={"ROWCRON_DATABASE_URL": copy.url("alice")}).stdout
    install(copy.url("postgres"), force=True)  # which does not bind
    assert value(copy, "select rowcron._held() is not null")
    assert value(copy, fired) == 0  # all the while it was due

    with psycopg.connect(server.admin_url, autocommit=True) as conn:
        conn.execute("grant rowcron_operator to bob")
    done = rowcron("release", env={"ROWCRON_DATABASE_URL": copy.url("bob")})
    assert done.returncode == 0, done.stderr
    worker.wait_for("released")
    wait_until(lambda: value(copy, fired) > 0, what="the job")
    assert value(copy, "select held from rowcron.queue_health limit 1", "alice") is None
    assert worker.stop() == 0
    if copy is not original:
        server.drop_database(copy)


def test_a_rename_changes_nothing(original: Database, server: TestServer) -> None:
    renamed = Database(f"{original.name}_new", server)
    with psycopg.connect(server.admin_url, autocommit=True) as conn:
        conn.execute(f'alter database "{original.name}" rename to "{renamed.name}"'.encode())
    try:
        assert value(renamed, "select rowcron._held()") is None
    finally:
        server.drop_database(renamed)


def test_a_restore_into_another_cluster_is_held(original: Database, server: TestServer) -> None:
    other = TestServer(server.bin)
    try:
        other.start()
        other.make_template()
        copy = restore(original, server, other.create_database(template="template0"))
        assert COPIED in value(copy, "select rowcron._held()")
        # the number alone may well be the same
        here = value(copy, "select rowcron._identity()")
        with psycopg.connect(copy.url("postgres"), autocommit=True) as conn:
            conn.execute(
                "update rowcron.setting set value = to_jsonb('1' || %s::text)"
                " where name = 'identity'",
                [here],
            )
            assert COPIED in conn.execute("select rowcron._held()").fetchone()[0]
    finally:
        other.stop()


class Clone(TestServer):
    """What pg_basebackup made of a server, promoted."""

    def take(self, source: TestServer, *, standby: bool) -> None:
        """Copy and start; as a standby it then waits for its primary, which is there or not."""
        data = self.base / "data"
        for path in (data, self.base / "socket"):
            embedded_os.private_dir(path, self._user)
        host = str(source.base / "socket")
        command = ["-D", str(data), "-h", host, "-U", "postgres", "-c", "fast", "-X", "stream"]
        made = self._spawn("pg_basebackup", *command, *(["-R"] if standby else []))
        assert made.wait(60) == 0, (self.base / "log").read_text("utf-8")
        directory = f"unix_socket_directories={self.base / 'socket'}"
        options = ["-c", directory, "-c", "listen_addresses=", "-c", "max_connections=200"]
        options += ["-c", "max_prepared_transactions=10"]
        self._process = self._spawn("postgres", "-D", str(data), *options)
        wait_until(self._ready, what="the clone")


def test_a_promoted_standby_goes_on_by_itself(
    original: Database, server: TestServer, start: Start
) -> None:
    """So does a promoted clone beside the original: nothing in it tells the two apart."""
    clone = Clone(server.bin)
    try:
        clone.take(server, standby=True)
        there = Database(original.name, clone)
        worker = start("--poll", "0.5", url=there.url(WORKER), wait=False)
        worker.wait_for("unavailable")  # it waits: a standby takes no writes
        assert value(there, "select pg_promote()")
        worker.wait_for("worker", 30)
        wait_until(lambda: value(there, "select count(*) from rowcron.ledger") > 0, what="the job")
        assert worker.events("held") == []
        assert value(there, "select rowcron._held()") is None
        assert worker.stop() == 0
    finally:
        clone.stop()


def test_where_the_server_cannot_be_told_its_database_s_number_is(
    original: Database, server: TestServer, db: psycopg.Connection
) -> None:
    db.execute("revoke execute on function pg_control_system() from public")
    try:
        assert value(original, "select rowcron._held()", "alice") is None
        # this session has looked before, another's owner may not
        db.execute("set rowcron.identity = ''")
        db.execute("set role rowcron_owner")
        here = db.execute("select rowcron._identity()").fetchone()[0]
        assert here.startswith("?/")
        assert db.execute("select rowcron._held()").fetchone() == (None,)
        db.close()  # else it cannot be copied
        copy = copy_by_template(original, server)
        assert COPIED in value(copy, "select rowcron._held()", "alice")
        server.drop_database(copy)
    finally:
        with psycopg.connect(original.url("postgres"), autocommit=True) as conn:
            conn.execute("grant execute on function pg_control_system() to public")


def test_jobs_that_were_restored_alone_are_taken_up_by_release(
    database: Database, db: psycopg.Connection, alice: psycopg.Connection
) -> None:
    """`pg_restore -a --disable-triggers` fills the tables of a fresh installation."""
    alice.execute(
        "insert into rowcron.job (name, schedule, command)"
        " values ('a', '@every 1 s', 'select 1'), ('b', null, 'select 1')"
    )
    before = db.execute("select job_id, parsed from rowcron.agenda order by 1").fetchall()
    db.execute("delete from rowcron.agenda")
    db.execute("delete from rowcron.lane")
    why = "select detail from rowcron.why_not_running('a') where gate = 'due'"
    assert "release" in alice.execute(why).fetchone()[0]
    db.execute("select rowcron.release()")
    assert db.execute("select job_id, parsed from rowcron.agenda order by 1").fetchall() == before
    assert "release" not in alice.execute(why).fetchone()[0]
    due = "select next_run_at - now() <= '1 s' from rowcron.agenda where next_run_at is not null"
    assert db.execute(due).fetchall() == [(True,)]
    db.execute("delete from rowcron.agenda")
    with db.transaction():  # from a server that knows more zones
        db.execute("set local session_replication_role = replica")
        db.execute("update rowcron.job set timezone = 'Mars/Olympus' where name = 'b'")
        db.execute("update rowcron.job set schedule = '0 3 * * *' where name = 'b'")
    said: list[str | None] = []
    db.add_notice_handler(lambda notice: said.append(notice.message_primary))
    db.execute("select rowcron.release()")
    assert any("cannot be taken up" in (text or "") for text in said)
    assert db.execute("select count(*) from rowcron.agenda").fetchone() == (1,)
    alice.execute("delete from rowcron.job where name = 'b'")
    alice.execute("insert into rowcron.job (name, command) values ('c', 'select 1')")
    db.execute("delete from rowcron.agenda")
    install(database.url("postgres"), force=True)
    assert db.execute("select count(*) from rowcron.agenda").fetchone() == (2,)
    wait = "select count(*) from rowcron.claim(gen_random_uuid(), 5)"
    wait_until(lambda: db.execute(wait).fetchone() != (0,), what="the schedule")
