"""The options of a worker, shared by `rowcron worker` and `rowcron up`.

They are read and judged in `rowcron.settings`, environment included: one place says what `10 s` is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rowcron.settings import WorkerSettings

# option, field of WorkerSettings, metavar, help
OPTIONS: tuple[tuple[str, str, str, str], ...] = (
    ("queue", "queues", "QUEUE", "Queues to serve (repeatable). [default: all]"),
    ("kind", "kinds", "KIND", "The whole list of kinds to execute. [default: sql, http, python]"),
    ("concurrency", "concurrency", "NUMBER", "Runs at a time in each process. [default: 20]"),
    ("processes", "processes", "NUMBER", "Worker processes. [default: 1]"),
    ("sql-connections", "sql_connections", "NUMBER", "SQL jobs at a time. [default: 4]"),
    (
        "sql-database-url",
        "sql_database_url",
        "URL",
        "Login for executing SQL jobs; rowcron_execute is enough for it. [default: the worker's]",
    ),
    ("app", "app", "MODULE", "Module that registers Python handlers."),
    (
        "handler-database-url",
        "handler_database_url",
        "URL",
        "Login of the connections that Python handlers are handed.",
    ),
    ("handler-connections", "handler_connections", "NUMBER", "How many of those. [default: 4]"),
    ("shell-env", "shell_env", "NAME", "Variables that shell jobs see (repeatable)."),
    ("shell-user", "shell_user", "USER", "Whom shell jobs run as; the worker must be root."),
    (
        "shell-limit",
        "shell_limits",
        "WHAT=MOST",
        "What each shell job may take: cpu=60 s, memory=1 GB, files=100, file-size=1 GB,"
        " processes=50 (repeatable).",
    ),
    (
        "http-allow",
        "http_allow",
        "WHERE",
        "What http jobs reach beside public addresses: 10.0.0.0/8, shop.internal, *.lan,"
        " localhost:8080 (repeatable).",
    ),
    (
        "secrets-dir",
        "secrets_dir",
        "DIRECTORY",
        "A file for each ${secret:NAME} that is not in ROWCRON_SECRET_NAME.",
    ),
    ("event-loop", "event_loop", "LOOP", "auto, asyncio, uvloop. [default: auto]"),
    ("lease", "lease", "TIME", "Silent for longer, its claims are lost. [default: 10 s]"),
    ("poll", "poll", "TIME", "The longest sleep. [default: 5 s]"),
    ("grace", "grace", "TIME", "Time for runs to end when stopping. [default: 20 s]"),
    ("kill-grace", "kill_grace", "TIME", "From asking a run to killing it. [default: 5 s]"),
    ("log-level", "log_level", "LEVEL", "debug, info, warning, error. [default: info]"),
    ("log-file", "log_file", "FILE", "Events as JSON lines, for auditing; rotated."),
    ("log-file-size", "log_file_size", "BYTES", "Rotated at this size. [default: 50000000]"),
    ("log-file-count", "log_file_count", "NUMBER", "Rotated files kept. [default: 5]"),
)
LISTS = ("queues", "kinds", "shell_env", "shell_limits", "http_allow")


def variable(option: str) -> str:
    """Return the environment variable of an option."""
    return "ROWCRON_" + option.upper().replace("-", "_")


def worker_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options; the function takes them by the names of WorkerSettings' fields."""
    function = click.option(
        "--log-json",
        is_flag=True,
        default=None,
        help="JSON lines on the console, too.  [env var: ROWCRON_LOG_JSON]",
        allow_from_autoenv=False,
    )(function)
    for option, field, metavar, text in reversed(OPTIONS):
        text = text.replace(" [default", f"  [env var: {variable(option)}; default")
        text = text if "[env var" in text else f"{text}  [env var: {variable(option)}]"
        function = click.option(
            f"--{option}",
            field,
            metavar=metavar,
            help=text,
            multiple=field in LISTS,
            default=None,
            allow_from_autoenv=False,
        )(function)
    return function


def worker_settings(options: Mapping[str, Any], database_url: str, **more: Any) -> WorkerSettings:
    """Return the settings: options, then the environment, then defaults. Raises `BadSettings`."""
    from rowcron.settings import WorkerSettings

    given = {
        name: ",".join(value) if name in LISTS else value
        for name, value in options.items()
        if value not in (None, ())
    }
    return WorkerSettings.from_environment(database_url=database_url, **given, **more)
