"""The runs that this worker holds: started, watched for their timeouts, stopped, ended.

A run is here from its claim until its outcome is handed to the reporter. A registration (`Member`)
counts what was claimed under it, so that heartbeats go on for as long as something is held. What
was claimed ahead stands in line until there is room for it, and is given back when none comes.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import islice

from rowcron import database, narrate
from rowcron.commit import Commit
from rowcron.deadlines import Deadlines
from rowcron.errands import Errands
from rowcron.errors import ClaimLost, RowcronError
from rowcron.executors import Executor, stopped
from rowcron.link import Link
from rowcron.log import Log
from rowcron.members import Member
from rowcron.models import Outcome, Recorded, Run
from rowcron.reporter import Reporter
from rowcron.session import Session
from rowcron.settings import WorkerSettings
from rowcron.wake import LONGEST, SHORTEST, Alarm, Event, Outage

AT_ONCE = 100  # runs that are begun before those begun are given a turn
BEGUN_WITHIN = 0.02  # seconds for which reports and claims wait for others to begin
PATIENCE = 0.25  # seconds without room after which what was claimed ahead is given back
SERVER_WATCHES = frozenset({"sql"})  # kinds whose timeout the server enforces; we only if it fails


class Running:
    """Everything that is being executed, and what follows when it ends."""

    def __init__(self, settings: WorkerSettings, log: Log, info: str, alarm: Alarm) -> None:
        self.settings = settings
        self.log = log
        self.info = info
        self.alarm = alarm
        self.outage = Outage(log)
        self.executors: dict[str, Executor] = {}
        self.active: dict[int, Run] = {}
        self.ended = 0  # so many, ever
        self.enough = settings.concurrency  # active ones, from which on there is no room
        self._line: dict[int, Run] = {}  # those of `active` that have not begun
        self._moving = False
        self._again = False  # of what ended since somebody was told
        self._more_soon = False  # the rest of the line has its turn after those begun just now
        self._at_once: list[tuple[Run, Outcome]] = []  # ended as they began; first others begin
        self._others_until = 0.0  # but not for long
        self.reporter = Reporter(info, self, self.outage)
        self.commit: Commit | None = None
        self._loop = asyncio.get_running_loop()
        self._errands = Errands(info, log)
        self._deadlines = Deadlines(self.active, self._out_of_time)

    def begin(self, runs: Iterable[Run], member: Member, *, at_once: bool) -> None:
        """Take what was claimed; start what there is room for, now or soon."""
        if member.lost:
            return
        stood = bool(self._line)
        now = self._loop.time()
        for run in runs:
            if (before := self.active.get(run.run_id)) is not None:
                self._displaced(before)
            run.member = member
            run.started = now
            member.held.add(run)
            self.active[run.run_id] = self._line[run.run_id] = run
        if at_once:
            self._move()
        else:
            self._move_soon()
        if self._line and not stood:
            self._loop.call_later(PATIENCE, self._look_at_line, self.ended)

    def committing(self, member: Member) -> Commit:
        """Return what lets some runs begin while their claim is being committed."""
        return Commit(self, member)

    def _displaced(self, run: Run) -> None:
        """Its claim was undone: the run has been claimed again while it has not ended here."""
        self.stop(run, "released", self.settings.kill_grace)
        if self.active.pop(run.run_id, None) is not None:
            run.member.held.discard(run)
            narrate.refused(self.log, run, stopped(run), again=False)

    def rooms(self) -> dict[str, int]:
        """Return how many more runs of each kind may be claimed as far as executors are asked."""
        if not self._line:
            return {kind: executor.room for kind, executor in self.executors.items()}
        in_line = Counter(run.kind for run in self._line.values())
        return {kind: executor.room - in_line[kind] for kind, executor in self.executors.items()}

    def _move(self) -> None:
        """Start those in line for whom there is room, the first before the last is prepared."""
        if self._moving or self._more_soon:
            return
        self._moving = True
        now = self._loop.time()
        if not self._at_once:
            self._others_until = now + BEGUN_WITHIN
        room = self.settings.concurrency - len(self.active) + len(self._line)
        for run_id in list(islice(self._line, min(room, AT_ONCE))):
            if (run := self._line.pop(run_id, None)) is not None:
                self._start(run, now)
        self._moving = False
        if not self._line or room <= AT_ONCE or self._loop.time() >= self._others_until:
            self._take_ended()
        if self._line and len(self.active) - len(self._line) < self.settings.concurrency:
            self._move_soon()

    def _take_ended(self) -> None:
        ended, self._at_once = self._at_once, []
        for run, outcome in ended:
            self._end(run, outcome)
        if len(self.active) < self.enough:
            self.alarm.set(Event.ROOM)

    async def begun(self) -> None:
        """Wait until those in line for whom there is room have begun, but not long."""
        until = self._loop.time() + BEGUN_WITHIN
        while self._more_soon and self._loop.time() < until:  # noqa: ASYNC110 - a turn each
            await asyncio.sleep(0)

    def _move_soon(self) -> None:
        if not self._more_soon:
            self._more_soon = True
            self._loop.call_soon(self._move_now)

    def _move_now(self) -> None:
        self._more_soon = False
        self._move()

    def _start(self, run: Run, now: float) -> None:
        run.started = now
        grace = self.settings.kill_grace if run.kind in SERVER_WATCHES else 0.0
        run.expires = now + run.seconds + grace
        if self.log.audits:
            narrate.began(self.log, run, str(run.member.id))
        self._deadlines.watch(run)
        if run.kind not in self.executors:  # a database that is not what it should be
            error = f"this worker was not started with --kind {run.kind}"
            self.done(run, Outcome("failed", "kind", error))
            return
        try:
            self.executors[run.kind].start(run)
        except Exception as error:  # a fault of the executor, not of the job
            text = f"{type(error).__name__}: {error}"
            self.done(run, Outcome("failed", "worker", text))

    def _look_at_line(self, ended: int) -> None:
        if self.ended == ended:
            self.give_back()
        elif self._line:
            self._loop.call_later(PATIENCE, self._look_at_line, self.ended)

    def give_back(self) -> None:
        """Let others have what has not begun."""
        for run in list(self._line.values()):
            self.stop(run, "released", 0.0)

    def done(self, run: Run, outcome: Outcome) -> None:
        """Take the outcome of a run; a second one is ignored."""
        if self._moving:
            self._at_once.append((run, outcome))
            return
        self._end(run, outcome)
        if self._line:
            self._move()
        if len(self.active) < self.enough:
            self.alarm.set(Event.ROOM)

    def _end(self, run: Run, outcome: Outcome) -> None:
        if self.active.get(run.run_id) is not run:
            return
        del self.active[run.run_id]
        self.ended += 1
        if run.hidden is not None:
            run.hidden.clean(outcome)
        if run.member.lost:
            run.member.held.discard(run)
            narrate.refused(self.log, run, outcome, again=False)
        elif outcome.in_doubt:
            self._errands.begin(self._settle(run, outcome))
        elif outcome.recorded is not None:
            self.recorded(run, outcome)
            self.batch_ended()
        elif self.commit is not None and run in self.commit.begun:
            self.commit.ended.append((run, outcome))
        else:
            self.reporter.add(run, outcome)

    def recorded(self, run: Run, outcome: Outcome) -> None:
        """The database has the outcome."""
        run.member.held.discard(run)
        # a retry, or a schedule that counts from the end
        recorded = outcome.recorded
        self._again |= run.row[10] is not None or recorded is None or not recorded.final
        if self.log.tells_runs or outcome.outcome != "succeeded":
            narrate.ended(self.log, run, outcome, self._loop.time() - run.started)

    def refused(self, run: Run, outcome: Outcome, *, again: bool) -> None:
        """The claim was lost before the report came."""
        run.member.held.discard(run)
        narrate.refused(self.log, run, outcome, again=again)

    def batch_ended(self) -> None:
        """Reports were answered: something else may be able to start now."""
        again, self._again = self._again, False
        self.alarm.set(Event.FINISHED | Event.AGAIN if again else Event.FINISHED)

    def make_room(self) -> None:
        """An executor has more room."""
        self.alarm.set(Event.ROOM)

    async def _settle(self, run: Run, outcome: Outcome) -> None:
        """Ask what became of a run whose record was cut off, once its row is not locked."""
        link, pause = Link(self.info), SHORTEST
        while not run.member.lost:
            try:
                outcome.recorded = await database.finish_one(link, run, outcome)
                break
            except ClaimLost:
                outcome.recorded = Recorded("recorded before the cut", True, None)
                outcome.error = None
                break
            except RowcronError:
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST)
        await link.close()
        if outcome.recorded is not None:
            self.recorded(run, outcome)
        else:
            self.refused(run, outcome, again=False)
        self.batch_ended()

    def stop(self, run: Run, reason: str, grace: float) -> None:
        """Stop a run: `reason` is timeout, cancelled or released."""
        self._take_ended()
        if self.active.get(run.run_id) is not run:
            return
        if self._line.pop(run.run_id, None) is not None:
            run.stopping = reason
            self.done(run, stopped(run))
        elif run.stopping is None or grace == 0:
            run.stopping = run.stopping or reason
            self.executors[run.kind].stop(run, grace)

    def stop_all(self, reason: str, grace: float, of: Callable[[Run], bool] | None = None) -> None:
        """Stop everything, or what `of` picks."""
        picked = [run for run in self.active.values() if of is None or of(run)]
        # from the end, so that none begins because one before it has ended
        for run in reversed(picked):
            self.stop(run, reason, grace)

    def cancel(self, run_ids: Iterable[int]) -> None:
        """Stop what somebody asked to cancel."""
        for run_id in run_ids:
            run = self.active.get(run_id)
            if run is not None:
                self.stop(run, "cancelled", self.settings.kill_grace)

    def _out_of_time(self, run: Run) -> None:
        self.stop(run, "timeout", self.settings.kill_grace)

    def end_session(self, session: Session, info: str | None = None) -> None:
        """End a session of ours that does not listen; if it is gone, all the better."""
        self._errands.end_session(session, info)

    async def settled(self) -> None:
        """Wait until nothing runs, nothing is in doubt and everything is reported."""
        while self.active:
            await self.alarm.wait(Event.ROOM, 1.0)
            self.alarm.clear(Event.ROOM)
        await self._errands.ended()
        await self.reporter.flushed()
