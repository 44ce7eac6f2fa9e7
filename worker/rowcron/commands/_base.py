"""What the commands share: help that ends in an example, errors as sentences, the database."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from rowcron import __version__
from rowcron.commands._errors import Failure, failure
from rowcron.target import Named, find
from rowcron.text import safe

if TYPE_CHECKING:
    import psycopg

    from rowcron.client import Client


class Command(click.Command):
    """A command whose help ends in one example."""

    def __init__(self, *args: Any, example: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.example = example

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the example, unwrapped, so that it can be pasted."""
        with formatter.section("Example"):
            for line in self.example.splitlines():
                formatter.write(" " * formatter.current_indent + line + "\n")


def command(name: str, example: str, **settings: Any) -> Callable[[Callable[..., Any]], Command]:
    """Return click's decorator for a `Command`."""
    return click.command(name, cls=Command, example=example, **settings)


def _typed(parameter: str) -> bool:
    source = click.get_current_context().get_parameter_source(parameter)
    return source is ParameterSource.COMMANDLINE


def named(database_url: str | None, data: Path | None) -> Named:
    """Return what the person said about the database."""
    return Named(database_url or None, data, _typed("database_url"), _typed("data"))


database_url_option = click.option(
    "--database-url",
    envvar="ROWCRON_DATABASE_URL",
    show_envvar=True,
    metavar="URL",
    help="The database, as a URL or libpq's keywords. Else DATABASE_URL, else PGHOST and its "
    "like, else the server of rowcron up.",
)
data_option = click.option(
    "--data",
    envvar="ROWCRON_DATA",
    show_envvar=True,
    metavar="DIRECTORY",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the server of rowcron up has its data. Default: rowcron in your data home.",
)
json_option = click.option(
    "--json",
    "as_json",
    is_flag=True,
    envvar="ROWCRON_JSON",
    show_envvar=True,
    help="Print JSON for programs.",
)


def with_database(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that name the database; the function takes them as `named`."""

    @functools.wraps(function)
    def wrapper(*args: Any, database_url: str | None, data: Path | None, **rest: Any) -> Any:
        return function(*args, named=named(database_url, data), **rest)

    return database_url_option(data_option(wrapper))


@contextlib.contextmanager
def session(named: Named) -> Iterator[Client]:
    """Connect to the database that is meant; what goes wrong says which one that is."""
    import psycopg

    from rowcron.client import Client, connect

    target = find(named)
    try:
        conn = connect(target.conninfo)
    except psycopg.Error as error:
        raise _located(error, f"the database is the one that {target.named_by} names") from error
    with conn:
        conn.add_notice_handler(_show_notice)
        try:
            yield Client(conn)
        except psycopg.Error as error:
            if error.sqlstate in ("3F000", "42883", "42P01"):
                raise _missing(error, conn, target.named_by) from error
            if error.sqlstate == "42501" and not error.diag.message_hint:
                raise _not_permitted(error, conn) from error
            raise


def _located(error: psycopg.Error, where: str) -> Exception:
    shown = failure(error)
    if shown is None:
        return error
    shown.detail = f"{shown.detail}\n{where}" if shown.detail else where
    return shown


def _missing(error: psycopg.Error, conn: psycopg.Connection[Any], named_by: str) -> Exception:
    """Something of the schema is not there: is any of it? A pasted URL is often another's."""
    where = f"connected to database {conn.info.dbname!r} as {conn.info.user!r}, from {named_by}"
    there = (
        not conn.closed
        and conn.execute(
            "select 1 from pg_catalog.pg_namespace where nspname = 'rowcron'"
        ).fetchone()
    )
    if not there:
        return _located(error, where)
    return Failure(
        f"the schema in the database does not fit rowcron {__version__}",
        f"{error.diag.message_primary}\n{where}",
        "rowcron install",
    )


def tell_of_hold(client: Client) -> None:
    """Say so where nothing of what is shown will run."""
    row = client.one("select rowcron._held() as held")
    if row and row["held"]:
        click.echo(f"Warning: {safe(row['held'])}; rowcron release ends it", err=True)


def _not_permitted(error: psycopg.Error, conn: psycopg.Connection[Any]) -> Failure:
    """Advise what the login lacks; a worker's must not be given what an author has."""
    is_workers = (
        not conn.closed
        and conn.execute(
            "select 1 from pg_catalog.pg_roles as r where r.rolname = 'rowcron_worker'"
            " and pg_catalog.pg_has_role(current_user, r.oid, 'usage')"
        ).fetchone()
    )
    hint = (
        f"as an administrator: grant rowcron_user to {conn.info.user}; for jobs of its own,"
        f" or grant rowcron_operator to {conn.info.user}; for hold, release and others' jobs"
    )
    if is_workers:
        hint = "this is a worker's login; name one that may have jobs: --database-url"
    return Failure(error.diag.message_primary or str(error), error.diag.message_detail, hint)


def _show_notice(notice: psycopg.errors.Diagnostic) -> None:
    if notice.severity_nonlocalized in ("WARNING", "NOTICE"):
        click.echo(f"Warning: {safe(notice.message_primary or '')}", err=True)
        if notice.message_hint:
            click.echo(f"Hint: {safe(notice.message_hint)}", err=True)


__all__ = [
    "Command",
    "Failure",
    "command",
    "data_option",
    "database_url_option",
    "json_option",
    "named",
    "session",
    "tell_of_hold",
    "with_database",
]
