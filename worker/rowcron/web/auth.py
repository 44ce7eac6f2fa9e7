"""Who asks: a bearer token, or the session of a cookie."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Request

from rowcron.web.actor import TOKEN_LENGTH, Actor, Bearer
from rowcron.web.problems import Refusal
from rowcron.web.sessions import Session
from rowcron.web.state import state_of

COOKIE = "rowcron"
PROOF = "X-CSRF-Token"
SAFE = ("GET", "HEAD", "OPTIONS")
SIGN_IN = {"WWW-Authenticate": "Bearer"}

# OpenAPI's names for the two ways
SCHEMES: dict[str, Any] = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "description": "A token of `select rowcron.create_token('what it is for')`, made as the "
        "role that it acts as.",
    },
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": COOKIE,
        "description": f"Set by signing in at /sign-in. What changes something needs {PROOF}, too.",
    },
}


def session_of(request: Request) -> Session | None:
    """Return the session of the request's cookie."""
    return state_of(request).sessions.find(request.cookies.get(COOKIE))


def check_origin(request: Request) -> None:
    """Refuse what another site made a browser send. Raises `Refusal` 403."""
    site = request.headers.get("sec-fetch-site", "same-origin")
    origin = request.headers.get("origin")
    here = f"{request.url.scheme}://{request.headers.get('host', '')}"
    if site not in ("same-origin", "none") or (origin is not None and origin != here):
        raise Refusal(403, "the request comes from another site")


def check_proof(request: Request, session: Session, given: str) -> None:
    """Refuse what our own pages did not send. Raises `Refusal` 403."""
    check_origin(request)
    if not session.proves(given):
        raise Refusal(
            403,
            "the request does not prove that it comes from this page",
            detail=f"With a session, what changes something carries {PROOF}.",
            hint="Load the page again; programs use a token.",
        )


async def actor_of(request: Request) -> Actor:
    """Return as whom an API request acts. Raises `Refusal` 401, 403."""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    if kind:
        token = token.strip()
        if kind.lower() != "bearer" or not token or len(token) > TOKEN_LENGTH:
            raise Refusal(401, "Authorization must be Bearer and a token", headers=SIGN_IN)
        return Bearer(token, state_of(request).pool)
    session = session_of(request)
    if session is None:
        raise Refusal(
            401,
            "nobody is signed in",
            hint="Authorization: Bearer TOKEN; as your role, in psql: "
            "select rowcron.create_token('what it is for');",
            headers=SIGN_IN,
        )
    if request.method not in SAFE:
        check_proof(request, session, request.headers.get(PROOF.lower(), ""))
    return session.login


Who = Annotated[Actor, Depends(actor_of)]
