"""The command of an http job, read: `[METHOD] URL`, then header lines, some of them ours."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from rowcron.secrets import fill

EXPECTED = "200-299"
MOST_REDIRECTS = 10
BODILESS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
# They say where a request ends and what becomes of its connection.
OURS = frozenset(
    {"content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "keep-alive"}
)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_RANGE = re.compile(r"\s*([1-5]\d\d)\s*(?:-\s*([1-5]\d\d)\s*)?")


class BadRequest(Exception):
    """The command is not a request."""


class Request(NamedTuple):
    """A command, read. `secret` names the headers, in lower case, that hold a secret."""

    method: str | None
    url: str
    headers: list[tuple[str, str]]
    expected: list[tuple[int, int]]
    expected_text: str
    redirects: int
    secret: frozenset[str]


def read_command(command: str, secrets: dict[str, str] | None = None) -> Request:
    """Return the request that a command asks for, with its secrets. Raises `BadRequest`.

    A secret in the URL is quoted and one in a header stays within its line, so that neither can say
    more than its author left room for.
    """
    secrets = secrets or {}
    first, *rest = command.strip().split("\n")  # not splitlines: U+2028 and others end no line
    method, _, url = first.strip().rpartition(" ")
    method, url = method.strip().upper(), fill(url, secrets, lambda value: quote(value, safe=""))
    if method and not _TOKEN.fullmatch(method):
        raise BadRequest(f"first line is not [METHOD] URL: {first!r}")
    try:
        parts = urlsplit(url)
        port_is_fine = parts.port is None or parts.port > 0
    except ValueError:
        parts, port_is_fine = urlsplit(""), False
    if parts.scheme.lower() not in ("http", "https") or not parts.hostname or not port_is_fine:
        raise BadRequest(f"not an http or https URL: {url!r}")
    headers, expected, redirects, secret = [], EXPECTED, 0, set()
    for line in rest:
        if not line.strip():
            continue
        name, colon, text = line.partition(":")
        name, text = name.strip(), text.strip()
        value = fill(text, secrets)
        if not colon or not _TOKEN.fullmatch(name) or not is_header(value):
            raise BadRequest(f"not a header line (Name: value): {line!r}")
        match name.lower():
            case "expect-status":
                expected = value
            case "follow-redirects":
                redirects = read_number(value)
            case kept if kept in OURS:
                raise BadRequest(f"header {name} is the worker's to set")
            case low:
                headers.append((name, value))
                if value != text:
                    secret.add(low)
    statuses = read_statuses(expected)
    return Request(method or None, url, headers, statuses, expected, redirects, frozenset(secret))


def is_header(value: str) -> bool:
    """Return whether a header may have this value: one line that can be seen, tabs in it."""
    return value.replace("\t", " ").isprintable()


def read_number(text: str) -> int:
    """Return how many redirects to follow. Raises `BadRequest`."""
    if not (text.isascii() and text.isdigit() and int(text) <= MOST_REDIRECTS):
        raise BadRequest(f"Follow-Redirects wants 0 to {MOST_REDIRECTS}; got {text!r}")
    return int(text)


def read_statuses(text: str) -> list[tuple[int, int]]:
    """Return the ranges in `200-299, 404`. Raises `BadRequest`."""
    ranges = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part)
        if match is None:
            raise BadRequest(f"Expect-Status wants statuses such as 200-299, 404; got {text!r}")
        ranges.append((int(match[1]), int(match[2] or match[1])))
    return ranges
