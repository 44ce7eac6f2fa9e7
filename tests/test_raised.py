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
OWN_SETUP = 'logging.basicConfig(level="INFO", format="app says %(levelname)s %(message)s")'


@pytest.fixture
def working(start: Start, tmp_path: Path) -> Any:
    """Starts a worker whose app ends in some lines of its own."""

    def working(lines: str = "") -> WorkerProcess:
        (tmp_path / "raising.py").write_text(HANDLERS + lines, "utf-8")
        path = f"{ROOT / 'worker'}:{ROOT / 'tests'}:{tmp_path}"
        kept = str(tmp_path / "kept")
        return start("--app", "raising", PYTHONPATH=path, TEST_KEPT=kept)

    return working


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
    (kept,) = [json.loads(line) for line in (tmp_path / "kept").read_text("utf-8").splitlines()]
    shown = kept.pop("shown").encode("utf-8", "backslashreplace").decode()
    assert kept == {
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
    kept = [json.loads(line) for line in (tmp_path / "kept").read_text("utf-8").splitlines()]
    assert [(each["levelname"], each["attempt"]) for each in kept] == [("INFO", 1), ("INFO", 2)]
    assert kept[0]["shown"].endswith("attempt 1: to be tried again after 0.2 s")


def test_a_configuration_that_disables_loggers_leaves_this_one(
    jobs: Jobs, working: Any, tmp_path: Path
) -> None:
    working(LISTENS)
    for name in ("breaks_async", "configures", "breaks_async"):
        jobs.end(jobs.run("python", name))
    assert len((tmp_path / "kept").read_text("utf-8").splitlines()) == 2


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
    words = said(worker, run)
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
