"""Runs that begin while their claim is being committed (docs/decisions/027)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rowcron.members import Member
    from rowcron.models import Outcome, Run
    from rowcron.running import Running


class Commit:
    """Entered while a claim is sent, answered and committed: some runs begin before that.

    Their executor says so (`early`, which most have not). Their reports wait until the commit is
    heard of; should there be none, they are stopped.
    """

    def __init__(self, running: Running, member: Member) -> None:
        self.begun: list[Run] = []
        self.ended: list[tuple[Run, Outcome]] = []
        self._running = running
        self._member = member

    def begin(self, runs: Iterable[Run]) -> None:
        """Begin what may begin now."""
        now = []
        for run in runs:
            early = getattr(self._running.executors.get(run.kind), "early", None)
            if early is not None and early(run):
                now.append(run)
        self.begun = now
        self._running.begin(now, self._member, at_once=True)

    def __enter__(self) -> Self:
        self._running.commit = self
        return self

    def __exit__(self, failed: object, *_: object) -> None:
        self._running.commit = None
        if failed is not None:
            for run in self.begun:
                self._running.stop(run, "released", self._running.settings.kill_grace)
        for run, outcome in self.ended:
            self._running.reporter.add(run, outcome)
