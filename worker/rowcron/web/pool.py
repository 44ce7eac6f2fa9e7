"""A few connections of one login, opened when they are needed and closed soon after.

A connection is closed when it has been idle for IDLE seconds or is OLD: a role that has lost its
password, its LOGIN or its life is therefore out after that time at the latest.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.pq import TransactionStatus
from psycopg.types.datetime import TimestamptzLoader
from psycopg.types.string import TextLoader

from rowcron.connection import conninfo, says_standby
from rowcron.encoding import AS_THEY_ARE, CLIENT, must_be_raw
from rowcron.errors import Unavailable
from rowcron.web.problems import Refusal

IDLE = 20.0
OLD = 600.0
# What every statement of ours is under. An empty path: nothing of a user's is found by name. No
# compilation: statements over many partitions look dear and take milliseconds.
_SESSION = (
    "select set_config('statement_timeout', '15s', false), set_config('lock_timeout', '5s', false),"
    " set_config('idle_in_transaction_session_timeout', '30s', false),"
    " set_config('search_path', '', false), set_config('timezone', 'UTC', false),"
    " set_config('datestyle', 'ISO', false), set_config('intervalstyle', 'postgres', false),"
    " set_config('jit', 'off', false)"
)
Connection = AsyncConnection[Any]


class _Instant(TimestamptzLoader):
    """`infinity` and years that Python has no datetime for stay as PostgreSQL writes them."""

    def load(self, data: Any) -> Any:
        try:
            return super().load(data)
        except psycopg.DataError:
            return bytes(data).decode()


async def open_connection(info: str, encoding: str = CLIENT) -> Connection:
    """Return a new connection. Raises `psycopg.OperationalError`, `Unavailable`."""
    connection = await AsyncConnection.connect(
        conninfo(info), autocommit=True, prepare_threshold=None, client_encoding=encoding
    )
    try:
        if says_standby(connection):
            raise Unavailable("the server is a standby, which takes no writes")
        if must_be_raw(connection):
            await connection.close()
            return await open_connection(info, AS_THEY_ARE)
        connection.adapters.register_loader("timestamptz", _Instant)
        connection.adapters.register_loader("interval", TextLoader)  # a month is no timedelta
        await connection.execute(_SESSION)
    except BaseException:
        await connection.close()
        raise
    return connection


class NotLetIn(Refusal):
    """The server is there, but does not let this login in any more; 503 if it is our own."""

    def __init__(self) -> None:
        super().__init__(
            503,
            "PostgreSQL does not let the web process in",
            detail="The server answers, and refuses the process's own login.",
            hint="Its log says why: no LOGIN, another password, too many connections.",
        )


class Pool:
    """At most `limit` connections; at most `waiting` requests in all, the rest is refused (429)."""

    def __init__(self, info: str, limit: int, waiting: int) -> None:
        self._info = info
        self._room = asyncio.Semaphore(limit)
        self._waiting = waiting
        self._asking = 0
        self._idle: list[tuple[Connection, float, float]] = []  # connection, opened, last used
        self.statements = 0  # transactions handed out, for the metrics
        self._closed = False

    def seed(self, connection: Connection) -> None:
        """Keep a connection that is open already."""
        now = time.monotonic()
        self._idle.append((connection, now, now))

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lend a connection that is in no transaction."""
        if self._asking >= self._waiting:
            raise Refusal(
                429,
                "too many requests of this role at a time",
                hint="Wait for the answers before asking more.",
                headers={"Retry-After": "1"},
            )
        self._asking += 1
        try:
            async with self._room:
                connection, opened = await self._take()
                self.statements += 1
                try:
                    yield connection
                finally:
                    await self._give_back(connection, opened)
        finally:
            self._asking -= 1

    async def _take(self) -> tuple[Connection, float]:
        await self.tidy()
        while self._idle:
            connection, opened, _ = self._idle.pop()
            if not connection.closed:
                return connection, opened
        try:
            return await open_connection(self._info), time.monotonic()
        except psycopg.OperationalError as error:
            if error.sqlstate is None and await asyncio.to_thread(reachable, self._info):
                raise NotLetIn() from error
            raise

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
        idle, self._idle = self._idle, []
        for connection, _, _ in idle:
            await connection.close()


def reachable(info: str) -> bool:
    """Return whether the server answers, whoever asks. Blocks for up to a few seconds."""
    answer = psycopg.pq.PGconn.ping(conninfo(info).encode())
    return answer == psycopg.pq.Ping.OK
