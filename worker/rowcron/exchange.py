"""One exchange of an http job: a request, the redirects that it allows, and the last answer."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, NamedTuple

from rowcron import __version__
from rowcron.request import BODILESS, Request

if TYPE_CHECKING:
    import httpcore
    import httpx

REDIRECTS = frozenset({301, 302, 303, 307, 308})
CONNECT = 30.0  # seconds; the rest is bounded by the job's timeout
PRIVATE = frozenset({"authorization", "cookie", "proxy-authorization"})
OF_BODY = frozenset({"content-type", "content-encoding", "content-language"})


class Answer(NamedTuple):
    """What came back. `stray` says why a redirect was not followed."""

    status: int
    phrase: str
    headers: dict[str, str]
    body: bytes
    stray: str | None


async def ask(
    pool: httpcore.AsyncConnectionPool,
    request: Request,
    body: bytes | None,
    key: str,
    kept: int,
    body_is_secret: bool,
) -> Answer:
    """Send a request, follow as many redirects as it allows, and return the last answer."""
    import httpx

    url = httpx.URL(request.url)
    method = request.method or ("GET" if body is None else "POST")
    headers = [("Idempotency-Key", key), *request.headers]
    given = {name.lower() for name, _ in headers}
    usual = {"User-Agent": f"rowcron/{__version__}", "Accept": "*/*", "Accept-Encoding": "identity"}
    headers += [(name, value) for name, value in usual.items() if name.lower() not in given]
    if method in BODILESS:
        body = None
    elif body is not None and "content-type" not in given:
        headers.append(("Content-Type", "application/json"))
    for left in range(request.redirects, -1, -1):
        answer = await send(pool, method, url, headers, body, kept)
        location = answer.headers.get("location")
        if answer.status not in REDIRECTS or not location or not left:
            break
        try:
            target = url.join(location)
            port_is_fine = target.port is None or 0 < target.port < 65_536
        except (httpx.InvalidURL, ValueError):
            port_is_fine = False
        if not port_is_fine:
            return answer._replace(stray="its Location is no URL")
        if answer.status == 303 or (answer.status in (301, 302) and method == "POST"):
            method = method if method == "HEAD" else "GET"
            body, headers = None, [item for item in headers if item[0].lower() not in OF_BODY]
        if target.scheme not in ("http", "https") or target.scheme < url.scheme:
            return answer._replace(stray="it is neither https nor as safe as before")
        if (target.scheme, target.host, target.port) != (url.scheme, url.host, url.port):
            if body is not None and body_is_secret:
                return answer._replace(stray="a secret would go to another origin with it")
            dropped = PRIVATE | request.secret | {"host"}
            headers = [item for item in headers if item[0].lower() not in dropped]
            target = target.copy_with(username=None, password=None)
        url = target
    return answer


async def send(
    pool: httpcore.AsyncConnectionPool,
    method: str,
    url: httpx.URL,
    headers: list[tuple[str, str]],
    body: bytes | None,
    kept: int,
) -> Answer:
    """Send one request and read the answer, of its body no more than `kept` bytes."""
    import httpcore

    if url.userinfo and not any(name.lower() == "authorization" for name, _ in headers):
        headers = [*headers, basic(url.username, url.password)]
    async with pool.stream(
        method,
        httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
        headers=[(name.encode("ascii"), value.encode("utf-8")) for name, value in headers],
        content=body,
        extensions={"timeout": {"connect": CONNECT}},
    ) as response:
        found = bytearray()
        async for chunk in response.aiter_stream():
            found += chunk
            if len(found) > kept:
                break
    lines = {n.decode("latin-1").lower(): v.decode("latin-1") for n, v in response.headers}
    phrase = response.extensions.get("reason_phrase", b"").decode("latin-1")
    return Answer(response.status, phrase, lines, bytes(found), None)


def basic(user: str, password: str) -> tuple[str, str]:
    """Return the header for what stands before the `@` of a URL."""
    return "Authorization", "Basic " + b64encode(f"{user}:{password}".encode()).decode()
