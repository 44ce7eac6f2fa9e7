"""Blanks secrets: `***` in outputs, errors and results where a value, or the same encoded, was.

Found are the value itself, also wrapped; URL-encoded, with JSON's, HTML's or a shell's escapes, any
mixture of these and three deep; as hexadecimal digits; in base64, whatever stands around it there
and however it is escaped within. What somebody does to a value on purpose (reversing it, printing
every other letter) is not found: whoever was granted a secret can give it away.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator

from rowcron.capture import LIMIT, storable
from rowcron.models import Outcome
from rowcron.unescape import View, unescaped

MARK = b"***"
SHORTEST = 8  # bytes; what is shorter cannot be told from ordinary text
LONGEST = 16_384
WIDEST = 12  # bytes of an encoded form for one of the value, generously
DEEP = 3
_BREAKS = b" \t\r\n+"  # + is a space in a URL's query
_BETWEEN_DIGITS = b" \t\r\n:,-"
_CONTINUATION = bytes(range(0x80, 0xC0))


class Blanker:
    """What may not be told of one run."""

    def __init__(self, values: Iterable[str]) -> None:
        self.texts: set[bytes] = set()
        self.digits: set[bytes] = set()
        self.signs: set[tuple[bytes, int, int]] = set()
        longest = 0
        for value in values:
            data = value.encode()
            longest = max(longest, len(data))
            for line in (data, *data.splitlines()):
                for _ in range(DEEP):
                    if len(line.strip()) >= SHORTEST:
                        self.texts.add(line.strip())
                    line = unescaped(line)
            self.digits.add(data.hex().encode())
            self.signs.update(based(data))
        self.margin = longest * WIDEST

    def text(self, text: str | None) -> str | None:
        """Return `text` without the secrets."""
        if text is None:
            return None
        return self._cut(text.encode("utf-8", "surrogatepass"), 0, None)

    def head(self, data: bytes, limit: int = LIMIT) -> str | None:
        """Return the start of `data`, of which `margin` bytes more than `limit` were kept."""
        return self._cut(data, 0, limit) if data else None

    def tail(self, data: bytes, limit: int = LIMIT) -> str | None:
        """Return the end of `data`, of which `margin` bytes more than `limit` were kept."""
        return self._cut(data, max(len(data) - limit, 0), None) if data else None

    def _cut(self, data: bytes, start: int, end: int | None) -> str:
        """Return what is between `start` and `end`, blanked.

        The cut is made where the secrets still are: one that reaches across it goes as a whole.
        """
        end = len(data) if end is None else min(end, len(data))
        parts, at = [], start
        for left, right in self._spans(data):
            if right > at and left < end:
                parts += [data[at : max(left, at)], MARK]
                at = right
        parts.append(data[at:end])
        text = b"".join(parts)
        if start > 0:
            text = text.lstrip(_CONTINUATION)
        return storable(text.decode("utf-8", "ignore" if end < len(data) else "replace"))

    def _spans(self, data: bytes) -> list[list[int]]:
        """Return where secrets are, in order; those that touch or overlap as one."""
        found = set[tuple[int, int]]()
        for level, view in enumerate(layers(View(data))):
            found.update(self._found(view))
            if level < 2:
                for inner in view.decoded():
                    for each in layers(inner):
                        for text in self.texts:
                            found.update(each.find(text))
        spans: list[list[int]] = []
        for left, right in sorted(found):
            if spans and left <= spans[-1][1]:
                spans[-1][1] = max(spans[-1][1], right)
            else:
                spans.append([left, right])
        return spans

    def _found(self, view: View) -> Iterator[tuple[int, int]]:
        for text in self.texts:
            yield from view.find(text)
        bare = view.without(_BREAKS)
        for text in self.texts:
            if len(needle := text.translate(None, _BREAKS)) >= SHORTEST - 2:
                yield from bare.find(needle)
        digits = view.without(_BETWEEN_DIGITS, bytes(range(256)).lower())
        for needle in self.digits:
            yield from digits.find(needle)
        signs = view.signs()
        for needle, before, after in self.signs:
            yield from signs.find(needle, before, after)

    def clean(self, outcome: Outcome) -> None:
        """Blank all texts of an outcome."""
        outcome.error = self.text(outcome.error)
        outcome.output = self.text(outcome.output)
        outcome.result = self.text(outcome.result)
        outcome.reason = self.text(outcome.reason)


def layers(view: View) -> Iterator[View]:
    """Yield it, and it with one layer of escapes after the other gone."""
    for _ in range(DEEP):
        yield view
        deeper = view.unescaped()
        if deeper is None:
            return
        view = deeper
    yield view


def based(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield what is in base64 wherever `data` is encoded, by its place in a group of three bytes.

    With it, whether the sign before and the one after hold some bits of it, too.
    """
    for before in range(3):
        text = base64.b64encode(bytes(before) + data)
        bare = text.rstrip(b"=")
        after = int(text != bare)
        yield bare[(0, 2, 3)[before] : len(bare) - after], int(before > 0), after
