"""Handlers for tests/test_recovery.py."""

from __future__ import annotations

import time

from rowcron import Run, handler


@handler
def hang_once(run: Run, seconds: float = 60) -> None:
    """Take the first time so long."""
    if run.attempt == 1:
        time.sleep(seconds)


@handler
async def burn(seconds: float) -> None:
    """Keep the loop and the machine busy."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sum(range(1000))
