"""kind http: one request. The command is `[METHOD] URL`, then header lines, two of ours among them:

    POST https://example.org/hooks/42
    Authorization: Bearer ${secret:HOOK_TOKEN}
    Expect-Status: 200-299, 404
    Follow-Redirects: 3

Without a method it is GET, or POST when there are arguments, which become the body as JSON. A
header Idempotency-Key is the same for every attempt. Redirects are followed only as often as the
command says, each address judged like the first; to another origin no secret goes along. Of the
answer's body the first 64 KiB are kept, no more is read, and nothing is unpacked. Nothing is
remembered between requests: no cookies, and no connections, on which a server (or whoever chose
what it echoes) could leave an answer for the next job. No proxy is taken from the environment.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any

from rowcron.addresses import Gate
from rowcron.capture import LIMIT, head
from rowcron.exchange import REDIRECTS, Answer, ask
from rowcron.executors import TaskExecutor
from rowcron.lookups import Lookups
from rowcron.models import Outcome, Run
from rowcron.request import BadRequest, Request, read_command
from rowcron.secrets import NoSecret, Secrets, fill, json_text

if TYPE_CHECKING:
    import ssl

    import httpcore

RETRY_AFTER = frozenset({429, 503})
LONGEST_RETRY_AFTER = 86_400.0
# args that make no body; not parsed, for they may be nested deeper than Python reads
NOTHING = frozenset({b"{}", b"[]", b"null", b"false", b"0", b'""'})


class Executor(TaskExecutor):
    """Sends requests, each run over connections of its own."""

    def __init__(self, host: Any) -> None:
        super().__init__(host)
        self.secrets = Secrets(host.settings)
        self.gate = Gate(host.settings.http_allow)
        self.lookups = Lookups()
        self._ready: asyncio.Task[ssl.SSLContext] | None = None

    async def _get_ready(self) -> ssl.SSLContext:
        await asyncio.to_thread(import_module, "rowcron.guarded")
        httpx = await asyncio.to_thread(import_module, "httpx")
        # certificates as SSL_CERT_FILE says: the worker's, not a job's
        context: ssl.SSLContext = await asyncio.to_thread(httpx.create_ssl_context)
        return context

    async def pool(self, owner: str) -> httpcore.AsyncConnectionPool:
        """Return a pool for one run of this owner, which keeps no connection after its answer.

        Importing httpx takes a tenth of a second, so the first request does.
        """
        if self._ready is None:
            self._ready = asyncio.create_task(self._get_ready())
        context = await asyncio.shield(self._ready)
        import httpcore

        from rowcron.guarded import GuardedBackend

        return httpcore.AsyncConnectionPool(
            ssl_context=context,
            max_keepalive_connections=0,  # what comes after an answer is nobody's
            network_backend=GuardedBackend(self.gate, self.lookups, owner),
        )

    async def execute(self, run: Run) -> Outcome:
        """Send the request; an unexpected status is a failure."""
        try:
            values = self.secrets.of(run)
            request = read_command(run.command, values)
        except NoSecret as error:
            return Outcome("fatal", "secret", str(error))
        except BadRequest as error:
            return Outcome("fatal", "command", str(error))
        body = None if run.args_json in NOTHING else run.args_json
        if body is not None and run.args_secrets is not None:
            body = fill(body.decode(), values, json_text).encode()
        pool = await self.pool(run.owner)
        import httpcore
        import httpx

        from rowcron.guarded import Blocked

        kept = LIMIT + (run.hidden.margin if run.hidden else 0)
        key = str(run.idempotency_key)
        try:
            async with pool:
                answer = await ask(pool, request, body, key, kept, bool(run.args_secrets))
        except Blocked as error:
            return Outcome("fatal", "blocked", str(error))
        except (httpx.InvalidURL, httpcore.UnsupportedProtocol, UnicodeError) as error:
            return Outcome("fatal", "command", f"{type(error).__name__}: {error}")
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
            text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            return Outcome("failed", "connection", text)
        output = run.hidden.head(answer.body) if run.hidden else head(answer.body)
        return outcome_of(request, answer, output)


def outcome_of(request: Request, answer: Answer, output: str | None) -> Outcome:
    """Return what an answer means."""
    status = answer.status
    result = f'{{"status": {status}}}'
    if any(low <= status <= high for low, high in request.expected):
        return Outcome("succeeded", None, None, output, result)
    error = f"status {status} {answer.phrase}, expected {request.expected_text}"
    if location := answer.headers.get("location"):
        error += f"; it redirects to {location}, which is not followed"
        if answer.stray:
            error += f": {answer.stray}"
        elif request.redirects and status in REDIRECTS:
            error += f": {request.redirects} were"
    later = retry_after(answer.headers) if status in RETRY_AFTER else None
    return Outcome("failed", "status", error, output, result, later)


def retry_after(headers: dict[str, str]) -> float | None:
    """Return how many seconds the server asks us to wait, a day at most.

    A date is compared with the answer's own Date, not with any clock of ours.
    """
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text), LONGEST_RETRY_AFTER)
    try:
        then = parsedate_to_datetime(text)
        now = parsedate_to_datetime(headers["date"])
        gap = (_aware(then) - _aware(now)).total_seconds()
    except (KeyError, ValueError, TypeError, OverflowError):
        return None
    return min(max(gap, 0.0), LONGEST_RETRY_AFTER)


def _aware(value: datetime) -> datetime:
    return value if value.tzinfo else value.replace(tzinfo=UTC)
