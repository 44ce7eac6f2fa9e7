"""Figures: kept in a JSON file as they come, so that a benchmark can go on where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any


class Results:
    """A file of samples: measure, case, tool, round, server; and what it was measured on."""

    def __init__(self, path: Path, *, anew: bool = False) -> None:
        self.path = path
        self.run = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())  # began
        self.data: dict[str, Any] = {"about": {}, "cases": {}, "samples": []}
        if path.exists() and not anew:
            self.data = json.loads(path.read_text("utf-8"))

    def about(self, **facts: Any) -> None:
        """Note what everything was measured on."""
        self.data["about"] |= {
            "processor": _first("/proc/cpuinfo", "model name"),
            "cores": os.cpu_count(),
            "memory": _first("/proc/meminfo", "MemTotal"),
            "machine": platform.machine(),
            "kernel": platform.release(),
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            **facts,
        }

    @property
    def of(self) -> str:
        """What is measured now, versions of all: figures of different ones are told apart."""
        text = json.dumps(self.data["about"].get("versions", {}), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def has(self, **key: Any) -> bool:
        """Whether this sample was taken already, and gave an answer."""
        return any(
            key.items() <= sample.items() and "failed" not in sample
            for sample in self.data["samples"]
        )

    def forget(self, **key: Any) -> None:
        """Remove samples, because they are taken anew."""
        kept = [sample for sample in self.data["samples"] if not key.items() <= sample.items()]
        self.data["samples"] = kept

    def add(self, case: Any, measure: str, figures: dict[str, Any], **key: Any) -> None:
        """Keep a sample, and write all."""
        self.data["cases"][f"{measure}/{case.name}"] = {
            "title": case.title, "unit": case.unit, "lower_is_better": case.lower_is_better,
        }  # fmt: skip
        load = round(os.getloadavg()[0], 2)
        names = {"measure": measure, "case": case.name, **key}
        self.forget(**names)
        self.data["samples"].append({**names, **figures, "load average": load, "run": self.run})
        self.save()

    def save(self) -> None:
        """Write the file, whole or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_suffix(".draft")
        draft.write_text(json.dumps(self.data, indent=1) + "\n", "utf-8")
        draft.replace(self.path)

    def medians(self) -> dict[tuple[str, str], dict[str, dict[str, Any]]]:
        """For (server, measure/case) and tool: median, spread, or why there is none."""
        grouped: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = {}
        for sample in self.data["samples"]:
            key = (sample["server"], f"{sample['measure']}/{sample['case']}")
            grouped.setdefault(key, {}).setdefault(sample["tool"], []).append(sample)
        return {key: {t: _median(s) for t, s in tools.items()} for key, tools in grouped.items()}


def _first(path: str, name: str) -> str:
    """What a file of Linux says about that name."""
    for line in Path(path).read_text("utf-8").splitlines():
        if line.startswith(name):
            return " ".join(line.partition(":")[2].split())
    return "unknown"


def _median(samples: list[dict[str, Any]]) -> dict[str, Any]:
    values = [s["value"] for s in samples if "value" in s]
    if not values:
        failed = f"failed: {samples[-1].get('failed', 'no figure').strip()}"
        return {"cannot": samples[-1].get("cannot") or failed}
    middle: dict[str, Any] = {
        "value": statistics.median(values), "rounds": len(values),
        "low": min(values), "high": max(values),
        # older samples tell no run; those of one run are at least of the same versions
        "taken": sorted({f"{s.get('of')} {s.get('run')}" for s in samples}),
    }  # fmt: skip
    for name in samples[0]:
        found = [s[name] for s in samples if isinstance(s.get(name), int | float)]
        if name not in middle and len(found) == len(samples) and name != "round":
            middle[name] = statistics.median(found)
    if "note" in samples[-1]:
        middle["note"] = samples[-1]["note"]
    return middle
