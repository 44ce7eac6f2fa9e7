"""A group of commands such as `rowcron job`: its help lists them as declared, with an example."""

from __future__ import annotations

from typing import Any

import click


class Group(click.Group):
    """A group whose help ends in one example."""

    def __init__(self, *args: Any, example: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.example = example

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order in which they were added."""
        return list(self.commands)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the example."""
        with formatter.section("Example"):
            formatter.write("  " + self.example + "\n")
