"""`rowcron next` and `rowcron explain`: a schedule, without a job."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from rowcron.commands._base import Failure, command, json_option, session, with_database
from rowcron.output import print_json
from rowcron.target import Named, NoDatabase, find
from rowcron.text import plain, relative, safe

zone_option = click.option(
    "--timezone", metavar="ZONE", default="UTC", show_default=True, help="IANA time zone."
)


def _there_is_one(named: Named) -> bool:
    try:
        find(named)
    except NoDatabase:
        if named.url_typed or named.data_typed:
            raise
        return False
    return True


@command("next", "rowcron next '0 3 * * mon-fri' --timezone Europe/Berlin --count 3")
@click.argument("schedule", metavar="EXPR")
@zone_option
@click.option(
    "--count",
    type=click.IntRange(1, 1000),
    metavar="NUMBER",
    default=5,
    help="So many.  [default: 5]",
)
@click.option("--after", metavar="TIME", help="Start from this instant instead of now.")
@click.option("--seed", metavar="TEXT", help="What H spreads by, for example owner.name.")
@json_option
@with_database
def next_(
    named: Named,
    schedule: str,
    timezone: str,
    count: int,
    after: str | None,
    seed: str | None,
    as_json: bool,
) -> None:
    """Show the next instants of a schedule.

    The database computes them; without one croniter does, as a preview.
    """
    if _there_is_one(named):
        with session(named) as client:
            given = {"after": after, "seed": seed}
            call = {"schedule": schedule, "count": count, "timezone": timezone}
            call |= {key: value for key, value in given.items() if value is not None}
            found = [next(iter(row.values())) for row in client.call("next_runs", call)]
            row = client.one("select clock_timestamp() as now")
            now = row["now"] if row else datetime.now(UTC)
    else:
        now = datetime.now(UTC)
        found = _preview(schedule, timezone, count, after, seed, now)
    if as_json:
        print_json(found)
        return
    if not found:
        click.echo("never again")
    for at in found:
        if isinstance(at, datetime):
            click.echo(f"{_in_zone(at, timezone)}  {relative(at, now)}")
        else:  # a year that Python does not know
            click.echo(at)


def _in_zone(at: datetime, timezone: str) -> str:
    """An instant in the schedule's zone, with the day of the week; in the terminal's if unknown."""
    from zoneinfo import ZoneInfo

    try:
        local = at.astimezone(ZoneInfo(timezone))
    except (OSError, ValueError, KeyError):
        return plain(at)
    offset = local.strftime("%z")
    return local.strftime("%a %Y-%m-%d %H:%M:%S") + (
        offset[:3] if offset[3:5] == "00" else f"{offset[:3]}:{offset[3:5]}"
    )


def _preview(
    schedule: str, timezone: str, count: int, after: str | None, seed: str | None, now: datetime
) -> list[datetime]:
    from rowcron.crontab_check import BadSchedule, describe, next_runs, zone

    try:
        where = zone(timezone)
        start = now
        if after is not None:
            try:
                start = datetime.fromisoformat(after)
            except ValueError:
                raise click.UsageError(f"--after {after!r} is not an ISO 8601 instant") from None
            start = start if start.tzinfo else start.replace(tzinfo=where)
        found = next_runs(schedule, count, after=start, timezone=where, seed=seed or "")
    except BadSchedule as error:
        raise Failure(str(error), hint="rowcron next '*/5 * * * *'") from error
    note = describe(schedule)
    click.echo(
        "no database is named: a preview by croniter" + (f"; {note}" if note else ""), err=True
    )
    return found


@command("explain", "rowcron explain '0 3 * * mon-fri' --timezone Europe/Berlin")
@click.argument("schedule", metavar="EXPR")
@zone_option
@json_option
@with_database
def explain(named: Named, schedule: str, timezone: str, as_json: bool) -> None:
    """Say a schedule in English."""
    if not _there_is_one(named):
        raise Failure(
            "the English comes from the database, and none is named",
            hint=f"rowcron up; without a database: rowcron next '{schedule}'",
        )
    with session(named) as client:
        english = client.value("explain", {"schedule": schedule, "timezone": timezone})
    if as_json:
        print_json({"schedule": schedule, "timezone": timezone, "english": english})
    else:
        click.echo(safe(str(english), keep="\n"))


COMMANDS = {"next": next_, "explain": explain}
