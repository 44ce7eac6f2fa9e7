"""docs/authoring.md and docs/operating.md: what they show is run, in order, as written."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.types.json import Jsonb

from harness import (
    INSTALLER,
    ROOT,
    SETTINGS,
    TEMPLATE,
    WORKER,
    Database,
    TestServer,
    wait_until,
)
from workers import Start, start

__all__ = ["start"]
DOCS = ROOT / "docs"
ROLES = {"the installer": INSTALLER}


def blocks(page: str) -> Iterator[tuple[str, str]]:
    """A page's blocks, in order: language and text."""
    text = (DOCS / page).read_text("utf-8")
    yield from re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def ask(database: Database, block: str, usual: str) -> str:
    """What psql answers to a block, as the role that its first line names."""
    named = re.match(r"-- as (.*)", block)
    role = usual if named is None else ROLES.get(named[1], named[1])
    return database.server.psql(database.url(role), "-f", "-", input=block).stdout


def in_shell(line: str, server: TestServer, place: Path, **more: str) -> None:
    """Run it where `rowcron` and psql are."""
    path = f"{Path(sys.executable).parent}:{server.bin}:{os.environ['PATH']}"
    modules = f"{ROOT / 'worker'}:{place}"
    environment = {"PATH": path, "HOME": str(place), "PYTHONPATH": modules, **more}
    done = subprocess.run(
        line, shell=True, cwd=place, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (line, done.stdout, done.stderr)


@pytest.fixture
def roles(server: TestServer) -> Iterator[None]:
    """Those of the pages that are not there yet."""
    with psycopg.connect(server.admin_url, autocommit=True) as conn:
        conn.execute("create role app_rt login; create role monitor login; create role ops login")
        conn.execute("grant rowcron_viewer to monitor; grant rowcron_operator to ops")
        yield
        for role in ("app_rt", "monitor", "ops"):
            conn.execute(f"drop role {role}")


@pytest.mark.usefixtures("roles")
def test_writing_jobs(database: Database, db: psycopg.Connection, tmp_path: Path) -> None:
    db.execute("grant rowcron_python to alice")
    answers = []
    for language, block in blocks("authoring.md"):
        if language == "python":
            (tmp_path / "tasks.py").write_text(block, "utf-8")
        elif language == "sh":
            urls = {
                "ROWCRON_DATABASE_URL": database.url(WORKER),
                "ROWCRON_HANDLER_DATABASE_URL": database.url("alice"),
            }
            in_shell(block, database.server, tmp_path, **urls)
        elif "cron.job\n" not in block:  # has a test of its own
            answers.append(ask(database, block, "alice"))
    db.execute("drop owned by app_rt; grant alice to app_rt")
    (option,) = re.findall(
        r"\?(options=\S+)` in its URL", (DOCS / "authoring.md").read_text("utf-8")
    )
    with psycopg.connect(f"{database.url('app_rt')}&{option}") as conn:
        conn.execute("select rowcron.enqueue('mail')")
    history, again = answers[-2:]
    assert history.splitlines() == [
        "ann@example.org|succeeded|",
        "cyn@example.org|succeeded|",
        "dan@example.org|succeeded|",
        "nowhere|failed|abandoned",
        "eve@example.org|succeeded|",
        "gus@example.org|succeeded|",
    ]
    assert again.count("cancelled") == 3, "what was due in an hour, in 30 s, and the retry"
    counted = "select count(*) from rowcron.history where job = 'count-mails'"
    assert db.execute(counted).fetchone() == (5,)


def test_enqueuing_with_psycopg(alice: psycopg.Connection, db: psycopg.Connection) -> None:
    text = (DOCS / "authoring.md").read_text("utf-8")
    (call,) = re.findall(r"^\| psycopg 3 \| `(.*?)`", text, re.MULTILINE)
    db.execute("grant rowcron_python to alice")
    alice.execute("set client_min_messages = error")
    alice.execute("insert into rowcron.job (name, kind, command) values ('mail', 'python', 'mail')")
    with alice.transaction():
        exec(call, {"conn": alice, "Jsonb": Jsonb, "to": "ann@example.org"})
    found = "select args from rowcron.run where job = 'mail'"
    assert db.execute(found).fetchall() == [({"to": "ann@example.org"},)]


def test_moving_from_pg_cron(server: TestServer) -> None:
    if not list(Path("/usr/share/postgresql").glob(f"{server.bin.parent.name}/*/pg_cron.control")):
        pytest.skip("this server has no pg_cron")
    (block,) = [text for _, text in blocks("authoring.md") if "cron.job\n" in text]
    more = {"shared_preload_libraries": "pg_cron", "cron.database_name": "crontab"}
    server = TestServer(server.bin, {**SETTINGS, **more})
    database = Database("crontab", server)
    try:
        server.start()
        server.make_template()
        with psycopg.connect(server.admin_url, autocommit=True) as conn:
            conn.execute(f"create database crontab template {TEMPLATE} owner {INSTALLER}".encode())
        with psycopg.connect(database.url("postgres"), autocommit=True) as conn:
            conn.execute("select rowcron._bind(); create extension pg_cron")
            conn.execute("grant usage on schema cron to alice, bob")
            # by hand: before 1.5 pg_cron knows neither seconds nor $ itself
            conn.execute(
                "insert into cron.job (schedule, command, username, jobname, active, nodeport)"
                " values ('30 seconds', 'select 1', 'alice', null, true, 1),"
                " ('0 3 $ * *', 'select 2', 'alice', 'month.end', false, 1),"
                " ('@hourly', 'select 3', 'bob', 'hourly', true, 1)"
            )
            ask(database, block, "")
            found = "select name, schedule, enabled from rowcron.job where owner = 'alice'::regrole"
            assert conn.execute(f"{found} order by id".encode()).fetchall() == [
                ("pg_cron-1", "@every 30 seconds", True),
                ("month-end", "0 3 L * *", False),
            ]
            assert conn.execute("select username from cron.job").fetchall() == [("bob",)]
            ask(database, "set role bob;\n" + block.removeprefix("-- as alice\n"), "postgres")
            owner = "select owner::regrole::text from rowcron.job where name = 'hourly'"
            assert conn.execute(owner).fetchone() == ("bob",)
    finally:
        server.stop()


@pytest.mark.usefixtures("roles")
def test_operating(
    database: Database, db: psycopg.Connection, start: Start, tmp_path: Path
) -> None:
    start(ROWCRON_CONNECTION_REPORTS=database.url("postgres"))
    answers = {}
    for language, block in blocks("operating.md"):
        if "drop role" in block:
            break  # of all databases of the server
        if language == "sh":
            in_shell(block, database.server, tmp_path, PROBE_URL=database.url("monitor"))
            stopped = block.replace("$(hostname)", "elsewhere")
            with pytest.raises(AssertionError, match="division by zero"):
                in_shell(stopped, database.server, tmp_path, PROBE_URL=database.url("monitor"))
        elif language == "sql":
            answers[block] = ask(database, block, "ops")
            if "vacuum-reports" in block:
                assert vacuumed(database, db) == ("succeeded",)
    assert any(socket.gethostname() in answer for answer in answers.values())
    assert db.execute("select to_regnamespace('rowcron')").fetchone() == (None,)


def vacuumed(database: Database, db: psycopg.Connection) -> tuple[str, ...] | None:
    """How a run over the connection ends."""
    database.server.psql(database.url("alice"), "-c", "select rowcron.run_now('vacuum-reports')")
    query = "select outcome from rowcron.history where job = 'vacuum-reports'"
    return wait_until(lambda: db.execute(query).fetchone(), what="the end of the vacuum")


def test_the_roles_go_when_no_database_has_it_any_more(server: TestServer) -> None:
    server = TestServer(server.bin)  # one of its own: roles are the whole server's
    try:
        server.start()
        server.make_template()
        database = server.create_database()
        server.psql(
            database.url("alice"),
            "-c",
            "insert into rowcron.job (name, command) values ('a', 'select 1')",
        )
        last = [block for _, block in blocks("operating.md") if block.startswith("-- as the inst")]
        for each in (TEMPLATE, database.name):
            ask(Database(each, server), last[-2], INSTALLER)
        ask(database, last[-1], INSTALLER)
        with psycopg.connect(server.admin_url) as conn:
            left = "select count(*) from pg_roles where rolname like 'rowcron%'"
            assert conn.execute(left).fetchone() == (0,)
    finally:
        server.stop()
