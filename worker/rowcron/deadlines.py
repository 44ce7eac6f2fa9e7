"""The timeouts of the runs that a worker executes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from rowcron.models import Run

LOOK_AGAIN = 3600.0  # seconds; a job may be allowed years, which epoll does not understand
NEVER = float("inf")


class Deadlines:
    """Has one timer, for the earliest; `stop` is called with each run whose time is up."""

    def __init__(self, runs: Mapping[int, Run], stop: Callable[[Run], None]) -> None:
        self._runs = runs
        self._stop = stop
        self._timer: asyncio.TimerHandle | None = None
        self._next = NEVER
        self._loop = asyncio.get_running_loop()

    def watch(self, run: Run) -> None:
        """Mind `run.expires`."""
        if run.expires < self._next:
            self._set(run.expires)

    def _set(self, expires: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next = expires
        at = min(expires, self._loop.time() + LOOK_AGAIN)
        self._timer = self._loop.call_at(at, self._look)

    def _look(self) -> None:
        now, self._timer, self._next = self._loop.time(), None, NEVER
        for run in list(self._runs.values()):
            if run.stopping is None and run.expires <= now:
                self._stop(run)
        ahead = [run.expires for run in self._runs.values() if run.stopping is None]
        if ahead:
            self._set(min(ahead))
