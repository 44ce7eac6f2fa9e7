"""What a worker says about its runs: a line for people at the end of each, records for auditors."""

from __future__ import annotations

import re
from typing import Any

from rowcron.errors import first_line
from rowcron.log import Log
from rowcron.models import Outcome, Run

# before the lines of an exception group itself; those of its exceptions are set in further
_OF_A_GROUP = re.compile(r"^  [|+] ")


def began(log: Log, run: Run, worker: str) -> None:
    """Tell that a run was claimed and started; only auditors want to know."""
    about = identity(run)
    log.event(
        "claim",
        f"{run.owner}.{run.job} run {run.run_id} claimed",
        **about,
        worker=worker,
        queue=run.queue,
        scheduled_for=text(run.scheduled_for),
        due_at=text(run.due_at),
        claimed_at=text(run.started_at),
    )
    log.event("start", f"{run.owner}.{run.job} run {run.run_id} started", **about)


def ended(log: Log, run: Run, outcome: Outcome, seconds: float) -> None:
    """Tell how an attempt ended, as the database recorded it."""
    recorded = outcome.recorded
    assert recorded is not None
    word = recorded.outcome
    line = f"{run.owner}.{run.job} run {run.run_id} {word} in {length(seconds)}"
    if run.attempt > 1:
        line += f" (attempt {run.attempt})"
    if word == "released":
        line += ", put off" if outcome.reason == "snoozed" else ", given back"
    elif not recorded.final and word != "lost":
        line += ", to be tried again"
    # by its handler, not because somebody asked: a plan, with the reason for it
    planned = word == outcome.outcome == "cancelled" and run.stopping is None
    if planned and outcome.reason is not None:
        line += f": {first_line(outcome.reason)}"
    elif outcome.error is not None:
        raised = outcome.reason in ("exception", "abandoned")
        says = exception_line if raised else first_line
        line += f": {says(outcome.error)}"
    elif outcome.outcome == "stopped":
        line += ", broken off because the worker stops"
    level = "info" if planned or word in ("succeeded", "released") else "warning"
    if log.audits:
        log.event(
            "end",
            line,
            level,
            **identity(run),
            outcome=word,
            reason=outcome.reason,
            final=recorded.final,
            duration=round(seconds, 6),
            error=outcome.error,
            next_due_at=text(recorded.next_due_at),
        )
    else:
        log.event("end", line, level)


def refused(log: Log, run: Run, outcome: Outcome, *, again: bool) -> None:
    """Tell that a report was not taken."""
    what = f"{run.owner}.{run.job} run {run.run_id}"
    if again:
        line = f"{what} {outcome.outcome}: recorded before, or the claim was lost meanwhile (RCCLM)"
        log.event("refused", line, "info", code="RCCLM", **identity(run), outcome=outcome.outcome)
    else:
        line = f"{what} {outcome.outcome}, but its claim was lost (RCCLM); the report is dropped"
        log.event(
            "refused", line, "warning", code="RCCLM", **identity(run), outcome=outcome.outcome
        )


def changed(log: Log, change: dict[str, Any]) -> None:
    """Tell who changed what."""
    action, by = change.get("action"), change.get("by")
    owner, job, run = change.get("owner"), change.get("job"), change.get("run_id")
    parts = [f"{by}: {action}"]
    if job is not None:
        parts.append(f"{owner}.{job}" if owner else str(job))
    if run is not None:
        parts.append(f"run {run}")
    if columns := change.get("columns"):
        parts.append(f"({', '.join(columns)})")
    log.event("change", " ".join(parts), **{k: v for k, v in change.items() if v is not None})


def held(log: Log, why: str | None) -> None:
    """Tell that everything stands still, or goes on."""
    if why is None:
        log.event("released", "released; taking runs again")
    else:
        log.event("held", f"{why}; it goes on after: rowcron release", "warning")


def identity(run: Run) -> dict[str, Any]:
    """Return what names an attempt in a record."""
    return {
        "run_id": run.run_id,
        "attempt": run.attempt,
        "job": run.job,
        "owner": run.owner,
        "kind": run.kind,
    }


def text(value: Any) -> str | None:
    """Return an instant as text."""
    return None if value is None else str(value)


def exception_line(error: str) -> str:
    """Return what a traceback ends in: the exception itself, of which more lines may follow."""
    lines = [_OF_A_GROUP.sub("", line) for line in error.splitlines()]
    frames = [number for number, line in enumerate(lines) if line.startswith('  File "')]
    after = lines[frames[-1] :] if frames else lines
    return first_line("\n".join(line for line in after if not line.startswith(" ")) or error)


def length(seconds: float) -> str:
    """Return a duration as people say it."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
