"""Real worker processes for the tests, and the jobs that they are given."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from forks import Fork
from harness import ROOT, Database, wait_until

Row = dict[str, Any]
_numbers = itertools.count(1)


class WorkerProcess:
    """`rowcron worker` in a process of its own; what it says is read from its log file.

    `quiet`: it has none, so that writing it costs nothing. `prefix`: a command that starts it.
    `forked`: see forks.py; not what is started by a command, or by a Python that is told more.
    """

    def __init__(
        self,
        url: str,
        directory: Path,
        *options: str,
        quiet: bool = False,
        prefix: Sequence[str] = (),
        forked: bool = False,
        **environment: str,
    ) -> None:
        self.log = directory / f"worker-{next(_numbers)}.jsonl"  # started by threads at once, too
        self.console = self.log.with_suffix(".txt")
        path = os.pathsep.join([str(ROOT / "worker"), str(ROOT / "tests")])
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("ROWCRON_", "PG"))}
        arguments = [
            *("worker", "--database-url", url),
            *(() if quiet else ("--log-file", str(self.log))),
            *("--event-loop", os.environ.get("ROWCRON_TEST_LOOP", "auto")),
            *("--kill-grace", "1", *options),
        ]
        clean |= {"PYTHONPATH": path, **environment}
        self.process: subprocess.Popen[bytes] | Fork
        if forked and not prefix and not any(name.startswith("PYTHON") for name in environment):
            self.process = Fork(arguments, clean, self.console)
            return
        with self.console.open("wb") as console:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "rowcron", *arguments],
                stdout=console,
                stderr=console,
                env=clean,
                start_new_session=True,
            )

    def events(self, name: str) -> list[Row]:
        """What it has logged under that name."""
        if not self.log.exists():
            return []
        written, _, _ = self.log.read_text("utf-8").rpartition("\n")  # a line may be half there
        records = [json.loads(line) for line in written.splitlines()]
        return [record for record in records if record["event"] == name]

    def wait_for(self, name: str, limit: float = 20.0, **fields: Any) -> Row:
        """The first event of that name and with those fields."""

        def found() -> Row | None:
            assert self.process.poll() is None or self.log.exists(), self.console.read_text("utf-8")
            events = self.events(name)
            return next((e for e in events if fields.items() <= e.items()), None)

        return wait_until(found, limit, f"event {name} {fields}")

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGTERM, limit: float = 20.0) -> int:
        """Send a signal and return the exit code."""
        self.send(number)
        return self.process.wait(limit)

    def kill(self) -> None:
        """End it and what it has left behind."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


Start = Callable[..., WorkerProcess]


@pytest.fixture
def start(
    worker_url: str, database: Database, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Start]:
    """Starts workers that know the handlers of worker_app; returns when they are registered."""
    started: list[WorkerProcess] = []
    forked = "executed" not in request.keywords

    def start_one(
        *options: str, wait: bool = True, url: str = "", prefix: Sequence[str] = (), **env: str
    ) -> WorkerProcess:
        if "--http-allow" not in options:  # the tests' web servers listen on loopback
            options = ("--http-allow", "127.0.0.1", *options)
        options = ("--app", "worker_app", "--handler-database-url", database.url("alice"), *options)
        worker = WorkerProcess(
            url or worker_url, tmp_path, *options, prefix=prefix, forked=forked, **env
        )
        started.append(worker)
        if wait:
            worker.wait_for("worker")
        return worker

    yield start_one
    for worker in started:
        worker.kill()


class Jobs:
    """Jobs of alice, and what became of their runs."""

    def __init__(self, owner: psycopg.Connection, db: psycopg.Connection) -> None:
        self.owner = owner
        self.db = db

    def add(self, kind: str, command: str, **columns: Any) -> str:
        """Store a job without a schedule, unless one is given; return its name."""
        name = f"job-{self.db.execute('select count(*) from rowcron.job').fetchone()[0]}"
        columns = {"name": name, "kind": kind, "command": command, **columns}
        values = [Jsonb(v) if isinstance(v, dict | list) else v for v in columns.values()]
        marks = ", ".join("%s" for _ in columns)
        with self.owner.transaction():
            self.owner.execute("set local client_min_messages = error")
            statement = f"insert into rowcron.job ({', '.join(columns)}) values ({marks})"
            self.owner.execute(statement.encode(), values)
        return str(columns["name"])

    def run(self, kind: str, command: str, args: Any = None, **columns: Any) -> int:
        """Store a job and start it; return the run's number."""
        return self.start(self.add(kind, command, **columns), args)

    def start(self, name: str, args: Any = None) -> int:
        """Start a job on demand."""
        values = (name, None if args is None else Jsonb(args))
        return int(self.owner.execute("select rowcron.run_now(%s, %s)", values).fetchone()[0])

    def entries(self, run_id: int) -> list[Row]:
        """What the ledger says about the attempts at a run."""
        with self.db.cursor(row_factory=dict_row) as cursor:
            query = "select * from rowcron.ledger where run_id = %s order by attempt, finished_at"
            return cursor.execute(query, (run_id,)).fetchall()

    def end(self, run_id: int, limit: float = 20.0) -> Row:
        """The final entry of a run."""

        def final() -> Row | None:
            return next((entry for entry in self.entries(run_id) if entry["final"]), None)

        return wait_until(final, limit, f"the end of run {run_id}")

    def running(self, run_id: int) -> bool:
        """Whether a worker holds it."""
        query = "select from rowcron.run where id = %s and state = 'running'"
        return self.db.execute(query, (run_id,)).fetchone() is not None

    def wait_running(self, run_id: int) -> None:
        """Wait until a worker holds it."""
        wait_until(lambda: self.running(run_id), what=f"run {run_id} running")


@pytest.fixture
def jobs(alice: psycopg.Connection, db: psycopg.Connection) -> Jobs:
    """Jobs of alice, who may own jobs of every kind."""
    db.execute("set client_min_messages = warning")
    db.execute("grant rowcron_shell, rowcron_http, rowcron_python to alice")
    db.execute("create table public.effect (n integer, run_id bigint)")
    db.execute("grant all on public.effect to alice")
    return Jobs(alice, db)
