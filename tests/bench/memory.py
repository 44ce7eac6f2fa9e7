"""Memory of a worker at full speed; from exec to the first start; `rowcron --help`."""

from __future__ import annotations

import resource
import statistics
import subprocess
import time
from collections.abc import Iterator
from typing import Any

from bench import proc
from bench.plan import Case, Context
from bench.tools import ROWCRON, Failure, Load, Tool

NAME = "memory"


def cases(context: Context) -> Iterator[Case]:
    """Full speed, start, help. Memory at rest is measured with what idles."""
    count = context.jobs or (20_000 if context.short else 150_000)
    title = f"resident memory, most during {count:,} runs"
    yield Case("speed", "MB", title, {"count": count}, lower_is_better=True, takes=25)
    title = "from exec to the first run's start"
    yield Case("start", "ms", title, {}, lower_is_better=True, rounds=2, takes=6)
    yield Case("help", "ms", "the command's --help", {}, lower_is_better=True, takes=5)


def sample(context: Context, tool: Tool, case: Case) -> dict[str, Any] | str:
    """One round."""
    if case.name != "start" and tool is not ROWCRON:
        return "not asked of it"
    if case.name == "help":
        return _help()
    server = context.server
    database = tool.fresh(server)
    load = Load(case.load.get("count", 1), concurrency=tool.batch, options=context.options(tool))
    try:
        tool.fill(server, database, load)
        server.settle(database)
        begin = time.time()
        with tool.working(server, database, load) as workers:
            return _busy(context, workers, case.name, begin)
    finally:
        server.drop(database)


def _busy(context: Context, workers: Any, case: str, begin: float) -> dict[str, Any]:
    seen: list[float] = []
    deadline = time.monotonic() + context.patience
    while not (done := [r for r in workers.reports() if r["last"]]):
        workers.alive()
        if time.monotonic() > deadline:
            raise Failure(f"not done after {context.patience} s")
        if case == "speed":
            seen.append(proc.rss(workers))
        time.sleep(0.05)
    if case == "start":
        return {"value": (done[0]["first"] - begin) * 1000, "CPU ms": proc.cpu(workers) * 1000}
    half = seen[len(seen) // 2 :] or [proc.rss(workers)]
    return {"value": max(seen or half), "half way": half[0], "at the end": half[-1]}


def _help() -> dict[str, Any]:
    took = []
    command = [*ROWCRON.program(), "--help"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for _ in range(11):
        begin = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        took.append((time.perf_counter() - begin) * 1000)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"value": statistics.median(took), "min": min(took), "CPU ms": used / 11 * 1000}
