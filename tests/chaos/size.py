"""How large a proof is: short among the other tests, long with `make chaos [SIZE=1]`."""

from __future__ import annotations

import os

SIZE = float(os.environ.get("ROWCRON_CHAOS_SIZE") or 0)
LONG = SIZE > 0


def sized(short: int, long: int) -> int:
    """`short`, or in the long form SIZE times `long`, but never less than `short`."""
    return max(short, round(long * SIZE)) if LONG else short


def table(title: str, rows: dict[str, object]) -> str:
    """What a proof prints: a title and a line a figure."""
    width = max(len(name) for name in rows)
    lines = (f"  {name:{width}}  {value}" for name, value in rows.items())
    return "\n".join(["", title, *lines])


def percentiles(values: list[float], unit: str = "s") -> str:
    """p50, p99 and the largest, of how many."""
    if not values:
        return "none"
    ordered = sorted(values)
    p50, p99 = (ordered[min(int(len(ordered) * q), len(ordered) - 1)] for q in (0.5, 0.99))
    text = f"p50 {p50:.2f} {unit}, p99 {p99:.2f} {unit}, max {ordered[-1]:.2f} {unit}"
    return f"{text} (n = {len(ordered)})"
