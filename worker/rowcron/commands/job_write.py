"""`rowcron job add` and `rowcron job edit`."""

from __future__ import annotations

import shlex
from typing import Any

import click

from rowcron.client import Client, Record
from rowcron.commands._base import Failure, command, json_option, session, with_database
from rowcron.commands._columns import (
    NULLABLE,
    column_options,
    command_text,
    given,
    schedule_text,
)
from rowcron.commands._names import job_argument, split_name
from rowcron.output import print_json
from rowcron.target import Named
from rowcron.text import plain, safe


@command(
    "add", "rowcron job add nightly '0 3 * * mon-fri' 'call close_day()' --timezone Europe/Berlin"
)
@click.argument("name")
@click.argument("schedule")
@click.argument("command_", metavar="COMMAND")
@column_options
@click.option("--update", is_flag=True, help="Change the job if there is one of that name.")
@json_option
@with_database
def add(
    named: Named,
    name: str,
    schedule: str,
    command_: str,
    update: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Add a job.

    SCHEDULE is a cron expression, `@every 90 seconds` and its like, or `none` for a job that runs
    only on demand. A COMMAND of `-` is read from standard input. What is not named has its default;
    where --update changes a job, it stays as it is.
    """
    columns = {"name": name, "command": command_text(command_), **given(options)}
    columns["schedule"] = schedule_text(schedule)
    with session(named) as client:
        old = find_own(client, name)
        if old is not None and not update:
            raise Failure(
                f"there is a job {name!r} already",
                hint=f"rowcron job edit {shlex.quote(name)} ...; or add it with --update",
            )
        with client.conn.transaction():
            number = client.value("schedule", columns)
            if old is not None and columns["schedule"] is None:  # null names nothing there
                client.change_job(None, name, {"schedule": None})
        _tell(client, number, "changed" if old else "added", as_json)


@command("edit", "rowcron job edit nightly --schedule '30 3 * * *' --unset description")
@job_argument()
@click.option("--name", "new_name", metavar="NAME", help="Its new name.")
@click.option("--schedule", metavar="SCHEDULE", help="When it runs; none: only on demand.")
@click.option("--command", metavar="COMMAND", help="What it does; - reads standard input.")
@column_options
@click.option(
    "--unset",
    multiple=True,
    metavar="COLUMN",
    type=click.Choice(NULLABLE),
    help=f"Empty a column (repeatable): {', '.join(NULLABLE)}.",
)
@json_option
@with_database
def edit(
    named: Named,
    name: str,
    new_name: str | None,
    schedule: str | None,
    command: str | None,
    unset: tuple[str, ...],
    as_json: bool,
    **options: Any,
) -> None:
    """Change the named columns of a job, and no other."""
    columns = given(options | {"name": new_name, "command": command_text(command)})
    if schedule is not None:
        columns["schedule"] = schedule_text(schedule)
    columns |= dict.fromkeys(unset)
    if not columns:
        raise click.UsageError("Name at least one column to change, for example --schedule.")
    with session(named) as client:
        number = client.change_job(*split_name(name), columns)
        if number is None:
            raise Failure(
                f"no job {name!r} of yours",
                hint="rowcron job list; only the owner of a job changes it",
            )
        _tell(client, number, "changed", as_json)


def find_own(client: Client, name: str) -> Record | None:
    """Return the job of that name that belongs to whoever is connected."""
    return client.one(
        "select j.id from rowcron.job as j"
        " where j.name = %s and j.owner = to_regrole(quote_ident(current_user))",
        [name],
    )


def _tell(client: Client, number: object, done: str, as_json: bool) -> None:
    found = client.select("jobs", [("v.id = %s", number)], "v.id")
    if as_json:
        print_json(found[0] if found else {"id": number})
        return
    row = found[0] if found else {"name": number}
    click.echo(
        f"{done} {safe(str(row['name']))}: {safe(str(row.get('english') or 'only on demand'))}"
    )
    if not row.get("enabled", True):
        click.echo(f"it is paused until: rowcron job resume {shlex.quote(safe(str(row['name'])))}")
    elif row.get("next_run_at"):
        click.echo(f"next run {plain(row['next_run_at'])}")
