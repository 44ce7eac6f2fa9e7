"""What passes between the database, the loop and the executors.

Plain classes with slots, not pydantic: a worker makes tens of thousands a second of them, and what
they hold comes from functions of the schema, whose constraints have checked it already.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

if TYPE_CHECKING:
    from rowcron.blank import Blanker

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)  # where PostgreSQL's binary timestamps count from
_UNREAD = object()


def instant(microseconds: int | None) -> datetime | None:
    """Return PostgreSQL's binary timestamptz as a datetime in UTC.

    Beyond year 9999: that year's end.
    """
    if microseconds is None:
        return None
    try:
        return _EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        bound = datetime.max if microseconds > 0 else datetime.min
        return bound.replace(tzinfo=UTC)


_INTERVAL = struct.Struct("!qii")
_lengths: dict[bytes, float] = {}


def length(interval: bytes) -> float:
    """Return PostgreSQL's binary interval in seconds, as `extract(epoch ...)` counts them."""
    known = _lengths.get(interval)
    if known is None:
        microseconds, days, months = _INTERVAL.unpack(interval)
        years, months = divmod(months, 12)
        known = microseconds / 1e6 + 86_400.0 * (days + 30 * months + 365.25 * years)
        if len(_lengths) < 10_000:
            _lengths[interval] = known
    return known


class Outcome:
    """How an attempt ended, as `rowcron.finish` takes it.

    `outcome`: succeeded, failed, fatal (failed, never again), cancelled, released (given back:
    nothing has happened, not counted), lost or stopped (lost because we stop, not counted against
    max_lost). `result` is JSON text. `recorded`: the database knows already. `in_doubt`: the
    connection was cut while it was being recorded, so it has to be asked.
    """

    __slots__ = (
        "error",
        "in_doubt",
        "outcome",
        "output",
        "reason",
        "recorded",
        "result",
        "retry_after",
    )

    def __init__(
        self,
        outcome: str,
        reason: str | None = None,
        error: str | None = None,
        output: str | None = None,
        result: str | None = None,
        retry_after: float | None = None,
        *,
        recorded: Recorded | None = None,
        in_doubt: bool = False,
    ) -> None:
        self.outcome = outcome
        self.reason = reason
        self.error = error
        self.output = output
        self.result = result
        self.retry_after = retry_after
        self.recorded = recorded
        self.in_doubt = in_doubt


class Recorded(NamedTuple):
    """What the database wrote about an attempt."""

    outcome: str
    final: bool
    next_due_at: datetime | None


class Run:
    """One attempt at a run, as a handler sees it when it asks for `run`.

    Instants are the database's. `row` is the claim as it came, in the order of `database.CLAIMED`;
    what few handlers look at is read out of it when asked. `whole` is the row, of the same claim,
    that tells what belongs to the job.
    """

    __slots__ = (
        "_args",
        "attempt",
        "begun",
        "command",
        "expires",
        "hidden",
        "job",
        "kind",
        "member",
        "owner",
        "row",
        "run_id",
        "seconds",
        "started",
        "state",
        "stopping",
        "token",
        "whole",
    )

    def __init__(self, row: Sequence[Any], whole: Sequence[Any] | None = None) -> None:
        self.row = row
        self.whole = whole = whole or row
        self.run_id: int = row[0]
        self.token: bytes = row[1] or whole[1]
        self.job: str = whole[3]
        self.owner: str = whole[4]
        self.kind: str = whole[6]
        self.command: str = whole[7]
        self.attempt: int = row[9]
        self.seconds: float = length(whole[13])  # how long it may take
        self._args: Any = _UNREAD
        # The worker's own bookkeeping, none of a handler's business:
        self.member: Any = None  # under which registration it is held
        self.started = 0.0  # by the loop's clock
        self.expires = float("inf")  # by the loop's clock; set when it begins
        self.begun = False  # whether anything may have happened that no rollback undoes
        self.stopping: str | None = None  # why it is being stopped
        self.state: Any = None  # the executor's
        self.hidden: Blanker | None = None  # what may not be told of this run

    @property
    def job_id(self) -> int:
        """The job's number."""
        return self.row[2]  # type: ignore[no-any-return]

    @property
    def queue(self) -> str:
        """The queue that it was claimed from."""
        return self.whole[5]  # type: ignore[no-any-return]

    @property
    def args(self) -> Any:
        """The arguments: the run's own, else the job's; an empty object when there are none."""
        if self._args is _UNREAD:
            raw = self.args_json
            self._args = {} if raw == b"{}" else json.loads(raw)
        return self._args

    @property
    def args_json(self) -> bytes:
        """The arguments as JSON text in UTF-8."""
        raw: bytes = self.row[8] or self.whole[8]
        return raw[1:]  # before it, the version of jsonb's binary format

    @property
    def scheduled_for(self) -> datetime | None:
        """The occurrence that it is for, or that the run was for which it repeats.

        None when it was asked for on demand.
        """
        return instant(self.row[10])

    @property
    def due_at(self) -> datetime | None:
        """Since when it might have started."""
        return instant(self.row[11])

    @property
    def started_at(self) -> datetime | None:
        """When it was claimed."""
        return instant(self.whole[12])

    @property
    def timeout(self) -> timedelta:
        """How long it may take."""
        try:
            return timedelta(seconds=self.seconds)
        except OverflowError:
            return timedelta.max

    @property
    def deadline(self) -> datetime | None:
        """The instant at which it will be stopped."""
        start = self.started_at
        try:
            return None if start is None else start + self.timeout
        except OverflowError:
            return datetime.max.replace(tzinfo=UTC)

    @property
    def connection_name(self) -> str | None:
        """Kind sql: the connection of the worker's configuration that the job names."""
        return self.whole[14]  # type: ignore[no-any-return]

    @property
    def secrets(self) -> list[str] | None:
        """Of the secrets that the command names, those granted; None when it names none."""
        return self.whole[16]  # type: ignore[no-any-return]

    @property
    def args_secrets(self) -> list[str] | None:
        """Likewise of the job's arguments; None also when the run has its own: those are data."""
        if self.row[8] is not None and self.row is not self.whole:
            return None
        return self.whole[17]  # type: ignore[no-any-return]

    @property
    def idempotency_key(self) -> UUID:
        """The same for every attempt at this run: for whoever must not do a thing twice."""
        return UUID(bytes=self.row[15])

    def __repr__(self) -> str:
        return f"<Run {self.run_id} of {self.owner}.{self.job}, attempt {self.attempt}>"


class Beat(NamedTuple):
    """The answer to a heartbeat. `wake_after` in seconds; None: nothing known.

    `lead`: how many seconds earlier a claim ahead should come, 0 where there is nothing to fire.
    `look_after`: who sleeps should say so again after so many seconds, because others hold runs.
    `held`: why everything stands still.
    """

    wake_after: float | None
    settled: bool
    cancels: list[int]
    changes: list[dict[str, Any]]
    look_after: float | None = None
    held: str | None = None
    lead: float = 0.0


__all__ = ["Beat", "Outcome", "Recorded", "Run", "instant"]
