"""Handlers for tests/test_faults.py: first attempts that never end, and what they leave."""

from __future__ import annotations

import time
from typing import Any

import psycopg

from rowcron import Run, handler


@handler
def first_attempt_hangs(run: Run, connection: psycopg.Connection[Any], seconds: float = 60) -> None:
    """Write a row; the first attempt then takes its time before it commits."""
    connection.execute("insert into public.effect values (%s, %s)", (run.attempt, run.run_id))
    if run.attempt == 1:
        time.sleep(seconds)


@handler
def length(args: Any) -> int:
    """How much came."""
    return len(args["text"])
