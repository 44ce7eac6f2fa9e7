"""The short claim (chapter 062): whoever is told that runs are ready takes them and sleeps on.

The workers here poll every half minute, so that what they sleep through is late.
"""

from __future__ import annotations

import re
import time
from uuid import uuid4

import psycopg

from harness import Database, TestServer, wait_until
from rowcron.database import LOOK
from test_worker_loop import asleep
from workers import Jobs, Start, jobs, start

__all__ = ["jobs", "start"]

SLEEPY = ("--poll", "30", "--lease", "120")
READY = (  # None: there may be more
    "select run_id from rowcron.claim_ready(%s, %s, null, '{sql}', null, '1 hour')"
    " where run_id is not null or timeout is null"
)


def test_what_another_claim_holds_is_word_of_more(
    database: Database, alice: psycopg.Connection
) -> None:
    """A claim that is not committed yet may not be, and then nobody is told again."""
    alice.execute("set client_min_messages = error")
    for queue in ("a", "b", "c"):
        alice.execute(
            "insert into rowcron.job (name, queue, command) values (%(q)s, %(q)s, 'select 1')",
            {"q": queue},
        )

    def enqueue() -> list[int]:
        rows = alice.execute(
            "select rowcron.enqueue(q) from unnest('{a,b,c}'::text[]) as q"
        ).fetchall()
        return [row[0] for row in rows]

    url, mine, yours = database.url("w_worker"), uuid4(), uuid4()
    with psycopg.connect(url, autocommit=True) as me, psycopg.connect(url, autocommit=True) as you:
        for db, worker in ((me, mine), (you, yours)):
            db.execute("select rowcron.pin_plans()")
            db.execute(
                "select from rowcron.claim(%s, 0, null, '{sql}', lease => '1 hour')", (worker,)
            )
        runs = enqueue()
        with me.transaction():
            assert me.execute(READY, (mine, 1)).fetchall() == [(runs[0],), (None,)]
            # the others are not locked, the first may be free again
            assert you.execute(READY, (yours, 9)).fetchall() == [(runs[1],), (runs[2],), (None,)]
        assert you.execute(READY, (yours, 9)).fetchall() == []
        runs = enqueue()
        with me.transaction(force_rollback=True):
            assert me.execute(READY, (mine, 9)).fetchall() == [(run,) for run in runs]
            assert you.execute(READY, (yours, 9)).fetchall() == [(None,)]
        assert you.execute(READY, (yours, 9)).fetchall() == [(run,) for run in runs]


def test_the_announced_sleep_stands_while_little_comes(
    jobs: Jobs, start: Start, server: TestServer
) -> None:
    name = jobs.add("python", "nothing")
    jobs.db.execute("alter role w_worker set log_statement to 'all'")
    try:
        start(*SLEEPY)
        jobs.end(jobs.start(name))  # by now it knows that notifications arrive
        wait_until(lambda: asleep(jobs.db), what="sleep")
        log = server.base / "log"
        begin, began = log.stat().st_size, time.monotonic()
        for _ in range(10):
            jobs.end(jobs.start(name))
        with log.open("rb") as file:
            file.seek(begin)
            said = re.findall(rb"LOG: +execute .*?rowcron\.(\w+)\(", file.read())
    finally:
        jobs.db.execute("alter role w_worker reset log_statement")
    assert said.count(b"claim_ready") == said.count(b"finish") == 10
    beats = said.count(b"heartbeat")
    assert beats <= 3 + (time.monotonic() - began) / (LOOK / 2), said


def test_nothing_that_becomes_due_meanwhile_is_slept_through(jobs: Jobs, start: Start) -> None:
    start(*SLEEPY)
    often = jobs.add("python", "nothing")
    limited = jobs.add("sql", "select pg_sleep(0.1)", max_running=1)
    wait_until(lambda: asleep(jobs.db), what="sleep")
    jobs.end(jobs.start(often))
    query = "select rowcron.enqueue(%s) from generate_series(1, 4)"
    for run in jobs.owner.execute(query, (limited,)).fetchall():
        jobs.end(run[0])
    late = jobs.owner.execute(
        "select rowcron.enqueue(%s, due_at => now() + interval '1 second')", (often,)
    ).fetchone()[0]
    jobs.end(jobs.start(often))
    jobs.end(late)
    many = jobs.owner.execute("select rowcron.enqueue(%s) from generate_series(1, 40)", (often,))
    for run in many.fetchall():
        jobs.end(run[0])


def test_a_retry_is_not_slept_through(jobs: Jobs, start: Start) -> None:
    start(*SLEEPY)
    often = jobs.add("python", "nothing")
    for kind, command, args in (
        ("python", "fail", {"how": "raise"}),
        ("sql", "select pg_sleep(0.2), 1 / 0", {}),
    ):
        retry = {"max_attempts": 3, "retry_delay": "1.5 seconds", "retry_backoff": 1}
        failing = jobs.add(kind, command, args=args, **retry)
        wait_until(lambda: asleep(jobs.db), what="sleep")
        run = jobs.start(failing)
        jobs.end(jobs.start(often))  # in between
        jobs.end(run)
        assert [entry["outcome"] for entry in jobs.entries(run)] == ["failed"] * 3


def test_what_counts_from_the_end_is_not_slept_through(jobs: Jobs, start: Start) -> None:
    start(*SLEEPY)
    args = {"seconds": 0.3}
    after = jobs.add("python", "sleep_async", schedule="@after 1500 milliseconds", args=args)
    ended = "select count(*) from rowcron.ledger where job = %s"
    wait_until(lambda: jobs.db.execute(ended, (after,)).fetchone()[0] >= 4, 15, "four in a row")


def test_workers_with_one_slot_share_what_comes_at_once(jobs: Jobs, start: Start) -> None:
    for _ in range(3):
        start(*SLEEPY, "--concurrency", "1")
    names = [jobs.add("python", "sleep_async", queue=queue, args={"seconds": 2}) for queue in "abc"]
    query = "select from rowcron.worker where not asleep or unsettled <> '{}'"
    for _ in range(3):
        wait_until(lambda: jobs.db.execute(query).fetchone() is None, what="all asleep")
        runs = jobs.owner.execute(
            "select rowcron.enqueue(n) from unnest(%s::text[]) as n", (names,)
        )
        ends = [jobs.end(run[0]) for run in runs.fetchall()]
        assert len({end["worker_id"] for end in ends}) == 3
        starts = [end["started_at"] for end in ends]
        assert (max(starts) - min(starts)).total_seconds() < 1.5
