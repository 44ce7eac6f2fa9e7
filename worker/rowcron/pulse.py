"""The heartbeat while something runs: a thread and a connection of its own.

A handler that blocks the loop must not cost the worker its claims, so nothing here depends on the
loop; what the database answers is handed over to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import selectors
import socket
import threading
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

import psycopg

from rowcron import heartbeat
from rowcron.connection import connect_in_thread, cut
from rowcron.errors import WorkerLost
from rowcron.models import Beat

FIRST, LONGEST = 0.05, 1.0  # seconds: the pause after a first failure; between beats
CANCEL = 1.0  # seconds for a cancel to be taken
AT_ONCE = 0.1  # seconds for a beat under way to be answered

Heard = Callable[[UUID, Beat], None]
Lost = Callable[[UUID], None]


class Pulse(threading.Thread):
    """Beats every second, or third of the lease, for each registration that holds runs.

    Its session shows the database that the worker lives, so it is made known for a registration
    that holds nothing yet, too, and opened again at once when it was cut. A beat that is not
    answered within a third of the lease is cancelled, and sent again over a new connection.
    """

    def __init__(
        self,
        info: str,
        lease: float,
        registered: Callable[[], list[UUID]],
        holding: Callable[[], list[UUID]],
        heard: Heard,
        lost: Lost,
        away: Callable[[], None],
    ) -> None:
        super().__init__(name="rowcron-heartbeat", daemon=True)
        self.info = info
        self.patience = lease / 3
        self.interval = min(self.patience, LONGEST)
        self.registered = registered
        self.holding = holding
        self.heard = heard
        self.lost = lost
        self.away = away  # the loop's own connection may still be heard of
        self._known: set[UUID] = set()  # to the database, as those whose session this is
        self._over = threading.Event()
        self._waker, self._wakened = socket.socketpair()
        self._connection: psycopg.Connection[Any] | None = None

    def run(self) -> None:
        """Beat until stopped. While the database is away, try again every now and then."""
        tries = 0
        while not self._over.is_set():
            try:
                if self._connection is None or self._connection.closed:
                    self._known.clear()
                    self._connection = connect_in_thread(self.info)
                holding = self.holding()
                for worker in {*holding, *self.registered()} - (self._known - {*holding}):
                    self._beat(worker)
                    self._known.add(worker)
                tries = 0
                self._wait(self._connection, self.interval)
            # the database, the connection between two beats, a loop that has been closed: whatever
            # it is, this thread is the last to fall silent
            except Exception:
                if self._connection is not None and self._connection.closed:
                    self._connection = None
                with contextlib.suppress(RuntimeError):
                    self.away()
                pause = min(FIRST * 2.0 ** min(tries, 10), self.interval)
                self._over.wait(pause * random.uniform(0.5, 1.0))
                tries += 1
        if self._connection is not None:
            self._connection.close()
        self._waker.close()
        self._wakened.close()

    def _wait(self, connection: psycopg.Connection[Any], seconds: float) -> None:
        """Wait for the next beat, for the end, or for the connection's."""
        until = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._wakened, selectors.EVENT_READ)
            selector.register(connection.pgconn.socket, selectors.EVENT_READ)
            while (left := until - time.monotonic()) > 0 and not self._over.is_set():
                if not selector.select(left):
                    return
                try:
                    connection.pgconn.consume_input()
                    dead = connection.pgconn.status != psycopg.pq.ConnStatus.OK
                except psycopg.Error:
                    dead = True
                if dead:
                    connection.close()
                    return

    def _beat(self, worker: UUID) -> None:
        assert self._connection is not None
        timer = threading.Timer(self.patience, self._give_up, (self._connection,))
        timer.daemon = True
        timer.start()
        try:
            self.heard(worker, heartbeat.beat_in_thread(self._connection, worker))
        except WorkerLost:
            self.lost(worker)
        finally:
            timer.cancel()

    def _give_up(self, connection: psycopg.Connection[Any]) -> None:
        # A statement that waits for a lock does not notice that its connection is gone: without a
        # cancel each further beat would leave a session behind.
        with contextlib.suppress(psycopg.Error):
            connection.cancel_safe(timeout=min(CANCEL, self.patience / 4))
        cut(connection)

    async def end(self) -> None:
        """End the thread and what it waits for.

        A beat that hangs, in its commit, say, holds the worker's row, for which a farewell waits.
        """
        self.stop()
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        # not one of the loop's own threads, which handlers may have filled
        threading.Thread(target=self._end, args=(loop, ended), daemon=True).start()
        await ended.wait()

    def _end(self, loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> None:
        self.join(AT_ONCE)
        connection = self._connection
        if self.is_alive() and connection is not None:
            self._give_up(connection)
            self.join(CANCEL)
        with contextlib.suppress(RuntimeError):  # a loop that has been closed
            loop.call_soon_threadsafe(ended.set)

    def stop(self) -> None:
        """End the thread."""
        if not self._over.is_set():
            self._over.set()
            if self.is_alive():
                self._waker.send(b"!")
