"""`rowcron next` and `rowcron explain`: a schedule, without a job."""

from __future__ import annotations

import re
import shlex
from datetime import UTC, datetime, timedelta
from typing import LiteralString

import click
from psycopg import sql

from rowcron.client import Record
from rowcron.commands._base import Failure, command, json_option, session, with_database
from rowcron.output import print_json
from rowcron.target import Named, NoDatabase, find
from rowcron.text import relative, safe

FAR_YEAR = re.compile(r"^\d{5,}(?=-)", re.ASCII)
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
    rows = (
        _asked(named, schedule, timezone, count, after, seed)
        if _there_is_one(named)
        else _preview(schedule, timezone, count, after, seed)
    )
    if as_json:
        print_json([row["at"] for row in rows])
        return
    if not rows:
        rebooted = schedule.strip().lower() == "@reboot"
        click.echo("at each start of PostgreSQL" if rebooted else "never again")
    for row in rows:
        if isinstance(row["at"], datetime):
            click.echo(f"{row['local']}  {relative(row['at'], row['now'])}")
        else:  # a year that Python does not know
            click.echo(row["at"])


def _asked(
    named: Named, schedule: str, timezone: str, count: int, after: str | None, seed: str | None
) -> list[Record]:
    """Ask the database; what is local is told by its time zones, which may be newer than ours."""
    given = {"schedule": schedule, "count": count, "timezone": timezone, "seed": seed}
    start: LiteralString = "coalesce(%(after)s::timestamptz, clock_timestamp())"
    if after is not None:
        near = FAR_YEAR.sub("2000", after)  # the database knows more years than Python
        wall = _instant(near, after)
        if wall.tzinfo is None:
            start = "%(after)s::timestamp at time zone %(timezone)s"
        after = wall.isoformat() if near == after else after
    query = (
        "select a.at, clock_timestamp() as now,"
        " to_char(a.at at time zone %(timezone)s, 'Dy YYYY-MM-DD HH24:MI:SS') as wall,"
        " extract(epoch from (a.at at time zone %(timezone)s) - (a.at at time zone interval '0'))"
        "::integer as offset"
        " from rowcron.next_runs(schedule => %(schedule)s, count => %(count)s,"
        " timezone => %(timezone)s, seed => %(seed)s, after => {}) as a (at)"
    )
    with session(named) as client:
        rows = client.rows(sql.SQL(query).format(sql.SQL(start)), given | {"after": after})
    for row in rows:
        row["local"] = f"{row['wall']}{_offset(row['offset'])}"
    return rows


def _offset(seconds: int) -> str:
    """As PostgreSQL writes it: +02, -03:30."""
    hours, rest = divmod(abs(seconds), 3600)
    return f"{'-' if seconds < 0 else '+'}{hours:02}" + (f":{rest // 60:02}" if rest else "")


def _instant(text: str, typed: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise click.UsageError(f"--after {typed!r} is not an ISO 8601 instant") from None


def _preview(
    schedule: str, timezone: str, count: int, after: str | None, seed: str | None
) -> list[Record]:
    from rowcron.crontab_check import ONLY_THE_DATABASE, BadSchedule, describe, next_runs, zone

    now = datetime.now(UTC)
    try:
        where = zone(timezone)
        start = now if after is None else _instant(after, after)
        start = start if start.tzinfo else start.replace(tzinfo=where)
        found = next_runs(schedule, count, after=start, timezone=where, seed=seed or "")
    except BadSchedule as error:
        raise Failure(str(error), hint="rowcron next '*/5 * * * *'") from error
    if found is None:
        raise Failure(f"no database is named; {ONLY_THE_DATABASE}", hint="rowcron up")
    note = describe(schedule)
    click.echo(
        "no database is named: a preview by croniter" + (f"; {note}" if note else ""), err=True
    )
    return [
        {
            "at": at,
            "now": now,
            "local": at.strftime("%a %Y-%m-%d %H:%M:%S")
            + _offset(int((at.utcoffset() or timedelta()).total_seconds())),
        }
        for at in found
    ]


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
            hint=f"rowcron up; without a database: rowcron next {shlex.quote(schedule)}",
        )
    with session(named) as client:
        english = client.value("explain", {"schedule": schedule, "timezone": timezone})
    if as_json:
        print_json({"schedule": schedule, "timezone": timezone, "english": english})
    else:
        click.echo(safe(str(english), keep="\n"))


COMMANDS = {"next": next_, "explain": explain}
