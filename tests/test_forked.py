"""Children that handlers fork end with their handler: none becomes a second worker."""

from __future__ import annotations

from pathlib import Path

import pytest

from workers import Jobs, Start, jobs, start

__all__ = ["jobs", "start"]

pytestmark = pytest.mark.executed

APP = ("--app", "fork_app", "--kind", "python")
ENDS = {"exit": 3, "words": 1, "raise": 1, "return": 0}
OTHERS = 15


CASES = [
    *(("detach", "count", how, "uvloop") for how in ENDS),
    *(
        (name, "count_async", how, loop)
        for name in ("detach_async", "detach_task", "detach_waiting")
        for how in ("exit", "return")
        for loop in ("uvloop", "asyncio")
    ),
    ("detach_async", "count_async", "raise", "uvloop"),
    ("detach_task", "count_async", "raise", "uvloop"),
    *(("detach_thread", "count_thread", how, "uvloop") for how in ENDS),
]


@pytest.mark.once  # each with its event loop
@pytest.mark.parametrize(("name", "other", "how", "loop"), CASES)
def test_a_forked_child_executes_no_runs(
    jobs: Jobs, start: Start, tmp_path: Path, name: str, other: str, how: str, loop: str
) -> None:
    marks = tmp_path / "marks"
    fork = jobs.run("python", name, {"how": how}, priority=10)
    counting = jobs.add("python", other, args={"file": str(marks)}, on_lost="fail")
    runs = [jobs.start(counting) for _ in range(OTHERS)]
    worker = start(*APP, "--event-loop", loop)
    entry = jobs.end(fork)
    assert (entry["result"], entry["error"]) == (f"ended with {ENDS[how]}", None)
    assert {jobs.end(run)["outcome"] for run in runs} == {"succeeded"}
    assert worker.stop() == 0
    assert marks.read_text("utf-8") == "." * OTHERS
    console = worker.console.read_text("utf-8")
    assert console.count("worker stopped") == 1
    assert ("these are its last words" in console) == (how == "words")
    assert ("ValueError: the child's own" in console) == (how == "raise")


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("name", ["detach_between", "detach_between_async"])
def test_a_forked_child_leaves_its_parents_transaction_alone(
    jobs: Jobs, start: Start, name: str, how: str
) -> None:
    start(*APP)
    entry = jobs.end(jobs.run("python", name, {"how": how}))
    assert (entry["result"], entry["error"]) == (f"ended with {ENDS[how]}", None)
    effects = jobs.db.execute(
        "select e.n, e.xmin = l.xmin from public.effect as e join rowcron.ledger as l using"
        " (run_id) order by e.n"
    )
    assert effects.fetchall() == [(1, True), (2, True)]
