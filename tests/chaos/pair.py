"""A primary and its synchronous standby; the primary is killed, the standby promoted."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

from harness import SETTINGS, TestServer, wait_until
from rowcron import embedded_os

# Processes are killed, not the machine: what was written need not be on the disk.
WAITING = {"synchronous_commit": "on", "hot_standby": "on"}


class Node(TestServer):
    """A server, begun anew or from another one."""

    @property
    def data(self) -> Path:
        """Its data directory."""
        return self.base / "data"

    @property
    def socket(self) -> Path:
        """The directory of its socket."""
        return self.base / "socket"

    def start(self, origin: TestServer | None = None) -> None:
        """initdb, or as a standby pg_basebackup; returns when it accepts connections."""
        shutil.rmtree(self.data, ignore_errors=True)
        for path in (self.data, self.socket):
            embedded_os.private_dir(path, self._user)
        if origin is None:
            command = ["initdb", "-D", str(self.data), "-U", "postgres", "-N", "--auth=trust"]
            command += ["--encoding=UTF8", "--locale=C.UTF-8"]
        else:
            command = ["pg_basebackup", "-D", str(self.data), "-R", "-c", "fast", "-N"]
            command += ["-d", origin.url("postgres", "postgres")]
        made = self._spawn(*command)
        assert made.wait(60) == 0, (self.base / "log").read_text("utf-8")
        settings = SETTINGS | WAITING | {"unix_socket_directories": str(self.socket)}
        self._set(**settings, synchronous_standby_names="")
        self._process = self._spawn("postgres", "-D", str(self.data))
        wait_until(self._ready, 60, what="the server")

    def require(self) -> None:
        """From now on commits wait for the standby; returns when it has caught up."""
        self._set(synchronous_standby_names="*")
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)
        with psycopg.connect(self.admin_url, autocommit=True) as conn:
            query = "select 1 from pg_stat_replication where sync_state = 'sync'"
            wait_until(lambda: conn.execute(query).fetchone(), 60, "the standby")

    def kill(self) -> None:
        """SIGKILL, all processes at once."""
        assert self._process is not None
        first = self._process.pid
        os.kill(first, signal.SIGSTOP)  # else it would end the others in its own way
        children = Path(f"/proc/{first}/task/{first}/children").read_text("ascii").split()
        for pid in (first, *map(int, children)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(30)

    def promote(self) -> None:
        """Make it the primary."""
        with psycopg.connect(self.admin_url, autocommit=True) as conn:
            conn.execute("select pg_promote(true, 60)")

    def _set(self, **settings: str) -> None:
        with (self.data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())


def address(nodes: tuple[Node, Node], role: str, database: str) -> str:
    """Both, of which only the one that takes writes will do."""
    return make_conninfo(
        host=",".join(str(node.socket) for node in nodes),
        user=role,
        dbname=database,
        target_session_attrs="read-write",
        connect_timeout="5",
    )
