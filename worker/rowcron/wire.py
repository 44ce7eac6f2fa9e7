"""One statement after the other on a connection, at the least that this costs.

A cursor registers the socket for each wait, and finds out for each answer how its columns are
read: that takes longer than all else that a worker does for a short SQL job. Here the socket is
registered once, and answers stay as libpq has them.
"""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
from psycopg import AsyncConnection, pq
from psycopg.adapt import Transformer
from psycopg.errors import error_from_result

FAILED = pq.ExecStatus.FATAL_ERROR


class Wire:
    """Has the connection to itself: nobody else may send anything on it."""

    def __init__(self, connection: AsyncConnection[Any]) -> None:
        self.connection = connection
        self._pgconn = connection.pgconn
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[pq.abc.PGresult] | None = None
        self._answers: list[pq.abc.PGresult] = []
        self._socket = self._pgconn.socket
        self._loop.add_reader(self._socket, self._read)

    async def ask(self, query: bytes) -> pq.abc.PGresult:
        """Send statements and return the answer to the last. Raises psycopg's errors."""
        waiter = self._waiter = self._loop.create_future()
        try:
            self._pgconn.send_query(query)
            self._write()
        except psycopg.Error as error:
            self._end(error)
        answer: pq.abc.PGresult = await waiter
        return answer

    def row(self, answer: pq.abc.PGresult) -> tuple[Any, ...]:
        """Return the first row of an answer as Python values."""
        transformer = Transformer(self.connection)
        transformer.set_pgresult(answer)
        row: tuple[Any, ...] | None = transformer.load_row(0, tuple)
        assert row is not None
        return row

    def close(self) -> None:
        """Close the connection."""
        if self._socket >= 0:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket = -1
        self._pgconn.finish()

    def _write(self) -> None:
        if self._pgconn.flush():  # the kernel's buffer is full
            self._loop.add_writer(self._socket, self._go_on_writing)

    def _go_on_writing(self) -> None:
        try:
            if self._pgconn.flush():
                return
            self._loop.remove_writer(self._socket)
        except psycopg.Error as error:
            self._end(error)

    def _read(self) -> None:
        try:
            self._pgconn.consume_input()
            while not self._pgconn.is_busy():
                answer = self._pgconn.get_result()
                if answer is None:
                    self._end(None)
                    return
                self._answers.append(answer)
        except psycopg.Error as error:
            self._end(error)

    def _end(self, error: psycopg.Error | None) -> None:
        """Everything is answered, or nothing more will be."""
        answers, self._answers = self._answers, []
        waiter, self._waiter = self._waiter, None
        for answer in answers:
            if answer.status == FAILED:  # it says more than what the socket says later
                error = error_from_result(answer, self.connection.info.encoding)
                break
        if self._pgconn.status != pq.ConnStatus.OK:
            self.close()
        if waiter is None or waiter.done():
            return
        if error is not None:
            waiter.set_exception(error)
        elif answers:
            waiter.set_result(answers[-1])
        else:
            waiter.set_exception(psycopg.OperationalError("the connection was cut"))
