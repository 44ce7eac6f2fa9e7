"""What a worker hears: notifications, over a connection of its own.

They only make it look sooner; without them it polls.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any
from uuid import uuid4

import psycopg
from psycopg import AsyncConnection

from rowcron.connection import brief, connect, pooled
from rowcron.errors import RowcronError
from rowcron.log import Log
from rowcron.session import listen, notify, unlisten
from rowcron.silence import patience
from rowcron.wake import LONGEST, SHORTEST, Alarm, Event, Outage

CHANNEL = "rowcron"
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
        self._channels: list[str] = []

    async def run(self) -> None:
        """Listen until cancelled. Without notifications the worker polls, so no error ends it."""
        while True:
            try:
                async with await connect(self.info) as connection:
                    await self._listen(connection)
            except (RowcronError, psycopg.Error) as error:
                self._failures += 1
                if self._failures == DEAF_AFTER and self.outage.since is None:
                    what = error.message if isinstance(error, RowcronError) else str(error)
                    self._deaf(f"cannot listen, looking every {self.poll:g} s instead: {what}")
                pause = min(SHORTEST * 2.0 ** min(self._failures, 10), LONGEST)
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))

    async def _listen(self, connection: AsyncConnection[Any]) -> None:
        """Take notifications, the first of them our own: a transaction pooler delivers none."""
        proof = f"{CHANNEL}_{uuid4().hex}"
        self._channels.clear()
        connection.add_notify_handler(lambda notify: self._channels.append(notify.channel))
        await listen(connection, CHANNEL, proof)
        self._failures = 0
        self.alarm.set(Event.NOTIFIED)  # whoever notified before was not heard
        # over another connection, since a pooler may give this one what comes with an answer
        await notify(self.info, proof)
        heard = await self._take(connection, PROOF, proof)
        if not heard:
            hint = "LISTEN needs a session of its own: name the server itself, or pool sessions"
            text = f"notifications do not arrive, looking every {self.poll:g} s instead"
            self._deaf(f"{text}; {hint}", hint)
            if await pooled(connection):
                await unlisten(connection)  # from what may be somebody else's session
        while True:
            heard = await self._take(connection, patience(self.info), proof) or heard
            await self._still_there(connection)

    async def _take(self, connection: AsyncConnection[Any], seconds: float, proof: str) -> bool:
        """Pass on what arrives within this time; return at once, and true, when it is the proof."""
        until = asyncio.get_running_loop().time() + seconds
        while not (channels := self._arrived(connection)) or proof not in channels:
            if channels:
                self.alarm.set(Event.NOTIFIED)
            if not await _readable(connection, until):
                return False
        # with the proof, too: others may have come with it
        self.alarm.set(Event.NOTIFIED)
        if self.deaf:
            self.deaf = False
            self.log.event("hearing", "notifications arrive again")
        await unlisten(connection, proof)
        return True

    def _arrived(self, connection: AsyncConnection[Any]) -> list[str]:
        """Return the channels of what has arrived, with an answer or by itself."""
        connection.pgconn.consume_input()
        while (notify := connection.pgconn.notifies()) is not None:
            self._channels.append(notify.relname.decode())
        channels, self._channels = self._channels, []
        return channels

    async def _still_there(self, connection: AsyncConnection[Any]) -> None:
        """Cut a connection that does not answer any more: an empty query costs no statement."""
        with brief(connection):
            await connection.execute("")

    def _deaf(self, text: str, hint: str | None = None) -> None:
        if not self.deaf:
            self.deaf = True
            self.log.event("deaf", text, "warning", hint=hint)


async def _readable(connection: AsyncConnection[Any], until: float) -> bool:
    """Wait until there is something to read; false when the loop's time is over before.

    psycopg's `notifies()` looks every tenth of a second, which an idle worker cannot afford.
    """
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[bool] = loop.create_future()

    def end(answer: bool) -> None:
        if not waiter.done():
            waiter.set_result(answer)

    timer = loop.call_at(until, end, False)
    number = connection.fileno()
    loop.add_reader(number, end, True)
    try:
        return await waiter
    finally:
        loop.remove_reader(number)
        timer.cancel()
