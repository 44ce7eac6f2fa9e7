"""`rowcron job show`: everything about one job on one screen."""

from __future__ import annotations

import json
import shlex
from datetime import datetime
from typing import Any, LiteralString

import click

from rowcron.client import Client, Record
from rowcron.commands._base import Failure, command, json_option, session, with_database
from rowcron.commands._filter import OWNED_BY
from rowcron.commands._names import job_argument, split_name
from rowcron.output import Column, print_json, table
from rowcron.target import Named
from rowcron.text import plain, relative, safe, took

# What is shown in its own line above, or never.
APART = ("id", "name", "owner", "command", "description", "schedule", "timezone", "enabled")

# By the names that it has had, as the views do: the ledger has no index of its own for numbers. As
# in job_health no equation of them, else all that the job has would be read and sorted.
LAST_FIVE: LiteralString = """
  select e.*
  from rowcron._names_borne(%(id)s, %(name)s) as n (name)
  cross join lateral (
    select
      l.run_id, l.outcome, l.reason, l.attempt, l.started_at, l.finished_at,
      l.finished_at - l.started_at as duration, l.error
    from rowcron.ledger as l
    where l.job = n.name and coalesce(l.job_id = %(id)s, false) and l.final
    order by l.finished_at desc
    limit 5
  ) as e
  order by e.finished_at desc
  limit 5
"""


@command("show", "rowcron job show nightly")
@job_argument()
@json_option
@with_database
def show(named: Named, name: str, as_json: bool) -> None:
    """Show a job: all its columns, its next five runs and its last ones."""
    with session(named) as client:
        job = find_job(client, name)
        columns = client.one("select * from rowcron.job as j where j.id = %s", [job["id"]]) or {}
        upcoming = _next_five(client, job)
        last = client.rows(LAST_FIVE, {"id": job["id"], "name": job["name"]})
        now = client.one("select clock_timestamp() as now")
    if as_json:
        print_json({**columns, **job, "next_runs": upcoming, "last_runs": last})
        return
    assert now is not None
    _print(columns or job, job, upcoming, last, now["now"])


def find_job(client: Client, name: str) -> Record:
    """Return a job's row of the view: one's own of that name, or the only one that one may see."""
    owner, bare = split_name(name)
    where: list[Any] = [("v.name = %s", bare)]
    if owner:
        where.append((OWNED_BY, owner))
    found = client.select("jobs", where, "(v.owner = rowcron._me()) desc, v.owner::text", 2)
    if not found:
        raise Failure(f"there is no job {name!r}", hint="rowcron job list")
    me = client.one("select rowcron._me()::text as me")
    if len(found) > 1 and me and found[0]["owner"] != me["me"]:
        owners = ", ".join(shlex.quote(f"{row['owner']}.{bare}") for row in found)
        raise Failure(f"several owners have a job {bare!r}", hint=f"say which: {owners}, ...")
    return found[0]


def _next_five(client: Client, job: Record) -> list[datetime | str]:
    """Return the next five occurrences that will run, as far as anybody can know.

    What is overdue may be more than the database lists, hence it is asked from now on, too.
    """
    if not job.get("next_run_at"):
        return []
    found = client.rows(
        "select distinct o.scheduled_for as at"
        " from unnest(array[%(next)s, greatest(%(next)s, clock_timestamp())]) as f (since)"
        ' cross join lateral rowcron.occurrences(job => %(name)s, "from" => f.since,'
        "  until => f.since + interval '150 years', owner => %(owner)s) as o"
        " where o.state = 'planned' or (o.state = 'due' and o.detail like 'runs%%')"
        " order by o.scheduled_for limit 5",
        {"name": job["name"], "next": job["next_run_at"], "owner": str(job["owner"])},
    )
    return [row["at"] for row in found]


def _print(
    columns: Record,
    job: Record,
    upcoming: list[datetime | str],
    last: list[Record],
    now: datetime,
) -> None:
    head = click.style(safe(str(columns["name"])), bold=True)
    state = "" if job.get("enabled", True) else click.style("  paused", fg="yellow")
    click.echo(f"{head}  job {job['id']} of {safe(str(job['owner']))}{state}")
    if columns.get("description"):
        click.echo(safe(columns["description"], keep="\n"))
    if columns.get("schedule"):
        zone = "" if columns["timezone"] == "UTC" else f" ({safe(columns['timezone'])})"
        click.echo(f"\n{safe(columns['schedule'])}{zone}: {safe(job.get('english') or '')}")
    else:
        name = shlex.quote(safe(str(columns["name"])))
        click.echo(f"\nOnly on demand: rowcron job run {name}")
    click.echo()
    for line in str(columns["command"]).splitlines() or [""]:
        click.echo("  " + safe(line, keep="\t"))
    click.echo()
    if upcoming:
        for number, at in enumerate(upcoming):
            title = "Next runs" if number == 0 else ""
            click.echo(f"{title:<11}{plain(at)}  {relative(at, now)}".rstrip())
        click.echo()
    click.echo("Last runs" if last else "It has not run yet.")
    if last:
        for row in last:
            row["why"] = row["error"] or row["reason"]
            row["took"] = took(row["started_at"], row["finished_at"])
        table(RUN_COLUMNS, last, empty="", indent=2)
    click.echo("\nColumns")
    shown = {key: value for key, value in columns.items() if key not in APART and value is not None}
    for key, value in shown.items():
        text = json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else plain(value)
        click.echo(f"  {key:<16}{safe(text)}")


RUN_COLUMNS = (
    Column("run_id", "RUN", right=True),
    Column("outcome", "OUTCOME"),
    Column("finished_at", "FINISHED"),
    Column("took", "TOOK", right=True),
    Column("attempt", "ATTEMPT", right=True, drop=2, dull=True),
    Column("why", "WHY", least=10, drop=1),
)
