"""The heartbeat while something runs: a thread and a connection of its own.

A handler that blocks the loop must not cost the worker its claims, so nothing here depends on the
loop; what the database answers is handed over to it.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any
from uuid import UUID

import psycopg

from rowcron import database
from rowcron.connection import connect_in_thread
from rowcron.errors import RowcronError, WorkerLost
from rowcron.models import Beat

Heard = Callable[[UUID, Beat], None]
Lost = Callable[[UUID], None]


class Pulse(threading.Thread):
    """Beats every third of the lease for each registration that holds runs.

    Silent when none does.
    """

    def __init__(
        self, info: str, lease: float, holding: Callable[[], list[UUID]], heard: Heard, lost: Lost
    ) -> None:
        super().__init__(name="rowcron-heartbeat", daemon=True)
        self.info = info
        self.lease = lease
        self.holding = holding
        self.heard = heard
        self.lost = lost
        self._over = threading.Event()
        self._connection: psycopg.Connection[Any] | None = None

    def run(self) -> None:
        """Beat until stopped. While the database is away, try again every now and then."""
        pause = 0.0
        while not self._over.wait(pause):
            pause = self.lease / 3
            try:
                if self._connection is None or self._connection.closed:
                    self._connection = connect_in_thread(self.info)
                for worker in self.holding():
                    self._beat(worker)
            except (RowcronError, RuntimeError):  # RuntimeError: the loop has been closed
                if self._connection is not None and self._connection.closed:
                    self._connection = None
                pause = min(self.lease / 10, 1.0) * random.uniform(0.5, 1.0)
        if self._connection is not None:
            self._connection.close()

    def _beat(self, worker: UUID) -> None:
        assert self._connection is not None
        try:
            self.heard(worker, database.heartbeat_in_thread(self._connection, worker))
        except WorkerLost:
            self.lost(worker)

    def stop(self) -> None:
        """End the thread."""
        self._over.set()
