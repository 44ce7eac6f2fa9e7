"""/api/jobs: creating, replacing, changing, deleting."""

from __future__ import annotations

import contextlib
import re
from typing import Annotated

from fastapi import APIRouter, Header, Query
from psycopg import sql
from starlette.requests import Request
from starlette.responses import Response

from rowcron.web.actor import Asker
from rowcron.web.answers_jobs import Job
from rowcron.web.auth import Who
from rowcron.web.bodies import JobColumns, JobIn, JobPatch
from rowcron.web.jobs import JobId, definition
from rowcron.web.problems import Refusal, documented
from rowcron.web.raw import text_of

router = APIRouter(prefix="/api/jobs", tags=["jobs"])
COLUMNS = ("name", "command", *JobColumns.model_fields)
IfMatch = Annotated[
    str | None, Header(description="The ETag of the job as you read it, or `*`. Without it: 428.")
]
_GIVEN = "jsonb_populate_record(null::rowcron.job, %(body)s::jsonb)"


def columns_of(body: JobColumns) -> list[str]:
    """Return the columns that a body names; in a whole job null is as if it were left out.

    Many clients write null for whatever is not set.
    """
    named = [name for name in COLUMNS if name in body.model_fields_set]
    if isinstance(body, JobIn):
        named = [name for name in named if getattr(body, name) is not None]
    return named


async def insert(asker: Asker, names: list[str], text: str) -> int:
    """Insert a job; the database judges it. The body's own text carries the values."""
    query = sql.SQL(
        "insert into rowcron.job ({columns}) select {values} from {given} as g returning id"
    ).format(
        columns=sql.SQL(", ").join(map(sql.Identifier, names)),
        values=sql.SQL(", ").join(sql.Identifier("g", name) for name in names),
        given=sql.SQL(_GIVEN),
    )
    return int(await asker.value(query, {"body": text}))


async def change(
    asker: Asker, job: int, names: list[str], text: str, match: str | None, *, whole: bool = False
) -> None:
    """Change the columns named; `whole` gives all others their defaults."""
    changes = [
        sql.SQL("{} = g.{}").format(sql.Identifier(name), sql.Identifier(name))
        if name in names
        else sql.SQL("{} = default").format(sql.Identifier(name))
        for name in COLUMNS
        if whole or name in names
    ]
    query = sql.SQL(
        "update rowcron.job as j set {changes} from {given} as g where j.id = %(job)s"
        " and (%(known)s::numeric is null"
        " or to_char(j.updated_at, 'YYYYMMDDHH24MISSUS')::numeric = %(known)s) returning j.id"
    ).format(changes=sql.SQL(", ").join(changes), given=sql.SQL(_GIVEN))
    values = {"job": job, "body": text, "known": known_version(match)}
    if not await asker.rows(query, values):
        await not_matched(asker, job, match)


def known_version(match: str | None) -> int | None:
    """Return the version that If-Match names; None for `*`. Raises `Refusal` 428, 412."""
    if match is None:
        raise Refusal(
            428,
            "If-Match is missing",
            detail="A change names the version that it is made from, so that none gets lost.",
            hint="GET the job and hand back its ETag, or send If-Match: *",
            field="if-match",
        )
    if match.strip() == "*":
        return None
    found = re.fullmatch(r'\s*"(\d{20})"\s*', match)
    if found is None:
        raise Refusal(412, "If-Match is not an ETag of a job", field="if-match")
    return int(found[1])


async def not_matched(asker: Asker, job: int, match: str | None) -> None:
    """Say why a change found no row. Raises `Refusal` 404, 412, 403."""
    now = await definition(asker, job)
    if match is not None and match.strip() not in ("*", now.headers["ETag"]):
        raise Refusal(
            412,
            f"job {job} was changed meanwhile",
            hint="GET it again and look at what is new.",
            headers={"ETag": now.headers["ETag"]},
        )
    raise Refusal(403, f"job {job} is not yours", detail="Only its owner changes a job.")


def not_empty(names: list[str]) -> None:
    """Refuse a change of nothing. Raises `Refusal` 422."""
    if not names:
        raise Refusal(422, "no column is named", hint='For example {"schedule": "@daily"}.')


@router.post(
    "",
    status_code=201,
    response_model=Job,
    responses=documented(409, 413) | {200: {"model": Job, "description": "What would be stored."}},
)
async def create_job(
    who: Who,
    body: JobIn,
    request: Request,
    dry_run: Annotated[bool, Query(description="Only judge it; nothing is stored: 200.")] = False,
) -> Response:
    """Create a job of yours. Its answer to a mistake is the database's own."""
    async with who.ask() as asker, contextlib.AsyncExitStack() as stack:
        if dry_run:  # a transaction within, that is always undone
            await stack.enter_async_context(asker.connection.transaction(force_rollback=True))
        job = await insert(asker, columns_of(body), await text_of(request))
        answer = await definition(asker, job)
    if dry_run:
        del answer.headers["ETag"]
    else:
        answer.status_code = 201
        answer.headers["Location"] = f"/api/jobs/{job}"
    return answer


@router.put("/{job}", response_model=Job, responses=documented(404, 409, 412, 413, 428))
async def replace_job(
    who: Who, job: JobId, body: JobIn, request: Request, if_match: IfMatch = None
) -> Response:
    """Replace a job; what the body leaves out gets its default."""
    known_version(if_match)
    async with who.ask() as asker:
        text = await text_of(request)
        await change(asker, job, columns_of(body), text, if_match, whole=True)
        return await definition(asker, job)


@router.patch("/{job}", response_model=Job, responses=documented(404, 409, 412, 413, 428))
async def change_job(
    who: Who, job: JobId, body: JobPatch, request: Request, if_match: IfMatch = None
) -> Response:
    """Change the columns named, and no other."""
    known_version(if_match)
    not_empty(names := columns_of(body))
    async with who.ask() as asker:
        await change(asker, job, names, await text_of(request), if_match)
        return await definition(asker, job)


@router.delete(
    "/{job}", status_code=204, response_class=Response, responses=documented(404, 409, 412, 428)
)
async def delete_job(who: Who, job: JobId, if_match: IfMatch = None) -> Response:
    """Delete a job. Its history stays, what waits is cancelled, what runs ends as it would."""
    known = known_version(if_match)
    async with who.ask() as asker:
        gone = await asker.rows(
            "delete from rowcron.job as j where j.id = %(job)s and (%(known)s::numeric is null"
            " or to_char(j.updated_at, 'YYYYMMDDHH24MISSUS')::numeric = %(known)s) returning j.id",
            {"job": job, "known": known},
        )
        if not gone:
            await not_matched(asker, job, if_match)
    return Response(status_code=204)
