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
from psycopg import Connection

from rowcron import __version__
from rowcron.errors import translate
from rowcron.link import Link
from rowcron.models import Beat, Outcome, Recorded, Run, instant, length
from rowcron.wire import Wire

CLAIMED = (
    "run_id, token, job_id, job, owner, queue, kind, command, args, attempt, scheduled_for, due_at,"
    " started_at, timeout, connection, idempotency_key, secrets, args_secrets"
)
_WHO_CLAIMS = "$1::uuid, $2::integer, $3::text[], $4::text[], $5::text[], $6::interval"
_CLAIM = f"select {CLAIMED} from rowcron.claim({_WHO_CLAIMS}, terse => true)"
_CLAIM_READY = f"select {CLAIMED} from rowcron.claim_ready({_WHO_CLAIMS})"
_CLAIM_AHEAD = f"select {CLAIMED} from rowcron.claim({_WHO_CLAIMS}, terse => true, ahead => true)"
# The server's clock says when a claim ahead takes effect. Whatever it brought: it may have fired.
_AT_THE_INSTANT = (
    "select pg_sleep_until(to_timestamp("
    "nullif(current_setting('rowcron.claimed_for', true), '')::double precision)); commit"
)
_BEAT = (
    "select extract(epoch from wake_after)::double precision, settled, cancels, changes::text,"
    " extract(epoch from look_after)::double precision, held,"
    " extract(epoch from lead)::double precision from rowcron.heartbeat("
)
_REGISTER = (
    _BEAT + "$1::uuid, $2::text[], $3::text[], $4::text[], $5::integer, $6::interval, $7::interval,"
    " $8, $9, $10::integer, asleep => $11::boolean, changes_since => $12::bigint)"
)
_HEARTBEAT = (
    _BEAT + "$1::uuid, asleep => $2::boolean, stopping => $3::boolean, changes_since => $4::bigint)"
)
# A pooler cannot know the number of the session that it will lend, so behind one they differ.
_PULSE = _BEAT + "%s::uuid, session => pg_backend_pid() = %s)"
_HOLDING = _BEAT + "$1::uuid, holding => $2::bigint[])"
_FINISH_MANY = (
    "select run_id, accepted, final, outcome, next_due_at from rowcron.finish("
    "$1::uuid, $2::bigint[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[],"
    " $8::jsonb[], $9::interval[], terse => true)"
)
_FINISH = (  # for a cursor
    "select recorded, final from rowcron.finish("
    "run_id => %s::bigint, token => %s::uuid, outcome => %s, error => %s, output => %s,"
    " result => %s::jsonb, reason => %s)"
)
_EXECUTE = "select outcome, final, error, next_due_at from rowcron.execute"
SUCCEEDED = Recorded("succeeded", True, None)
# Lets the server notice that we are gone. Else the job of a worker that was killed goes on to its
# end, and its run is nobody's until then. With each execution, because that resets all; only some
# systems can do it, and others refuse it.
_WATCH = "set local client_connection_check_interval = '2s'; "
LOOK = 0.75  # seconds until who got runs looks whether others hold what it was told of, too
_MAX_TIMEOUT = 2_147_483_647


class Registration(NamedTuple):
    """What a worker says about itself."""

    queues: str | None
    kinds: str
    handlers: str
    concurrency: int
    lease: float
    poll: float


def _numbered(query: str) -> str:
    first, *rest = query.split("%s")
    return first + "".join([f"${number}{part}" for number, part in enumerate(rest, 1)])


def text_array(items: Iterable[str | None]) -> str:
    """Return PostgreSQL's literal of an array of texts."""
    return "{" + ",".join([_element(item) for item in items]) + "}"


def _texts(items: list[str | None]) -> str | None:
    """Return that literal, or None where there is no text at all."""
    return text_array(items) if items.count(None) < len(items) else None


def _element(item: str | None) -> str:
    if item is None:
        return "NULL"
    return '"' + item.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _text(value: bool | int | None) -> str | None:
    return None if value is None else str(value)


def _numbers(runs: Iterable[Run]) -> str:
    return "{" + ",".join([str(run.run_id) for run in runs]) + "}"


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
    wake_after, settled, cancels, changes, look_after, held, lead = row
    return Beat(
        wake_after,
        settled is not False,
        list(cancels or ()),
        json.loads(changes) if changes else [],
        look_after,
        held,
        lead or 0.0,
    )


async def register(link: Link, worker: UUID, about: Registration, since: int | None) -> Beat:
    """`rowcron.heartbeat`, the first of a worker."""
    rows = await link.fetch(
        _REGISTER,
        (
            str(worker), about.queues, about.kinds, about.handlers, str(about.concurrency),
            f"{about.lease} s", f"{about.poll} s", __version__, socket.gethostname(),
            str(os.getpid()), "false", _text(since),
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
    values = (str(worker), _text(asleep), _text(stopping), _text(since))
    rows = await link.fetch(_HEARTBEAT, values)
    return _beat(rows[0]) if rows else Beat(None, True, [], [])


async def tell_held(link: Link, worker: UUID, held: Iterable[Run]) -> None:
    """`rowcron.heartbeat` that tells all that is held; whatever else is counted is ready again.

    For a registration that claims no more: its last claim may not have been answered.
    """
    await link.fetch(_HOLDING, (str(worker), _numbers(held)))


def heartbeat_in_thread(connection: Connection[Any], worker: UUID) -> Beat:
    """`rowcron.heartbeat` on a connection of the heartbeat's own thread.

    Says that this is the worker's own session, if it is: when it ends, so has the worker.
    """
    try:
        row = connection.execute(_PULSE, (str(worker), connection.info.backend_pid)).fetchone()
    except psycopg.Error as error:
        raise translate(error) from error
    return _beat(row) if row else Beat(None, True, [], [])


async def claim(
    link: Link,
    worker: UUID,
    capacity: int,
    about: Registration,
    kinds: str | None = None,
    *,
    ahead: bool = False,
) -> list[Run]:
    """`rowcron.claim`: fire what is due, then take up to `capacity` runs. Raises as `heartbeat`.

    `ahead`: if there is nothing yet, what falls due in a moment, returned at that instant.
    """
    values = _claim_values(worker, capacity, about, kinds)
    if not ahead:
        return _runs(await link.fetch(_CLAIM, values))
    runs = []

    def before(rows: list[Any]) -> str:
        runs.extend(_runs(rows))
        return _AT_THE_INSTANT

    await link.fetch(_CLAIM_AHEAD, values, end=before)
    return runs


async def claim_ready(
    link: Link, worker: UUID, capacity: int, about: Registration, kinds: str | None = None
) -> tuple[list[Run], float]:
    """`rowcron.claim_ready`: a few runs that are ready, and how long the announced sleep stands.

    In seconds; 0: not at all, there may be more.
    """
    rows = await link.fetch(_CLAIM_READY, _claim_values(worker, capacity, about, kinds))
    if not rows or rows[-1][0] is not None:
        return _runs(rows), LOOK
    timeout = rows.pop()[13]
    return _runs(rows), 0.0 if timeout is None else length(timeout)


def _claim_values(
    worker: UUID, capacity: int, about: Registration, kinds: str | None
) -> tuple[str | None, ...]:
    lease = f"{about.lease} s"
    kinds = kinds or about.kinds
    return str(worker), str(capacity), about.queues, kinds, about.handlers, lease


def _runs(rows: list[Any]) -> list[Run]:
    wholes = {row[2]: row for row in rows if row[3] is not None}
    return [Run(row, wholes[row[2]]) for row in rows]


class Verdict(NamedTuple):
    """What became of one report."""

    accepted: bool
    recorded: Recorded


async def finish_many(
    link: Link, worker: UUID, reports: Sequence[tuple[Run, Outcome]]
) -> dict[int, Verdict]:
    """`rowcron.finish` for many runs; answers, by run, only for those that did not just end so.

    Raises `Unavailable`, `WorkerLost`.
    """
    outcomes = [outcome for _, outcome in reports]
    rows = await link.fetch(
        _FINISH_MANY,
        (
            str(worker),
            _numbers(run for run, _ in reports),
            "{" + ",".join([run.token.hex() for run, _ in reports]) + "}",
            "{" + ",".join([o.outcome for o in outcomes]) + "}",
            _texts([o.reason for o in outcomes]),
            _texts([o.error for o in outcomes]),
            _texts([o.output for o in outcomes]),
            _texts([o.result for o in outcomes]),
            _texts([None if o.retry_after is None else f"{o.retry_after} s" for o in outcomes]),
        ),
    )
    return {
        run_id: Verdict(accepted, Recorded(outcome, final, instant(due)))
        for run_id, accepted, final, outcome, due in rows
    }


def finish_values(run: Run, outcome: Outcome) -> tuple[str, tuple[str | None, ...]]:
    """Return `rowcron.finish` for one run, for a connection that a handler was given."""
    return _FINISH, (
        str(run.run_id), run.token.hex(), outcome.outcome, outcome.error, outcome.output,
        outcome.result, outcome.reason,
    )  # fmt: skip


async def finish_one(link: Link, run: Run, outcome: Outcome) -> Recorded:
    """`rowcron.finish` for one run, waiting for its row.

    Raises `ClaimLost` when it is over already.
    """
    query, values = finish_values(run, outcome)
    rows = await link.fetch(_numbered(query), values)
    return Recorded(rows[0][0], rows[0][1], None)


async def execute(wire: Wire, run: Run, *, watch: bool) -> tuple[Recorded, str | None]:
    """`rowcron.execute` under the run's timeout, in one round trip; returns the error's text, too.

    `watch`: the server can notice meanwhile that we are gone. Raises `ClaimLost`; `Unavailable`
    leaves in doubt what became of the run.
    """
    limit = min(max(int(run.seconds * 1000), 1), _MAX_TIMEOUT)
    # One message is one transaction, behind a pooler too: what is set for it stays in it.
    query = (
        f"set local statement_timeout = {limit}; {_WATCH if watch else ''}{_EXECUTE}"
        f"({run.run_id}, '{run.token.hex()}'::uuid)"
    )
    try:
        answer = await wire.ask(query.encode())
    except psycopg.Error as error:
        raise translate(error) from error
    if answer.get_value(0, 0) == b"succeeded":
        return SUCCEEDED, None
    outcome, final, text, due = wire.rows(answer)[0]
    return Recorded(outcome, final, due), text
