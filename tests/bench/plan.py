"""What a measurement consists of, and what it is given."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bench.server import Server
from bench.tools import Tool


@dataclass
class Case:
    """One line of the table: a figure a tool."""

    name: str
    unit: str
    title: str
    load: dict[str, Any] = field(default_factory=dict)
    lower_is_better: bool = False
    rounds: int = 1
    takes: float = 15.0  # s, about: with less time left it is not begun
    limit: float = 240.0  # s after which a sample is given up


@dataclass
class Context:
    """What every sample may use."""

    server: Server
    short: bool = False
    jobs: int | None = None
    seconds: int | None = None
    scale: float = 1.0  # of the loaded database
    patience: float = 120.0  # s of waiting in one sample
    wanted_case: str = ""
    rowcron_options: tuple[str, ...] = ()
    tools: tuple[Tool, ...] = ()  # those that are compared
    number: int = 1  # of the round
    until: float = float("inf")  # time.monotonic() at which all should be over

    def options(self, tool: Tool) -> tuple[str, ...]:
        """More for rowcron's command line."""
        return self.rowcron_options if tool.name == "rowcron" else ()
