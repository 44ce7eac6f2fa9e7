"""Writes docs/cli.md from the commands' own help: python tests/cli_reference.py > docs/cli.md."""

from __future__ import annotations

from collections.abc import Iterator

import click

from rowcron.cli import cli

INTRODUCTION = """# The command `rowcron`

*Written by `python tests/cli_reference.py > docs/cli.md`; a test checks that it is current.*

**Which database.** The first of these that is there: `--database-url` or `--data` as typed,
`ROWCRON_DATABASE_URL`, `ROWCRON_DATA`, `DATABASE_URL`, libpq's own variables (`PGHOST`,
`PGHOSTADDR`, `PGPORT`, `PGDATABASE`, `PGSERVICE`), and the server of `rowcron up` when it runs in
its usual directory. `rowcron up` itself looks at `--database-url` and `ROWCRON_DATABASE_URL` only:
it does not install into a database that was named for something else.

**Environment.** Every option is also a variable. Those that one sets for a whole process have the
short name that the help shows (`ROWCRON_QUEUE` of a worker); the others carry their command:
`ROWCRON_JOB_ADD_QUEUE`, `ROWCRON_HISTORY_LIMIT`.

**Output.** Tables are cut to the terminal; into a pipe or a file nothing is cut and nothing is
coloured. `--json` prints one object, or an array with one object a line, with the names of the
view's columns, instants in UTC and intervals as PostgreSQL writes them. Control characters in
names, commands and errors are shown as `\\x1b`, never sent to the terminal. `NO_COLOR` turns
colours off.

**Exit status.** 0: done. 1: an error, told on stderr as `Error:`, `Detail:` and `Hint:`; `check`: a
schedule is bad. 2: the command was not understood.

**Completion**, of job names too: `eval "$(_ROWCRON_COMPLETE=bash_source rowcron)"` in `~/.bashrc`,
`zsh_source` in `~/.zshrc`, `_ROWCRON_COMPLETE=fish_source rowcron | source` for fish.
"""


def pages() -> Iterator[str]:
    """The help of each command, in the order of the help page."""
    root = click.Context(cli, info_name="rowcron", terminal_width=92, max_content_width=92)
    yield page(root)
    for name in cli.list_commands(root):
        command = cli.get_command(root, name)
        assert command is not None
        context = click.Context(command, root, info_name=name)
        yield page(context)
        if isinstance(command, click.Group):
            for sub in command.list_commands(context):
                found = command.get_command(context, sub)
                assert found is not None
                yield page(click.Context(found, context, info_name=sub))


def page(context: click.Context) -> str:
    """One command."""
    context.help_option_names = ["-h", "--help"]
    return f"## {context.command_path}\n\n```\n{context.get_help().strip()}\n```\n"


def reference() -> str:
    """The whole page."""
    return "\n".join([INTRODUCTION, *pages()])


if __name__ == "__main__":
    print(reference(), end="")
