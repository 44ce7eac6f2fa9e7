"""What a storm falls upon: a durable server, workers each with its own login, an HTTP server.

A worker may be killed, frozen past its lease and thawed; sessions may be terminated; the server may
be crashed. Every effect is kept with the run and the attempt that it belongs to.
"""

from __future__ import annotations

import http.server
import itertools
import json
import random
import shutil
import signal
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from chaos.cluster import Cluster
from harness import TEMPLATE, Database, wait_until
from workers import WorkerProcess

SETUP = """
create role storm_app login;
grant rowcron_shell, rowcron_http, rowcron_python to alice;
grant rowcron_python to storm_app;
create table public.effect (kind text not null, run_id bigint not null, attempt integer not null);
create table public.asked (run_id bigint not null, kind text not null);
grant insert on public.effect to alice, storm_app;
grant insert, select on public.asked to alice;
"""
CUT = """
select count(pg_terminate_backend(a.pid)) from (
  select a.pid from pg_stat_activity as a
  where a.datname = current_database() and a.backend_type = 'client backend'
    and (a.usename like 'storm%%' or a.usename = 'alice')
  order by random() limit %s
) as a
"""


class Hook(http.server.ThreadingHTTPServer):
    """Notes each request: its path, its idempotency key and its body."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.requests: list[tuple[str, str, bytes]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that were killed."""


class Request(http.server.BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server: Hook

    def do_POST(self) -> None:
        """Note it, then take a moment to answer."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.requests.append((self.path, self.headers["Idempotency-Key"], body))
        time.sleep(0.05)
        self.send_response(204)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@dataclass
class Slot:
    """One worker's place: its login, the process that has it now, and its earlier ones."""

    login: str
    worker: WorkerProcess
    thaw_at: float = 0.0  # when it is frozen


@dataclass
class Deeds:
    """What was done to the world."""

    kills: list[tuple[datetime, set[str]]] = field(default_factory=list)  # when, whose ids
    freezes: int = 0
    cut: int = 0
    crashes: list[tuple[datetime, datetime]] = field(default_factory=list)  # down, up


class World:
    """Made by `open`, taken down by `close`."""

    def __init__(self, bin: Path | None, seed: int, *options: str) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="rowcron-chaos-", dir="/tmp"))
        self.cluster = Cluster(bin)
        self.database: Database
        self.hook = Hook()
        self.file = self.directory / "effects"
        self.options = options
        self.random = random.Random(seed)
        self.slots: list[Slot] = []
        self.deeds = Deeds()
        self._listening = threading.Thread(target=self.hook.serve_forever, args=(0.05,))

    def open(self, workers: int) -> None:
        """Server, schema installed by an ordinary role, logins, hook, workers."""
        self.cluster.start()
        self.cluster.make_template()
        self.database = self.cluster.create_database()
        self.cluster.drop_database(Database(TEMPLATE, self.cluster))  # less to sync after a crash
        self.file.touch()
        self._listening.start()
        with self.connect("postgres") as db:
            db.execute(SETUP.encode())
            for number in range(1, workers + 1):
                db.execute(f"create role storm_{number} login in role rowcron_worker".encode())
        self.cluster.harden()
        for number in range(1, workers + 1):
            login = f"storm_{number}"
            self.slots.append(Slot(login, self._start(login)))
        for slot in self.slots:
            slot.worker.wait_for("worker", 60)

    def close(self) -> None:
        """Take everything down, however the test went."""
        for slot in self.slots:
            slot.worker.kill()
        if self._listening.is_alive():
            self.hook.shutdown()
            self._listening.join()
        self.hook.server_close()
        self.cluster.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def connect(self, role: str) -> psycopg.Connection[Any]:
        """Return a connection as that role, autocommit."""
        return psycopg.connect(self.database.url(role), autocommit=True)

    def rows(self, query: str, *values: Any) -> list[dict[str, Any]]:
        """Return what the superuser is answered; the server may be down for a moment."""
        for patience in itertools.count():
            try:
                with self.connect("postgres") as db, db.cursor(row_factory=dict_row) as cursor:
                    return cursor.execute(query.encode(), values).fetchall()
            except psycopg.OperationalError:
                if patience == 100:
                    raise
                time.sleep(0.1)
        raise AssertionError

    def value(self, query: str, *values: Any) -> Any:
        """Return the only value of the only row."""
        (row,) = self.rows(query, *values)
        return next(iter(row.values()))

    def _start(self, login: str) -> WorkerProcess:
        return WorkerProcess(
            self.database.url(login), self.directory,
            *("--kind", "sql,shell,http,python", "--app", "chaos.app", "--poll", "1"),
            *("--http-allow", "127.0.0.1"),
            *("--handler-database-url", self.database.url("storm_app"), *self.options),
            CHAOS_FILE=str(self.file),
        )  # fmt: skip

    # What is done to it.

    def kill(self) -> None:
        """SIGKILL a worker, if there is one that holds runs, and start another in its place."""
        awake = [slot for slot in self.slots if not slot.thaw_at]
        query = "select w.pid from rowcron.worker as w join rowcron.run as r on r.worker_id = w.id"
        pids = {row["pid"] for row in self.rows(query)}
        busy = [slot for slot in awake if slot.worker.process.pid in pids]
        slot = self.random.choice(busy or awake)
        at = datetime.now(UTC)
        slot.worker.kill()
        self.deeds.kills.append((at, registrations(slot.worker)))
        slot.worker = self._start(slot.login)

    def freeze(self, seconds: float) -> None:
        """SIGSTOP a worker; `thaw` lets it go on when that long has passed."""
        slot = self.random.choice([slot for slot in self.slots if not slot.thaw_at])
        slot.worker.send(signal.SIGSTOP)
        slot.thaw_at = time.monotonic() + seconds
        self.deeds.freezes += 1

    def thaw(self, *, all: bool = False) -> None:
        """SIGCONT the workers that have been frozen for long enough."""
        for slot in self.slots:
            if slot.thaw_at and (all or slot.thaw_at < time.monotonic()):
                slot.worker.send(signal.SIGCONT)
                slot.thaw_at = 0.0

    def cut(self) -> None:
        """Terminate a few sessions of workers, handlers and authors."""
        self.deeds.cut += self.value(CUT, self.random.randint(1, 8))

    def crash(self) -> None:
        """Restart the server as a power cut would."""
        down = datetime.now(UTC)
        self.cluster.restart("immediate")
        self.deeds.crashes.append((down, datetime.now(UTC)))

    # What came of it.

    def lines(self) -> Counter[tuple[int, int]]:
        """Return how often each (run, attempt) has left a line in the file."""
        found = (line.split() for line in self.file.read_text("ascii").splitlines())
        return Counter((int(run), int(attempt)) for run, attempt in found)

    def wait_until_quiet(self, limit: float) -> None:
        """Wait until no run is left and no job is due any more."""
        query = (
            "select (select count(*) from rowcron.run)"
            " + (select count(*) from rowcron.agenda where next_run_at is not null) as left"
        )
        wait_until(lambda: self.value(query) == 0, limit, "nothing to be left")


def registrations(worker: WorkerProcess) -> set[str]:
    """Return the ids under which a process was known; the last line of its log may be torn."""
    ids = set()
    for line in worker.log.read_text("utf-8").splitlines() if worker.log.exists() else []:
        if '"registered"' in line:
            try:
                ids.add(json.loads(line)["worker"])
            except ValueError:
                continue
    return ids
