"""What pg_dump and pg_restore by one role or another leave, and `rowcron install` puts right."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator

import psycopg
import pytest

from attack.test_ownership import sweep
from harness import INSTALLER, WORKER, Database, TestServer
from rowcron.install import install

Copy = Callable[..., Database]
FUNCTIONS = (
    "select p.oid::regprocedure::text, p.proowner::regrole::text, array("
    "select a::text from unnest(p.proacl) as a order by 1) from pg_proc as p"
    " where p.pronamespace = 'rowcron'::regnamespace order by 1"
)
EXECUTE = (
    "select proowner::regrole::text from pg_proc"
    " where oid = 'rowcron.execute(bigint, uuid)'::regprocedure"
)

EXECUTORS = (
    "select proowner::regrole::text from pg_proc"
    " where pronamespace = 'rowcron_executor'::regnamespace"
)


def column(database: Database, query: str, role: str = "postgres") -> list[object]:
    """The rows of a query, each that of one column as its value."""
    with psycopg.connect(database.url(role), autocommit=True) as conn:
        return [row if len(row) > 1 else row[0] for row in conn.execute(query.encode()).fetchall()]


@pytest.fixture
def copy(database: Database, server: TestServer) -> Iterator[Copy]:
    """Restores the test's database into a new one: as whom, and with which options."""
    made: list[Database] = []

    def restore(role: str, *options: str) -> Database:
        target = server.create_database(template="template0")
        made.append(target)
        # pgTAP is in public
        dump = [str(server.bin / "pg_dump"), "-Fc", "-N", "public", "-d", database.url(role)]
        dumped = subprocess.run(dump, capture_output=True, check=False)
        assert dumped.returncode == 0, dumped.stderr.decode()
        # what it may not do it reports, and goes on
        command = [str(server.bin / "pg_restore"), *options, "-d", target.url(role)]
        subprocess.run(command, input=dumped.stdout, capture_output=True, check=False)
        return target

    yield restore
    for target in made:
        server.drop_database(target)


@pytest.mark.parametrize("role", [INSTALLER, "postgres"])
def test_what_the_installer_has_restored_is_put_right(
    database: Database, copy: Copy, role: str
) -> None:
    restored = copy(INSTALLER)
    assert column(restored, EXECUTE) == [INSTALLER], "the gate may not create there"
    assert install(restored.url(role)).changed
    assert column(restored, FUNCTIONS) == column(database, FUNCTIONS)
    assert not install(restored.url(role)).changed
    assert install(restored.url(role), force=True).changed


def add_jobs(database: Database) -> None:
    """Two jobs of alice's, one of which she has paused; they say as whom they run."""
    column(
        database,
        "insert into rowcron.job (name, command, enabled) values"
        " ('on', 'select current_user as who', true), ('off', 'select 1', false) returning id",
        "alice",
    )


def released(database: Database) -> list[object]:
    """Which jobs are enabled when it was released and a minute has passed."""
    column(database, "select rowcron.release()")
    with psycopg.connect(database.url("postgres"), autocommit=True) as db:
        sweep(db)
    return column(database, "select name from rowcron.job where enabled")


def who_runs(database: Database) -> list[object]:
    """As whom alice's job runs."""
    column(database, "select rowcron.run_now('on')", "alice")
    claimed = "select run_id, token from rowcron.claim(kinds => '{sql}')"
    execute = (
        f"select e.result #>> '{{who}}' from ({claimed}) as c, rowcron.execute(run_id, token) as e"
    )
    return column(database, execute, WORKER)


def test_a_superuser_s_install_gives_owners_what_was_restored_without_them(
    database: Database, copy: Copy
) -> None:
    add_jobs(database)
    restored = copy("postgres", "--no-owner")
    assert install(restored.url("postgres")).changed
    assert column(restored, FUNCTIONS) == column(database, FUNCTIONS)
    assert column(restored, EXECUTORS) == ["alice"]
    assert released(restored) == ["on"]
    assert who_runs(restored) == ["alice"]


def test_a_superuser_of_the_name_of_an_owner_is_given_nothing(
    database: Database, copy: Copy, server: TestServer
) -> None:
    add_jobs(database)
    restored = copy("postgres", "--no-owner")
    with psycopg.connect(server.admin_url, autocommit=True) as admin:
        admin.execute("alter role alice superuser")
        try:
            install(restored.url("postgres"))
        finally:
            admin.execute("alter role alice nosuperuser")
    assert column(restored, EXECUTORS) == ["postgres"]


@pytest.mark.parametrize("options", [(), ("--no-owner",)], ids=["", "no-owner"])
def test_enrol_resumes_what_was_paused_because_another_had_restored_it(
    database: Database, copy: Copy, options: tuple[str, ...]
) -> None:
    add_jobs(database)
    restored = copy(INSTALLER, *options)
    install(restored.url(INSTALLER))
    assert released(restored) == [], "its executor is the restorer's"
    told = "select new_values ->> 'hint' from rowcron.change order by id desc limit 1"
    assert "select rowcron.enrol();" in str(column(restored, told, "alice"))
    column(restored, "select rowcron.enrol()", "alice")
    assert column(restored, "select name from rowcron.job where enabled") == ["on"]
    assert who_runs(restored) == ["alice"]
    # what she pauses herself stays so
    column(restored, "select rowcron.pause('on')", "alice")
    column(restored, "select rowcron.enrol()", "alice")
    assert column(restored, "select name from rowcron.job where enabled") == []


def test_whoever_enrols_before_the_release_finds_nothing_paused(
    database: Database, copy: Copy
) -> None:
    add_jobs(database)
    restored = copy(INSTALLER)
    install(restored.url(INSTALLER))
    column(restored, "select rowcron.enrol()", "alice")
    assert released(restored) == ["on"]
    assert who_runs(restored) == ["alice"]
