"""Faults: a database that goes away, sessions that are cut, workers that die or sleep too long."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from conftest import Connect
from harness import Database, TestServer, wait_until
from rowcron.connection import conninfo
from rowcron.errors import NotInstalled
from rowcron.link import Link
from workers import Jobs, Start, jobs, start

__all__ = ["jobs", "start"]


class MortalServer(TestServer):
    """A server that can be crashed and started again."""

    def end(self, number: signal.Signals) -> None:
        """SIGINT as `pg_ctl stop -m fast` does, SIGQUIT as `-m immediate`."""
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(30)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """All its sessions stand and nobody answers, as while a virtual machine moves."""
        assert self._process is not None
        first = self._process.pid
        os.kill(first, signal.SIGSTOP)  # no more children from now on
        children = Path(f"/proc/{first}/task/{first}/children").read_text("ascii").split()
        pids = [*map(int, children), first]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    @contextmanager
    def without_standby(self, database: Database) -> Iterator[None]:
        """The commits of workers wait for a standby that is away; ours do not."""
        with psycopg.connect(database.url("postgres"), autocommit=True) as db:
            db.execute("alter system set synchronous_standby_names = 'nobody'")
            db.execute("select pg_reload_conf()")
            try:
                yield
            finally:
                db.execute("alter system reset synchronous_standby_names")
                db.execute("select pg_reload_conf()")

    def start_again(self) -> None:
        """Start on the data that is there, with durable commits from now on."""
        directory = f"unix_socket_directories={self.base / 'socket'}"
        options = ["-c", directory, "-c", "listen_addresses="]
        self._process = self._spawn("postgres", "-D", str(self.base / "data"), *options)
        wait_until(self._ready, what="the server")


@contextmanager
def connected(database: Database) -> Iterator[Jobs]:
    """Alice's jobs over connections that may be cut at the end."""
    db = psycopg.connect(database.url("postgres"), autocommit=True)
    with db, psycopg.connect(database.url("alice"), autocommit=True) as alice:
        yield Jobs(alice, db)


@pytest.fixture
def mortal(server: TestServer) -> Iterator[MortalServer]:
    """A server of its own for one test, with a database and alice's jobs."""
    mortal = MortalServer(server.bin)
    try:
        mortal.start()
        mortal.make_template()
        yield mortal
    finally:
        mortal.stop()


def test_a_database_that_goes_away_costs_no_run(mortal: MortalServer, start: Start) -> None:
    database = mortal.create_database()
    with connected(database) as jobs:
        jobs.db.execute("grant rowcron_python to alice")
        name = jobs.add("python", "sleep")
        mortal.end(signal.SIGINT)
    options = ("--lease", "60", "--poll", "1")
    worker = start(*options, wait=False, url=database.url("w_worker"))
    worker.wait_for("unavailable")
    mortal.start_again()
    worker.wait_for("worker")
    worker.wait_for("reconnect")
    with connected(database) as jobs:
        run = jobs.start(name, {"seconds": 1.5})
        jobs.wait_running(run)
        mortal.end(signal.SIGQUIT)
    wait_until(lambda: len(worker.events("unavailable")) == 2)
    mortal.start_again()
    with connected(database) as jobs:
        assert jobs.end(run)["outcome"] == "succeeded"
        assert len(jobs.entries(run)) == 1
        assert jobs.end(jobs.start(name, {"seconds": 0}))["outcome"] == "succeeded"
    assert len(worker.events("unavailable")) == 2  # said once each time
    assert worker.stop() == 0


def test_cut_sessions_cost_no_run_and_double_none(jobs: Jobs, start: Start) -> None:
    worker = start("--poll", "1")
    effect = "insert into public.effect values (0, current_setting('rowcron.run_id')::bigint)"
    names = [
        jobs.add("sql", f"{effect}; select pg_sleep(0.02)", max_lost=100),
        jobs.add("python", "insert", max_lost=100),
    ]
    query = "select count(*) from rowcron.enqueue_many(%s, array_fill('{}'::jsonb, array[150]))"
    for name in names:
        jobs.owner.execute(query, (name,))
    cut = """
      select count(pg_terminate_backend(pid)) from pg_stat_activity
      where datname = current_database() and application_name = 'rowcron'
        and pid <> pg_backend_pid() and random() < 0.5
    """
    left = "select count(*) from rowcron.run"

    for bound in range(280, 20, -40):  # a cut, then some progress
        jobs.db.execute(cut)
        wait_until(lambda bound=bound: jobs.db.execute(left).fetchone()[0] < bound, 30)
    wait_until(lambda: jobs.db.execute(left).fetchone() == (0,), 30)
    counts = "select count(*), count(distinct run_id) from public.effect"
    assert jobs.db.execute(counts).fetchone() == (300, 300)
    outcomes = "select count(*) from rowcron.ledger where final and outcome = 'succeeded'"
    assert jobs.db.execute(outcomes).fetchone() == (300,)
    assert worker.stop() == 0


def test_a_run_that_the_database_thinks_is_held_is_given_back_after_an_outage(
    jobs: Jobs, start: Start
) -> None:
    """As after a failover that undid the end of a run, of which only the worker knows."""
    worker = start("--lease", "60", "--poll", "1")
    member = worker.wait_for("registered")["worker"]
    name = jobs.add("sql", "select 1")
    jobs.db.execute("select rowcron.hold('test')")
    run = jobs.start(name)
    jobs.db.execute(
        "update rowcron.run set state = 'running', worker_id = %s, seal = gen_random_uuid(),"
        " started_at = clock_timestamp() where id = %s",
        [member, run],
    )
    jobs.db.execute("select rowcron.release()")
    assert jobs.running(run)
    jobs.db.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'w_worker'"
    )
    assert jobs.end(run)["outcome"] == "succeeded"
    assert len(jobs.entries(run)) == 1


def test_runs_of_a_killed_worker_are_rescued(jobs: Jobs, start: Start) -> None:
    first = start("--lease", "1")
    run = jobs.run("python", "sleep", {"seconds": 2})
    jobs.wait_running(run)
    first.kill()
    start("--lease", "1", "--poll", "1")
    assert jobs.end(run)["outcome"] == "succeeded"
    assert [entry["outcome"] for entry in jobs.entries(run)] == ["lost", "succeeded"]


def test_a_worker_that_overslept_its_lease_begins_anew(jobs: Jobs, start: Start) -> None:
    first = start("--lease", "1", "--poll", "0.4")
    run = jobs.run("python", "sleep", {"seconds": 2})
    jobs.wait_running(run)
    first.send(signal.SIGSTOP)
    start("--lease", "5", "--poll", "0.4")
    wait_until(lambda: jobs.entries(run), what="the loss")
    first.send(signal.SIGCONT)
    assert first.wait_for("lost")["code"] == "RCWRK"
    wait_until(lambda: len(first.events("registered")) == 2, what="a new registration")
    assert jobs.end(run)["outcome"] == "succeeded"
    assert [entry["outcome"] for entry in jobs.entries(run)] == ["lost", "succeeded"]
    ids = {event["worker"] for event in first.events("registered")}
    assert len(ids) == 2


def test_a_long_run_keeps_its_claim(jobs: Jobs, start: Start) -> None:
    start("--lease", "1", "--poll", "30")
    start("--lease", "1", "--poll", "0.3")
    blocker = jobs.run("python", "sleep", {"seconds": 3})
    assert jobs.end(blocker)["outcome"] == "succeeded"
    assert len(jobs.entries(blocker)) == 1


def test_a_claim_that_was_lost_is_not_reported(jobs: Jobs, start: Start) -> None:
    worker = start()
    run = jobs.run("python", "sleep", {"seconds": 1})
    jobs.wait_running(run)
    jobs.db.execute("delete from rowcron.run where id = %s", (run,))
    assert worker.wait_for("refused", run_id=run)["code"] == "RCCLM"
    assert jobs.entries(run) == []


def test_connections_that_were_cut_while_idle_cost_no_run_an_attempt(
    jobs: Jobs, start: Start
) -> None:
    start("--sql-connections", "4", "--kind", "sql", "--poll", "1")
    name = jobs.add("sql", "select pg_sleep(0.2)")
    enqueue = "select rowcron.enqueue_many(%s, array_fill('{}'::jsonb, array[4]))"

    def all_end() -> list[int]:
        runs = [run for (run,) in jobs.owner.execute(enqueue, (name,)).fetchall()]
        assert {jobs.end(run)["outcome"] for run in runs} == {"succeeded"}
        return runs

    all_end()  # each lane has a connection now
    jobs.db.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'w_worker'"
    )
    gone = "select count(*) from rowcron.worker where lost_at is null and asleep"
    wait_until(lambda: jobs.db.execute(gone).fetchone() == (1,), what="a worker that sleeps again")
    assert [len(jobs.entries(run)) for run in all_end()] == [1] * 4


def test_cancels_and_timeouts_among_short_sql_jobs_strike_their_own_run_alone(
    jobs: Jobs, start: Start
) -> None:
    jobs.db.execute("create table struck (run bigint); grant insert on struck to alice")
    effect = "insert into struck values (current_setting('rowcron.run_id')::bigint)"
    short = jobs.add("sql", effect)
    slow = jobs.add("sql", f"{effect}; select pg_sleep(60)")
    late = jobs.add("sql", f"{effect}; select pg_sleep(60)", timeout="50 ms")
    many = "select rowcron.enqueue_many(%s, array_fill('{}'::jsonb, array[%s]))"
    runs: dict[str, list[int]] = {short: [], slow: [], late: []}
    for name, count in ((short, 60), (slow, 1), (late, 1)) * 10:
        runs[name] += [run for (run,) in jobs.owner.execute(many, (name, count)).fetchall()]
    start("--sql-connections", "4", "--kind", "sql")
    for run in runs[slow]:
        jobs.wait_running(run)
        jobs.owner.execute("select rowcron.cancel(%s)", (run,))
    left = "select count(*) from rowcron.run"
    wait_until(lambda: jobs.db.execute(left).fetchone() == (0,), 60, "the end of all runs")
    query = "select run_id, outcome, reason, attempt from rowcron.ledger order by run_id"
    told = {run: tuple(rest) for run, *rest in jobs.db.execute(query).fetchall()}
    expected = dict.fromkeys(runs[short], ("succeeded", None, 1))
    expected |= dict.fromkeys(runs[slow], ("cancelled", "cancelled by alice", 1))
    expected |= dict.fromkeys(runs[late], ("failed", "timeout", 1))
    assert told == expected
    effects = [run for (run,) in jobs.db.execute("select run from struck order by run").fetchall()]
    assert effects == runs[short]


def test_a_statement_that_somebody_cancels_has_not_timed_out(
    jobs: Jobs, start: Start, connect: Connect
) -> None:
    """Here while the failure of its job is being recorded, which so is rolled back."""
    worker = start("--kind", "sql")
    run = jobs.run("sql", "select pg_sleep(1); select 1 / 0")
    jobs.wait_running(run)
    waits = """
      select pid from pg_stat_activity
      where datname = current_database() and wait_event_type = 'Lock'
        and query like '%rowcron.execute(%' and pid <> pg_backend_pid()
    """
    with connect("postgres") as other, other.transaction():
        other.execute("select from rowcron.run where id = %s for no key update", (run,))
        pid = wait_until(lambda: jobs.db.execute(waits).fetchone(), what="its record waits")
        jobs.db.execute("select pg_cancel_backend(%s)", pid)
        gone = "select 1 from pg_stat_activity where pid = %s and state = 'active'"
        wait_until(lambda: jobs.db.execute(gone, pid).fetchone() is None)
    entry = jobs.end(run)
    assert (entry["outcome"], entry["reason"], entry["attempt"]) == ("failed", "error 22012", 1)
    assert worker.wait_for("end", run_id=run)["outcome"] == "released"
    assert len(jobs.entries(run)) == 1


def test_a_prepared_statement_survives_an_upgrade(database: Database) -> None:
    """Its function has other columns now, or all was discarded: it is prepared anew."""
    create = "create function public.answer() returns table"

    async def scenario() -> None:
        with psycopg.connect(database.url("postgres"), autocommit=True) as db:
            db.execute(f"{create} (a int) begin atomic select 1; end")
            link = Link(conninfo(database.url("w_worker")))
            try:
                query = "select * from public.answer()"
                assert await link.fetch(query) == [(1,)]
                session = await link.fetch("select pg_backend_pid()")
                named = "select count(*) from pg_prepared_statements where statement = $1"
                assert await link.fetch(named, (query,)) == [(1,)]
                db.execute("drop function public.answer()")
                db.execute(f"{create} (a int, b text) begin atomic select 1, 'two'; end")
                assert await link.fetch(query) == [(1, "two")]
                assert await link.fetch("select pg_backend_pid()") != session
                session = await link.fetch("select pg_backend_pid()")
                await link.fetch("deallocate all")
                assert await link.fetch(query) == [(1, "two")]
                assert await link.fetch("select pg_backend_pid()") != session
                db.execute("drop function public.answer()")
                with pytest.raises(NotInstalled):
                    await link.fetch(query)
            finally:
                await link.close()

    asyncio.run(scenario())


def test_a_right_that_is_missing_for_a_while_costs_no_run(jobs: Jobs, start: Start) -> None:
    """Neither its end, which is reported later, nor the worker."""
    worker = start("--kind", "python")
    run = jobs.run("python", "sleep", {"seconds": 1.0})
    jobs.wait_running(run)
    for right in ("revoke all on %s from rowcron_worker", "grant execute on %s to rowcron_worker"):
        functions = """
          select format(%s, string_agg(p.oid::regprocedure::text, ', ')) from pg_proc as p
          where p.pronamespace = 'rowcron'::regnamespace and p.proname = 'finish'
        """
        change = right.replace("on %s", "on function %s")
        jobs.db.execute(jobs.db.execute(functions, (change,)).fetchone()[0].encode())
        if right.startswith("revoke"):
            worker.wait_for("unavailable", code="42501")
            time.sleep(1)
    assert jobs.end(run)["outcome"] == "succeeded"
    assert len(jobs.entries(run)) == 1
    assert worker.events("refused") == []
    assert worker.stop() == 0


def test_a_claim_that_is_refused_for_long_is_told_once(jobs: Jobs, start: Start) -> None:
    """The worker can be registered meanwhile, which says nothing about its claims."""
    worker = start("--kind", "python", "--poll", "0.2")
    jobs.db.execute("""
      create function public.trouble() returns trigger language plpgsql as
      $$ begin raise exception using errcode = 'XX000', message = 'trouble'; end $$;
      create trigger trouble before update on rowcron.run
      for each row execute function public.trouble()
    """)
    run = jobs.run("python", "nothing")
    worker.wait_for("unavailable", code="XX000")
    registered = "select count(*) from rowcron.worker"
    wait_until(lambda: jobs.db.execute(registered).fetchone()[0] > 4)  # so often it was tried
    assert len(worker.events("unavailable")) == 1
    assert worker.events("reconnect") == []
    jobs.db.execute("drop trigger trouble on rowcron.run")
    assert jobs.end(run)["outcome"] == "succeeded"
    worker.wait_for("reconnect")
    assert len(worker.events("unavailable")) == 1
    assert worker.stop() == 0


def test_an_error_that_nobody_foresaw_is_waited_out(jobs: Jobs, start: Start) -> None:
    worker = start("--kind", "python", "--poll", "0.2")
    run = jobs.run("python", "sleep", {"seconds": 1.5})
    jobs.wait_running(run)
    jobs.db.execute("""
      create function public.trouble() returns trigger language plpgsql as
      $$ begin raise exception using errcode = 'XX000', message = 'trouble'; end $$;
      create trigger trouble before update on rowcron.worker
      for each row execute function public.trouble()
    """)
    worker.wait_for("unavailable", code="XX000")
    time.sleep(0.5)
    assert worker.process.poll() is None
    jobs.db.execute("drop trigger trouble on rowcron.worker")
    assert jobs.end(run)["outcome"] == "succeeded"
    assert len(jobs.entries(run)) == 1
    assert jobs.end(jobs.run("python", "nothing"))["outcome"] == "succeeded"
    assert worker.stop() == 0


@pytest.mark.parametrize("signals", [1, 2])
def test_a_worker_whose_statement_waits_for_a_lock_stops_all_the_same(
    jobs: Jobs, start: Start, signals: int
) -> None:
    worker = start("--kind", "python", "--poll", "0.2", "--grace", "2")
    waits = "select 1 from pg_locks where not granted"
    with jobs.db.transaction():
        jobs.db.execute("lock table rowcron.worker")
        wait_until(lambda: jobs.db.execute(waits).fetchone(), what="a statement that waits")
        for _ in range(signals):
            worker.send(signal.SIGTERM)
            time.sleep(0.2)
        assert worker.process.wait(12) in (0, 1)
    start("--kind", "python", "--poll", "0.2")
    assert jobs.end(jobs.run("python", "nothing"))["outcome"] == "succeeded"


def test_a_worker_says_goodbye_though_its_heartbeat_hangs(
    mortal: MortalServer, start: Start
) -> None:
    """While a synchronous standby is away, which its commits wait for, holding what they wrote."""
    database = mortal.create_database()
    with connected(database) as jobs:
        jobs.db.execute("grant rowcron_python to alice")
        jobs.db.execute("alter role w_worker set synchronous_commit = on")
        options = ("--kind", "python", "--grace", "0.5", "--lease", "60", "--poll", "30")
        worker = start(*options, url=database.url("w_worker"))
        short = jobs.run("python", "sleep", {"seconds": 2})
        long = jobs.run("python", "sleep", {"seconds": 600}, max_lost=1)
        for run in (short, long):
            jobs.wait_running(run)
        with mortal.without_standby(database):
            jobs.db.execute("update rowcron.worker set expires_at = now() + interval '9 s'")
            waits = """
              select count(*) from pg_stat_activity
              where wait_event = 'SyncRep' and query like '%%' || %s || '%%'
            """
            for part in ("session =>", "rowcron.finish("):
                wait_until(lambda p=part: jobs.db.execute(waits, (p,)).fetchone()[0], 60, part)
            worker.stop(limit=40)
            (entry,) = jobs.entries(long)
            assert (entry["outcome"], entry["reason"]) == ("lost", "its worker was stopped")
            assert not entry["final"]


def test_a_worker_says_once_what_it_waits_for(mortal: MortalServer, start: Start) -> None:
    """Each connection, as soon as its patience has ended."""
    database = mortal.create_database()
    with connected(database) as jobs:
        jobs.db.execute("grant rowcron_python to alice")
        jobs.db.execute("alter role w_worker set synchronous_commit = on")
        url = f"{database.url('w_worker')}&tcp_user_timeout=1000"
        worker = start("--kind", "python,sql", "--lease", "60", "--poll", "30", url=url)
        runs = [jobs.run("python", "sleep", {"seconds": 1}), jobs.run("sql", "select pg_sleep(1)")]
        for run in runs:
            jobs.wait_running(run)
        with mortal.without_standby(database):
            wait_until(lambda: len(worker.events("waits")) >= 2, what="both are told of")
            time.sleep(4)  # nobody says it again
            told = worker.events("waits")
        assert 2 <= len(told) <= 3  # reports, the lane, and perhaps what would be claimed
        for event in told:
            assert event["wait_event"] == "SyncRep"
            assert "the database waits for a synchronous standby" in event["text"]
        assert [jobs.end(run)["outcome"] for run in runs] == ["succeeded"] * 2
        assert worker.stop() == 0


def test_heartbeats_that_wait_for_a_lock_do_not_pile_up(jobs: Jobs, start: Start) -> None:
    start("--kind", "python", "--lease", "2")
    run = jobs.run("python", "sleep", {"seconds": 8})
    jobs.wait_running(run)
    waits = "select count(distinct pid) from pg_locks where not granted"
    most = 0
    with jobs.db.transaction():
        jobs.db.execute("select from rowcron.worker for update")
        until = time.monotonic() + 7  # ten beats
        while time.monotonic() < until:
            (now,) = jobs.db.execute(waits).fetchone() or (0,)
            most = max(most, now)
            time.sleep(0.05)
    assert 1 <= most <= 3  # the pulse, the one before it, the loop's own


def test_an_old_registration_that_is_lost_costs_the_new_one_nothing(
    jobs: Jobs, start: Start
) -> None:
    worker = start("--kind", "python", "--lease", "60", "--poll", "0.2")
    old = jobs.run("python", "sleep_async", {"seconds": 60})
    jobs.wait_running(old)
    first = worker.wait_for("registered")["worker"]
    jobs.db.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'w_worker'"
    )
    wait_until(lambda: len(worker.events("registered")) == 2, what="another registration")
    new = jobs.run("python", "sleep_async", {"seconds": 3})
    jobs.wait_running(new)
    jobs.db.execute("update rowcron.worker set lost_at = now() where id = %s", (first,))
    assert worker.wait_for("lost")["worker"] == first
    entry = jobs.end(new)
    assert (entry["outcome"], len(jobs.entries(new))) == ("succeeded", 1)
    assert {event["worker"] for event in worker.events("lost")} == {first}


def test_a_job_that_never_began_for_want_of_a_connection_has_not_timed_out(
    jobs: Jobs, start: Start, database: Database
) -> None:
    jobs.db.execute("create role w_sql login connection limit 0 in role rowcron_worker")
    try:
        worker = start(
            "--kind", "sql", "--poll", "0.5", "--sql-database-url", database.url("w_sql")
        )
        run = jobs.run("sql", "select 1", timeout="500 ms")
        jobs.wait_running(run)
        worker.wait_for("end", run_id=run, outcome="released")
        assert not [entry for entry in jobs.entries(run) if entry["final"]]
        jobs.db.execute("alter role w_sql connection limit -1")
        assert jobs.end(run)["outcome"] == "succeeded"
        assert {entry["outcome"] for entry in jobs.entries(run)} <= {"succeeded", "released"}
    finally:
        jobs.db.execute("select pg_terminate_backend(pid, 5000) from pg_stat_activity"
                        " where usename = 'w_sql'")  # fmt: skip
        jobs.db.execute("drop owned by w_sql; drop role w_sql")


def test_what_the_database_warns_of_is_logged(jobs: Jobs, start: Start) -> None:
    jobs.db.execute("alter table rowcron.setting disable trigger a10_check")  # stored before it
    jobs.db.execute(
        "update rowcron.setting set value = '\"soon\"' where name = 'change_retention';"
        "update rowcron.setting set value = '\"1970-01-01T00:00:00Z\"' where name = 'maintained_at'"
    )
    worker = start()
    event = worker.wait_for("notice")
    assert event["level"] == "warning"
    assert event["text"].startswith("the database warns: cleaning up rows failed: invalid input")
