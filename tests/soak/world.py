"""The surroundings of the soak: a server, pgbench's bank, an HTTP server, the wheel's workers."""

from __future__ import annotations

import csv
import http.server
import io
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness import INSTALLER, ROOT, WORKER, Database, TestServer, wait_until
from soak.jobs import Job
from wheel import clean_environment

# Everything here belongs to alice but the logins; xid tells which rows of history are new.
TABLES = """
alter table pgbench_history add column xid xid8 not null default pg_current_xact_id();
create index on pgbench_history (xid);
create table rollup_mark as select '0'::xid8 as upto;
create table summary (second timestamp primary key, rows bigint not null, delta bigint not null);
create table transfer (run_id bigint primary key, attempt integer not null, cents integer not null);
create table tally (run_id bigint primary key, scheduled_for timestamptz not null);
grant select on all tables in schema public to soak_app;
grant insert on tally to soak_app;
"""
LOGINS = """
create role soak_app login;
create role soak_backup login bypassrls in role pg_read_all_data;
grant rowcron_python to alice, soak_app;
grant rowcron_shell, rowcron_http to bob;
grant create on schema public to alice;
"""


def pgbench() -> str:
    """pgbench of whichever version is here; any of them loads any server."""
    paths = [str(path.parent) for path in Path("/usr/lib/postgresql").glob("*/bin/pgbench")]
    found = shutil.which("pgbench", path=os.pathsep.join([*sorted(paths), os.environ["PATH"]]))
    assert found, "pgbench is missing; on Debian: apt-get install postgresql"
    return found


def literal(value: Any) -> str:
    """An SQL literal."""
    return "null" if value is None else "'" + str(value).replace("'", "''") + "'"


class Hook(http.server.ThreadingHTTPServer):
    """Counts requests by their idempotency key; refuses every so many new keys once."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.keys: Counter[str] = Counter()
        self.unexpected: list[str] = []
        self.lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/hook"

    def judge(self, key: str, body: bytes, team: str | None) -> int:
        """Note a request; returns the status of the answer."""
        with self.lock:
            self.keys[key] += 1
            if json.loads(body) != {"from": "soak"} or team != "ops":
                self.unexpected.append(f"{key}: {team} {body!r}")
            return 503 if self.keys[key] == 1 and len(self.keys) % 4 == 0 else 204


class Request(http.server.BaseHTTPRequestHandler):
    """One request to the hook."""

    protocol_version = "HTTP/1.1"
    server: Hook

    def do_POST(self) -> None:
        """Read it, judge it, answer without a body."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        key = self.headers.get("Idempotency-Key", "")
        self.send_response(self.server.judge(key, body, self.headers.get("X-Team")))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class World:
    """Made by `open`, taken down by `close`; in between psql and the command line only."""

    def __init__(self, bin: Path | None, programs: Path) -> None:
        self.rowcron = str(programs / "rowcron")
        self.directory = Path(tempfile.mkdtemp(prefix="rowcron-soak-", dir="/tmp"))
        self.server = TestServer(bin)
        self.database: Database
        self.hook = Hook()
        self.workers: list[subprocess.Popen[bytes]] = []
        self.load: list[subprocess.Popen[bytes]] = []
        self._listening = threading.Thread(target=self.hook.serve_forever, args=(0.05,))
        self._numbers = itertools.count(1)

    def open(self) -> None:
        """Server, schema (installed with the command of the wheel), bank, logins, hook."""
        self.server.start()
        self.server.make_template()
        self.database = self.server.create_database(template="template0")
        self.cli(INSTALLER, "install")
        self.psql("postgres", LOGINS)
        self.run(pgbench(), "-i", "-q", "-s", "1", self.database.url("alice"))
        self.psql("alice", TABLES)
        self._listening.start()

    def close(self) -> None:
        """Take everything down, however the test went."""
        for process in [*self.workers, *self.load]:
            if process.poll() is None:
                process.kill()
                process.wait()
        if self._listening.is_alive():
            self.hook.shutdown()
            self._listening.join()
        self.hook.server_close()
        self.server.stop()
        shutil.rmtree(self.directory)

    def run(self, *command: str, code: int = 0, **environment: str) -> str:
        """Run a program that must exit with `code`; returns what it printed, errors included."""
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            env=clean_environment(**environment),
            cwd=self.directory,
        )
        assert done.returncode == code, f"{command[:4]}: {done.stdout}"
        return done.stdout

    def psql(self, role: str, statements: str, *options: str, code: int = 0) -> str:
        """Pipe statements into psql as `role`."""
        command = [str(self.server.bin / "psql"), "-Xq", "-v", "ON_ERROR_STOP=1", *options]
        done = subprocess.run(
            [*command, "-d", self.database.url(role)],
            input=statements,
            capture_output=True,
            text=True,
            check=False,
            env=clean_environment(PGOPTIONS="-c client_min_messages=error"),
        )
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stderr

    def rows(self, role: str, query: str) -> list[dict[str, str]]:
        """What psql prints for a query, as `role`."""
        return list(csv.DictReader(io.StringIO(self.psql(role, query, "--csv"))))

    def value(self, role: str, query: str) -> str:
        """The only value of a query's only row."""
        (row,) = self.rows(role, query)
        (value,) = row.values()
        return value

    def cli(self, role: str, *arguments: str, code: int = 0) -> str:
        """`rowcron` of the wheel as `role`."""
        url = self.database.url(role)
        return self.run(self.rowcron, *arguments, code=code, ROWCRON_DATABASE_URL=url)

    def insert(self, *jobs: Job, **more: Any) -> None:
        """An owner inserts rows with psql."""
        statements = []
        for job in jobs:
            about = {"name": job.name, "kind": job.kind, "schedule": job.schedule}
            columns = {**about, "command": job.command, **job.columns, **more}
            values = ", ".join(literal(value) for value in columns.values())
            statements.append(f"insert into rowcron.job ({', '.join(columns)}) values ({values});")
        self.psql(jobs[0].owner, "\n".join(statements))

    def add(self, job: Job, **more: Any) -> None:
        """An owner adds one with the command."""
        options = []
        for name, value in {"kind": job.kind, **job.columns, **more}.items():
            options += [f"--{name.replace('_', '-')}", str(value)]
        self.cli(job.owner, "job", "add", job.name, job.schedule, job.command, *options)

    def start_worker(self) -> subprocess.Popen[bytes]:
        """A worker whose login is only rowcron_worker, for every kind."""
        number = next(self._numbers)
        kinds = (f"--kind={kind}" for kind in ("sql", "shell", "http", "python"))
        command = [self.rowcron, "worker", *kinds, "--app", "soak.app", "--concurrency", "8"]
        command += ["--http-allow", "127.0.0.1"]
        log = self.directory / f"worker-{number}.jsonl"
        with (self.directory / f"worker-{number}.txt").open("wb") as console:
            worker = subprocess.Popen(
                [*command, "--log-file", str(log)],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                cwd=self.directory,
                start_new_session=True,
                env=clean_environment(
                    ROWCRON_DATABASE_URL=self.database.url(WORKER),
                    ROWCRON_HANDLER_DATABASE_URL=self.database.url("soak_app"),
                    PYTHONPATH=str(
                        ROOT / "tests"
                    ),  # for soak.app alone: the package is the wheel's
                ),
            )
        self.workers.append(worker)
        wait_until(lambda: self._tells(worker, log, "worker"), 30, f"worker {number}")
        return worker

    def _tells(self, worker: subprocess.Popen[bytes], log: Path, event: str) -> bool:
        assert worker.poll() is None, self.consoles()
        lines = log.read_text("utf-8").splitlines() if log.exists() else []
        return any(json.loads(line)["event"] == event for line in lines)

    def consoles(self) -> str:
        """What the workers have printed."""
        texts = (path.read_text("utf-8") for path in sorted(self.directory.glob("worker-*.txt")))
        return "\n".join(texts)

    def start_load(self, seconds: int, rate: int) -> None:
        """pgbench beside it all, as alice; it neither vacuums nor empties the history."""
        with (self.directory / "pgbench.txt").open("wb") as console:
            process = subprocess.Popen(
                [
                    pgbench(),
                    "-n",
                    "-c",
                    "2",
                    "-T",
                    str(seconds),
                    "-R",
                    str(rate),
                    self.database.url("alice"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env=clean_environment(),
            )
        self.load.append(process)

    def end_load(self) -> None:
        """Wait for pgbench, which must have ended well."""
        for process in self.load:
            assert process.wait(60) == 0, (self.directory / "pgbench.txt").read_text("utf-8")

    def live(self) -> list[str]:
        """What is still to happen, or going on."""
        query = "select job, state, due_at from rowcron.active"
        return [str(row) for role in ("alice", "bob") for row in self.rows(role, query)]

    def due(self) -> list[str]:
        """Jobs whose schedule is not over."""
        query = "select name, next_run_at from rowcron.jobs where next_run_at is not null"
        return [str(row) for role in ("alice", "bob") for row in self.rows(role, query)]

    def stop_workers(self) -> Iterable[int]:
        """Ask those that live to stop; returns their exit codes."""
        living = [worker for worker in self.workers if worker.poll() is None]
        for worker in living:
            worker.terminate()
        return [worker.wait(40) for worker in living]

    def kill_in_turn(self, until: float, pause: float) -> int:
        """Until then kill -9 the oldest worker after each pause, start another; how many."""
        killed = 0
        while time.monotonic() + pause < until:
            time.sleep(pause)
            oldest = next(worker for worker in self.workers if worker.poll() is None)
            oldest.kill()
            oldest.wait()
            self.start_worker()
            killed += 1
        return killed
