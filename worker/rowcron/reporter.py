"""Reports of finished runs, in batches that form by themselves.

Whatever gathers while one batch is on its way goes with the next; nothing waits on purpose. A
report is kept until the database has answered: after a cut it is sent again, which can do no harm,
because a run that is recorded already refuses it.

A report that the database refuses is put aside and tried again by itself, more and more seldom, so
that the others go on. If it alone is refused for long, it is reported as failed for good, with what
the database said: else its run would be held for ever.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

from rowcron import database
from rowcron.errors import (
    NotInstalled,
    NotPermitted,
    RowcronError,
    Unavailable,
    WrongVersion,
    is_about_data,
)
from rowcron.link import Link
from rowcron.locked import Locked, Report
from rowcron.models import Outcome, Recorded, Run
from rowcron.unstored import in_ascii, plain
from rowcron.wake import Outage, pause_after

LARGEST = 2_000  # reports in one statement
HEAVIEST = 8_000_000  # characters in one statement, give or take one report

# What the database wrote when it says nothing else.
ENDED = {
    outcome: Recorded("failed" if outcome == "fatal" else outcome, True, None)
    for outcome in ("succeeded", "fatal", "cancelled")
}

LOCKED = "55P03"  # lock_not_available: a row, for longer than `finish` waits
# So often a report is refused before it becomes one of a failure: after some seconds if others were
# taken meanwhile, so that it is not the database; else after more than a minute.
REFUSALS, REFUSALS_OF_ALL = 5, 20
# Away, or restored, upgraded or granted just now: it was there before.
WAITED_OUT = (Unavailable, NotInstalled, NotPermitted, WrongVersion)

# A report with how often it was refused, and how many batches had been taken before that
Doubted = tuple[Report, int, int]


class Told(Protocol):
    """Who learns what became of the reports."""

    def recorded(self, run: Run, outcome: Outcome) -> None:
        """Learn that the database has it."""

    def refused(self, run: Run, outcome: Outcome, *, again: bool) -> None:
        """Learn that the claim was lost.

        `again`: or that an earlier copy of the report was taken.
        """

    def batch_ended(self) -> None:
        """Learn that a batch was answered."""

    async def begun(self) -> None:
        """Wait until what can begin now has begun: reports can wait for that."""


class Reporter:
    """Sends reports over a connection of its own, so that claims go on meanwhile."""

    def __init__(self, info: str, told: Told, outage: Outage) -> None:
        self.link = Link(info, outage.log)
        self.told = told
        self.outage = outage
        self.pending: deque[Report] = deque()
        self.sending = 0
        self._refused = 0  # and not tried again yet
        self._doubted: deque[Doubted] = deque()
        self._taken = 0
        self._wanted = asyncio.Event()
        self._locked = Locked(self._wanted.set)
        self._idle = asyncio.Event()
        self._idle.set()

    def add(self, run: Run, outcome: Outcome) -> None:
        """Report this soon."""
        self.pending.append((run, outcome))
        if not self._wanted.is_set():
            self._wanted.set()
            self._idle.clear()

    @property
    def backlog(self) -> int:
        """How many are not answered yet, without those put aside."""
        return len(self.pending) + self.sending

    @property
    def aside(self) -> int:
        """How many were refused or wait for a lock, and are not tried again yet."""
        return self._refused + self._locked.count

    async def flushed(self) -> None:
        """Wait until everything is answered."""
        await self._idle.wait()

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            await self._wanted.wait()
            while self.pending or self._doubted or self._locked.due:
                await self.told.begun()
                batch = self._locked.keep(self._next_batch())
                await self._send_counted(batch)
                if self._doubted:
                    await self._send_again(self._doubted.popleft())
                if self._locked.due:  # one between two batches: they wait for it
                    await self._send_counted(self._locked.take())
                    self._locked.tried()
                self.told.batch_ended()
            self._wanted.clear()
            if not self.aside:
                self._idle.set()

    def _next_batch(self) -> list[Report]:
        batch: list[Report] = []
        weight = 0
        while self.pending and len(batch) < LARGEST and weight < HEAVIEST:
            report = self.pending.popleft()
            batch.append(report)
            outcome = report[1]
            for text in (outcome.error, outcome.output, outcome.result):
                if text is not None:
                    weight += len(text)
        return batch

    async def _send_counted(self, batch: list[Report]) -> None:
        self.sending = len(batch)
        if batch:
            await self._send(batch)
        self.sending = 0

    async def _send(self, batch: list[Report], refusals: int = 0, taken: int = -1) -> None:
        again = False
        while True:
            try:
                verdicts = await database.finish_many(self.link, batch[0][0].member.id, batch)
                break
            except RowcronError as error:
                if error.code == LOCKED:
                    await self._send_by_owner(batch)
                    return
                if not isinstance(error, WAITED_OUT):
                    await self._send_otherwise(batch, error, refusals, taken)
                    return
                again = again or isinstance(error, Unavailable)
                await asyncio.sleep(self.outage.failed("reports", error))
        self.outage.back("reports")
        self._taken += 1
        for run, outcome in batch:
            verdict = verdicts.get(run.run_id)
            if verdict is None or verdict.accepted:
                outcome.recorded = ENDED[outcome.outcome] if verdict is None else verdict.recorded
                self.told.recorded(run, outcome)
            else:
                self.told.refused(run, outcome, again=again)

    async def _send_by_owner(self, batch: list[Report]) -> None:
        """What is locked, its owner has locked: only that one's reports wait."""
        owners: dict[str, list[Report]] = {}
        for report in batch:
            owners.setdefault(report[0].owner, []).append(report)
        if len(owners) == 1:
            self._locked.put(batch)
            return
        for reports in owners.values():
            await self._send(reports)

    async def _send_otherwise(
        self, batch: list[Report], error: RowcronError, refusals: int, taken: int
    ) -> None:
        """One report that the database cannot take must not keep the others from being taken.

        In ASCII or without what cannot be stored, if that is the reason; else later, by itself.
        """
        if len(batch) > 1:
            size = (len(batch) + 1) // 2  # halves find it soonest
            for start in range(0, len(batch), size):
                await self._send(batch[start : start + size])
            return
        run, outcome = batch[0]
        is_plain = outcome.reason == "report"
        if not is_plain and is_about_data(error):
            again = in_ascii(outcome) or plain(outcome, outcome.outcome, error)
            await self._send([(run, again)], refusals, taken)
            return
        if refusals == 0:
            taken = self._taken
        refusals += 1
        most = REFUSALS_OF_ALL if self._taken == taken else REFUSALS
        if refusals >= most and not (is_plain and outcome.outcome == "fatal"):
            await self._send([(run, plain(outcome, "fatal", error))], refusals, taken)
            return
        if refusals == 1:
            text = f"the report of run {run.run_id} is refused, trying again: {error.message}"
            self.outage.log.event(
                "unstored", text, "warning", run_id=run.run_id, code=error.code, detail=error.detail
            )
        self._refused += 1
        doubted = (run, outcome), refusals, taken
        asyncio.get_running_loop().call_later(pause_after(refusals), self._doubt, doubted)

    def _doubt(self, doubted: Doubted) -> None:
        self._doubted.append(doubted)
        self._wanted.set()

    async def _send_again(self, doubted: Doubted) -> None:
        report, refusals, taken = doubted
        await self._send([report], refusals, taken)
        self._refused -= 1
