"""Connections lent to handlers: two small pools of the login `--handler-database-url` names."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import psycopg
from psycopg import AsyncConnection, AsyncCursor, BaseConnection, Connection, Cursor, pq
from psycopg.rows import tuple_row

from rowcron.connection import connect, connect_in_thread
from rowcron.errors import RowcronError
from rowcron.models import Run
from rowcron.silence import Watch
from rowcron.wake import TRIES, pause_after

C = TypeVar("C", bound=BaseConnection[Any])
CLEAN = "discard all"  # roles, settings, locks, temporary tables, LISTEN, prepared statements
NOTICES = 0.1  # seconds within which a thread that waits notices that it was interrupted


class Pools:
    """Connections for plain handlers, shared by their threads, and as many for async ones."""

    def __init__(self, info: str, bound: int) -> None:
        self.info = info
        self.bound = bound
        self.watch = Watch(info, short=True)  # our statements on them, not the handlers'
        self._idle: list[tuple[float, Connection[Any]]] = []  # since when
        self._idle_async: list[tuple[float, AsyncConnection[Any]]] = []
        self._lent: set[Run] = set()  # to runs in threads
        self._lock = threading.Lock()
        self._bell: SimpleQueue[None] = SimpleQueue()  # there may be room
        self._room_async = asyncio.BoundedSemaphore(bound)

    @contextmanager
    def plain(self, run: Run) -> Iterator[Connection[Any]]:
        """Lend a connection to a run's thread. Raises `RowcronError` when there is none to be had.

        Its thread may be interrupted at any line: `leave` has to be called then.
        """
        try:
            self._enter(run)
            connection, dead = self._take(self._idle)
            for one in dead:
                one.close()
            if connection is None:
                connection = self._connected()
            try:
                yield connection
            finally:
                # a cancel that is on its way must not strike the next one's statement
                self.watch.begin(connection)
                if run.stopping is None and is_idle(connection) and _cleaned(connection):
                    self._idle.append((time.monotonic(), connection))
                else:
                    connection.close()
                self.watch.end(connection)
        finally:
            self.leave(run)

    def _take(self, idle: list[tuple[float, C]]) -> tuple[C | None, list[C]]:
        """Return the connection that lay idle for the shortest time, and those not to be lent.

        One that has lain for as long as a peer may be silent is made anew: it may carry nothing any
        more, and a statement would only find out after as long again.
        """
        dead: list[C] = []
        while True:
            try:
                since, connection = idle.pop()
            except IndexError:  # another thread may have taken the last one
                return None, dead
            if time.monotonic() - since < self.watch.seconds and is_alive(connection):
                return connection, dead
            dead.append(connection)

    def _enter(self, run: Run) -> None:
        while True:
            with self._lock:
                if len(self._lent) < self.bound:
                    self._lent.add(run)
                    more = len(self._lent) < self.bound
                    break
            with suppress(Empty):  # a thread can be interrupted when it is back in Python
                self._bell.get(timeout=NOTICES)
        if more:
            self._ring()

    def leave(self, run: Run) -> None:
        """Make room for another thread, unless that is done already."""
        with self._lock:
            self._lent.discard(run)
        self._ring()

    def _ring(self) -> None:
        if self._bell.empty():
            self._bell.put(None)

    def _connected(self) -> Connection[Any]:
        for tries in range(TRIES):
            try:
                return connect_in_thread(self.info, autocommit=False)
            except RowcronError:
                if tries == TRIES - 1:
                    raise
            until = time.monotonic() + pause_after(tries)
            while time.monotonic() < until:
                time.sleep(NOTICES)
        raise AssertionError

    @asynccontextmanager
    async def awaited(self, run: Run) -> AsyncIterator[AsyncConnection[Any]]:
        """Lend a connection to a run's task. Raises `RowcronError` when there is none to be had."""
        async with self._room_async:
            connection, dead = self._take(self._idle_async)
            for one in dead:
                await one.close()
            if connection is None:
                connection = await self._awaited()
            try:
                yield connection
            finally:
                self.watch.begin(connection)
                ended = run.stopping is None and is_idle(connection)
                if ended and await _cleaned_async(connection):
                    self._idle_async.append((time.monotonic(), connection))
                else:
                    await connection.close()
                self.watch.end(connection)

    async def _awaited(self) -> AsyncConnection[Any]:
        for tries in range(TRIES):
            try:
                connection = await connect(self.info)
                await connection.set_autocommit(False)
                return connection
            except RowcronError:
                if tries == TRIES - 1:
                    raise
            await asyncio.sleep(pause_after(tries))
        raise AssertionError

    async def close(self) -> None:
        """Close the connections that are idle."""
        self.watch.close()
        for _, connection in self._idle:
            connection.close()
        for _, waiting in self._idle_async:
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
