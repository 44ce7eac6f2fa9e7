"""Connections lent to handlers: two small pools of the login `--handler-database-url` names."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import psycopg
from psycopg import AsyncConnection, AsyncCursor, Connection, Cursor, pq
from psycopg.rows import tuple_row

from rowcron.connection import connect, connect_in_thread

CLEAN = "discard all"  # roles, settings, locks, temporary tables, LISTEN, prepared statements


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
