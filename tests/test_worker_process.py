"""The worker's process: its end, its signals, its children, its descriptors."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from harness import wait_until
from rowcron.commands._signals import stoppable
from workers import Jobs, Start, WorkerProcess, jobs, start

__all__ = ["jobs", "start"]

pytestmark = pytest.mark.executed

APP = ("--app", "process_app", "--kind", "python")


def stopped_at_once(worker: WorkerProcess, processes: int = 1) -> int:
    """Tell it twice to stop; return its exit code."""
    worker.send(signal.SIGTERM)
    wait_until(lambda: len(worker.events("drain")) == processes, what="the drain")
    worker.send(signal.SIGTERM)
    return worker.process.wait(8)


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("name", ["in_thread", "in_pool", "in_pool_plain", "deaf"])
def test_a_stop_at_once_ends_what_handlers_have_begun(
    jobs: Jobs, start: Start, tmp_path: Path, name: str, loop: str
) -> None:
    marks = tmp_path / "marks"
    worker = start(*APP, "--event-loop", loop, TEST_FAREWELLS=str(tmp_path))
    run = jobs.run("python", name, {"file": str(marks)})
    wait_until(marks.exists, what="the handler")
    assert stopped_at_once(worker) == 0
    query = "select state, attempt from rowcron.run where id = %s"
    assert jobs.db.execute(query, (run,)).fetchall() == [("ready", 2)]
    assert (tmp_path / str(worker.process.pid)).exists()  # what an app registers is called
    console = worker.console.read_text("utf-8")
    assert "worker stopped" in console
    assert "Traceback" not in console
    assert "was destroyed" not in console


def test_a_stop_at_once_ends_it_in_several_processes(
    jobs: Jobs, start: Start, tmp_path: Path
) -> None:
    marks = [tmp_path / name for name in ("some", "others")]
    worker = start(*APP, "--processes", "2", "--concurrency", "1", wait=False)
    for file in marks:
        jobs.run("python", "in_thread", {"file": str(file)})
    wait_until(lambda: all(file.exists() for file in marks), what="both handlers")
    assert stopped_at_once(worker, 2) == 0
    lengths = [file.stat().st_size for file in marks]
    time.sleep(0.3)  # what is measured: six marks' time
    assert [file.stat().st_size for file in marks] == lengths


def test_a_drain_does_not_wait_for_the_thread_of_a_run_that_was_cancelled(
    jobs: Jobs, start: Start, tmp_path: Path
) -> None:
    marks = tmp_path / "marks"
    worker = start(*APP)
    run = jobs.run("python", "in_thread", {"file": str(marks)})
    wait_until(marks.exists, what="the handler")
    jobs.owner.execute("select rowcron.cancel(%s)", (run,))
    assert jobs.end(run)["outcome"] == "cancelled"
    assert worker.stop(limit=8) == 0


@pytest.mark.once
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_child_that_a_handler_forked_has_signals_of_its_own(
    jobs: Jobs, start: Start, loop: str
) -> None:
    worker = start(*APP, "--event-loop", loop)
    for _ in range(3):
        assert jobs.end(jobs.run("python", "end_child"))["result"] == -signal.SIGTERM
    assert worker.events("drain") == []
    assert worker.stop() == 0


def test_a_supervisor_that_is_stopped_replaces_nobody(
    jobs: Jobs, start: Start, tmp_path: Path
) -> None:
    crash = tmp_path / "crash"
    crash.touch()
    worker = start(*APP, "--processes", "2", wait=False, TEST_CRASH=str(crash))
    wait_until(lambda: b"starting another" in worker.console.read_bytes(), what="a crash")
    crash.unlink()
    assert worker.stop(limit=8) in (0, 3)  # 3: the other one's crash is seen later
    assert worker.events("worker") == []


def test_a_signal_that_comes_as_a_process_is_forked_stops_it(jobs: Jobs, start: Start) -> None:
    for _ in range(5):
        worker = start(*APP, "--processes", "8", wait=False)
        children = Path(f"/proc/{worker.process.pid}/task/{worker.process.pid}/children")
        until = time.monotonic() + 20
        while not children.read_bytes() and time.monotonic() < until:
            pass  # the moment is short
        assert worker.stop(limit=10) == 0


@pytest.mark.parametrize("name", ["fail_oddly", "fail_oddly_async"])
def test_an_exception_that_breaks_whoever_looks_at_it_is_a_failure_too(
    jobs: Jobs, start: Start, name: str
) -> None:
    worker = start(*APP, "--concurrency", "1")
    told = {
        how: jobs.end(jobs.run("python", name, {"how": how}))
        for how in ("busy", "moody", "mute", "never")
    }
    assert {(e["outcome"], e["reason"]) for e in told.values()} == {("failed", "exception")}
    assert "process_app.Busy" in told["busy"]["error"]
    assert "Moody" in told["moody"]["error"]
    assert "process_app.Mute" in told["mute"]["error"]
    assert "process_app.Never" in told["never"]["error"]
    assert worker.stop() == 0


@pytest.mark.parametrize("seconds", ["0", "-1"])
def test_a_worker_that_connects_with_endless_patience_works(
    jobs: Jobs, start: Start, worker_url: str, seconds: str
) -> None:
    worker = start("--kind", "python,sql", url=f"{worker_url}&connect_timeout={seconds}")
    for kind, command in (("python", "nothing"), ("sql", "select 1"), ("python", "insert")):
        assert jobs.end(jobs.run(kind, command))["outcome"] == "succeeded"
    assert worker.events("unavailable") == []
    assert worker.stop() == 0


@pytest.mark.parametrize("processes", ["1", "2"])
def test_under_nohup_it_outlives_its_terminal(jobs: Jobs, start: Start, processes: str) -> None:
    worker = start("--processes", processes, wait=False, prefix=("nohup",))
    worker.wait_for("worker")
    worker.send(signal.SIGHUP)
    assert jobs.end(jobs.run("python", "nothing"))["outcome"] == "succeeded"
    assert worker.process.poll() is None
    assert worker.events("drain") == []
    assert worker.stop() == 0


@pytest.mark.once
def test_under_nohup_so_does_what_stops_the_embedded_server() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stoppable():
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.once
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_descriptors_are_nobody_elses(
    jobs: Jobs, start: Start, loop: str, closed: str
) -> None:
    prefix = ("sh", "-c", f'exec "$@" {closed}', "sh")
    worker = start("--event-loop", loop, wait=False, prefix=prefix)
    worker.wait_for("worker")
    descriptors = Path(f"/proc/{worker.process.pid}/fd")
    opened = [str((descriptors / number).readlink()) for number in "012"]
    assert not [path for path in opened if path.startswith("anon_inode")]
    assert opened.count("/dev/null") >= closed.count("&-")
    assert jobs.end(jobs.run("python", "nothing"))["outcome"] == "succeeded"
    begin = time.monotonic()
    assert worker.stop() == 0
    assert time.monotonic() - begin < 3
