"""Everything that a worker can be told, checked before it touches the database.

Each option is an argument of `rowcron worker`, an environment variable `ROWCRON_<NAME>` and a field
here. Lengths of time are seconds, or text with a unit: `500 ms`, `10s`, `5 min`, `1 h`, `1 d`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from rowcron.addresses import read_allowed
from rowcron.errors import BadSettings
from rowcron.limits import read_limits

KINDS = ("sql", "http", "python")
_UNITS = {
    "": 1.0, "ms": 0.001, "s": 1.0, "sec": 1.0, "second": 1.0, "m": 60.0, "min": 60.0,
    "minute": 60.0, "h": 3600.0, "hour": 3600.0, "d": 86400.0, "day": 86400.0,
}  # fmt: skip
_LENGTH = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([a-z]*)\s*", re.IGNORECASE)
_CONNECTION = "ROWCRON_CONNECTION_"
_SECRET = "ROWCRON_SECRET_"


def small(name: str) -> str:
    """Return a connection's name in small letters, as the database has it: of A to Z alone."""
    return name.encode("utf-8", "surrogateescape").lower().decode("utf-8", "surrogateescape")


def seconds(value: Any) -> Any:
    """Return a length of time such as `10 s` in seconds. Raises ValueError."""
    if not isinstance(value, str):
        return value
    match = _LENGTH.fullmatch(value)
    unit = match[2].lower() if match else None
    if (
        match is None
        or (scale := _UNITS.get(unit or "", _UNITS.get((unit or "").rstrip("s")))) is None
    ):
        raise ValueError(f"{value!r} is not a length of time such as '500 ms', '10 s' or '5 min'")
    return float(match[1]) * scale


def words(value: Any) -> Any:
    """Return `a,b` as a tuple; what is a sequence already stays one."""
    if isinstance(value, str):
        value = value.split(",")
    if isinstance(value, list | tuple):
        return tuple(item.strip() for item in value if item.strip())
    return value


def allowed(value: Any) -> Any:
    """Return the items of `--http-allow`, each understood. Raises ValueError."""
    items = words(value)
    for item in items if isinstance(items, tuple) else ():
        read_allowed(item)
    return items


Seconds = Annotated[float, BeforeValidator(seconds)]
Words = Annotated[tuple[str, ...], BeforeValidator(words)]


class WorkerSettings(BaseModel):
    """A worker's options. `from_environment` fills in what is not given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    database_url: str = Field("", description="libpq URL or keywords; empty: libpq's own variables")
    queues: Words | None = Field(None, min_length=1, description="queues to serve; None: all")
    kinds: Words = Field(KINDS, min_length=1, description="kinds to execute; the whole list")
    concurrency: int = Field(20, ge=1, le=100_000, description="runs at a time, each process")
    processes: int = Field(1, ge=1, le=1024, description="worker processes")
    sql_connections: int = Field(4, ge=1, le=1000, description="SQL jobs at a time, each process")
    sql_database_url: str | None = Field(
        None, description="login of the connections on which SQL jobs are executed"
    )
    app: str | None = Field(None, description="module that registers handlers, as for import")
    handler_database_url: str | None = Field(None, description="login of handlers' connections")
    handler_connections: int = Field(4, ge=1, le=1000, description="of each sort, each process")
    connections: dict[str, str] = Field(
        default_factory=dict, description="name -> URL, for SQL jobs that name a connection"
    )
    shell_env: Words = Field((), description="environment variables that shell jobs see")
    shell_user: str | None = Field(None, description="whom shell jobs run as; takes root")
    shell_limits: Annotated[dict[str, int], BeforeValidator(read_limits)] = Field(
        default_factory=dict, description="what a shell job may take, as --shell-limit"
    )
    http_allow: Annotated[tuple[str, ...], BeforeValidator(allowed)] = Field(
        (), description="addresses, ranges, hosts that http jobs reach though they are not public"
    )
    secrets: dict[str, str] = Field(
        default_factory=dict, repr=False, description="name -> value, for http and shell jobs"
    )
    secrets_dir: Path | None = Field(None, description="directory with a file a secret")
    event_loop: Literal["auto", "asyncio", "uvloop"] = Field(
        "auto", description="auto: uvloop's, unless there is none or kinds has shell"
    )
    lease: Seconds = Field(10.0, ge=1, le=86_400, description="silent for longer: claims are lost")
    poll: Seconds = Field(5.0, ge=0.01, le=3_600, description="the longest sleep")
    grace: Seconds = Field(20.0, ge=0, le=86_400, description="time to finish when asked to stop")
    until_idle: bool = Field(False, description="end once nothing is left to do now")
    kill_grace: Seconds = Field(
        5.0, ge=0, le=3_600, description="between asking a run and killing it"
    )
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_file: Path | None = Field(None, description="the same events as JSON lines, rotated")
    log_file_size: int = Field(50_000_000, ge=1_000, description="bytes; then it is rotated")
    log_file_count: int = Field(5, ge=1, le=1000, description="rotated files kept")
    log_json: bool = Field(False, description="JSON lines on the console, too")

    @classmethod
    def from_environment(
        cls, environ: Mapping[str, str] | None = None, /, **given: Any
    ) -> WorkerSettings:
        """Return the settings: `given` where it is not None, else `ROWCRON_...`, else the default.

        A further database that is given empty is none, whatever the environment says. The database
        is also named by `DATABASE_URL`. Raises `BadSettings`.
        """
        environ = os.environ if environ is None else environ
        values = {name: value for name, value in given.items() if value is not None}
        for name in cls.model_fields.keys() - values.keys():
            text = environ.get(f"ROWCRON_{_VARIABLES.get(name, name.upper())}")
            if text:
                values[name] = text
        if not values.get("database_url"):
            values["database_url"] = environ.get("DATABASE_URL", "")
        named = {
            small(name.removeprefix(_CONNECTION)): url
            for name, url in environ.items()
            if name.startswith(_CONNECTION) and url
        }
        values["connections"] = named | dict(values.get("connections") or {})
        secrets = {
            name.removeprefix(_SECRET): text
            for name, text in environ.items()
            if name.startswith(_SECRET)
        }
        values["secrets"] = secrets | dict(values.get("secrets") or {})
        for name in ("sql_database_url", "handler_database_url"):
            if values.get(name) == "":
                del values[name]
        return cls.checked(values)

    @classmethod
    def checked(cls, values: Mapping[str, Any]) -> WorkerSettings:
        """Return the settings. Raises `BadSettings`, which names the option and what is allowed."""
        try:
            return cls(**values)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"])
            untold = ("url", "connections", "secrets.")
            shown = "" if any(word in name for word in untold) else f" {first['input']!r}"
            what = f"option {name.replace('_', '-')}{shown}" if name else "these options"
            raise BadSettings(
                f"{what} cannot be",
                detail=first["msg"].removeprefix("Value error, "),
                hint="rowcron worker --help lists the options",
            ) from None


_VARIABLES = {
    "queues": "QUEUE",
    "kinds": "KIND",
    "shell_limits": "SHELL_LIMIT",
    "connections": "CONNECTIONS_ARE_NAMED_ONE_BY_ONE",
    "secrets": "SECRETS_ARE_NAMED_ONE_BY_ONE",
}
