"""What is told about jobs: the columns of the schema under their own names."""

from __future__ import annotations

from pydantic import BaseModel, Field, JsonValue

from rowcron.web.simple import Instant, Length


class Job(BaseModel):
    """A job as its owner wrote it. How it fares is its state."""

    id: int
    name: str
    owner: str
    kind: str
    command: str
    args: JsonValue
    schedule: str | None
    english: str
    timezone: str
    starts_at: Instant | None
    ends_at: Instant | None
    max_runs: int | None
    queue: str
    priority: int
    enabled: bool
    timeout: Length
    max_attempts: int
    retry_delay: Length
    retry_backoff: float
    max_retry_delay: Length
    retry_jitter: float
    on_missed: str
    missed_grace: Length
    max_missed: int
    on_overlap: str
    max_running: int | None
    on_lost: str
    max_lost: int
    on_gap: str | None
    on_fold: str | None
    jitter: Length | None
    connection: str | None
    keep: Length | None
    description: str | None
    created_at: Instant
    updated_at: Instant


class JobRow(BaseModel):
    """A row of the view `rowcron.jobs`."""

    id: int
    name: str
    owner: str
    kind: str
    schedule: str | None
    timezone: str
    english: str
    enabled: bool
    queue: str
    priority: int
    next_run_at: Instant | None
    last_run_at: Instant | None
    last_outcome: str | None
    last_finished_at: Instant | None
    command: str
    description: str | None
    created_at: Instant
    updated_at: Instant
    state: str = Field(description="scheduled, on demand, paused, overdue or over")


class JobState(BaseModel):
    """How a job fares: `rowcron.jobs` and `rowcron.job_health`."""

    id: int
    enabled: bool
    next_run_at: Instant | None
    last_run_at: Instant | None
    verdict: str = Field(
        description="new, well, failing, paused, stuck behind one run, overdue, "
        "ahead of the clock, missed."
    )
    runs: int
    succeeded: int
    failed: int
    skipped: int
    missed: int | None
    last_outcome: str | None
    last_success_at: Instant | None
    median_duration: Length | None
    state: str = Field(description="scheduled, on demand, paused, overdue or over")


class Occurrence(BaseModel):
    """An instant that a schedule names, and what became or will become of it."""

    scheduled_for: Instant
    state: str
    run_id: int | None
    detail: str | None


class Gate(BaseModel):
    """A gate between a job and a run."""

    gate: str
    holds: bool
    detail: str
    hint: str | None


class Change(BaseModel):
    """Who changed the job, or asked something of its runs."""

    id: int
    changed_at: Instant
    changed_by: str
    action: str
    run_id: int | None
    old_values: JsonValue
    new_values: JsonValue
