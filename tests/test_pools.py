"""The connections that handlers are lent: few of them, and runs that are stopped."""

from __future__ import annotations

import time

import psycopg
import pytest

from harness import wait_until
from workers import Jobs, Start, jobs, start

__all__ = ["jobs", "start"]
both = pytest.mark.parametrize("kind", ["", "_async"], ids=["plain", "async"])


def sessions(db: psycopg.Connection) -> set[int]:
    """Those in which a handler's transaction is open."""
    found = db.execute(
        "select pid from pg_stat_activity where usename = 'alice' and state like 'idle in%'"
        " and datname = current_database()"
    )
    return {pid for (pid,) in found.fetchall()}


@both
def test_a_connection_whose_run_was_stopped_is_lent_no_more(
    jobs: Jobs, start: Start, kind: str
) -> None:
    start("--handler-connections", "1")
    name = jobs.add("python", f"dwell{kind}")
    first = jobs.end(jobs.start(name, {"seconds": 0}))["result"]
    held = jobs.start(name, {"seconds": 20})
    assert wait_until(lambda: sessions(jobs.db)) == {first}, "one that ended by itself is"
    jobs.owner.execute("select rowcron.cancel(%s)", [held])
    assert jobs.end(held)["outcome"] == "cancelled"
    # the server's word that it has cancelled may come when the next one's statement is under way
    assert jobs.end(jobs.start(name, {"seconds": 0}))["result"] != first


@both
def test_who_is_stopped_while_waiting_takes_nobodys_turn(
    jobs: Jobs, start: Start, kind: str
) -> None:
    start("--handler-connections", "1")
    name = jobs.add("python", f"dwell{kind}")
    first = jobs.start(name, {"seconds": 3})
    wait_until(lambda: sessions(jobs.db))
    second, third = (jobs.start(name, {"seconds": 0}) for _ in range(2))
    jobs.wait_running(third)
    time.sleep(0.3)
    begin = time.monotonic()
    jobs.owner.execute("select rowcron.cancel(%s)", [second])
    entry = jobs.end(second)
    assert (entry["outcome"], "goes on" in (entry["error"] or "")) == ("cancelled", False)
    assert time.monotonic() - begin < 2
    assert jobs.end(third, 15)["outcome"] == "succeeded"
    assert jobs.end(first)["outcome"] == "succeeded"


@both
def test_a_login_that_is_refused_for_a_while_costs_no_attempt(
    jobs: Jobs, start: Start, kind: str
) -> None:
    worker = start()
    name = jobs.add("python", f"dwell{kind}", on_lost="fail")
    jobs.db.execute("alter role alice connection limit 0")
    try:
        run = jobs.start(name, {"seconds": 0})
        jobs.wait_running(run)
        time.sleep(1)
        assert jobs.running(run)
    finally:
        jobs.db.execute("alter role alice connection limit -1")
    assert jobs.end(run)["outcome"] == "succeeded"
    assert [entry["attempt"] for entry in jobs.entries(run)] == [1]
    jobs.db.execute("alter role alice connection limit 0")
    try:
        worker.stop()
        again = start("--grace", "1", "--kill-grace", "1")
        run = jobs.start(name, {"seconds": 0})
        jobs.wait_running(run)
        again.stop()
    finally:
        jobs.db.execute("alter role alice connection limit -1")
    assert (jobs.entries(run), jobs.running(run)) == ([], False), "it never began: given back"
