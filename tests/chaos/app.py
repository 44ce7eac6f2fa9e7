"""The application of the workers under fire (`--app chaos.app`)."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import Any

import psycopg

from rowcron import Run, handler


def note(run: Run) -> None:
    """Leave a line in the file that CHAOS_FILE names; one write, so that lines are whole."""
    line = f"{run.run_id} {run.attempt}\n".encode()
    descriptor = os.open(os.environ["CHAOS_FILE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, line)
    os.close(descriptor)


@handler
def nothing() -> None:
    """Do nothing."""


@handler
def handed(run: Run, connection: psycopg.Connection[Any], pause: float = 0) -> None:
    """Write a row on the connection whose commit is the run's end."""
    connection.execute(
        "insert into public.effect values ('handed', %s, %s)", (run.run_id, run.attempt)
    )
    time.sleep(pause)


@handler
async def handed_async(
    run: Run, connection: psycopg.AsyncConnection[Any], pause: float = 0
) -> None:
    """The same in the loop."""
    await connection.execute(
        "insert into public.effect values ('handed', %s, %s)", (run.run_id, run.attempt)
    )
    await connection.execute("select pg_sleep(%s)", (pause,))


@handler
def outside(run: Run, pause: float = 0) -> None:
    """Have an effect of which the database knows nothing."""
    note(run)
    time.sleep(pause)


@handler
def deadly() -> None:
    """Kill the worker."""
    os.kill(os.getpid(), signal.SIGKILL)


@handler
async def blocking(seconds: float) -> None:
    """Block the worker's loop, as an async handler must not."""
    time.sleep(seconds)  # noqa: ASYNC251


@handler
def sleep(seconds: float) -> None:
    """Take time, in Python again every now and then."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.01)


@handler
async def sleep_async(seconds: float) -> None:
    """Take time in the loop."""
    await asyncio.sleep(seconds)
