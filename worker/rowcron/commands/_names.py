"""A job as it is named on the command line: `name` or `owner.name`, completed by the shell."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rowcron.target import Named, find

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def complete_jobs(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete a job's name from the database; silently nothing when that does not answer."""
    from click.shell_completion import CompletionItem

    try:
        from rowcron.client import Client, connect

        given = ctx.params.get("database_url") or os.environ.get("ROWCRON_DATABASE_URL")
        data = ctx.params.get("data") or os.environ.get("ROWCRON_DATA")
        target = find(Named(given or None, Path(data) if data else None))
        with connect(target.conninfo, timeout=2) as conn:
            found = Client(conn).rows(
                "select j.name, j.english from rowcron.jobs as j"
                " where starts_with(j.name, %s) order by j.name limit 100",
                [incomplete],
            )
    except Exception:
        return []
    names = {row["name"]: row["english"] for row in found if row["name"].isprintable()}
    return [CompletionItem(name, help=english) for name, english in names.items()]


def job_argument(name: str = "name", **settings: Any) -> Decorator:
    """Return an argument that is a job's name, with completion."""
    return click.argument(name, metavar="NAME", shell_complete=complete_jobs, **settings)


def split_name(name: str) -> tuple[str | None, str]:
    """Split `owner.name`; a job's name has no dot, a role's may."""
    owner, dot, job = name.rpartition(".")
    return (owner if dot else None), job


def of_job(name: str, argument: str = "name") -> dict[str, Any]:
    """Return the arguments by which a function of the schema finds a job."""
    owner, job = split_name(name)
    return {argument: job} | ({"owner": owner} if owner else {})
