"""Claims that must hold, claims that must be given up, and cancels that take hold at once."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from chaos.size import LONG, percentiles, sized, table
from harness import wait_until
from workers import Jobs, Start, jobs, start

__all__ = ["jobs", "start"]
ALL = ("--kind", "sql,shell,http,python", "--app", "chaos.app")
APP = ("--app", "chaos.app")
SLACK = 0.5  # seconds, for a machine that does much else


def outcomes(jobs: Jobs, run: int) -> list[str]:
    """Return how the attempts at a run have ended."""
    return [entry["outcome"] for entry in jobs.entries(run)]


def cancel(jobs: Jobs, run: int) -> float:
    """Cancel a run as its owner; return the seconds from there to its end, by one clock."""
    begin = jobs.db.execute("select clock_timestamp()").fetchone()[0]
    jobs.owner.execute("select rowcron.cancel(%s)", (run,))
    entry = jobs.end(run)
    assert entry["outcome"] == "cancelled", entry
    return float((entry["finished_at"] - begin).total_seconds())


def alive(pid: int) -> bool:
    """Return whether a process is there, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii").rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_run_that_kills_its_worker_again_and_again_ends_as_lost(jobs: Jobs, start: Start) -> None:
    worker = start(*APP, "--processes", "2", "--lease", "1", "--poll", "0.5", wait=False)
    run = jobs.run("python", "deadly")
    entry = jobs.end(run, 60)
    assert (entry["outcome"], entry["attempt"]) == ("lost", 3)
    assert "lost 3 times" in entry["reason"]
    assert outcomes(jobs, run) == ["lost"] * 3
    assert [entry["final"] for entry in jobs.entries(run)] == [False, False, True]
    assert len({entry["worker_id"] for entry in jobs.entries(run)}) == 3
    once = jobs.run("python", "deadly", on_lost="fail")
    entry = jobs.end(once, 60)
    assert (entry["outcome"], entry["attempt"], entry["final"]) == ("lost", 1, True)
    assert "on_lost" in entry["reason"]
    assert jobs.end(jobs.run("python", "nothing"))["outcome"] == "succeeded"
    assert worker.stop() == 0


def test_a_handler_that_blocks_the_loop_does_not_cost_the_claim(jobs: Jobs, start: Start) -> None:
    start(*APP, "--lease", "1", "--poll", "0.3")
    run = jobs.run("python", "blocking", {"seconds": 3})
    jobs.wait_running(run)
    start("--lease", "1", "--poll", "0.3", "--kind", "sql")  # looks for lost claims
    assert jobs.end(run)["outcome"] == "succeeded"
    assert outcomes(jobs, run) == ["succeeded"]


def test_a_worker_stopped_past_its_lease_takes_its_processes_down_when_it_goes_on(
    jobs: Jobs, start: Start, tmp_path: Path
) -> None:
    first = start(*ALL, "--lease", "1", "--poll", "0.3")
    pids = tmp_path / "pids"
    run = jobs.run(
        "shell",
        f'[ "$ROWCRON_ATTEMPT" -gt 1 ] && exit; sleep 60 & echo $$ $! > {pids}.new;'
        f" mv {pids}.new {pids}; wait",
    )
    group = [int(pid) for pid in wait_until(lambda: pids.exists() and pids.read_text()).split()]
    first.send(signal.SIGSTOP)
    start(*ALL, "--lease", "1", "--poll", "0.3")
    assert jobs.end(run)["attempt"] == 2
    assert all(alive(pid) for pid in group)  # nobody could stop them
    first.send(signal.SIGCONT)
    wait_until(lambda: not any(alive(pid) for pid in group), what="the end of the group")
    assert first.wait_for("lost")["code"] == "RCWRK"
    assert outcomes(jobs, run) == ["lost", "succeeded"]
    assert first.stop() == 0


@pytest.mark.parametrize("listening", [True, False] if LONG else [True])
def test_a_cancel_takes_hold_at_once_whatever_the_kind(
    jobs: Jobs, start: Start, tmp_path: Path, listening: bool
) -> None:
    lease = 60 if listening else 3  # a heartbeat a third of it
    if not listening:
        jobs.db.execute("update rowcron.setting set value = 'false' where name = 'notify'")
    for _ in range(2):
        start(*ALL, "--lease", str(lease), "--poll", "30", "--concurrency", "3")
    pids = tmp_path / "pids"
    group = f"sleep 60 & echo $$ $! > {pids}.new; mv {pids}.new {pids}; wait"
    runs = {
        "sql": jobs.run("sql", "select pg_sleep(60)"),
        "shell": jobs.run("shell", group),
        "stubborn shell": jobs.run("shell", "trap '' TERM; while :; do sleep 1; done"),
        "python": jobs.run("python", "sleep", {"seconds": 60}),
        "async python": jobs.run("python", "sleep_async", {"seconds": 60}),
    }
    for run in runs.values():
        jobs.wait_running(run)
    waiting = jobs.start(jobs.add("python", "nothing"))
    processes = [int(p) for p in wait_until(lambda: pids.exists() and pids.read_text()).split()]
    took = {kind: cancel(jobs, run) for kind, run in runs.items()}
    print(table("cancel", {kind: f"{seconds:.2f} s" for kind, seconds in took.items()}))
    bound = (1.0 if listening else lease / 3 + 1.0) + SLACK
    assert took.pop("stubborn shell") < bound + 1.0  # --kill-grace is one second here
    assert max(took.values()) < bound, took
    assert not any(alive(pid) for pid in processes)
    assert jobs.end(waiting)["outcome"] == "succeeded"


def test_a_run_that_waits_is_cancelled_with_no_worker_at_all(jobs: Jobs) -> None:
    later = jobs.owner.execute(
        "select rowcron.enqueue(%s, due_at => now() + interval '1 hour')",
        (jobs.add("python", "nothing"),),
    ).fetchone()[0]
    ready = jobs.start(jobs.add("sql", "select 1"))
    for run in (later, ready):
        assert cancel(jobs, run) < 1.0
    assert jobs.db.execute("select count(*) from rowcron.run").fetchone() == (0,)


def test_a_worker_that_is_busy_hears_of_a_cancel(jobs: Jobs, start: Start) -> None:
    """It never sleeps, so it never asks before the heartbeat's thread does."""
    start(*APP, "--kind", "python,sql", "--lease", "60", "--poll", "30", "--concurrency", "20")
    busy = jobs.add("python", "sleep", args={"seconds": 0.05})
    long = jobs.add("python", "sleep", args={"seconds": 60})
    held = [jobs.start(long) for _ in range(sized(3, 10))]
    for run in held:
        jobs.wait_running(run)
    many = "select count(*) from rowcron.enqueue_many(%s, array_fill(null::jsonb, array[%s]))"
    jobs.owner.execute(many, (busy, 500 * len(held)))
    took = [cancel(jobs, run) for run in held]
    left = jobs.db.execute("select count(*) from rowcron.run").fetchone()[0]
    print(table("cancel on a busy worker", {"took": percentiles(took), "runs left": left}))
    assert left > 0, "the worker was idle"
    assert max(took) < 1.0 + SLACK, took
