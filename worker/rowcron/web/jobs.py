"""/api/jobs: what may be read of jobs, and what may be done to them as a whole."""

from __future__ import annotations

from typing import Annotated, Any, LiteralString

from fastapi import APIRouter, Path, Query
from psycopg import sql
from starlette.requests import Request
from starlette.responses import Response

from rowcron.web.actor import Actor, Asker
from rowcron.web.answers import Items, Page
from rowcron.web.answers_jobs import Change, Gate, Job, JobRow, JobState, Occurrence
from rowcron.web.auth import Who
from rowcron.web.problems import Refusal, documented
from rowcron.web.queries import CHANGES, JOB, STATE
from rowcron.web.raw import MOST, Raw, decode_cursor, items, json_row, json_rows, page
from rowcron.web.simple import Start

router = APIRouter(prefix="/api/jobs", tags=["jobs"])
JobId = Annotated[int, Path(ge=1, le=2**63 - 1, description="The job's number.")]

_LIST = """
  select
    j.id, j.name, j.owner, j.kind, j.schedule, j.timezone, j.english, j.enabled, j.queue,
    j.priority, j.next_run_at, j.last_run_at, j.last_outcome, j.last_finished_at, j.command,
    j.description, j.created_at, j.updated_at, j.state
  from rowcron.jobs as j
  where {where}
  order by j.id
  limit %(limit)s
"""
_FILTERS: dict[str, Any] = {
    "name": "j.name = %(name)s",
    "owner": "j.owner = rowcron._role_named(%(owner)s)",
    "queue": "j.queue = %(queue)s",
    "kind": "j.kind = %(kind)s",
    "enabled": "j.enabled = %(enabled)s",
    "search": "(strpos(lower(j.name), lower(%(search)s)) > 0"
    " or strpos(lower(j.description), lower(%(search)s)) > 0)",
    "after": "j.id > %(after)s",
}


def filtered(query: str, filters: dict[str, Any], given: dict[str, Any]) -> sql.Composed:
    """Put the conditions of what is given in place of `{where}`."""
    conditions = [sql.SQL(filters[name]) for name, value in given.items() if value is not None]
    where = sql.SQL(" and ").join(conditions or [sql.SQL("true")])
    return sql.SQL(query).format(where=where)


async def named(asker: Asker, job: int) -> tuple[str, str]:
    """Return name and owner, by which the functions know a job. Raises `Refusal` 404."""
    found = await asker.one(
        "select j.name, j.owner::text from rowcron.job as j where j.id = %s", (job,)
    )
    if found is None:
        raise Refusal(404, f"there is no job {job}", detail="Or none that your role may see.")
    return found["name"], found["owner"]


async def definition(asker: Asker, job: int) -> Raw:
    """Return a job with its ETag: what its owner wrote, at the instant when it was written."""
    query = sql.SQL(
        "select to_json(v)::text as row, to_char(v.updated_at, 'YYYYMMDDHH24MISSUS') as version"
        " from ({}) as v"
    ).format(sql.SQL(JOB))
    found = await asker.one(query, (job,))
    if found is None:
        raise Refusal(404, f"there is no job {job}", detail="Or none that your role may see.")
    return Raw(found["row"], headers={"ETag": f'"{found["version"]}"'})


@router.get("", response_model=Page[JobRow], responses=documented())
async def list_jobs(
    who: Who,
    name: str | None = None,
    owner: str | None = None,
    queue: str | None = None,
    kind: str | None = None,
    enabled: bool | None = None,
    search: Annotated[str | None, Query(description="In name or description.")] = None,
    limit: Annotated[int, Query(ge=1, le=MOST)] = 50,
    cursor: Annotated[str | None, Query(description="`next` of the page before.")] = None,
) -> Response:
    """List the jobs that you may see, by number."""
    keys = decode_cursor(cursor, (int,))
    given = {
        "name": name, "owner": owner, "queue": queue, "kind": kind, "enabled": enabled,
        "search": search, "after": keys[0] if keys else None,
    }  # fmt: skip
    async with who.glance() as asker:
        query = filtered(_LIST, _FILTERS, given)
        return await page(asker, query, given, limit, "v.id")


@router.get("/{job}", response_model=Job, responses=documented(404))
async def read_job(who: Who, job: JobId, request: Request) -> Response:
    """Read a job. Its ETag is what a change of it names in If-Match."""
    async with who.glance() as asker:
        answer = await definition(asker, job)
    if answer.headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers={"ETag": answer.headers["ETag"]})
    return answer


@router.get("/{job}/state", response_model=JobState, responses=documented(404))
async def read_state(who: Who, job: JobId) -> Response:
    """Read how a job fares, by its last 100 entries in the ledger."""
    async with who.glance() as asker:
        return Raw(await json_row(asker, STATE, (job, job)))


@router.get("/{job}/occurrences", response_model=Items[Occurrence], responses=documented(404))
async def list_occurrences(
    who: Who,
    job: JobId,
    from_: Annotated[Start, Query(alias="from")],
    until: Start,
) -> Response:
    """List what became, becomes and will become of each occurrence; 10,000 at most."""
    async with who.ask() as asker:
        name, owner = await named(asker, job)
        rows = await json_rows(
            asker,
            "select o.scheduled_for, o.state, o.run_id, o.detail"
            " from rowcron.occurrences(%s, %s, %s, %s) as o",
            (name, from_, until, owner),
        )
    return items(rows)


@router.get("/{job}/why", response_model=Items[Gate], responses=documented(404))
async def why(who: Who, job: JobId) -> Response:
    """Tell why a job does not run now: every gate between it and a run."""
    async with who.ask() as asker:
        rows = await json_rows(
            asker,
            "select w.gate, w.holds, w.detail, w.hint from rowcron.why_not_running(%s, %s) as w",
            await named(asker, job),
        )
    return items(rows)


@router.get("/{job}/changes", response_model=Items[Change], responses=documented(404))
async def list_changes(
    who: Who, job: JobId, limit: Annotated[int, Query(ge=1, le=MOST)] = 50
) -> Response:
    """List who changed the job, and asked what of its runs; newest first."""
    async with who.ask() as asker:
        await named(asker, job)
        return items(await json_rows(asker, CHANGES, (job, limit)))


@router.post("/{job}/pause", response_model=Job, responses=documented(404, 409))
async def pause_job(who: Who, job: JobId) -> Response:
    """Pause a job: nothing is fired, runs that are there stand still, what runs goes on.

    What is enqueued from now on runs all the same.
    """
    return await _call(who, job, "select rowcron.pause(%s, %s)")


@router.post("/{job}/resume", response_model=Job, responses=documented(404, 409))
async def resume_job(who: Who, job: JobId) -> Response:
    """Resume a paused job, from now on."""
    return await _call(who, job, "select rowcron.resume(%s, %s)")


async def _call(who: Actor, job: int, query: LiteralString) -> Response:
    async with who.ask() as asker:
        await asker.rows(query, await named(asker, job))
        return await definition(asker, job)
