"""Reports of finished runs, in batches that form by themselves.

Whatever gathers while one batch is on its way goes with the next; nothing waits on purpose. A
report is kept until the database has answered: after a cut it is sent again, which can do no harm,
because a run that is recorded already refuses it.
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
from rowcron.models import Outcome, Recorded, Run
from rowcron.wake import Outage

LARGEST = 2_000  # reports in one statement
HEAVIEST = 8_000_000  # characters in one statement, give or take one report

# What the database wrote when it says nothing else.
ENDED = {
    outcome: Recorded("failed" if outcome == "fatal" else outcome, True, None)
    for outcome in ("succeeded", "fatal", "cancelled")
}

LOCKED = "55P03"  # lock_not_available: a row, for longer than `finish` waits
PAUSE = 0.2  # seconds until the report of such a run is tried again
# Away, or restored, upgraded or granted just now: it was there before.
WAITED_OUT = (Unavailable, NotInstalled, NotPermitted, WrongVersion)

Report = tuple[Run, Outcome]


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
        self.link = Link(info)
        self.told = told
        self.outage = outage
        self.pending: deque[Report] = deque()
        self.sending = 0
        self._wanted = asyncio.Event()
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
        """How many are not answered yet."""
        return len(self.pending) + self.sending

    async def flushed(self) -> None:
        """Wait until everything is answered."""
        await self._idle.wait()

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            await self._wanted.wait()
            while self.pending:
                await self.told.begun()
                batch = self._next_batch()
                self.sending = len(batch)
                await self._send(batch)
                self.sending = 0
                self.told.batch_ended()
            self._wanted.clear()
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

    async def _send(self, batch: list[Report]) -> None:
        again = False
        while True:
            try:
                verdicts = await database.finish_many(self.link, batch[0][0].member.id, batch)
                break
            except RowcronError as error:
                if not isinstance(error, WAITED_OUT) or error.code == LOCKED:
                    await self._send_otherwise(batch, error)
                    return
                again = again or isinstance(error, Unavailable)
                await asyncio.sleep(self.outage.failed("reports", error))
        self.outage.back("reports")
        for run, outcome in batch:
            verdict = verdicts.get(run.run_id)
            if verdict is None or verdict.accepted:
                outcome.recorded = ENDED[outcome.outcome] if verdict is None else verdict.recorded
                self.told.recorded(run, outcome)
            else:
                self.told.refused(run, outcome, again=again)

    async def _send_otherwise(self, batch: list[Report], error: RowcronError) -> None:
        """One report that the database cannot take must not keep the others from being taken.

        Without what cannot be stored, if that is the reason; else later, again and again: the run
        is held until its end is recorded.
        """
        if len(batch) > 1:
            for report in batch:
                await self._send([report])
            return
        run, outcome = batch[0]
        if is_about_data(error) and outcome.reason != "report":  # plain already
            text = f"{outcome.outcome}, but the report could not be stored: {error.message}"
            plain = Outcome(
                outcome.outcome, "report", text.encode("ascii", "backslashreplace").decode()
            )
            await self._send([(run, plain)])
            return
        self.pending.append((run, outcome))
        locked = error.code == LOCKED  # by its owner, who may keep it so for hours
        await asyncio.sleep(PAUSE if locked else self.outage.failed("reports", error))
