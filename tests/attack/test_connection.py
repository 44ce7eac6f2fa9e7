# ruff: noqa: E501 -- the statements read better whole
"""A job over a connection: only who was granted it, only as long, and where it leads."""

from __future__ import annotations

import psycopg

from attack.conftest import Attack
from harness import INSTALLER, Database, TestServer
from workers import Jobs, Start, jobs, start

__all__ = ["jobs", "start"]


def test_a_connection_takes_a_grant_that_can_be_taken_back(
    jobs: Jobs,
    start: Start,
    db: psycopg.Connection,
    bob: psycopg.Connection,
    server: TestServer,
    attack: Attack,
) -> None:
    other: Database = server.create_database(template="template0")
    try:
        with psycopg.connect(other.url(INSTALLER), autocommit=True) as elsewhere:
            insert = (
                "insert into rowcron.job (name, command, connection) values ('x', 'vacuum', %s)"
            )
            for name in ("other", "OTHER", "other; drop", ""):
                attack.refused(jobs.owner, insert.replace("%s", f"'{name}'"), "RCCON")
            db.execute("select rowcron.grant_connection('other', 'alice')")
            attack.refused(bob, insert.replace("%s", "'other'"), "RCCON")
            attack.refused(jobs.owner, "select rowcron.grant_connection('other', 'bob')", "RCOWN")
            start("--kind", "sql", ROWCRON_CONNECTION_OTHER=other.url(INSTALLER))
            job = jobs.add(
                "sql", "create table made (x int); vacuum made; create index concurrently on made (x)",
                connection="other",
            )  # fmt: skip
            entry = jobs.end(jobs.start(job))
            assert entry["outcome"] == "succeeded", entry
            made = "select count(*) from pg_class where relname = 'made'"
            assert elsewhere.execute(made).fetchone() == (1,)
            assert db.execute(made).fetchone() == (0,)
            db.execute("select rowcron.revoke_connection('other', 'alice')")
            entry = jobs.end(jobs.start(job))
            assert (entry["outcome"], entry["started_at"]) == ("cancelled", None)
            attack.note("running over a connection that was taken back", str(entry["reason"]))
            actions = db.execute(
                "select changed_by, new_values -> 'granted' from rowcron.change"
                " where action = 'grant' order by id"
            ).fetchall()
            assert actions == [("postgres", True), ("postgres", False)]
    finally:
        server.drop_database(other)
