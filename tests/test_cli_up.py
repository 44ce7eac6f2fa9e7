"""`rowcron up` as a stranger meets it: insert a row with psql, see it run, stop, start again."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import Database, fast_place, wait_until
from test_cli import environment, rowcron

pytestmark = pytest.mark.once


class Up:
    """A `rowcron up` in a process of its own, and what it has printed."""

    def __init__(self, *arguments: str) -> None:
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rowcron", "up", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment(),
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout:
            for line in self.process.stdout:
                self.lines.append(line.rstrip("\n"))

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def line(self, pattern: str, limit: float = 60.0) -> str:
        """Wait for a line that the pattern matches."""

        def found() -> str | None:
            assert self.process.poll() is None, self.text
            return next((line for line in self.lines if re.search(pattern, line)), None)

        return wait_until(found, limit, f"{pattern!r} in:\n{self.text}") or ""

    def psql(self, statement: str) -> str:
        """Paste the printed line, with a statement after it."""
        connect = self.line(r"^Connect:  ").removeprefix("Connect:  ")
        command = [*shlex.split(connect), "-XqAt", "-v", "ON_ERROR_STOP=1", "-c", statement]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def stop(self, number: int = signal.SIGINT) -> int:
        """Send a signal and wait for the end."""
        self.process.send_signal(number)
        code = self.process.wait(60)
        self._reader.join(10)
        return code

    def end(self) -> None:
        """Leave nothing behind, however the test went."""
        self.process.kill()
        self.process.wait()
        self._reader.join(10)


Start = Callable[..., Up]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts `rowcron up`."""
    started: list[Up] = []

    def up(*arguments: str) -> Up:
        started.append(Up(*arguments))
        return started[-1]

    yield up
    for each in started:
        each.end()


@pytest.fixture
def data() -> Iterator[Path]:
    """A new directory that PostgreSQL's own user can pass to."""
    base = Path(tempfile.mkdtemp(prefix="rowcron-up-", dir=fast_place()))
    base.chmod(0o755)
    yield base / "data"
    for path in base.rglob("postmaster.pid"):
        os.kill(int(path.read_text("utf-8").splitlines()[0]), signal.SIGKILL)
    shutil.rmtree(base)


def test_a_stranger_inserts_a_row_and_sees_it_run(start: Start, data: Path) -> None:
    up = start("--data", str(data))
    up.line(r"^Making a database in ")
    up.psql(
        "insert into rowcron.job (name, schedule, command)"
        " values ('hello', '* * * * * *', 'select 42 as answer')"
    )
    assert "succeeded" in up.line(r"\bhello run \d")
    wait_until(
        lambda: up.psql("select count(*) from rowcron.history where job = 'hello'") != "0", 20
    )
    asked = "select outcome, result -> 'first' from rowcron.history where job = 'hello' limit 1"
    assert up.psql(asked) == 'succeeded|{"answer": 42}'

    # Another terminal finds the server that runs.
    listed = rowcron("job", "list", "--json", "--data", str(data))
    names = {job["name"] for job in json.loads(listed.stdout)}
    assert names == {"hello", "sample-reading", "sample-rollup", "sample-cleanup"}
    done = rowcron("psql", "--data", str(data), "--", "-XAtc", "select current_user")
    assert done.stdout.strip() == up.psql("select current_user")

    # Ctrl-C lets a run end, and stops the server.
    slow = "select pg_sleep(1.5)"
    up.psql(
        f"select rowcron.schedule('slow', command => $${slow}$$); select rowcron.run_now('slow')"
    )
    running = "select count(*) from rowcron.active where job = 'slow' and state = 'running'"
    wait_until(lambda: up.psql(running) == "1")
    rowcron("job", "remove", "sample-cleanup", "--data", str(data))
    assert up.stop() == 0
    assert not (data / "pgdata" / "postmaster.pid").exists()
    assert rowcron("job", "list", "--data", str(data)).returncode == 1

    # The data stay, and what was removed stays removed.
    again = start("--data", str(data))
    assert again.psql("select outcome from rowcron.history where job = 'slow'") == "succeeded"
    assert again.psql("select string_agg(name, ' ' order by name) from rowcron.job") == (
        "hello sample-reading sample-rollup slow"
    )
    assert "Making a database" not in again.text
    assert again.stop(signal.SIGTERM) == 0


def test_a_second_signal_stops_at_once(start: Start, data: Path) -> None:
    up = start("--data", str(data), "--no-samples")
    up.psql(
        "select rowcron.schedule('endless', command => 'select pg_sleep(600)');"
        "select rowcron.run_now('endless')"
    )
    assert up.psql("select count(*) from rowcron.job") == "1"
    running = "select count(*) from rowcron.active where state = 'running'"
    wait_until(lambda: up.psql(running) == "1")
    before = len(up.lines)
    up.process.send_signal(signal.SIGINT)
    wait_until(lambda: len(up.lines) > before, 10, "a word that it is stopping")
    started = time.monotonic()
    up.stop()
    assert time.monotonic() - started < 15
    assert not (data / "pgdata" / "postmaster.pid").exists()
    assert "Traceback" not in up.text


def test_a_killed_server_is_started_again(start: Start, data: Path) -> None:
    up = start("--data", str(data), "--no-samples")
    schedule = "select rowcron.schedule('tick', '* * * * * *', 'select 1')"
    up.psql(schedule)
    up.line(r"tick run \d+ succeeded")
    pid = int((data / "pgdata" / "postmaster.pid").read_text("utf-8").splitlines()[0])
    os.kill(pid, signal.SIGKILL)
    up.line(r"^PostgreSQL had been stopped; it runs again$")
    before = len(up.lines)
    wait_until(lambda: any("succeeded" in line for line in up.lines[before:]), 60, up.text)
    assert up.stop() == 0
    assert not (data / "pgdata" / "postmaster.pid").exists()


def test_a_signal_while_it_starts_leaves_no_server(start: Start, data: Path) -> None:
    up = start("--data", str(data))
    wait_until((data / "pgdata" / "postmaster.pid").exists, 60)
    assert up.stop(signal.SIGTERM) != 0
    assert not (data / "pgdata" / "postmaster.pid").exists()
    assert "Traceback" not in up.text


def test_up_on_a_named_database_installs_and_works_there(
    start: Start, empty_database: Database
) -> None:
    url = empty_database.url("postgres")
    up = start("--database-url", url)
    up.line(r"^Connect:  rowcron psql --database-url ")
    assert rowcron("job", "list", "--json", "--database-url", url).stdout == "[\n]\n"
    done = rowcron("version", "--json", "--database-url", url)
    assert json.loads(done.stdout)["schema"]
    assert up.stop() == 0


def test_http_jobs_reach_this_machine_and_nothing_else_that_is_near(
    start: Start, data: Path
) -> None:
    up = start("--data", str(data), "--no-samples")
    for name, address in (("here", "127.0.0.1:9"), ("metadata", "169.254.169.254")):
        up.psql(
            "insert into rowcron.job (name, kind, command, schedule)"
            f" values ('{name}', 'http', 'http://{address}/', '* * * * * *')"
        )
    assert "ConnectError" in up.line(r"\bhere run \d")
    assert "--http-allow" in up.line(r"\bmetadata run \d")
    assert up.stop() == 0
