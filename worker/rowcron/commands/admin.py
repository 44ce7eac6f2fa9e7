"""`rowcron hold`, `release` and `version`."""

from __future__ import annotations

from typing import Any

import click

from rowcron import __version__
from rowcron.commands._base import (
    command,
    json_option,
    session,
    with_database,
)
from rowcron.output import print_json
from rowcron.target import Named, NoDatabase, find
from rowcron.text import safe


@command("hold", "rowcron hold 'moving to the new server'")
@click.argument("reason")
@with_database
def hold(named: Named, reason: str) -> None:
    """Make everything stand still.

    Nothing fires and nothing is claimed, on any worker; runs that are running end as they would.
    """
    with session(named) as client:
        client.call("hold", {"reason": reason})
    click.echo(f"held: {safe(reason)}; rowcron release ends it")


@command("release", "rowcron release")
@with_database
def release(named: Named) -> None:
    """End a hold."""
    with session(named) as client:
        client.call("release", {})
    click.echo("released")


@command("version", "rowcron version --json")
@json_option
@with_database
def version(named: Named, as_json: bool) -> None:
    """Show the versions of package, schema and server."""
    found: dict[str, Any] = {"package": __version__, "schema": None, "postgresql": None}
    try:
        find(named)
    except NoDatabase as error:
        if named.url_typed or named.data_typed:
            raise
        found["note"] = error.message
    else:
        with session(named) as client:
            found["postgresql"] = client.conn.info.parameter_status("server_version")
            found["database"] = client.conn.info.dbname
            if client.one("select 1 as there where to_regclass('rowcron.setting') is not null"):
                found["schema"] = client.value("version", {})
    if as_json:
        print_json(found)
        return
    click.echo(f"rowcron     {__version__}")
    if found["postgresql"]:
        click.echo(f"schema      {found['schema'] or 'not installed: rowcron install'}")
        click.echo(f"PostgreSQL  {found['postgresql']}, database {safe(found['database'])}")
    else:
        click.echo(f"schema      {found['note']}")


COMMANDS = {"hold": hold, "release": release, "version": version}
