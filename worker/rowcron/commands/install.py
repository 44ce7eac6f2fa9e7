"""`rowcron install`."""

from __future__ import annotations

import click

from rowcron.commands._base import command, session, with_database
from rowcron.target import Named, find
from rowcron.text import safe


@command("install", "rowcron install --database-url postgresql://admin@db.example.org/app")
@click.option("--print", "print_", is_flag=True, help="Print the SQL instead; needs no database.")
@click.option("--force", is_flag=True, help="Apply the chapters even if nothing changed.")
@click.option(
    "--single-role",
    is_flag=True,
    help="Make no roles: yours plays all parts.",
)
@with_database
def install(named: Named, print_: bool, force: bool, single_role: bool) -> None:
    """Install the schema in a database, or bring it up to date.

    One transaction; applying it again changes nothing. The role needs to create roles and to
    create in the database, and need not be a superuser.
    """
    from rowcron import install as installer

    if print_:
        click.echo(installer.script(), nl=False)
        return
    target = find(named)
    with session(named) as client:
        where = safe(client.conn.info.dbname)
    done = installer.install(target.conninfo, force=force, single_role=single_role)
    if done.single_role is not None:
        click.echo(
            f"Warning: role {done.single_role} plays all parts here: every job has all its rights,"
            " and so has every worker. When an administrator has made rowcron's roles, run"
            " rowcron install again.",
            err=True,
        )
    if not done.changed:
        click.echo(f"rowcron {done.version} is there already in database {where}")
    elif done.previous in (None, done.version):
        click.echo(f"installed rowcron {done.version} in database {where}")
    else:
        click.echo(f"brought rowcron from {done.previous} to {done.version} in database {where}")


COMMANDS = {"install": install}
