"""What a crash point is played in: a database, a worker behind a proxy, and who comes after it."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from chaos.proxy import Proxy
from harness import WORKER, Database, TestServer, wait_until
from workers import Jobs, WorkerProcess

OPTIONS = ("--app", "chaos.app_points", "--kind", "sql,shell,http,python", "--poll", "1")
# Who held which attempt, and whether anybody ever took a run that somebody held.
AUDIT = """
create table public.effect (kind text, run_id bigint, attempt integer);
grant all on public.effect to alice;
create table public.held (run_id bigint, attempt integer, worker_id uuid, at timestamptz);
create function public.note_claim() returns trigger language plpgsql security definer as $$
begin
  if old.state = 'running' then
    raise exception 'run % has two holders', new.id;
  end if;
  insert into public.held values (new.id, new.attempt, new.worker_id, clock_timestamp());
  return new;
end
$$;
create trigger z90_note_claim before update on rowcron.run for each row
when (new.state = 'running' and new.seal is distinct from old.seal)
execute function public.note_claim();
"""
SQL_JOB = (
    "insert into public.effect select 'sql', current_setting('rowcron.run_id')::bigint,"
    " current_setting('rowcron.attempt')::integer"
)
SHELL_JOB = 'echo "shell $ROWCRON_RUN_ID $ROWCRON_ATTEMPT" >> {file}'


class Scene:
    """One database with jobs of alice, and workers that come and go."""

    def __init__(self, server: TestServer) -> None:
        self.server = server
        self.directory = Path(tempfile.mkdtemp(prefix="rowcron-point-", dir="/tmp"))
        self.file = self.directory / "effects"
        self.logs = self.directory / "logs"
        self.logs.mkdir()
        self.workers: list[WorkerProcess] = []
        self.proxy = Proxy(self.directory / "proxy", server.base / "socket")

    def __enter__(self) -> Scene:
        self.database: Database = self.server.create_database()
        self.db = psycopg.connect(self.database.url("postgres"), autocommit=True)
        self.alice = psycopg.connect(self.database.url("alice"), autocommit=True)
        self.db.execute("grant rowcron_shell, rowcron_http, rowcron_python to alice")
        self.db.execute(AUDIT.encode())
        self.jobs = Jobs(self.alice, self.db)
        self.proxy.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.kill()
        self.proxy.__exit__()
        self.alice.close()
        self.db.close()
        self.server.drop_database(self.database)
        shutil.rmtree(self.directory, ignore_errors=True)

    def work(
        self, *options: str, through: bool = False, lease: float = 1, wait: bool = True
    ) -> WorkerProcess:
        """Start a worker, `through` the proxy or not; return when it has registered."""
        url = self.proxy.url if through else self.server.url
        options = (
            *(*OPTIONS, "--lease", str(lease), "--handler-database-url"),
            *(url("alice", self.database.name), *options),
        )
        worker = WorkerProcess(
            url(WORKER, self.database.name),
            self.logs,
            *options,
            forked=True,
            CHAOS_EFFECTS=self.database.url("alice"),
        )
        self.workers.append(worker)
        if wait:
            worker.wait_for("worker")
        return worker

    def job(self, kind: str, **columns: Any) -> str:
        """Store a job of that kind, or of the ways `handed`, `handed_async`, `plain`."""
        columns = {"max_lost": 100, "name": kind, **columns}
        match kind:
            case "sql":
                return self.jobs.add("sql", SQL_JOB, **columns)
            case "shell":
                return self.jobs.add("shell", SHELL_JOB.format(file=self.file), **columns)
            case _:
                return self.jobs.add("python", kind, **columns)

    def live(self) -> int:
        """How many runs have not ended."""
        return int(self.only("select count(*) from rowcron.run"))

    def only(self, query: str, *values: Any) -> Any:
        """One value."""
        row = self.db.execute(query.encode(), values).fetchone()
        assert row is not None
        return row[0]

    def rows(self, query: str, *values: Any) -> list[dict[str, Any]]:
        """All rows."""
        with self.db.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(query.encode(), values).fetchall()

    def ended(self, limit: float = 30.0) -> None:
        """Wait until nothing is live."""

        def stuck() -> str:
            return str(self.rows("select * from rowcron.run limit 3"))

        try:
            wait_until(lambda: self.live() == 0, limit)
        except AssertionError as error:
            raise AssertionError(f"stuck: {stuck()}") from error

    def effects(self) -> Counter[int]:
        """How often each run has had its effect."""
        counted = Counter(int(row["run_id"]) for row in self.rows("select * from public.effect"))
        if self.file.exists():
            counted.update(
                int(line.split()[1]) for line in self.file.read_text("utf-8").split("\n")[:-1]
            )
        return counted

    def entries(self, run_id: int) -> list[dict[str, Any]]:
        """What the ledger has of a run."""
        return self.jobs.entries(run_id)

    def check(self) -> None:
        """Whatever happened: what must hold of every run that was ever live, now that none is."""
        entries = self.rows("select * from rowcron.ledger where run_id is not null")
        held = self.rows("select * from public.held order by at")
        effects = self.effects()
        runs: dict[int, list[dict[str, Any]]] = {}
        for entry in entries:
            runs.setdefault(entry["run_id"], []).append(entry)
        assert {row["run_id"] for row in held} <= runs.keys(), "a run was forgotten"
        for run, told in runs.items():
            told.sort(key=lambda entry: int(entry["attempt"]))
            attempts = [entry["attempt"] for entry in told]
            assert attempts == list(range(1, len(told) + 1)), (run, told)
            assert [entry["final"] for entry in told] == [False] * (len(told) - 1) + [True]
            assert told[-1]["outcome"] == "succeeded", told[-1]
            for entry in told:  # by whoever held it last, and by nobody else
                holders = [
                    h for h in held if (h["run_id"], h["attempt"]) == (run, entry["attempt"])
                ]
                assert holders, entry
                assert holders[-1]["worker_id"] == entry["worker_id"], (entry, holders)
            exactly = told[-1]["kind"] == "sql" or told[-1]["job"].startswith("handed")
            if exactly:
                assert effects[run] == 1, (run, effects[run], told)
            else:
                tries = [h for h in held if h["run_id"] == run]
                assert 1 <= effects[run] <= len(tries), (run, effects[run], told)
                given_back = len(tries) - len(told)
                assert effects[run] <= len(told) + given_back
