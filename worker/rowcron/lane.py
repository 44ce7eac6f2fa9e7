"""One of a worker's connections for SQL jobs."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg

from rowcron.capture import LIMIT
from rowcron.connection import connect, cut
from rowcron.errors import Unavailable
from rowcron.executors import Host
from rowcron.models import Run
from rowcron.session import Session, introduce
from rowcron.wire import Wire

CUT_AFTER = 5.0  # seconds between terminating a session and giving up on its connection
CANCEL_AGAIN = 0.1  # seconds
BULKY = 1_000_000  # characters of one notice, after which its connection is not kept
MOST_NOTICES = 100  # of a run that are logged, and so many characters of them
MOST_SAID = 256_000


class Lane:
    """One connection and what it executes."""

    def __init__(self, number: int, host: Host, info: str) -> None:
        self.host = host
        self.info = info
        self.number = number
        self.part = f"execution {number}"  # of what may be away
        self.connection: psycopg.AsyncConnection[Any] | None = None
        self.wire: Wire | None = None  # over that connection
        self.session: Session | None = None
        self.watch = False  # the server can notice that we are gone
        self.run: Run | None = None
        self.wanted: asyncio.Future[None] | None = None  # set while it is idle
        self.task: asyncio.Task[None] | None = None
        self.cancelling: asyncio.Task[None] | None = None
        self.bulky = False
        self.notices = 0  # of this run
        self.said = 0  # characters of those that were logged

    async def open(self) -> Wire:
        """Return the wire, connected anew if need be. Raises `Unavailable`."""
        if self.wire is None or self.wire.connection.closed:
            self.session = self.wire = None
            self.connection = connection = await connect(self.info)
            connection.add_notice_handler(self._notice)
            try:
                self.watch, self.session = await introduce(connection)
            except psycopg.Error as error:
                await connection.close()
                raise Unavailable(str(error)) from error
            self.wire = Wire(connection)
        return self.wire

    def stop(self, run: Run, grace: float) -> None:
        """Cancel the statement and terminate its session after `grace`, or at once."""
        if self.connection is None:
            return  # it sees `run.stopping` before it begins
        loop = asyncio.get_running_loop()
        if run.stopping == "cancelled" and grace > 0:
            self.cancelling = loop.create_task(self._cancel(run, self.connection))
            loop.call_later(grace, self._terminate, run)
        else:
            self._terminate(run)

    async def _cancel(self, run: Run, connection: psycopg.AsyncConnection[Any]) -> None:
        # again and again: the first may arrive before the statement does
        while self.run is run and self.connection is connection:
            try:
                await connection.cancel_safe(timeout=CUT_AFTER)
            except psycopg.Error:
                self._terminate(run)
                return
            await asyncio.sleep(CANCEL_AGAIN)

    def _terminate(self, run: Run) -> None:
        if self.run is not run or self.connection is None:
            return
        if self.session is None:
            cut(self.connection)
            return
        self.host.end_session(self.session, self.info)
        loop = asyncio.get_running_loop()
        loop.call_later(CUT_AFTER, self._cut, run, self.connection)

    def _cut(self, run: Run, connection: psycopg.AsyncConnection[Any]) -> None:
        if self.run is run and self.connection is connection:
            cut(connection)

    def begin(self, run: Run) -> None:
        """Note whose the notices are."""
        self.run, self.notices, self.said = run, 0, 0

    def end(self, run: Run) -> None:
        """Log how many notices were left out, so that one job does not fill everybody's log."""
        self.run = None
        if (more := self.notices - MOST_NOTICES) > 0 or self.said > MOST_SAID:
            text = f"{run.owner}.{run.job} run {run.run_id} said more than is logged"
            self.host.log.event("notice", text, run_id=run.run_id, more=max(more, 0))

    def _notice(self, notice: psycopg.errors.Diagnostic) -> None:
        run = self.run
        if run is None:
            return
        self.notices += 1
        if self.notices > MOST_NOTICES or self.said > MOST_SAID:
            self.bulky = True  # nobody knows how long they are
        else:
            severity = (notice.severity_nonlocalized or "NOTICE").lower()
            message, detail = notice.message_primary or "", notice.message_detail
            self.bulky = self.bulky or len(message) + len(detail or "") > BULKY
            message = message[:LIMIT]
            self.said += len(message) + len(detail or "")
            self.host.log.event(
                "notice",
                f"{run.owner}.{run.job} run {run.run_id} {severity}: {message}",
                "warning" if severity == "warning" else "info",
                run_id=run.run_id,
                severity=severity,
                message=message,
                detail=detail and detail[:LIMIT],
            )
