"""Where nobody may create roles, one role plays all parts; later the roles take over."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from harness import INSTALLER, Database, TestServer, wait_until
from rowcron.install import InstallError, install
from rowcron.single_role import renamed
from workers import WorkerProcess

ALONE = "t-alone"  # has to be quoted


@pytest.fixture
def alone(server: TestServer, empty_database: Database) -> Iterator[str]:
    """The address for a role that may create schemas here, and no roles."""
    with psycopg.connect(server.admin_url, autocommit=True) as admin:
        admin.execute(f'create role "{ALONE}" login nocreaterole nosuperuser')
        admin.execute(f'grant create on database {empty_database.name} to "{ALONE}"')
        yield empty_database.url(ALONE)
    with psycopg.connect(empty_database.url("postgres"), autocommit=True) as db:
        db.execute("drop schema if exists rowcron, rowcron_executor cascade")
        db.execute(f'drop owned by "{ALONE}"')
        db.execute(f'drop role "{ALONE}"')


def run_one(url: str, tmp_path: Path) -> dict[str, object]:
    """Insert a job, let a worker run it, and return what it saw."""
    worker = WorkerProcess(url, tmp_path, forked=True)
    try:
        worker.wait_for("worker")
        with psycopg.connect(url, autocommit=True) as me:
            name = uuid.uuid4().hex
            me.execute(
                "insert into rowcron.job (name, command) values (%s, 'select current_user as who')",
                [name],
            )
            me.execute("select rowcron.run_now(%s)", [name])
            query = "select outcome, result from rowcron.history where job = %s"
            ended = wait_until(lambda: me.execute(query, [name]).fetchone(), what="the run")
    finally:
        worker.kill()
    assert ended is not None
    assert ended[0] == "succeeded"
    return dict(ended[1]["first"])


def marked(url: str) -> bool:
    with psycopg.connect(url) as me:
        row = me.execute("select bool_or(single_role) from rowcron.queue_health").fetchone()
        assert row is not None
        return bool(row[0])


def test_without_the_right_to_create_roles_one_sentence_says_what_to_run(alone: str) -> None:
    with pytest.raises(InstallError) as refused:
        install(alone)
    assert "grant rowcron_owner, rowcron_gate, rowcron_user, " in refused.value.hint
    assert f' to "{ALONE}" with admin option;' in refused.value.hint
    assert "rowcron install --single-role" in refused.value.hint


def test_a_single_role_installs_schedules_and_runs(alone: str, tmp_path: Path) -> None:
    done = install(alone, single_role=True)
    assert (done.changed, done.single_role) == (True, ALONE)
    assert run_one(alone, tmp_path) == {"who": ALONE}
    assert marked(alone)
    again = install(alone)  # remembered
    assert (again.changed, again.single_role) == (False, ALONE)
    assert install(alone, force=True).single_role == ALONE
    assert run_one(alone, tmp_path) == {"who": ALONE}
    with psycopg.connect(alone) as me:
        row = me.execute(
            "select count(*) from pg_proc as p, aclexplode(coalesce(p.proacl,"
            " acldefault('f', p.proowner))) as a where a.grantee = 0"
            " and p.pronamespace::regnamespace::text ~ '^rowcron'"
        ).fetchone()
    assert row == (0,), "strangers may execute nothing"


@pytest.mark.parametrize("installer", [INSTALLER, "postgres"])
def test_whose_schema_it_is_is_said_where_rowcron_s_roles_are_not(
    alone: str, server: TestServer, empty_database: Database, installer: str
) -> None:
    install(alone, single_role=True)
    with psycopg.connect(server.admin_url, autocommit=True) as admin:
        admin.execute("alter role rowcron_owner rename to elsewhere")
        try:
            with pytest.raises(InstallError) as refused:
                install(empty_database.url(installer))
        finally:
            admin.execute("alter role elsewhere rename to rowcron_owner")
    assert f'schema rowcron belongs to "{ALONE}": install as that role; or,' in refused.value.hint


def test_a_single_role_that_was_renamed_installs_itself_anew(
    alone: str, server: TestServer, empty_database: Database
) -> None:
    """Its name stands in the texts of functions, and rows of jobs and grants have its number."""
    install(alone, single_role=True)
    with psycopg.connect(server.admin_url, autocommit=True) as admin:
        admin.execute(f'alter role "{ALONE}" rename to "t-Else"')
        try:
            assert install(empty_database.url("t-Else")).changed
            with psycopg.connect(empty_database.url("t-Else"), autocommit=True) as me:
                me.execute("select rowcron.hold('a while'), rowcron.release()")
                me.execute("insert into rowcron.job (name, command) values ('a', 'select 1')")
            again = install(empty_database.url("t-Else"))
            assert (again.changed, again.single_role) == (False, "t-Else")
        finally:
            admin.execute(f'alter role "t-Else" rename to "{ALONE}"')


def test_a_single_role_has_jobs_of_every_kind_beside_rowcron_s_roles(alone: str) -> None:
    """They are there for another database of the cluster, and it is a member of none."""
    install(alone, single_role=True)
    with psycopg.connect(alone, autocommit=True) as me:
        me.execute(
            "insert into rowcron.job (name, kind, command) values ('p', 'python', 'f'),"
            " ('h', 'http', 'GET http://example.com'), ('s', 'shell', 'true')"
        )
        shut = "select gate from rowcron.why_not_running('p') where holds and gate = 'kind'"
        assert me.execute(shut).fetchall() == []


def test_a_single_role_chooses_no_job_s_number_either(alone: str) -> None:
    """The table is its own, so that no grant would keep it from that."""
    install(alone, single_role=True)
    insert = "insert into rowcron.job (id, name, command) overriding system value values"
    with psycopg.connect(alone, autocommit=True) as me:
        me.execute("insert into rowcron.job (name, command) values ('first', 'select 1')")
        with pytest.raises(psycopg.Error) as refused:
            me.execute(insert.encode() + b" (1000000, 'chosen', 'select 1')")
        assert refused.value.sqlstate == "RCOWN"
        with (
            pytest.raises(psycopg.Error) as refused,
            me.cursor().copy("copy rowcron.job (id, name, command) from stdin") as copy,
        ):
            copy.write_row((1000000, "chosen", "select 1"))
        assert refused.value.sqlstate == "RCOWN"
        with me.cursor().copy("copy rowcron.job (name, command) from stdin") as copy:
            for name in ("second", "third"):
                copy.write_row((name, "select 1"))
        names = me.execute("select name from rowcron.job order by id").fetchall()
    assert names == [("first",), ("second",), ("third",)]


def test_the_roles_take_over_when_they_can_be_had(
    alone: str, server: TestServer, empty_database: Database, tmp_path: Path
) -> None:
    install(alone, single_role=True)
    assert run_one(alone, tmp_path) == {"who": ALONE}
    with psycopg.connect(server.admin_url, autocommit=True) as admin:
        admin.execute(f'grant rowcron_owner, rowcron_gate to "{ALONE}"')
        admin.execute(f'grant rowcron_user, rowcron_worker to "{ALONE}"')
    done = install(alone)
    assert (done.changed, done.single_role) == (True, None)
    assert run_one(alone, tmp_path) == {"who": ALONE}
    assert not marked(alone)
    assert install(alone).changed is False
    fresh = server.create_database(template="template0")
    try:
        install(fresh.url(INSTALLER))
        with psycopg.connect(empty_database.url("postgres")) as db:
            functions = (
                "select p.oid::regprocedure::text, p.proowner::regrole::text, p.proacl::text[]"
                " from pg_proc as p where p.pronamespace::regnamespace::text = 'rowcron' order by 1"
            )
            with psycopg.connect(fresh.url("postgres")) as other:
                upgraded = {(f, o, *sorted(set(a))) for f, o, a in db.execute(functions)}
                new = {(f, o, *sorted(set(a))) for f, o, a in other.execute(functions)}
        assert upgraded == new, "the same owners and rights as a new installation"
    finally:
        server.drop_database(fresh)


def test_comments_and_longer_literals_keep_their_words() -> None:
    text = "set role rowcron_owner; -- as 'rowcron_owner\nselect 'rowcron_gate', 'a rowcron_gate b'"
    assert renamed(text, "a b'c") == (
        "set role \"a b'c\"; -- as 'rowcron_owner\nselect 'a b''c', 'a rowcron_gate b'"
    )
