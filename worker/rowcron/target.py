"""Which database a command talks to, and who said so.

The first of these that is there: `--database-url` or `--data` as typed, `ROWCRON_DATABASE_URL`,
`ROWCRON_DATA`, `DATABASE_URL`, libpq's own variables, and the embedded server of `rowcron up` when
it runs in its usual directory.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

LIBPQ = ("PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGSERVICE")


class NoDatabase(Exception):
    """No database is named, and no embedded server runs. ``hint`` is what to do next."""

    hint = "rowcron up; or name a database with --database-url, ROWCRON_DATABASE_URL or PGHOST"

    def __init__(self, message: str = "no database is named, and no embedded server runs") -> None:
        super().__init__(message)
        self.message = message


@dataclass(frozen=True)
class Target:
    """A database: libpq's connection string, and in words where that comes from."""

    conninfo: str
    named_by: str


@dataclass(frozen=True)
class Named:
    """What the person gave: both may come from the environment, `*_typed` tells them apart."""

    database_url: str | None = None
    data: Path | None = None
    url_typed: bool = False
    data_typed: bool = False


def find(named: Named) -> Target:
    """Return the database to talk to. Raises `NoDatabase`, `BadSettings`."""
    from rowcron import address

    found = _find(named)
    address.read(found.conninfo, found.named_by)
    return found


def _find(named: Named) -> Target:
    if named.database_url and (named.url_typed or not named.data_typed):
        by = "--database-url" if named.url_typed else "ROWCRON_DATABASE_URL"
        return Target(named.database_url, by)
    if named.data is not None:
        by = "--data" if named.data_typed else "ROWCRON_DATA"
        if (url := embedded_url(named.data)) is None:
            raise NoDatabase(f"no embedded server runs in {named.data}")
        return Target(url, by)
    if url := os.environ.get("DATABASE_URL"):
        return Target(url, "DATABASE_URL")
    if variable := next((name for name in LIBPQ if os.environ.get(name)), None):
        return Target("", variable)
    if url := embedded_url(None):
        return Target(url, "the embedded server of rowcron up")
    raise NoDatabase


def embedded_url(data: Path | None) -> str | None:
    """Return the person's address of the embedded server that runs on `data`, if one does."""
    import pwd

    from rowcron import embedded_auth as auth
    from rowcron.embedded_os import default_data
    from rowcron.embedded_process import Postmaster

    directory = (data or default_data()).resolve()
    try:
        user = pwd.getpwuid(directory.stat().st_uid)
        server = Postmaster(directory, directory, user)
        if not server.find_running():
            return None
    except (OSError, KeyError):
        return None
    host = quote(str(server.socket_dir), safe="")
    login, database = quote(auth.person()), quote(auth.DATABASE)
    return f"postgresql://{login}@/{database}?host={host}&port={server.port}"
