"""Values as PostgreSQL's text literals, for statements whose values are sent as text.

Arrays are put together here: psycopg's dumpers look at each element in turn, which costs more than
the rest of a report.
"""

from __future__ import annotations

from collections.abc import Iterable


def scalar(value: bool | int | None) -> str | None:
    """Return a value's text, or None for null."""
    return None if value is None else str(value)


def plain_array(items: Iterable[object]) -> str:
    """Return an array of numbers, or of what else needs no quotes."""
    return "{" + ",".join([str(item) for item in items]) + "}"


def text_array(items: Iterable[str | None]) -> str:
    """Return an array of texts."""
    return "{" + ",".join([_element(item) for item in items]) + "}"


def texts_or_none(items: list[str | None]) -> str | None:
    """Return an array of texts, or None where there is no text at all."""
    return text_array(items) if items.count(None) < len(items) else None


def _element(item: str | None) -> str:
    if item is None:
        return "NULL"
    return '"' + item.replace("\\", "\\\\").replace('"', '\\"') + '"'


def numbered(query: str) -> str:
    """Return a cursor's statement with numbered parameters: $1 for the first %s."""
    first, *rest = query.split("%s")
    return first + "".join([f"${number}{part}" for number, part in enumerate(rest, 1)])
