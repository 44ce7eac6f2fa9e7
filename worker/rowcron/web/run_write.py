"""Runs on demand, and the key that names one."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header
from starlette.requests import Request

from rowcron.web.actor import Actor
from rowcron.web.answers import RunId
from rowcron.web.auth import Who
from rowcron.web.bodies import Enqueue, RunRequest
from rowcron.web.jobs import JobId, named
from rowcron.web.problems import Refusal, documented
from rowcron.web.raw import Raw, text_of

router = APIRouter(prefix="/api/jobs", tags=["jobs"])
KEY = "idempotency-key"
SAME: dict[int | str, dict[str, Any]] = {
    200: {"model": RunId, "description": "The key names this run already."}
}


async def key_of(
    idempotency_key: Annotated[
        str | None,
        Header(
            description="In UTF-8. The same key of the same job within key_ttl names the same run.",
            examples=["invoice-4711"],
        ),
    ] = None,
) -> str | None:
    """Return the key as PostgreSQL is to know it, from psql too. Raises `Refusal` 422."""
    if idempotency_key is None:
        return None
    try:
        return idempotency_key.encode("latin-1").decode()  # headers come as if in Latin-1
    except UnicodeDecodeError as error:
        raise Refusal(
            422,
            "the Idempotency-Key is not UTF-8",
            hint="Send it in UTF-8, or write it in ASCII alone.",
            field=KEY,
        ) from error


Key = Annotated[str | None, Depends(key_of)]


async def no_key(request: Request) -> None:
    """Refuse a key where each request makes a run of its own. Raises `Refusal` 422."""
    if KEY in request.headers:
        raise Refusal(
            422,
            "a retry takes no Idempotency-Key",
            detail="Asked again, it makes another run.",
            hint="Leave the key out; or put a run in line: POST /api/jobs/{job}/runs takes one.",
            field=KEY,
        )


@router.post(
    "/{job}/run", status_code=201, response_model=RunId, responses=documented(404, 413) | SAME
)
async def run_job(
    who: Who, job: JobId, request: Request, key: Key, body: RunRequest | None = None
) -> Any:
    """Run a job now, also a paused one (`rowcron.run_now`), which its changes tell of.

    With a key it is put in line as by `runs`, once for each key.
    """
    if key is not None:
        return await _put_in_line(who, job, await text_of(request), key)
    async with who.ask() as asker:
        name, owner = await named(asker, job)
        run = await asker.value(
            "select rowcron.run_now(%s, nullif(%s::jsonb -> 'args', 'null'), %s)",
            (name, await text_of(request), owner),
        )
    return _answer(run, 201)


@router.post(
    "/{job}/runs", status_code=201, response_model=RunId, responses=documented(404, 413) | SAME
)
async def enqueue_run(
    who: Who, job: JobId, request: Request, key: Key, body: Enqueue | None = None
) -> Any:
    """Put a run in line, now or for later (`rowcron.enqueue`)."""
    return await _put_in_line(who, job, await text_of(request), key)


async def _put_in_line(who: Actor, job: int, text: str, key: str | None) -> Raw:
    """Enqueue a run; the body's own text carries the values."""
    async with who.ask() as asker:
        name, owner = await named(asker, job)
        run = await asker.value(
            "with given as materialized (select %(body)s::jsonb as b)"
            " select rowcron.enqueue(%(name)s,"
            " nullif(g.b -> 'args', 'null'), (g.b ->> 'due_at')::timestamptz, %(key)s,"
            " coalesce((g.b ->> 'key_ttl')::interval, '1 day'), (g.b ->> 'priority')::integer,"
            " %(owner)s) as run from given as g",
            {"name": name, "owner": owner, "key": key, "body": text},
        )
        fresh = await asker.value(
            # a run of this very transaction, or one that the key had named before
            "select r.xmin::text::bigint = pg_current_xact_id()::text::bigint & 4294967295"
            " from rowcron.run as r where r.id = %s",
            (run,),
        )
    return _answer(run, 201 if fresh else 200)


def _answer(run: int, status: int) -> Raw:
    return Raw(f'{{"run_id": {run}}}', status, {"Location": f"/api/runs/{run}"})
