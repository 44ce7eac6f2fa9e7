"""Reports that wait for a row which a transaction of their runs' owner keeps locked.

It may do so for hours, and each look at a lock holds up the reports of all owners for half a
second. So while there is one, what its owner's runs report is tried apart from the others', in
parts: between two batches one at most, and with pauses what was tried in vain. Such a part is
halved, so that only those stay that have to; what has just come is tried first, and at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from rowcron.models import Outcome, Run
from rowcron.wake import pause_after

SELDOM = 4  # tries in vain, from which on the pauses grow no more: 0.8 to 1.6 seconds

Report = tuple[Run, Outcome]


class Locked:
    """What is put aside, by owner; `due` are the owners whose next part may be tried."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self.due: deque[str] = deque()
        self.count = 0  # of reports
        self._wake = wake
        self._parts: dict[str, deque[list[Report]]] = {}  # none is empty
        self._pausing: set[str] = set()
        self._in_vain: dict[str, int] = {}  # pauses so far

    def put(self, reports: list[Report]) -> None:
        """Put aside reports of one owner's runs, which were tried in vain."""
        owner = reports[0][0].owner
        half = (len(reports) + 1) // 2
        parts = self._parts.setdefault(owner, deque())
        parts.extend(part for part in (reports[:half], reports[half:]) if part)
        self.count += len(reports)
        if owner not in self._pausing:
            self._pausing.add(owner)
            tries = self._in_vain[owner] = self._in_vain.get(owner, 0) + 1
            pause = pause_after(min(tries, SELDOM))
            asyncio.get_running_loop().call_later(pause, self._pause_over, owner)

    def keep(self, batch: list[Report]) -> list[Report]:
        """Put aside what is of such owners, too; return the others."""
        if not self._parts:
            return batch
        others: list[Report] = []
        kept: dict[str, list[Report]] = {}
        for report in batch:
            owner = report[0].owner
            (kept.setdefault(owner, []) if owner in self._parts else others).append(report)
        for owner, reports in kept.items():
            self.count += len(reports)
            self._parts[owner].appendleft(reports)
            self._may_try(owner)
        return others

    def take(self) -> list[Report]:
        """Return the next part of the first that is due; `tried` has to follow."""
        part = self._parts[self.due[0]].popleft()
        self.count -= len(part)
        return part

    def tried(self) -> None:
        """Note that this part was taken, or put aside again."""
        owner = self.due.popleft()
        if not self._parts[owner]:
            del self._parts[owner]
            self._in_vain.pop(owner, None)
        elif owner not in self._pausing:
            self.due.append(owner)  # the lock may be gone

    def _pause_over(self, owner: str) -> None:
        self._pausing.discard(owner)
        self._may_try(owner)

    def _may_try(self, owner: str) -> None:
        if owner in self._parts and owner not in self.due:
            self.due.append(owner)
            self._wake()
