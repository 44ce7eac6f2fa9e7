"""Connections that stand and carry nothing any more (half-open) are found out and made anew."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from chaos.silent_proxy import Proxy, proxied
from harness import WORKER, Database, TestServer, wait_until
from test_worker_loop import asleep
from workers import Jobs, Start, WorkerProcess, jobs, start

__all__ = ["jobs", "start"]
# Patience is the URL's tcp_user_timeout, 20 s if it names none; asking takes connect_timeout more.
PATIENCE, CONNECT = 1.0, 2.0
EFFECT = "insert into public.effect values (0, current_setting('rowcron.run_id')::bigint)"


@pytest.fixture
def proxy(server: TestServer) -> Iterator[Proxy]:
    """A proxy in front of the test server."""
    with proxied(server.base / "socket" / ".s.PGSQL.5432") as proxy:
        yield proxy


@pytest.fixture
def begin(proxy: Proxy, database: Database, start: Start) -> Start:
    """Starts workers behind the proxy."""

    def begin_one(*options: str) -> WorkerProcess:
        end = f"127.0.0.1:{proxy.port}/{database.name}?tcp_user_timeout={PATIENCE * 1000:.0f}"
        end += f"&connect_timeout={CONNECT:.0f}"
        handlers = ("--handler-database-url", f"postgresql://alice@{end}")
        return start(*handlers, *options, url=f"postgresql://{WORKER}@{end}")

    return begin_one


def test_an_idle_worker_finds_out_that_its_connections_are_dead(
    jobs: Jobs, begin: Start, proxy: Proxy
) -> None:
    begin("--poll", "60", "--lease", "120")
    name = jobs.add("python", "nothing")
    wait_until(lambda: asleep(jobs.db), what="sleep")
    assert jobs.end(jobs.start(name))["outcome"] == "succeeded"
    wait_until(lambda: asleep(jobs.db), what="sleep")
    assert proxy.silence() >= 3
    begin_at = time.monotonic()
    end = jobs.end(jobs.start(name), 30)  # nobody hears its notification
    assert end["outcome"] == "succeeded"
    # the listener: idle, then asked; then the claim
    assert time.monotonic() - begin_at < 2.5 * PATIENCE + 2 * CONNECT + 1
    wait_until(lambda: asleep(jobs.db), what="sleep")
    begin_at = time.monotonic()
    jobs.end(jobs.start(name))
    assert time.monotonic() - begin_at < 1  # it hears again


def test_runs_under_way_survive_it_and_what_they_did_counts_once(
    jobs: Jobs, begin: Start, proxy: Proxy
) -> None:
    begin("--poll", "1", "--lease", "12", "--sql-connections", "2")
    sql = jobs.run("sql", f"{EFFECT}; select pg_sleep(1)")
    slow = jobs.run("sql", f"{EFFECT}; select pg_sleep({4 * PATIENCE})")
    python = jobs.run("python", "sleep", {"seconds": 1})
    for run in (sql, slow, python):
        jobs.wait_running(run)
    at_work = """
      select count(*) from pg_stat_activity
      where datname = current_database() and state = 'active'
        and query like 'set %rowcron.execute(%'
    """
    wait_until(lambda: jobs.db.execute(at_work).fetchone() == (2,), 5, "both executing")
    assert proxy.silence() >= 4
    for run in (sql, slow, python):
        end = jobs.end(run, 30)
        assert (end["outcome"], len(jobs.entries(run))) == ("succeeded", 1)
    later = jobs.run("sql", EFFECT)  # on a lane whose answer never came
    assert jobs.end(later)["outcome"] == "succeeded"
    effects = jobs.db.execute("select run_id from public.effect order by 1").fetchall()
    assert effects == [(sql,), (slow,), (later,)]


@pytest.mark.parametrize("kind", ["", "_async"], ids=["plain", "async"])
@pytest.mark.parametrize("idle", [0, 1.5 * PATIENCE], ids=["at once", "later"])
def test_a_connection_for_handlers_that_died_idle_costs_no_attempt(
    jobs: Jobs, begin: Start, proxy: Proxy, kind: str, idle: float
) -> None:
    begin("--poll", "1", "--lease", "60")
    name = jobs.add("python", f"dwell{kind}")
    first = jobs.end(jobs.start(name, {"seconds": 0}))
    proxy.silence()
    time.sleep(idle)
    begin_at = time.monotonic()
    run = jobs.start(name, {"seconds": 0})
    end = jobs.end(run, 30)
    assert (end["outcome"], len(jobs.entries(run))) == ("succeeded", 1)
    assert end["result"] != first["result"]
    assert time.monotonic() - begin_at < 3 * (PATIENCE + CONNECT) + 2


@pytest.mark.parametrize("kind", ["", "_async"], ids=["plain", "async"])
def test_the_end_of_a_handler_whose_connection_died_meanwhile_is_found_out(
    jobs: Jobs, begin: Start, proxy: Proxy, kind: str
) -> None:
    begin("--poll", "1", "--lease", "60")
    run = jobs.run("python", f"dwell{kind}", {"seconds": 2})
    in_it = "select 1 from pg_stat_activity where usename = 'alice' and state like 'idle in%'"
    wait_until(lambda: jobs.db.execute(in_it).fetchone(), what="the handler")
    proxy.silence()
    begin_at = time.monotonic()
    assert jobs.end(run, 40)["outcome"] == "succeeded"
    assert [(e["outcome"], e["reason"]) for e in jobs.entries(run)] == [
        ("lost", "connection"),
        ("succeeded", None),
    ]
    assert time.monotonic() - begin_at < 3 * (PATIENCE + CONNECT) + 2 * 2 + 2


def test_a_slow_statement_is_not_taken_for_a_dead_connection(
    jobs: Jobs, begin: Start, proxy: Proxy
) -> None:
    worker = begin("--poll", "1", "--lease", "30")
    wait_until(lambda: asleep(jobs.db), what="sleep")
    handed = jobs.run("python", "dwell", {"seconds": 3 * PATIENCE})
    assert (jobs.end(handed)["outcome"], len(jobs.entries(handed))) == ("succeeded", 1)
    with jobs.db.transaction():
        jobs.db.execute("select from rowcron.worker for update")  # its heartbeat waits
        waiting = """
          select count(*) from pg_stat_activity
          where wait_event_type = 'Lock' and clock_timestamp() - query_start > %s * interval '1 s'
        """
        wait_until(lambda: jobs.db.execute(waiting, (3 * PATIENCE,)).fetchone() == (1,), 30)
    assert jobs.end(jobs.run("sql", "select 1"))["outcome"] == "succeeded"
    (event,) = worker.events("waits")
    assert event["text"].startswith("no answer for 1 s: the database waits for a lock (")
    assert worker.events("unavailable") == []
    assert len(worker.events("registered")) == 1


def test_a_network_that_is_gone_altogether_is_found_out_and_its_return(
    jobs: Jobs, begin: Start, proxy: Proxy
) -> None:
    worker = begin("--poll", "1", "--lease", "60")
    run = jobs.run("python", "sleep", {"seconds": 1})
    jobs.wait_running(run)
    begin_at = time.monotonic()
    proxy.silence(mute=True)
    worker.wait_for("unavailable", 30)
    assert time.monotonic() - begin_at < 1 + PATIENCE + CONNECT + 2
    proxy.mute = False
    assert jobs.end(run, 30)["outcome"] == "succeeded"
    worker.wait_for("reconnect")
    assert len(jobs.entries(run)) == 1
