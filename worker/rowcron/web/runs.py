"""/api/runs and /api/history: what runs, and what became of everything."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query
from psycopg import sql
from starlette.responses import PlainTextResponse, Response

from rowcron.web.answers import Cancelled, Entry, Page, Run, RunDetail, RunId
from rowcron.web.auth import Who
from rowcron.web.jobs import filtered
from rowcron.web.problems import Refusal, documented
from rowcron.web.queries import ATTEMPTS, ENDED, LIVE, RUN
from rowcron.web.raw import (
    MOST,
    Raw,
    decode_cursor,
    json_row,
    json_rows,
    page,
)
from rowcron.web.run_write import no_key
from rowcron.web.simple import End, Start

router = APIRouter(prefix="/api", tags=["runs"])
RunNumber = Annotated[int, Path(ge=1, le=2**63 - 1, description="The run's number.")]
Outcome = Literal["succeeded", "failed", "cancelled", "lost", "skipped", "missed"]
State = Literal["waiting", "ready", "running", "succeeded", "failed", "cancelled", "lost"]

_RUNS = f"""
  select r.* from (
    ({LIVE} where {{where}} order by a.run_id desc limit %(limit)s)
    union all
    (select l.* from ({ENDED}) as l (
      run_id, job_id, job, owner, queue, kind, state, waits_for, attempt, scheduled_for, due_at,
      started_at, finished_at, reason, error, result, retry_of, key, args, worker_id)
      where l.run_id is not null and {{ended}} order by l.run_id desc limit %(limit)s)
  ) as r
  order by r.run_id desc
  limit %(limit)s
"""
_HISTORY = """
  select
    h.job_id, h.job, h.owner, h.run_id, h.attempt, h.scheduled_for, h.first_scheduled_for,
    h.occurrences, h.due_at, h.started_at, h.finished_at, h.duration, h.outcome, h.reason, h.error,
    h.result, h.queue, h.kind
  from rowcron.history as h
  where {where}
  order by
    h.finished_at desc, h.job_id, coalesce(h.run_id, 0), coalesce(h.scheduled_for, '-infinity')
  limit %(limit)s
"""
_KEY = """
  (h.finished_at < %(at)s or (h.finished_at = %(at)s and (h.job_id, coalesce(h.run_id, 0),
    coalesce(h.scheduled_for, '-infinity')) > (%(key_job)s, %(key_run)s, %(key_for)s)))
"""
_CONDITIONS: dict[str, Any] = {
    "state": "a.state = %(state)s",
    "job": "a.job = %(job)s",
    "job_id": "a.job_id = %(job_id)s",
    "owner": "a.owner = rowcron._role_named(%(owner)s)",
    "queue": "a.queue = %(queue)s",
    "after": "a.run_id < %(after)s",
}
_HISTORY_CONDITIONS: dict[str, Any] = {
    "outcome": "h.outcome = %(outcome)s",
    "job": "h.job = %(job)s",
    "job_id": "h.job_id = %(job_id)s",
    "owner": "h.owner = rowcron._role_named(%(owner)s)",
    "since": "h.finished_at >= %(since)s",
    "until": "h.finished_at < %(until)s",
    "at": _KEY,
}


@router.get("/runs", response_model=Page[Run], responses=documented())
async def list_runs(
    who: Who,
    state: State | None = None,
    job: Annotated[str | None, Query(description="The job's name.")] = None,
    job_id: Annotated[int | None, Query(ge=1, le=2**63 - 1)] = None,
    owner: str | None = None,
    queue: str | None = None,
    limit: Annotated[int, Query(ge=1, le=MOST)] = 50,
    cursor: Annotated[str | None, Query(description="`next` of the page before.")] = None,
) -> Response:
    """List runs, live and ended, the newest first."""
    keys = decode_cursor(cursor, (int,))
    given = {
        "state": state, "job": job, "job_id": job_id, "owner": owner, "queue": queue,
        "after": keys[0] if keys else None,
    }  # fmt: skip
    live = filtered("{where}", _CONDITIONS, given)
    ended = {name: text.replace("a.", "l.", 1) for name, text in _CONDITIONS.items()}
    query = sql.SQL(_RUNS).format(where=live, ended=filtered("{where}", ended, given))
    async with who.glance() as asker:
        return await page(asker, query, given, limit, "v.run_id")


@router.get("/runs/{run}", response_model=RunDetail, responses=documented(404))
async def read_run(who: Who, run: RunNumber) -> Response:
    """Read a run, with each of its attempts that has ended."""
    async with who.ask() as asker:
        text = await json_row(asker, RUN, {"run": run})
        attempts = await json_rows(asker, ATTEMPTS, (run,))
    return Raw(f'{text[:-1]}, "attempts": [{", ".join(attempts)}]}}')


@router.get(
    "/runs/{run}/output",
    response_class=PlainTextResponse,
    responses=documented(404) | {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def read_output(
    who: Who, run: RunNumber, attempt: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None
) -> Response:
    """Read what an attempt printed, the last one if none is named."""
    async with who.glance() as asker:
        found = await asker.one(
            "select l.output from rowcron.ledger as l"
            " where l.run_id = %(run)s and l.attempt = coalesce(%(attempt)s::integer, l.attempt)"
            " order by l.attempt desc, l.finished_at desc limit 1",
            {"run": run, "attempt": attempt},
        )
    if found is None:
        raise Refusal(404, f"no such attempt of run {run} has ended")
    return PlainTextResponse(found["output"] or "")


@router.post("/runs/{run}/cancel", response_model=Cancelled, responses=documented(404, 409))
async def cancel_run(who: Who, run: RunNumber) -> Any:
    """Cancel a run: one that has not started ends at once, of another the worker is told."""
    async with who.ask() as asker:
        return {
            "run_id": run,
            "answer": await asker.value("select rowcron.cancel(%s)", (run,)),
        }


@router.post(
    "/runs/{run}/retry",
    status_code=201,
    response_model=RunId,
    responses=documented(404, 409),
    dependencies=[Depends(no_key)],
)
async def retry_run(who: Who, run: RunNumber) -> Any:
    """Run an ended run's job again with the same args, as a new run that names the old.

    It is for the same occurrence. Asked again, it makes another, so an Idempotency-Key is refused.
    """
    async with who.ask() as asker:
        new = await asker.value("select rowcron.retry(%s)", (run,))
    return Raw(f'{{"run_id": {new}}}', 201, {"Location": f"/api/runs/{new}"})


@router.get("/history", response_model=Page[Entry], responses=documented())
async def list_history(
    who: Who,
    outcome: Outcome | None = None,
    job: Annotated[str | None, Query(description="The job's name.")] = None,
    job_id: Annotated[int | None, Query(ge=1, le=2**63 - 1)] = None,
    owner: str | None = None,
    since: Start | None = None,
    until: End | None = None,
    limit: Annotated[int, Query(ge=1, le=MOST)] = 50,
    cursor: Annotated[str | None, Query(description="`next` of the page before.")] = None,
) -> Response:
    """List what became of everything, also of what did not run; newest first."""
    keys = decode_cursor(cursor, (str, int, int, str))
    at, key_job, key_run, key_for = keys or (None, None, None, None)
    given = {
        "outcome": outcome, "job": job, "job_id": job_id, "owner": owner, "since": since,
        "until": until, "at": at,
    }  # fmt: skip
    query = filtered(_HISTORY, _HISTORY_CONDITIONS, given)
    more = {"key_job": key_job, "key_run": key_run, "key_for": key_for}
    async with who.glance() as asker:
        return await page(
            asker, query, given | more, limit,
            "v.finished_at, v.job_id, coalesce(v.run_id, 0),"
            " coalesce(v.scheduled_for, '-infinity')",
        )  # fmt: skip
