"""A picture of the page Timeline: drawn again for all who look at it when something has changed.

A picture belongs to a role and to what its link says. The past is added up (past.py), what is to
come is asked for again when a job has changed, the picture has moved on, or a minute has passed.
"""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass
from typing import LiteralString
from zoneinfo import ZoneInfo

from rowcron.web import timeline_look as look
from rowcron.web.actor import Asker, Record
from rowcron.web.draw import WIDTH, Bar, View, heat, row
from rowcron.web.past import Cells, Past
from rowcron.web.pulse import Beat
from rowcron.web.render import timeline_sections
from rowcron.web.topics import Topic

MINUTE = 60.0
KEPT = 50  # pictures at which nobody looks
EMPTY_ROW = re.compile(r'(<g data-section="([^"]+)"[^>]*>)(</g>)')


@dataclass(frozen=True)
class Window:
    """What a link to a picture says."""

    span: str = "48h"
    at: int | None = None
    search: str = ""
    load: str = "next"
    skip: int = 0
    zone: str = "UTC"


class Canvas:
    """One picture."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self.topic = Topic()
        self.drawn = 0.0  # when, and how long that took, in seconds
        self.took = 0.0
        self.count = 0  # jobs whose names hold what is searched for
        self._lock = asyncio.Lock()
        self._past = Past(look.PAST, ("job_id", "outcome", "ran", "part"))
        self._last = Past(look.LOAD_LAST, ("minute",))
        self._known: dict[str, tuple[object, float, list[Record]]] = {}
        self._plot = ""

    async def look(self, asker: Asker, beat: Beat | None) -> None:
        """Draw what has changed."""
        async with self._lock:
            begin = time.monotonic()
            try:
                await self._look(asker, beat)
            finally:  # one that cannot be drawn does not stand before the others for ever
                self.drawn = time.monotonic()
                self.took = self.drawn - begin

    async def _look(self, asker: Asker, beat: Beat | None) -> None:
        window = self.window
        named: Record = {"search": window.search, "skip": window.skip, "limit": look.JOBS}
        found = await asker.one(look.BASE, named)
        assert found is not None
        now, jobs = found["now"], found["jobs"]
        zone = ZoneInfo(window.zone)
        view = View.around(window.at if window.at is not None else now, window.span, zone)
        ids = [job["id"] for job in jobs]
        cells = await self._past.look(
            asker, now, (view.begin, view.until), {"jobs": ids, "step": view.step}
        )
        ahead: list[Record] = []
        if view.until > now and ids:
            values = {"from": view.begin, "until": view.until, "parts": WIDTH, "jobs": ids}
            ahead = await self._ask(asker, "ahead", look.AHEAD, values, (beat and beat[0]), now)
        minutes = await self._minutes(asker, beat, now)
        self.count = found["count"]
        sections = await asyncio.to_thread(
            self._draw, view, now, jobs, found["running"], cells, ahead, minutes
        )
        moved = sections["plot"] + sections["names"] != self._plot
        self._plot = sections["plot"] + sections["names"]
        self.topic.show(sections, anew=moved)

    async def _minutes(self, asker: Asker, beat: Beat | None, now: float) -> dict[int, int]:
        minute = int(now // MINUTE)
        if self.window.load == "next":
            values: Record = {"from": minute * MINUTE, "search": self.window.search}
            jobs = beat and beat[0]
            rows = await self._ask(asker, "load", look.LOAD_NEXT, values, jobs, now)
            return {r["minute"]: r["n"] for r in rows}
        since = now - 1440 * MINUTE
        past = await self._last.look(asker, now, (since, now), {"search": self.window.search})
        return {
            m: n for (m,), (_, _, n) in past.items() if isinstance(m, int) and m * MINUTE > since
        }

    async def _ask(
        self,
        asker: Asker,
        name: str,
        query: LiteralString,
        values: Record,
        jobs: str | None,
        now: float,
    ) -> list[Record]:  # fmt: skip
        """Return rows that stay the same for a minute while no job is changed."""
        subject = (repr(values), jobs)
        known = self._known.get(name)
        if known is None or known[0] != subject or jobs is None or now - known[1] > MINUTE:
            known = self._known[name] = (subject, now, await asker.rows(query, values))
        return known[2]

    def _draw(
        self, view: View, now: float, jobs: list[Record], running: list[tuple[int, float]],
        cells: Cells, ahead: list[Record], minutes: dict[int, int],
    ) -> dict[str, str]:  # fmt: skip
        bars: dict[int, list[Bar]] = {job["id"]: [] for job in jobs}
        marks: dict[int, list[tuple[str, int]]] = {job["id"]: [] for job in jobs}
        for (job, outcome, ran, _), (began, ended, n) in cells.items():
            bars[job].append((str(outcome), bool(ran), began, ended, n))  # type: ignore[index]
        for job, began in running:
            bars[job].append(("running", True, began, now, 1))
        at = view.x(now)
        for mark in ahead:
            if mark["part"] >= at or mark["state"] == "due":
                marks[mark["job_id"]].append((mark["state"], mark["part"]))
        rows = {f"j{job}": row(view, bars[job], marks[job]) for job in bars}
        return timeline_sections(view, self.window, now, jobs, heat(minutes, view.zone)) | rows

    def page(self) -> dict[str, str]:
        """Return the sections with all rows in their places, for a page that is loaded."""
        known = {name: html for name, (_, html) in self.topic.sections.items()}
        filled = EMPTY_ROW.sub(lambda m: m[1] + known.get(m[2], "") + m[3], known["plot"])
        return known | {"plot": filled}


class Canvases:
    """The pictures that are looked at, or were lately."""

    def __init__(self) -> None:
        self._all: dict[tuple[str, Window], Canvas] = {}

    def of(self, role: str, window: Window) -> Canvas:
        """Return the picture of a role; a new one if need be."""
        canvas = self._all.pop((role, window), None) or Canvas(window)
        self._all[role, window] = canvas  # the last that was asked for
        idle = [key for key, known in self._all.items() if not known.topic.viewers]
        for key in idle[: max(len(idle) - KEPT, 0)]:
            del self._all[key]
        return canvas
