"""What is told about runs, schedules and the whole: the columns under their own names.

Instants are ISO 8601 in UTC, intervals as PostgreSQL writes them (`00:10:00`, `1 day`).
"""

from __future__ import annotations

from typing import Generic, TypeVar

from pydantic import BaseModel, Field, JsonValue

from rowcron.web.simple import Instant, Length

T = TypeVar("T")


class RunId(BaseModel):
    """The run that was asked for."""

    run_id: int


class Cancelled(BaseModel):
    """What became of the wish to cancel."""

    run_id: int
    answer: str = Field(description="cancelled: it had not started. asked: its worker stops it.")


class Run(BaseModel):
    """A run, live or ended."""

    run_id: int
    job_id: int
    job: str
    owner: str
    queue: str
    kind: str
    state: str = Field(
        description="waiting, ready, running; succeeded, failed, cancelled, lost when it has ended."
    )
    waits_for: str | None
    attempt: int
    scheduled_for: Instant | None
    due_at: Instant | None
    started_at: Instant | None
    finished_at: Instant | None
    reason: str | None
    error: str | None
    result: JsonValue
    retry_of: int | None
    key: str | None
    args: JsonValue
    worker_id: str | None


class Attempt(BaseModel):
    """The end of one attempt, from `rowcron.ledger`."""

    attempt: int
    final: bool
    outcome: str
    due_at: Instant | None
    started_at: Instant | None
    finished_at: Instant
    reason: str | None
    error: str | None
    output: str | None
    result: JsonValue
    worker_id: str | None


class RunDetail(Run):
    """A run with the attempts that have ended."""

    attempts: list[Attempt]


class Entry(BaseModel):
    """A final entry of the ledger: a run, or occurrences that did not run."""

    job_id: int
    job: str
    owner: str
    run_id: int | None
    attempt: int | None
    scheduled_for: Instant | None
    first_scheduled_for: Instant | None
    occurrences: int
    due_at: Instant | None
    started_at: Instant | None
    finished_at: Instant
    duration: Length | None
    outcome: str
    reason: str | None
    error: str | None
    result: JsonValue
    queue: str
    kind: str


class Upcoming(BaseModel):
    """What runs next, in order."""

    position: int
    due_at: Instant
    job: str
    owner: str
    queue: str
    kind: str
    priority: int
    job_id: int
    run_id: int | None
    scheduled_for: Instant | None
    source: str


class Worker(BaseModel):
    """A row of `rowcron.workers`."""

    id: str
    state: str
    host: str | None
    pid: int | None
    login: str
    version: str | None
    queues: list[str] | None
    kinds: list[str]
    concurrency: int
    running: int
    started_at: Instant
    seen_at: Instant
    expires_at: Instant


class Queue(BaseModel):
    """A row of `rowcron.queue_health`."""

    queue: str
    kind: str
    workers: int
    ready_up_to_1000: int
    oldest_ready_age: Length | None
    next_run_at: Instant | None
    held: str | None
    ledger_overflows: bool
    overdue_for: Length | None


class Page(BaseModel, Generic[T]):
    """Some of the rows. `next` is the `cursor` of the following page; null: there is none."""

    items: list[T]
    next: str | None


class Items(BaseModel, Generic[T]):
    """All of the rows."""

    items: list[T]


class Verdict(BaseModel):
    """What the database says of it."""

    valid: bool
    english: str | None = None
    next: list[Instant] | None = None
    problem: dict[str, JsonValue] | None = None


class Next(BaseModel):
    """The next instants of a schedule."""

    next: list[Instant]


class English(BaseModel):
    """A schedule in English."""

    english: str


class Held(BaseModel):
    """Whether everything stands still."""

    held: bool


class Me(BaseModel):
    """As whom the request acts."""

    role: str
    author: bool = Field(description="May have jobs.")
    operator: bool = Field(description="May pause, run, cancel and retry everyone's.")
    viewer: bool = Field(description="Sees everyone's.")


class Health(BaseModel):
    """Whether this process answers."""

    status: str
    version: str
