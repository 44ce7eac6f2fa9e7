"""Handlers of the workers that are to die (`--app chaos.app_points`)."""

from __future__ import annotations

import os
from typing import Any

import psycopg

from rowcron import Run, handler


@handler
def handed(run: Run, connection: psycopg.Connection[Any]) -> None:
    """Write a row on the connection whose commit is the run's end."""
    connection.execute(
        "insert into public.effect values ('handed', %s, %s)", (run.run_id, run.attempt)
    )


@handler
async def handed_async(run: Run, connection: psycopg.AsyncConnection[Any]) -> None:
    """The same in the loop."""
    await connection.execute(
        "insert into public.effect values ('handed', %s, %s)", (run.run_id, run.attempt)
    )


@handler
def plain(run: Run) -> None:
    """Write a row over a connection of its own: the effect stands before the record does."""
    with psycopg.connect(os.environ["CHAOS_EFFECTS"], autocommit=True) as connection:
        connection.execute(
            "insert into public.effect values ('plain', %s, %s)", (run.run_id, run.attempt)
        )
