"""Secrets: `${secret:NAME}` in http and shell jobs, filled in from the worker's own configuration.

A value is in the environment, `ROWCRON_SECRET_<NAME>`, or in a file of that name in
`--secrets-dir`, read at each run, so that it may be rotated. The database says which names a run
may have; no other is looked up.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rowcron.blank import LONGEST, SHORTEST, Blanker
from rowcron.models import Run

if TYPE_CHECKING:
    from rowcron.settings import WorkerSettings

PREFIX = "ROWCRON_SECRET_"
PLACE = re.compile(r"\$\{secret:([A-Za-z_][A-Za-z0-9_]{0,62})\}")
Quote = Callable[[str], str]


class NoSecret(Exception):
    """A secret that cannot be filled in; the text says why, and never the value."""


class Secrets:
    """Where this worker has its secrets."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.values = settings.secrets
        self.directory = settings.secrets_dir

    def of(self, run: Run) -> dict[str, str]:
        """Return the values that a run may have, and from now on hide them. Raises `NoSecret`."""
        if run.secrets is None and run.args_secrets is None:
            return {}
        granted = {*(run.secrets or ()), *(run.args_secrets or ())}
        named = set(PLACE.findall(run.command)) if run.secrets is not None else set()
        if run.args_secrets is not None:
            named |= set(PLACE.findall(run.args_json.decode()))
        for name in sorted(named - granted):
            raise NoSecret(
                f"secret {name} is not granted to {run.owner}; as an administrator:"
                f" select rowcron.grant_secret('{name}', '{run.owner}');"
            )
        values = {name: self.value(name) for name in sorted(named)}
        if values:
            run.hidden = Blanker(values.values())
        return values

    def value(self, name: str) -> str:
        """Return a secret's value. Raises `NoSecret`."""
        value = self.values.get(name)
        if value is None and self.directory is not None:
            value = read(self.directory / name, name)
        if value is None:
            where = f"{PREFIX}{name}"
            where += f" or the file {self.directory / name}" if self.directory else ""
            raise NoSecret(f"this worker has no secret {name}; set {where} where it is started")
        try:
            size = len(value.encode())
        except UnicodeEncodeError:  # os.environ holds other bytes as surrogates
            raise NoSecret(f"secret {name} is not UTF-8") from None
        if not SHORTEST <= size <= LONGEST:
            raise NoSecret(
                f"secret {name} has {size} bytes; {SHORTEST} to {LONGEST} can be blanked in outputs"
            )
        if "\0" in value:
            raise NoSecret(f"secret {name} holds a NUL")
        return value


def read(path: Path, name: str) -> str | None:
    """Return a file's text without its last line end, None when there is no such file."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            data = file.read(LONGEST + 3)
        return data.decode().removesuffix("\n").removesuffix("\r")
    except (OSError, UnicodeDecodeError) as error:
        raise NoSecret(f"secret {name} cannot be read: {type(error).__name__}") from None


def json_text(value: str) -> str:
    """Return a text as it stands within JSON's quotes."""
    return json.dumps(value)[1:-1]


def fill(text: str, values: dict[str, str], quote: Quote = str) -> str:
    """Return `text` with the secrets that `values` has, each passed through `quote`."""
    return PLACE.sub(lambda m: quote(values[m[1]]) if m[1] in values else m[0], text)
