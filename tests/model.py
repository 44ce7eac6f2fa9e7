"""The reference model: what becomes of one job's occurrences, written from DESIGN.md.

Instants are seconds since 1970. Nothing here is taken from the SQL: no masks, no counting, no
states but "live". Occurrences are looked up in a list of everything that a schedule names.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Entry = tuple[str, bool, int | None, int | None, int, int | None]


@dataclass
class Run:
    """A live run; `name` is its occurrence, or ("n", number) on demand."""

    scheduled: int | None
    name: Any
    due: int
    born: int
    through_pause: bool = False
    in_line: bool = False
    ready: bool = False  # has been due; a clock that is put back does not take that away
    running: bool = False
    cancelled: bool = False
    attempt: int = 1
    failures: int = 0
    losses: int = 0


@dataclass
class Job:
    """One job's life. `named(schedule, anchor)` lists all that a schedule names, in order."""

    named: Callable[[str, int], list[int]]
    config: dict[str, Any]
    high: int
    fired: int = 0
    deleted: bool = False
    after: int | None = None
    live: list[Run] = field(default_factory=list)
    ledger: list[Entry] = field(default_factory=list)
    born: int = 0

    def __post_init__(self) -> None:
        self.created = self.high
        self.count_from(self.high)

    def __getattr__(self, name: str) -> Any:
        return self.config[name]

    def count_from(self, at: int) -> None:
        """For @after: the one occurrence that is known."""
        form, _, rest = self.config["schedule"].partition(" ")
        waits = any(run.scheduled is not None for run in self.live)
        self.after = None
        if form == "@after" and not waits:
            self.after = max(at, self.starts_at or at) + int(rest.split()[0])

    def occurrences(self, after: int, upto: int) -> list[int]:
        """Occurrences in (after, upto] and in the window."""
        if self.schedule.startswith("@after"):
            found = [] if self.after is None else [self.after]
        else:
            found = self.named(self.schedule, self.starts_at or self.created)
        low = max(after + 1, self.starts_at or 0)
        high = min(upto, (self.ends_at or upto + 1) - 1)
        return found[bisect_left(found, low) : bisect_right(found, high)]

    @property
    def over(self) -> bool:
        return self.max_runs is not None and self.fired >= self.max_runs

    def entry(self, outcome: str, due: list[int]) -> None:
        if due:
            first = due[0]
            self.ledger.append((outcome, True, due[-1], first, len(due), None))

    def fire(self, at: int) -> None:
        """Missed, then overlap."""
        due = [] if self.over or not self.enabled else self.occurrences(self.high, at)
        if not due:
            return
        self.high = due[-1]
        old = [d for d in due if d < at - self.missed_grace] if self.on_missed == "skip" else []
        rest = due[len(old) :]
        most = self.max_missed if self.on_missed == "all" else 1
        most = most if self.max_runs is None else min(most, self.max_runs - self.fired)
        wanted = rest[-most:]
        self.entry("missed", old)
        self.entry("missed", rest[: len(rest) - len(wanted)])
        earlier = [run for run in self.live if run.scheduled is not None]
        full = self.on_overlap == "skip" or any(run.in_line for run in earlier)
        # several at once, by on_missed = all, run in order whatever on_overlap says
        if earlier and len(wanted) == 1 and self.on_overlap != "allow" and full:
            self.entry("skipped", wanted)
            wanted = []
        for nth, instant in enumerate(wanted):
            line = self.on_overlap != "allow" and bool(earlier or nth)
            self.add(Run(instant, instant, instant, 0, in_line=line))
        self.fired += len(wanted)
        self.count_from(at)

    def add(self, run: Run) -> None:
        self.born += 1
        run.born = self.born
        self.live.append(run)

    def claim(self, at: int) -> list[Run]:
        """What a worker with room for all gets at this instant, best first."""
        if self.deleted:
            return []
        scheduled = [run for run in self.live if run.scheduled is not None]
        if scheduled and all(run.in_line for run in scheduled):
            scheduled[0].in_line = False
        self.fire(at)
        for run in self.live:
            run.ready = run.ready or (run.due <= at and not run.in_line)
        ready = [run for run in self.live if run.ready and not run.running and not run.in_line]
        ready = [run for run in ready if self.enabled or run.through_pause]
        ready.sort(key=lambda run: (run.due, run.born))
        if self.max_running is not None:
            room = self.max_running - sum(run.running for run in self.live)
            ready = ready[: max(room, 0)]
        for run in ready:
            run.running = True
        return ready

    def finish(self, run: Run, outcome: str, at: int) -> None:
        """An attempt ends."""
        again: int | None = None
        kept = {"lost", "released", "stopped"}
        if (run.cancelled and outcome in kept) or (self.deleted and outcome == "released"):
            outcome = "cancelled"
        elif not run.cancelled and not self.deleted:
            if outcome == "failed":
                run.failures += 1
                pause = self.retry_delay * 2 ** (run.failures - 1)
                again = at + pause if run.failures < self.max_attempts else None
            elif outcome == "lost":
                run.losses += 1
                handed = self.on_lost == "retry" and run.losses < self.max_lost
                again = at if handed else None
            elif outcome == "stopped":
                again = at if self.on_lost == "retry" else None
            elif outcome == "released":
                again = run.due
        if outcome != "released":
            told = {"fatal": "failed", "stopped": "lost"}.get(outcome, outcome)
            self.ledger.append((told, again is None, run.scheduled, None, 1, run.attempt))
            run.attempt += 1
        run.running = False
        if again is None:
            self.live.remove(run)
            if run.scheduled is not None:
                self.count_from(max(at, self.high))
        else:
            run.due = again
            run.ready = again <= at

    def close_books(self, at: int) -> None:
        """Before an edit of when it runs."""
        if not self.over and not (self.schedule.startswith("@after") and not self.enabled):
            due = self.occurrences(self.high, at)
            self.entry("missed" if self.enabled else "skipped", due)
        self.high = max(self.high, at)

    def edit(self, changes: dict[str, Any], at: int) -> None:
        """An update by the owner."""
        timing = {"schedule", "enabled", "starts_at", "ends_at", "max_runs"}
        if any(self.config[key] != value for key, value in changes.items() if key in timing):
            self.close_books(at)
            self.config |= changes
            self.count_from(self.high)
        self.config |= changes

    def cancel(self, run: Run, at: int) -> None:
        if run.running:
            run.cancelled = True
        else:
            self.finish(run, "cancelled", at)

    def delete(self, at: int) -> None:
        """Its waiting runs are cancelled, running ones end as they would."""
        self.close_books(at)
        self.deleted = True
        for run in [run for run in self.live if not run.running]:
            self.finish(run, "cancelled", at)
