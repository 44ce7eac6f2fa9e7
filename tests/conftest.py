"""Fixtures: a real server for the whole run, and for each test a database of its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from attack.minutes import attack, pytest_terminal_summary
from harness import WORKER, Database, TestServer

__all__ = ["attack", "pytest_terminal_summary"]
Connect = Callable[[str], psycopg.Connection]

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # workers would inherit that nohup has it ignored


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--server-bin",
        default=os.environ.get("ROWCRON_TEST_BIN", ""),
        help="directory of the server's binaries (ROWCRON_TEST_BIN; default: the embedded ones)",
    )


@pytest.fixture(scope="session")
def server(pytestconfig: pytest.Config) -> Iterator[TestServer]:
    """A throw-away server with a template database; roles alice, bob, w_worker, t_installer."""
    named = pytestconfig.getoption("--server-bin")
    server = TestServer(Path(named) if named else None)
    try:
        server.start()
        server.make_template()
        yield server
    finally:
        server.stop()


@pytest.fixture
def database(server: TestServer) -> Iterator[Database]:
    """A fresh database in which rowcron was installed by a role that is not a superuser."""
    database = server.create_database()
    yield database
    faults = database.ledger_faults()
    server.drop_database(database)
    assert faults == []


@pytest.fixture
def empty_database(server: TestServer) -> Iterator[Database]:
    """A fresh database without rowcron, owned by the installer."""
    database = server.create_database(template="template0")
    yield database
    server.drop_database(database)


@pytest.fixture
def connect(database: Database) -> Iterator[Connect]:
    """Connects to the test's database as any role, autocommit; closed at the test's end."""
    with ExitStack() as stack:
        yield lambda role: stack.enter_context(psycopg.connect(database.url(role), autocommit=True))


@pytest.fixture
def db(connect: Connect) -> psycopg.Connection:
    """The superuser, autocommit."""
    return connect("postgres")


@pytest.fixture
def alice(connect: Connect) -> psycopg.Connection:
    """An ordinary owner of jobs, autocommit."""
    return connect("alice")


@pytest.fixture
def bob(connect: Connect) -> psycopg.Connection:
    """Another ordinary owner of jobs, autocommit."""
    return connect("bob")


@pytest.fixture
def worker_url(database: Database) -> str:
    """The address for a login that is a member of rowcron_worker and of nothing else."""
    return database.url(WORKER)
