"""What the pages' buttons and forms do."""

from __future__ import annotations

from typing import Any, LiteralString

import psycopg
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from rowcron.errors import RowcronError
from rowcron.web import render
from rowcron.web.actor import Record
from rowcron.web.auth import check_proof
from rowcron.web.bodies import Text
from rowcron.web.forms import (
    body_of,
    changed,
    changed_groups,
    columns_of,
    form_of,
    group_of,
    values_from,
    values_of,
)
from rowcron.web.job_write import change, insert
from rowcron.web.jobs import JobId, named
from rowcron.web.pages import common, html, signed_in
from rowcron.web.problems import Problem, Refusal, problem_of
from rowcron.web.queries import JOB
from rowcron.web.runs import RunNumber
from rowcron.web.sessions import Session
from rowcron.web.tools import judge

router = APIRouter(include_in_schema=False)


async def proven(request: Request) -> tuple[Session, dict[str, str]]:
    """Return the session and the form, which must come from a page of ours."""
    session = signed_in(request)
    form = await form_of(request)
    check_proof(request, session, form.get("csrf", ""))
    return session, form


async def _deed(request: Request, job: int, query: LiteralString) -> Response:
    session, _ = await proven(request)
    async with session.login.ask() as asker:
        await asker.rows(query, await named(asker, job))
    return RedirectResponse(f"/jobs/{job}", 303)


@router.post("/jobs/{job}/pause")
async def pause(request: Request, job: JobId) -> Response:
    """Pause."""
    return await _deed(request, job, "select rowcron.pause(%s, %s)")


@router.post("/jobs/{job}/resume")
async def resume(request: Request, job: JobId) -> Response:
    """Resume."""
    return await _deed(request, job, "select rowcron.resume(%s, %s)")


@router.post("/jobs/{job}/run")
async def run_now(request: Request, job: JobId) -> Response:
    """Run now."""
    return await _deed(request, job, "select rowcron.run_now(%s, null, %s)")


@router.post("/jobs/{job}/delete")
async def delete(request: Request, job: JobId) -> Response:
    """Delete."""
    session, form = await proven(request)
    if form.get("sure") != "yes":
        raise Refusal(422, "nothing was deleted", hint="Tick that you are sure.")
    async with session.login.ask() as asker:
        await asker.rows("select rowcron.unschedule(%s, %s)", await named(asker, job))
    return RedirectResponse("/jobs", 303)


@router.post("/runs/{run}/cancel")
async def cancel(request: Request, run: RunNumber) -> Response:
    """Cancel."""
    session, _ = await proven(request)
    async with session.login.ask() as asker:
        await asker.rows("select rowcron.cancel(%s)", (run,))
    return RedirectResponse(f"/runs/{run}", 303)


@router.post("/runs/{run}/retry")
async def retry(request: Request, run: RunNumber) -> Response:
    """Run again."""
    session, _ = await proven(request)
    async with session.login.ask() as asker:
        new = await asker.value("select rowcron.retry(%s)", (run,))
    return RedirectResponse(f"/runs/{new}", 303)


@router.post("/jobs/try")
async def try_schedule(request: Request) -> Response:
    """Judge a schedule while it is typed."""
    session, form = await proven(request)
    text = Text(
        schedule=form.get("schedule", ""), timezone=form.get("timezone", "").strip() or "UTC",
        name=form.get("name") or None,
    )  # fmt: skip
    async with session.login.ask() as asker:
        verdict = await judge(asker, text)
    return HTMLResponse(render.page("_try", verdict=verdict.model_dump()))


async def _form(
    request: Request,
    session: Session,
    values: dict[str, str],
    problem: Problem | None = None,
    job: Record | None = None,
) -> Response:
    async with session.login.glance() as asker:
        shared = await common(request, session, asker)
        kinds: list[str] = await asker.value("select rowcron._read_setting('kinds')")
    # one that is no kind any more is offered too: a browser would send the first in its place
    kinds += [values["kind"]] if values["kind"] not in kinds else []
    shared["here"] = "/jobs/new" if job is None else ""
    opened = changed_groups(values) if job is not None else set()
    more: dict[str, Any] = {
        "values": values, "kinds": kinds, "job": job, "tried": "",
        "open": opened | {group_of(problem.field) if problem else ""},
    }  # fmt: skip
    return html("form", shared | {"problem": problem}, problem.status if problem else 200, **more)


@router.get("/jobs/new")
async def new(request: Request) -> Response:
    """Show an empty form."""
    return await _form(request, signed_in(request), values_of({}))


@router.post("/jobs/new")
async def create(request: Request) -> Response:
    """Store a new job, or show the form again with the database's verdict."""
    session, form = await proven(request)
    values = values_of(form)
    try:
        columns = columns_of(values)
        async with session.login.ask() as asker:
            job = await insert(asker, list(columns), body_of(columns))
    except (psycopg.Error, RowcronError, UnicodeEncodeError) as error:
        return await _form(request, session, values, problem_of(error))
    except Refusal as refusal:
        return await _form(request, session, values, refusal.problem)
    return RedirectResponse(f"/jobs/{job}", 303)


async def _read(session: Session, job: int) -> Record:
    async with session.login.glance() as asker:
        found = await asker.one(
            "select j.*, j.args::text as args_text,"
            f" to_char(j.updated_at, 'YYYYMMDDHH24MISSUS') as version from ({JOB}) as j",
            (job,),
        )
    if found is None:
        raise Refusal(404, f"there is no job {job}", detail="Or none that your role may see.")
    return found


@router.get("/jobs/{job}/edit")
async def edit(request: Request, job: JobId) -> Response:
    """Show the form of a job."""
    session = signed_in(request)
    found = await _read(session, job)
    return await _form(request, session, values_from(found), None, found)


@router.post("/jobs/{job}/edit")
async def save(request: Request, job: JobId) -> Response:
    """Store what was changed, unless somebody else has changed the job meanwhile.

    The form keeps the version that it was loaded with, however often it is shown again.
    """
    session, form = await proven(request)
    values = values_of(form)
    found = await _read(session, job)
    version = form.get("version", "")
    loaded = found | {"version": version}
    try:
        if version != found["version"]:
            raise Refusal(
                412,
                f"job {job} was changed meanwhile",
                detail="Nothing was stored. What you typed is below, but not what is new.",
                hint="Look at the job as it is now, and edit that.",
            )
        columns = columns_of(changed(values, found))
        if columns:
            async with session.login.ask() as asker:
                await change(asker, job, list(columns), body_of(columns), f'"{version}"')
    except (psycopg.Error, RowcronError, UnicodeEncodeError) as error:
        return await _form(request, session, values, problem_of(error), loaded)
    except Refusal as refusal:
        return await _form(request, session, values, refusal.problem, loaded)
    return RedirectResponse(f"/jobs/{job}", 303)
