"""The page Timeline: runs as bars, occurrences to come as marks, and the load by minute."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal
from urllib.parse import unquote, urlencode
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from fastapi import APIRouter, Depends, Query
from starlette.requests import Request
from starlette.responses import Response

from rowcron.web.auth import session_of
from rowcron.web.canvas import Canvas, Window
from rowcron.web.draw import SPANS, WIDTH
from rowcron.web.pages import common, html, signed_in, stream
from rowcron.web.problems import Refusal
from rowcron.web.state import state_of
from rowcron.web.timeline_look import JOBS

router = APIRouter(include_in_schema=False)
Span = Literal["1h", "6h", "24h", "48h", "7d"]
FRESH = 2.0  # seconds for which a picture is shown again as it is


def zone_of(request: Request) -> str:
    """Return the name of the reader's zone, which the script has told; UTC before that."""
    name = unquote(request.cookies.get("rowcron_zone", "UTC"))[:64]
    try:
        return ZoneInfo(name).key
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return "UTC"


def window_of(
    request: Request,
    span: Span = "48h",
    at: Annotated[int | None, Query(ge=10_000_000, le=4_000_000_000)] = None,
    search: Annotated[str, Query(max_length=200)] = "",
    load: Literal["next", "last"] = "next",
    skip: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
) -> Window:
    """Return what the link says."""
    return Window(span, at, search.replace("\0", ""), load, skip, zone_of(request))


Asked = Annotated[Window, Depends(window_of)]


def link(window: Window, path: str = "/timeline", **changes: Any) -> str:
    """Return a link to a picture like this one."""
    usual = Window()
    said = {name: getattr(window, name) for name in ("span", "at", "search", "load", "skip")}
    said |= changes
    kept = {name: value for name, value in said.items() if value != getattr(usual, name, None)}
    return path + ("?" + urlencode(kept) if kept else "")


@router.get("/timeline")
async def timeline(request: Request, window: Asked) -> Response:
    """Show the last and the next hours."""
    session = signed_in(request)
    canvas = state_of(request).canvases.of(session.login.role, window)
    async with session.login.glance() as asker:
        shared = await common(request, session, asker)
        if not canvas.topic.sections or time.monotonic() - canvas.drawn > FRESH:
            await canvas.look(asker, None)
    return html("timeline", shared, **_links(window, canvas), sections=canvas.page())


def _links(window: Window, canvas: Canvas) -> dict[str, Any]:
    half = SPANS[window.span] * 1800
    middle = window.at if window.at is not None else int(time.time())
    ways = {
        "back": link(window, at=middle - half), "on": link(window, at=middle + half),
        "now": link(window, at=None),
        "next": link(window, load="next"), "last": link(window, load="last"),
        "fewer": link(window, skip=max(window.skip - JOBS, 0)) if window.skip else "",
        "more": link(window, skip=window.skip + JOBS) if canvas.count > window.skip + JOBS else "",
    }  # fmt: skip
    return {
        "window": window, "around": ways, "count": canvas.count, "width": WIDTH,
        "links": [(name, link(window, span=name)) for name in SPANS],
        "shown": (window.skip + 1, min(window.skip + JOBS, canvas.count)),
        "live": link(window, "/live/timeline", edition=canvas.topic.edition),
    }  # fmt: skip


@router.get("/live/timeline")
async def live(request: Request, window: Asked, edition: str = "") -> Response:
    """Stream what changes in a picture, as server-sent events."""
    session = session_of(request)
    if session is None:
        raise Refusal(401, "nobody is signed in")
    canvas = state_of(request).canvases.of(session.login.role, window)
    name = "timeline " + repr(window)
    return stream(request, state_of(request).live.watch(session, name, edition, canvas))
