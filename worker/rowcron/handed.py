"""Connections that handlers are given: two small pools of the login `--handler-database-url` names.

A handler works inside one transaction; the report of its success is the transaction's last
statement, so that effect and record commit together or not at all.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import psycopg
from psycopg import AsyncConnection, AsyncCursor, Connection, Cursor, pq
from psycopg.rows import tuple_row

from rowcron.connection import connect, connect_in_thread
from rowcron.database import finish_values
from rowcron.errors import ClaimLost, RowcronError, Unavailable, translate
from rowcron.models import Outcome, Recorded, Run

CLEAN = "discard all"  # roles, settings, locks, temporary tables, LISTEN, prepared statements

Describe = Callable[[Any], Outcome]
Failure = Callable[[BaseException], Outcome]


class Pools:
    """Connections for plain handlers, shared by their threads, and as many for async ones."""

    def __init__(self, info: str, bound: int) -> None:
        self.info = info
        self._idle: list[Connection[Any]] = []
        self._idle_async: list[AsyncConnection[Any]] = []
        self._room = threading.BoundedSemaphore(bound)
        self._room_async = asyncio.BoundedSemaphore(bound)

    @contextmanager
    def plain(self) -> Iterator[Connection[Any]]:
        """Lend a connection to a thread."""
        with self._room:
            connection = self._idle.pop() if self._idle else None
            if connection is None or not is_alive(connection):
                connection = connect_in_thread(self.info, autocommit=False)
            try:
                yield connection
            finally:
                if is_idle(connection) and _cleaned(connection):
                    self._idle.append(connection)
                else:
                    connection.close()

    @asynccontextmanager
    async def awaited(self) -> AsyncIterator[AsyncConnection[Any]]:
        """Lend a connection to a task."""
        async with self._room_async:
            connection = self._idle_async.pop() if self._idle_async else None
            if connection is None or not is_alive(connection):
                connection = await connect(self.info)
                await connection.set_autocommit(False)
            try:
                yield connection
            finally:
                if is_idle(connection) and await _cleaned_async(connection):
                    self._idle_async.append(connection)
                else:
                    await connection.close()

    async def close(self) -> None:
        """Close the connections that are idle."""
        for connection in self._idle:
            connection.close()
        for waiting in self._idle_async:
            await waiting.close()


def _cleaned(connection: Connection[Any]) -> bool:
    """Let the next handler find nothing of what this one has set; return whether that worked."""
    connection.row_factory, connection.cursor_factory = tuple_row, Cursor
    _forget(connection)
    try:
        connection.isolation_level = connection.read_only = connection.deferrable = None
        connection.autocommit = True
        connection.execute(CLEAN)
        connection.autocommit = False
    except psycopg.Error:
        return False
    return True


async def _cleaned_async(connection: AsyncConnection[Any]) -> bool:
    connection.row_factory, connection.cursor_factory = tuple_row, AsyncCursor
    _forget(connection)
    try:
        await connection.set_isolation_level(None)
        await connection.set_read_only(None)
        await connection.set_deferrable(None)
        await connection.set_autocommit(True)
        await connection.execute(CLEAN)
        await connection.set_autocommit(False)
    except psycopg.Error:
        return False
    return True


def _forget(connection: psycopg.BaseConnection[Any]) -> None:
    """Drop what was registered on a connection; psycopg has no public way (a test looks at it)."""
    connection.prepare_threshold = None
    connection._adapters = None
    connection._notice_handlers.clear()
    connection._notify_handlers.clear()


def is_idle(connection: psycopg.BaseConnection[Any]) -> bool:
    """Return whether nobody left a transaction open on it."""
    return not connection.closed and (
        connection.info.transaction_status == pq.TransactionStatus.IDLE
    )


def is_alive(connection: psycopg.BaseConnection[Any]) -> bool:
    """Return whether a connection that lay idle still stands.

    The server's farewell would be readable.
    """
    if connection.closed:
        return False
    try:
        with socket.socket(fileno=os.dup(connection.fileno())) as copy:
            copy.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


class Attempt:
    """What is known of a handler's transaction when something goes wrong in it."""

    def __init__(self, run: Run, failure: Failure) -> None:
        self.run = run
        self.failure = failure
        self.outcome: Outcome | None = None

    def ended(self, error: BaseException, connection: psycopg.BaseConnection[Any]) -> Outcome:
        """Return the outcome of an attempt that `error` ended."""
        cause = translate(error) if isinstance(error, psycopg.Error) else error
        if isinstance(cause, Unavailable) and connection.closed:
            if self.outcome is not None:
                return Outcome("lost", "connection", cause.message, in_doubt=True)
            return Outcome(
                "lost", "connection", f"the handler's connection was cut: {cause.message}"
            )
        if isinstance(cause, ClaimLost):
            return Outcome("lost", "claim", cause.message)
        return self.failure(error)

    def recorded(self, outcome: Outcome, row: Any) -> Outcome:
        """Note that nothing but COMMIT is left to do."""
        outcome.recorded = Recorded(row[0], row[1], None)
        self.outcome = outcome
        return outcome


def call(
    pools: Pools, run: Run, work: Callable[[Any], Any], told: Describe, failed: Failure
) -> Outcome:
    """Call `work(connection)` in a transaction that also records its success."""
    attempt = Attempt(run, failed)
    try:
        with pools.plain() as connection:
            run.state = connection
            try:
                with connection.transaction():
                    outcome = told(work(connection))
                    query, values = finish_values(run, outcome)
                    cursor = Cursor(connection, row_factory=tuple_row)
                    return attempt.recorded(outcome, cursor.execute(query, values).fetchone())
            except Exception as error:
                return attempt.ended(error, connection)
            finally:
                run.state = None
    except RowcronError as error:
        return unavailable(error)


async def await_call(
    pools: Pools, run: Run, work: Callable[[Any], Any], told: Describe, failed: Failure
) -> Outcome:
    """Like `call`, for a coroutine function."""
    attempt = Attempt(run, failed)
    try:
        async with pools.awaited() as connection:
            try:
                async with connection.transaction():
                    outcome = told(await work(connection))
                    query, values = finish_values(run, outcome)
                    cursor = AsyncCursor(connection, row_factory=tuple_row)
                    await cursor.execute(query, values)
                    return attempt.recorded(outcome, await cursor.fetchone())
            except Exception as error:
                return attempt.ended(error, connection)
    except RowcronError as error:
        return unavailable(error)


def unavailable(error: RowcronError) -> Outcome:
    """Return the outcome of a run that got no connection: nothing has happened yet."""
    return Outcome("lost", "connection", f"no connection for the handler: {error.message}")
