"""Text for a terminal: made safe, measured in cells, instants and lengths of time readable.

Whatever comes out of the database may hold escape sequences that would repaint or reprogram a
terminal. Everything printed or logged passes through `safe`, which makes them visible instead.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import unicodedata
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

# Controls; formats, bidirectional ones among them, which reorder what follows them, so that a name
# could pretend to be another one; what is unassigned or private; line and paragraph separators.
_UNSHOWN = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})
# Letters and marks that cover no cell or a blank one
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0")
_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def safe(text: str, *, keep: str = "") -> str:
    r"""Return `text` with control characters spelt out (`\x1b`, `\n`); those in `keep` stay."""
    if text.isprintable() and (text.isascii() or _BLANK.isdisjoint(text)):
        return text
    return "".join(c if c in keep else _visible(c) for c in text)


def _visible(char: str) -> str:
    if char in _NAMED:
        return _NAMED[char]
    if char in _BLANK or unicodedata.category(char) in _UNSHOWN:
        code = ord(char)
        return (
            f"\\x{code:02x}"
            if code < 0x100
            else f"\\u{code:04x}"
            if code < 0x10000
            else f"\\U{code:08x}"
        )
    return char


def width(text: str) -> int:
    """Return how many terminal cells `text` covers: 2 for wide characters, 0 for marks."""
    if text.isascii():
        return len(text)
    return sum(_cells(char) for char in text)


def _cells(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in ("W", "F") else 1


def shorten(text: str, cells: int) -> str:
    """Return `text` cut to at most `cells` terminal cells, with `…` where something is missing."""
    if width(text) <= cells:
        return text
    kept, used = [], 1
    for char in text:
        used += _cells(char)
        if used > cells:
            break
        kept.append(char)
    return "".join(kept) + "…"


def local_time(value: datetime) -> str:
    """Return an instant in the terminal's time zone, as psql writes it: 2026-11-24 03:00:00+01."""
    local = value.astimezone()
    offset = local.strftime("%z")
    short = offset[:3] if offset[3:5] == "00" else f"{offset[:3]}:{offset[3:5]}"
    return local.strftime("%Y-%m-%d %H:%M:%S") + short


def span(value: timedelta) -> str:
    """Return a length of time in one or two units: `4 ms`, `12.3 s`, `3 min 5 s`, `2 d 4 h`."""
    seconds = value.total_seconds()
    if seconds < 0:
        return "-" + span(-value)
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.3g} s" if seconds < 59.95 else "1 min"
    whole = int(seconds)
    for size, unit, next_size, next_unit in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // next_size
            return f"{whole // size} {unit}" + (f" {rest} {next_unit}" if rest else "")
    return f"{whole} s"


def took(start: Any, end: Any) -> str:
    """Return the time between two instants, nothing if either is missing."""
    known = isinstance(start, datetime) and isinstance(end, datetime)
    return span(end - start) if known else ""


def typed() -> str:
    """Return what to type here for `rowcron`: where it is, if the shell does not find it."""
    program = Path(sys.argv[0])
    if program.name != "rowcron" or shutil.which("rowcron"):
        return "rowcron"
    path = program.resolve()
    return shlex.quote(
        str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
    )


def relative(value: Any, now: datetime) -> str:
    """Return how far `value` lies from `now`: `in 4 min`, `3 s ago`.

    Nothing for what is no datetime: infinity, or a year that Python does not know.
    """
    if not isinstance(value, datetime):
        return ""
    gap = value - now
    gap = timedelta(seconds=round(gap.total_seconds()))
    if not gap:
        return "now"
    return f"in {span(gap)}" if gap > timedelta() else f"{span(-gap)} ago"


def plain(value: Any) -> str:
    """Return one database value as text for a person."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case datetime():
            return local_time(value) if value.tzinfo else str(value)
        case timedelta():
            return span(value)
        case dict() | list():
            return json.dumps(value, ensure_ascii=False, default=_json_value)
        case _:
            return str(value)


def dumps(value: Any) -> str:
    """Return JSON with ASCII only, so that no byte of it can steer a terminal; instants in UTC."""
    return json.dumps(value, default=_json_value).replace("\x7f", "\\u007f")


def _json_value(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat() if value.tzinfo else value.isoformat()
    return str(value)


def loads(text: str | bytes) -> Any:
    """Return what JSON holds; a whole number that Python does not read for its length is a float.

    What is nested deeper than Python reads, some thousand levels, stays text. For what is shown or
    looked into: numbers lose digits, so what is handed on stays text, too.
    """
    try:
        return json.loads(text, parse_int=lambda n: int(n) if len(n) < 1000 else float(n))
    except RecursionError:
        return text if isinstance(text, str) else text.decode(errors="replace")
