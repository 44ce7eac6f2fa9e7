"""The tools that are compared: how each is installed, filled, started and checked."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from bench import envs
from bench.server import Server

HERE = Path(__file__).resolve().parent


@dataclass
class Load:
    """What is asked of a worker."""

    count: int
    mode: str = "async"  # or plain
    body: int = 0  # ms that a handler waits
    concurrency: int = 100
    processes: int = 1
    starts: bool = False
    latency: bool = False  # settings for latency where a tool documents other ones
    gap: float = 0.1  # s between pings
    cron: str = "* * * * *"  # when a peer's jobs are due
    options: tuple[str, ...] = ()  # more for rowcron's command line

    def environment(self) -> dict[str, str]:
        """As the peers' scripts read it."""
        env = {
            "BENCH_COUNT": str(self.count), "BENCH_MODE": self.mode, "BENCH_BODY": str(self.body),
            "BENCH_CONCURRENCY": str(self.concurrency), "BENCH_GAP": str(self.gap),
            "BENCH_CRON": self.cron,
        }  # fmt: skip
        if self.starts:
            env["BENCH_STARTS"] = "1"
        if self.processes > 1:
            env["BENCH_FLUSH"] = "1"
        if self.latency:
            env["BENCH_LATENCY"] = "1"
        return env


class Failure(RuntimeError):
    """A tool did not do what was asked of it."""


class Workers:
    """Worker processes of one tool, and the reports that their handlers write."""

    def __init__(self, tool: Tool, scratch: Path, processes: list[subprocess.Popen[bytes]]) -> None:
        self.tool = tool
        self.scratch = scratch
        self.processes = processes

    def reports(self) -> list[dict[str, Any]]:
        """What each process has reported."""
        paths = self.scratch.glob("report.*[0-9]")
        return [json.loads(path.read_text("utf-8")) for path in paths]

    def alive(self) -> None:
        """Fail if one has died."""
        for process in self.processes:
            if process.poll() is not None:
                said = (self.scratch / "worker.log").read_text("utf-8", "replace")[-2000:]
                raise Failure(f"{self.tool.name}: worker ended with {process.returncode}\n{said}")

    def stop(self) -> None:
        """Let them drain; then they have written their last report."""
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@dataclass(eq=False)
class Tool:
    """One tool. `left` and `done` are SQL: whether jobs are live; jobs recorded as succeeded."""

    name: str
    app: str
    left: str
    done: str | None
    language: str = "Python"
    batch: int = 1000  # concurrency for trifles, as its documentation has or advises it
    table: str = ""  # that jobs are enqueued into
    settings: dict[str, str] = field(default_factory=dict)
    cannot: dict[str, str] = field(default_factory=dict)

    def program(self) -> list[str]:
        """The interpreter and the script."""
        if self.language == "Node":
            return [str(envs.node_home()[0]), str(HERE / "peers" / self.app)]
        return [str(envs.python_home(self.name) / "bin" / "python"), str(HERE / "peers" / self.app)]

    def environment(self, url: str, load: Load, scratch: Path) -> dict[str, str]:
        """What its processes see."""
        env = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "ROWCRON_", "BENCH"))}
        env |= load.environment()
        env |= {
            "BENCH_URL": url,
            "BENCH_ANSWER": str(scratch / "answer"),
            "PYTHONPATH": str(HERE),
            "PYTHONWARNINGS": "ignore",
            "NODE_ENV": "production",
            "TZ": "UTC",
        }
        if self.language == "Node":
            env["BENCH_MODULES"] = str(envs.node_home()[1])
        return env

    def url(self, server: Server, database: str, part: str) -> str:
        """The peers own their databases."""
        return server.url("bench_user", database)

    def template(self, server: Server) -> str:
        """A database with the tool's schema."""
        if self.name not in server.templates:
            name = f"template_{self.name}"
            server.create(name, owner="bench_user")
            self.install(server, name)
            server.templates[self.name] = name
        return server.templates[self.name]

    def fresh(self, server: Server) -> str:
        """A database of its own, empty but for the schema."""
        return server.fresh(self.template(server))

    def install(self, server: Server, database: str) -> None:
        """Install the schema."""
        self.verb(server, database, "install", Load(0))

    def verb(self, server: Server, database: str, verb: str, load: Load) -> Any:
        """Run one of the script's verbs to its end; returns its answer if it gives one."""
        scratch = server.base / "scratch"
        scratch.mkdir(exist_ok=True)
        (scratch / "answer").unlink(missing_ok=True)
        env = self.environment(self.url(server, database, "client"), load, scratch)
        envs.run(*self.program(), verb, env=env)
        path = scratch / "answer"
        return json.loads(path.read_text("utf-8")) if path.exists() else None

    def fill(self, server: Server, database: str, load: Load) -> None:
        """Enqueue what is to be worked off."""
        self.verb(server, database, "fill", load)

    def command(self, server: Server, database: str, load: Load, verb: str) -> list[str]:
        """The worker's command line."""
        return [*self.program(), verb]

    @contextmanager
    def working(
        self, server: Server, database: str, load: Load, verb: str = "work"
    ) -> Iterator[Workers]:
        """Worker processes that run until the block ends."""
        scratch = server.base / f"worker-{time.monotonic_ns()}"
        scratch.mkdir()
        env = self.environment(self.url(server, database, "worker"), load, scratch)
        env["BENCH_REPORT"] = str(scratch / "report")
        processes = []
        for _ in range(self.starts_itself(load)):
            with (scratch / "worker.log").open("ab") as log:
                command = self.command(server, database, load, verb)
                processes.append(
                    subprocess.Popen(
                        command, stdout=log, stderr=log, env=env, cwd=HERE, start_new_session=True
                    )
                )
        workers = Workers(self, scratch, processes)
        try:
            yield workers
        finally:
            workers.stop()

    def starts_itself(self, load: Load) -> int:
        """How many processes the harness starts."""
        return load.processes

    def ask(self, conn: psycopg.Connection[Any], query: str) -> int:
        """A number from its tables."""
        row = conn.execute(query).fetchone()
        assert row is not None
        return int(row[0])


class Rowcron(Tool):
    """rowcron: installed by a role that is no superuser, worked by a login of rowcron_worker."""

    def program(self) -> list[str]:
        """Its command."""
        return [str(envs.rowcron_home() / "bin" / "rowcron")]

    def environment(self, url: str, load: Load, scratch: Path) -> dict[str, str]:
        """The handlers' module is imported as `rowcron_app`."""
        env = super().environment(url, load, scratch)
        return env | {"PYTHONPATH": os.pathsep.join([str(HERE), str(HERE / "peers")])}

    def url(self, server: Server, database: str, part: str) -> str:
        """A worker's login may do nothing but work."""
        return server.url("bench_worker" if part == "worker" else "bench_user", database)

    def template(self, server: Server) -> str:
        """As the peers', but the database belongs to the installer."""
        if self.name not in server.templates:
            name = f"template_{self.name}"
            server.create(name, owner="bench_installer")
            url = server.url("bench_installer", name)
            envs.run(*self.program(), "install", "--database-url", url)
            with server.admin(name) as conn:
                conn.execute("grant rowcron_user, rowcron_python to bench_user")
                conn.execute("grant rowcron_worker to bench_worker")
                conn.execute("grant create on schema public to bench_user")
            with psycopg.connect(server.url("bench_user", name), autocommit=True) as conn:
                conn.execute(
                    "insert into rowcron.job (name, kind, command) values"
                    " ('async', 'python', 'bench_async'), ('plain', 'python', 'bench_plain')"
                )
            server.templates[self.name] = name
        return server.templates[self.name]

    def fresh(self, server: Server) -> str:
        """A copy is held until it is bound."""
        database = super().fresh(server)
        with server.admin(database) as conn:
            conn.execute("select rowcron._bind()")
        return database

    def fill(self, server: Server, database: str, load: Load) -> None:
        """As an application would, a thousand at a time."""
        with psycopg.connect(server.url("bench_user", database), autocommit=True) as conn:
            for start in range(0, load.count, 1000):
                conn.execute(
                    "select count(*) from rowcron.enqueue_many(%s, array("
                    "select jsonb_build_object('i', i) from generate_series(%s::int, %s) as i))",
                    (load.mode, start, min(start + 1000, load.count) - 1),
                )

    def command(self, server: Server, database: str, load: Load, verb: str) -> list[str]:
        """`rowcron worker`."""
        return [
            *self.program(), "worker", "--database-url", self.url(server, database, "worker"),
            "--app", "rowcron_app", "--concurrency", str(load.concurrency),
            "--processes", str(load.processes), "--log-level", "warning", *load.options,
        ]  # fmt: skip

    def starts_itself(self, load: Load) -> int:
        """It starts its processes itself."""
        return 1


ROWCRON = Rowcron(
    "rowcron",
    "",
    left="select exists (select from rowcron.run)::int",
    done="select count(distinct run_id) from rowcron.ledger where final and outcome = 'succeeded'",
    batch=1000,
    table="rowcron.run",
    settings={"--concurrency": "1000 (trifles); 100 and 1000 (waiting bodies)"},
)
TOOLS = {
    tool.name: tool
    for tool in (
        ROWCRON,
        Tool(
            "pgqueuer",
            "pgqueuer_app.py",
            table="pgqueuer",
            left="select exists (select from pgqueuer)::int",
            done="select count(distinct job_id) from pgqueuer_log where status = 'successful'",
            settings={"driver": "asyncpg", "loop": "uvloop", "batch_size": "1000"},
        ),
        Tool(
            "procrastinate",
            "procrastinate_app.py",
            table="procrastinate_jobs",
            left="select exists (select from procrastinate_jobs where status in"
            " ('todo', 'doing'))::int",
            done="select count(*) from procrastinate_jobs where status = 'succeeded'",
            batch=100,
            settings={"concurrency": "100", "delete_jobs": "never", "pool": "50"},
        ),
        Tool(
            "oban",
            "oban_app.py",
            table="oban_jobs",
            left="select exists (select from oban_jobs where state in"
            " ('available', 'executing', 'scheduled', 'retryable'))::int",
            done="select count(*) from oban_jobs where state = 'completed'",
            batch=100,
            settings={"queue limit": "100", "loop": "uvloop", "pool": "20"},
            cannot={"plain": "handlers are async only"},
        ),
        Tool(
            "graphile",
            "graphile_app.mjs",
            table="graphile_worker._private_jobs",
            left="select exists (select from graphile_worker._private_jobs)::int",
            done=None,
            language="Node",
            batch=100,
            settings={
                "concurrentJobs": "100", "localQueue.size": "1000", "maxPoolSize": "25",
                "completeJobBatchDelay": "0", "failJobBatchDelay": "0",
            },
            cannot={"plain": "Node has no threads for handlers", "history": "deletes its jobs"},
        ),
        Tool(
            "pgboss",
            "pgboss_app.mjs",
            table="pgboss.job where name = 'bench'",
            left="select exists (select from pgboss.job where state in"
            " ('created', 'active', 'retry') and name = 'bench')::int",
            done="select count(*) from pgboss.job where state = 'completed' and name = 'bench'",
            language="Node",
            settings={
                "batchSize": "1000", "burstWhenBatchFull": "true", "notify": "true",
                "pollingIntervalSeconds": "0.5",
            },
            cannot={"plain": "Node has no threads for handlers"},
        ),
    )
}  # fmt: skip
# Not peers, and in no measure but those that name them.
OTHERS = {name: Tool(name, "", left="", done=None) for name in ("pgbench", "pg_cron")}
