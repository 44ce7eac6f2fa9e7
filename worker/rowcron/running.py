"""The runs that this worker holds: started, watched for their timeouts, stopped, ended.

A run is here from its claim until its outcome is handed to the reporter. A registration (`Member`)
counts what was claimed under it, so that heartbeats go on for as long as something is held.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from uuid import UUID, uuid4

from rowcron import database, narrate
from rowcron.connection import Link
from rowcron.errors import ClaimLost, RowcronError
from rowcron.executors import Executor
from rowcron.log import Log
from rowcron.models import Outcome, Recorded, Run, Session
from rowcron.reporter import Reporter
from rowcron.settings import WorkerSettings
from rowcron.wake import LONGEST, SHORTEST, Alarm, Event, Outage

SERVER_WATCHES = frozenset({"sql"})  # kinds whose timeout the server enforces; we only if it fails


class Member:
    """One registration in `rowcron.worker`."""

    def __init__(self) -> None:
        self.id: UUID = uuid4()
        self.held = 0  # runs claimed under it whose end is not settled
        self.registered = False
        self.retiring = False  # claims no more; another has taken its place
        self.lost = False  # declared so by the database


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
        self.reporter = Reporter(info, self, self.outage)
        self._loop = asyncio.get_running_loop()
        self._errands: set[asyncio.Task[None]] = set()
        self._expiry: asyncio.TimerHandle | None = None
        self._next_expiry = float("inf")

    def begin(self, runs: Iterable[Run], member: Member) -> None:
        """Start what was claimed."""
        now = self._loop.time()
        for run in runs:
            run.member = member
            run.started = now
            grace = self.settings.kill_grace if run.kind in SERVER_WATCHES else 0.0
            run.expires = now + run.seconds + grace
            member.held += 1
            self.active[run.run_id] = run
            if self.log.audits:
                narrate.began(self.log, run, str(member.id))
            if run.expires < self._next_expiry:
                self._watch(run.expires)
            try:
                self.executors[run.kind].start(run)
            except Exception as error:  # a fault of the executor, not of the job
                text = f"{type(error).__name__}: {error}"
                self.done(run, Outcome("failed", "worker", text))

    def done(self, run: Run, outcome: Outcome) -> None:
        """Take the outcome of a run; a second one is ignored."""
        if self.active.get(run.run_id) is not run:
            return
        del self.active[run.run_id]
        if run.member.lost:
            run.member.held -= 1
            narrate.refused(self.log, run, outcome, again=False)
        elif outcome.in_doubt:
            self.errand(self._settle(run, outcome))
        elif outcome.recorded is not None:
            self.recorded(run, outcome)
            self.batch_ended()
        else:
            self.reporter.add(run, outcome)
        self.alarm.set(Event.ROOM)

    def recorded(self, run: Run, outcome: Outcome) -> None:
        """The database has the outcome."""
        run.member.held -= 1
        if self.log.tells_runs or outcome.outcome != "succeeded":
            narrate.ended(self.log, run, outcome, self._loop.time() - run.started)

    def refused(self, run: Run, outcome: Outcome, *, again: bool) -> None:
        """The claim was lost before the report came."""
        run.member.held -= 1
        narrate.refused(self.log, run, outcome, again=again)

    def batch_ended(self) -> None:
        """Reports were answered: something else may be able to start now."""
        self.alarm.set(Event.FINISHED)

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
        if run.stopping is None or grace == 0:
            run.stopping = run.stopping or reason
            self.executors[run.kind].stop(run, grace)

    def stop_all(self, reason: str, grace: float, of: Callable[[Run], bool] | None = None) -> None:
        """Stop everything, or what `of` picks."""
        for run in [run for run in self.active.values() if of is None or of(run)]:
            self.stop(run, reason, grace)

    def cancel(self, run_ids: Iterable[int]) -> None:
        """Stop what somebody asked to cancel."""
        for run_id in run_ids:
            run = self.active.get(run_id)
            if run is not None:
                self.stop(run, "cancelled", self.settings.kill_grace)

    def _watch(self, expiry: float) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        self._next_expiry = expiry
        # a job may be allowed years, which epoll does not understand
        self._expiry = self._loop.call_at(min(expiry, self._loop.time() + 3600), self._expire)

    def _expire(self) -> None:
        now, self._expiry, self._next_expiry = self._loop.time(), None, float("inf")
        for run in list(self.active.values()):
            if run.stopping is None and run.expires <= now:
                self.stop(run, "timeout", self.settings.kill_grace)
        ahead = [run.expires for run in self.active.values() if run.stopping is None]
        if ahead:
            self._watch(min(ahead))

    def end_session(self, session: Session) -> None:
        """End a session of ours that does not listen; if it is gone, all the better."""
        self.errand(self._end_session(session))

    async def _end_session(self, session: Session) -> None:
        try:
            await database.terminate(self.info, session)
        except RowcronError as error:
            self.log.debug(f"cannot terminate session {session.pid}: {error.message}")

    def errand(self, coroutine: asyncio._CoroutineLike[None]) -> None:
        """Do something beside the rest."""
        task = self._loop.create_task(coroutine)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    async def settled(self) -> None:
        """Wait until nothing runs, nothing is in doubt and everything is reported."""
        while self.active:
            await self.alarm.wait(Event.ROOM, 1.0)
            self.alarm.clear(Event.ROOM)
        while self._errands:
            await asyncio.wait(set(self._errands))
        await self.reporter.flushed()
