"""Databases that are not encoded in UTF-8, and clients' settings that say otherwise."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from harness import WORKER, Database, TestServer, wait_until
from rowcron.install import install
from workers import Jobs, Start, start

__all__ = ["start"]

ARROW, SNOWMAN = "\N{RIGHTWARDS ARROW}", "\N{SNOWMAN}"


@pytest.fixture
def encoded(server: TestServer) -> Callable[[str], Database]:
    """Makes databases of another encoding, with the schema in them."""

    def make(encoding: str) -> Database:
        database = Database(f"encoded_{encoding.lower()}", server)
        with psycopg.connect(server.admin_url, autocommit=True) as admin:
            admin.execute(f"drop database if exists {database.name} with (force)".encode())
            admin.execute(
                f"create database {database.name} template template0 encoding '{encoding}'"
                " locale_provider libc lc_collate 'C' lc_ctype 'C'".encode()
            )
        install(database.url("postgres"))
        with psycopg.connect(database.url("postgres"), autocommit=True) as db:
            db.execute("grant rowcron_user, rowcron_python to alice")
            db.execute(f"grant rowcron_worker to {WORKER}".encode())
        return database

    return make


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII", "EUC_JP"])
def test_what_an_encoding_cannot_hold_costs_no_worker(
    encoded: Callable[[str], Database], start: Start, encoding: str
) -> None:
    database = encoded(encoding)
    is_raw = encoding == "SQL_ASCII"
    with (
        psycopg.connect(database.url("postgres"), autocommit=True, client_encoding="utf8") as db,
        psycopg.connect(database.url("alice"), autocommit=True, client_encoding="utf8") as alice,
    ):
        jobs = Jobs(alice, db)
        worker = start(url=database.url(WORKER), PGCLIENTENCODING="latin1")
        entry = jobs.end(jobs.run("python", "speak"))
        assert entry["outcome"] == "succeeded"
        # SQL_ASCII converts nothing
        assert entry["result"] == (f"{ARROW} {SNOWMAN}" if is_raw else r"\u2192 \u2603")
        raised = jobs.end(jobs.run("python", "raise_foreign"))
        assert "Traceback" in raised["error"]
        assert f"ValueError: {SNOWMAN if is_raw else ascii(SNOWMAN)[1:-1]}" in raised["error"]
        assert jobs.end(jobs.run("python", "nothing"))["outcome"] == "succeeded"
        assert jobs.end(jobs.run("sql", "select 1"))["outcome"] == "succeeded"
        assert worker.stop() == 0
        assert not worker.events("defect")


@pytest.mark.parametrize(("how", "outcome"), [("Snooze", "released"), ("RetryAfter", "failed")])
def test_a_pause_is_kept_when_its_reason_cannot_be_stored(
    encoded: Callable[[str], Database], start: Start, how: str, outcome: str
) -> None:
    database = encoded("LATIN1")
    with (
        psycopg.connect(database.url("postgres"), autocommit=True, client_encoding="utf8") as db,
        psycopg.connect(database.url("alice"), autocommit=True, client_encoding="utf8") as alice,
    ):
        jobs = Jobs(alice, db)
        worker = start(url=database.url(WORKER))
        run = jobs.run("python", "raise_foreign", {"how": how}, max_attempts=2)
        entry = worker.wait_for("end", run_id=run)
        assert entry["outcome"] == outcome
        query = "select due_at > now() + interval '50 minutes' from rowcron.run where id = %s"
        assert wait_until(lambda: db.execute(query, (run,)).fetchone()) == (True,)
        if how == "RetryAfter":
            assert r"closed \u2192 tomorrow" in jobs.entries(run)[0]["error"]


def test_bytes_that_are_no_text_cost_nobody_else_a_run(
    encoded: Callable[[str], Database], start: Start
) -> None:
    database = encoded("SQL_ASCII")
    with (
        psycopg.connect(database.url("postgres"), autocommit=True, client_encoding="utf8") as db,
        psycopg.connect(database.url("alice"), autocommit=True, client_encoding="utf8") as alice,
        psycopg.connect(database.url("alice"), autocommit=True, client_encoding="sql_ascii") as raw,
    ):
        jobs = Jobs(alice, db)
        stored = raw.pgconn.exec_(
            b"insert into rowcron.job (name, command)"
            b" values ('odd', 'do $$ begin raise ''no \xff\xfe text''; end $$')"
        )
        assert stored.status == psycopg.pq.ExecStatus.COMMAND_OK, stored.error_message
        worker = start(url=database.url(WORKER))
        entry = raw.execute("select rowcron.run_now('odd')").fetchone()
        assert entry is not None
        query = "select convert_to(error, 'SQL_ASCII') from rowcron.ledger where run_id = %s"
        row = wait_until(lambda: db.execute(query, entry).fetchone(), what="its end")
        assert b"no \xff\xfe text" in row[0]
        assert jobs.end(jobs.run("python", "nothing"))["outcome"] == "succeeded"
        assert worker.stop() == 0
        assert not worker.events("defect")


def test_turkish_has_another_small_i(server: TestServer, start: Start) -> None:
    """What is ours, keywords, names, actions, is not in the database's language."""
    database = Database("turkish", server)
    with psycopg.connect(server.admin_url, autocommit=True) as admin:
        admin.execute("drop database if exists turkish with (force)")
        try:
            admin.execute(
                "create database turkish template template0 encoding 'UTF8' locale_provider icu"
                " icu_locale 'tr-TR' lc_collate 'C' lc_ctype 'C'"
            )
        except psycopg.errors.FeatureNotSupported as error:
            pytest.skip(f"a server without ICU: {error}")
    install(database.url("postgres"))
    with (
        psycopg.connect(database.url("postgres"), autocommit=True) as db,
        psycopg.connect(database.url("alice"), autocommit=True) as alice,
    ):
        assert db.execute("select lower('I')").fetchone() != ("i",)
        db.execute("grant rowcron_user, rowcron_http to alice")
        db.execute(f"grant rowcron_worker to {WORKER}".encode())
        db.execute("select rowcron.grant_connection('MAINT', 'alice')")
        db.execute("create table public.effect (n integer); alter table effect owner to alice")
        jobs = Jobs(alice, db)
        start(url=database.url(WORKER), ROWCRON_CONNECTION_MAINT=database.url("alice"))
        alice.execute("set client_min_messages = error")
        rows = jobs.end(jobs.run("sql", "WITH X AS (VALUES (7)) TABLE X", schedule="@MIDNIGHT"))
        assert "first" in rows["result"]
        rows = jobs.end(jobs.run("sql", "INSERT INTO public.effect VALUES (7) RETURNING n"))
        assert "first" in rows["result"]
        assert jobs.end(jobs.run("sql", "VACUUM", connection="MAINT"))["outcome"] == "succeeded"
        with pytest.raises(psycopg.Error, match="Expect-Status"):
            jobs.add("http", "GET http://example.test/\nEXPECT-STATUS: I")
        weekdays = "select rowcron.explain('0 3 * * FRI,wed')"
        assert "Friday" in str(alice.execute(weekdays).fetchone())
        says = "select rowcron.next_run('CRON_TZ=x * * * * *')"
        with pytest.raises(psycopg.Error, match="TZ"):
            alice.execute(says)
