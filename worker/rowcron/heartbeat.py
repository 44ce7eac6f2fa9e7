"""What a worker says about itself, and is told for it: `rowcron.heartbeat`."""

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
from rowcron.literals import plain_array, scalar, text_array
from rowcron.models import Beat, Run

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
    _BEAT + "$1::uuid, asleep => $2::boolean, stopping => $3::boolean, changes_since => $4::bigint,"
    " full_kinds => $5::text[], holding => $6::bigint[])"
)
# A pooler cannot know the number of the session that it will lend, so behind one they differ.
_PULSE = _BEAT + "%s::uuid, session => pg_backend_pid() = %s)"
_HOLDING = _BEAT + "$1::uuid, holding => $2::bigint[])"


class Registration(NamedTuple):
    """What a worker says about itself."""

    queues: str | None
    kinds: str
    handlers: str
    concurrency: int
    lease: float
    poll: float


def describe(
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


def _answer(row: tuple[Any, ...]) -> Beat:
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
            str(os.getpid()), "false", scalar(since),
        ),
    )  # fmt: skip
    return _answer(rows[0])


async def beat(
    link: Link,
    worker: UUID,
    asleep: bool | None = None,
    since: int | None = None,
    *,
    full: Sequence[str] = (),
    stopping: bool = False,
    held: Iterable[Run] = (),
) -> Beat:
    """`rowcron.heartbeat`; of the kinds `full` no more can be taken now.

    `stopping`: the last one; what of `held` has begun is lost with it, all else ready again.
    Raises `WorkerLost`, `WrongVersion`, `Unavailable`.
    """
    full_kinds = text_array(full) if full else None
    begun = plain_array([run.run_id for run in held if run.begun]) if stopping else None
    values = (str(worker), scalar(asleep), scalar(stopping), scalar(since), full_kinds, begun)
    rows = await link.fetch(_HEARTBEAT, values)
    return _answer(rows[0]) if rows else Beat(None, True, [], [])


async def tell_held(link: Link, worker: UUID, held: Iterable[Run]) -> None:
    """`rowcron.heartbeat` that tells all that is held; whatever else is counted is ready again.

    For a registration that claims no more: its last claim may not have been answered.
    """
    await link.fetch(_HOLDING, (str(worker), plain_array([run.run_id for run in held])))


def beat_in_thread(connection: Connection[Any], worker: UUID) -> Beat:
    """`rowcron.heartbeat` on a connection of the heartbeat's own thread.

    Says that this is the worker's own session, if it is: when it ends, so has the worker.
    """
    try:
        row = connection.execute(_PULSE, (str(worker), connection.info.backend_pid)).fetchone()
    except psycopg.Error as error:
        raise translate(error) from error
    return _answer(row) if row else Beat(None, True, [], [])
