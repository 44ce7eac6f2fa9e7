"""`rowcron upcoming` and `rowcron history`."""

from __future__ import annotations

from typing import Any

import click

from rowcron.commands._base import command, json_option, session, tell_of_hold, with_database
from rowcron.commands._filter import job_filter, since_filter
from rowcron.commands._names import complete_jobs
from rowcron.output import Column, print_json, table
from rowcron.target import Named
from rowcron.text import relative, took

ENDS = ("succeeded", "failed", "cancelled", "lost", "skipped", "missed")


@command("upcoming", "rowcron upcoming --limit 5")
@click.option("--job", metavar="NAME", shell_complete=complete_jobs, help="Only this job.")
@click.option("--queue", metavar="QUEUE", help="Only this queue.")
@click.option(
    "--limit",
    type=click.IntRange(1, 10000),
    metavar="NUMBER",
    default=20,
    help="At most so many.  [default: 20]",
)
@json_option
@with_database
def upcoming(named: Named, job: str | None, queue: str | None, limit: int, as_json: bool) -> None:
    """Show what runs next, in order."""
    where: list[Any] = job_filter(job)
    if queue:
        where.append(("v.queue = %s", queue))
    with session(named) as client:
        tell_of_hold(client)
        rows = client.select("upcoming", where, "v.due_at, v.priority desc, v.run_id", limit)
        now = client.one("select clock_timestamp() as now")
    if as_json:
        print_json(rows)
        return
    for row in rows:
        row["when"] = relative(row["due_at"], now["now"]) if now else ""
        row["priority"] = row["priority"] or None
    table(
        (
            Column("when", "WHEN"),
            Column("due_at", "DUE"),
            Column("job", "JOB", least=12),
            Column("owner", "OWNER", least=6, drop=2, dull=True),
            Column("run_id", "RUN", right=True, drop=1),
            Column("kind", "KIND", drop=3, dull=True),
            Column("queue", "QUEUE", least=7, drop=4, dull=True),
            Column("priority", "PRIORITY", right=True, drop=5),
        ),
        rows,
        empty="nothing is due in the future",
    )


@command("history", "rowcron history --job nightly --since '7 days' --outcome missed")
@click.option("--job", metavar="NAME", shell_complete=complete_jobs, help="Only this job.")
@click.option("--run", metavar="RUN", type=int, help="Only this run.")
@click.option(
    "--outcome", type=click.Choice(ENDS), multiple=True, help="Only these ends (repeatable)."
)
@click.option("--since", metavar="TIME", help="Since an instant, or `2 hours`.")
@click.option(
    "--limit",
    type=click.IntRange(1, 10000),
    metavar="NUMBER",
    default=20,
    help="At most so many.  [default: 20]",
)
@json_option
@with_database
def history(
    named: Named,
    job: str | None,
    run: int | None,
    outcome: tuple[str, ...],
    since: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """Show what became of every occurrence.

    The latest first: runs that ended, and what did not run: skipped, missed.
    """
    where: list[Any] = [*job_filter(job), *since_filter(since)]
    if run is not None:
        where.append(("v.run_id = %s", run))
    if outcome:
        where.append(("v.outcome = any(%s)", list(outcome)))
    with session(named) as client:
        rows = client.select(
            "history", where, "v.finished_at desc, v.run_id desc nulls last", limit
        )
    if as_json:
        print_json(rows)
        return
    for row in rows:
        row["took"] = took(row["started_at"], row["finished_at"])
        many = row.get("occurrences") or 1
        why = row.get("error") or row.get("reason") or ""
        row["why"] = f"{many} occurrences; {why}" if many > 1 else why
    table(
        (
            Column("finished_at", "FINISHED"),
            Column("job", "JOB", least=14),
            Column("owner", "OWNER", least=6, drop=4, dull=True),
            Column("outcome", "OUTCOME"),
            Column("took", "TOOK", right=True, drop=3),
            Column("run_id", "RUN", right=True, drop=2),
            Column("attempt", "ATTEMPT", right=True, drop=6, dull=True),
            Column("scheduled_for", "SCHEDULED FOR", drop=5),
            Column("why", "WHY", least=16, drop=1),
        ),
        rows,
        empty="no history" + (" matches" if job or run or outcome or since else " yet"),
    )


COMMANDS = {"upcoming": upcoming, "history": history}
