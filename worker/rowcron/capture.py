"""Output, errors and results made fit to be stored: bounded, cut on a character, no NUL."""

from __future__ import annotations

import json
import re
import traceback
from collections import deque
from types import TracebackType
from typing import Any

LIMIT = 65_536  # bytes of UTF-8 that are kept of an output, an error or a result
_NUL_ESCAPE = re.compile(r"(\\\\)|\\u0000")


class Tail:
    """The last `limit` bytes of whatever is added; memory stays flat however much that is."""

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self.total = 0
        self._chunks: deque[bytes] = deque()
        self._held = 0

    def add(self, chunk: bytes) -> None:
        """Append bytes and forget what is too long ago."""
        self.total += len(chunk)
        if len(chunk) >= self.limit:
            self._chunks.clear()
            self._held = 0
            chunk = chunk[-self.limit :]
        self._chunks.append(chunk)
        self._held += len(chunk)
        while self._held - len(self._chunks[0]) >= self.limit:
            self._held -= len(self._chunks.popleft())

    def bytes(self) -> bytes:
        """Return it as it came."""
        return b"".join(self._chunks)[-self.limit :]

    def text(self) -> str | None:
        """Return it as text, from a whole character on; None when there was nothing."""
        if not self.total:
            return None
        data = self.bytes()
        if self.total > len(data):
            start = 0
            while start < min(4, len(data)) and data[start] & 0xC0 == 0x80:
                start += 1
            data = data[start:]
        return storable(data.decode("utf-8", "replace"))


def storable(text: str) -> str:
    """Return `text` without what PostgreSQL's text cannot hold.

    NUL and lone surrogates become U+FFFD.
    """
    if "\0" in text:
        text = text.replace("\0", "\ufffd")
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def tail(text: str, limit: int = LIMIT) -> str:
    """Return the end of `text`, storable, at most `limit` bytes of UTF-8."""
    text = storable(text[-limit:])
    if len(text) * 4 <= limit:
        return text
    data = text.encode()
    return text if len(data) <= limit else data[-limit:].decode("utf-8", "ignore")


def head(data: bytes, limit: int = LIMIT) -> str | None:
    """Return the start of `data` as text, cut on a character; None when it is empty."""
    if not data:
        return None
    cut = len(data) > limit
    text = data[:limit].decode("utf-8", "ignore" if cut else "replace") if cut else None
    return storable(data.decode("utf-8", "replace") if text is None else text)


def to_json(value: Any) -> str:
    """Return `value` as JSON that PostgreSQL's jsonb takes. Raises TypeError or ValueError."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if "\\u0000" in text:
        text = _NUL_ESCAPE.sub(lambda match: match[1] or "\ufffd", text)
    return storable(text)


def result_and_output(value: Any) -> tuple[str | None, str | None]:
    """Return what a handler gave back as (result, output).

    JSON if it is that and short, else its text.
    """
    if value is None:
        return None, None
    try:
        text = to_json(value)
    except (TypeError, ValueError, RecursionError):
        return None, tail(representation(value))
    return (text, None) if len(text.encode()) <= LIMIT else (None, tail(text))


def representation(value: Any) -> str:
    """Return `repr(value)`, whatever that raises."""
    try:
        return repr(value)
    except Exception as error:
        return f"<{type(value).__name__}, whose repr raises {type(error).__name__}>"


def frames(error: BaseException) -> TracebackType | None:
    """Return an exception's traceback without the frames of the worker itself."""
    found = error.__traceback__
    while found is not None and found.tb_frame.f_globals.get("__name__", "").startswith("rowcron."):
        found = found.tb_next
    return found


def describe(error: BaseException) -> str:
    """Return the end of an exception's traceback, without the frames of the worker itself."""
    try:
        text = "".join(traceback.format_exception(type(error), error, frames(error)))
    except Exception:  # an exception whose __str__ fails
        text = type(error).__name__
    return tail(text.rstrip("\n"))
