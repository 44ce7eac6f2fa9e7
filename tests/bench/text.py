"""Figures and names as a reader wants them."""

from __future__ import annotations

NAMES = {"oban": "oban-py"}  # Oban itself is another system, in Elixir
APART = "†"  # beside rowcron's figure, but not taken in one run with it


def shown(tool: str) -> str:
    """A tool by the name that its makers give it."""
    return NAMES.get(tool, tool)


def figure(value: float) -> str:
    """With as many digits as mean something."""
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
