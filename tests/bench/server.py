"""The benchmark's PostgreSQL: a server of its own with durable settings, a database a sample."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from harness import TestServer

DURABLE = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "wal_level": "replica",
    "shared_buffers": "1GB",
    "effective_cache_size": "4GB",
    "work_mem": "16MB",
    "maintenance_work_mem": "256MB",
    "min_wal_size": "2GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "30min",
    "max_connections": "1200",
    "autovacuum_naptime": "10s",
    "listen_addresses": "",
    "log_min_messages": "error",
    "timezone": "UTC",
}
CRON = {
    "cron.database_name": "bench_cron",
    "cron.use_background_workers": "on",
    "cron.max_running_jobs": "32",
    "max_worker_processes": "50",
}
_numbers = itertools.count(1)
_others: list[Server] = []


class Server(TestServer):
    """One server for the whole benchmark; databases are copied from a template a tool."""

    def __init__(self, bin: Path | None, **more: str) -> None:
        super().__init__(bin, DURABLE | more, "/tmp")  # on a disk: commits are durable
        self.given = (bin, more)
        self.templates: dict[str, str] = {}
        shared = Path("/usr/share/postgresql") / self.bin.parent.name / "extension"
        self.has_cron = bin is not None and (shared / "pg_cron.control").exists()
        libraries = ["pg_stat_statements"]
        if self.has_cron:
            libraries.append("pg_cron")
            self.settings = {**CRON, **self.settings}
        self.settings = {"shared_preload_libraries": ",".join(libraries), **self.settings}

    def answers(self) -> bool:
        """Whether it still takes connections."""
        try:
            with self.admin():
                return True
        except psycopg.Error:
            return False

    def again(self) -> Server:
        """Another one in its place."""
        self.stop()
        server = Server(self.given[0], **self.given[1])
        server.start()
        return server

    def start(self) -> None:
        """Start it, with what some measurements need, and note its version."""
        super().start()
        with self.admin() as conn:
            self.version = str(conn.execute("show server_version").fetchone()[0]).split()[0]
            # A server that has been up for a while writes over old WAL; making new files, a tenth
            # of some sample's time, belongs to its first minutes.
            conn.execute("create table wal as select i, i as j from generate_series(1, 20000000) i")
            conn.execute("drop table wal")
            conn.execute("checkpoint")
            conn.execute("create role bench_installer login createrole")
            conn.execute("create role bench_user login")
            conn.execute("create role bench_worker login")

    @contextmanager
    def admin(self, database: str = "postgres") -> Iterator[psycopg.Connection[Any]]:
        """A superuser's connection, autocommit."""
        with psycopg.connect(self.url("postgres", database), autocommit=True) as conn:
            yield conn

    @contextmanager
    def cron(self) -> Iterator[psycopg.Connection[Any]]:
        """A connection to the one database in which pg_cron works."""
        if "bench_cron" not in self.templates:
            self.templates["bench_cron"] = self.create("bench_cron")
            with self.admin("bench_cron") as conn:
                conn.execute("create extension pg_cron")
        with self.admin("bench_cron") as conn:
            yield conn

    def create(self, name: str, template: str = "template0", owner: str = "postgres") -> str:
        """Create a database."""
        statement = sql.SQL("create database {} template {} owner {} strategy file_copy")
        with self.admin() as conn:
            conn.execute(statement.format(*map(sql.Identifier, (name, template, owner))))
        return name

    def fresh(self, template: str) -> str:
        """A copy of a template under a name of its own."""
        return self.create(f"sample_{next(_numbers)}", template)

    def drop(self, name: str) -> None:
        """Drop a database, whoever is still connected."""
        with self.admin() as conn:
            conn.execute(
                sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name))
            )

    def settle(self, database: str) -> None:
        """Vacuum and checkpoint, so that a sample pays for its own work only."""
        with self.admin(database) as conn:
            conn.execute("vacuum (analyze)")
            conn.execute("checkpoint")

    def pgbench(
        self, database: str, script: str, role: str = "postgres", **options: Any
    ) -> tuple[float, int]:
        """Run a pgbench script; returns transactions a second and how many there were."""
        path = self.base / f"pgbench-{time.monotonic_ns()}.sql"
        path.write_text(script, "utf-8")
        command = [_pgbench(self.bin), "-n", "-M", "prepared", "-f", str(path)]
        for name, value in options.items():
            command += [f"-{name}", str(value)]
        done = subprocess.run(
            [*command, self.url(role, database)], capture_output=True, text=True, check=False
        )
        path.unlink()
        if done.returncode or "number of failed transactions: 0 " not in done.stdout:
            raise RuntimeError(f"pgbench: {done.stdout}{done.stderr}"[:2000])
        rate = count = 0.0
        for line in done.stdout.splitlines():
            if line.startswith("tps = "):
                rate = float(line.split()[2])
            if line.startswith("number of transactions actually processed"):
                count = int(line.split(":")[1].split("/")[0])
        return rate, int(count)


def with_cron(server: Server) -> Server | None:
    """A server that has pg_cron: this one, or another beside it; none where it is not installed."""
    if server.has_cron:
        return server
    if not _others:
        for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
            other = Server(path, **server.given[1])
            if other.has_cron:
                other.start()
                _others.append(other)
                break
            other.stop()
    return _others[0] if _others else None


def stop_others() -> None:
    """Stop what `with_cron` has started."""
    while _others:
        _others.pop().stop()


def _pgbench(bin: Path) -> str:
    if (bin / "pgbench").exists():
        return str(bin / "pgbench")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pgbench")) or [shutil.which("pgbench")]
    if found[-1] is None:
        raise RuntimeError("pgbench is missing; on Debian: apt-get install postgresql-contrib")
    return str(found[-1])
