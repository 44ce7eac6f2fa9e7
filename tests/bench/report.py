"""The page and the plots, from the figures."""

from __future__ import annotations

from typing import Any

from bench import plot
from bench.bars import bars
from bench.results import Results
from bench.text import APART, figure, shown

SHOWN_ELSEWHERE = {
    "value", "rounds", "low", "high", "load average", "jobs", "seconds", "took s",
}  # fmt: skip
SAYS = {True: "met", False: "**not met**", None: "not measured"}
REPEAT = """
## How to repeat

`make bench` measures everything that is missing in `results.json`, for about 35 minutes, and can be
interrupted. `make bench ARGS='wakeup --only rowcron,graphile'` takes one measure anew and leaves
the other figures; `ARGS='all --anew'` begins from nothing, `ARGS=report` writes this page again.
`make bench-short` takes three minutes and writes into `build/bench`. The peers are installed from
PyPI and npm into environments of their own. The server is started for the benchmark, with durable
commits, and writes over old WAL files, as one does that has been up for a while (to make them
takes every tool a tenth or more of its rate). Each sample has a database of its own there, but
pg_cron knows one alone. Each peer's effects are checked: as many handler calls, and as many jobs
recorded, as there were enqueued. For the wake-up rowcron and Graphile Worker are asked in SQL by
one and the same client, the others by their own.
"""


def ratio(ours: float, theirs: float, lower_is_better: bool) -> str:
    """How many times better rowcron is."""
    if ours <= 0 or theirs <= 0:
        return ""
    times = theirs / ours if lower_is_better else ours / theirs
    return f"{times:.2f}×"


def head(results: Results) -> list[str]:
    """What was compared on what, and how each was set."""
    about = results.data["about"]
    lines = [
        "# Measured", "",
        "Written by `make bench`; the figures of every round stand in"
        f" [{results.path.name}]({results.path.name}).", "",
        f"{about.get('date')}: {about.get('processor')}, {about.get('cores')} cores,"
        f" {about.get('memory')}, Linux {about.get('kernel')}, Python {about.get('python')}."
        " Medians of interleaved rounds, in each run all tools on one server (pg_cron on another,"
        " where that does not have it). A ratio says how many times better rowcron is;"
        f" {APART}: its two figures were not taken in one run.",
    ]  # fmt: skip
    samples = [s for s in results.data["samples"] if s.get("value") is not None]
    loads = [s["load average"] for s in samples]
    if loads:
        lines[-1] += f" Load average meanwhile: {min(loads)} to {max(loads)}."
    older = sum(s.get("of") != results.of for s in samples)
    if older:
        lines += ["", f"**{older} of {len(samples)} samples are of other versions than these.**"]
    return lines


def set_up(results: Results) -> list[str]:
    """Versions and settings."""
    about = results.data["about"]
    lines = ["", "## Versions and settings", "", "| tool | version | settings |", "|---|---|---|"]
    for tool, version in about.get("versions", {}).items():
        settings = about.get("settings", {}).get(tool, {})
        text = ", ".join(f"{name} {value}" for name, value in settings.items())
        lines.append(f"| {shown(tool)} | {version} | {text} |")
    server = ", ".join(f"{name} {value}" for name, value in about.get("postgresql", {}).items())
    return [*lines, "", f"PostgreSQL: {server}."]


def against_bars(results: Results) -> list[str]:
    """Each bar with its figures."""
    lines = []
    for server, found in bars(results).items():
        met = sum(bar.met is True for bar in found)
        lines += ["", f"## Bars, PostgreSQL {server}", "", f"{met} of {len(found)} met.", ""]
        lines += ["| bar | | figures |", "|---|---|---|"]
        lines += [f"| {bar.claim} | {SAYS[bar.met]} | {bar.figures} |" for bar in found]
    return lines


def table(results: Results) -> str:
    """Markdown: the bars, then a section a measurement, a row a case and tool."""
    lines = head(results) + against_bars(results)
    section = ""
    order = {name: n for n, name in enumerate(results.data["cases"])}
    for (server, name), tools in sorted(
        results.medians().items(), key=lambda item: (item[0][0], order[item[0][1]])
    ):
        case = results.data["cases"][name]
        measure = name.split("/")[0]
        heading = f"{measure.capitalize()}, PostgreSQL {server}"
        if heading != section:
            section = heading
            lines += ["", f"## {heading}", ""]
            if measure in plot.GROUPS:
                lines += [f"![bars of {measure}]({plot.path(results, measure).name})", ""]
            lines += ["| | tool | median | unit | lowest to highest | rowcron is | also |"]
            lines += ["|---|---|--:|---|---|--:|---|"]
        lines += _rows(case, tools)
    return "\n".join(lines + set_up(results)) + "\n" + REPEAT


def _rows(case: dict[str, Any], tools: dict[str, dict[str, Any]]) -> list[str]:
    rowcron = tools.get("rowcron", {})
    ours = rowcron.get("value", 0.0)
    rows, title = [], case["title"]
    silent: dict[str, list[str]] = {}
    for tool, found in tools.items():
        if "value" not in found:
            why = found["cannot"].strip().splitlines()[0].replace("|", "/")
            silent.setdefault(why, []).append(shown(tool))
        else:
            spread = f"{figure(found['low'])} to {figure(found['high'])}"
            times = ""
            if tool != "rowcron":
                times = ratio(ours, found["value"], case["lower_is_better"])
                times += APART if times and found["taken"] != rowcron["taken"] else ""
            also = ", ".join(
                f"{name} {figure(value)}"
                for name, value in found.items()
                if name not in SHOWN_ELSEWHERE and isinstance(value, int | float)
            )
            also += f"; {found['note']}" if "note" in found else ""
            rows.append(
                f"| {title} | {shown(tool)} | {figure(found['value'])} | {case['unit']} |"
                f" {spread} | {times} | {also} |"
            )
            title = ""
    for why, names in silent.items():
        rows.append(f"| {title} | {', '.join(names)} | – | | | | {why} |")
        title = ""
    return rows


def write(results: Results) -> None:
    """Write page and plots beside the figures."""
    results.save()
    page = "README" if results.path.stem == "results" else results.path.stem
    results.path.with_name(f"{page}.md").write_text(table(results), "utf-8")
    for group in plot.GROUPS:
        if drawn := plot.svg(results, group):
            plot.path(results, group).write_text(drawn, "utf-8")
    print("\n".join(against_bars(results)))
    print(f"\n{results.path.with_name(page)}.md", flush=True)
