"""A few connections of one login, opened when they are needed and closed soon after.

A connection is closed when it has been idle for IDLE seconds or is OLD: a role that has lost its
password, its LOGIN or its life is therefore out after that time at the latest.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
from psycopg.pq import TransactionStatus

from rowcron.web.connections import Connection, is_alive, open_connection, reachable
from rowcron.web.problems import Refusal

IDLE = 20.0
OLD = 600.0
ROLES = 10  # of which a shared pool takes as many requests as each may have
WAIT = 5.0  # seconds for which one waits for another's connection where no further one is let in


class NotLetIn(Refusal):
    """The server is there, but lets in no further connection of this login; why, it does not say.

    A connection that fails has no SQLSTATE: it may be the password, or that there are too many.
    """

    def __init__(self) -> None:
        super().__init__(
            503,
            "PostgreSQL does not let the web process in",
            detail="The server answers, and refuses a connection of the process's own login.",
            hint="Its log says why: no LOGIN, another password, too many connections.",
        )


class Room:
    """At most `limit` requests at a time; at most `waiting` in all, the rest is refused (429)."""

    def __init__(self, limit: int, waiting: int) -> None:
        self._free = asyncio.Semaphore(limit)
        self._waiting = waiting
        self._asking = 0

    @asynccontextmanager
    async def enter(self) -> AsyncIterator[None]:
        """Wait for a place. Raises `Refusal` 429."""
        if self._asking >= self._waiting:
            raise Refusal(
                429,
                "too many requests at a time",
                hint="Wait for the answers before asking more.",
                headers={"Retry-After": "1"},
            )
        self._asking += 1
        try:
            async with self._free:
                yield
        finally:
            self._asking -= 1


class Pool:
    """At most `limit` connections, for at most `waiting` requests in all."""

    def __init__(self, info: str, limit: int, waiting: int) -> None:
        self._info = info
        self._room = Room(limit, waiting)
        self._idle: list[tuple[Connection, float, float]] = []  # connection, opened, last used
        self._lent = 0
        self._returned = asyncio.Event()
        self.statements = 0  # transactions handed out, for the metrics
        self._closed = False

    async def seed(self, connection: Connection) -> None:
        """Keep a connection that is open already, or close it if another one is idle."""
        now = time.monotonic()
        if self._idle or self._closed:
            await connection.close()
        else:
            self._idle.append((connection, now, now))
            self._returned.set()

    @property
    def held(self) -> bool:
        """Whether it has a connection, lent or idle."""
        self._idle = [entry for entry in self._idle if is_alive(entry[0])]
        return bool(self._lent or self._idle)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lend a connection that is in no transaction."""
        async with self._room.enter():
            connection, opened = await self._take()
            self.statements += 1
            self._lent += 1
            try:
                yield connection
            finally:
                self._lent -= 1
                await self._give_back(connection, opened)
                self._returned.set()

    async def _take(self) -> tuple[Connection, float]:
        await self.tidy()
        deadline = asyncio.get_running_loop().time() + WAIT
        while True:
            while self._idle:
                connection, opened, _ = self._idle.pop()
                if is_alive(connection):
                    return connection, opened
                await connection.close()
            self._returned.clear()
            try:
                return await open_connection(self._info), time.monotonic()
            except psycopg.OperationalError as error:
                if error.sqlstate or not await asyncio.to_thread(reachable, self._info):
                    raise
                if not self._lent and not self._returned.is_set():
                    raise NotLetIn() from error
                try:  # the login may have no more: one that is lent comes back soon
                    async with asyncio.timeout_at(deadline):
                        await self._returned.wait()
                except TimeoutError:
                    raise NotLetIn() from error

    async def _give_back(self, connection: Connection, opened: float) -> None:
        idle = connection.info.transaction_status == TransactionStatus.IDLE
        if self._closed or connection.closed or not idle or time.monotonic() - opened > OLD:
            await connection.close()
        else:
            self._idle.append((connection, opened, time.monotonic()))

    async def tidy(self) -> None:
        """Close what has been idle for long."""
        limit = time.monotonic() - IDLE
        stale = [entry for entry in self._idle if entry[2] < limit]
        self._idle = [entry for entry in self._idle if entry[2] >= limit]
        for connection, _, _ in stale:
            await connection.close()

    async def close(self) -> None:
        """Close all; those that are lent when they come back."""
        self._closed = True
        await self.close_idle()

    async def close_idle(self) -> None:
        """Close those that nobody uses."""
        idle, self._idle = self._idle, []
        for connection, _, _ in idle:
            await connection.close()


class SharedPool(Pool):
    """A pool of many roles, of which any two leave a connection to the others.

    A role waits for itself alone. `lookups` is for asking whose token it is, which waits for none
    of what the roles do.
    """

    def __init__(self, info: str, limit: int, waiting: int) -> None:
        share = max(1, limit - 1)  # of one role: with that of the lookups it has as many as a login
        super().__init__(info, 2 * share + 1, waiting * ROLES)
        self.lookups = Pool(info, 1, waiting * ROLES)
        self._rooms = defaultdict[str, Room](lambda: Room(share, waiting))

    @asynccontextmanager
    async def connection_for(self, role: str) -> AsyncIterator[Connection]:
        """Lend a connection for what a role has it do, which may wait for locks."""
        async with self._rooms[role].enter(), self.connection() as connection:
            yield connection
