"""docker-compose.yml: valid, without secrets, and each service's command does what it should.

There is no Docker engine here; the commands are taken from the file and run by hand.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from harness import ROOT, Database, TestServer, wait_until

FILE = ROOT / "docker-compose.yml"
SECRETS = {"POSTGRES_PASSWORD": "p'1\"$x", "WORKER_PASSWORD": "w'2\"\\y"}


def services() -> dict[str, Any]:
    parsed: dict[str, Any] = yaml.safe_load(FILE.read_text("utf-8"))
    found: dict[str, Any] = parsed["services"]
    return found


def interpolate(text: str) -> str:
    """Compose's own: ${NAME:?message}, and $$ for a dollar sign."""
    named = re.compile(r"\$\{(\w+)(?::\?[^}]*)?\}|\$\$")
    return named.sub(lambda match: SECRETS[match[1]] if match[1] else "$", text)


def environment(service: str, database: Database) -> dict[str, str]:
    """The service's environment, with the test server in the place of the host `db`."""
    given = {key: interpolate(value) for key, value in services()[service]["environment"].items()}
    given |= {"PGHOST": str(database.server.base / "socket"), "PGDATABASE": database.name}
    scripts = Path(sys.executable).parent
    path = f"{scripts}:{database.server.bin}:{os.environ['PATH']}"
    return {"PATH": path, "HOME": "/nonexistent", **given}


def run(command: list[str], database: Database, service: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [interpolate(part) for part in command],
        env=environment(service, database),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture
def composed(server: TestServer) -> Iterator[Database]:
    """An empty database as POSTGRES_DB makes it, on which the `install` service has run."""
    database = server.create_database(template="template0", owner="postgres")
    run(services()["install"]["command"], database, "install")
    yield database
    server.drop_database(database)
    with psycopg.connect(server.admin_url, autocommit=True) as conn:
        conn.execute("drop role compose_worker, app")


@pytest.mark.once
def test_the_file_is_valid_by_the_compose_specification() -> None:
    command = [sys.executable, "-m", "check_jsonschema"]
    command += ["--builtin-schema", "vendor.compose-spec", str(FILE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.once
def test_no_password_is_in_the_file_and_none_has_a_default() -> None:
    for service in services().values():
        for name, value in service["environment"].items():
            if "PASSWORD" in name:
                assert re.fullmatch(r"\$\{\w+:\?[^}]*\}", value), name


@pytest.mark.once
def test_the_shape_is_what_it_should_be() -> None:
    found = services()
    assert set(found) == {"db", "install", "worker"}
    assert found["worker"]["restart"] == found["db"]["restart"] == "unless-stopped"
    assert found["install"]["restart"] == "no"
    for name in ("db", "worker"):
        assert found[name]["healthcheck"]["test"]
    assert not {"container_name", "ports"} & set(found["worker"])  # --scale needs that
    recipe = found["worker"]["build"]["dockerfile_inline"]
    for source in re.findall(r"COPY (.*) \S+", recipe):
        for name in source.split():
            assert (ROOT / name).exists(), name


def test_install_makes_the_schema_and_the_logins_and_may_run_again(composed: Database) -> None:
    run(services()["install"]["command"], composed, "install")
    with psycopg.connect(composed.url("postgres")) as conn:
        rows = conn.execute(
            "select m.member::regrole::text, m.roleid::regrole::text from pg_auth_members as m"
            " where m.member::regrole::text in ('compose_worker', 'app') order by 1, 2"
        ).fetchall()
        assert ("compose_worker", "rowcron_worker") in rows
        assert [role for member, role in rows if member == "compose_worker"] == ["rowcron_worker"]
        assert ("app", "rowcron_user") in rows
        row = conn.execute(
            "select rolpassword from pg_authid where rolname = 'compose_worker'"
        ).fetchone()
        assert row is not None
        assert row[0].startswith("SCRAM-SHA-256$")


def test_the_health_checks_pass_and_can_fail(composed: Database) -> None:
    for name, user in (("db", "install"), ("worker", "worker")):
        kind, *command = services()[name]["healthcheck"]["test"]
        assert kind == "CMD"
        socket = str(composed.server.base / "socket")
        here = [socket if part == "127.0.0.1" else part for part in command]
        run(here, composed, user)
        wrong = environment(user, composed) | {"PGHOST": "/nonexistent"}
        away = ["/nonexistent" if part == "127.0.0.1" else part for part in command]
        assert subprocess.run(away, env=wrong, capture_output=True, check=False).returncode != 0


def test_the_server_s_command_is_understood(server: TestServer) -> None:
    program, *options = services()["db"]["command"]
    for name, value in (option.split("=") for option in options if "=" in option):
        command = [str(server.bin / program), *options, "-C", name, "-D", str(server.base / "data")]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, **server.as_server_user()
        )
        assert done.stdout.strip() in (value, "2000"), done.stderr


def test_the_worker_runs_a_job_of_app_and_stops_when_told(composed: Database) -> None:
    with psycopg.connect(composed.url("app"), autocommit=True) as conn:
        conn.execute("create table public.seen (n integer)")
        conn.execute(
            "insert into rowcron.job (name, schedule, command) values (%s, %s, %s)",
            ["hello", "@every 1 second", "insert into public.seen values (1)"],
        )
        command = [interpolate(part) for part in services()["worker"]["command"]]
        worker = subprocess.Popen(
            command, env=environment("worker", composed), stdout=subprocess.PIPE, text=True
        )
        try:
            wait_until(lambda: conn.execute("select from public.seen").fetchone() is not None)
        finally:
            worker.send_signal(signal.SIGTERM)
            said, _ = worker.communicate(timeout=30)
        assert worker.returncode == 0, said
        outcomes = {row[0] for row in conn.execute("select outcome from rowcron.history")}
        assert "succeeded" in outcomes
        assert outcomes <= {
            "succeeded",
            "skipped",
            "missed",
        }  # before the worker, or a slow machine
