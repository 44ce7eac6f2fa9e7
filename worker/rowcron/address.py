"""Addresses of databases: read without showing what they hold."""

from __future__ import annotations

import re
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from rowcron.errors import BadSettings


def read(url: str, named_by: str) -> dict[str, Any]:
    """Return libpq's parameters of a URL or of keywords. Raises `BadSettings`.

    `named_by` says where it was given. What libpq quotes of it may be a password and is left out.
    """
    try:
        return dict(conninfo_to_dict(url))
    except psycopg.ProgrammingError as error:
        hint = "postgresql://user@host:5432/database, or host=... dbname=... user=..."
        if driver := re.match(r"postgres(?:ql)?\+\w+(?=://)", url):
            hint = f"write postgresql:// in place of {driver[0]}://"
        raise BadSettings(
            f"{named_by} cannot be read",
            detail=re.sub(r'".*"|".*', "...", str(error).strip(), flags=re.DOTALL),
            hint=hint,
        ) from None
