"""What clients send: of which form it is. Whether it makes sense the database judges."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from rowcron.web.simple import Args, End, Finite, Int4, Int8, Length, Start

NIGHTLY: dict[str, Any] = {
    "name": "close-the-books",
    "schedule": "0 3 * * mon-fri",
    "timezone": "Europe/Berlin",
    "command": "select finance.close_day()",
    "timeout": "10 minutes",
    "max_attempts": 3,
    "retry_delay": "30 seconds",
    "description": "Posts the day's totals.",
}
HOOK: dict[str, Any] = {
    "name": "tell-the-shop",
    "kind": "http",
    "schedule": "@every 5 minutes",
    "command": "POST https://shop.example/hook\nExpect-Status: 200-299",
    "args": {"event": "tick"},
}
ON_DEMAND: dict[str, Any] = {"name": "resend-invoice", "command": "select billing.resend()"}


class Body(BaseModel):
    """A body: what is not known is refused, and nothing is taken for something else."""

    model_config = ConfigDict(extra="forbid", strict=True)


class JobColumns(Body):
    """The columns of `rowcron.job` that its owner writes."""

    kind: str | None = Field(None, description="sql (default), http, python, shell.")
    args: Args = Field(None, description="Handed to the command.")
    schedule: str | None = Field(
        None, description="A cron expression, `@every 5 minutes`, ...; null: only on demand."
    )
    timezone: str | None = Field(None, description="The IANA zone in which it is read. UTC.")
    starts_at: Start | None = None
    ends_at: End | None = None
    max_runs: Int8 | None = None
    queue: str | None = None
    priority: Int4 | None = Field(None, description="Higher first.")
    enabled: bool | None = Field(None, description="False: paused.")
    timeout: Length | None = None
    max_attempts: Int4 | None = None
    retry_delay: Length | None = None
    retry_backoff: Finite | None = None
    max_retry_delay: Length | None = None
    retry_jitter: Finite | None = None
    on_missed: str | None = Field(None, description="latest, skip, all.")
    missed_grace: Length | None = None
    max_missed: Int4 | None = None
    on_overlap: str | None = Field(None, description="skip, wait, allow.")
    max_running: Int4 | None = None
    on_lost: str | None = Field(None, description="retry, fail.")
    max_lost: Int4 | None = None
    on_gap: str | None = Field(None, description="run, skip; null: by the form of the schedule.")
    on_fold: str | None = Field(None, description="once, twice; null: likewise.")
    jitter: Length | None = None
    connection: str | None = None
    keep: Length | None = None
    description: str | None = None


class JobIn(JobColumns):
    """A whole job; what is left out, or null, has its default."""

    model_config = ConfigDict(json_schema_extra={"examples": [NIGHTLY, HOOK, ON_DEMAND]})

    name: str = Field(description="Unique for its owner; no dots.")
    command: str = Field(description="What to do, by kind.")


class JobPatch(JobColumns):
    """The columns to change (JSON merge patch); null empties a column, if it may be empty."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"schedule": "30 3 * * *", "description": None}, {"enabled": False}]
        }
    )

    name: str | None = None
    command: str | None = None


class RunRequest(Body):
    """Run now."""

    model_config = ConfigDict(json_schema_extra={"examples": [{}, {"args": {"day": "2026-11-24"}}]})

    args: Args = Field(None, description="Replace the job's args for this run.")


class Enqueue(Body):
    """A run on demand. Its key is the header Idempotency-Key."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"args": {"invoice": 4711}},
                {"due_at": "2030-12-24T18:00:00+00:00", "priority": 5, "key_ttl": "2 days"},
            ]
        }
    )

    args: Args = Field(None, description="Replace the job's args for this run.")
    due_at: Start | None = Field(None, description="Not before; ISO 8601. Null: now.")
    priority: Int4 | None = Field(None, description="Null: the job's.")
    key_ttl: Length | None = Field(None, description="How long the key names the run. 1 day.")


class Text(Body):
    """Schedule text to be tried, as a job would have it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"schedule": "0 3 * * mon-fri", "timezone": "Europe/Berlin"},
                {"schedule": "@every 90 seconds", "count": 3},
            ]
        }
    )

    schedule: str
    timezone: str = "UTC"
    on_gap: str | None = None
    on_fold: str | None = None
    name: str | None = Field(None, description="The job's name: spreads H.")
    count: int = Field(5, ge=1, le=100)


class Hold(Body):
    """Why everything is to stand still."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "moving the database"}]})

    reason: str = ""
