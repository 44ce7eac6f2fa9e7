"""How soon a dead worker's runs are another's, and that a living one's never are."""

from __future__ import annotations

import os
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from uuid import uuid4

import psycopg
import pytest

from conftest import Connect
from harness import wait_until
from test_worker_faults import MortalServer, connected, mortal
from workers import Jobs, Row, Start, WorkerProcess, jobs, start

__all__ = ["jobs", "mortal", "start"]
APP = ("--app", "recovery_app", "--kind", "python")
Outage = Callable[[MortalServer], AbstractContextManager[None]]
ROUNDS = int(os.environ.get("ROWCRON_TEST_ROUNDS", "4"))
HOLDERS = 3
IDS = "select worker_id::text from rowcron.run where state = 'running'"


def of_worker(workers: list[WorkerProcess], worker_id: str) -> WorkerProcess:
    """The process that is registered under that id."""
    for worker in workers:
        if any(event["worker"] == worker_id for event in worker.events("registered")):
            return worker
    raise AssertionError(worker_id)


def with_session(jobs: Jobs) -> set[str]:
    """The workers whose own session the database knows."""
    query = (
        "select s.worker_id::text from rowcron.session as s"
        " join rowcron.worker as w on w.id = s.worker_id and w.lost_at is null"
    )
    return {row[0] for row in jobs.db.execute(query.encode())}


def lost(jobs: Jobs, run: int) -> Row | None:
    """The lost attempt at a run."""
    return next((e for e in jobs.entries(run) if e["outcome"] == "lost"), None)


def start_all(start: Start, count: int, *options: str) -> list[WorkerProcess]:
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda _: start(*APP, *options, wait=False), range(count)))


def rescue_times(jobs: Jobs, start: Start, *options: str) -> list[float]:
    """Kill workers that hold a run each, while others sleep; how long until each run was free."""
    name = jobs.add("python", "hang_once", max_lost=100)
    workers: list[WorkerProcess] = []
    took: list[float] = []
    for _ in range(ROUNDS):
        workers += start_all(start, HOLDERS + 1 - len(workers), "--concurrency", "1", *options)
        wait_until(lambda: len(with_session(jobs)) == HOLDERS + 1, what="the workers")
        runs = [jobs.start(name) for _ in range(HOLDERS)]
        wait_until(lambda: jobs.db.execute(IDS).rowcount == HOLDERS, what="the runs' start")
        killed: dict[str, float] = {}
        for (worker_id,) in jobs.db.execute(IDS).fetchall():
            victim = of_worker(workers, worker_id)
            victim.kill()
            killed[worker_id] = time.time()
            workers.remove(victim)
            time.sleep(0.17)  # not all in the same phase of the others' sleep
        for run in runs:
            assert jobs.end(run, 30)["outcome"] == "succeeded"
            entry = lost(jobs, run)
            assert entry is not None
            took.append(entry["finished_at"].timestamp() - killed[str(entry["worker_id"])])
    return took


def told(what: str, took: list[float]) -> None:
    """Print what was measured."""
    took = sorted(took)
    p99 = took[min(len(took) - 1, int(len(took) * 0.99))]
    print(
        f"\n{what}: {len(took)} kills, rescue p50 {statistics.median(took):.2f} s,"
        f" p99 {p99:.2f} s, max {took[-1]:.2f} s"
    )


def test_runs_of_a_killed_worker_are_free_within_3_s_when_its_session_s_end_shows(
    jobs: Jobs, start: Start
) -> None:
    took = rescue_times(jobs, start)
    told("lease 10 s", took)
    assert statistics.median(took) < 3
    assert max(took) < 5  # 2.75 s and what a busy machine adds


def test_a_lease_of_2_s_works(jobs: Jobs, start: Start) -> None:
    took = rescue_times(jobs, start, "--lease", "2")
    told("lease 2 s", took)
    assert max(took) < 5


def test_a_silent_worker_s_runs_are_free_within_15_s(jobs: Jobs, start: Start) -> None:
    """Its machine has stopped: the session stands, only the lease tells."""
    workers = start_all(start, 2, "--concurrency", "1")
    run = jobs.run("python", "hang_once")
    jobs.wait_running(run)
    begin = time.monotonic()
    of_worker(workers, jobs.db.execute(IDS).fetchone()[0]).send(signal.SIGSTOP)
    assert jobs.end(run, 30)["outcome"] == "succeeded"
    assert 5 < time.monotonic() - begin < 15, jobs.entries(run)
    assert lost(jobs, run)["reason"] == "its worker was silent for longer than its lease"


def test_a_living_worker_whose_sessions_are_cut_keeps_its_runs(jobs: Jobs, start: Start) -> None:
    start_all(start, 2, "--concurrency", "2")
    wait_until(lambda: len(with_session(jobs)) == 2)
    runs = [jobs.run("python", "hang_once", {"seconds": 6}) for _ in range(3)]
    for run in runs:
        jobs.wait_running(run)
    cut = (
        "select count(pg_terminate_backend(pid)) from pg_stat_activity"
        " where datname = current_database() and usename = 'w_worker'"
    )
    cuts = 0
    until = time.monotonic() + 5
    while time.monotonic() < until:
        cuts += jobs.db.execute(cut.encode()).fetchone()[0]
        time.sleep(0.4)
    assert cuts > 20
    for run in runs:
        assert jobs.end(run)["outcome"] == "succeeded"
        assert len(jobs.entries(run)) == 1


@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGINT])
def test_a_restart_of_the_server_costs_living_workers_nothing(
    mortal: MortalServer, start: Start, number: signal.Signals
) -> None:
    """All sessions have ended then, which says nothing about who lived in them."""
    database = mortal.create_database()
    with connected(database) as jobs:
        jobs.db.execute("grant rowcron_python to alice")
        workers = [
            start(*APP, "--concurrency", "1", "--lease", "60", url=database.url("w_worker"))
            for _ in range(2)
        ]
        wait_until(lambda: len(with_session(jobs)) == 2)
        runs = [jobs.run("python", "hang_once", {"seconds": 6}) for _ in range(2)]
        for run in runs:
            jobs.wait_running(run)
        jobs.db.execute("checkpoint")  # commits are asynchronous here
    mortal.end(number)
    workers[0].send(signal.SIGSTOP)  # one comes back three seconds later than the other
    mortal.start_again()
    workers[1].wait_for("reconnect")
    threading.Timer(3, workers[0].send, (signal.SIGCONT,)).start()
    with connected(database) as jobs:
        for run in runs:
            assert jobs.end(run)["outcome"] == "succeeded"
            assert len(jobs.entries(run)) == 1


@contextmanager
def stopped(mortal: MortalServer) -> Iterator[None]:
    """As `pg_ctl stop -m fast` and a start do."""
    mortal.end(signal.SIGINT)
    yield
    mortal.start_again()


@pytest.mark.parametrize("outage", [stopped, MortalServer.frozen])
def test_an_outage_longer_than_the_lease_costs_living_workers_nothing(
    mortal: MortalServer,
    start: Start,
    outage: Outage,
) -> None:
    """Nobody could have been heard. Two come back at once, the third a second later."""
    database = mortal.create_database()
    options = (*APP, "--concurrency", "1", "--lease", "2", "--poll", "1")
    with connected(database) as jobs:
        jobs.db.execute("grant rowcron_python to alice")
        workers = [start(*options, url=database.url("w_worker")) for _ in range(3)]
        wait_until(lambda: len(with_session(jobs)) == 3)
        runs = [jobs.run("python", "hang_once", {"seconds": 8}, on_lost="fail") for _ in range(3)]
        for run in runs:
            jobs.wait_running(run)
        jobs.db.execute("checkpoint")  # commits are asynchronous here
    with outage(mortal):
        time.sleep(3)  # longer than the lease
        workers[0].send(signal.SIGSTOP)
    time.sleep(1)
    workers[0].send(signal.SIGCONT)
    with connected(database) as jobs:
        for run in runs:
            assert jobs.end(run)["outcome"] == "succeeded"
            assert len(jobs.entries(run)) == 1


def test_whom_the_first_word_could_not_put_off_the_next_one_does(
    connect: Connect, db: psycopg.Connection
) -> None:
    """Its row was locked, by somebody whose own word is rolled back."""
    first, second = uuid4(), uuid4()
    db.execute(
        "select rowcron._register(id, null, '{sql}', null, 1, '10 s', '5 s', null, null, null,"
        " clock_timestamp() - interval '14 s') from unnest(%s) as id",
        ([first, second],),
    )
    ends = "select expires_at > clock_timestamp(), lost_at from rowcron.worker where id = %s"
    with connect("postgres") as other:
        other.execute("begin")
        other.execute("select from rowcron.worker where id = %s for update", (first,))
        db.execute("select rowcron.heartbeat(%s)", (second,))
        other.execute("rollback")
    db.execute("select rowcron._rescue(clock_timestamp())")
    assert db.execute(ends, (first,)).fetchone() == (False, None)
    db.execute("select rowcron.heartbeat(%s)", (uuid4(),))
    assert db.execute(ends, (first,)).fetchone() == (True, None)


def test_who_finds_nobody_rescues_within_some_seconds_all_the_same(
    jobs: Jobs, start: Start
) -> None:
    """The only worker died while nobody was there to hear of it."""
    first = start(*APP, "--lease", "1")
    run = jobs.run("python", "hang_once")
    jobs.wait_running(run)
    first.kill()
    time.sleep(4)  # its lease, and more than a silence takes to say nothing
    begin = time.monotonic()
    start(*APP)
    assert jobs.end(run)["outcome"] == "succeeded"
    assert time.monotonic() - begin < 10


def test_what_a_clock_that_was_ahead_has_noted_is_no_obstacle(jobs: Jobs, start: Start) -> None:
    """Set back while the server was down, so that nobody's session tells anything."""
    worker = start(*APP, "--lease", "2")
    run = jobs.run("python", "hang_once")
    jobs.wait_running(run)
    worker.kill()
    jobs.db.execute("delete from rowcron.session")
    jobs.db.execute(
        "update rowcron.worker set seen_at = now() + interval '400 days',"
        " expires_at = now() + interval '400 days'"
    )
    jobs.db.execute(
        "update rowcron.setting set value = to_jsonb(now() + interval '400 days')"
        " where name = 'maintained_at'"
    )
    start(*APP, "--lease", "2")
    assert jobs.end(run)["outcome"] == "succeeded"
    assert lost(jobs, run) is not None
    maintained = "select (rowcron._read_setting('maintained_at') #>> '{}')::timestamptz < now()"
    assert jobs.db.execute(maintained.encode()).fetchone() == (True,)


@pytest.fixture
def burners() -> Iterator[None]:
    """Threads and processes that want the machine."""
    pids = []
    for _ in range(2 * (os.cpu_count() or 1)):
        pid = os.fork()
        if pid == 0:
            end = time.monotonic() + 60
            while time.monotonic() < end:
                pass
            os._exit(0)
        pids.append(pid)
    yield
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.mark.usefixtures("burners")
def test_a_short_lease_holds_under_load(jobs: Jobs, start: Start) -> None:
    start_all(start, 2, "--lease", "2", "--concurrency", "2")
    wait_until(lambda: len(with_session(jobs)) == 2)
    burn = jobs.add("python", "burn")
    runs = [jobs.start(burn, {"seconds": 5}) for _ in range(4)]
    for run in runs:
        assert jobs.end(run, 60)["outcome"] == "succeeded"
        assert len(jobs.entries(run)) == 1


def test_a_claim_by_hand_keeps_its_lease(jobs: Jobs, start: Start) -> None:
    """Whoever claims from psql may close it, and come back within the lease."""
    run = jobs.run("sql", "select 1")
    with psycopg.connect(jobs.db.info.dsn, autocommit=True) as person:
        held = person.execute(
            "select run_id, token from rowcron.claim(lease => '1 min')"
        ).fetchone()
    assert held[0] == run
    begin = datetime.now(UTC)
    start(*APP)
    start(*APP)
    wait_until(lambda: len(with_session(jobs)) == 2)
    wait_until(lambda: (datetime.now(UTC) - begin).total_seconds() > 5)
    assert jobs.entries(run) == []
    jobs.db.execute("select rowcron.finish(%s, %s)", held)
    assert [entry["outcome"] for entry in jobs.entries(run)] == ["succeeded"]
