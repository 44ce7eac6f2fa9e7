"""Debian's PgBouncer, in transaction mode, in front of a server of the tests."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

from harness import TestServer, wait_until
from rowcron import embedded_os

PROGRAM = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
PORT = 6432  # of a socket in a private directory
ROLES = ("postgres", "alice", "bob", "w_worker", "t_installer")


class Pooler:
    """One process; `url` leads through it to the database of the same name."""

    def __init__(self, server: TestServer, directory: Path, pool: int, host: str = "") -> None:
        assert PROGRAM is not None
        self.server = server
        self.directory = directory
        self.log = directory / "log"
        (directory / "users").write_text("".join(f'"{role}" ""\n' for role in ROLES), "utf-8")
        settings = {
            "unix_socket_dir": directory,
            "listen_port": PORT,
            "auth_type": "trust",
            "auth_file": directory / "users",
            "admin_users": "postgres",
            "pool_mode": "transaction",
            "default_pool_size": pool,
            "server_login_retry": 1,
            "logfile": self.log,
        }
        lines = [f"{name} = {value}" for name, value in settings.items()]
        server_at = host or f"host={server.base / 'socket'}"
        text = "\n".join(["[databases]", f"* = {server_at}", "[pgbouncer]", *lines, ""])
        (directory / "ini").write_text(text, "utf-8")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start; returns when it answers."""
        command = [PROGRAM or "", "-q", str(self.directory / "ini")]
        options = self.server.as_server_user()
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=-1, **options)
        wait_until(self._ready, what="PgBouncer")

    def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End it."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.communicate(timeout=20)
            self.process = None

    def url(self, role: str, database: str) -> str:
        """The address of `database` as `role`, through the pooler."""
        host = quote(str(self.directory), safe="")
        return f"postgresql://{role}@/{database}?host={host}&port={PORT}"

    def _ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text("utf-8")
        try:
            psycopg.connect(self.url("postgres", "pgbouncer"), autocommit=True).close()
        except psycopg.OperationalError:
            return False
        return True


@contextmanager
def pooling(server: TestServer, pool: int = 8, host: str = "") -> Iterator[Pooler]:
    """A pooler that is running; fails where it could be installed and is not."""
    if PROGRAM is None:
        sentence = "PgBouncer is not installed; on Debian: apt-get install pgbouncer"
        if embedded_os.is_root() and shutil.which("apt-get"):
            pytest.fail(sentence)
        pytest.skip(sentence)
    directory = server.base / "pooler"
    directory.mkdir()
    for user in (server.as_server_user(),):
        if user:
            shutil.chown(directory, user["user"], user["group"])
    pooler = Pooler(server, directory, pool, host)
    try:
        pooler.start()
        yield pooler
    finally:
        pooler.end()
        shutil.rmtree(directory, ignore_errors=True)
