"""Handlers that are given a connection: effect and record commit together or not at all.

A handler works inside one transaction; the report of its success is the transaction's last
statement. It is refused in any other transaction, so that a handler which has ended its own fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import AsyncClientCursor, ClientCursor
from psycopg.rows import tuple_row

from rowcron.database import finish_in, mark
from rowcron.errors import ClaimLost, RowcronError, Unavailable, translate
from rowcron.models import Outcome, Recorded, Run
from rowcron.pools import Pools
from rowcron.silence import Watch

ENDED = (
    "the handler ended the transaction that it was handed, or reset its settings; what it committed"
    " stays, the rest is rolled back\n"
    "HINT: Leave COMMIT and ROLLBACK to the worker. To undo a part: with connection.transaction()."
    " For what shall stay whatever happens: a connection of its own."
)
CLOSED = (
    "the handler closed the connection that it was handed; its work is rolled back\n"
    "HINT: Leave closing it to the worker, which commits with the record of the run."
)
# Of what is worth trying again, these may come of what the handler has set in its transaction.
ITS_OWN = ("57014", "25006")  # query_canceled, read_only_sql_transaction
# Neither of a handler nor of the settings that bind it: insufficient resources, system errors.
NO_ROOM = ("53", "58")
Describe = Callable[[Any], Outcome]
Failure = Callable[[Run, BaseException], Outcome]


class _Ended(Exception):
    """The handler has ended its transaction, so nothing can be recorded in it."""


class Attempt:
    """What is known of a handler's transaction when something goes wrong in it."""

    def __init__(self, run: Run, failure: Failure, watch: Watch) -> None:
        self.run = run
        self.failure = failure
        self.watch = watch
        self.ours = True  # the statement under way is not the handler's
        self.outcome: Outcome | None = None

    def ended(self, error: BaseException, connection: psycopg.BaseConnection[Any]) -> Outcome:
        """Return the outcome of an attempt that `error` ended."""
        if isinstance(error, _Ended):
            return Outcome("failed", "transaction", ENDED)
        cause = translate(error) if isinstance(error, psycopg.Error) else error
        if isinstance(cause, Unavailable) and connection.closed:
            if not self.run.begun:
                return unavailable(cause)
            if self.outcome is not None:
                return Outcome("lost", "connection", cause.message, in_doubt=True)
            if not connection.broken and cause.code is None:
                return Outcome("failed", "connection", CLOSED)
            return Outcome(
                "lost", "connection", f"the handler's connection was cut: {cause.message}"
            )
        if isinstance(cause, ClaimLost):
            return Outcome("lost", "claim", cause.message)
        if self.ours and isinstance(cause, Unavailable) and cause.code not in ITS_OWN:
            return self._unrecorded(cause)
        return self.failure(self.run, error)

    def _unrecorded(self, cause: Unavailable) -> Outcome:
        """Return the outcome of a run for whose record there is no room, say.

        All that it did here is rolled back, but it may have done more elsewhere: a loss. Where
        there is no room it is not counted, as its own record waits until there is. Anything else
        may meet each attempt, which must not go on without end: that is counted.
        """
        if not self.run.begun:
            return unavailable(cause)
        no_room = cause.code is not None and cause.code[:2] in NO_ROOM
        outcome = "stopped" if no_room else "lost"
        return Outcome(outcome, "its end could not be recorded", cause.message)

    @contextmanager
    def handler(self, connection: psycopg.BaseConnection[Any]) -> Iterator[None]:
        """Around the handler: what fails is its own, and its statements may take their time."""
        self.ours = False
        self.watch.end(connection)
        try:
            yield
        finally:
            self.watch.begin(connection)  # the record, COMMIT or ROLLBACK

    def report(self, outcome: Outcome) -> tuple[str, tuple[str | None, ...]]:
        """Return what records the end, which is ours again, for a client cursor."""
        self.ours = True
        return finish_in(self.run, outcome)

    def recorded(self, outcome: Outcome, row: Any) -> Outcome:
        """Note that nothing but COMMIT is left to do, and what the handler has put off to it."""
        self.ours = False
        if row is None:
            raise _Ended
        outcome.recorded = Recorded(row[0], row[1], None)
        self.outcome = outcome
        return outcome


def call(
    pools: Pools, run: Run, work: Callable[[Any], Any], told: Describe, failed: Failure
) -> Outcome:
    """Call `work(connection)` in a transaction that also records its success."""
    attempt = Attempt(run, failed, pools.watch)
    try:
        with pools.plain(run) as connection:
            run.state = connection
            pools.watch.begin(connection)
            try:
                with connection.transaction():
                    connection.execute(mark(run))
                    with attempt.handler(connection):
                        outcome = told(work(connection))
                    query, values = attempt.report(outcome)
                    cursor = ClientCursor(connection, row_factory=tuple_row)
                    cursor.execute(query, values)
                    while cursor.nextset():
                        pass
                    return attempt.recorded(outcome, cursor.fetchone())
            except Exception as error:
                return attempt.ended(error, connection)
            finally:
                run.state = None
                pools.watch.end(connection)
    except RowcronError as error:
        return unavailable(error)


async def await_call(
    pools: Pools, run: Run, work: Callable[[Any], Any], told: Describe, failed: Failure
) -> Outcome:
    """Like `call`, for a coroutine function."""
    attempt = Attempt(run, failed, pools.watch)
    try:
        async with pools.awaited(run) as connection:
            pools.watch.begin(connection)
            try:
                async with connection.transaction():
                    await connection.execute(mark(run))
                    with attempt.handler(connection):
                        outcome = told(await work(connection))
                    query, values = attempt.report(outcome)
                    cursor = AsyncClientCursor(connection, row_factory=tuple_row)
                    await cursor.execute(query, values)
                    while cursor.nextset():
                        pass
                    return attempt.recorded(outcome, await cursor.fetchone())
            except Exception as error:
                return attempt.ended(error, connection)
            finally:
                pools.watch.end(connection)
    except RowcronError as error:
        return unavailable(error)


def unavailable(error: RowcronError) -> Outcome:
    """Return the outcome of a run that got no connection: it is given back, nothing was done."""
    return Outcome("released", "connection", f"no connection for the handler: {error.message}")
