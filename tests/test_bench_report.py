"""The page of the benchmark says what its figures are worth."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.bars import bars
from bench.plot import svg
from bench.report import table
from bench.results import Results
from harness import ROOT

pytestmark = pytest.mark.once
CASE = "throughput/async"


@pytest.fixture
def results(tmp_path: Path) -> Results:
    """Figures of rowcron and one peer of the same run, another of the run before."""
    samples = [
        {"tool": "oban", "value": 10.0, "of": "a1"},
        {"tool": "rowcron", "value": 30.0, "of": "b2"},
        {"tool": "graphile", "value": 20.0, "of": "b2"},
    ]
    shared = {"measure": "throughput", "case": "async", "server": "18", "round": 1}
    data = {
        "about": {},
        "cases": {CASE: {"title": "no-op", "unit": "jobs/s", "lower_is_better": False}},
        "samples": [{**shared, "load average": 0.1, **sample} for sample in samples],
    }
    path = tmp_path / "results.json"
    path.write_text(json.dumps(data), "utf-8")
    return Results(path)


def test_a_ratio_of_figures_of_two_runs_is_marked(results: Results) -> None:
    page = table(results)
    assert "| oban-py | 10 | jobs/s | 10 to 10 | 3.00×† |" in page
    assert "| graphile | 20 | jobs/s | 20 to 20 | 1.50× |" in page
    assert "†: its two figures were not taken in one run" in page
    drawn = svg(results, "throughput")
    assert ">oban-py†<" in drawn
    assert ">graphile<" in drawn


def test_runs_of_the_same_versions_are_told_apart(results: Results) -> None:
    for sample in results.data["samples"]:
        sample["run"] = "on Monday" if sample["tool"] == "graphile" else "on Tuesday"
    found = {bar.claim: bar.figures for bar in bars(results)["18"]}
    assert found["1 throughput: at least 1 × graphile's"] == "30 : 20 = 1.50†"
    results.data["samples"][2]["run"] = "on Tuesday"
    found = {bar.claim: bar.figures for bar in bars(results)["18"]}
    assert found["1 throughput: at least 1 × graphile's"] == "30 : 20 = 1.50"


def test_the_page_is_of_the_figures_beside_it() -> None:
    place = ROOT / "docs" / "bench"
    assert (place / "README.md").read_text("utf-8") == table(Results(place / "results.json"))
