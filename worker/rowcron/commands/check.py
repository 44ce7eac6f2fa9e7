"""`rowcron check`: the schedules of a file, without a database."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TextIO

import click

from rowcron.commands._base import Command, json_option
from rowcron.commands._base import command as base_command
from rowcron.crontab_check import FORMATS, Verdict, check_lines, zone
from rowcron.output import print_json
from rowcron.text import local_time, safe, shorten


@base_command("check", "rowcron check /etc/crontab --format system")
@click.argument("file", type=click.File(encoding="utf-8", errors="replace"))
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default="auto",
    show_default=True,
    help="crontab: five fields and a command; system: with a user between them; schedules: one "
    "a line; auto: tells schedules from crontab lines.",
)
@click.option(
    "--timezone", metavar="ZONE", default="UTC", show_default=True, help="IANA time zone."
)
@click.option(
    "--count",
    type=click.IntRange(0, 100),
    metavar="NUMBER",
    default=3,
    help="Runs to preview of each line.  [default: 3]",
)
@json_option
def check(file: TextIO, form: str, timezone: str, count: int, as_json: bool) -> None:
    """Check the schedules in a file, without a database.

    Prints the verdict and the next runs of each line; exit status 1 if any is bad. FILE may be -.
    """
    try:
        zone(timezone)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    verdicts = list(
        check_lines(file, form=form, timezone=timezone, count=count, after=datetime.now(UTC))
    )
    bad = sum(verdict.error is not None for verdict in verdicts)
    if as_json:
        print_json([_record(verdict) for verdict in verdicts])
    else:
        for verdict in verdicts:
            _print(verdict)
        good = len(verdicts) - bad
        click.echo(f"{good} good, {bad} bad" if verdicts else "no schedules in this file")
    if bad:
        raise click.exceptions.Exit(1)


def _record(verdict: Verdict) -> dict[str, object]:
    return {"ok": verdict.error is None, **vars(verdict)}


def _print(verdict: Verdict) -> None:
    word = click.style("ok ", fg="green") if verdict.error is None else click.style("bad", fg="red")
    tail = f"  {shorten(safe(verdict.command), 40)}" if verdict.command else ""
    click.echo(f"{verdict.line:>4}  {word}  {safe(verdict.schedule)}{tail}")
    if verdict.error:
        click.echo(f"           {safe(verdict.error)}")
        return
    if verdict.next_runs:
        click.echo("           " + ", ".join(local_time(at) for at in verdict.next_runs))
    if verdict.note:
        click.echo(f"           {verdict.note}")


COMMANDS: dict[str, Command] = {"check": check}
