"""`rowcron job`: list, show, pause, resume, run and remove jobs. Adding and editing: job_write."""

from __future__ import annotations

from typing import Any

import click

from rowcron.commands._base import (
    Failure,
    command,
    json_option,
    session,
    tell_of_hold,
    with_database,
)
from rowcron.commands._filter import OWNED_BY
from rowcron.commands._group import Group
from rowcron.commands._names import job_argument, of_job, split_name
from rowcron.commands.job_write import add, edit
from rowcron.commands.show import show
from rowcron.output import Column, print_json, table
from rowcron.target import Named
from rowcron.text import safe


@click.group(
    "job",
    cls=Group,
    example="rowcron job add hello '*/5 * * * *' 'select now()'",
)
def job() -> None:
    """Show, add and change jobs."""


@command("list", "rowcron job list --queue default")
@click.option("--owner", metavar="ROLE", help="Only jobs of this role.")
@click.option("--queue", metavar="QUEUE", help="Only jobs of this queue.")
@click.option("--kind", metavar="KIND", help="Only jobs of this kind.")
@click.option(
    "--paused/--enabled", default=None, help="Only jobs that are paused, or that are not."
)
@json_option
@with_database
def list_(
    named: Named,
    owner: str | None,
    queue: str | None,
    kind: str | None,
    paused: bool | None,
    as_json: bool,
) -> None:
    """List the jobs that you may see."""
    enabled = None if paused is None else not paused
    pairs = ((OWNED_BY, owner), ("v.queue = %s", queue), ("v.kind = %s", kind))
    where: list[Any] = [(condition, value) for condition, value in pairs if value]
    if enabled is not None:
        where.append(("v.enabled = %s", enabled))
    with session(named) as client:
        tell_of_hold(client)
        rows = client.select("jobs", where, "v.name, v.owner::text")
    if as_json:
        print_json(rows)
        return
    for row in rows:
        if row["state"] in ("scheduled", "on demand"):  # SCHEDULE says so
            row["state"] = ""
        row["schedule"] = row["schedule"] or "on demand"
        row["next"] = row["next_run_at"]
    table(
        (
            Column("name", "JOB", least=16),
            Column("owner", "OWNER", least=6, drop=1, dull=True),
            Column("kind", "KIND", drop=3, dull=True),
            Column("schedule", "SCHEDULE", least=14),
            Column("state", "STATE", drop=1),
            Column("next", "NEXT RUN"),
            Column("last_outcome", "LAST", drop=2),
            Column("queue", "QUEUE", least=7, drop=4, dull=True),
            Column("description", "DESCRIPTION", least=14, drop=5),
        ),
        rows,
        empty="no such jobs"
        if where
        else "no jobs; the first one: rowcron job add hello '*/5 * * * *' 'select now()'",
    )


def _each(named: Named, names: tuple[str, ...], function: str, done: str) -> None:
    with session(named) as client:
        for name in names:
            client.call(function, of_job(name))
            click.echo(f"{done} {safe(name)}")


@command("pause", "rowcron job pause hello")
@job_argument("names", nargs=-1, required=True)
@with_database
def pause(named: Named, names: tuple[str, ...]) -> None:
    """Pause jobs: nothing is fired, runs that are there stand still, running ones go on.

    What is enqueued from now on, or by `rowcron job run`, runs all the same. To stop that too:
    `rowcron hold` (everything), or stop the workers of its queue, or revoke the right to enqueue.
    """
    _each(named, names, "pause", "paused")
    click.echo("what is enqueued from now on still runs; to stop everything: rowcron hold REASON")


@command("resume", "rowcron job resume hello")
@job_argument("names", nargs=-1, required=True)
@with_database
def resume(named: Named, names: tuple[str, ...]) -> None:
    """Resume paused jobs, from now on."""
    _each(named, names, "resume", "resumed")


@command("remove", "rowcron job remove hello")
@job_argument("names", nargs=-1, required=True)
@with_database
def remove(named: Named, names: tuple[str, ...]) -> None:
    """Remove jobs. Their history stays, a run that is running ends as it would."""
    _each(named, names, "unschedule", "removed")


@command("run", 'rowcron job run hello --args \'{"day": "2026-11-24"}\'')
@job_argument()
@click.option("--args", "arguments", metavar="JSON", help="Replace the job's args for this run.")
@json_option
@with_database
def run(named: Named, name: str, arguments: str | None, as_json: bool) -> None:
    """Run a job now, also a paused one, and print the number of the run."""
    call = of_job(name, "job") | ({"args": arguments} if arguments is not None else {})
    with session(named) as client:
        number = client.value("run_now", call)
    if number is None:
        raise Failure(f"no run was made of job {split_name(name)[1]!r}")
    if as_json:
        print_json({"run_id": number})
    else:
        click.echo(f"run {number}; what becomes of it: rowcron history --run {number}")


for each in (list_, show, add, edit, pause, resume, run, remove):
    job.add_command(each)

COMMANDS = {"job": job}
