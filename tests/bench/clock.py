"""Lateness: what start minus instant amounts to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bench.tools import Workers


def share(values: list[float], part: float) -> float:
    """The value below which that part of the values lies."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * part), len(ordered) - 1)]


def lateness(seconds: Iterable[float]) -> dict[str, Any]:
    """p50 as the figure, the rest beside it; milliseconds."""
    values = [value * 1000 for value in seconds]
    return {
        "value": share(values, 0.5),
        "p99": share(values, 0.99),
        "max": max(values),
        "min": min(values),
        "n": len(values),
    }


def starts(workers: Workers) -> list[tuple[Any, float]]:
    """What the handlers have written down, of all processes."""
    return [(n, at) for report in workers.reports() for n, at in report["starts"] or ()]
