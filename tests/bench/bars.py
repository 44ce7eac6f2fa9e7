"""The bars: what rowcron has to reach, computed from the figures of one file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from bench.results import Results
from bench.text import APART, figure, shown

Cells = dict[str, dict[str, dict[str, Any]]]
PEERS = ("pgqueuer", "procrastinate", "oban", "graphile", "pgboss")


@dataclass
class Bar:
    """One claim; `met` is None when a figure that it needs is missing."""

    claim: str
    met: bool | None
    figures: str


class Figure(float):
    """A figure, and in which runs it was taken."""

    taken: list[str]


class Reading:
    """Figures of one server: median, or what stands beside it."""

    def __init__(self, cells: Cells) -> None:
        self.cells = cells

    def get(self, name: str, tool: str = "rowcron", part: str = "value") -> Figure | None:
        """One figure, if it was taken."""
        cell = self.cells.get(name, {}).get(tool, {})
        found = cell.get(part)
        if not isinstance(found, int | float):
            return None
        figure = Figure(found)
        figure.taken = cell["taken"]
        return figure

    def against(self, claim: str, name: str, tool: str, times: float) -> Bar:
        """At least that many times another tool's rate."""
        return self.ratio(claim, self.get(name), self.get(name, tool), times)

    def ratio(self, claim: str, ours: Figure | None, theirs: Figure | None, least: float) -> Bar:
        """One rate divided by another is at least that."""
        if ours is None or not theirs:
            return Bar(claim, None, "")
        said = f"{figure(ours)} : {figure(theirs)} = {ours / theirs:.2f}{_apart(ours, theirs)}"
        return Bar(claim, ours / theirs >= least, said)

    def most(self, claim: str, value: float | None, limit: float, unit: str = "ms") -> Bar:
        """At most that."""
        return Bar(claim, None if value is None else value <= limit, _said(value, unit))

    def least(self, claim: str, value: float | None, limit: float, unit: str = "jobs/s") -> Bar:
        """At least that."""
        return Bar(claim, None if value is None else value >= limit, _said(value, unit))

    def no_peer_better(self, claim: str, names: list[str], *, lower: bool) -> Bar:
        """In each case that was measured, no peer has a better figure."""
        better, seen, apart = [], 0, ""
        for name in names:
            ours = self.get(name)
            for peer in PEERS:
                theirs = self.get(name, peer)
                if ours is not None and theirs is not None:
                    seen += 1
                    apart = apart or _apart(ours, theirs)
                    if theirs < ours if lower else theirs > ours:
                        better.append(f"{name.partition('/')[2]}: {shown(peer)}"
                                      f" {figure(theirs)} beside {figure(ours)}"
                                      f"{_apart(ours, theirs)}")  # fmt: skip
        said = "; ".join(better) or f"{seen} compared{apart}"
        return Bar(claim, not better if seen else None, said)


def _apart(ours: Figure, theirs: Figure) -> str:
    return "" if ours.taken == theirs.taken else APART


def _said(value: float | None, unit: str) -> str:
    return "" if value is None else f"{figure(value)} {unit}".strip()


def bars(results: Results) -> dict[str, list[Bar]]:
    """The bars of each server that has figures."""
    servers: dict[str, Cells] = {}
    for (server, name), tools in results.medians().items():
        servers.setdefault(server, {})[name] = tools
    return {server: list(_all(Reading(cells))) for server, cells in servers.items()}


def _all(r: Reading) -> Iterator[Bar]:
    parts: tuple[Callable[[Reading], Iterator[Bar]], ...] = (
        _throughput, _sql, _recurring, _wakeup, _enqueue, _flat, _snapshot, _idle, _memory,
    )  # fmt: skip
    for part in parts:
        yield from part(r)


def _throughput(r: Reading) -> Iterator[Bar]:
    for peer, times in (("graphile", 1), ("pgqueuer", 3), ("procrastinate", 50)):
        claim = f"1 throughput: at least {times} × {peer}'s"
        yield r.against(claim, "throughput/async", peer, times)
    raw = r.get("raw/batch-1", "pgbench")
    yield r.ratio("1 at least half of the raw limit", r.get("throughput/async"), raw, 0.5)
    two, one = r.get("throughput/two"), r.get("throughput/async")
    yield r.ratio("1 two processes: at least 1.4 times one", two, one, 1.4)
    names = [n for n in r.cells if n.startswith("throughput/") and n != "throughput/async"]
    yield r.no_peer_better("1 plain, async, 1 ms, 20 ms: no peer faster", names, lower=False)


def _sql(r: Reading) -> Iterator[Bar]:
    found = [r.get(f"sqljobs/connections-{n}") for n in (4, 8)]
    ours = max((value for value in found if value is not None), default=None)
    yield r.least("2 SQL jobs: at least 4,000 a second", ours, 4000)
    limit = r.get("sqljobs/connections-8", "pgbench")
    yield r.ratio("2 at least half of pgbench with one transaction a job", ours, limit, 0.5)
    yield r.against("2 ten times pg_cron's rate, same server", "sqljobs/cron", "pg_cron", 10)


def _recurring(r: Reading) -> Iterator[Bar]:
    name = "recurring/burst"
    yield r.most("3 10,000 due in one second: all started within 1 s", r.get(name), 1000)
    yield r.most("3 the first of them within 20 ms", r.get(name, part="first start"), 20)
    late = r.get(name, part="late in the seconds after, max")
    yield r.most("3 nothing late in the seconds after (50 ms)", late, 50)
    name = "recurring/flow"
    yield r.most("3 1,000 jobs each second: p50 at most 5 ms", r.get(name), 5)
    yield r.most("3 p99 at most 50 ms", r.get(name, part="p99"), 50)
    missing = r.get(name, part="not in the ledger")
    yield r.most("3 every occurrence in the ledger", missing, 0, "missing")


def _wakeup(r: Reading) -> Iterator[Bar]:
    yield r.most("4 wake-up: p50 at most 1 ms", r.get("wakeup/idle"), 1)
    yield r.most("4 p99 at most 5 ms", r.get("wakeup/idle", part="p99"), 5)
    yield r.no_peer_better("4 no peer better, p50", ["wakeup/idle"], lower=True)
    yield r.most("4 one job each second: p99 at most 5 ms", r.get("wakeup/second", part="p99"), 5)


def _enqueue(r: Reading) -> Iterator[Bar]:
    yield r.least("5 bulk: at least 60,000 a second", r.get("enqueue/bulk"), 60_000)
    yield r.against("5 bulk: at least pgqueuer's", "enqueue/bulk", "pgqueuer", 1)
    on, off = r.get("enqueue/busy"), r.get("enqueue/busy", part="trigger disabled")
    yield r.ratio("5 busy workers: 95% of the rate without the wake trigger", on, off, 0.95)


def _flat(r: Reading) -> Iterator[Bar]:
    rate = [r.get(f"flat/throughput-{state}") for state in ("loaded", "empty")]
    yield r.ratio("6 loaded: throughput within 10% of empty", *rate, 0.9)
    wake = [r.get(f"flat/wakeup-{state}") for state in ("empty", "loaded")]
    yield r.ratio("6 loaded: wake-up within 10% of empty (empty : loaded)", *wake, 1 / 1.1)
    yield r.most("6 a page of upcoming within 10 ms", r.get("flat/upcoming_page-loaded"), 10)
    yield r.most("6 a page of history within 10 ms", r.get("flat/history-loaded"), 10)


def _snapshot(r: Reading) -> Iterator[Bar]:
    held, fresh = r.get("snapshot/held"), r.get("snapshot/fresh")
    yield r.ratio("7 held snapshot: at least 70% of fresh", held, fresh, 0.7)
    name = "buffers of a claim of 500"
    held, fresh = r.get("snapshot/held", part=name), r.get("snapshot/fresh", part=name)
    claim = "7 afterwards a claim touches no more buffers (fresh : held, within 2%)"
    yield r.ratio(claim, fresh, held, 0.98)


def _idle(r: Reading) -> Iterator[Bar]:
    claim = "8 idle: at most one statement in 5 s"
    yield r.most(claim, r.get("idle/statements"), 0.2, "a second")
    cpu = r.get("idle/statements", part="CPU %")
    yield r.most("8 idle: CPU under 0.1%", cpu, 0.1, "%")
    herd = r.get("idle/herd", part="statements a worker")
    yield r.most("8 200 idle workers, one run: at most 2 statements each", herd, 2, "each")


def _memory(r: Reading) -> Iterator[Bar]:
    rest = r.get("idle/statements", part="MB")
    yield r.most("9 memory at rest under 60 MB", rest, 60, "MB")
    name = "memory/speed"
    half, end = r.get(name, part="half way"), r.get(name, part="at the end")
    yield r.ratio("9 flat at full speed (half way : end, within 5%)", half, end, 0.95)
    yield r.most("9 start: first run within 400 ms of exec", r.get("memory/start"), 400)
    yield r.most("9 rowcron --help within 150 ms", r.get("memory/help"), 150)
