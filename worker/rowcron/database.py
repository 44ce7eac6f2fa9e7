"""The functions of the schema that a worker may call, one method each.

Nothing else talks to the schema.

Arrays travel as PostgreSQL's array literals, put together here: psycopg's dumpers look at each
element in turn, which costs more than the rest of a report.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
from psycopg import AsyncClientCursor, AsyncConnection, Connection

from rowcron import __version__
from rowcron.connection import Link, connect
from rowcron.errors import translate
from rowcron.models import Beat, Outcome, Recorded, Run, Session, instant

CLAIMED = (
    "run_id, token, job_id, job, owner, queue, kind, command, args, attempt, scheduled_for, due_at,"
    " started_at, timeout, connection, idempotency_key"
)
_CLAIM = (
    f"select {CLAIMED} from rowcron.claim("
    "%s::uuid, %s::integer, %s::text[], %s::text[], %s::text[], %s::interval)"
)
_BEAT = (
    "select extract(epoch from wake_after)::double precision, settled, cancels, changes::text"
    " from rowcron.heartbeat("
)
_REGISTER = (
    _BEAT + "%s::uuid, %s::text[], %s::text[], %s::text[], %s::integer, %s::interval, %s::interval,"
    " %s, %s, %s::integer, asleep => %s::boolean, changes_since => %s::bigint)"
)
_HEARTBEAT = (
    _BEAT + "%s::uuid, asleep => %s::boolean, stopping => %s::boolean, changes_since => %s::bigint)"
)
_FINISH_MANY = (
    "select run_id, accepted, final, outcome, next_due_at from rowcron.finish("
    "%s::uuid, %s::bigint[], %s::uuid[], %s::text[], %s::text[], %s::text[], %s::text[],"
    " %s::jsonb[], %s::interval[])"
)
_FINISH = (
    "select recorded, final from rowcron.finish("
    "run_id => %s::bigint, token => %s::uuid, outcome => %s, error => %s, output => %s,"
    " result => %s::jsonb, reason => %s)"
)
_EXECUTE = (
    "select outcome, final, error, next_due_at from rowcron.execute({run_id}, '{token}'::uuid)"
)
_TERMINATE = (
    "select pg_terminate_backend(a.pid) from pg_stat_activity as a"
    " where a.pid = %s and a.backend_start = %s::timestamptz"
)
# Lets the server notice that we are gone. Else the job of a worker that was killed goes on to its
# end, and its run is nobody's until then. With each execution, because that resets all; systems
# that are not named here refuse it.
_WATCH = (
    "select set_config('client_connection_check_interval', '2s', false)"
    " where version() ~* 'linux|darwin|bsd'"
)
_MAX_TIMEOUT = 2_147_483_647


class Registration(NamedTuple):
    """What a worker says about itself."""

    queues: str | None
    kinds: str
    handlers: str
    concurrency: int
    lease: float
    poll: float


def text_array(items: Iterable[str | None]) -> str:
    """Return PostgreSQL's literal of an array of texts."""
    return "{" + ",".join([_element(item) for item in items]) + "}"


def _element(item: str | None) -> str:
    if item is None:
        return "NULL"
    return '"' + item.replace("\\", "\\\\").replace('"', '\\"') + '"'


def registration(
    queues: Sequence[str] | None,
    kinds: Sequence[str],
    handlers: Sequence[str],
    concurrency: int,
    lease: float,
    poll: float,
) -> Registration:
    """Return a worker's description with its lists as array literals."""
    return Registration(
        None if queues is None else text_array(queues),
        text_array(kinds),
        text_array(handlers),
        concurrency,
        lease,
        poll,
    )


def _beat(row: tuple[Any, ...]) -> Beat:
    wake_after, settled, cancels, changes = row
    return Beat(
        wake_after,
        settled is not False,
        list(cancels or ()),
        json.loads(changes) if changes else [],
    )


async def register(link: Link, worker: UUID, about: Registration, since: int | None) -> Beat:
    """`rowcron.heartbeat`, the first of a worker."""
    rows = await link.fetch(
        _REGISTER,
        (
            str(worker), about.queues, about.kinds, about.handlers, about.concurrency,
            f"{about.lease} s", f"{about.poll} s", __version__, socket.gethostname(), os.getpid(),
            False, since,
        ),
    )  # fmt: skip
    return _beat(rows[0])


async def heartbeat(
    link: Link,
    worker: UUID,
    asleep: bool | None = None,
    since: int | None = None,
    *,
    stopping: bool = False,
) -> Beat:
    """`rowcron.heartbeat`. Raises `WorkerLost`, `WrongVersion`, `Unavailable`."""
    rows = await link.fetch(_HEARTBEAT, (str(worker), asleep, stopping, since))
    return _beat(rows[0]) if rows else Beat(None, True, [], [])


def heartbeat_in_thread(connection: Connection[Any], worker: UUID) -> Beat:
    """`rowcron.heartbeat` on a connection of the heartbeat's own thread."""
    try:
        row = connection.execute(_HEARTBEAT, (str(worker), None, False, None)).fetchone()
    except psycopg.Error as error:
        raise translate(error) from error
    return _beat(row) if row else Beat(None, True, [], [])


async def claim(
    link: Link, worker: UUID, capacity: int, about: Registration, kinds: str | None = None
) -> list[Run]:
    """`rowcron.claim`: fire what is due, then take up to `capacity` runs. Raises as `heartbeat`."""
    return await link.fetch(
        _CLAIM,
        (
            str(worker),
            capacity,
            about.queues,
            kinds or about.kinds,
            about.handlers,
            f"{about.lease} s",
        ),
        lambda _cursor: Run,
    )


class Verdict(NamedTuple):
    """What became of one report."""

    run_id: int
    accepted: bool
    recorded: Recorded


async def finish_many(
    link: Link, worker: UUID, reports: Sequence[tuple[Run, Outcome]]
) -> list[Verdict]:
    """`rowcron.finish` for many runs. Raises `Unavailable`, `WorkerLost`."""
    outcomes = [outcome for _, outcome in reports]
    rows = await link.fetch(
        _FINISH_MANY,
        (
            str(worker),
            "{" + ",".join([str(run.run_id) for run, _ in reports]) + "}",
            "{" + ",".join([run.token.hex() for run, _ in reports]) + "}",
            "{" + ",".join([o.outcome for o in outcomes]) + "}",
            text_array([o.reason for o in outcomes]),
            text_array([o.error for o in outcomes]),
            text_array([o.output for o in outcomes]),
            text_array([o.result for o in outcomes]),
            text_array([None if o.retry_after is None else f"{o.retry_after} s" for o in outcomes]),
        ),
    )
    return [
        Verdict(run_id, accepted, Recorded(outcome, final, instant(due)))
        for run_id, accepted, final, outcome, due in rows
    ]


def finish_values(run: Run, outcome: Outcome) -> tuple[str, tuple[Any, ...]]:
    """Return `rowcron.finish` for one run, for a connection that a handler was given."""
    return _FINISH, (
        run.run_id, run.token.hex(), outcome.outcome, outcome.error, outcome.output, outcome.result,
        outcome.reason,
    )  # fmt: skip


async def finish_one(link: Link, run: Run, outcome: Outcome) -> Recorded:
    """`rowcron.finish` for one run, waiting for its row.

    Raises `ClaimLost` when it is over already.
    """
    rows = await link.fetch(*finish_values(run, outcome))
    return Recorded(rows[0][0], rows[0][1], None)


async def execute(connection: AsyncConnection[Any], run: Run) -> tuple[Recorded, str | None]:
    """`rowcron.execute` under the run's timeout, in one round trip; returns the error's text, too.

    Raises `ClaimLost`; `Unavailable` leaves in doubt what became of the run.
    """
    limit = min(max(int(run.seconds * 1000), 1), _MAX_TIMEOUT)
    query = f"set statement_timeout = {limit}; {_WATCH}; "
    query += _EXECUTE.format(run_id=run.run_id, token=run.token.hex())
    try:
        cursor = AsyncClientCursor(connection)
        await cursor.execute(query)
        while cursor.nextset():
            pass
        row = await cursor.fetchone()
    except psycopg.Error as error:
        raise translate(error) from error
    assert row is not None
    outcome, final, text, due = row
    return Recorded(outcome, final, due), text


async def session_of(connection: AsyncConnection[Any]) -> Session | None:
    """Return which session this is, so that it can be ended from another one."""
    cursor = await connection.execute(
        "select a.pid, a.backend_start from pg_stat_activity as a where a.pid = pg_backend_pid()"
    )
    row = await cursor.fetchone()
    return None if row is None or row[1] is None else Session(*row)


async def terminate(info: str, session: Session) -> bool:
    """End a session of our own login; return whether there was one. Opens a connection for it."""
    connection = await connect(info)
    try:
        cursor = await connection.execute(_TERMINATE, session)
        return await cursor.fetchone() is not None
    except psycopg.Error as error:
        raise translate(error) from error
    finally:
        await connection.close()


async def listen(connection: AsyncConnection[Any]) -> None:
    """Ask for notifications."""
    try:
        await connection.execute("listen rowcron")
    except psycopg.Error as error:
        raise translate(error) from error
