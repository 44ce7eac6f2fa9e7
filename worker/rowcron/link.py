"""One connection to the database that comes back when it is cut."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.pq import TransactionStatus
from psycopg.types.numeric import Int8BinaryLoader
from psycopg.types.string import ByteaBinaryLoader

from rowcron.connection import connect, pooled
from rowcron.errors import Unavailable, translate
from rowcron.silence import Watch

# A prepared statement whose function has got other columns, or that somebody has discarded: it was
# not carried out, and a new session prepares it anew.
FORGOTTEN = (psycopg.errors.FeatureNotSupported, psycopg.errors.InvalidSqlStatementName)


class Link:
    """One connection, opened when it is first needed and again after it was cut.

    Nothing is kept in its session that would be missed, so that it may as well be a transaction
    pooler's. Where there is none, statements are prepared: parsing one anew costs 75 µs, a quarter
    of a claim that finds nothing.
    """

    def __init__(self, info: str) -> None:
        self.info = info
        self._connection: AsyncConnection[Any] | None = None
        self._watch = Watch(info, short=True)

    async def open(self) -> AsyncConnection[Any]:
        """Return the connection. Raises `Unavailable`."""
        if self._connection is not None and not self._connection.closed:
            return self._connection
        connection = await connect(self.info)
        try:
            if not await pooled(connection):
                connection.prepare_threshold = 0
        except BaseException:
            await connection.close()
            raise
        # The claim's values stay as the server sent them: most runs never look at them, and the
        # token only travels back.
        for name, loader in (
            ("uuid", ByteaBinaryLoader),
            ("jsonb", ByteaBinaryLoader),
            ("timestamptz", Int8BinaryLoader),
            ("interval", ByteaBinaryLoader),
        ):
            connection.adapters.register_loader(name, loader)
        self._connection = connection
        return connection

    async def fetch(
        self,
        query: str,
        values: tuple[Any, ...] = (),
        *,
        end: Callable[[list[Any]], str] | None = None,
        again: bool = True,
    ) -> list[Any]:
        """Execute one statement and return its rows, binary where a loader is known.

        `end` makes of them the statements that end its transaction; without, it is one by itself.
        Raises what `errors.translate` makes of an error; its `in_doubt` is true when the connection
        was cut after the statement had been sent, so that it may have been carried out.
        """
        connection = await self.open()
        self._watch.begin(connection)
        try:
            if end is not None:
                await connection.execute("begin", prepare=False)
            cursor = connection.cursor(binary=True)
            await cursor.execute(query, values)
            rows = await cursor.fetchall()
            if end is not None:
                await connection.execute(end(rows).encode(), prepare=False)
            return rows
        except FORGOTTEN as error:
            if not again or connection.prepare_threshold is None:
                raise translate(error) from error
            await connection.close()
        except psycopg.Error as error:
            translated = translate(error)
            if connection.closed and isinstance(translated, Unavailable):
                translated.in_doubt = True
            raise translated from error
        finally:
            self._watch.end(connection)
            if end is not None and connection.info.transaction_status != TransactionStatus.IDLE:
                await connection.close()
        return await self.fetch(query, values, end=end, again=False)

    async def close(self) -> None:
        """Close the connection, if there is one."""
        self._watch.close()
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()
