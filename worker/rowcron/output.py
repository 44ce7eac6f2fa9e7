"""What the command prints: tables that fit the terminal for people, JSON for programs."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from rowcron.text import dumps, plain, safe, shorten, width

Row = Mapping[str, Any]

COLOURS = {
    "succeeded": "green",
    "running": "cyan",
    "ready": "cyan",
    "failed": "red",
    "lost": "red",
    "cancelled": "yellow",
    "missed": "yellow",
    "skipped": "yellow",
    "paused": "yellow",
}


@dataclass(frozen=True)
class Column:
    """One column of a table: its key in a row and its title.

    `least` > 0 lets it shrink to that many cells, `drop` > 0 lets it go when the terminal is too
    narrow (the highest number first). On a terminal a column that is `dull` is left out when all
    rows have the same in it.
    """

    key: str
    title: str
    right: bool = False
    least: int = 0
    drop: int = 0
    dull: bool = False


def table(columns: Sequence[Column], rows: Iterable[Row], *, empty: str, indent: int = 0) -> None:
    """Print `rows` aligned and cut to the terminal; not cut when the output is no terminal."""
    texts = [{c.key: safe(plain(row.get(c.key))) for c in columns} for row in rows]
    if not texts:
        click.echo(" " * indent + empty)
        return
    used = [c for c in columns if any(t[c.key] for t in texts) or not c.drop]
    wide = {c.key: max(width(c.title), *(width(t[c.key]) for t in texts)) for c in used}
    if sys.stdout.isatty():
        used = [c for c in used if not c.dull or len({t[c.key] for t in texts}) > 1]
        used = _fit(used, wide, shutil.get_terminal_size((80, 24)).columns - indent)
    click.echo(" " * indent + _line(used, wide, {c.key: c.title for c in used}, head=True))
    for cells in texts:
        click.echo(" " * indent + _line(used, wide, cells))


def _fit(columns: list[Column], wide: dict[str, int], room: int) -> list[Column]:
    """Shrink what may shrink, then drop what may go, until the line fits into `room` cells."""
    used = list(columns)
    while True:
        excess = sum(wide[c.key] for c in used) + 2 * (len(used) - 1) - room
        give = sum(max(0, wide[c.key] - c.least) for c in used if c.least)
        if excess <= give or not any(c.drop for c in used):
            break
        used.remove(max(used, key=lambda c: c.drop))
    while excess > 0:
        widest = max(
            (c for c in used if c.least and wide[c.key] > c.least),
            key=lambda c: wide[c.key],
            default=None,
        )
        if widest is None:
            break
        wide[widest.key] -= 1
        excess -= 1
    return used


def _line(
    columns: Sequence[Column], wide: Mapping[str, int], cells: Mapping[str, str], head: bool = False
) -> str:
    parts = []
    for number, column in enumerate(columns):
        text = shorten(cells[column.key], wide[column.key])
        gap = " " * (wide[column.key] - width(text))
        shown = click.style(text, bold=True) if head else paint(text)
        last = number == len(columns) - 1
        parts.append(gap + shown if column.right else shown if last else shown + gap)
    return "  ".join(parts).rstrip()


def paint(word: str) -> str:
    """Colour an outcome or state; anything else stays as it is (click strips it off a pipe)."""
    colour = COLOURS.get(word)
    return click.style(word, fg=colour) if colour else word


def is_shown(text: str) -> bool:
    """Return whether the terminal, or what stands in its place, can show this text."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def print_json(value: Any) -> None:
    """Print one object, or an array with one object a line."""
    if isinstance(value, list):
        click.echo("[" + ",".join("\n" + dumps(item) for item in value) + "\n]")
    else:
        click.echo(dumps(value))
