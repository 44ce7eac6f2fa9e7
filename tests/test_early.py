"""Runs that begin while their claim is being committed (docs/decisions/027).

The commit of each claim waits, or fails, in a deferred trigger: by then the worker has its answer.
"""

from __future__ import annotations

import signal
import time

import pytest

from harness import Database, wait_until
from test_worker_loop import asleep
from workers import Jobs, Start, WorkerProcess, jobs, start

__all__ = ["jobs", "start"]

SLEEPY = ("--poll", "30", "--lease", "120")
WAIT = 1.5  # seconds
BRAKE = """
create sequence public.claims;
create function public.brake() returns trigger language plpgsql security definer as $$
begin
  perform nextval('public.claims');
  {what}
  return null;
end
$$;
create constraint trigger brake after update on rowcron.run deferrable initially deferred
for each row when (old.state = 'ready' and new.state = 'running') execute function public.brake();
"""
WAITS = f"perform pg_sleep({WAIT});"
FAILS_ONCE = """
  if (select last_value = 1 from public.claims) then
    perform pg_sleep(0.5);
    raise 'no commit';
  end if;
"""


def sleeping(jobs: Jobs, start: Start, what: str, *options: str) -> WorkerProcess:
    """A worker that waits for a notification, and then for each commit of a claim."""
    worker = start(*SLEEPY, *options)
    for _ in range(2):  # it knows that notifications arrive, and has had its own look
        jobs.end(jobs.run("python", "nothing"))
        wait_until(lambda: asleep(jobs.db), what="sleep")
    jobs.db.execute(BRAKE.format(what=what).encode())
    return worker


def seen(jobs: Jobs, run: int) -> str | None:
    """The run's state, as others see it."""
    row = jobs.db.execute("select state from rowcron.run where id = %s", (run,)).fetchone()
    return row and str(row[0])


@pytest.mark.parametrize("handler", ["nothing", "nothing_async"])
def test_a_handler_begins_before_the_commit_and_ends_after_it(
    jobs: Jobs, start: Start, handler: str
) -> None:
    job = jobs.add("python", handler)
    worker = sleeping(jobs, start, WAITS)
    sent = time.monotonic()
    run = jobs.start(job)
    worker.wait_for("start", run_id=run)
    assert time.monotonic() - sent < WAIT
    assert seen(jobs, run) == "ready"
    assert jobs.end(run)["outcome"] == "succeeded"
    assert time.monotonic() - sent > WAIT
    assert len(jobs.entries(run)) == 1


@pytest.mark.parametrize(
    ("kind", "command", "columns"),
    [
        ("python", "nothing", {"on_lost": "fail"}),
        ("python", "insert", {}),
        ("python", "insert_async", {}),
        ("sql", "select 1", {}),
        ("http", "http://127.0.0.1:9/", {}),
        ("shell", "true", {}),
    ],
)
def test_others_begin_after_it(
    jobs: Jobs, start: Start, kind: str, command: str, columns: dict[str, str]
) -> None:
    job = jobs.add(kind, command, **columns)
    worker = sleeping(jobs, start, WAITS, "--kind", "sql,shell,http,python")
    sent = time.monotonic()
    run = jobs.start(job)
    worker.wait_for("start", run_id=run)
    assert time.monotonic() - sent > WAIT
    assert seen(jobs, run) in ("running", None)
    jobs.end(run)


def test_without_a_commit_it_is_stopped_and_begins_anew(jobs: Jobs, start: Start) -> None:
    job = jobs.add("python", "sleep_async", args={"seconds": 2})
    worker = sleeping(jobs, start, FAILS_ONCE)
    run = jobs.start(job)
    worker.wait_for("start", run_id=run)
    assert jobs.end(run)["outcome"] == "succeeded"
    (entry,) = jobs.entries(run)
    assert (entry["attempt"], entry["final"]) == (1, True)
    assert len([event for event in worker.events("start") if event["run_id"] == run]) == 2
    assert worker.wait_for("refused", run_id=run)["outcome"] == "stopped"
    assert jobs.end(jobs.run("python", "nothing"))["outcome"] == "succeeded"


def test_the_end_of_the_session_before_the_commit(
    jobs: Jobs, start: Start, database: Database
) -> None:
    job = jobs.add("python", "sleep_async", args={"seconds": 3})
    worker = sleeping(jobs, start, WAITS)
    run = jobs.start(job)
    worker.wait_for("start", run_id=run)
    ended = jobs.db.execute(
        "select pg_terminate_backend(a.pid) from pg_stat_activity as a"
        " where a.query ~ 'claim_ready' and a.state = 'active' and a.pid <> pg_backend_pid()"
    ).fetchall()
    assert ended == [(True,)]
    jobs.db.execute("drop trigger brake on rowcron.run")
    assert jobs.end(run)["outcome"] == "succeeded"
    assert [entry["attempt"] for entry in jobs.entries(run)] == [1]
    worker.wait_for("refused", run_id=run)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_stop_before_the_commit(jobs: Jobs, start: Start, number: signal.Signals) -> None:
    seconds = 0 if number == signal.SIGTERM else 60
    job = jobs.add("python", "sleep_async", args={"seconds": seconds})
    worker = sleeping(jobs, start, WAITS)
    run = jobs.start(job)
    worker.wait_for("start", run_id=run)
    assert worker.stop(number) == 0
    jobs.db.execute("drop trigger brake on rowcron.run")
    jobs.owner.execute("update rowcron.job set args = '{\"seconds\": 0}'")
    start()
    assert jobs.end(run)["outcome"] == "succeeded"
    assert jobs.entries(run)[-1]["final"]


def test_an_older_schema_hands_out_nothing_before_the_commit(jobs: Jobs, start: Start) -> None:
    """Its short claim may bring what must not begin twice."""
    jobs.db.execute("drop function rowcron.pin_plans()")
    job = jobs.add("python", "nothing")
    worker = sleeping(jobs, start, WAITS)
    sent = time.monotonic()
    run = jobs.start(job)
    worker.wait_for("start", run_id=run)
    assert time.monotonic() - sent > WAIT
    assert jobs.end(run)["outcome"] == "succeeded"


def test_runs_begin_in_the_order_of_the_claim(jobs: Jobs, start: Start) -> None:
    names = [jobs.add("python", "nothing_async", priority=priority) for priority in (1, 3, 2)]
    worker = sleeping(jobs, start, "")
    for _ in range(5):
        with jobs.owner.transaction():
            runs = [jobs.start(name) for name in names]
        for run in runs:
            jobs.end(run)
        begun = [e["run_id"] for e in worker.events("start") if e["run_id"] in runs]
        assert begun == [runs[1], runs[2], runs[0]]
        wait_until(lambda: asleep(jobs.db), what="sleep")


def test_reports_of_others_do_not_wait_for_the_commit(jobs: Jobs, start: Start) -> None:
    first, second = (jobs.add("python", "sleep_async", args={"seconds": s}) for s in (1, 0))
    worker = sleeping(jobs, start, f"perform pg_sleep({WAIT} * (nextval('public.claims') - 2));")
    ended = jobs.start(first)  # its claim is committed at once
    wait_until(lambda: seen(jobs, ended) == "running", what="the first")
    wait_until(lambda: asleep(jobs.db), what="sleep")
    time.sleep(0.5)
    held = jobs.start(second)
    worker.wait_for("start", run_id=held)
    assert jobs.end(ended)["outcome"] == "succeeded"
    assert seen(jobs, held) == "ready"
    assert jobs.end(held)["outcome"] == "succeeded"


def test_what_does_not_stop_is_let_go_when_its_run_begins_anew(jobs: Jobs, start: Start) -> None:
    """A thread may not heed that it is to stop; its registration must not wait for ever."""
    job = jobs.add("python", "stubborn", args={"seconds": 4})
    worker = sleeping(jobs, start, FAILS_ONCE, "--kill-grace", "10", "--lease", "10")
    run = jobs.start(job)
    worker.wait_for("start", run_id=run)
    wait_until(lambda: seen(jobs, run) == "running", what="the second claim")
    worker.wait_for("refused", run_id=run)
    assert jobs.end(run)["outcome"] == "succeeded"
    live = "select count(*) from rowcron.worker where lost_at is null"
    wait_until(lambda: jobs.db.execute(live).fetchone() == (1,), what="one registration")
