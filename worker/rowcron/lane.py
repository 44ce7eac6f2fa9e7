"""One of a worker's connections for SQL jobs."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg

from rowcron.capture import LIMIT
from rowcron.connection import connect
from rowcron.errors import Unavailable
from rowcron.log import Log
from rowcron.models import Run
from rowcron.session import Session, introduce
from rowcron.wire import Wire

BULKY = 1_000_000  # characters of one notice, after which its connection is not kept


class Lane:
    """One connection and what it executes."""

    def __init__(self, number: int) -> None:
        self.part = f"execution {number}"  # of what may be away
        self.connection: psycopg.AsyncConnection[Any] | None = None
        self.wire: Wire | None = None  # over that connection, unless a job named its own
        self.session: Session | None = None
        self.watch = False  # the server can notice that we are gone
        self.run: Run | None = None
        self.wanted: asyncio.Future[None] | None = None  # set while it is idle
        self.task: asyncio.Task[None] | None = None
        self.cancelling: asyncio.Task[None] | None = None
        self.bulky = False

    async def open(self, info: str, log: Log) -> Wire:
        """Return the wire, connected anew if need be. Raises `Unavailable`."""
        if self.wire is None or self.wire.connection.closed:
            self.session = self.wire = None
            self.connection = connection = await connect(info)
            connection.add_notice_handler(lambda notice: self._notice(log, notice))
            try:
                self.watch, self.session = await introduce(connection)
            except psycopg.Error as error:
                await connection.close()
                raise Unavailable(str(error)) from error
            self.wire = Wire(connection)
        return self.wire

    def _notice(self, log: Log, notice: psycopg.errors.Diagnostic) -> None:
        run = self.run
        if run is not None:
            severity = (notice.severity_nonlocalized or "NOTICE").lower()
            message, detail = notice.message_primary or "", notice.message_detail
            self.bulky = self.bulky or len(message) + len(detail or "") > BULKY
            message = message[:LIMIT]
            log.event(
                "notice",
                f"{run.owner}.{run.job} run {run.run_id} {severity}: {message}",
                "warning" if severity == "warning" else "info",
                run_id=run.run_id,
                severity=severity,
                message=message,
                detail=detail and detail[:LIMIT],
            )
