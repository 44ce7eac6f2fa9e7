"""A report that the database refuses holds up neither other reports nor, for good, its run."""

from __future__ import annotations

import time

import psycopg

from harness import wait_until
from workers import Jobs, Start, jobs, start

__all__ = ["jobs", "start"]


def forbid(db: psycopg.Connection, outcomes: str = "null") -> None:
    """Let the ledger take no entry of bad jobs but of these outcomes."""
    db.execute(
        f"""
        create or replace function public.forbid() returns trigger language plpgsql as $$
        begin
          if new.args ? 'bad' and (new.outcome in ({outcomes})) is not true then
            raise exception 'no such entry';
          end if;
          return new;
        end
        $$;
        create or replace trigger forbid before insert on rowcron.ledger
        for each row execute function public.forbid()
        """.encode()
    )


def test_reports_that_are_refused_hold_up_no_others(jobs: Jobs, start: Start) -> None:
    forbid(jobs.db)
    worker = start("--kind", "python", "--poll", "0.5")
    bad = [jobs.run("python", "whole", {"bad": n}) for n in range(12)]
    for run in bad:
        worker.wait_for("unstored", run_id=run)
    waits = []
    for _ in range(20):
        begin = time.monotonic()
        assert jobs.end(jobs.run("python", "nothing"))["outcome"] == "succeeded"
        waits.append(time.monotonic() - begin)
    assert sorted(waits)[-3] < 1, waits
    assert worker.events("unavailable") == []
    assert len(worker.events("unstored")) == len(bad)
    # told once each, tried on: when it is taken after all, its end is what it was or why not
    forbid(jobs.db, "'succeeded', 'failed'")
    for run in bad:
        assert jobs.end(run)["outcome"] in ("succeeded", "failed")
    assert worker.stop() == 0


def test_a_report_that_alone_is_refused_becomes_one_of_a_failure(jobs: Jobs, start: Start) -> None:
    forbid(jobs.db, "'failed'")
    worker = start("--kind", "python", "--poll", "0.5")
    run = jobs.run("python", "whole", {"bad": 1})
    worker.wait_for("unstored", run_id=run)
    assert jobs.end(jobs.run("python", "nothing"))["outcome"] == "succeeded"
    entry = jobs.end(run, 30)
    assert (entry["outcome"], entry["reason"]) == ("failed", "report")
    assert entry["error"] == "succeeded, but the report could not be stored: no such entry"
    assert worker.stop() == 0


def test_what_all_reports_meet_makes_none_of_them_a_failure(jobs: Jobs, start: Start) -> None:
    forbid(jobs.db, "'failed'")
    worker = start("--kind", "python", "--poll", "0.5")
    run = jobs.run("python", "whole", {"bad": 1})
    worker.wait_for("unstored", run_id=run)
    time.sleep(6)  # more refusals than it takes where others' reports are taken
    jobs.db.execute("drop trigger forbid on rowcron.ledger")
    assert jobs.end(run)["outcome"] == "succeeded"
    assert worker.stop() == 0


def test_reports_that_are_refused_do_not_gather_without_end(jobs: Jobs, start: Start) -> None:
    """Beyond a bound nothing is claimed until there is room again."""
    forbid(jobs.db)
    name = jobs.add("python", "whole")
    enqueue = """
      select count(rowcron.enqueue(%s, '{"bad": 1}', owner => 'alice'))
      from generate_series(1, 5000)
    """
    jobs.db.execute(enqueue, (name,))
    last = jobs.run("python", "nothing", priority=-1)
    worker = start("--kind", "python", "--poll", "0.5", "--concurrency", "50")
    query = "select count(*) from rowcron.run where state = 'running'"

    def held() -> int:
        (count,) = jobs.db.execute(query).fetchone() or (0,)
        return int(count)

    wait_until(lambda: held() > 2_100, what="reports to gather")
    until = time.monotonic() + 4
    while time.monotonic() < until:
        assert held() < 2_100 + 1_000  # the last claim may bring more than there is room for
        time.sleep(0.2)
    jobs.db.execute("drop trigger forbid on rowcron.ledger")
    assert jobs.end(last, 60)["outcome"] == "succeeded"
    wait_until(lambda: held() == 0, what="the end of all")
    outcomes = "select outcome, count(*) from rowcron.ledger where job = %s group by 1"
    assert jobs.db.execute(outcomes, (name,)).fetchall() == [("succeeded", 5000)]
    assert worker.stop() == 0
