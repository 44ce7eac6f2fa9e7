"""Handlers for tests/test_worker_process.py: what they begin does not end with them."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import worker_app
from rowcron import RetryAfter, handler

assert worker_app  # its handlers, and its farewells
if (crash := os.environ.get("TEST_CRASH")) and Path(crash).exists():
    os._exit(3)

POOL = ThreadPoolExecutor(1)
LONG = 60  # seconds


def _mark(file: str) -> None:
    with Path(file).open("a") as marks:
        marks.write(".")


def _tick(file: str) -> None:
    """Leave a mark every now and then."""
    until = time.monotonic() + LONG
    while time.monotonic() < until:
        _mark(file)
        time.sleep(0.05)


@handler
async def in_thread(file: str) -> None:
    """Wait for a thread of the loop."""
    await asyncio.to_thread(_tick, file)


@handler
async def in_pool(file: str) -> None:
    """Wait for a thread of the application."""
    await asyncio.get_running_loop().run_in_executor(POOL, _tick, file)


@handler
def in_pool_plain(file: str) -> None:
    """The same in a thread, which cannot be interrupted while it waits."""
    POOL.submit(_tick, file).result()


@handler
async def deaf(file: str) -> None:
    """Go on when cancelled."""
    until = time.monotonic() + LONG
    while time.monotonic() < until:
        try:
            _mark(file)
            await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            continue


@handler
def end_child() -> int | None:
    """Terminate a process that was forked; return its exit code."""
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(LONG,))
    child.start()
    child.terminate()
    child.join(5)
    code = child.exitcode
    child.kill()
    return code


class Busy(RetryAfter):
    """Does not call our `__init__`."""

    def __init__(self, who: str) -> None:
        self.who = who


class Moody(RetryAfter):
    """Ends whoever asks."""

    @property
    def seconds(self) -> float:
        raise SystemExit(1)

    @seconds.setter
    def seconds(self, value: float) -> None:
        """Take it, and forget it."""


class Mute(Exception):
    """Has no text."""

    def __str__(self) -> str:
        raise SystemExit(1)


class Never(RetryAfter):
    """Names a pause that none is."""

    def __init__(self) -> None:
        self.seconds = float("nan")


ODD = {"busy": lambda: Busy("me"), "moody": lambda: Moody(1), "mute": Mute, "never": Never}


@handler
def fail_oddly(how: str) -> None:
    """Raise what is hard to describe."""
    raise ODD[how]()


@handler
async def fail_oddly_async(how: str) -> None:
    """The same in the loop."""
    raise ODD[how]()
