"""Handlers of the benchmark, for `rowcron worker --app rowcron_app`."""

from __future__ import annotations

import asyncio
import time

from peers.probe import BODY, PROBE

from rowcron import Run, handler


@handler
def bench_plain(i: int = 0) -> None:
    """Count, and wait as long as the body is."""
    PROBE.hit(i)
    if BODY:
        time.sleep(BODY)


@handler
async def bench_async(i: int = 0) -> None:
    """Count, and wait as long as the body is, in the loop."""
    PROBE.hit(i)
    if BODY:
        await asyncio.sleep(BODY)


@handler
async def bench_due(run: Run) -> None:
    """Write down the occurrence."""
    now = time.time()
    PROBE.hit(run.scheduled_for, now)
