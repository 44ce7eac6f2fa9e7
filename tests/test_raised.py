"""What handlers raise reaches the application's own logging, once, and the console as one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness import ROOT, wait_until
from workers import Jobs, Start, WorkerProcess, jobs, start

__all__ = ["jobs", "start"]
HANDLERS = """
import asyncio
import logging
import logging.config
import worker_app
from rowcron import Abandon, handler

@handler
async def breaks_async() -> None:
    raise ValueError("broken in the loop")

@handler
def breaks_connected(connection) -> None:
    raise ValueError("broken in its transaction")

@handler
async def breaks_connected_async(connection) -> None:
    raise ValueError("broken in its transaction in the loop")

@handler
def configures() -> None:
    logging.config.dictConfig({"version": 1})

@handler
async def breaks_in_a_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(breaks_async())

class Odd(Exception):
    def __str__(self) -> str:
        raise SystemExit("of no use")

@handler
def breaks_oddly() -> None:
    raise Odd
"""
LISTENS = """
import json, os

class Keeper(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        names = ("levelname", "run_id", "attempt", "job", "owner")
        kept = {name: getattr(record, name) for name in names}
        kept |= {"message": record.getMessage(), "shown": self.format(record)}
        with open(os.environ["TEST_KEPT"], "a") as file:
            file.write(json.dumps(kept) + "\\n")

logging.getLogger("rowcron.run").addHandler(Keeper())
"""
# as a filter of an application may be
BROKEN = """
class Broken(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        raise KeyboardInterrupt

logging.getLogger("rowcron.run").addFilter(Broken())
"""
SLOW = """
import os, time

class Slow(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        with open(os.environ["TEST_KEPT"], "a") as file:
            file.write(f"{record.run_id}\\n")
        time.sleep(float(os.environ["TEST_SECONDS"]))

logging.getLogger("rowcron.run").addHandler(Slow())
"""
OWN_SETUP = 'logging.basicConfig(level="INFO", format="app says %(levelname)s %(message)s")'


@pytest.fixture
def working(start: Start, tmp_path: Path) -> Any:
    """Starts a worker whose app ends in some lines of its own."""

    def working(lines: str = "", **environment: str) -> WorkerProcess:
        (tmp_path / "raising.py").write_text(HANDLERS + lines, "utf-8")
        path = f"{ROOT / 'worker'}:{ROOT / 'tests'}:{tmp_path}"
        kept = str(tmp_path / "kept")
        return start("--app", "raising", PYTHONPATH=path, TEST_KEPT=kept, **environment)

    return working


def kept(directory: Path, count: int) -> list[str]:
    """The lines that an application has kept: so many, for which it is waited, or more."""
    file = directory / "kept"

    def lines() -> list[str]:
        found = file.read_text("utf-8").splitlines() if file.exists() else []
        return found if len(found) >= count else []

    return wait_until(lines, what=f"{count} lines of {file}")


def said(worker: WorkerProcess, run: int) -> str:
    """What the console has when the line of the run's end is there."""
    words = f"run {run} failed in "
    return wait_until(lambda: words in (t := worker.console.read_text("utf-8")) and t, what=words)


@pytest.mark.parametrize(
    ("name", "args", "ends_in"),
    [
        ("fail", {"how": "at once"}, "ValueError: broken \0 \\ud800"),
        ("fail", {"how": "abandon"}, "rowcron.handlers.Abandon: never again"),
        ("breaks_async", {}, "ValueError: broken in the loop"),
        ("breaks_connected", {}, "ValueError: broken in its transaction"),
        ("breaks_connected_async", {}, "ValueError: broken in its transaction in the loop"),
    ],
)
def test_an_application_that_listens_hears_once_of_each(
    jobs: Jobs, working: Any, tmp_path: Path, name: str, args: Any, ends_in: str
) -> None:
    worker = working(LISTENS)
    run = jobs.run("python", name, args)
    told = jobs.end(run)
    said(worker, run)
    (record,) = [json.loads(line) for line in kept(tmp_path, 1)]
    shown = record.pop("shown").encode("utf-8", "backslashreplace").decode()
    assert record == {
        "levelname": "ERROR",
        "run_id": run,
        "attempt": 1,
        "job": told["job"],
        "owner": "alice",
        "message": f"alice.{told['job']} run {run}, attempt 1: failed",
    }
    assert shown.endswith(ends_in)
    assert "Traceback (most recent call last)" in shown
    assert "/rowcron/" not in shown, "none of the worker's own frames"


def test_a_pause_that_a_handler_asks_for_is_no_error(
    jobs: Jobs, working: Any, tmp_path: Path
) -> None:
    working(LISTENS + "logging.getLogger().setLevel(logging.INFO)")
    run = jobs.run("python", "fail", {"how": "later"}, max_attempts=2)
    jobs.end(run)
    assert [entry["final"] for entry in jobs.entries(run)] == [False, True]
    records = [json.loads(line) for line in kept(tmp_path, 2)]
    assert [(each["levelname"], each["attempt"]) for each in records] == [("INFO", 1), ("INFO", 2)]
    assert records[0]["shown"].endswith("attempt 1: to be tried again after 0.2 s")


def test_a_configuration_that_disables_loggers_leaves_this_one(
    jobs: Jobs, working: Any, tmp_path: Path
) -> None:
    working(LISTENS)
    for name in ("breaks_async", "configures", "breaks_async"):
        jobs.end(jobs.run("python", name))
    assert len(kept(tmp_path, 2)) == 2


def test_where_nobody_listens_it_is_one_line_of_the_console(jobs: Jobs, working: Any) -> None:
    worker = working()
    for name, args, line in (
        ("fail", {"how": "abandon"}, ": rowcron.handlers.Abandon: never again\n"),
        ("add-it", [1], "Abandon: handler 'add-it' takes keyword arguments"),
        ("breaks_async", {}, ": ValueError: broken in the loop\n"),
        ("breaks_in_a_group", {}, ": ExceptionGroup: unhandled errors in a TaskGroup"),
    ):
        run = jobs.run("python", name, args)
        jobs.end(run)
        assert line in said(worker, run)
    assert worker.stop() == 0
    words = worker.console.read_text("utf-8")
    assert "Traceback" not in words
    assert words.count("never again") == 1
    assert words.count("broken in the loop") == 1
    assert "rowcron.run" not in words


def test_an_application_that_logs_to_the_console_has_the_traceback_there_once(
    jobs: Jobs, working: Any
) -> None:
    worker = working(OWN_SETUP)
    run = jobs.run("python", "breaks_async")
    told = jobs.end(run)
    said(worker, run)
    assert worker.stop() == 0
    words = worker.console.read_text("utf-8")
    assert words.count(f"app says ERROR alice.{told['job']} run {run}, attempt 1: failed\n") == 1
    assert words.count("Traceback") == 1


@pytest.mark.parametrize(
    ("lines", "name"), [(BROKEN, "breaks_async"), (BROKEN, "fail"), (OWN_SETUP, "breaks_oddly")]
)
def test_logging_that_breaks_keeps_no_run_from_ending(
    jobs: Jobs, working: Any, lines: str, name: str
) -> None:
    working(lines)
    run = jobs.run("python", name, {"how": "at once"} if name == "fail" else {})
    told = jobs.end(run)
    assert (told["outcome"], told["reason"]) == ("failed", "exception")


@pytest.mark.parametrize("name", ["breaks_async", "breaks_connected_async"])
def test_slow_logging_holds_up_neither_other_runs_nor_the_stop(
    jobs: Jobs, working: Any, tmp_path: Path, name: str
) -> None:
    worker = working(SLOW, TEST_SECONDS="60")
    for _ in range(2):
        jobs.end(jobs.run("python", name))
    assert kept(tmp_path, 1)
    assert jobs.end(jobs.run("python", "beneath", timeout="5 s"))["outcome"] == "succeeded"
    assert worker.stop(limit=10) == 0


def test_what_async_handlers_raise_is_logged_in_order_also_at_the_end(
    jobs: Jobs, working: Any, tmp_path: Path
) -> None:
    worker = working(SLOW, TEST_SECONDS="0.1")
    name = jobs.add("python", "breaks_async")
    runs = [jobs.start(name) for _ in range(6)]
    for run in runs:
        jobs.end(run)
    assert worker.stop() == 0
    ended = [str(event["run_id"]) for event in worker.events("end")]
    assert kept(tmp_path, 0) == ended


def test_what_logging_has_no_room_for_is_in_the_ledger_and_that_is_said_once(
    jobs: Jobs, working: Any, tmp_path: Path
) -> None:
    worker = working(SLOW, TEST_SECONDS="60")
    name = jobs.add("python", "breaks_async")
    jobs.owner.execute("select rowcron.run_now(%s) from generate_series(1, 120)", (name,))
    query = "select count(*) from rowcron.history where job = %s and outcome = 'failed'"
    wait_until(lambda: jobs.db.execute(query, (name,)).fetchone() == (120,), what="all")
    assert len(worker.events("behind")) == 1
    assert len(kept(tmp_path, 1)) == 1
