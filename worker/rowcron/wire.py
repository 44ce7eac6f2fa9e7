"""One message after the other on a connection, at the least that this costs.

A cursor registers the socket for each wait, and finds out for each statement how its values are
written and for each answer how its columns are read: that takes longer than all else that a worker
does for a short job. Here the socket is registered once, values are text, and answers stay as libpq
has them.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
from psycopg import AsyncConnection, pq
from psycopg.adapt import Transformer
from psycopg.errors import error_from_result

from rowcron.encoding import spoken

FAILED = pq.ExecStatus.FATAL_ERROR
ROW = pq.ExecStatus.SINGLE_TUPLE
TUPLES = pq.ExecStatus.TUPLES_OK
SYNCED = pq.ExecStatus.PIPELINE_SYNC
COPIES = (pq.ExecStatus.COPY_IN, pq.ExecStatus.COPY_OUT, pq.ExecStatus.COPY_BOTH)
BINARY = 1
PASSES = 10  # reads of what libpq's buffer takes, before others have their turn


class Wire:
    """Has the connection to itself: nobody else may send anything on it.

    `hear` is called with each notification, `gone` when the connection was closed or cut.
    """

    def __init__(
        self,
        connection: AsyncConnection[Any],
        hear: Callable[[pq.PGnotify], None] | None = None,
        gone: Callable[[], None] | None = None,
    ) -> None:
        self.connection = connection
        self._hear = hear
        self._gone = gone
        self.encoding = spoken(connection)
        self._pgconn = connection.pgconn
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[list[pq.abc.PGresult]] | None = None
        self._answers: list[pq.abc.PGresult] = []
        self._early: Callable[[pq.abc.PGresult], None] | None = None
        self._transformer: Any = None  # it keeps how each type is read
        self._socket = self._pgconn.socket
        self._readable = select.poll()
        self._readable.register(self._socket, select.POLLIN)
        self._loop.add_reader(self._socket, self._read)

    async def ask(self, query: bytes) -> pq.abc.PGresult:
        """Send statements and return the answer to the last. Raises psycopg's errors."""
        return (await self._ask(self._pgconn.send_query, query))[-1]

    async def ask_first(self, query: bytes) -> tuple[pq.abc.PGresult | None, pq.abc.PGresult]:
        """Send a statement; return its first row, if any, and what its answer ended with.

        The other rows are dropped as they come, however many. Raises psycopg's errors.
        """
        answers = await self._ask(self._send_for_rows, query)
        first = answers[-2] if len(answers) > 1 and answers[-2].status == ROW else None
        return first, answers[-1]

    async def prepare(self, name: bytes, query: bytes) -> None:
        """Prepare a statement. Raises psycopg's errors."""
        await self._ask(self._pgconn.send_prepare, name, query)

    async def ask_prepared(self, name: bytes, values: Sequence[str | None]) -> pq.abc.PGresult:
        """Send a statement that was prepared; the answer is binary. Raises psycopg's errors."""
        answers = await self._ask(
            self._pgconn.send_query_prepared, name, self._texts(values), None, BINARY
        )
        return answers[-1]

    async def ask_early(
        self,
        name: bytes,
        values: Sequence[str | None],
        early: Callable[[pq.abc.PGresult], None],
    ) -> pq.abc.PGresult:
        """Like `ask_prepared`; `early` is given the answer before its transaction is committed.

        The server sends the answer, then flushes the commit. Raises psycopg's errors, also after
        `early` was called: then it is not known whether there was a commit.
        """
        self._early = early
        answers = await self._ask(self._send_early, name, self._texts(values))
        return answers[-1]

    async def ask_with(self, query: bytes, values: Sequence[str | None]) -> pq.abc.PGresult:
        """Send a statement with its values; the answer is binary. Raises psycopg's errors."""
        answers = await self._ask(
            self._pgconn.send_query_params, query, self._texts(values), None, None, BINARY
        )
        return answers[-1]

    async def ask_typed(
        self, query: bytes, values: Sequence[bytes | None], types: Sequence[int]
    ) -> pq.abc.PGresult:
        """Send a statement with values as the server wrote them. Raises psycopg's errors."""
        return (await self._ask(self._pgconn.send_query_params, query, values, types))[-1]

    def rows(self, answer: pq.abc.PGresult) -> list[tuple[Any, ...]]:
        """Return the rows of an answer as Python values."""
        if self._transformer is None:
            self._transformer = Transformer(self.connection)
        self._transformer.set_pgresult(answer)
        rows: list[tuple[Any, ...]] = self._transformer.load_rows(0, answer.ntuples, tuple)
        return rows

    def close(self) -> None:
        """Close the connection."""
        if self._socket >= 0:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket = -1
            if self._gone is not None:
                self._gone()
        self._pgconn.finish()

    def _texts(self, values: Sequence[str | None]) -> list[bytes | None]:
        try:
            texts = [None if value is None else value.encode(self.encoding) for value in values]
        except UnicodeError as error:
            raise psycopg.DataError(str(error)) from error
        for text in texts:
            if text is not None and b"\0" in text:
                raise psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes")
        return texts

    def _send_for_rows(self, query: bytes) -> None:
        self._pgconn.send_query(query)
        self._pgconn.set_single_row_mode()

    def _send_early(self, name: bytes, values: list[bytes | None]) -> None:
        self._pgconn.enter_pipeline_mode()
        self._pgconn.send_query_prepared(name, values, None, BINARY)
        self._pgconn.send_flush_request()
        self._pgconn.pipeline_sync()  # commits

    async def _ask(self, send: Callable[..., None], *what: Any) -> list[pq.abc.PGresult]:
        waiter = self._waiter = self._loop.create_future()
        try:
            send(*what)
            self._write()
        except psycopg.Error as error:
            self._end(error)
        answers: list[pq.abc.PGresult] = await waiter
        return answers

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
        # Until there is nothing more: after a socket's error (a server that died before it had read
        # all) uvloop calls no more, and libpq takes what had been sent before it sees the end.
        if self._socket < 0:
            return
        try:
            for _ in range(PASSES):
                self._pgconn.consume_input()
                self._take()
                if self._socket < 0 or not self._readable.poll(0):
                    return
            self._loop.call_soon(self._read)  # a server that talks without end is not all there is
        except psycopg.Error as error:
            self._end(error)

    def _take(self) -> None:
        if self._hear is not None:
            while (notification := self._pgconn.notifies()) is not None:
                self._hear(notification)
        while not self._pgconn.is_busy():
            answer = self._pgconn.get_result()
            if answer is None:
                if self._early is not None and self._pgconn.status == pq.ConnStatus.OK:
                    continue  # an answer's end, not yet the commit's
                self._end(None)
                return
            status = answer.status
            if status == SYNCED:
                self._pgconn.exit_pipeline_mode()
                self._end(None)
                return
            if status == ROW and self._answers and self._answers[-1].status == ROW:
                continue
            if status in COPIES:  # libpq would answer so again and again
                self.close()
                self._end(psycopg.NotSupportedError("COPY from or to a client is not possible"))
                return
            self._answers.append(answer)
            if self._early is not None and status == TUPLES:
                self._early(answer)

    def _end(self, error: psycopg.Error | None) -> None:
        """Everything is answered, or nothing more will be."""
        self._early = None
        answers, self._answers = self._answers, []
        waiter, self._waiter = self._waiter, None
        for answer in answers:
            if answer.status == FAILED:  # it says more than what the socket says later
                error = error_from_result(answer, self.encoding)
                break
        if self._pgconn.status != pq.ConnStatus.OK:
            self.close()
        if waiter is None or waiter.done():
            return
        if error is not None:
            waiter.set_exception(error)
        elif answers:
            waiter.set_result(answers)
        else:
            waiter.set_exception(psycopg.OperationalError("the connection was cut"))
