"""The pages that show: Now, jobs, a job, a run; and the stream that keeps them live."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse

from rowcron.web import looks, render
from rowcron.web.actor import Asker, Record
from rowcron.web.auth import session_of
from rowcron.web.jobs import JobId
from rowcron.web.live import NOW
from rowcron.web.marks import RUN, asked, mark_of
from rowcron.web.problems import Problem, Refusal
from rowcron.web.raw import decode_cursor, encode_cursor
from rowcron.web.run_look import look_at_run
from rowcron.web.runs import RunNumber
from rowcron.web.sessions import Session
from rowcron.web.state import state_of
from rowcron.web.tools import ME

router = APIRouter(include_in_schema=False)
PAGE = 100
_JOBS = """
  select
    j.id, j.name, j.owner, j.english, j.enabled, j.next_run_at, j.last_outcome, j.description
  from rowcron.jobs as j
  where (%(search)s = '' or strpos(lower(j.name), lower(%(search)s)) > 0
      or strpos(lower(j.description), lower(%(search)s)) > 0)
    and (%(name)s::text is null or (j.name, j.id) > (%(name)s, %(id)s))
  order by j.name, j.id
  limit %(limit)s
"""


class SignInFirst(Exception):
    """Nobody is signed in: to the page for that, and back."""

    def __init__(self, request: Request) -> None:
        super().__init__()
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        self.to = (
            "/sign-in"
            if path == "/" or request.method != "GET"
            else (f"/sign-in?next={quote(path)}")
        )


def signed_in(request: Request) -> Session:
    """Return the session. Raises `SignInFirst`."""
    session = session_of(request)
    if session is None:
        raise SignInFirst(request)
    return session


async def common(request: Request, session: Session, asker: Asker) -> Record:
    """Return what every page needs to know."""
    return {
        "me": await asker.one(ME),
        "proof": session.proof(),
        "here": request.url.path,
        "problem": None,
        "said": None,
    }


def html(name: str, shared: Record, status: int = 200, **more: Any) -> HTMLResponse:
    """Return a page."""
    return HTMLResponse(render.page(name, **shared | more), status)


@router.get("/")
async def now(request: Request) -> Response:
    """Show what runs, waits, comes next and failed lately."""
    session = signed_in(request)
    async with session.login.glance() as asker:
        values = await common(request, session, asker)
        found = await asker.one(looks.NOW, {"now": True} | asked([]))
        lately = await asker.value(looks.LATELY)
    assert found is not None
    data = json.loads(found["now"]) | {"lately": json.loads(lately)}
    return html("now", values, sections=render.now_sections(data))


@router.get("/live")
async def live(
    request: Request,
    job: Annotated[int | None, Query(ge=1, le=2**63 - 1)] = None,
    run: Annotated[int | None, Query(ge=1, le=2**63 - 1)] = None,
    mark: Annotated[str | None, Query(max_length=32)] = None,
) -> Response:
    """Stream what changes, as server-sent events."""
    session = session_of(request)
    if session is None:
        raise Refusal(401, "nobody is signed in")
    topic = str(job) if job is not None else NOW if run is None else f"{RUN}{run}"
    return stream(request, state_of(request).live.watch(session, topic, mark))


def stream(request: Request, events: AsyncIterator[str]) -> Response:
    """Return server-sent events. Raises `Refusal` 429."""
    if state_of(request).live.full:
        raise Refusal(429, "too many pages are open", headers={"Retry-After": "60"})
    headers = {"X-Accel-Buffering": "no", "Content-Encoding": "identity"}
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)


@router.get("/jobs")
async def jobs(
    request: Request, search: Annotated[str, Query(max_length=200)] = "", after: str | None = None
) -> Response:
    """List jobs by name."""
    session = signed_in(request)
    name, number = decode_cursor(after, (str, int)) or (None, None)
    values = {"search": search, "name": name, "id": number, "limit": PAGE + 1}
    async with session.login.glance() as asker:
        rows = await asker.rows(_JOBS, values)
        shared = await common(request, session, asker)
    more = encode_cursor([rows[PAGE - 1]["name"], rows[PAGE - 1]["id"]]) if rows[PAGE:] else None
    return html("jobs", shared, rows=rows[:PAGE], more=more, search=search)


@router.get("/jobs/{job}")
async def job(request: Request, job: JobId) -> Response:
    """Show all about a job."""
    session = signed_in(request)
    async with session.login.ask() as asker:
        mark = await mark_of(asker, str(job))
        data = await looks.look_at_job(asker, job)
        shared = await common(request, session, asker)
    sections = render.job_sections(data, shared["proof"])
    return html("job", shared, data=data, sections=sections, mark=mark)


@router.get("/runs/{run}")
async def run(request: Request, run: RunNumber) -> Response:
    """Show a run and the output of each attempt."""
    session = signed_in(request)
    async with session.login.ask() as asker:
        mark = await mark_of(asker, f"{RUN}{run}")
        data = await look_at_run(asker, run)
        shared = await common(request, session, asker)
    sections = render.run_sections(data, shared["proof"])
    return html("run", shared, run=data["run"], sections=sections, mark=mark)


async def first_sign_in(request: Request, error: Exception) -> Response:
    """Send whoever is not signed in to the page for that."""
    assert isinstance(error, SignInFirst)
    return RedirectResponse(error.to, 303)


def problem_page(request: Request, problem: Problem) -> Response:
    """Show a problem to a person."""
    session = session_of(request)
    values: Record = {"me": None, "proof": session.proof() if session else "", "here": ""}
    return html("problem", values, problem.status, problem=problem, said=None)
