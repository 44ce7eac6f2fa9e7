"""Every way to install gives the same schema, any number of times, by any number at once."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from harness import INSTALLER, TEMPLATE, Database, TestServer
from rowcron import __version__, chapters, client
from rowcron.install import InstallError, install, script


@pytest.fixture(scope="module")
def installed(server: TestServer) -> str:
    """The dump of what `rowcron install` makes."""
    return server.dump_schema(TEMPLATE)


def chapter_files() -> list[Path]:
    return [chapters.chapter_dir() / chapter.name for chapter in chapters.chapters()]


def test_the_installer_is_not_a_superuser(server: TestServer) -> None:
    with psycopg.connect(server.url(INSTALLER, TEMPLATE)) as conn:
        row = conn.execute(
            "select rolsuper, rolcreaterole, rolcreatedb, rolbypassrls"
            " from pg_roles where rolname = current_user"
        ).fetchone()
        assert row == (False, True, False, False)
        owner = conn.execute(
            "select r.rolname, r.rolsuper, r.rolcanlogin from pg_namespace as n"
            " join pg_roles as r on r.oid = n.nspowner where n.nspname = 'rowcron'"
        ).fetchone()
        assert owner == ("rowcron_owner", False, False)


def test_the_dump_is_of_something(installed: str) -> None:
    for part in ("CREATE TABLE rowcron.setting", "CREATE TABLE rowcron.job", "COMMENT ON SCHEMA"):
        assert part in installed


def test_applying_again_changes_nothing(
    server: TestServer, database: Database, installed: str
) -> None:
    url = database.url(INSTALLER)
    again = install(url)
    assert (again.changed, again.version, again.previous) == (False, __version__, __version__)
    assert server.dump_schema(database.name) == installed
    forced = install(url, force=True)
    assert forced.changed
    assert server.dump_schema(database.name) == installed


def test_settings_and_jobs_survive_a_new_application(
    database: Database, db: psycopg.Connection, alice: psycopg.Connection
) -> None:
    alice.execute("insert into rowcron.job (name, schedule, command) values ('a', '@daily', 'x')")
    db.execute("update rowcron.setting set value = '\"7 days\"' where name = 'retention'")
    settings = "select name, value from rowcron.setting order by name"
    agenda = "select job_id, next_run_at from rowcron.agenda"
    before = db.execute(settings).fetchall(), db.execute(agenda).fetchall()
    install(database.url(INSTALLER), force=True)
    assert (db.execute(settings).fetchall(), db.execute(agenda).fetchall()) == before


def test_twenty_installers_at_once_end_well(
    server: TestServer, empty_database: Database, installed: str
) -> None:
    url = empty_database.url(INSTALLER)
    with ThreadPoolExecutor(20) as pool:
        done = list(pool.map(lambda _: install(url), range(20)))
    assert sum(one.changed for one in done) == 1
    assert server.dump_schema(empty_database.name) == installed


def test_psql_a_chapter_a_session_gives_the_same(
    server: TestServer, empty_database: Database, installed: str
) -> None:
    for _ in range(2):
        for path in chapter_files():
            server.psql(empty_database.url(INSTALLER), "-f", str(path))
        assert server.dump_schema(empty_database.name) == installed


def test_docker_init_as_superuser_gives_the_same(
    server: TestServer, empty_database: Database, installed: str
) -> None:
    for path in sorted(chapters.chapter_dir().glob("*.sql")):
        server.psql(empty_database.url("postgres"), "--no-password", "-f", str(path))
    assert server.dump_schema(empty_database.name) == installed


def test_the_printed_script_gives_the_same_and_is_known_to_install(
    server: TestServer, empty_database: Database, installed: str
) -> None:
    server.psql(empty_database.url(INSTALLER), "-f", "-", input=script())
    assert server.dump_schema(empty_database.name) == installed
    assert not install(empty_database.url(INSTALLER)).changed


def test_the_version_in_the_schema_is_the_package_s(db: psycopg.Connection) -> None:
    assert db.execute("select rowcron.version()").fetchone() == (__version__,)


def test_a_schema_newer_than_the_package_is_refused(
    database: Database, db: psycopg.Connection
) -> None:
    db.execute("update rowcron.setting set value = '\"99.1.0\"' where name = 'schema_version'")
    for force in (False, True):
        with pytest.raises(InstallError, match=r"99\.1\.0.*newer") as caught:
            install(database.url(INSTALLER), force=force)
        assert caught.value.code == "RCVER"
        assert caught.value.hint == "pip install 'rowcron>=99.1.0'"


def test_an_older_schema_is_brought_up_to_date(
    server: TestServer, database: Database, db: psycopg.Connection, installed: str
) -> None:
    db.execute("update rowcron.setting set value = '\"0.0.9\"' where name = 'schema_version'")
    db.execute("update rowcron.setting set value = '\"other\"' where name = 'schema_hash'")
    done = install(database.url(INSTALLER))
    assert (done.changed, done.previous) == (True, "0.0.9")
    assert db.execute("select rowcron.version()").fetchone() == (__version__,)
    assert server.dump_schema(database.name) == installed


def test_a_server_older_than_15_is_refused(
    empty_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rowcron.install.OLDEST_SERVER", 990000)
    with pytest.raises(InstallError, match="is too old") as caught:
        install(empty_database.url(INSTALLER))
    assert "15 or newer" in caught.value.hint


@pytest.mark.parametrize(
    ("rights", "message", "hint"),
    [
        ("nocreaterole", "may not", "rowcron_python, rowcron_web to weak with admin option;"),
        ("createrole", "may not create schemas here", "grant create on database"),
    ],
)
def test_a_role_without_rights_is_told_what_is_missing(
    server: TestServer, empty_database: Database, rights: str, message: str, hint: str
) -> None:
    with psycopg.connect(server.admin_url, autocommit=True) as conn:
        conn.execute(f"create role weak login {rights}")
        if rights == "createrole":
            conn.execute("grant rowcron_owner, rowcron_gate to weak")
    try:
        with pytest.raises(InstallError, match=message) as caught:
            install(empty_database.url("weak"))
        assert hint in caught.value.hint
    finally:
        with psycopg.connect(server.admin_url, autocommit=True) as conn:
            conn.execute("drop role weak")


@pytest.mark.parametrize("role", [INSTALLER, "postgres"])
@pytest.mark.parametrize("schema", ["rowcron", "rowcron_executor"])
def test_a_schema_that_somebody_else_has_made_is_named(
    empty_database: Database, role: str, schema: str
) -> None:
    with psycopg.connect(empty_database.url("postgres"), autocommit=True) as conn:
        conn.execute(f"create schema {schema} authorization alice".encode())
    with pytest.raises(InstallError) as caught:
        install(empty_database.url(role))
    assert f"schema {schema} belongs to alice: install as that role; or," in caught.value.hint
    with psycopg.connect(empty_database.url("alice"), autocommit=True) as conn:
        conn.execute(caught.value.hint.rpartition(": ")[2].encode())
    assert install(empty_database.url(role)).changed


def test_a_language_that_is_closed_is_named(empty_database: Database) -> None:
    with psycopg.connect(empty_database.url("postgres"), autocommit=True) as conn:
        conn.execute("revoke usage on language plpgsql from public")
        with pytest.raises(InstallError, match="language plpgsql") as caught:
            install(empty_database.url(INSTALLER))
        opened = "grant usage on language plpgsql to public;"
        assert f"as a superuser: {opened}" in caught.value.hint
        conn.execute(opened.encode())
    assert install(empty_database.url(INSTALLER)).changed


def test_a_single_role_is_not_told_to_create_roles(
    server: TestServer, empty_database: Database
) -> None:
    """Whoever plays all parts needs no role of rowcron's and may create none."""
    with psycopg.connect(server.admin_url, autocommit=True) as admin:
        admin.execute("create role weak login")
        try:
            with pytest.raises(InstallError, match="may not create schemas here") as caught:
                install(empty_database.url("weak"), single_role=True)
            assert f"grant create on database {empty_database.name} to weak" in caught.value.hint
        finally:
            admin.execute("drop role weak")


def test_what_a_second_installer_is_told_suffices(
    server: TestServer, empty_database: Database
) -> None:
    """Another role has made rowcron's roles, for another database of the cluster."""
    with psycopg.connect(server.admin_url, autocommit=True) as admin:
        admin.execute("create role second login createrole")
        admin.execute(f"grant create on database {empty_database.name} to second".encode())
        told: list[str] = []
        try:
            for _ in range(2):
                try:
                    install(empty_database.url("second"))
                except InstallError as error:
                    grant = r"grant [^;]* to second with admin option;"
                    told += re.findall(grant, error.hint or "")
                    admin.execute(told[-1].encode())
            assert len(told) == (1 if admin.info.server_version >= 160000 else 0)
            with psycopg.connect(empty_database.url("second"), autocommit=True) as second:
                second.execute("grant rowcron_user, rowcron_worker to bob")
                assert second.execute("select rowcron.version()").fetchone() == (__version__,)
        finally:
            server.drop_database(empty_database)
            admin.execute("drop owned by second; drop role second")


def test_nothing_is_half_installed(
    server: TestServer, empty_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = (*chapters.chapters(), chapters.Chapter("999_broken.sql", "select 1/0;"))
    monkeypatch.setattr("rowcron.install.chapters", lambda: broken)
    with pytest.raises(InstallError, match=r"999_broken\.sql: division by zero"):
        install(empty_database.url(INSTALLER))
    assert "CREATE" not in server.dump_schema(empty_database.name)


def test_the_chapters_are_plain_sql() -> None:
    for path in chapter_files():
        lines = path.read_text("utf-8").splitlines()
        assert not [line for line in lines if line.startswith("\\")], path.name
        assert not [line for line in lines if line.lower() in ("begin;", "commit;")], path.name


def test_functions_of_others_are_not_called_by_whoever_installs(
    server: TestServer, database: Database, tmp_path: Path
) -> None:
    """One with exactly fitting types has the better of PostgreSQL's own, if it is in the path."""
    with psycopg.connect(database.url("postgres"), autocommit=True) as db:
        db.execute("drop schema rowcron cascade; drop schema rowcron_executor cascade")
        db.execute("grant create, usage on schema public to public")
        db.execute("create table public.caught (who text)")
        db.execute("grant all on public.caught to public")
    with psycopg.connect(database.url("bob"), autocommit=True) as bob:
        for types, rest in (("text", "$2"), ("name", "$2::text"), ("text, text", "$2, $3")):
            bob.execute(
                f"create function public.format(text, {types}) returns text language plpgsql as $$"
                " begin insert into public.caught values (current_user);"
                f" return pg_catalog.format($1, variadic array[{rest}]); end $$".encode()
            )
        bob.execute(
            "create function public.quote_ident(name) returns text language plpgsql as $$"
            " begin insert into public.caught values (current_user);"
            " return pg_catalog.quote_ident($1::text); end $$"
        )
    install(database.url("postgres"))
    file = tmp_path / "install.sql"
    file.write_text(script(), "utf-8")
    server.psql(database.url("postgres"), "-f", str(file))
    with psycopg.connect(database.url("alice"), autocommit=True) as alice:
        alice.execute("insert into rowcron.job (name, command) values ('a', 'select 1')")
    with client.connect(database.url("postgres")) as conn:
        assert client.Client(conn).rows("select english from rowcron.jobs")
    with psycopg.connect(database.url("postgres")) as db:
        assert db.execute("select who from public.caught").fetchall() == []
