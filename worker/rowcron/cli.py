"""The command `rowcron`. Subcommands are imported when they are called, so that help is quick."""

from __future__ import annotations

import importlib
import io
import os
import sys
from typing import Any

import click

from rowcron import __version__, ending

# Sections of the help page: command, the module below rowcron.commands that has it, its summary
# (a test compares it with the command's own).
SECTIONS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "Start": (
        ("up", "up", "Start everything here: a database, a worker, sample jobs."),
        ("install", "install", "Install the schema in a database, or bring it up to date."),
        ("worker", "worker", "Execute jobs as they fall due."),
        ("web", "web", "Serve live pages and the HTTP API."),
        ("psql", "psql", "Open psql on the database."),
    ),
    "Jobs and runs": (
        ("job", "job", "Show, add and change jobs."),
        ("runs", "runs", "Show, cancel and retry runs."),
        ("upcoming", "views", "Show what runs next, in order."),
        ("history", "views", "Show what became of every occurrence."),
        ("why", "why", "Tell why a job does not run now."),
    ),
    "Schedules": (
        ("next", "schedule", "Show the next instants of a schedule."),
        ("explain", "schedule", "Say a schedule in English."),
        ("check", "check", "Check the schedules in a file, without a database."),
    ),
    "Operation": (
        ("hold", "admin", "Make everything stand still."),
        ("release", "admin", "End a hold."),
        ("version", "admin", "Show the versions of package, schema and server."),
    ),
}


class Lazy(click.Group):
    """A group that imports a subcommand when it is called, and lists them without importing."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the help page."""
        return [name for section in SECTIONS.values() for name, _, _ in section]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the subcommand; None when there is none of that name."""
        for section in SECTIONS.values():
            for name, module, _ in section:
                if name == cmd_name:
                    found = importlib.import_module(f"rowcron.commands.{module}")
                    result: click.Command = found.COMMANDS[name]
                    return result
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections."""
        for title, section in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, summary) for name, _, summary in section])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the example, and how the shell learns to complete."""
        formatter.write(
            "\nEvery option is also an environment variable: ROWCRON_JOB_ADD_QUEUE is the --queue"
            "\nof job add; the shorter names stand in the help of the command."
            '\nCompletion for bash (zsh, fish likewise): eval "$(_ROWCRON_COMPLETE=bash_source'
            ' rowcron)"\n'
            "\nExample:\n"
            "  rowcron job add hello '*/5 * * * *' 'select now()'\n"
        )

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand; errors that a person can act on become sentences."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            from rowcron.commands._errors import failure

            shown = failure(error)
            if shown is None:
                raise
            raise shown from error


@click.group(
    cls=Lazy,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "auto_envvar_prefix": "ROWCRON",
        "max_content_width": 100,
    },
)
@click.version_option(__version__, message="rowcron %(version)s", allow_from_autoenv=False)
@click.pass_context
def cli(context: click.Context) -> None:
    """Insert a row, get a job: a scheduler whose rules live in PostgreSQL."""
    if os.environ.get("NO_COLOR"):
        context.color = False


def open_standard_streams() -> None:
    """Open nothing where whoever called has closed descriptor 0, 1 or 2.

    Else what is opened next takes its number, the event loop's own descriptor for one, and whoever
    writes a line to stderr writes it there.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115


def main() -> None:
    """Run the command line, under this name also as `python -m rowcron`."""
    sys.set_int_max_str_digits(0)  # a jsonb may hold more, and a list must show the rest, too
    open_standard_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a terminal cannot show is spelt out
            stream.reconfigure(errors="backslashreplace")
    try:
        cli(prog_name="rowcron")
    except BaseException as error:
        ending.end_as(error)
        raise
