"""The chapters of the schema: where they are, what they hash to, and all of them as one script."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from rowcron import __version__

LOCK_KEY = 0x726F7763726F6E  # "rowcron" in ASCII: one installer at a time in a database
LOCK_TIMEOUT = "30s"  # for the tables of a schema that is in use, not for the advisory lock


class InstallError(Exception):
    """The schema cannot be installed here. ``hint`` is what to do next, ``code`` an SQLSTATE."""

    def __init__(self, message: str, hint: str, code: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code


@dataclass(frozen=True)
class Chapter:
    """One file of the schema: ``010_schema.sql`` and its text."""

    name: str
    text: str


def chapter_dir() -> Path:
    """The directory of the chapters: package data in a wheel, the tree's own when editable."""
    here = Path(__file__).resolve().parent
    for candidate in (here / "sql", here.parent.parent / "sql"):
        if any(candidate.glob("[0-9]*.sql")):
            return candidate
    raise InstallError(
        "the schema's chapters are missing from this installation",
        "install rowcron again: pip install --force-reinstall rowcron",
    )


@cache
def chapters() -> tuple[Chapter, ...]:
    """All chapters in the order in which they are applied."""
    paths = sorted(chapter_dir().glob("[0-9]*.sql"))
    return tuple(Chapter(path.name, path.read_text("utf-8")) for path in paths)


def schema_hash(alone: str | None = None) -> str:
    """A hash of the names and texts of all chapters, and of the single role that they name."""
    digest = hashlib.sha256((alone or "").encode())
    for chapter in chapters():
        digest.update(f"{chapter.name}\0{chapter.text}\0".encode())
    return digest.hexdigest()


def remember_hash(alone: str | None = None) -> str:
    """The statements that store the hash; data, not schema, so that dumps compare equal."""
    return (
        "set local role rowcron_owner;\n"
        "insert into rowcron.setting (name, value, description)\n"
        f"values ('schema_hash', to_jsonb('{schema_hash(alone)}'::text),"
        " 'What was applied last; rowcron install leaves the same alone.')\n"
        "on conflict (name) do update set value = excluded.value;\n"
        "reset role;\n"
    )


def script() -> str:
    """The whole installation as one transaction of plain SQL, for `rowcron install --print`."""
    parts = [
        f"-- rowcron {__version__}: apply with psql -f, as a role with createrole.\n"
        "begin;\n"
        "set local search_path = pg_catalog, pg_temp;\n"
        "set local client_min_messages = warning;\n"
        f"select pg_catalog.pg_advisory_xact_lock({LOCK_KEY});\n"
    ]
    parts += [f"\n-- {chapter.name}\n{chapter.text.rstrip()}\n" for chapter in chapters()]
    parts.append(f"\n{remember_hash()}commit;\n")
    return "".join(parts)
