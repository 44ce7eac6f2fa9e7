"""Errors as sentences on stderr, without a traceback."""

from __future__ import annotations

import os
from typing import IO, Any

import click

from rowcron.text import safe


class Failure(click.ClickException):
    """An error as people see it: what happened, the fact behind it, the next action."""

    def __init__(self, message: str, detail: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.detail = detail
        self.hint = hint

    def show(self, file: IO[Any] | None = None) -> None:
        """Print it to stderr, continuation lines indented."""
        parts = (("Error", self.message), ("Detail", self.detail), ("Hint", self.hint))
        for title, text in parts:
            if text:
                lines = safe(text.strip(), keep="\n").replace("\n", "\n  ")
                head = click.style(f"{title}:", bold=True, fg="red" if title == "Error" else None)
                # click asks the command's context about colours, which is gone by now
                color = False if os.environ.get("NO_COLOR") else None
                click.echo(f"{head} {lines}", file=file, err=True, color=color)


def failure(error: BaseException) -> Failure | None:
    """Return `error` as a `Failure`, or None when it is a defect that needs its traceback."""
    if isinstance(error, UnicodeError):
        return Failure(
            f"this is no text in UTF-8: {error.reason}"
            if isinstance(error, UnicodeEncodeError | UnicodeDecodeError)
            else str(error)
        )
    if isinstance(error, OSError):
        return Failure(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    if type(error).__module__.partition(".")[0] == "psycopg":
        from rowcron.errors import translate

        error = translate(error)
    message, hint = getattr(error, "message", None), getattr(error, "hint", None)
    if isinstance(message, str) and type(error).__module__.startswith("rowcron"):
        return Failure(message, getattr(error, "detail", None), hint)
    return None
