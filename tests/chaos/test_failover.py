"""A primary dies, its synchronous standby takes over: nothing acknowledged is lost or doubled."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from chaos.pair import Node, address
from chaos.pooler import pooling
from chaos.size import percentiles, sized, table
from harness import WORKER, Database, TestServer, wait_until
from soak.compare import compare
from soak.jobs import Job
from test_faults import _entries
from workers import Jobs, Start, start

__all__ = ["start"]
EFFECT = "insert into public.effect values (0, current_setting('rowcron.run_id')::bigint)"

FINAL = "select 1 from rowcron.ledger where final and run_id > %s"
GAP = """
  select max(gap) from (
    select extract(epoch from finished_at - lag(finished_at) over (order by finished_at))
    from rowcron.ledger
    where final and finished_at > clock_timestamp() - %s * interval '1 s'
  ) as l (gap)
"""


@pytest.fixture
def nodes(server: TestServer) -> Iterator[tuple[Node, Node]]:
    """A primary with the template, and a standby that its commits wait for."""
    first, second = Node(server.bin), Node(server.bin)
    try:
        first.start()
        first.make_template()
        second.start(first)
        first.require()
        yield first, second
    finally:
        first.stop()
        second.stop()


class Enqueuer(threading.Thread):
    """Enqueues without pause; knows what was acknowledged, and when there was no service."""

    def __init__(self, url: str, jobs: list[str]) -> None:
        super().__init__(daemon=True)
        self.url = url
        self.jobs = jobs
        self.acknowledged: list[int] = []
        self.last = time.monotonic()
        self.gap = 0.0
        self.over = threading.Event()

    def run(self) -> None:
        """Enqueue until it is over."""
        while not self.over.is_set():
            try:
                with psycopg.connect(self.url, autocommit=True) as conn:
                    self._enqueue(conn)
            except psycopg.Error:
                time.sleep(0.02)

    def _enqueue(self, conn: psycopg.Connection[Any]) -> None:
        while not self.over.is_set():
            name = self.jobs[len(self.acknowledged) % len(self.jobs)]
            row = conn.execute("select rowcron.enqueue(%s)", (name,)).fetchone()
            now = time.monotonic()
            self.gap, self.last = max(self.gap, now - self.last), now
            self.acknowledged.append(row[0])
            time.sleep(0.01)


def test_no_acknowledged_run_is_lost_or_doubled(nodes: tuple[Node, Node], start: Start) -> None:
    primary, standby = nodes
    database = primary.create_database()
    connections = [
        psycopg.connect(address(nodes, role, database.name), autocommit=True)
        for role in ("alice", "postgres")
    ]
    jobs = Jobs(*connections)
    jobs.db.execute("grant rowcron_python to alice")
    jobs.db.execute("create table public.effect (n integer, run_id bigint)")
    jobs.db.execute("grant all on public.effect to alice")
    names = [
        jobs.add("sql", f"{EFFECT}; select pg_sleep(0.02)", max_lost=100),
        jobs.add("python", "insert", max_lost=100),
        jobs.add("python", "insert_async", max_lost=100),
    ]
    now = jobs.db.execute("select date_trunc('second', clock_timestamp())").fetchone()[0]
    begin = now + timedelta(seconds=2)
    scheduled = jobs.add(
        "sql", EFFECT, schedule="* * * * * *", starts_at=begin, max_lost=100, on_overlap="wait"
    )
    for conn in connections:
        conn.close()
    url, handed = (address(nodes, role, database.name) for role in (WORKER, "alice"))
    workers = [
        start("--poll", "1", "--handler-database-url", handed, url=url, wait=True) for _ in range(2)
    ]
    enqueuers = [Enqueuer(handed, names) for _ in range(2)]
    for enqueuer in enqueuers:
        enqueuer.start()
    downs: list[float] = []
    gaps: list[float] = []
    for again in range(rounds := sized(1, 10)):
        if again:
            wait_until(lambda: all(time.monotonic() - e.last < 0.5 for e in enqueuers), 60)
            standby.start(primary)
            primary.require()
        for enqueuer in enqueuers:
            before, enqueuer.gap = len(enqueuer.acknowledged), 0.0
            wait_until(lambda e=enqueuer, n=before: len(e.acknowledged) > n + 50, 60, "progress")
            enqueuer.gap = 0.0
        with ExitStack() as stack:
            if not again:
                stack.enter_context(waiting(standby, database.name, start))
            killed = time.monotonic()
            primary.kill()
            standby.promote()
        for enqueuer in enqueuers:
            before = len(enqueuer.acknowledged)
            wait_until(lambda e=enqueuer, n=before: len(e.acknowledged) > n + 50, 60, "service")
        downs += [enqueuer.gap for enqueuer in enqueuers]
        primary, standby = standby, primary
        with psycopg.connect(primary.url("postgres", database.name), autocommit=True) as db:
            mark = db.execute("select coalesce(max(id), 0) from rowcron.run").fetchone()
            wait_until(lambda db=db, m=mark: db.execute(FINAL, m).fetchone(), 60, "a run's end")
            (gap,) = db.execute(GAP, (time.monotonic() - killed + 2,)).fetchone()
            gaps.append(float(gap))
    for enqueuer in enqueuers:
        enqueuer.over.set()
        enqueuer.join(20)
    with ExitStack() as stack:
        alice, db = (
            stack.enter_context(psycopg.connect(primary.url(role, database.name), autocommit=True))
            for role in ("alice", "postgres")
        )
        jobs = Jobs(alice, db)
        (now,) = db.execute("select date_trunc('second', clock_timestamp())").fetchone()
        end = now + timedelta(seconds=2)
        alice.execute("update rowcron.job set ends_at = %s where name = %s", (end, scheduled))
        live = "select count(*) from rowcron.run"
        due = "select count(*) from rowcron.agenda where next_run_at is not null"
        for query in (due, live):
            wait_until(lambda q=query: db.execute(q.encode()).fetchone() == (0,), 60, "the end")
        acknowledged = [run for enqueuer in enqueuers for run in enqueuer.acknowledged]
        assert len(set(acknowledged)) == len(acknowledged)
        ended_well = "select run_id from rowcron.ledger where final and outcome = 'succeeded'"
        succeeded = [run for (run,) in db.execute(ended_well.encode())]
        assert len(set(succeeded)) == len(succeeded)
        assert set(acknowledged) - set(succeeded) == set()
        effects = sorted(run for (run,) in db.execute("select run_id from public.effect"))
        assert effects == sorted(succeeded)
        job = Job("alice", scheduled, "sql", "* * * * * *", "")
        compared = compare(job, _entries(jobs, scheduled), begin, end)
        assert compared.differences == [], compared
        lost = db.execute("select count(*) from rowcron.ledger where outcome = 'lost'").fetchone()
    rows: dict[str, object] = {
        "failovers": rounds,
        "acknowledged, lost, doubled": f"{len(acknowledged)}, 0, 0",
        "runs that ended": len(succeeded),
        "attempts lost": lost[0],
        "occurrences": compared.outcomes,
        "no enqueue answered for": percentiles(downs),
        "no run ended for": percentiles(gaps),
    }
    print(table("Failover to a synchronous standby", rows))
    for worker in workers:
        assert worker.stop() == 0


@contextmanager
def waiting(standby: Node, name: str, start: Start) -> Iterator[None]:
    """Workers that know the standby alone, directly and through a pooler; they wait for it."""
    database = Database(name, standby)
    wait_until(lambda: _answers(database.url("postgres")), what="the database on the standby")
    with pooling(standby) as pooler:
        twice = f"host={standby.socket},{standby.socket} user={WORKER} dbname={name}"
        urls = (database.url(WORKER), pooler.url(WORKER, name), twice)
        workers = [start("--queue", "none", url=url, wait=False) for url in urls]
        for worker in workers:
            worker.wait_for("unavailable")
        for worker in workers[:2]:
            (event,) = worker.events("unavailable")
            assert "the server is a standby, which takes no writes" in event["text"]
        time.sleep(1)  # several tries
        yield
        for worker in workers:
            worker.wait_for("worker")  # through a pooler, too, whose greeting may be an old one
            worker.wait_for("reconnect")
            assert len(worker.events("unavailable")) == 1
            assert worker.stop() == 0


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True
