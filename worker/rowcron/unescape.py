r"""Text as it was before it was escaped, and where in the escaped one each byte of it stands.

Known are `%2F`, `\u002f`, `\x2f`, `\057`, `\n`, `\/`, `'\''`, `&#47;` and `&amp;`. Places are
only looked up when something was found.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Iterator, Sequence

_ESCAPE = re.compile(
    rb"%([0-9A-Fa-f]{2})|\\u(d[89ab][0-9a-f]{2})\\u(d[c-f][0-9a-f]{2})|\\u([0-9a-f]{4})"
    rb"|('\\''|'\"'\"')|\\x([0-9a-f]{2})|\\([0-3][0-7]{2})|\\([nrtbfave])|\\([^a-z0-9])"
    rb"|&\#x([0-9a-f]{1,8});|&\#([0-9]{1,8});|&(amp|lt|gt|quot|apos);",
    re.IGNORECASE,
)
Places = tuple[Sequence[int], Sequence[int]]
BETWEEN_SIGNS = b" \t\r\n\\"  # of base64, as it is wrapped and as JSON escapes it
_SIGNS = re.compile(rb"[A-Za-z0-9+/]{16,}")
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_SHORT = {
    b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"f": b"\f",
    b"a": b"\a", b"v": b"\v", b"e": b"\x1b", b"E": b"\x1b",
}  # fmt: skip
_NAMED = {b"amp": b"&", b"lt": b"<", b"gt": b">", b"quot": b'"', b"apos": b"'"}


def _meaning(match: re.Match[bytes]) -> bytes:
    percent, high, low, unit, quoted, byte, octal, short, itself, hexa, number, name = (
        match.groups()
    )
    if percent or byte:
        return bytes.fromhex((percent or byte).decode())
    if octal:
        return bytes([int(octal, 8)])
    if quoted:
        return b"'"
    if high:
        code = 0x10000 + ((int(high, 16) & 0x3FF) << 10) + (int(low, 16) & 0x3FF)
    elif unit or hexa:
        code = int(unit or hexa, 16)
    elif number:
        code = int(number)
    else:
        return _SHORT.get(short, short) if short else itself or _NAMED[name.lower()]
    return chr(code).encode("utf-8", "surrogatepass") if code <= 0x10FFFF else match[0]


def unescaped(data: bytes) -> bytes:
    """Return `data` with one layer of escapes gone."""
    return _ESCAPE.sub(_meaning, data)


class View:
    """Bytes made of others; `places` says where in the first ones each begins and ends."""

    def __init__(self, data: bytes, make: Callable[[], Places] | None = None) -> None:
        self.data = data
        self._make = make or (lambda: (range(len(data)), range(1, len(data) + 1)))
        self._places: Places | None = None

    @property
    def places(self) -> Places:
        """Where each byte begins and ends, in what all was made of."""
        if self._places is None:
            self._places = self._make()
        return self._places

    def find(self, needle: bytes, before: int = 0, after: int = 0) -> Iterator[tuple[int, int]]:
        """Yield where `needle` is, overlapping ones too, with so many bytes before and after."""
        at = self.data.find(needle)
        while at >= 0:
            begins, ends = self.places
            last = min(at + len(needle) + after, len(self.data)) - 1
            yield begins[max(at - before, 0)], ends[last]
            at = self.data.find(needle, at + 1)

    def without(self, gone: bytes, table: bytes | None = None) -> View:
        """Return it without some bytes, and the others translated."""

        def places() -> Places:
            begins, ends = self.places
            kept = [at for at, byte in enumerate(self.data) if byte not in gone]
            return [begins[at] for at in kept], [ends[at] for at in kept]

        return View(self.data.translate(table, gone), places)

    def signs(self) -> View:
        """Return it as base64, in the one alphabet and unwrapped."""
        return self.without(BETWEEN_SIGNS, _URL_SAFE)

    def decoded(self) -> Iterator[View]:
        """Yield what is in its base64, with each of the four places that a group may begin at."""
        signs = self.signs()
        runs = [match.span() for match in _SIGNS.finditer(signs.data)]
        for shift in range(4):
            parts = []
            for left, right in runs:
                text = signs.data[left + shift : right]
                parts.append(binascii.a2b_base64(text + b"A" * (-len(text) % 4)) + b"\0")

            def places(shift: int = shift, parts: list[bytes] = parts) -> Places:
                begins, ends = signs.places
                made: tuple[list[int], list[int]] = ([], [])
                for (left, right), part in zip(runs, parts, strict=True):
                    for at in range(len(part)):
                        first = left + shift + at * 4 // 3
                        made[0].append(begins[min(first, right - 1)])
                        made[1].append(ends[min(first + 1, right - 1)])
                return made

            yield View(b"".join(parts), places)

    def unescaped(self) -> View | None:
        """Return it with one layer of escapes gone; None when there is none."""
        data = unescaped(self.data)
        if data == self.data:
            return None

        def places() -> Places:
            begins, ends = self.places
            made: tuple[list[int], list[int]] = ([], [])
            at = 0
            for match in _ESCAPE.finditer(self.data):
                left, right = match.span()
                size = len(_meaning(match))
                made[0].extend([*begins[at:left], *[begins[left]] * size])
                made[1].extend([*ends[at:left], *[ends[right - 1]] * size])
                at = right
            made[0].extend(begins[at:])
            made[1].extend(ends[at:])
            return made

        return View(data, places)
