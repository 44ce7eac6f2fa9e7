"""Roles with passwords, a web process over a database of the module's own, a worker."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import psycopg
import pytest

from harness import Database, TestServer, wait_until
from rowcron.web.settings import WebSettings
from web.browser import browser, watched
from web.site import ASKED, PEOPLE, WEB, Bearer, Site, password, psql_as
from workers import WorkerProcess

__all__ = ["browser", "watched"]


@pytest.fixture(scope="session")
def people(server: TestServer) -> TestServer:
    """Roles whom the server asks for a password, and a login for the web process."""
    with psycopg.connect(server.admin_url, autocommit=True) as conn:
        for role, group in PEOPLE.items():
            literal = password(role).replace("'", "''")
            conn.execute(f"create role {role} login password '{literal}'".encode())
            conn.execute(f"grant {group} to {role}".encode())
        conn.execute("grant rowcron_http, rowcron_python, rowcron_shell to ada")
        conn.execute(f"create role {ASKED}".encode())
        conn.execute(f"create role {WEB} login noinherit".encode())
        conn.execute(f"grant rowcron_web, ada, vic, otto to {WEB}".encode())
        rules = server.base / "data" / "pg_hba.conf"
        rules.write_text(
            f"local all {','.join(PEOPLE)},+{ASKED} scram-sha-256\n{rules.read_text()}"
        )
        conn.execute("select pg_reload_conf()")
    wait_until(lambda: _asks(server), what="the server to ask for passwords")
    return server


def _asks(server: TestServer) -> bool:
    try:
        psycopg.connect(server.url("ada", "postgres")).close()
    except psycopg.OperationalError:
        return True
    return False


@pytest.fixture(scope="module")
def shared(people: TestServer) -> Iterator[Database]:
    """A database for all tests of a module, with rowcron in it."""
    database = people.create_database()
    yield database
    people.drop_database(database)


@pytest.fixture(scope="module")
def site(shared: Database) -> Iterator[Site]:
    """A web process over it."""
    site = Site(WebSettings(conninfo=shared.url(WEB), tick=0.2))
    yield site
    site.stop()


@pytest.fixture
def own(shared: Database) -> Iterator[Site]:
    """A web process of the test's own, which holds no connection yet."""
    site = Site(WebSettings(conninfo=shared.url(WEB)))
    yield site
    site.stop()


@pytest.fixture(scope="module")
def root(shared: Database) -> Iterator[psycopg.Connection]:
    """The superuser, autocommit."""
    with psycopg.connect(shared.url("postgres"), autocommit=True) as conn:
        yield conn


@pytest.fixture(scope="module")
def ada(shared: Database) -> Iterator[psycopg.Connection]:
    """An author's own connection."""
    with psql_as(shared, "ada") as conn:
        yield conn


@pytest.fixture(scope="module")
def bearer(site: Site, shared: Database) -> Iterator[Bearer]:
    """Programs with a token that the role has made."""
    clients = []

    def make(role: str = "ada", site: Site = site) -> httpx.Client:
        with psql_as(shared, role) as conn:
            row = conn.execute("select rowcron.create_token('test')").fetchone()
        assert row is not None
        clients.append(site.client(headers={"Authorization": f"Bearer {row[0]}"}))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture(scope="module")
def worker(shared: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    """A worker over the module's database."""
    directory = tmp_path_factory.mktemp("worker")
    worker = WorkerProcess(shared.url("w_worker"), directory, forked=True)
    worker.wait_for("worker")
    yield worker
    worker.kill()
