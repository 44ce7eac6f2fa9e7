"""Handlers for tests/test_worker_process.py: what they begin does not end with them."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import worker_app
from rowcron import handler

assert worker_app  # its handlers, and its farewells
if Path(os.environ.get("TEST_CRASH", "/nonexistent")).exists():
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
