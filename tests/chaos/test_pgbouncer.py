"""Through a transaction pooler everything works, and a job starts within the poll interval."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack

import psycopg
import pytest

from chaos.pooler import Pooler, pooling
from chaos.size import percentiles, sized, table
from harness import WORKER, Database, TestServer, wait_until
from workers import Jobs, Start, WorkerProcess, jobs, start

__all__ = ["jobs", "start"]
POLL = 0.5
EFFECT = "insert into public.effect values (0, current_setting('rowcron.run_id')::bigint)"
# ends neither at a cancel nor at a timeout
DEAF = """
  do $$ begin
    for i in 1..100 loop
      begin perform pg_sleep(0.5); exception when query_canceled then null; end;
    end loop;
  end $$
"""


@pytest.fixture(scope="module")
def pooler(server: TestServer) -> Iterator[Pooler]:
    """A pooler in front of the test server."""
    with pooling(server) as pooler:
        yield pooler


@pytest.fixture
def begin(pooler: Pooler, database: Database, start: Start) -> Iterator[Start]:
    """Starts workers all of whose connections go through the pooler."""

    def begin_one(*options: str, **environment: str) -> WorkerProcess:
        handlers = ("--handler-database-url", pooler.url("alice", database.name))
        url = pooler.url(WORKER, database.name)
        return start("--poll", str(POLL), *handlers, *options, url=url, **environment)

    yield begin_one
    # a pool per database stays open, and with it the database
    with psycopg.connect(pooler.url("postgres", "pgbouncer"), autocommit=True) as console:
        console.execute(f"kill {database.name}".encode())
        console.execute(f"resume {database.name}".encode())


def test_every_kind_of_job_and_of_end(jobs: Jobs, begin: Start) -> None:
    worker = begin("--kind", "sql,shell,http,python")
    runs = {
        "sql": jobs.run("sql", EFFECT),
        "shell": jobs.run("shell", "echo here"),
        "python": jobs.run("python", "nothing"),
        "insert": jobs.run("python", "insert"),
        "insert_async": jobs.run("python", "insert_async"),
    }
    for name, run in runs.items():
        assert jobs.end(run)["outcome"] == "succeeded", name
    effects = jobs.db.execute("select run_id from public.effect order by 1").fetchall()
    assert effects == sorted([(runs["sql"],), (runs["insert"],), (runs["insert_async"],)])
    # failing undoes the effect, and is tried again
    failing = jobs.run("sql", f"{EFFECT}; select 1/0", max_attempts=3, retry_delay="0.1 s")
    raising = jobs.run("python", "insert", {"then": "raise"})
    assert jobs.end(failing)["outcome"] == "failed"
    assert jobs.end(raising)["outcome"] == "failed"
    assert len(jobs.entries(failing)) == 3
    assert jobs.db.execute("select count(*) from public.effect").fetchone() == (3,)
    # a schedule
    name = jobs.add("sql", "select 1", schedule="* * * * * *")
    query = "select count(*) from rowcron.ledger where job = %s and outcome = 'succeeded'"
    wait_until(lambda: jobs.db.execute(query, (name,)).fetchone()[0] >= 3, 15)
    jobs.owner.execute("select rowcron.pause(%s)", (name,))
    assert worker.events("lost") == worker.events("unavailable") == []
    assert worker.stop() == 0


@pytest.mark.parametrize("kind", ["sql", "sleep", "insert", "insert_async"])
def test_a_cancel_takes_hold(jobs: Jobs, begin: Start, kind: str) -> None:
    begin("--lease", "2")
    if kind == "sql":
        run = jobs.run("sql", f"{EFFECT}; select pg_sleep(30)")
    else:
        args = {"seconds": 30} if kind == "sleep" else {"then": "sleep"}
        run = jobs.run("python", kind, args)
    jobs.wait_running(run)
    jobs.owner.execute("select rowcron.cancel(%s)", (run,))
    begin_at = time.monotonic()
    assert jobs.end(run)["outcome"] == "cancelled"
    assert time.monotonic() - begin_at < 5
    assert jobs.db.execute("select count(*) from public.effect").fetchone() == (0,)


def test_what_does_not_listen_is_cut_and_nobody_else(jobs: Jobs, begin: Start) -> None:
    """The session that a lane had when it connected may execute somebody else's job now."""
    begin("--sql-connections", "4")
    short = jobs.add("sql", "select 1")
    query = "select count(*) from rowcron.enqueue_many(%s, array_fill('{}'::jsonb, array[100]))"
    jobs.owner.execute(query, (short,))  # so that lanes and sessions are well mixed
    left = "select count(*) from rowcron.run"
    wait_until(lambda: jobs.db.execute(left).fetchone() == (0,), 20)
    others = [jobs.run("sql", f"select pg_sleep(4); {EFFECT}") for _ in range(3)]
    for run in others:
        jobs.wait_running(run)
    deaf = jobs.run("sql", DEAF, timeout="0.5 s", max_lost=1)
    end = jobs.end(deaf, 30)
    assert (end["outcome"], end["final"]) == ("lost", True)
    assert "terminated" in end["error"]
    for run in others:
        assert [entry["outcome"] for entry in jobs.entries(run) or [jobs.end(run)]] == ["succeeded"]
    assert jobs.db.execute("select count(*) from public.effect").fetchone() == (3,)


def test_timeouts_bind_and_leave_nothing_in_the_sessions(
    jobs: Jobs, begin: Start, pooler: Pooler, database: Database
) -> None:
    begin()
    sleeping = jobs.run("sql", "select pg_sleep(30)", timeout="0.5 s")
    refused = jobs.run("sql", "select 1/0", timeout="7 s")
    changing = jobs.run(
        "sql",
        "set work_mem = '1MB'; set statement_timeout = '5 s'; prepare p as select 1; listen x;"
        " select pg_advisory_lock(1); create temporary table t (n integer)",
        timeout="8 s",
    )
    end = jobs.end(sleeping)
    assert (end["outcome"], end["reason"]) == ("failed", "timeout")
    assert jobs.end(refused)["outcome"] == "failed"
    assert jobs.end(changing)["outcome"] == "succeeded"
    state = """
      select pg_backend_pid(), current_setting('statement_timeout'), current_setting('work_mem'),
        current_setting('client_connection_check_interval'),
        current_setting('rowcron.run_id', true),
        (select count(*) from pg_prepared_statements),
        -- not what the proof of LISTEN may leave in a pooler's session: nobody notifies it again
        (select array_agg(c) from pg_listening_channels() as c
          where c !~ '^rowcron(_[0-9a-f]{32})?$'),
        (select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid())
    """
    with psycopg.connect(database.url(WORKER), autocommit=True) as direct:
        fresh = direct.execute(state).fetchone()[1:]
    seen = set()
    with ExitStack() as stack:
        for _ in range(4):  # as many sessions as are free, each held by a transaction
            url = pooler.url(WORKER, database.name)
            other = stack.enter_context(psycopg.connect(url, prepare_threshold=None))
            pid, *values = other.execute(state).fetchone()
            seen.add(pid)
            values[3] = values[3] or None  # a placeholder that was set once is empty, not null
            assert tuple(values) == fresh
    assert len(seen) == 4


def test_a_worker_that_hears_nothing_says_so_once_and_looks_every_poll(
    jobs: Jobs, begin: Start
) -> None:
    worker = begin()
    event = worker.wait_for("deaf")
    assert event["level"] == "warning"
    assert "every 0.5 s" in event["text"]
    assert "session of its own" in event["hint"]
    name = jobs.add("python", "nothing")
    late = []
    for _ in range(sized(6, 100)):
        end = jobs.end(jobs.start(name))
        late.append((end["started_at"] - end["due_at"]).total_seconds())
    print(table("PgBouncer", {"from due to start, poll 0.5 s": percentiles(late)}))
    assert max(late) < POLL + 0.5
    assert len(worker.events("deaf")) == 1
    assert worker.events("hearing") == []
    listening = "select count(*) from pg_stat_activity where query ilike 'listen%'"
    assert jobs.db.execute(listening).fetchone() == (0,)


def test_a_worker_with_a_session_of_its_own_hears_itself(jobs: Jobs, start: Start) -> None:
    worker = start("--poll", "30", "--lease", "120")
    proven = """
      select 1 from pg_stat_activity
      where datname = current_database() and query like 'unlisten rowcron\\_%'
    """
    wait_until(lambda: jobs.db.execute(proven).fetchone(), what="the end of the proof")
    assert worker.events("deaf") == []


def test_runs_of_a_killed_worker_are_rescued_and_of_a_drained_one_broken_off(
    jobs: Jobs, begin: Start
) -> None:
    first = begin("--lease", "1")
    sql = jobs.run("sql", f"{EFFECT}; select pg_sleep(2)")
    python = jobs.run("python", "sleep", {"seconds": 2})
    for run in (sql, python):
        jobs.wait_running(run)
    first.kill()
    second = begin("--lease", "1", "--grace", "0.1")
    for run in (sql, python):
        wait_until(lambda run=run: jobs.entries(run), 15, "the loss")
        jobs.wait_running(run)
    assert second.stop() == 0
    for run in (sql, python):
        wait_until(lambda run=run: not jobs.running(run), what="the giving back")
    begin("--lease", "1")
    for run in (sql, python):
        assert jobs.end(run)["outcome"] == "succeeded"
    # a SQL job is rolled back, and its attempt is not counted
    outcomes = [[entry["outcome"] for entry in jobs.entries(run)] for run in (sql, python)]
    assert outcomes == [["lost", "succeeded"], ["lost", "lost", "succeeded"]]
    assert jobs.db.execute("select count(*) from public.effect").fetchone() == (1,)


def test_a_pooler_that_is_killed_costs_no_run_and_doubles_none(
    jobs: Jobs, begin: Start, pooler: Pooler
) -> None:
    worker = begin("--lease", "30")
    count = sized(40, 1000)
    names = [
        jobs.add("sql", f"{EFFECT}; select pg_sleep(0.05)", max_lost=1000),
        jobs.add("python", "insert", max_lost=1000),
    ]
    many = "select count(*) from rowcron.enqueue_many(%s, array_fill('{}'::jsonb, array[%s]))"
    for name in names:
        jobs.owner.execute(many, (name, count))
    left = "select count(*) from rowcron.run"
    kills = sized(3, 50)
    for kill in range(kills):
        bound = 2 * count * (kills - kill) // (kills + 1)
        wait_until(lambda bound=bound: jobs.db.execute(left).fetchone()[0] <= bound, 60)
        pooler.end(signal.SIGKILL)
        pooler.start()
    wait_until(lambda: jobs.db.execute(left).fetchone() == (0,), 60)
    counts = jobs.db.execute("select count(*), count(distinct run_id) from public.effect")
    assert counts.fetchone() == (2 * count, 2 * count)
    lost = jobs.db.execute("select count(*) from rowcron.ledger where outcome = 'lost'").fetchone()
    print(table("PgBouncer killed", {"kills": kills, "runs": 2 * count, "lost attempts": lost[0]}))
    assert worker.stop() == 0


def test_a_parameter_that_a_pooler_refuses_is_named(
    jobs: Jobs, pooler: Pooler, database: Database, start: Start
) -> None:
    url = pooler.url(WORKER, database.name) + "&options=-c%20work_mem%3D1MB"
    worker = start(url=url, wait=False)
    event = worker.wait_for("unavailable")
    assert "unsupported startup parameter: options" in event["text"]
    assert "ignore_startup_parameters" in event["text"]


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_old_snapshots_by_default_stop_nothing(
    jobs: Jobs, begin: Start, database: Database, level: str, when: str
) -> None:
    """Whether the worker finds the default so or it is altered while it works."""

    def alter() -> None:
        default = f"alter database {database.name} set default_transaction_isolation = '{level}'"
        jobs.db.execute(default.encode())
        # the pooler keeps its sessions for long
        jobs.db.execute("""
          select pg_terminate_backend(a.pid) from pg_stat_activity as a
          where a.datname = current_database() and a.usename = %s
        """, (WORKER,))  # fmt: skip

    if when == "before":
        alter()
    worker = begin("--concurrency", "4")
    names = {"sql": jobs.add("sql", EFFECT), "python": jobs.add("python", "nothing")}
    isolation = jobs.add("sql", "select current_setting('transaction_isolation') as level")
    if when == "after":
        assert jobs.end(jobs.start(names["python"]))["outcome"] == "succeeded"
        alter()
    runs = [jobs.start(name) for _ in range(20) for name in names.values()]
    for run in runs:
        assert jobs.end(run)["outcome"] == "succeeded"
        assert len(jobs.entries(run)) == 1
    assert jobs.end(jobs.start(isolation))["result"]["first"] == {"level": "read committed"}
    if when == "before":
        assert worker.events("unavailable") == []
    assert worker.stop() == 0
