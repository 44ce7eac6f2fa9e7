"""The columns of `rowcron.job` as options: one list, from which `job add` and `edit` are made.

Values go to the database as typed: it knows the rules and words the errors.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import click

# option, metavar or choices, help
COLUMNS: tuple[tuple[str, str | tuple[str, ...], str], ...] = (
    ("kind", "KIND", "sql (default), shell, http or python."),
    ("args", "JSON", "Arguments handed to the command."),
    ("timezone", "ZONE", "IANA name of the schedule's time zone (default UTC)."),
    ("queue", "QUEUE", "Which workers take it."),
    ("priority", "NUMBER", "Higher first (default 0)."),
    ("timeout", "INTERVAL", "Stop an attempt that takes longer (default 1 hour)."),
    ("max-attempts", "NUMBER", "Attempts before the run has failed (default 1)."),
    ("retry-delay", "INTERVAL", "Pause before the second attempt (default 10 seconds)."),
    ("retry-backoff", "FACTOR", "Each further pause is so many times longer (default 2)."),
    ("max-retry-delay", "INTERVAL", "Longest pause (default 1 hour)."),
    ("retry-jitter", "SHARE", "Random share of a pause, 0 to 1 (default 0.1)."),
    ("on-missed", ("latest", "skip", "all"), "What to run of several missed occurrences."),
    ("missed-grace", "INTERVAL", "With --on-missed skip: older ones do not run."),
    ("max-missed", "NUMBER", "With --on-missed all: at most so many."),
    ("on-overlap", ("skip", "wait", "allow"), "While an earlier run is live."),
    ("max-running", "NUMBER", "At most so many runs at a time."),
    ("on-lost", ("retry", "fail"), "When the worker of a run dies, or stops before its end."),
    ("max-lost", "NUMBER", "Lost attempts before the run is lost; stops do not count."),
    ("on-gap", ("run", "skip"), "A time that daylight saving leaves out."),
    ("on-fold", ("once", "twice"), "A time that daylight saving doubles."),
    ("jitter", "INTERVAL", "Spread starts over so long after the occurrence."),
    ("starts-at", "TIME", "No occurrence before this instant."),
    ("ends-at", "TIME", "No occurrence from this instant on."),
    ("max-runs", "NUMBER", "End the schedule after so many runs."),
    ("connection", "NAME", "Run outside a transaction over this connection of the worker."),
    ("keep", "INTERVAL", "Keep outputs no longer than this."),
    ("description", "TEXT", "For people."),
)
NULLABLE = tuple(
    "args schedule starts_at ends_at max_runs max_running on_gap on_fold jitter connection keep"
    " description".split()
)


def column_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add an option for each column but name, schedule, command and enabled."""
    for option, shape, text in reversed(COLUMNS):
        kind: Any = click.Choice(shape) if isinstance(shape, tuple) else str
        metavar = None if isinstance(shape, tuple) else shape
        function = click.option(f"--{option}", type=kind, metavar=metavar, help=text)(function)
    return click.option(
        "--enabled/--paused", default=None, help="Whether its schedule is followed (default yes)."
    )(function)


def given(options: Mapping[str, Any]) -> dict[str, object]:
    """Return the columns that were named, by their names in the table."""
    return {name: value for name, value in options.items() if value is not None}


def command_text(command: str | None) -> str | None:
    """Return the command; `-` reads it from standard input, which takes 1 MB and line breaks."""
    return sys.stdin.read().removeprefix("\ufeff") if command == "-" else command


def schedule_text(schedule: str | None) -> str | None:
    """Return the schedule; the word `none` means none."""
    return None if schedule is None or schedule.strip().lower() == "none" else schedule
