"""A server as in production: commits are durable, and it is ruled with pg_ctl."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import psycopg

from harness import SETTINGS, TestServer, wait_until
from rowcron import embedded_os

DURABLE = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}


class Cluster(TestServer):
    """Started by `start`, durable from `harden` on; `restart` may crash it first."""

    def start(self) -> None:
        """initdb and start; what is made first need not be durable."""
        data = self.base / "data"
        for path in (data, self.base / "socket"):
            embedded_os.private_dir(path, self._user)
        command = ["initdb", "-D", str(data), "-U", "postgres", "-N", "--auth=trust"]
        init = self._spawn(*command, "--encoding=UTF8", "--locale=C.UTF-8")
        assert init.wait() == 0, (self.base / "log").read_text("utf-8")
        settings = SETTINGS | {"unix_socket_directories": str(self.base / "socket")}
        lines = (f"{name} = '{value}'\n" for name, value in settings.items())
        with (data / "postgresql.conf").open("a") as file:
            file.writelines(lines)
        self.pg_ctl("start")

    def harden(self) -> None:
        """From now on what is committed is on the disk."""
        with psycopg.connect(self.admin_url, autocommit=True) as db:
            db.execute("checkpoint")
            for name, value in DURABLE.items():
                db.execute(f"alter system set {name} = {value}".encode())
            db.execute("select pg_reload_conf()")
        for name, value in DURABLE.items():
            wait_until(lambda name=name, value=value: self._shows(name) == value, what=name)

    def _shows(self, name: str) -> str:
        with psycopg.connect(self.admin_url) as db:
            return str(db.execute(f"show {name}".encode()).fetchone()[0])  # type: ignore[index]

    def pg_ctl(self, *arguments: str) -> None:
        """`pg_ctl -w`, as the user of the server; fails the test if it fails."""
        process = self._spawn("pg_ctl", "-w", "-D", str(self.base / "data"), *arguments)
        assert process.wait(90) == 0, (self.base / "log").read_text("utf-8")[-5000:]

    def restart(self, mode: str = "immediate") -> None:
        """`pg_ctl restart -m MODE`; returns when it takes connections again."""
        self.pg_ctl("restart", "-m", mode)
        wait_until(self._ready, 60, "the server")

    def stop(self) -> None:
        """Stop at once and remove everything."""
        if (self.base / "data" / "postmaster.pid").exists():
            process = self._spawn(
                "pg_ctl", "-D", str(self.base / "data"), "stop", "-m", "immediate"
            )
            process.wait(30)
        shutil.rmtree(self.base, ignore_errors=True)

    def _ready(self) -> bool:
        try:
            psycopg.connect(self.admin_url).close()
        except psycopg.OperationalError:
            return False
        return True


def resident(process: subprocess.Popen[bytes]) -> float:
    """Return how much of a process is in memory, in MiB."""
    status = Path(f"/proc/{process.pid}/status").read_text("ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024
