"""The worker's loop: wake, claim, execute, finish, stop.

A turn is one claim, which also fires what is due. When it brings less than there is room for, nothing is
left to do now: the worker says that it goes to sleep, learns for how long, and sleeps until then, until a
notification, or until its poll ends. Only the database's clock decides; this side sleeps for intervals.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any
from uuid import UUID

from rowcron import database, executors, narrate
from rowcron.connection import Link, conninfo
from rowcron.errors import NotInstalled, NotPermitted, Unavailable, WorkerLost, WrongVersion
from rowcron.handlers import load_app
from rowcron.log import Bridge, Log
from rowcron.models import Beat
from rowcron.processes import Supervisor
from rowcron.pulse import Pulse
from rowcron.running import Member, Running
from rowcron.settings import WorkerSettings
from rowcron.wake import ANYTHING, Alarm, Event, Listener

# How often a worker that could take nothing more looks whether something is to be fired, in seconds.
FIRE_PAUSE = 0.25
LIGHT = (0.005, 0.2)  # the first and the longest sleep while a sleep announced is not settled
FULL_SLEEP = 1.0  # the database answers 1 s when runs wait for others to end
GIVE_UP = 10.0  # seconds for killed runs to end and reports to be taken, when stopping at once
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Worker:
    """One process's hands. `run` returns its exit code."""

    def __init__(self, settings: WorkerSettings, log: Log) -> None:
        self.settings = settings
        self.log = log
        self.info = conninfo(settings.database_url)
        handlers = sorted(load_app(settings.app))
        self.about = database.registration(
            settings.queues, settings.kinds, handlers, settings.concurrency, settings.lease, settings.poll
        )
        self.handlers = handlers
        self.alarm = Alarm()
        self.running = Running(settings, log, self.info, self.alarm)
        self.outage = self.running.outage
        self.control = Link(self.info)
        self.members = [Member()]
        self.change = 0 if log.audits or log.level <= 20 else None
        self.stopping = ""  # "drain", then "now"
        self.exit_code = 0
        self._loop = asyncio.get_running_loop()
        self._in_vain = 0

    @property
    def member(self) -> Member:
        """The registration under which this worker claims."""
        return self.members[-1]

    async def run(self) -> int:
        """Work until stopped. Raises `NotInstalled`, `NotPermitted`, `WrongVersion` at the start."""
        self.log.loop = self._loop
        Bridge(self.log).install()
        for kind in self.settings.kinds:
            self.running.executors[kind] = executors.load(kind)(self.running)
            await self.running.executors[kind].open()
        for number in SIGNALS:
            self._loop.add_signal_handler(number, self._signalled, number)
        listener = Listener(self.info, self.log, self.alarm, lambda: self.outage.since is not None)
        pulse = Pulse(self.info, self.settings.lease, self._holding, self._heard_in_thread, self._lost_in_thread)
        tasks: list[asyncio.Task[None]] = []
        try:
            await self._until_registered()
            if not self.stopping:
                tasks += [self._task(listener.run()), self._task(self.running.reporter.run())]
                pulse.start()
                await self._work()
                await self._stop()
        finally:
            pulse.stop()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for executor in self.running.executors.values():
                await executor.close()
            await self.control.close()
            await self.running.reporter.link.close()
            self.log.event("stop", "worker stopped", worker=str(self.member.id), exit_code=self.exit_code)
            for number in SIGNALS:
                self._loop.remove_signal_handler(number)
        return self.exit_code

    def _task(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(coroutine)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.log.event("defect", f"worker's own fault: {error!r}", "error")
            self.exit_code = 70
            self._signalled(signal.SIGTERM)

    def _signalled(self, number: int) -> None:
        now = bool(self.stopping) or number == signal.SIGHUP
        self.stopping = "now" if now else "drain"
        text = "stopping at once" if now else f"stopping, {len(self.running.active)} runs to finish"
        self.log.event("drain", text, signal=signal.Signals(number).name)
        self.alarm.set(Event.STOP)

    async def _until_registered(self) -> None:
        while not self.stopping:
            try:
                await self._register()
                return
            except Unavailable as error:
                pause = self.outage.failed("control", error)
                await self.alarm.wait(Event.STOP, pause)

    async def _register(self) -> None:
        beat = await database.register(self.control, self.member.id, self.about, self.change)
        self.outage.back("control")
        self.member.registered = True
        self._heard(beat)
        self._introduce()

    def _introduce(self) -> None:
        settings = self.settings
        sql = min(settings.sql_connections, settings.concurrency) if "sql" in settings.kinds else 0
        handed = 0
        if settings.handler_database_url is not None and "python" in settings.kinds:
            handed = 2 * settings.handler_connections
        parts = f"4 + up to {sql} for SQL jobs" + (f" + up to {handed} for handlers" if handed else "")
        queues = "all queues" if settings.queues is None else f"queues {', '.join(settings.queues)}"
        self.log.event(
            "worker",
            f"worker {self.member.id} takes {settings.concurrency} runs at a time of {queues},"
            f" kinds {', '.join(settings.kinds)}; connections: {parts}",
            worker=str(self.member.id),
            queues=settings.queues,
            kinds=settings.kinds,
            handlers=self.handlers,
            connections=4 + sql + handed,
        )

    async def _work(self) -> None:
        while not self.stopping:
            try:
                if not self.member.registered:
                    await self._register()
                await self._retire()
                await self._turn()
                self.outage.back("control")
            except WorkerLost:
                self._lost(self.member)
            except Unavailable as error:
                await self.alarm.wait(Event.STOP, self.outage.failed("control", error))
            except (NotInstalled, NotPermitted, WrongVersion) as error:
                # it was there at the start: restored, upgraded or granted just now
                await self.alarm.wait(Event.STOP, self.outage.failed("control", Unavailable(str(error))))

    async def _turn(self) -> None:
        self.alarm.clear()
        free = self._free()
        rooms = {kind: executor.room for kind, executor in self.running.executors.items()}
        taking = [kind for kind, room in rooms.items() if room > 0]
        if free == 0 or not taking:
            await self._wait_for_room()
            return
        # Of SQL jobs no more than there are connections; asked for together with the rest first, so
        # that one statement tells when there is nothing to do at all.
        narrow = [room for room in rooms.values() if 0 < room < free]
        kinds = None if len(taking) == len(rooms) else database.text_array(taking)
        asked = min([free, *narrow])
        if await self._claim(asked, kinds) < asked:
            if not self.stopping:
                await self._sleep(full_of_some=kinds is not None)
            return
        wide = [kind for kind, room in rooms.items() if room >= free]
        if narrow and wide and (free := self._free()):
            await self._claim(free, database.text_array(wide))
        await asyncio.sleep(0)

    def _free(self) -> int:
        """Return how many runs may be claimed now; none while reports pile up."""
        if self.running.reporter.backlog > 2 * self.settings.concurrency + 2_000:
            return 0
        return self.settings.concurrency - len(self.running.active)

    async def _claim(self, capacity: int, kinds: str | None = None) -> int:
        member = self.member
        try:
            runs = await database.claim(self.control, member.id, capacity, self.about, kinds)
        except Unavailable as error:
            if error.in_doubt and capacity:
                # What was claimed and not heard of is given back when this registration ends.
                member.retiring = True
                self.members.append(Member())
            raise
        self._in_vain = 0 if runs else self._in_vain + 1
        self.running.begin(runs, member)
        return len(runs)

    async def _wait_for_room(self) -> None:
        """Wait for a slot; meanwhile fire what falls due."""
        pause = FIRE_PAUSE
        while not self.stopping:
            if await self.alarm.wait(ANYTHING & ~Event.FINISHED, pause) & (Event.ROOM | Event.STOP):
                return
            self.alarm.clear(Event.NOTIFIED)
            beat = await self._beat(asleep=False)
            pause = self._longest_sleep()
            if beat.wake_after is not None:
                if beat.wake_after <= 0:
                    await self._claim(0)
                    pause = FIRE_PAUSE
                else:
                    pause = min(pause, beat.wake_after)

    async def _sleep(self, *, full_of_some: bool) -> None:
        """Sleep until there is something to do. `full_of_some`: of some kinds no more can be taken."""
        light, longest = LIGHT
        while not self.stopping:
            beat = await self._beat(asleep=True)
            pause, due = self._longest_sleep(), False
            if beat.wake_after is not None and beat.wake_after <= pause:
                pause, due = beat.wake_after, True
                if pause <= 0:
                    if not full_of_some and self._in_vain < 2:
                        return
                    pause = FIRE_PAUSE if full_of_some else min(0.001 * 2**self._in_vain, FIRE_PAUSE)
            if not beat.settled and light < pause:
                pause, due, light = light, False, min(light * 2, longest)
            events = await self.alarm.wait(
                ANYTHING if full_of_some else ANYTHING & ~Event.ROOM, pause
            )
            if events & ~Event.FINISHED or (due and not events):
                if full_of_some and due and not events:
                    await self._claim(0)  # fires the kinds that it could not take
                return
            if events and (due or (beat.wake_after or FULL_SLEEP + 1) <= FULL_SLEEP):
                return  # a run has ended, for which others may have waited
            self.alarm.clear(Event.FINISHED)

    def _longest_sleep(self) -> float:
        return min(self.settings.poll, self.settings.lease / 2)

    async def _beat(self, *, asleep: bool) -> Beat:
        beat = await database.heartbeat(self.control, self.member.id, asleep, self.change)
        self._heard(beat)
        return beat

    def _heard(self, beat: Beat) -> None:
        self.running.cancel(beat.cancels)
        for change in beat.changes:
            if self.change:
                narrate.changed(self.log, change)
            self.change = change["id"]

    async def _retire(self) -> None:
        for member in self.members[:-1]:
            if member.held == 0 or member.lost:
                self.members.remove(member)
                if not member.lost:
                    await self._farewell(member)

    async def _farewell(self, member: Member) -> None:
        try:
            await database.heartbeat(self.control, member.id, stopping=True)
        except WorkerLost:
            return

    def _holding(self) -> list[UUID]:
        return [member.id for member in list(self.members) if member.held and not member.lost]

    def _heard_in_thread(self, worker: UUID, beat: Beat) -> None:
        if beat.cancels:
            self._loop.call_soon_threadsafe(self.running.cancel, beat.cancels)

    def _lost_in_thread(self, worker: UUID) -> None:
        self._loop.call_soon_threadsafe(self._lost_by_id, worker)

    def _lost_by_id(self, worker: UUID) -> None:
        for member in self.members:
            if member.id == worker and not member.lost:
                self._lost(member)

    def _lost(self, member: Member) -> None:
        """Declared lost: what runs under it is somebody else's now."""
        member.lost = member.retiring = True
        text = f"worker {member.id} was declared lost (RCWRK); stopping {member.held} runs"
        self.log.event("lost", text, "warning", worker=str(member.id), code="RCWRK")
        if member is self.member:
            self.members.append(Member())
        self.running.stop_all("released", self.settings.kill_grace, lambda run: run.member is member)
        self.alarm.set(Event.NOTIFIED)

    async def _stop(self) -> None:
        """Let runs finish, give back what is left, say goodbye."""
        running = self.running
        if self.stopping == "drain" and running.active:
            await self._settled_within(self.settings.grace)
        if running.active:
            grace = 0.0 if self.stopping == "now" else min(self.settings.kill_grace, 2.0)
            running.stop_all("released", grace)
        if not await self._settled_within(GIVE_UP):
            left = len(running.active) + running.reporter.backlog
            self.log.event("left", f"{left} runs are left to the lease", "warning")
            self.exit_code = 1
        for member in self.members:
            try:
                if member.registered or member.retiring:
                    await asyncio.wait_for(self._farewell(member), 2.0)
            except (Unavailable, NotInstalled, NotPermitted, WrongVersion, TimeoutError):
                self.exit_code = 1

    async def _settled_within(self, seconds: float) -> bool:
        """Wait for the last run and its report; a second signal ends the patience."""
        waiting = asyncio.create_task(self.running.settled())
        before = self.stopping
        until = self._loop.time() + seconds
        while not waiting.done() and self._loop.time() < until and self.stopping == before:
            await asyncio.wait((waiting,), timeout=min(until - self._loop.time(), 0.05))
        if waiting.done():
            return True
        waiting.cancel()
        return False


async def run_worker(settings: WorkerSettings) -> int:
    """Run one worker in this process until it is stopped; return its exit code.

    0 after a drain, 1 when something had to be left to the lease. Raises `RowcronError` when it cannot
    start. Handles SIGINT, SIGTERM and SIGHUP meanwhile.
    """
    log = Log.from_settings(settings)
    try:
        return await Worker(settings, log).run()
    finally:
        log.close()


def serve(settings: WorkerSettings) -> int:
    """Run the worker or workers that the settings ask for; return the exit code.

    Raises `RowcronError` when a single worker cannot start; of several, each says so itself.
    """
    if settings.processes == 1:
        return asyncio.run(run_worker(settings))
    return Supervisor(settings, run_worker).run()
