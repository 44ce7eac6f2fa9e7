"""`rowcron runs`: list, cancel, retry runs and print what they wrote."""

from __future__ import annotations

import sys
from typing import Any

import click

from rowcron.client import Client, Record
from rowcron.commands._base import (
    Failure,
    command,
    json_option,
    session,
    tell_of_hold,
    with_database,
)
from rowcron.commands._filter import job_filter, since_filter
from rowcron.commands._group import Group
from rowcron.commands._names import complete_jobs
from rowcron.output import Column, print_json, table
from rowcron.target import Named
from rowcron.text import safe, took

OUTCOMES = ("succeeded", "failed", "cancelled", "lost")
STATES = ("running", "ready", "waiting")
NUMBER = click.IntRange(1, 2**63 - 1)


@click.group("runs", cls=Group, example="rowcron runs list --job nightly --outcome failed")
def runs() -> None:
    """Show, cancel and retry runs."""


@command("list", "rowcron runs list --job nightly --outcome failed --since '2 days'")
@click.option("--job", metavar="NAME", shell_complete=complete_jobs, help="Only runs of this job.")
@click.option("--state", type=click.Choice(STATES), help="Only live runs in this state.")
@click.option("--outcome", type=click.Choice(OUTCOMES), help="Only runs that ended so.")
@click.option("--since", metavar="TIME", help="Ended since: an instant, or `2 hours`.")
@click.option(
    "--limit",
    type=click.IntRange(1, 10000),
    metavar="NUMBER",
    default=20,
    help="At most so many.  [default: 20]",
)
@json_option
@with_database
def list_(
    named: Named,
    job: str | None,
    state: str | None,
    outcome: str | None,
    since: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """List live runs, then the latest that have ended."""
    if state and (outcome or since):
        raise click.UsageError("--state is about live runs, --outcome and --since about ended ones")
    rows: list[Record] = []
    with session(named) as client:
        if not outcome and not since:
            tell_of_hold(client)
            rows += _live(client, job, state, limit)
        if not state and len(rows) < limit:
            rows += _ended(client, job, outcome, since, limit - len(rows))
    if as_json:
        print_json(rows)
        return
    for row in rows:
        row["took"] = took(row["started_at"], row["finished_at"])
    table(
        (
            Column("run_id", "RUN", right=True),
            Column("job", "JOB", least=14),
            Column("owner", "OWNER", least=6, drop=4, dull=True),
            Column("state", "STATE"),
            Column("due_at", "DUE", drop=5),
            Column("started_at", "STARTED", drop=1),
            Column("took", "TOOK", right=True, drop=3),
            Column("attempt", "ATTEMPT", right=True, drop=6, dull=True),
            Column("why", "WHY", least=14, drop=2),
        ),
        rows,
        empty="no runs" + (" match" if job or state or outcome or since else " yet"),
    )


KEYS = (
    "run_id job owner queue kind state attempt scheduled_for due_at started_at finished_at duration"
    " why worker_id"
).split()


def _live(client: Client, job: str | None, state: str | None, limit: int) -> list[Record]:
    where: list[Any] = job_filter(job)
    if state:
        where.append(("v.state = %s", state))
    order = "v.started_at desc nulls last, v.due_at, v.run_id"
    rows = client.select("active", where, order, limit)
    for row in rows:
        row["why"] = row.get("waits_for")
    return [{key: row.get(key) for key in KEYS} for row in rows]


def _ended(
    client: Client, job: str | None, outcome: str | None, since: str | None, limit: int
) -> list[Record]:
    where: list[Any] = [*job_filter(job), *since_filter(since)]
    where.append(("(v.run_id is not null) = %s", True))
    if outcome:
        where.append(("v.outcome = %s", outcome))
    rows = client.select("history", where, "v.finished_at desc, v.run_id desc", limit)
    for row in rows:
        row["state"] = row["outcome"]
        row["why"] = row.get("error") or row.get("reason")
    return [{key: row.get(key) for key in KEYS} for row in rows]


@command("cancel", "rowcron runs cancel 4711")
@click.argument("runs", metavar="RUN", nargs=-1, required=True, type=NUMBER)
@with_database
def cancel(named: Named, runs: tuple[int, ...]) -> None:
    """Cancel runs: at once when waiting, by asking the worker when running."""
    words = {"cancelled": "cancelled", "asked": "its worker was asked to stop it"}
    with session(named) as client:
        for run in runs:
            answer = client.value("cancel", {"run": run})
            click.echo(f"run {run}: {words.get(answer, answer)}")


@command("retry", "rowcron runs retry 4711")
@click.argument("runs", metavar="RUN", nargs=-1, required=True, type=NUMBER)
@json_option
@with_database
def retry(named: Named, runs: tuple[int, ...], as_json: bool) -> None:
    """Run again what has ended, as new runs with the same args.

    Each is for the occurrence of the run that it repeats. Asked again, it makes further runs.
    """
    with session(named) as client:
        for run in runs:
            new = client.value("retry", {"run": run})
            if as_json:
                print_json({"run_id": new, "retry_of": run})
            else:
                click.echo(f"run {new} retries run {run}")


@command("output", "rowcron runs output 4711")
@click.argument("run", metavar="RUN", type=NUMBER)
@click.option(
    "--attempt",
    type=click.IntRange(1),
    metavar="NUMBER",
    help="Of this attempt (default: the last).",
)
@json_option
@with_database
def output(named: Named, run: int, attempt: int | None, as_json: bool) -> None:
    """Print what a run wrote; into a pipe or a file exactly as it was.

    On a terminal control characters are made visible. An error goes to stderr.
    """
    with session(named) as client:
        row = client.one(
            "select l.run_id, l.job, l.attempt, l.outcome, l.reason, l.error, l.output, l.result"
            " from rowcron.ledger as l where l.run_id = %s and l.attempt = coalesce(%s, l.attempt)"
            " order by l.final desc, l.attempt desc, l.finished_at desc limit 1",
            [run, attempt],
        )
    if row is None:
        raise Failure(
            f"run {run} has no entry in the ledger",
            hint=f"it may be live or long gone: rowcron runs list; rowcron history --run {run}",
        )
    if as_json:
        print_json(row)
        return
    text = row["output"] or ""
    if sys.stdout is None:
        return
    if sys.stdout.isatty():
        shown = safe(text, keep="\n\t").rstrip("\n")
        if shown:
            click.echo(shown)
        elif not row["error"]:
            click.echo("(it wrote nothing)", err=True)
    else:
        sys.stdout.buffer.write(text.encode())
    if row["error"]:
        lines = safe(row["error"], keep="\n").replace("\n", "\n  ")
        click.echo(f"{row['outcome']}: {lines}", err=True)


for each in (list_, cancel, retry, output):
    runs.add_command(each)

COMMANDS = {"runs": runs}
