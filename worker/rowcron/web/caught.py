"""Every exception ends as a problem document, or as a page for a person."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from rowcron.errors import RowcronError
from rowcron.web.middleware import has_head
from rowcron.web.problems import TOO_LONG, Problem, Refusal, answer, headers_of, problem_of

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def invalid(error: RequestValidationError) -> Problem:
    """Return what is wrong with the form of a request; its meaning is the database's to judge."""
    first: dict[str, Any] = error.errors()[0]
    if first["type"] == "json_invalid":
        return Problem(
            type="about:blank",
            title="the body is not JSON",
            status=422,
            detail=f"{first['ctx']['error']} at character {first['loc'][-1]}",
        )
    where = [str(part) for part in first["loc"] if part not in ("body", "query", "path", "header")]
    return Problem(
        type="about:blank",
        title="the request is not of the form that OpenAPI describes",
        status=422,
        detail=f"{'.'.join(where) or first['loc'][0]}: {first['msg']}",
        field=where[0] if where else None,
        hint=first.get("ctx", {}).get("hint", "See /api/docs."),
    )


def allowed(request: Request) -> list[str]:
    """Return the methods that the request's path takes, whichever routes they belong to."""
    found = [
        method
        for method in METHODS
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in request.app.routes
        )
    ]
    return ["HEAD", *found] if "GET" in found and has_head(request.url.path) else found


def install(app: FastAPI, show: Callable[[Request, Problem], Response]) -> None:
    """Let every exception end as a problem document, or for a person as the page `show` makes."""

    def told(request: Request, problem: Problem, headers: dict[str, str] | None = None) -> Response:
        person = "text/html" in request.headers.get("accept", "")
        if person and not request.url.path.startswith("/api"):
            shown = show(request, problem)
            shown.headers.update(headers_of(problem, headers))
            return shown
        return answer(problem, headers)

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refusal)
        return told(request, error.problem, error.headers)

    async def judged(request: Request, error: Exception) -> Response:
        assert isinstance(error, psycopg.Error | RowcronError | UnicodeEncodeError)
        return told(request, problem_of(error))

    async def unreadable(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return told(request, invalid(error))

    async def plain(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        problem = Problem(type="about:blank", title=error.detail, status=error.status_code)
        headers = dict(error.headers or {})
        if error.status_code == 413:
            problem = TOO_LONG
        elif error.status_code == 405:  # Starlette tells of the first route with this path alone
            headers["Allow"] = ", ".join(allowed(request))
            problem.hint = f"It takes {headers['Allow']}."
        return told(request, problem, headers)

    async def broken(request: Request, error: Exception) -> Response:
        return told(request, Problem(type="about:blank", title="this is a defect", status=500))

    app.add_exception_handler(Exception, broken)
    app.add_exception_handler(Refusal, refused)
    app.add_exception_handler(psycopg.Error, judged)
    app.add_exception_handler(RowcronError, judged)
    app.add_exception_handler(UnicodeEncodeError, judged)
    app.add_exception_handler(RequestValidationError, unreadable)
    app.add_exception_handler(HTTPException, plain)
