"""Bars in an SVG, drawn with nothing but text."""

from __future__ import annotations

from fnmatch import fnmatch
from html import escape
from pathlib import Path
from typing import Any

from bench.results import Results
from bench.text import APART, figure, shown

WIDTH, LEFT, BAR, GAP, TOP = 760, 130, 18, 6, 46
GROUPS = {
    "throughput": ("throughput/*",),
    "sqljobs": ("sqljobs/*",),
    "wakeup": ("wakeup/*",),
    "recurring": ("recurring/*",),
    "enqueue": ("enqueue/*",),
    "flat": ("flat/*", "snapshot/*"),
    "idle": ("idle/statements", "memory/*"),
    "wal": ("wal/*",),
}
STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#24292f}.t{font-weight:600}.n{fill:#57606a}"
    ".o{fill:#8c959f}.r{fill:#0969da}"
    "@media (prefers-color-scheme:dark){text{fill:#e6edf3}.n{fill:#9198a1}}"
)


def path(results: Results, group: str) -> Path:
    """Where a plot is kept."""
    prefix = "" if results.path.stem == "results" else f"{results.path.stem}-"
    return results.path.with_name(f"{prefix}{group}.svg")


def svg(results: Results, group: str) -> str:
    """One group of bars a case, the best tool first; rowcron in blue. Empty if there is nothing."""
    parts: list[str] = []
    y = 16
    order = {name: n for n, name in enumerate(results.data["cases"])}
    for (server, name), tools in sorted(
        results.medians().items(), key=lambda item: (item[0][0], order[item[0][1]])
    ):
        if any(fnmatch(name, pattern) for pattern in GROUPS[group]):
            drawn, y = _group(server, results.data["cases"][name], tools, y)
            parts += drawn
    if not parts:
        return ""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}"'
        f' height="{y}" role="img" aria-label="{escape(group)}">'
    )
    return "\n".join([head, f"<style>{STYLE}</style>", *parts, "</svg>", ""])


def _group(
    server: str, case: dict[str, Any], tools: dict[str, dict[str, Any]], y: int
) -> tuple[list[str], int]:
    values = {tool: found["value"] for tool, found in tools.items() if "value" in found}
    if not values:
        return [], y
    lower = case["lower_is_better"]
    order = sorted(values, key=lambda tool: values[tool], reverse=not lower)
    most = max(max(values.values()), 1e-9)
    ours = tools.get("rowcron", {}).get("taken")
    apart = {tool for tool in values if ours and tools[tool]["taken"] != ours}
    title = f"{case['title']}, {case['unit']}" + (" (less is better)" if lower else "")
    title += f"; {APART} in another run" if apart else ""
    lines = [f'<text class="t" x="0" y="{y}">{escape(title)}</text>']
    lines.append(
        f'<text class="n" x="{WIDTH}" y="{y}" text-anchor="end">PG {escape(server)}</text>'
    )
    y += 10
    for tool in order:
        wide = max(values[tool], 0) / most * (WIDTH - LEFT - 80)
        kind = "r" if tool == "rowcron" else "o"
        base = y + BAR - 5
        name = shown(tool) + (APART if tool in apart else "")
        lines += [
            f'<text x="{LEFT - 8}" y="{base}" text-anchor="end">{escape(name)}</text>',
            f'<rect class="{kind}" x="{LEFT}" y="{y}" width="{max(wide, 1):.1f}" height="{BAR}"/>',
            f'<text class="n" x="{LEFT + wide + 6:.1f}" y="{base}">{figure(values[tool])}</text>',
        ]
        y += BAR + GAP
    return lines, y + TOP - 20
