"""What ends a worker's sleep, and how it waits out a database that is away.

The tables are the truth; a notification only makes the worker look at them sooner, and is never
trusted to have arrived.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Final

from rowcron.errors import RowcronError
from rowcron.log import Log

SHORTEST, LONGEST = 0.1, 5.0  # pauses between tries, in seconds


class Event:
    """Why a worker wakes: bits of an integer. An enum's operators cost a microsecond each."""

    NOTIFIED: Final = 1
    ROOM: Final = 2
    FINISHED: Final = 4
    STOP: Final = 8
    READY: Final = 16  # a few runs are, and nothing else was said
    AGAIN: Final = 32  # with FINISHED: what ended, or its job, may be due again
    TAKEN: Final = 64  # what was ready has been asked for, and that is answered


TRIES = 10  # to get a connection for a run that is claimed already
NOTHING = 0
ANYTHING = 127


class Alarm:
    """Gathers events; one task at a time waits for some of them."""

    def __init__(self) -> None:
        self.events = NOTHING
        self.at_ready: Callable[[], None] | None = None  # called instead of waking anybody
        self._mask = NOTHING
        self._waiter: asyncio.Future[None] | None = None

    def set(self, event: int) -> None:
        """Note an event and wake who waits for it."""
        self.events |= event
        if event == Event.READY and self.at_ready is not None:
            self.at_ready()
        elif self._mask & event and self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def clear(self, events: int = ANYTHING) -> None:
        """Forget events: what they tell is looked at after this."""
        self.events &= ~events

    async def wait(self, mask: int, seconds: float) -> int:
        """Return those events of `mask` that were set, when there are any or after `seconds`."""
        if not self.events & mask:
            loop = asyncio.get_running_loop()
            self._waiter = waiter = loop.create_future()
            self._mask = mask
            timer = loop.call_later(seconds, _end, waiter)
            try:
                await waiter
            finally:
                timer.cancel()
                self._mask = NOTHING
                self._waiter = None
        return self.events & mask


def _end(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def pause_after(tries: int) -> float:
    """Return how long to wait when so many tries in a row, less one, have failed: seconds."""
    pause: float = min(SHORTEST * 2.0 ** min(tries, 10), LONGEST)
    return pause * random.uniform(0.5, 1.0)


class Outage:
    """Says once that the database is away, and once that it is back; pauses grow in between."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.since: float | None = None
        self._missing: dict[str, int] = {}

    def failed(self, part: str, error: RowcronError) -> float:
        """Note a failure of one connection; return how long to pause, in seconds."""
        tries = self._missing.get(part, 0)
        self._missing[part] = tries + 1
        if self.since is None:
            self.since = time.monotonic()
            text = "; ".join(filter(None, (error.message, error.hint)))
            text = f"database unavailable, trying again: {text}"
            self.log.event("unavailable", text, "warning", code=error.code, detail=error.detail)
        return pause_after(tries)

    def back(self, part: str) -> None:
        """Note that a connection works."""
        if self._missing and self._missing.pop(part, None) is not None and not self._missing:
            away = time.monotonic() - (self.since or time.monotonic())
            self.since = None
            self.log.event("reconnect", f"database is back after {away:.1f} s", seconds=away)
