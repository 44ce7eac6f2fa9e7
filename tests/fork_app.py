"""Handlers for tests/test_forked.py: they fork children that do not end by `os._exit`."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

import psycopg

from rowcron import Run, handler

PATIENCE = 5  # seconds for a child to end


def _fork(how: str) -> int | str:
    """Fork; return 0 in the child, which ends as asked, and in the parent what became of it."""
    child = os.fork()
    if child == 0:
        if how == "exit":
            sys.exit(3)
        if how == "words":
            sys.exit("these are its last words")
        if how == "raise":
            raise ValueError("the child's own")
        return 0
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return f"ended with {os.waitstatus_to_exitcode(status)}"
        time.sleep(0.01)
    return f"{child} goes on"


@handler
def detach(how: str) -> int | str:
    """Fork in a thread."""
    return _fork(how)


@handler
async def detach_async(how: str) -> int | str:
    """Fork in the loop."""
    return _fork(how)


@handler
async def detach_task(how: str) -> int | str:
    """Fork in a task of one's own."""

    async def task() -> int | str:
        return _fork(how)

    return await asyncio.create_task(task())


@handler
async def detach_waiting(how: str) -> int | str:
    """Fork in the loop, and give others their turn."""
    found = _fork(how)
    for _ in range(100):
        await asyncio.sleep(0)
    return found


@handler
async def detach_thread(how: str) -> int | str:
    """Fork in a thread of the loop."""
    return await asyncio.to_thread(_fork, how)


@handler
def count(file: str) -> None:
    """Leave a mark."""
    with Path(file).open("a") as marks:
        marks.write(".")


@handler
async def count_async(file: str) -> None:
    """The same in the loop."""
    count(file)


@handler
async def count_thread(file: str) -> None:
    """The same in a thread of the loop."""
    await asyncio.to_thread(count, file)


INSERT = "insert into public.effect values (%s, %s)"


@handler
def detach_between(how: str, run: Run, connection: psycopg.Connection[object]) -> int | str:
    """Fork between two statements of a transaction."""
    connection.execute(INSERT, (1, run.run_id))
    found = _fork(how)
    if found:
        connection.execute(INSERT, (2, run.run_id))
    return found


@handler
async def detach_between_async(
    how: str, run: Run, connection: psycopg.AsyncConnection[object]
) -> int | str:
    """The same in the loop."""
    await connection.execute(INSERT, (1, run.run_id))
    found = _fork(how)
    if found:
        await connection.execute(INSERT, (2, run.run_id))
    return found
