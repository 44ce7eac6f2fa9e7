"""Answers that the database has written: its JSON goes out as it came, to the last digit."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from typing import Any, LiteralString

from fastapi import Request
from fastapi.responses import Response
from psycopg import sql

from rowcron.web.actor import Asker
from rowcron.web.problems import Refusal

MOST = 500


class Raw(Response):
    """JSON text."""

    media_type = "application/json"


def as_json(query: LiteralString | sql.Composable) -> sql.Composed:
    """Wrap a query so that each row comes as one JSON text."""
    inner = sql.SQL(query) if isinstance(query, str) else query
    return sql.SQL("select to_json(v)::text as row from ({}) as v").format(inner)


async def json_rows(
    asker: Asker, query: LiteralString | sql.Composable, values: Any = ()
) -> list[str]:
    """Return the rows of a query, each as JSON text."""
    return [row["row"] for row in await asker.rows(as_json(query), values)]


async def json_row(asker: Asker, query: LiteralString | sql.Composable, values: Any = ()) -> str:
    """Return the one row of a query as JSON text. Raises `Refusal` 404."""
    found = await json_rows(asker, query, values)
    if not found:
        raise Refusal(404, "there is none", detail="Or none that your role may see.")
    return found[0]


def items(rows: Sequence[str], cursor: str | None = None, *, paged: bool = False) -> Raw:
    """Return rows as `{"items": [...]}`, with `next` when they are a page."""
    more = f', "next": {json.dumps(cursor)}' if paged else ""
    return Raw(f'{{"items": [{", ".join(rows)}]{more}}}')


async def page(
    asker: Asker,
    query: LiteralString | sql.Composable,
    values: dict[str, Any],
    limit: int,
    keys: LiteralString,
) -> Raw:
    """Return at most `limit` rows of a query; `keys`, of v, are what the next page begins after.

    They come beside the rows, which may hold anything: nobody reads those here.
    """
    keyed = sql.SQL(
        "select to_json(v)::text as row, json_build_array({})::text as keys from ({}) as v"
    )
    inner = sql.SQL(query) if isinstance(query, str) else query
    found = await asker.rows(keyed.format(sql.SQL(keys), inner), values | {"limit": limit + 1})
    rows = [row["row"] for row in found[:limit]]
    if len(found) <= limit:
        return items(rows, paged=True)
    return items(rows, encode_cursor(json.loads(found[limit - 1]["keys"])), paged=True)


def encode_cursor(keys: Sequence[Any]) -> str:
    """Return keys as a cursor, which clients hand back as it is."""
    return base64.urlsafe_b64encode(json.dumps(keys).encode()).decode().rstrip("=")


def decode_cursor(cursor: str | None, kinds: Sequence[type]) -> list[Any] | None:
    """Return the keys of a cursor. Raises `Refusal` 422."""
    if cursor is None:
        return None
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True)
        keys = json.loads(text)
        if not isinstance(keys, list) or [type(key) for key in keys] != list(kinds):
            raise ValueError
        if any(isinstance(key, int) and abs(key) >= 2**63 for key in keys):
            raise ValueError
        if any(isinstance(key, str) and b"\0" in key.encode() for key in keys):
            raise ValueError
    except (ValueError, binascii.Error, RecursionError) as error:
        raise Refusal(
            422,
            "the cursor is not one of ours",
            hint="Leave it out for the first page; then hand back `next`.",
            field="cursor",
        ) from error
    return keys


async def text_of(request: Request) -> str:
    """Return the body's own text. Raises `Refusal` 400."""
    try:
        return (await request.body()).decode() or "{}"
    except UnicodeDecodeError as error:
        raise Refusal(400, "the body is not UTF-8") from error
