"""The past, added up once: what ended is asked for from where the last look left off.

Entries are written with the database's clock and committed at once, so that what is older than
SETTLED is complete; it is kept, and only what came after it is asked for again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import LiteralString

from rowcron.web.actor import Asker, Record

SETTLED = 60.0  # seconds after which nothing is added to the past
ANEW = 1800.0  # seconds after which it is read from its beginning once more
MARGIN = 86400.0  # what began within the picture may have ended so much after it
Key = tuple[object, ...]
Cells = dict[Key, tuple[float, float, int]]


class Past:
    """Cells that only grow: first begin, last end and number of each."""

    def __init__(self, query: LiteralString, keys: tuple[str, ...]) -> None:
        self._query, self._keys = query, keys
        self._settled: Cells = {}
        self._subject: object = None
        self._until = self._read_at = 0.0

    async def look(
        self, asker: Asker, now: float, stretch: tuple[float, float], values: Record
    ) -> Cells:
        """Return the cells of what ended in a stretch of time, or up to a day after it."""
        since, before = stretch[0], stretch[1] + MARGIN
        subject = repr(values)
        horizon = min(now - SETTLED, before)
        if subject != self._subject or now - self._read_at > ANEW:
            self._settled, self._until = {}, since
            self._subject, self._read_at = subject, now
        if horizon - self._until >= SETTLED or (self._until == since and horizon > since):
            rows = await self._rows(asker, self._until, horizon, values)
            self._settled = merged(self._settled, self._cells(rows))
            self._until = horizon
        tail = self._cells(await self._rows(asker, self._until, before, values))
        return merged(self._settled, tail) if tail else self._settled

    async def _rows(
        self, asker: Asker, since: float, before: float, values: Record
    ) -> list[Record]:
        if since >= before:
            return []
        return await asker.rows(self._query, values | {"since": since, "before": before})

    def _cells(self, rows: Iterable[Record]) -> Cells:
        return {
            tuple(row[key] for key in self._keys): (
                row.get("began", 0.0), row.get("ended", 0.0), row["n"]
            )
            for row in rows
        }  # fmt: skip


def merged(one: Cells, other: Cells) -> Cells:
    """Return the sum of two."""
    both = dict(one)
    for key, (began, ended, n) in other.items():
        if (known := both.get(key)) is not None:
            began, ended, n = min(known[0], began), max(known[1], ended), known[2] + n
        both[key] = (began, ended, n)
    return both
