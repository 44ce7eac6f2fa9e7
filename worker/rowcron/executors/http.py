"""kind http: one request. The command is `[METHOD] URL`, then header lines, one of ours among them:

    POST https://example.org/hooks/42
    X-Team: billing
    Expect-Status: 200-299, 404

Without a method it is GET, or POST when there are arguments, which become the body as JSON. A
header Idempotency-Key is the same for every attempt. Redirects are not followed. Of the answer's
body the first 64 KiB are kept, and no more is read.
"""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from rowcron import __version__
from rowcron.capture import LIMIT, head
from rowcron.executors import TaskExecutor
from rowcron.models import Outcome, Run

if TYPE_CHECKING:
    import httpx

BODILESS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
RETRY_AFTER = frozenset({429, 503})
LONGEST_RETRY_AFTER = 86_400.0
EXPECTED = "200-299"
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_RANGE = re.compile(r"\s*([1-5]\d\d)\s*(?:-\s*([1-5]\d\d)\s*)?")


class BadRequest(Exception):
    """The command is not a request."""


class Request(NamedTuple):
    """A command, read."""

    method: str | None
    url: str
    headers: list[tuple[str, str]]
    expected: list[tuple[int, int]]
    expected_text: str


def read_command(command: str) -> Request:
    """Return the request that a command asks for. Raises `BadRequest`."""
    first, *rest = command.strip().splitlines() or [""]
    method, _, url = first.strip().rpartition(" ")
    method = method.strip().upper()
    if method and not _TOKEN.fullmatch(method):
        raise BadRequest(f"first line is not [METHOD] URL: {first!r}")
    try:
        parts = urlsplit(url)
        port_is_fine = parts.port is None or parts.port > 0
    except ValueError:
        parts, port_is_fine = urlsplit(""), False
    if parts.scheme.lower() not in ("http", "https") or not parts.hostname or not port_is_fine:
        raise BadRequest(f"not an http or https URL: {url!r}")
    headers, expected = [], EXPECTED
    for line in rest:
        if not line.strip():
            continue
        name, colon, value = line.partition(":")
        name, value = name.strip(), value.strip()
        if not colon or not _TOKEN.fullmatch(name) or not value.isprintable():
            raise BadRequest(f"not a header line (Name: value): {line!r}")
        if name.lower() == "expect-status":
            expected = value
        else:
            headers.append((name, value))
    return Request(method or None, url, headers, read_statuses(expected), expected)


def read_statuses(text: str) -> list[tuple[int, int]]:
    """Return the ranges in `200-299, 404`. Raises `BadRequest`."""
    ranges = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part)
        if match is None:
            raise BadRequest(f"Expect-Status wants statuses such as 200-299, 404; got {text!r}")
        ranges.append((int(match[1]), int(match[2] or match[1])))
    return ranges


class Executor(TaskExecutor):
    """Sends requests through one client, which keeps its connections."""

    def __init__(self, host: Any) -> None:
        super().__init__(host)
        self._client: asyncio.Task[httpx.AsyncClient] | None = None

    async def _make_client(self) -> httpx.AsyncClient:
        await asyncio.to_thread(import_module, "httpx")
        import httpx

        bound = self.host.settings.concurrency
        limits = httpx.Limits(max_connections=bound, max_keepalive_connections=min(bound, 100))
        return httpx.AsyncClient(
            follow_redirects=False,
            limits=limits,
            timeout=httpx.Timeout(None, connect=30.0),
            headers={"User-Agent": f"rowcron/{__version__}", "Accept-Encoding": "identity"},
        )

    async def client(self) -> httpx.AsyncClient:
        """Return the client, made at the first request.

        Importing httpx takes a tenth of a second.
        """
        if self._client is None:
            self._client = asyncio.create_task(self._make_client())
        return await asyncio.shield(self._client)

    async def close(self) -> None:
        """Close the client's connections."""
        if self._client is not None:
            await (await self._client).aclose()

    async def execute(self, run: Run) -> Outcome:
        """Send the request; an unexpected status is a failure."""
        try:
            request = read_command(run.command)
        except BadRequest as error:
            return Outcome("fatal", "command", str(error))
        body = run.args_json if run.args else None
        method = request.method or ("GET" if body is None else "POST")
        headers = [("Idempotency-Key", str(run.idempotency_key)), *request.headers]
        if method in BODILESS:
            body = None
        elif body is not None and not any(n.lower() == "content-type" for n, _ in headers):
            headers.append(("Content-Type", "application/json"))
        client = await self.client()
        import httpx

        try:
            async with client.stream(
                method, request.url, content=body, headers=headers
            ) as response:
                kept = bytearray()
                async for chunk in response.aiter_raw(16_384):
                    kept += chunk
                    if len(kept) > LIMIT:
                        break
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError) as error:
            return Outcome("fatal", "command", f"{type(error).__name__}: {error}")
        except httpx.HTTPError as error:
            text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            return Outcome("failed", "connection", text)
        return outcome_of(request, response, bytes(kept))


def outcome_of(request: Request, response: httpx.Response, body: bytes) -> Outcome:
    """Return what an answer means."""
    status = response.status_code
    result = f'{{"status": {status}}}'
    output = head(body)
    if any(low <= status <= high for low, high in request.expected):
        return Outcome("succeeded", None, None, output, result)
    error = f"status {status} {response.reason_phrase}, expected {request.expected_text}"
    if location := response.headers.get("location"):
        error += f"; it redirects to {location}, which is not followed"
    later = retry_after(response) if status in RETRY_AFTER else None
    return Outcome("failed", "status", error, output, result, later)


def retry_after(response: httpx.Response) -> float | None:
    """Return how many seconds the server asks us to wait, a day at most.

    A date is compared with the answer's own Date, not with any clock of ours.
    """
    text = response.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text), LONGEST_RETRY_AFTER)
    try:
        then = parsedate_to_datetime(text)
        now = parsedate_to_datetime(response.headers["date"])
    except (KeyError, ValueError, TypeError):
        return None
    gap = (_aware(then) - _aware(now)).total_seconds()
    return min(max(gap, 0.0), LONGEST_RETRY_AFTER)


def _aware(value: datetime) -> datetime:
    return value if value.tzinfo else value.replace(tzinfo=UTC)
