"""What a worker hears: notifications, over a connection of its own.

They only make it look sooner; without them it polls.
"""

from __future__ import annotations

import asyncio
from uuid import uuid4

import psycopg
from psycopg import pq

from rowcron.connection import brief, connect
from rowcron.errors import RowcronError, Unavailable, translate
from rowcron.log import Log
from rowcron.session import notify
from rowcron.silence import patience
from rowcron.wake import Alarm, Event, Outage, pause_after
from rowcron.wire import Wire

CHANNEL = "rowcron"
READY = b"ready"  # what it says when a few runs are
PROOF = 3.0  # seconds that our own notification may take to arrive
DEAF_AFTER = 3  # tries to listen that failed while the database was there


class Listener:
    """Listens on a connection of its own, opened again whenever it is cut."""

    def __init__(self, info: str, poll: float, log: Log, alarm: Alarm, outage: Outage) -> None:
        self.info = info
        self.poll = poll
        self.log = log
        self.alarm = alarm
        self.outage = outage
        self.deaf = False
        self._failures = 0
        self._proof = b""  # the channel of our own notification
        self._proven = False  # it has arrived
        self._news = asyncio.Event()

    async def run(self) -> None:
        """Listen until cancelled. Without notifications the worker polls, so no error ends it."""
        while True:
            try:
                wire = Wire(await connect(self.info), self._hear, self._news.set)
                try:
                    await self._listen(wire)
                finally:
                    wire.close()
            except (RowcronError, psycopg.Error) as error:
                self._failures += 1
                if self._failures == DEAF_AFTER and self.outage.since is None:
                    what = error.message if isinstance(error, RowcronError) else str(error)
                    self._deaf(f"cannot listen, looking every {self.poll:g} s instead: {what}")
                await asyncio.sleep(pause_after(self._failures))

    async def _listen(self, wire: Wire) -> None:
        """Take notifications, the first of them our own: a transaction pooler delivers none."""
        proof = f"{CHANNEL}_{uuid4().hex}"
        self._proof, self._proven = proof.encode(), False
        self._news.clear()
        await _tell(wire, f"listen {CHANNEL}; listen {proof}")
        self._failures = 0
        self.alarm.set(Event.NOTIFIED)  # whoever notified before was not heard
        # over another connection, since a pooler may give this one what comes with an answer
        await notify(self.info, proof)
        await self._news_within(PROOF, wire)
        if not self._proven:
            hint = "LISTEN needs a session of its own: name the server itself, or pool sessions"
            text = f"notifications do not arrive, looking every {self.poll:g} s instead"
            self._deaf(f"{text}; {hint}", hint)
            if await _is_pooled(wire):
                await _tell(wire, "unlisten *")  # from what may be somebody else's session
        while True:
            if self._proven:
                self._proven = False
                self.alarm.set(Event.NOTIFIED)
                if self.deaf:
                    self.deaf = False
                    self.log.event("hearing", "notifications arrive again")
                await _tell(wire, f"unlisten {proof}")
            await self._news_within(patience(self.info), wire)
            if not self._proven:
                await _tell(wire, "")  # cut if it does not answer: this costs no statement

    def _hear(self, notification: pq.PGnotify) -> None:
        if notification.relname == self._proof:
            self._proven = True
            self._news.set()
        else:
            self.alarm.set(Event.READY if notification.extra == READY else Event.NOTIFIED)

    async def _news_within(self, seconds: float, wire: Wire) -> None:
        """Wait for the proof. Raises `Unavailable` when the connection is cut."""
        timer = asyncio.get_running_loop().call_later(seconds, self._news.set)
        await self._news.wait()
        self._news.clear()
        timer.cancel()
        if wire.connection.closed:
            raise Unavailable("the connection was cut")

    def _deaf(self, text: str, hint: str | None = None) -> None:
        if not self.deaf:
            self.deaf = True
            self.log.event("deaf", text, "warning", hint=hint)


async def _tell(wire: Wire, statements: str) -> pq.abc.PGresult:
    """Execute statements; cut the connection when it does not answer soon."""
    try:
        with brief(wire.connection):
            return await wire.ask(statements.encode())
    except psycopg.Error as error:
        raise translate(error) from error


async def _is_pooled(wire: Wire) -> bool:
    answer = await _tell(wire, "select pg_backend_pid()")
    return answer.get_value(0, 0) != str(wire.connection.info.backend_pid).encode()
