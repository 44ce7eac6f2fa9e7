"""Pages that change by themselves: looked at only when something has changed.

Once a tick one statement asks whether anything has (pulse.py), however many pages are open and
whoever looks. If so, each role that looks is asked for what its pages show, by one statement for
all of them: a board belongs to a role. What has changed is rendered once and sent to all. A look
never takes more than a twentieth of the time: a slow database is asked less often. No role waits
for the look of another.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator

import psycopg

from rowcron.errors import RowcronError
from rowcron.web import looks
from rowcron.web.actor import Asker
from rowcron.web.boards import SHARE, SLOWEST, Board, due
from rowcron.web.canvas import Canvas
from rowcron.web.marks import GONE, RUN, asked
from rowcron.web.problems import Refusal, problem_of
from rowcron.web.pulse import Beat, Pulse
from rowcron.web.render import job_sections, now_sections, run_sections
from rowcron.web.run_look import look_at_run
from rowcron.web.sessions import Session
from rowcron.web.topics import Topic, event

NOW = "now"
DRAWING = 0.1  # of a tick: for so long a look draws pictures
AT_ONCE = 10  # pages of jobs that are told anew after one look
ALIVE = 5.0  # seconds between two signs of life
MOST_VIEWERS = 2000
GONE_TEXT = "This job is gone; its history stays."
log = logging.getLogger("rowcron.web")


class Live:
    """All boards, and the one task that looks."""

    def __init__(self, tick: float, pulse: Pulse) -> None:
        self.tick = tick
        self.pulse = pulse
        self._looks = 0
        self._boards: dict[str, Board] = {}
        self._task: asyncio.Task[None] | None = None
        self._looking: dict[str, asyncio.Task[None]] = {}  # the last look of each role
        self._wake = asyncio.Event()
        self._over = False
        self._skew: float | None = None  # the database's clock less ours: seconds

    @property
    def looks(self) -> int:
        """How many statements all live pages have cost."""
        return self._looks + self.pulse.asked

    @property
    def viewers(self) -> int:
        """How many pages are open."""
        return sum(t.viewers for b in self._boards.values() for t in b.topics.values())

    @property
    def full(self) -> bool:
        """Whether no further page can be live."""
        return self.viewers >= MOST_VIEWERS

    @property
    def idle(self) -> bool:
        """Whether nothing is asked, because nobody looks."""
        return self._task is None or self._task.done()

    async def watch(
        self,
        session: Session,
        topic: str,
        mark: str | None = None,
        canvas: Canvas | None = None,
    ) -> AsyncIterator[str]:
        """Yield server-sent events for as long as the page is open and its session lasts.

        `mark` is that of the job, or the edition of the picture, as the page already shows it.
        """
        login = session.login
        board = self._boards.get(login.role)
        if board is None or board.login is not login:
            old = board or Board(login)
            board = self._boards[login.role] = Board(login, old.topics, old.canvases)
        if canvas is not None:
            shown = board.topics.setdefault(topic, canvas.topic)
            board.canvases.setdefault(topic, canvas)
            seen = shown.seen_by(mark or "")
        else:
            shown = board.topics.setdefault(topic, Topic(mark=mark))
            seen = shown.version
            if mark is None or mark != shown.mark:
                # it is to be told all, of which nothing was asked for while all showed it already
                seen, shown.mark = 0, None
        shown.viewers += 1
        board.fresh = True
        self._look_on()
        try:
            yield "retry: 2000\n\n"
            async for text in self._changes(session, shown, seen):
                yield text
        finally:
            shown.viewers -= 1
            if not shown.viewers:
                board.topics.pop(topic, None)
                board.canvases.pop(topic, None)

    async def _changes(self, session: Session, shown: Topic, seen: int) -> AsyncIterator[str]:
        clock_told = False
        while session.alive and not self._over:
            changed = shown.changed
            if self._skew is not None and not clock_told:
                # the database's time now, not that of its last look, which may be long ago
                yield event("clock", f"{time.time() + self._skew:.3f}")
                clock_told = True
            for name, html in shown.since(seen):
                yield event(name, html)
            seen = shown.version
            try:
                async with asyncio.timeout(ALIVE):
                    await changed.wait()
            except TimeoutError:
                clock_told = False
                yield ": alive\n\n"
        yield event("bye", "" if self._over else "signed out")

    def stop(self) -> None:
        """Let all streams end."""
        self._over = True
        for board in self._boards.values():
            for topic in board.topics.values():
                topic.changed.set()
        for task in (self._task, *self._looking.values()):
            if task is not None:
                task.cancel()

    def _look_on(self) -> None:
        self._wake.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="rowcron-live")

    async def _run(self) -> None:
        try:
            while boards := {r: b for r, b in self._boards.items() if b.topics}:
                self._boards = boards
                self._wake.clear()
                begin = time.monotonic()
                beat = await self._beat(boards)
                now = time.monotonic()
                took = now - begin
                self._looking = {r: t for r, t in self._looking.items() if not t.done()}
                for role, board in boards.items():
                    if role not in self._looking and due(board, beat, now):
                        self._looking[role] = asyncio.create_task(self._look(board, beat))
                rest = max(self.tick, min(SHARE * took, SLOWEST)) - (time.monotonic() - begin)
                await self.pulse.wait(max(rest, 0.02), self._wake)
                # a notification a moment later is no reason to hurry
                await asyncio.sleep(max(begin + self.tick / 4 - time.monotonic(), 0))
        finally:
            await self.pulse.close()

    async def _beat(self, boards: dict[str, Board]) -> Beat | None:
        for board in boards.values():
            try:
                return await self.pulse.ask(board.login)
            except (psycopg.Error, RowcronError, Refusal):
                continue  # the looks will say what is wrong
        return None

    async def _look(self, board: Board, beat: Beat | None) -> None:
        begin = time.monotonic()
        board.fresh = board.behind = False
        trouble = None
        try:
            await self._ask(board, beat)
        except Refusal as refusal:  # not let in any more: the streams end
            trouble = refusal.problem.title
        except (psycopg.Error, RowcronError) as error:
            trouble = problem_of(error).title
        except Exception:
            log.exception("a look at the database failed")
            board.took = time.monotonic() - begin
        if trouble is not None:
            for topic in board.topics.values():
                topic.show({"trouble": trouble})
        board.beat = None if trouble is not None or board.behind else beat
        board.looked = now = time.monotonic()
        board.due = max(begin + self.tick, now + min(SHARE * board.took, SLOWEST))
        if board.fresh:  # a page that was opened meanwhile has been told nothing
            self._wake.set()

    async def _ask(self, board: Board, beat: Beat | None) -> None:
        topics = {name: t for name, t in board.topics.items() if name not in board.canvases}
        jobs = [name for name in topics if name != NOW]  # and runs
        begin = time.monotonic()
        async with board.login.glance() as asker:
            try:
                if NOW in topics or jobs:
                    await self._ask_now(board, asker, topics, jobs)
                board.took = time.monotonic() - begin
                await board.draw(asker, beat, DRAWING * self.tick)
            finally:
                self._looks += asker.asked

    async def _ask_now(
        self, board: Board, asker: Asker, topics: dict[str, Topic], jobs: list[str]
    ) -> None:
        found = await asker.one(looks.NOW, {"now": NOW in topics} | asked(jobs))
        assert found is not None
        self._skew = found["at"].timestamp() - time.time()
        if NOW in topics:
            await self._ask_lately(board, asker)
            data = json.loads(found["now"]) | {"lately": json.loads(board.lately)}
            topics[NOW].show(now_sections(data) | {"trouble": ""})
        marks, room = json.loads(found["marks"]), AT_ONCE
        for name in sorted(jobs, key=lambda name: topics[name].told):
            topic = topics[name]
            mark, there = marks[name]
            sections = {"trouble": "" if there else GONE_TEXT}
            if topic.mark != (mark or GONE):
                if not room:
                    board.behind = True  # the next look finds it changed still
                    continue
                room -= 1
                topic.told = time.monotonic()
                topic.mark = mark or GONE
                if mark and name.startswith(RUN):
                    sections |= run_sections(await look_at_run(asker, int(name.removeprefix(RUN))))
                elif mark:
                    sections |= job_sections(await looks.look_at_job(asker, int(name)))
            topic.show(sections)

    async def _ask_lately(self, board: Board, asker: Asker) -> None:
        begin = time.monotonic()
        if begin < board.lately_due:  # dear: less often
            board.behind = True
            return
        board.lately = str(await asker.value(looks.LATELY))
        board.lately_due = time.monotonic() + SHARE * (time.monotonic() - begin)
