"""One connection to the database that comes back when it is cut."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import psycopg
from psycopg import pq
from psycopg.pq import TransactionStatus
from psycopg.types.numeric import Int8BinaryLoader
from psycopg.types.string import ByteaBinaryLoader

from rowcron.connection import brief, connect, pooled
from rowcron.errors import Unavailable, translate
from rowcron.log import Log
from rowcron.silence import Watch
from rowcron.wire import Wire

# A prepared statement whose function has got other columns, or that somebody has discarded: it was
# not carried out, and a new session prepares it anew.
FORGOTTEN = (psycopg.errors.FeatureNotSupported, psycopg.errors.InvalidSqlStatementName)
OLD_SNAPSHOT = "RCISO"
# Claims are refused else, and reports that meet would fail.
READ_COMMITTED = "set default_transaction_isolation = 'read committed'"
PIN_PLANS = "select rowcron.pin_plans()"
PIN_AGAIN = 60.0  # seconds until this is tried again of a schema that does not know it
BEGIN = b"begin isolation level read committed"
CANCEL = 1.0  # seconds for a cancel to be taken
CUT = "the connection was cut while it lay idle"


class Link:
    """One connection, opened when it is first needed and again after it was cut.

    Nothing is kept in its session that would be missed, so that it may as well be a transaction
    pooler's. Where there is none, statements are prepared: parsing one anew costs 75 µs, a quarter
    of a claim that finds nothing. What the database warns of is logged.
    """

    def __init__(self, info: str, log: Log | None = None, *, pins: bool = False) -> None:
        self.info = info
        self.pinned = False  # the session's plans are, so that short claims are allowed in it
        self._pins = pins
        self._pin_at = 0.0
        self._log = log
        self._wire: Wire | None = None
        self._prepared: dict[str, bytes] | None = None  # names by statement; None behind a pooler
        self._begins = False  # each transaction: a pooler's sessions are not ours to set
        self._watch = Watch(info, log, short=True)

    async def _open(self) -> Wire:
        wire = self._wire
        if wire is not None:
            if not wire.connection.closed:
                return wire
            self._wire = None
            raise Unavailable(CUT)
        connection = await connect(self.info)
        connection.add_notice_handler(self._notice)
        try:
            is_pooled, is_read_committed = await pooled(connection)
            self._prepared = None if is_pooled else {}
            self._begins = is_pooled and not is_read_committed
            if not is_pooled:
                with brief(connection):
                    await connection.execute(READ_COMMITTED)
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
        self._wire = wire = Wire(connection)
        self.pinned = False
        self._pin_at = 0.0 if self._pins and not is_pooled else float("inf")
        await self.pin()
        return wire

    async def pin(self) -> bool:
        """Pin the plans of the session, if that is wanted; return whether they are.

        An older schema cannot, and its short claims are not those of which some begin early.
        """
        wire, now = self._wire, asyncio.get_running_loop().time()
        if (
            not self.pinned
            and wire is not None
            and not wire.connection.closed
            and now >= self._pin_at
        ):
            self._pin_at = now + PIN_AGAIN
            try:
                with brief(wire.connection):
                    await wire.ask(PIN_PLANS.encode())
                self.pinned = True
            except psycopg.Error:
                pass  # what is amiss shows at what is asked next
            except asyncio.CancelledError:
                self._drop()
                raise
        return self.pinned

    def _notice(self, notice: psycopg.errors.Diagnostic) -> None:
        if self._log is not None and notice.severity_nonlocalized == "WARNING":
            text = notice.message_primary or ""
            self._log.event("notice", f"the database warns: {text}", "warning")

    async def fetch(
        self,
        query: str,
        values: Sequence[str | None] = (),
        *,
        end: Callable[[list[Any]], str] | None = None,
        early: Callable[[list[Any]], None] | None = None,
    ) -> list[Any]:
        """Execute one statement with the texts of its parameters, $1, $2 ..., and return its rows.

        `end` makes of them the statements that end its transaction; without, it is one by itself.
        `early` is given the rows while that one is being committed, where this is possible: when
        an error is raised afterwards, it may or may not have been.
        Raises what `errors.translate` makes of an error; its `in_doubt` is true when the connection
        was cut after the statement had been sent, so that it may have been carried out.
        """
        try:
            return await self._fetch(query, values, end, early)
        except psycopg.Error as error:
            if self._prepared and isinstance(error, FORGOTTEN):
                self._drop()
            elif error.sqlstate == OLD_SNAPSHOT and not self._begins:
                self._begins = True  # the default was altered, or the pooler's server is another
            else:
                raise self._translated(error) from error
        try:
            return await self._fetch(query, values, end, early)
        except psycopg.Error as error:
            raise self._translated(error) from error

    async def _fetch(
        self,
        query: str,
        values: Sequence[str | None],
        end: Callable[[list[Any]], str] | None,
        early: Callable[[list[Any]], None] | None,
    ) -> list[Any]:
        wire = await self._open()
        self._watch.begin(wire.connection)
        answered = False
        begins = self._begins or end is not None
        try:
            if begins:
                await wire.ask(BEGIN)
            if early is not None and self.pinned and not begins:
                rows = await self._ask_early(wire, query, values, early)
            else:
                rows = wire.rows(await self._ask(wire, query, values))
            if begins:
                await wire.ask(b"commit" if end is None else end(rows).encode())
            answered = True
            return rows
        except psycopg.Error:
            if wire.connection.info.transaction_status == TransactionStatus.INERROR:
                with suppress(psycopg.Error):
                    await wire.ask(b"rollback")
            raise
        except asyncio.CancelledError:
            # what waits for a lock must not be carried out when nobody waits for its answer
            with suppress(psycopg.Error):
                await wire.connection.cancel_safe(timeout=CANCEL)
            self._drop()
            raise
        finally:
            self._watch.end(wire.connection)
            if not answered and wire.connection.info.transaction_status != TransactionStatus.IDLE:
                wire.close()  # `_open` says so

    async def _ask(self, wire: Wire, query: str, values: Sequence[str | None]) -> pq.abc.PGresult:
        if self._prepared is None:
            return await wire.ask_with(query.encode(), values)
        return await wire.ask_prepared(await self._prepare(wire, query), values)

    async def _ask_early(
        self,
        wire: Wire,
        query: str,
        values: Sequence[str | None],
        early: Callable[[list[Any]], None],
    ) -> list[Any]:
        rows: list[Any] = []

        def answered(answer: pq.abc.PGresult) -> None:
            rows.extend(wire.rows(answer))
            try:
                early(rows)
            except Exception:  # whatever it was for comes after the commit
                logging.getLogger(__name__).exception("nothing begins before the commit")

        await wire.ask_early(await self._prepare(wire, query), values, answered)
        return rows

    async def _prepare(self, wire: Wire, query: str) -> bytes:
        assert self._prepared is not None
        name = self._prepared.get(query)
        if name is None:
            name = b"rowcron_%d" % len(self._prepared)
            await wire.prepare(name, query.encode())
            self._prepared[query] = name
        return name

    def _translated(self, error: psycopg.Error) -> Exception:
        translated = translate(error)
        if self._wire is not None and self._wire.connection.closed:
            self._drop()
            if isinstance(translated, Unavailable):
                translated.in_doubt = True
        return translated

    def _drop(self) -> None:
        wire, self._wire = self._wire, None
        self.pinned = False
        if wire is not None:
            wire.close()

    async def close(self) -> None:
        """Close the connection, if there is one."""
        self._watch.close()
        self._drop()
