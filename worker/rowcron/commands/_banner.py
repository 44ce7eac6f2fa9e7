"""What `rowcron up` says first: where it is, how to connect, what to type."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import click

from rowcron import __version__


def banner(server: str, where: str, connect: str) -> None:
    """Print the first thing that a stranger sees."""
    title = click.style(f"rowcron {__version__}", bold=True)
    click.echo(f"{title}, {server}, {where}. Ctrl-C stops.\n")
    click.echo(f"Connect:  {click.style(connect, bold=True)}\n")
    click.echo("Insert a row, get a job:")
    click.echo("  insert into rowcron.job (name, schedule, command)")
    click.echo("  values ('hello', '@every 5 seconds', 'select now()');\n")


def psql_line(url: str) -> str:
    """Return the shortest line to paste that connects, on a terminal of 80 columns if possible."""
    from psycopg.conninfo import conninfo_to_dict

    from rowcron.commands.psql import bundled

    parts = conninfo_to_dict(url)
    program = "psql" if shutil.which("psql") else bundled() or "psql"
    words = [
        program,
        "-h",
        parts["host"],
        "-p",
        parts["port"],
        "-U",
        parts["user"],
        parts["dbname"],
    ]
    return shlex.join(str(word) for word in words)


def without_password(url: str) -> str:
    """Return a connection string that may stand on a screen."""
    from psycopg.conninfo import conninfo_to_dict, make_conninfo

    parts = conninfo_to_dict(url)
    return make_conninfo("", **{key: value for key, value in parts.items() if key != "password"})


def homely(path: Path) -> str:
    """Return a path with `~` for the home directory."""
    try:
        return "~/" + str(path.relative_to(Path.home()))
    except (ValueError, RuntimeError):
        return str(path)
