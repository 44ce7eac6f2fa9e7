"""HTML from templates. Everything that comes from the database is escaped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from math import ceil
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from rowcron.web.actor import Record
from rowcron.web.draw import ROW, TOP, WIDTH, Heat, View

STATIC = Path(__file__).parent / "static"
NOW_SECTIONS = ("status", "running", "waiting", "next", "lately")
TIMELINE_SECTIONS = ("range", "none", "names", "ticks", "plot", "line", "load")
JOB_SECTIONS = (
    "over", "name", "lead", "head", "live", "past", "ahead", "why", "runs", "def", "changes",
)  # fmt: skip
RUN_SECTIONS = ("sum", "actions", "facts", "attempts")


@cache
def version_of(name: str) -> str:
    """Return a short hash of a static file, so that it may be cached for ever."""
    return hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:10]


def instant(value: Any, style: str = "short") -> Markup:
    """Return an instant as UTC, which the script tells in the reader's zone."""
    if value is None:
        return Markup('<span class="none">–</span>')
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return Markup("{}").format(value)
    value = value.astimezone(UTC)
    text = f"{value:%d %b %H:%M:%S}" if style != "long" else f"{value:%a %d %b %Y %H:%M:%S}"
    return Markup('<time datetime="{}" data-style="{}">{} UTC</time>').format(
        value.isoformat(), style, text
    )


def seconds(value: float | None) -> str:
    """Return a length of time for people."""
    if value is None:
        return "–"
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def capped(count: int) -> str:
    """Return a count for people; beyond a thousand it was not counted on."""
    return "1,000+" if count > 1000 else str(count)


def quantile(values: Sequence[float], share: float) -> float | None:
    """Return the least value that so large a share does not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(ceil(share * len(ordered)) - 1, 0)] if ordered else None


def plain_json(value: Any) -> str:
    """Return a value as JSON for people to read; the template escapes it."""
    return json.dumps(value, ensure_ascii=False)


@cache
def environment() -> Environment:
    """Return the templates. A name that is missing is a defect, not a blank."""
    env = Environment(
        loader=PackageLoader("rowcron.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters |= {
        "instant": instant,
        "seconds": seconds,
        "capped": capped,
        "plain_json": plain_json,
    }
    env.globals |= {"version_of": version_of}
    return env


def page(name: str, **values: Any) -> str:
    """Return a whole page."""
    return environment().get_template(f"{name}.html").render(**values)


def _sections(template: str, names: Sequence[str], values: Record) -> dict[str, str]:
    module = environment().get_template(template).make_module(values)
    return {name: str(getattr(module, f"show_{name}")()).strip() for name in names}


def now_sections(data: Record) -> dict[str, str]:
    """Return the sections of the page Now."""
    held = data["held"] if isinstance(data["held"], dict) else None
    lately = data["lately"]
    values = data | {
        "held": held,
        "failed": lately["failed"][:10],
        "missed": lately["missed"][:5],
        "lately": lately["ended"],
        "proof": "",
    }
    return _sections("_now.html", NOW_SECTIONS, values)


def job_sections(data: Record, proof: str = "") -> dict[str, str]:
    """Return the sections of the page of a job."""
    entries = data["entries"]
    lengths = [
        e["seconds"] for e in entries if e["outcome"] == "succeeded" and e["seconds"] is not None
    ]
    ended = [e for e in entries if e["run_id"] is not None]
    longest = max([e["seconds"] or 0 for e in entries], default=0) or 1.0
    bars = [
        e | {"x": i * 10, "height": round(4 + 36 * ((e["seconds"] or 0) / longest) ** 0.5, 1)}
        for i, e in enumerate(reversed(entries))
    ]
    values = data | {
        "bars": bars,
        "median": data["state"] and data["state"]["median_seconds"],
        "p95": quantile(lengths, 0.95),
        "spark": _spark([e["seconds"] for e in reversed(ended) if e["seconds"] is not None]),
        "good": sum(e["outcome"] == "succeeded" for e in ended),
        "ended": len(ended),
        "proof": proof,
    }
    return _sections("_job.html", JOB_SECTIONS, values)


def run_sections(data: Record, proof: str = "") -> dict[str, str]:
    """Return the sections of the page of a run."""
    return _sections("_run.html", RUN_SECTIONS, data | {"proof": proof})


def timeline_sections(
    view: View, window: Any, now: float, jobs: Sequence[Record], heat: Heat
) -> dict[str, str]:
    """Return the sections of the page Timeline but the rows of the jobs."""
    closer = {"7d": "48h", "48h": "6h", "24h": "6h", "6h": "1h"}.get(view.span)
    link = {"search": window.search, "load": window.load, "skip": window.skip}
    kept = urlencode({name: value for name, value in link.items() if value})
    values = {
        "view": view, "jobs": jobs, "now": view.x(now), "heat": heat, "zone": window.zone,
        "search": window.search, "skip": window.skip,
        "height": TOP + len(jobs) * ROW + 1, "row": ROW, "top": TOP, "width": WIDTH,
        "begin": datetime.fromtimestamp(view.begin, UTC),
        "until": datetime.fromtimestamp(view.until, UTC),
        "ticks": [
            (x, text, closer and f"/timeline?span={closer}&at={at}" + (f"&{kept}" if kept else ""))
            for x, text, at in view.ticks()
        ],
    }  # fmt: skip
    return _sections("_timeline.html", TIMELINE_SECTIONS, values)


def _spark(values: Sequence[float], width: int = 240, height: int = 32) -> str:
    """Return the points of a line of durations; empty when there are fewer than two."""
    if len(values) < 2:
        return ""
    top, step = max(values) or 1.0, width / (len(values) - 1)
    return " ".join(
        f"{i * step:.1f},{height - 2 - (height - 4) * value / top:.1f}"
        for i, value in enumerate(values)
    )
