"""The command as people use it: a real database, an ordinary owner."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import psycopg
import pytest
from click.testing import CliRunner

from cli_reference import reference
from harness import ROOT, WORKER, Database, TestServer
from rowcron import __version__
from rowcron.capture import describe
from rowcron.cli import SECTIONS, cli
from rowcron.commands._columns import COLUMNS, NULLABLE
from rowcron.commands._worker_options import OPTIONS, worker_settings
from rowcron.commands.web import web
from rowcron.narrate import exception_line
from rowcron.settings import WorkerSettings
from rowcron.text import typed


def environment(**more: str) -> dict[str, str]:
    """This process's, without anything that names a database, in UTC."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("ROWCRON_", "PG")) and name != "DATABASE_URL"
    }
    return kept | {"TZ": "UTC", "XDG_DATA_HOME": "/nonexistent", "HOME": "/nonexistent"} | more


def rowcron(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    env = environment(**more.pop("env", {}))
    command = [sys.executable, "-m", "rowcron", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=env, check=False, **more)


@dataclass(frozen=True)
class Done:
    """What a command printed."""

    stdout: str
    stderr: str


Run = Callable[..., Done]


@pytest.fixture
def run(database: Database) -> Run:
    """Run the command as alice, in this process; fails unless it exits with `code`."""
    clean: dict[str, str | None] = {
        name: None for name in os.environ if name.startswith(("ROWCRON_", "PG", "DATABASE_URL"))
    }

    def as_alice(*arguments: str, code: int = 0, role: str = "alice", **more: Any) -> Done:
        env = clean | {"ROWCRON_DATABASE_URL": database.url(role)} | more.pop("env", {})
        done = CliRunner().invoke(cli, arguments, env=env, prog_name="rowcron", **more)
        unexpected = done.exception and not isinstance(done.exception, SystemExit)
        assert not unexpected, repr(done.exception)
        assert done.exit_code == code, done.stdout + done.stderr
        return Done(done.stdout, done.stderr)

    return as_alice


def on_a_terminal(arguments: list[str], columns: int, **env: str) -> str:
    """Run the command on a pseudo-terminal and return what the terminal got."""
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "rowcron", *arguments],
        stdin=child,
        stdout=child,
        stderr=child,
        env=environment(COLUMNS=str(columns), TERM="xterm", **env),
    )
    os.close(child)
    received = b""
    while True:
        try:
            part = os.read(parent, 65536)
        except OSError:  # EIO: the last writer has gone
            break
        if not part:
            break
        received += part
    os.close(parent)
    process.wait()
    return received.decode()


def commands() -> list[tuple[str, click.Command]]:
    """Every command with its path."""
    root = click.Context(cli, info_name="rowcron")
    found: list[tuple[str, click.Command]] = []
    for name in cli.list_commands(root):
        command = cli.get_command(root, name)
        assert command is not None
        if isinstance(command, click.Group):
            found += [(f"{name} {sub}", each) for sub, each in command.commands.items()]
        else:
            found.append((name, command))
    return found


# Help


@pytest.mark.once
def test_the_commands_are_these() -> None:
    job = "list show add edit pause resume run remove".split()
    runs = "list cancel retry output".split()
    plain = (
        "up install worker web psql upcoming history next explain why check hold release version"
    )
    expected = {*plain.split(), *(f"job {n}" for n in job), *(f"runs {n}" for n in runs)}
    assert {path for path, _ in commands()} == expected


@pytest.mark.once
def test_summaries_of_the_help_page_are_the_commands_own() -> None:
    context = click.Context(cli)
    for section in SECTIONS.values():
        for name, _, summary in section:
            command = cli.get_command(context, name)
            assert command is not None
            assert (command.help or "").splitlines()[0] == summary


@pytest.mark.once
@pytest.mark.parametrize(("path", "command"), commands(), ids=lambda value: str(value))
def test_every_help_ends_in_one_example_that_names_the_command(
    path: str, command: click.Command
) -> None:
    done = CliRunner().invoke(cli, [*path.split(), "--help"])
    assert done.exit_code == 0
    before, title, example = done.output.rpartition("Example:\n")
    assert title
    assert "Example:" not in before
    assert example.startswith(f"  rowcron {path}")
    for parameter in command.params:
        assert isinstance(parameter, click.Argument) or parameter.help, parameter.name


@pytest.mark.once
def test_the_reference_page_is_current() -> None:
    page = (ROOT / "docs" / "cli.md").read_text("utf-8")
    assert page == reference(), "python tests/cli_reference.py > docs/cli.md"


@pytest.mark.once
def test_help_imports_neither_a_driver_nor_the_commands() -> None:
    code = (
        "import sys; sys.argv = ['rowcron', '--help']\n"
        "import atexit; atexit.register(lambda: print(*sorted(sys.modules), file=sys.stderr))\n"
        "import rowcron.cli; rowcron.cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    heavy = {"psycopg", "pydantic", "httpx", "asyncio", "croniter", "rowcron.commands"}
    assert not loaded & heavy
    assert "Insert a row, get a job" in done.stdout


# Options and environment


@pytest.mark.once
def test_every_option_of_a_worker_is_a_setting_and_a_variable() -> None:
    fields = {field for _, field, _, _ in OPTIONS} | {"log_json", "until_idle"}
    assert fields == WorkerSettings.model_fields.keys() - {"database_url", "connections", "secrets"}


@pytest.mark.once
def test_options_of_a_worker_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWCRON_CONCURRENCY", "7")
    monkeypatch.setenv("ROWCRON_KIND", "sql,shell")
    settings = worker_settings({"queues": ("mail", "web"), "poll": "500 ms"}, "dbname=x")
    assert (settings.concurrency, settings.kinds) == (7, ("sql", "shell"))
    assert (settings.queues, settings.poll) == (("mail", "web"), 0.5)
    assert worker_settings({"concurrency": "9"}, "").concurrency == 9


@pytest.mark.once
def test_variables_that_others_set_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Dockerfile's version of us; what Kubernetes sets in each pod for a Service of our name."""
    port = "tcp://10.0.0.1:8765"
    nowhere = {"ROWCRON_DATABASE_URL": "postgresql:///x?host=/nonexistent"}
    done = rowcron("job", "list", env=nowhere | {"ROWCRON_VERSION": "0.1.0"})
    assert (done.returncode, "Usage" in done.stderr) == (1, False)
    done = rowcron("up", "--data", "/dev/null/x", env={"ROWCRON_PORT": port})
    assert (done.returncode, "Usage" in done.stderr) == (1, False)
    monkeypatch.setenv("ROWCRON_WEB_PORT", port)
    assert web.make_context("web", []).params["port"] == 8765
    monkeypatch.setenv("ROWCRON_WEB_PORT", "80")
    assert web.make_context("web", []).params["port"] == 80


@pytest.mark.once
def test_a_workers_help_tells_how_a_job_gets_a_connection() -> None:
    said = rowcron("worker", "--help").stdout
    assert "ROWCRON_CONNECTION_MAINTENANCE=URL" in said
    assert "rowcron.grant_connection('maintenance', 'alice')" in " ".join(said.split())


@pytest.mark.once
def test_a_bad_option_of_a_worker_is_told_without_traceback() -> None:
    done = rowcron("worker", "--poll", "soon", "--database-url", "dbname=x")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: option poll 'soon' cannot be\n")
    assert "Hint: rowcron worker --help" in done.stderr


def test_every_option_is_a_variable_of_its_command(run: Run) -> None:
    env = {"ROWCRON_JOB_ADD_QUEUE": "mail", "ROWCRON_QUEUE": "not-this", "ROWCRON_JSON": "1"}
    added = json.loads(run("job", "add", "hello", "@daily", "select 1", env=env).stdout)
    assert (added["name"], added["queue"]) == ("hello", "mail")


def test_the_database_is_found_in_this_order(database: Database) -> None:
    alice, bob = database.url("alice"), database.url("bob")
    nowhere = "postgresql://nobody@/none?host=/nonexistent"
    ask = ("psql", "--", "-XAtc", "select current_user")

    def who(*arguments: str, **env: str) -> str:
        return rowcron(*arguments, *ask[len(arguments) and 1 :], env=env).stdout.strip()

    urls = {"ROWCRON_DATABASE_URL": bob, "DATABASE_URL": nowhere, "PGHOST": "/nonexistent"}
    assert who("psql", "--database-url", alice, **urls) == "alice"
    assert who(**urls) == "bob"
    assert who(**(urls | {"ROWCRON_DATABASE_URL": "", "DATABASE_URL": alice})) == "alice"
    parts = psycopg.conninfo.conninfo_to_dict(alice)
    libpq = {"PGHOST": parts["host"], "PGUSER": "bob", "PGDATABASE": parts["dbname"]}
    assert who(**{key: str(value) for key, value in libpq.items()}) == "bob"


@pytest.mark.once
def test_without_a_database_there_is_a_hint() -> None:
    done = rowcron("job", "list")
    assert done.returncode == 1
    assert done.stderr.splitlines()[0].startswith("Error: no database is named")
    assert "Hint: rowcron up" in done.stderr


@pytest.mark.once
def test_next_without_a_database_is_a_preview() -> None:
    arguments = ["30 2 29 3 *", "--timezone", "Europe/Berlin", "--after", "2026-03-27T12:00:00Z"]
    done = rowcron("next", *arguments, "--count", "1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Sun 2026-03-29 03:00:00+02  ")
    assert "preview" in done.stderr
    done = rowcron("explain", "@daily")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: the English comes from the database")
    assert "Hint: rowcron up" in done.stderr


@pytest.mark.once
def test_next_without_a_database_says_where_it_cannot_tell() -> None:
    done = rowcron("next", "0 0 LW * *")
    assert (done.returncode, done.stdout) == (1, "")
    assert "known to the database only" in done.stderr
    assert rowcron("next", "@reboot").stdout == "at each start of PostgreSQL\n"


def test_next_tells_the_database_s_local_times(database: Database) -> None:
    url = database.url("alice")

    def told(zone: str, *options: str) -> str:
        after = ("--after", "2026-12-25 02:30", "--count", "1", "--timezone", zone)
        done = rowcron("next", "0 3 * * *", *after, *options)
        assert done.returncode == 0, done.stderr
        return done.stdout.split("  ")[0]

    # an instant without an offset is the schedule's zone's, with a database and without
    for zone, offset in (
        ("Europe/Berlin", "+01"), ("America/St_Johns", "-03:30"), ("Asia/Kathmandu", "+05:45"),
    ):  # fmt: skip
        assert told(zone, "--database-url", url) == f"Fri 2026-12-25 03:00:00{offset}"
        assert told(zone) == f"Fri 2026-12-25 03:00:00{offset}"
    # what is read otherwise would be the session's zone's
    for options in ((), ("--database-url", url)):
        for wrong in ("2027-1-1 00:00", "tomorrow", "12027-1-1", "2027-02-30"):
            refused = rowcron(
                "next", "@daily", "--timezone", "Asia/Tokyo", "--after", wrong, *options
            )
            assert refused.returncode == 2
            assert f"--after '{wrong}' is not an ISO 8601 instant" in refused.stderr
    done = rowcron("next", "@reboot", "--database-url", url)
    assert done.stdout == "at each start of PostgreSQL\n"


@pytest.mark.once
def test_a_database_that_does_not_answer_says_who_named_it() -> None:
    done = rowcron("job", "list", env={"DATABASE_URL": "postgresql://x@/y?host=/nonexistent"})
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert "DATABASE_URL" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_the_schema_the_hint_is_to_install(empty_database: Database) -> None:
    url = empty_database.url("t_installer")
    for command in (("job", "list"), ("history",), ("why", "x"), ("next", "@daily"), ("hold", "x")):
        done = rowcron(*command, env={"ROWCRON_DATABASE_URL": url})
        assert done.returncode == 1
        assert done.stderr.startswith("Error: rowcron is not installed in this database\n")
        assert "Hint: rowcron install" in done.stderr
        assert empty_database.name in done.stderr
    done = rowcron("version", env={"ROWCRON_DATABASE_URL": url})
    assert "not installed" in done.stdout


@pytest.mark.once
def test_usage_errors_exit_2() -> None:
    for wrong in (["job", "add"], ["nonsense"], ["history", "--outcome", "fine"], ["next"]):
        assert rowcron(*wrong).returncode == 2
    assert rowcron("up", "--port", "5433", "--database-url", "dbname=x").returncode == 2


# Install, version, psql


def test_install_is_told_and_again_changes_nothing(empty_database: Database) -> None:
    url = empty_database.url("t_installer")
    first = rowcron("install", "--database-url", url)
    assert first.returncode == 0, first.stderr
    assert first.stdout == f"installed rowcron {__version__} in database {empty_database.name}\n"
    again = rowcron("install", "--database-url", url)
    assert "is there already" in again.stdout
    forced = rowcron("install", "--force", "--database-url", url)
    assert forced.stdout.startswith("installed")
    version = json.loads(rowcron("version", "--json", "--database-url", url).stdout)
    assert (version["package"], version["schema"]) == (__version__, __version__)


@pytest.mark.once
def test_install_prints_its_sql_without_a_database() -> None:
    done = rowcron("install", "--print")
    assert done.returncode == 0
    assert "begin;" in done.stdout
    assert done.stdout.rstrip().endswith("commit;")


def test_psql_connects_as_whom_the_person_names(database: Database) -> None:
    ask = ("-XAtc", "select current_user")
    url = database.url("alice")
    for named in (("-U", "bob"), ("--", "--username=bob"), ("--", "-Ubob")):
        done = rowcron("psql", "--database-url", url, *named, *ask)
        assert (done.stdout.strip(), done.stderr) == ("bob", "")


@pytest.mark.once
def test_psql_hides_the_password_from_the_process_list(tmp_path: Path) -> None:
    fake = tmp_path / "psql"
    fake.write_text('#!/bin/sh\necho "$PGPASSWORD"; for a; do echo "$a"; done\n', "utf-8")
    fake.chmod(0o755)
    url = "postgresql://alice:s3cr3t@db.example.org/app"
    done = rowcron("psql", "--database-url", url, "--", "-c", "x", env={"PATH": str(tmp_path)})
    password, *arguments = done.stdout.splitlines()
    assert password == "s3cr3t"
    assert "s3cr3t" not in " ".join(arguments)
    assert arguments[-2:] == ["-c", "x"]
    assert "host=db.example.org" in arguments[1]
    assert arguments[2:4] == ["--username", "alice"]


# Jobs


def test_a_job_is_added_shown_edited_paused_and_removed(run: Run) -> None:
    added = run(
        "job", "add", "nightly", "0 3 * * mon-fri", "select 1", "--timezone", "Europe/Berlin"
    )
    assert added.stdout.startswith("added nightly: ")
    assert "next run " in added.stdout
    run(
        "job",
        "edit",
        "nightly",
        "--timeout",
        "5 min",
        "--max-running",
        "2",
        "--description",
        "Ä 東京",
    )
    job = json.loads(run("job", "show", "nightly", "--json").stdout)
    assert (job["timeout"], job["max_running"], job["timezone"]) == ("00:05:00", 2, "Europe/Berlin")
    assert job["command"] == "select 1"
    assert len(job["next_runs"]) == 5
    run("job", "edit", "nightly", "--unset", "max_running", "--unset", "description")
    job = json.loads(run("job", "show", "nightly", "--json").stdout)
    assert (job["max_running"], job["description"], job["timeout"]) == (None, None, "00:05:00")
    run("job", "edit", "nightly", "--name", "weekly", "--schedule", "@weekly")
    paused = run("job", "pause", "weekly").stdout
    assert paused.splitlines() == [
        "paused weekly",
        "what is enqueued from now on still runs; to stop everything: rowcron hold REASON",
    ]
    listed = json.loads(run("job", "list", "--paused", "--json").stdout)
    assert [(job["name"], job["schedule"]) for job in listed] == [("weekly", "@weekly")]
    assert run("job", "resume", "weekly").stdout == "resumed weekly\n"
    assert json.loads(run("job", "list", "--paused", "--json").stdout) == []
    assert run("job", "remove", "weekly").stdout == "removed weekly\n"
    assert run("job", "list").stdout.startswith("no jobs; ")


def test_a_run_past_what_python_knows_is_shown_as_the_database_writes_it(run: Run) -> None:
    run("job", "add", "far", "0 0 1 1 *", "select 1", "--starts-at", "9999-12-30 00:00Z")
    shown = run("job", "show", "far").stdout
    assert "Next runs  10000-01-01 00:00:00+00\n" in shown
    job = json.loads(run("job", "show", "far", "--json").stdout)
    assert job["next_runs"][:2] == ["10000-01-01 00:00:00+00", "10001-01-01 00:00:00+00"]
    assert "10000-01-01" in run("job", "list").stdout
    assert "10000-01-01" in run("upcoming").stdout


def test_every_column_of_a_job_has_an_option(db: psycopg.Connection) -> None:
    rows = db.execute(
        "select attname, attnotnull from pg_attribute"
        " where attrelid = 'rowcron.job'::regclass and attnum > 0 and not attisdropped"
    ).fetchall()
    apart = {"id", "owner", "created_at", "updated_at", "name", "schedule", "command", "enabled"}
    options = {option.replace("-", "_") for option, _, _ in COLUMNS}
    assert options == {str(name) for name, _ in rows} - apart
    assert set(NULLABLE) == {str(name) for name, never_null in rows if not never_null}


def test_adding_twice_is_refused_unless_it_updates(run: Run) -> None:
    run("job", "add", "hello", "@daily", "select 1", "--queue", "mail")
    again = run("job", "add", "hello", "@hourly", "select 2", code=1)
    assert again.stderr.startswith(
        "Error: there is a job 'hello' already\nHint: rowcron job edit hello"
    )
    run("job", "add", "it's mine", "none", "-", input="\ufeffselect 1")
    assert json.loads(run("job", "show", "it's mine", "--json").stdout)["command"] == "select 1"
    again = run("job", "add", "it's mine", "none", "select 1", code=1)
    assert shlex.quote("it's mine") in again.stderr
    run("job", "add", "hello", "@hourly", "select 2", "--update")
    job = json.loads(run("job", "show", "hello", "--json").stdout)
    assert (job["schedule"], job["command"], job["queue"]) == ("@hourly", "select 2", "mail")
    run("job", "add", "hello", "none", "select 2", "--update")
    assert json.loads(run("job", "show", "hello", "--json").stdout)["schedule"] is None


def test_a_command_of_a_megabyte_comes_from_standard_input(run: Run) -> None:
    command = "select 1 --" + "x" * 1_000_000 + "\n;"
    run("job", "add", "big", "none", "-", input=command)
    assert json.loads(run("job", "show", "big", "--json").stdout)["command"] == command


def test_a_bad_schedule_is_refused_with_the_databases_hint(run: Run) -> None:
    done = run("job", "add", "bad", "61 * * * *", "select 1", code=1)
    lines = done.stderr.splitlines()
    assert lines[0].startswith("Error: ")
    assert "61" in lines[0]
    assert any(line.startswith("Hint: ") for line in lines)
    assert json.loads(run("job", "list", "--json").stdout) == []
    done = run("job", "add", "bad", "@daily", "select 1", "--timeout", "soon", code=1)
    assert "soon" in done.stderr


def test_a_name_with_quotes_and_emoji_works_everywhere(run: Run) -> None:
    name = """it's a "job" 🎉"""
    run("job", "add", name, "@daily", "select 1")
    assert name in run("job", "list").stdout
    assert run("job", "pause", name).stdout.startswith(f"paused {name}\n")
    assert name in run("job", "show", name).stdout
    run("why", name)


def test_a_job_that_nobody_runs_is_overdue_in_the_list(run: Run, db: psycopg.Connection) -> None:
    run("job", "add", "neglected", "@hourly", "select 1")
    run("job", "add", "fine", "@hourly", "select 1")
    db.execute(
        "update rowcron.agenda as a set high_water = now() - interval '1 h',"
        " next_run_at = now() - interval '2 min'"
        " from rowcron.job as j where j.id = a.job_id and j.name = 'neglected'"
    )
    lines = run("job", "list").stdout.splitlines()
    assert ["overdue" in line for line in lines if "neglected" in line] == [True]
    assert ["overdue" in line for line in lines if "fine" in line] == [False]


def test_an_unknown_job_is_told(run: Run) -> None:
    for command in ("show", "pause", "resume", "run", "remove"):
        done = run("job", command, "ghost", code=1)
        assert "ghost" in done.stderr.splitlines()[0]
    assert "ghost" in run("job", "edit", "ghost", "--queue", "x", code=1).stderr
    assert "ghost" in run("why", "ghost", code=1).stderr


def test_another_owners_job_is_as_if_it_were_not_there(run: Run) -> None:
    run("job", "add", "private", "@daily", "select 1")
    assert "private" not in run("job", "list", role="bob").stdout
    for command in (("show",), ("run",), ("remove",), ("edit", "--queue", "x")):
        run("job", command[0], "alice.private", *command[1:], role="bob", code=1)
    assert json.loads(run("job", "list", "--json").stdout)[0]["queue"] == "default"


# Runs


def end_one(db: psycopg.Connection, outcome: str, output: str | None, error: str | None) -> int:
    """Claim the one shell run that is ready and end it, as a worker would."""
    row = db.execute(
        "select run_id, token from rowcron.claim(capacity => 1, kinds => '{shell}')"
    ).fetchone()
    assert row is not None
    db.execute(
        "select * from rowcron.finish(%s, %s, outcome => %s, output => %s, error => %s)",
        [*row, outcome, output, error],
    )
    return int(row[0])


@pytest.fixture
def shell_job(run: Run, db: psycopg.Connection) -> Iterator[str]:
    """A job on demand whose runs a test ends itself. Roles are the whole server's: taken back."""
    db.execute("grant rowcron_shell to alice")
    run("job", "add", "dump", "none", "pg_dump", "--kind", "shell")
    yield "dump"
    db.execute("revoke rowcron_shell from alice")


def test_a_run_is_listed_ended_shown_and_retried(
    run: Run, db: psycopg.Connection, shell_job: str
) -> None:
    number = json.loads(run("job", "run", shell_job, "--json").stdout)["run_id"]
    live = json.loads(run("runs", "list", "--json").stdout)
    assert [(row["run_id"], row["state"]) for row in live] == [(number, "ready")]
    assert end_one(db, "failed", "tail of it\x1b[2J\n", "exit code 3") == number
    ended = json.loads(run("runs", "list", "--outcome", "failed", "--json").stdout)
    assert [(row["run_id"], row["why"]) for row in ended] == [(number, "exit code 3")]
    assert list(ended[0]) == list(live[0])
    output = run("runs", "output", str(number))
    assert output.stdout == "tail of it\x1b[2J\n"
    assert output.stderr == "failed: exit code 3\n"
    history = run("history", "--job", shell_job, "--since", "1 hour").stdout
    assert "exit code 3" in history
    assert run("history", "--job", shell_job, "--since", "1 hour ago").stdout == history
    assert json.loads(run("history", "--outcome", "succeeded", "--json").stdout) == []
    retried = json.loads(run("runs", "retry", str(number), "--json").stdout)
    assert retried["retry_of"] == number
    assert run("runs", "cancel", str(retried["run_id"])).stdout.endswith(": cancelled\n")
    assert "exit code 3" in run("job", "show", shell_job).stdout
    assert run("runs", "cancel", str(number), code=1).stderr.startswith("Error: ")
    assert run("runs", "output", "999999", code=1).stderr.startswith("Error: run 999999 ")
    run("job", "edit", shell_job, "--name", "dumped")
    assert "exit code 3" in run("job", "show", "dumped").stdout, "also by its name of that time"


def test_output_is_made_safe_on_a_terminal(
    run: Run, db: psycopg.Connection, database: Database, shell_job: str
) -> None:
    run("job", "run", shell_job)
    number = end_one(db, "succeeded", "one\n\x1b]0;owned\x07two\n", None)
    got = on_a_terminal(
        ["runs", "output", str(number)], 80, ROWCRON_DATABASE_URL=database.url("alice")
    )
    assert got == "one\r\n\\x1b]0;owned\\x07two\r\n"


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_tables_fit_the_terminal(run: Run, database: Database, columns: int) -> None:
    for number in range(3):
        run("job", "add", f"job-{number}" + "x" * 30 * number, "0 3 * * mon-fri", "select 1",
            "--queue", "a-queue-with-a-long-name", "--description", "word " * 30)  # fmt: skip
    url = database.url("alice")
    for command in (["job", "list"], ["upcoming"], ["history"], ["runs", "list"]):
        got = on_a_terminal(command, columns, ROWCRON_DATABASE_URL=url)
        for line in re.sub(r"\x1b\[[0-9;]*m", "", got).splitlines():
            assert len(line) <= columns, line


def test_colours_are_for_terminals_only(run: Run, database: Database) -> None:
    run("job", "add", "hello", "@daily", "select 1", "--paused")
    url = database.url("alice")
    assert "\x1b[" in on_a_terminal(["job", "list"], 80, ROWCRON_DATABASE_URL=url)
    assert "\x1b" not in on_a_terminal(["job", "list"], 80, ROWCRON_DATABASE_URL=url, NO_COLOR="1")
    assert "\x1b" not in run("job", "list").stdout


def test_limits_bound_what_is_read(run: Run, db: psycopg.Connection, shell_job: str) -> None:
    for _ in range(4):
        run("job", "run", shell_job)
        end_one(db, "succeeded", None, None)
    assert len(json.loads(run("history", "--limit", "3", "--json").stdout)) == 3
    assert len(json.loads(run("runs", "list", "--limit", "2", "--json").stdout)) == 2
    assert run("history", "--limit", "0", code=2)
    assert "Error" in run("history", "--since", "soonish", code=1).stderr


# Schedules, gates, hold


def test_upcoming_is_in_order(run: Run) -> None:
    run("job", "add", "later", "@yearly", "select 1")
    run("job", "add", "sooner", "* * * * *", "select 1")
    found = json.loads(run("upcoming", "--json").stdout)
    assert [row["job"] for row in found][:2] == ["sooner", "later"]
    assert "in " in run("upcoming", "--limit", "1").stdout


def test_next_and_explain_ask_the_database(run: Run) -> None:
    arguments = ["0 3 * * mon-fri", "--timezone", "Europe/Berlin", "--after", "2026-03-27 12:00Z"]
    found = json.loads(run("next", *arguments, "--count", "2", "--json").stdout)
    assert found == ["2026-03-30T01:00:00+00:00", "2026-03-31T01:00:00+00:00"]
    shown = run("next", *arguments, "--count", "1")
    assert shown.stdout.startswith("Mon 2026-03-30 03:00:00+02  ")
    assert shown.stderr == ""
    assert "03:00" in run("explain", "0 3 * * mon-fri", "--timezone", "Europe/Berlin").stdout
    bad = run("next", "61 * * * *", code=1)
    assert bad.stderr.startswith("Error: ")
    assert "Hint: " in bad.stderr


@pytest.fixture
def operator(db: psycopg.Connection) -> Iterator[None]:
    """Make alice an operator for one test."""
    db.execute("grant rowcron_operator to alice")
    yield
    db.execute("revoke rowcron_operator from alice")


@pytest.mark.usefixtures("operator")
def test_why_names_the_gates_that_hold(run: Run) -> None:
    run("job", "add", "hello", "@daily", "select 1", "--paused")
    run("hold", "moving house")
    gates = json.loads(run("why", "hello", "--json").stdout)
    assert {"gate", "holds", "detail", "hint"} <= gates[0].keys()
    holding = {gate["gate"] for gate in gates if gate["holds"]}
    assert len(holding) >= 2
    shown = run("why", "hello").stdout
    assert "moving house" in shown
    assert "✗" in shown
    run("release")
    after = json.loads(run("why", "hello", "--json").stdout)
    assert len({gate["gate"] for gate in after if gate["holds"]}) == len(holding) - 1


def test_why_tells_a_run_that_waits_for_its_turn(run: Run, db: psycopg.Connection) -> None:
    db.execute(
        "insert into rowcron.worker (id, kinds, concurrency, lease, poll, seen_at, expires_at)"
        " values (gen_random_uuid(), '{sql}', 1, '1 h', '5 s', now(), now() + interval '1 h')"
    )
    run("job", "add", "patient", "none", "select 1")
    for _ in range(3):
        run("job", "run", "patient")
    last = run("why", "patient").stdout.splitlines()[-1]
    assert last.startswith("Nothing holds it back; run ")
    assert last.endswith(", behind 0 others that you can see.")


def test_hold_is_not_for_everybody(run: Run) -> None:
    done = run("hold", "mischief", code=1)
    assert done.stderr.startswith("Error: ")


def test_a_reader_that_goes_away_is_no_traceback(run: Run, database: Database) -> None:
    run("job", "add", "hello", "@daily", "select 1")
    done = subprocess.run(
        f"{sys.executable} -m rowcron next '* * * * *' --count 1000 | head -1",
        shell=True,
        capture_output=True,
        text=True,
        env=environment(ROWCRON_DATABASE_URL=database.url("alice")),
        check=True,
    )
    assert done.stdout.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_job_names_are_completed_from_the_database(run: Run, database: Database) -> None:
    run("job", "add", "nightly", "@daily", "select 1")
    env = {"COMP_WORDS": "rowcron job show ni", "COMP_CWORD": "3"}
    env |= {"_ROWCRON_COMPLETE": "bash_complete", "ROWCRON_DATABASE_URL": database.url("alice")}
    assert rowcron(env=env).stdout.split() == ["plain,nightly"]
    started = time.monotonic()
    env["ROWCRON_DATABASE_URL"] = "postgresql://x@/y?host=/nonexistent"
    done = rowcron(env=env)
    assert (done.stdout.strip(), done.stderr) == ("", "")
    assert time.monotonic() - started < 10


@pytest.mark.once
@pytest.mark.parametrize(
    "command", ["install", "job list", "next @daily", "psql", "up", "version", "web", "worker"]
)
def test_an_address_that_cannot_be_read_is_not_shown(command: str) -> None:
    """It is pasted from a Python program, with the driver's name and the password."""
    url = 'postgresql+psycopg2://app:s3"cret@db/app'
    done = rowcron(*command.split(), "--database-url", url)
    assert done.returncode == 1
    assert not {"s3", "cret"} & set(re.findall(r"\w+", done.stdout + done.stderr))
    assert "--database-url cannot be read" in done.stderr
    assert "write postgresql:// in place of postgresql+psycopg2://" in done.stderr


def test_instants_are_read_in_every_datestyle(run: Run, database: Database) -> None:
    run("job", "add", "styled", "@daily", "select 1")
    for options in ("-c datestyle=SQL,DMY", "-c datestyle=German -c intervalstyle=iso_8601"):
        env = {"PGOPTIONS": options}
        shown = json.loads(run("job", "list", "--json", env=env).stdout)
        assert re.match(r"\d{4}-\d\d-\d\dT00:00:00", shown[0]["next_run_at"])
        assert "styled" in run("upcoming", env=env).stdout


@pytest.fixture
def odd_owners(db: psycopg.Connection) -> Iterator[list[str]]:
    """Roles whose names have to be quoted, each with a job `the job`."""
    roles = ["Odd Role", 'o.d"d', "gone"]
    for role in roles:
        name = role.replace('"', '""')
        db.execute(f'create role "{name}"; grant rowcron_user to "{name}"'.encode())
        db.execute(
            f'set role "{name}"; insert into rowcron.job (name, command) values'
            " ('the job', 'select 1'); reset role".encode()
        )
    number = db.execute("select 'gone'::regrole::oid::text").fetchone()
    db.execute("drop owned by gone; drop role gone; grant rowcron_operator to bob")
    assert number is not None
    yield [*roles[:2], number[0]]
    db.execute("revoke rowcron_operator from bob; delete from rowcron.job")
    for role in roles[:2]:
        name = role.replace('"', '""')
        db.execute(f'drop owned by "{name}"; drop role "{name}"'.encode())


def test_owners_are_named_as_they_are(
    run: Run, db: psycopg.Connection, odd_owners: list[str]
) -> None:
    db.execute(
        "insert into rowcron.ledger (job_id, job, owner, queue, kind, run_id, attempt, final,"
        " finished_at, outcome) select id, name, owner, queue, kind, id, 1, true, now(),"
        " 'succeeded' from rowcron.job"
    )
    several = run("job", "show", "the job", role="bob", code=1).stderr
    for owner in odd_owners:
        quoted = '"' + owner.replace('"', '""') + '"'
        for spelt in {owner, quoted if not owner.isdigit() else owner}:
            for env in ({}, {"PGOPTIONS": "-c quote_all_identifiers=on"}):
                as_bob = {"role": "bob", "env": env}
                listed = run("job", "list", "--owner", spelt, "--json", **as_bob)
                told = json.loads(listed.stdout)
                assert len(told) == 1
                job = f"{spelt}.the job"
                shown = json.loads(run("job", "show", job, "--json", **as_bob).stdout)
                assert shown["id"] == told[0]["id"]
                assert run("why", job, role="bob").stdout
                ended = json.loads(run("history", "--job", job, "--json", **as_bob).stdout)
                assert [entry["run_id"] for entry in ended] == [shown["id"]]
    assert """'"Odd Role".the job'""" in several


def test_the_next_runs_of_a_job_are_those_that_will_be(run: Run, db: psycopg.Connection) -> None:
    run("job", "add", "twice", "@hourly", "select 1", "--max-runs", "2")
    run("job", "add", "after", "@after 1 hour", "select 1")
    run("job", "add", "often", "* * * * *", "select 1")
    run("job", "add", "rarely", "0 0 29 2 *", "select 1")

    def following(name: str) -> list[str]:
        return list(json.loads(run("job", "show", name, "--json").stdout)["next_runs"])

    assert [len(following(name)) for name in ("twice", "after", "often", "rarely")] == [2, 1, 5, 5]
    assert following("after") == following("after")
    db.execute(
        "update rowcron.agenda as a set next_run_at = date_trunc('minute', now()), high_water ="
        " date_trunc('minute', now()) - interval '1 s' from rowcron.job as j"
        " where j.id = a.job_id and j.name = 'often'"
    )
    due = db.execute("select date_trunc('minute', now()) at time zone 'UTC'").fetchone()
    assert due is not None
    assert datetime.fromisoformat(following("often")[0]).replace(tzinfo=None) == due[0]


@pytest.mark.once
def test_whoever_has_no_output_or_a_narrow_one_is_served(database: Database, run: Run) -> None:
    run("job", "add", "ünï", "@daily", "select 1")
    env = environment(ROWCRON_DATABASE_URL=database.url("alice"), PYTHONIOENCODING="latin-1")
    command = f"{sys.executable} -m rowcron"
    closed = subprocess.run(
        f"{command} job list >&-", shell=True, env=env, capture_output=True, check=False
    )
    assert (closed.returncode, closed.stderr) == (0, b"")
    told = subprocess.run(
        [sys.executable, "-m", "rowcron", "why", "ünï"], env=env, capture_output=True, check=False
    )
    assert told.returncode == 0
    assert b"\n- due  " in told.stdout
    far = rowcron("next", "0 3 * * *", "--after", "19999-01-01", env=dict(env))
    assert (far.returncode, far.stderr) == (0, "")
    assert far.stdout.startswith("19999-01-01 03:00:00")


@pytest.mark.once
def test_each_login_is_told_what_it_lacks(database: Database) -> None:
    workers = rowcron("job", "list", "--database-url", database.url(WORKER))
    assert workers.returncode == 1
    assert "this is a worker's login" in workers.stderr
    owners = rowcron("worker", "--database-url", database.url("alice"))
    assert owners.returncode == 1
    assert "as an administrator: grant rowcron_worker to alice;" in owners.stderr


def test_a_viewer_is_told_which_role_takes_what(
    run: Run, server: TestServer, database: Database
) -> None:
    run("job", "add", "j1", "@daily", "select 1")
    with psycopg.connect(server.admin_url, autocommit=True) as admin:
        admin.execute("create role looks login; grant rowcron_viewer to looks")
        try:
            for command in (("hold", "x"), ("job", "pause", "alice.j1")):
                told = run(*command, role="looks", code=1).stderr
                assert "grant rowcron_operator to looks; for hold, release and others' jobs" in told
                assert "grant rowcron_user to looks; for jobs of its own" in told
            # whoever has jobs may ask for it
            admin.execute("grant rowcron_user to looks")
            for command in (("hold", "x"), ("job", "pause", "alice.j1")):
                told = run(*command, role="looks", code=1).stderr
                assert "as an administrator: grant rowcron_operator to looks;" in told.lower()
            admin.execute("grant rowcron_operator to looks")
            run("job", "pause", "alice.j1", role="looks")
        finally:
            admin.execute("drop role looks")


def test_what_is_held_is_told_beside_what_would_run(run: Run, db: psycopg.Connection) -> None:
    run("job", "add", "waits", "@daily", "select 1")
    db.execute("select rowcron.hold('moving')")
    for command in (("upcoming",), ("job", "list"), ("runs", "list")):
        assert "everything is held by postgres: moving" in run(*command).stderr
    db.execute("select rowcron.release()")
    assert run("upcoming").stderr == ""
    assert "no such jobs" in run("job", "list", "--queue", "nope").stdout


@pytest.mark.once
def test_the_line_of_an_exception_is_the_exception() -> None:
    try:
        try:
            raise KeyError("first")
        except KeyError as cause:
            raise ValueError("duplicate key\nDETAIL:  Key (id)=(1)\n  CONTEXT: x") from cause
    except ValueError as error:
        told = describe(error)
    assert exception_line(told) == "ValueError: duplicate key"
    try:
        raise ExceptionGroup("two of\nthem", [ValueError("one"), KeyError("other")])
    except ExceptionGroup as error:
        told = describe(error)
        try:
            raise BaseExceptionGroup("around", [error, error]) from error
        except BaseExceptionGroup as outer:
            around = describe(outer)
    assert exception_line(told) == "ExceptionGroup: two of"
    assert exception_line(around) == "ExceptionGroup: around (2 sub-exceptions)"
    assert exception_line("plain\nwords") == "plain"
    assert exception_line("") == ""


@pytest.mark.once
def test_the_command_is_named_as_it_can_be_typed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / ".venv" / "bin" / "rowcron"
    program.parent.mkdir(parents=True)
    program.touch()
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(program), "up"])
    assert typed() == ".venv/bin/rowcron"
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert typed() == str(program)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    assert typed() == "rowcron"


@pytest.mark.once
def test_numbers_of_any_length_are_shown(database: Database, run: Run) -> None:
    run("job", "add", "long", "@daily", "select 1", "--args", '{"n": 1e6000}')
    run("job", "run", "long", "--args", '{"n": 1e6000}')
    for command in (("job", "show", "long"), ("runs", "list"), ("upcoming",)):
        shown = rowcron(*command, "--json", "--database-url", database.url("alice"))
        assert shown.returncode == 0, shown.stderr
        assert shown.stdout.startswith(("[", "{"))
