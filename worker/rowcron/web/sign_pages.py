"""Signing in and out."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from rowcron.errors import RowcronError
from rowcron.web.auth import COOKIE, check_origin, check_proof, session_of
from rowcron.web.forms import form_of
from rowcron.web.middleware import ASKED_BY_HEAD
from rowcron.web.pages import html
from rowcron.web.problems import Problem, Refusal, headers_of, problem_of
from rowcron.web.sessions import LONGEST
from rowcron.web.state import state_of

router = APIRouter(include_in_schema=False)


def _page(next_: str, role: str = "", problem: Problem | None = None) -> Response:
    values = {"me": None, "proof": "", "here": "", "said": None, "next": next_, "role": role}
    answer = html("sign_in", values, problem.status if problem else 200, problem=problem)
    if problem is not None:
        answer.headers.update(headers_of(problem))
    return answer


def _inside(path: str) -> str:
    """A path of ours, whatever was asked for: never another site."""
    ok = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if ok and "\\" not in path else "/"


def _welcome(request: Request, cookie: str, to: str) -> Response:
    answer = RedirectResponse(_inside(to), 303)
    answer.set_cookie(
        COOKIE,
        cookie,
        max_age=int(LONGEST),
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )
    return answer


@router.get("/sign-in")
async def form(
    request: Request,
    next_: Annotated[str, Query(alias="next", max_length=2000)] = "/",
    code: Annotated[str, Query(max_length=200)] = "",
) -> Response:
    """Show the form; or let in whoever has the one-time code from the terminal."""
    state = state_of(request)
    # what looks at a link before it is opened sends HEAD: that leaves the code to the person
    if code and ASKED_BY_HEAD not in request.scope:
        if state.own is None or not state.codes.take(code):
            problem = Problem(
                type="about:blank",
                title="this link has been used",
                status=403,
                hint="The terminal of rowcron web shows a new one after each use.",
            )
            return _page("/", problem=problem)
        cookie, _ = state.sessions.begin(state.own)
        state.announce()
        return _welcome(request, cookie, "/")
    if session_of(request) is not None:
        return RedirectResponse(_inside(next_), 303)
    return _page(_inside(next_))


@router.post("/sign-in")
async def sign_in(request: Request) -> Response:
    """Let PostgreSQL check role and password."""
    check_origin(request)
    given = await form_of(request)
    role, password = given.get("role", "").strip(), given.get("password", "")
    to = _inside(given.get("next", "/"))
    address = request.client.host if request.client else ""
    try:
        cookie, _ = await state_of(request).door.sign_in(role[:200], password[:1000], address)
    except Refusal as refusal:
        answer = _page(to, role, refusal.problem)
        answer.headers.update(refusal.headers)
        return answer
    except RowcronError as error:
        return _page(to, role, problem_of(error))
    return _welcome(request, cookie, to)


@router.post("/sign-out")
async def sign_out(request: Request) -> Response:
    """End the session."""
    session = session_of(request)
    if session is not None:
        check_proof(request, session, (await form_of(request)).get("csrf", ""))
        state_of(request).sessions.end(session)
    answer = RedirectResponse("/sign-in", 303)
    answer.delete_cookie(COOKIE)
    return answer
