"""A worker's turns: claim, start, sleep; and the registrations under which it claims.

A turn is one claim, which also fires what is due. When it brings less than there is room for,
nothing is left to do now: the worker says that it goes to sleep, learns for how long, and sleeps
until then, until a notification, or until its poll ends. Only the database's clock decides; this
side sleeps for intervals.
"""

from __future__ import annotations

import asyncio
from uuid import UUID

from rowcron import database, narrate
from rowcron.connection import Link
from rowcron.errors import NotInstalled, NotPermitted, Unavailable, WorkerLost, WrongVersion
from rowcron.log import Log
from rowcron.models import Beat
from rowcron.running import Member, Running
from rowcron.settings import WorkerSettings
from rowcron.wake import ANYTHING, Alarm, Event

# How often a worker that can take nothing more looks whether something is to be fired: seconds.
FIRE_PAUSE = 0.25
LIGHT = (0.005, 0.2)  # the first and the longest sleep while a sleep announced is not settled
FULL_SLEEP = 1.0  # the database answers 1 s when runs wait for others to end


class Turns:
    """Takes turns until `stopping`, which is "", "drain" or "now"."""

    def __init__(
        self, settings: WorkerSettings, log: Log, info: str, about: database.Registration
    ) -> None:
        self.settings = settings
        self.log = log
        self.about = about
        self.alarm = Alarm()
        self.running = Running(settings, log, info, self.alarm)
        self.outage = self.running.outage
        self.control = Link(info)
        self.members = [Member()]
        self.change = 0 if log.audits or log.level <= 20 else None
        self.stopping = ""
        self._loop = asyncio.get_running_loop()
        self._in_vain = 0

    @property
    def member(self) -> Member:
        """The registration under which this worker claims."""
        return self.members[-1]

    async def register(self) -> None:
        """Make this worker known. Raises `Unavailable`, `NotInstalled`, `WrongVersion`, ..."""
        member = self.member
        beat = await database.register(self.control, member.id, self.about, self.change)
        self.outage.back("control")
        member.registered = True
        self._heard(beat)
        text = f"worker {member.id} registered"
        self.log.event("registered", text, "debug", worker=str(member.id))

    async def work(self) -> None:
        """Take turns; a database that is away is waited for."""
        while not self.stopping:
            try:
                if not self.member.registered:
                    await self.register()
                await self._retire()
                await self._turn()
                self.outage.back("control")
            except WorkerLost:
                self._lost(self.member)
            except Unavailable as error:
                self._begin_anew()
                await self.alarm.wait(Event.STOP, self.outage.failed("control", error))
            except (NotInstalled, NotPermitted, WrongVersion) as error:
                # it was there at the start: restored, upgraded or granted just now
                pause = self.outage.failed("control", Unavailable(error.message, hint=error.hint))
                await self.alarm.wait(Event.STOP, pause)

    def _begin_anew(self) -> None:
        """Go on under another registration.

        A crash without synchronous commit, or a failover, may have undone what was committed last:
        the database then counts runs as held here that this side has finished, or never heard of.
        They are given back when their registration ends, which is when the runs known here have.
        """
        if self.member.registered:
            self.member.retiring = True
            self.members.append(Member())

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
                await self._sleep([kind for kind, room in rooms.items() if room == 0])
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
        runs = await database.claim(self.control, member.id, capacity, self.about, kinds)
        if runs:
            self._in_vain = 0
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

    async def _sleep(self, full: list[str]) -> None:
        """Sleep until there is something to do; of the kinds `full` no more can be taken now."""
        light, longest = LIGHT
        while not self.stopping:
            beat = await self._beat(asleep=True)
            pause, due = self._longest_sleep(), False
            if beat.wake_after is None or beat.wake_after > 0:
                self._in_vain = 0
            if beat.wake_after is not None and beat.wake_after <= pause:
                pause, due = beat.wake_after, True
                if pause <= 0:
                    self._in_vain += 1
                    if not full and self._in_vain < 3:
                        return
                    pause = FIRE_PAUSE
                    if not full:  # others hold what there is: soon again, then later
                        pause = min(0.001 * 2 ** min(self._in_vain, 10), FIRE_PAUSE)
            if not beat.settled and light < pause:
                pause, due, light = light, False, min(light * 2, longest)
            events = await self._wait(pause, full)
            if events & Event.NOTIFIED:
                self._in_vain = 0
            if events & ~Event.FINISHED or (due and not events):
                if full and due and not events:
                    await self._claim(0)  # fires the kinds that it could not take
                return
            if events and (due or (beat.wake_after or FULL_SLEEP + 1) <= FULL_SLEEP):
                return  # a run has ended, for which others may have waited
            self.alarm.clear(Event.FINISHED)

    async def _wait(self, seconds: float, full: list[str]) -> int:
        """Wait for an event; more room is one only for a kind that had none."""
        if not full:
            return await self.alarm.wait(ANYTHING & ~Event.ROOM, seconds)
        until = self._loop.time() + seconds
        while True:
            events = await self.alarm.wait(ANYTHING, max(until - self._loop.time(), 0))
            if events != Event.ROOM or any(self.running.executors[kind].room for kind in full):
                return events
            self.alarm.clear(Event.ROOM)

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
                    await self.farewell(member)

    async def farewell(self, member: Member) -> None:
        """Give back what is still held under a registration, and end it."""
        try:
            await database.heartbeat(self.control, member.id, stopping=True)
        except WorkerLost:
            return

    def holding(self) -> list[UUID]:
        """Return the registrations that must not be forgotten by the database."""
        return [member.id for member in list(self.members) if member.held and not member.lost]

    def heard_in_thread(self, _worker: UUID, beat: Beat) -> None:
        """Take what the heartbeat's thread was answered."""
        if beat.cancels:
            self._loop.call_soon_threadsafe(self.running.cancel, beat.cancels)

    def lost_in_thread(self, worker: UUID) -> None:
        """Learn from the heartbeat's thread that a registration was declared lost."""
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
        self.running.stop_all(
            "released", self.settings.kill_grace, lambda run: run.member is member
        )
        self.alarm.set(Event.NOTIFIED)
