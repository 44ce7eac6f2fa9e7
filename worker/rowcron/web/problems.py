"""What went wrong, as RFC 9457 problem documents.

The database's verdict is handed on as it is: its message is the title, its DETAIL the detail, its
HINT the hint, its SQLSTATE the code. Only which HTTP status a code gets is decided here.
"""

from __future__ import annotations

import json
from typing import Any

import psycopg
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from rowcron.errors import RowcronError, Unavailable, translate

MEDIA_TYPE = "application/problem+json"

# SQLSTATE -> status, the field of a job that it is about if the database does not say
BY_CODE: dict[str, tuple[int, str | None]] = {
    "RCSCH": (422, "schedule"),
    "RCTZN": (422, "timezone"),
    "RCKND": (422, "kind"),
    "RCNAM": (422, "name"),
    "RCLIM": (422, None),
    "RCCMD": (422, "command"),
    "RCCON": (422, "connection"),
    "RCKEY": (422, "key"),
    "RCOWN": (403, None),
    "RCNOJ": (404, None),
    "RCNOR": (404, None),
    "RCTOK": (404, None),
    "RCHLD": (409, None),
    "RCVER": (503, None),
    "RCEXE": (503, None),
    "42501": (403, None),  # insufficient_privilege
    "23505": (409, "name"),  # unique_violation
    "23514": (422, None),  # check_violation
    "23502": (422, None),  # not_null_violation
    "54000": (422, None),  # program_limit_exceeded
    "54001": (422, None),  # statement_too_complex
    "40001": (409, None),  # serialization_failure
    "40P01": (409, None),  # deadlock_detected
    "55P03": (409, None),  # lock_not_available
}
UNIQUE = {
    "job_name_is_unique_per_owner": (
        "there is a job of that name already",
        "PUT or PATCH the one that exists, or choose another name.",
    )
}


class Problem(BaseModel):
    """What went wrong, and what to do about it (RFC 9457)."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:rowcron:error:RCSCH",
                    "title": 'minute "61" is out of range',
                    "status": 422,
                    "detail": 'the schedule "61 * * * *" cannot be read: minutes are 0-59',
                    "code": "RCSCH",
                    "field": "schedule",
                    "hint": "write: */5 * * * *",
                }
            ]
        }
    )

    type: str = Field(description="`urn:rowcron:error:` and the code; `about:blank` without one.")
    title: str = Field(description="What happened, in one line.")
    status: int = Field(description="The HTTP status.")
    detail: str | None = Field(None, description="The fact behind it.")
    code: str | None = Field(None, description="The database's SQLSTATE, where it has judged.")
    field: str | None = Field(None, description="The field of the request that it is about.")
    hint: str | None = Field(None, description="What to do next.")


LONGEST_BODY = 4 * 1024 * 1024
TOO_LONG = Problem(
    type="about:blank",
    title="the body is too long",
    status=413,
    detail=f"At most {LONGEST_BODY} bytes are read.",
    hint="Store large data in a table and hand over its key.",
)


class Refusal(Exception):
    """A refusal that is HTTP's own affair, not the database's."""

    def __init__(
        self,
        status: int,
        title: str,
        *,
        detail: str | None = None,
        hint: str | None = None,
        field: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(title)
        self.problem = Problem(
            type="about:blank", title=title, status=status, detail=detail, hint=hint, field=field
        )
        self.headers = headers or {}


def problem_of(error: psycopg.Error | RowcronError | UnicodeEncodeError) -> Problem:
    """Return the database's verdict as a problem; or why it was not even asked for one."""
    if isinstance(error, UnicodeEncodeError):
        half = ord(error.object[error.start])
        return Problem(
            type="about:blank",
            title="text cannot be stored that is not Unicode",
            status=422,
            detail=f"Half of a surrogate pair stands alone: U+{half:04X}.",
        )
    known = translate(error)
    code = known.code
    status, field = BY_CODE.get(code or "", (0, None))
    title, hint = known.message, known.hint
    if isinstance(error, psycopg.Error):
        field = error.diag.column_name or field
        if error.diag.constraint_name in UNIQUE:
            title, hint = UNIQUE[error.diag.constraint_name]
    if not status:
        if isinstance(known, Unavailable):
            status = 503
        elif code is None and isinstance(error, psycopg.DataError):
            status = 422  # it could not even be sent, as a NUL
        else:  # class 22 is bad data; else the statement was ours, and so is the defect
            status = 422 if code and code[:2] in ("22", "23") else 500
    kind = f"urn:rowcron:error:{code}" if code else "about:blank"
    return Problem(
        type=kind, title=title, status=status, detail=known.detail, code=code, field=field,
        hint=hint,
    )  # fmt: skip


def answer(problem: Problem, headers: dict[str, str] | None = None) -> JSONResponse:
    """Return the problem as a response."""
    return _Answer(
        problem.model_dump(exclude_none=True),
        problem.status,
        headers_of(problem, headers),
        media_type=MEDIA_TYPE,
    )


class _Answer(JSONResponse):
    """JSON that may repeat what a client sent, whatever that was."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, ensure_ascii=False).encode("utf-8", "replace")


def headers_of(problem: Problem, headers: dict[str, str] | None = None) -> dict[str, str]:
    """Return the headers of a response; those that say to try again say when."""
    again = problem.status in (409, 429, 503) and problem.code != "23505"
    return ({"Retry-After": "1"} if again else {}) | (headers or {})


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return OpenAPI's entries for the problems that an operation may answer with."""
    said = {
        400: "The body is not UTF-8.",
        401: "Nobody is signed in, or the token is not valid.",
        403: "The role may not do this.",
        404: "There is none, or none that the role may see.",
        409: "It collides with what is there; try again, or otherwise.",
        412: "It was changed meanwhile.",
        413: "The body is too long.",
        422: "It cannot be; `field`, `detail` and `hint` say why.",
        428: "If-Match is missing.",
        429: "Too much at a time; `Retry-After` says how long to wait.",
        503: "The database cannot be reached or cannot work now.",
    }
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {"description": said[status], "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in (*statuses, *([400] if 413 in statuses else []), 401, 403, 422, 429, 503)
    }
