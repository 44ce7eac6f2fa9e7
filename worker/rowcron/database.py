"""The functions of the schema that a worker calls for runs: claim, execute, finish.

With `rowcron.heartbeat` they are all that a worker calls for its runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import psycopg

from rowcron.errors import translate
from rowcron.heartbeat import Registration
from rowcron.link import Link
from rowcron.literals import numbered, plain_array, texts_or_none
from rowcron.models import Outcome, Recorded, Run, instant, length
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
# Nothing is recorded, and no row comes, where a handler has ended the transaction that was marked.
# Marked by a setting, as no query may come before SET TRANSACTION ISOLATION LEVEL.
# What the handler, or its login's default, allows its own statements must not bind ours: its
# owner's open edit of a job may be in the way. The run's own timeout still cancels it.
_FINISH_IN = (
    "set local lock_timeout = 0; set local statement_timeout = 0; "
    f"{_FINISH} where pg_catalog.current_setting('rowcron.run_id', true) = %s"
)
# as JSON an instant is written the same in every DateStyle
_EXECUTE = "select outcome, final, error, to_json(next_due_at) #>> '{}' from rowcron.execute"
# Whatever the login's default is: in an older snapshot no try after a serialization failure would
# see more than the first did. With each execution, because that resets all, and behind a pooler the
# session is another one each time; it costs 1.5 µs.
_READ_COMMITTED = "set transaction isolation level read committed; "
SUCCEEDED = Recorded("succeeded", True, None)
Wanted = tuple[str | None, ...]  # the arguments of a claim
# Lets the server notice that we are gone. Else the job of a worker that was killed goes on to its
# end, and its run is nobody's until then. With each execution, because that resets all; only some
# systems can do it, and others refuse it.
_WATCH = "set local client_connection_check_interval = '2s'; "
LOOK = 0.75  # seconds until who got runs looks whether others hold what it was told of, too
_MAX_TIMEOUT = 2_147_483_647


async def claim(
    link: Link,
    worker: UUID,
    capacity: int,
    about: Registration,
    kinds: str | None = None,
    *,
    ahead: bool = False,
) -> list[Run]:
    """`rowcron.claim`: fire what is due, then take up to `capacity` runs. Raises as a heartbeat.

    `ahead`: if there is nothing yet, what falls due in a moment, returned at that instant.
    """
    values = wanted(worker, capacity, about, kinds)
    if not ahead:
        return _runs(await link.fetch(_CLAIM, values))
    runs = []

    def before(rows: list[Any]) -> str:
        runs.extend(_runs(rows))
        return _AT_THE_INSTANT

    await link.fetch(_CLAIM_AHEAD, values, end=before)
    return runs


async def claim_ready(
    link: Link, wanted: Wanted, early: Callable[[list[Run]], None]
) -> tuple[list[Run], float]:
    """`rowcron.claim_ready`: a few runs that are ready, and how long the announced sleep stands.

    In seconds; 0: not at all, there may be more. `early` is given those that may begin while their
    claim is being committed, as soon as they are known.
    """
    told: list[Run] = []

    def known(rows: list[Any]) -> None:
        if rows and rows[-1][0] is not None:
            told.extend(_runs(rows))
            early(told)

    rows = await link.fetch(_CLAIM_READY, wanted, early=known)
    if not rows or rows[-1][0] is not None:
        return told or _runs(rows), LOOK
    timeout = rows.pop()[13]
    return _runs(rows), 0.0 if timeout is None else length(timeout)


def wanted(worker: UUID, capacity: int, about: Registration, kinds: str | None) -> Wanted:
    """Return who claims, how many runs and which."""
    lease = f"{about.lease} s"
    kinds = kinds or about.kinds
    return str(worker), str(capacity), about.queues, kinds, about.handlers, lease


def _runs(rows: list[Any]) -> list[Run]:
    wholes = {row[2]: row for row in rows if row[3] is not None}
    # a whole row stands for itself: args and their secrets are told of it alone
    return [Run(row, row if row[3] is not None else wholes[row[2]]) for row in rows]


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
            plain_array([run.run_id for run, _ in reports]),
            plain_array([run.token.hex() for run, _ in reports]),
            plain_array([o.outcome for o in outcomes]),
            texts_or_none([o.reason for o in outcomes]),
            texts_or_none([o.error for o in outcomes]),
            texts_or_none([o.output for o in outcomes]),
            texts_or_none([o.result for o in outcomes]),
            texts_or_none(
                [None if o.retry_after is None else f"{o.retry_after} s" for o in outcomes]
            ),
        ),
    )
    return {
        run_id: Verdict(accepted, Recorded(outcome, final, instant(due)))
        for run_id, accepted, final, outcome, due in rows
    }


def mark(run: Run) -> str:
    """Return what tells the transaction of a run on a connection that a handler is given."""
    return f"set local rowcron.run_id = '{run.run_id}'"


def finish_in(run: Run, outcome: Outcome) -> tuple[str, tuple[str | None, ...]]:
    """Return `rowcron.finish` for one run, for the transaction that was marked.

    Several statements in one message, as a client cursor sends them; the last one answers.
    """
    return _FINISH_IN, (*_finish_values(run, outcome), str(run.run_id))


def _finish_values(run: Run, outcome: Outcome) -> tuple[str | None, ...]:
    return (
        str(run.run_id), run.token.hex(), outcome.outcome, outcome.error, outcome.output,
        outcome.result, outcome.reason,
    )  # fmt: skip


async def finish_one(link: Link, run: Run, outcome: Outcome) -> Recorded:
    """`rowcron.finish` for one run, waiting for its row.

    Raises `ClaimLost` when it is over already.
    """
    rows = await link.fetch(numbered(_FINISH), _finish_values(run, outcome))
    return Recorded(rows[0][0], rows[0][1], None)


async def execute(wire: Wire, run: Run, *, watch: bool) -> tuple[Recorded, str | None]:
    """`rowcron.execute` under the run's timeout, in one round trip; returns the error's text, too.

    `watch`: the server can notice meanwhile that we are gone. Raises `ClaimLost`; `Unavailable`
    leaves in doubt what became of the run.
    """
    limit = min(max(int(run.seconds * 1000), 1), _MAX_TIMEOUT)
    # One message is one transaction, behind a pooler too: what is set for it stays in it.
    query = (
        f"{_READ_COMMITTED}set local statement_timeout = {limit}; {_WATCH if watch else ''}"
        f"{_EXECUTE}({run.run_id}, '{run.token.hex()}'::uuid)"
    )
    try:
        answer = await wire.ask(query.encode())
    except psycopg.Error as error:
        raise translate(error) from error
    if answer.get_value(0, 0) == b"succeeded":
        return SUCCEEDED, None
    outcome, final, text, due = wire.rows(answer)[0]
    return Recorded(outcome, final, due and datetime.fromisoformat(due)), text
