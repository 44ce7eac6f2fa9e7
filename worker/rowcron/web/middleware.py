"""Around every answer: whose name is asked, how long a body may be, what a page may load."""

from __future__ import annotations

from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rowcron.web.problems import LONGEST_BODY, TOO_LONG, answer
from rowcron.web.proxy import seen_by_proxy
from rowcron.web.settings import WebSettings

STRICT = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# Swagger UI sets styles of elements from its script.
DOCS = STRICT.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}


ASKED_BY_HEAD = "rowcron.head"  # in the scope of a GET that was a HEAD, which must change nothing


def has_head(path: str) -> bool:
    """Return whether HEAD is taken where GET is; a stream would never end."""
    return not path.startswith("/live")


class Guard:
    """Checks the Host and the length of the body; adds the security headers."""

    def __init__(self, app: ASGIApp, settings: WebSettings) -> None:
        self.app = app
        self.settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if self.settings.behind_proxy:
            scope = seen_by_proxy(scope)
        if scope["method"] == "HEAD" and has_head(scope["path"]):
            # uvicorn, which knows better, sends no body
            scope = {**scope, "method": "GET", ASKED_BY_HEAD: True}
        headers = Headers(scope=scope)
        if not self._trusted(headers.get("host", "")):
            refused = PlainTextResponse("this name is not trusted; see --trusted-host\n", 421)
            await refused(scope, receive, send)
            return
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > LONGEST_BODY:
            await answer(TOO_LONG)(scope, receive, send)
            return
        policy = DOCS if scope["path"].startswith("/api/docs") else STRICT

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                said = MutableHeaders(scope=message)
                said.setdefault("Content-Security-Policy", policy)
                said.setdefault("Cache-Control", "no-store")
                for name, value in HEADERS.items():
                    said[name] = value
            await send(message)

        await self.app(scope, self._counted(receive), sending)

    def _trusted(self, host: str) -> bool:
        """A site that rebinds its own name to our address learns nothing."""
        name, _, port = host.lower().rpartition(":")
        name = name if port.isdigit() and name else host.lower()
        return name in self.settings.hosts or self.settings.any_address

    @staticmethod
    def _counted(receive: Receive) -> Receive:
        received = 0

        async def counting() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > LONGEST_BODY:  # sent in chunks, without a length
                raise HTTPException(413)
            return message

        return counting
