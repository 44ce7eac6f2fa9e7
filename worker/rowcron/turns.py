"""A worker's turns: claim, start, sleep.

A turn is one claim, which also fires what is due. When it brings less than there is room for,
nothing is left to do now: the worker says that it goes to sleep, learns for how long, and sleeps
until then, until a notification, or until its poll ends. Only the database's clock decides; this
side sleeps for intervals.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from rowcron.claims import Claims
from rowcron.errors import NotInstalled, NotPermitted, RowcronError, WorkerLost, WrongVersion
from rowcron.eventloop import BEGUN
from rowcron.heartbeat import Registration
from rowcron.link import Link
from rowcron.literals import text_array
from rowcron.log import Log
from rowcron.models import Beat
from rowcron.running import Running
from rowcron.settings import WorkerSettings
from rowcron.standing import Standing
from rowcron.wake import ANYTHING, Alarm, Event

# How often a worker that can take nothing more looks whether something is to be fired: seconds.
FIRE_PAUSE = 0.25
NARROW_PAUSE = 0.1  # in a flood of other kinds, how seldom those with little room are asked for
LIGHT = (0.005, 0.2)  # the first and the longest sleep while a sleep announced is not settled
FULL_SLEEP = 1.0  # the database answers 1 s when runs wait for others to end


class Turns:
    """Takes turns until `stopping`, which is "", "drain" or "now"."""

    def __init__(self, settings: WorkerSettings, log: Log, info: str, about: Registration) -> None:
        self.settings = settings
        self.alarm = Alarm()
        self.running = Running(settings, log, info, self.alarm)
        self.outage = self.running.outage
        self.control = Link(info, log, pins=True)
        self.standing = Standing(log, self.control, self.running, about)
        self.claims = Claims(self.control, self.running, self.standing, about)
        self.stopping = ""
        self._loop = asyncio.get_running_loop()
        self._flowing = False  # the last claim brought more than it takes to go on asking
        self._narrow_at = 0.0
        self._early = False  # woken before the instant for which the next claim is
        self._came_early = False  # in vain: to the next instant it comes when it is there
        self._told = False  # of something that was not asked about yet
        self._taking: asyncio.Task[float] | None = None  # what is ready
        self._done_before: int | None = None  # what had ended by the last claim, if none ran

    async def work(self) -> None:
        """Take turns; a database that is away is waited for."""
        while not self.stopping:
            try:
                if not self.standing.claiming.registered:
                    await self.standing.register()
                await self.standing.retire()
                await self._turn()
                self._works()
            except WorkerLost:
                continue  # as another
            except (NotInstalled, NotPermitted, WrongVersion) as error:
                # it was there at the start: restored, upgraded or granted just now
                await self.alarm.wait(Event.STOP, self.outage.failed("control", error))
            except RowcronError as error:  # unavailable, or what nobody foresaw
                self.standing.members.begin_anew()
                await self.alarm.wait(Event.STOP, self.outage.failed("control", error))

    async def _turn(self) -> None:
        self._told |= bool(self.alarm.events & Event.NOTIFIED)
        self.alarm.clear()
        self._done_before = None if self._holds() else self.running.ended
        free = self.claims.free()
        rooms = self.running.rooms()
        taking = [kind for kind, room in rooms.items() if room > 0]
        if free <= 0 or not taking:
            await self._wait_for_room()
            return
        # Of SQL jobs no more than there are connections; asked for together with the rest first, so
        # that one statement tells when there is nothing to do at all. While much is brought, the
        # rest goes first, and not in two pieces.
        narrow = {kind: room for kind, room in rooms.items() if 0 < room < free}
        wide = [kind for kind, room in rooms.items() if room >= free]
        few = min([free, *narrow.values()])
        early, self._early = self._early, False
        self._came_early = False
        if self._flowing and narrow and wide and not early:
            # what was brought is started while the next claim is on its way: not often a short one
            if self._loop.time() > self._narrow_at + NARROW_PAUSE:
                await self.claims.take(few, text_array(narrow))
                self._narrow_at = self._loop.time()
            self._flowing = await self.claims.take(free, text_array(wide)) > few
        else:
            if early and narrow and wide:  # the larger claim has the better of it
                few = free
                brought = await self.claims.take(few, text_array(wide), ahead=True)
                brought += await self.claims.take(
                    min(narrow.values()), text_array(narrow), ahead=not brought
                )
            else:
                kinds = None if len(taking) == len(rooms) else text_array(taking)
                brought = await self.claims.take(few, kinds, ahead=early)
            self._came_early = early and not brought
            if brought < few:
                if not self.stopping:
                    await self._sleep([kind for kind, room in rooms.items() if room == 0])
                return
            if narrow and wide and (free := self.claims.free()):
                self._flowing = await self.claims.take(free, text_array(wide)) > few
        if self._told and self._loop.time() - self.standing.asked_at > FIRE_PAUSE:
            await self._ask(asleep=None)  # never idle, but it may have been a cancel
        await asyncio.sleep(0)

    async def _wait_for_room(self) -> None:
        """Wait for a slot; meanwhile fire what falls due."""
        pause = FIRE_PAUSE
        # with reports in the way, room comes when they are answered, be it that nothing runs
        enough = Event.ROOM | Event.STOP | (Event.FINISHED if self.claims.is_choked else 0)
        while not self.stopping:
            if await self.alarm.wait(enough | Event.NOTIFIED, pause) & enough:
                return
            self.alarm.clear(Event.NOTIFIED)
            await self.standing.retire()
            beat = await self._ask(asleep=False)
            pause = self.longest_sleep()
            if beat.wake_after is not None:
                if beat.wake_after <= 0:
                    await self.claims.take(0)
                    pause = FIRE_PAUSE
                else:
                    pause = min(pause, beat.wake_after)
            self._works()

    async def _sleep(self, full: list[str]) -> None:
        """Sleep until there is something to do; of the kinds `full` no more can be taken now.

        Who is told that a few runs are ready takes them, and mostly sleeps on for a while.
        """
        light, longest = LIGHT
        idle = False
        while not self.stopping:
            await self.standing.retire()
            beat = await self._ask(asleep=True, full=full)
            was_idle, idle = idle, self.settings.until_idle and not full and self._is_idle(beat)
            if idle and (was_idle or beat.look_after is None):
                self.standing.log.event("idle", "stopping, nothing is left to do now")
                self.stopping = "drain"
                return
            pause, due = min(self.longest_sleep(), beat.look_after or FULL_SLEEP * 3600), False
            vain = False
            if beat.wake_after is None or beat.wake_after > 0:
                self.claims.in_vain = 0
            early = 0.0 if self._came_early else beat.lead
            if beat.wake_after is not None and beat.wake_after - early <= pause:
                pause, due = beat.wake_after, True
                if pause > 0:
                    pause = max(pause - early, 0.0)
                else:
                    early = 0.0
                    self.claims.in_vain += 1
                    if self.claims.in_vain < 3:
                        if full:
                            await self.claims.take(0)  # fires the kinds that it cannot take
                        return
                    # others hold what there is: soon again, then later; whatever is still open
                    vain = True
                    pause = min(0.001 * 2 ** min(self.claims.in_vain, 10), FIRE_PAUSE)
            if not (beat.settled or idle or vain) and light < pause:
                pause, due, light = light, False, min(light * 2, longest)
            soon = due or (beat.wake_after or FULL_SLEEP + 1) <= FULL_SLEEP
            soon |= self.settings.until_idle
            self._works()
            until = self._loop.time() + pause
            while True:
                events = await self._wait(until, full)
                if self._taking is not None:
                    if (stands := await self._taken()) == 0:
                        return
                    look = self._loop.time() + stands * random.uniform(0.5, 1.0)
                    if look < until:
                        until, due = look, False
                elif events != Event.FINISHED or soon:
                    break
                else:
                    self.alarm.clear(Event.FINISHED)
            if events & Event.NOTIFIED:
                self.claims.in_vain = 0
            if events & ~(Event.FINISHED | Event.AGAIN) or (due and not events):
                self._early = due and not events and early > 0
                if full and due and not events:
                    await self.claims.take(0)  # fires the kinds that it could not take
                return
            if events and soon:
                return  # a run has ended, for which others may have waited
            self.alarm.clear(Event.FINISHED | Event.AGAIN)

    def _take_ready(self) -> None:
        """Ask for what is ready from the notification itself: this task sleeps until the answer."""
        self.alarm.at_ready = None
        self.alarm.clear(Event.READY)
        self._taking = asyncio.Task(self.claims.take_ready(), loop=self._loop, **BEGUN)
        self._taking.add_done_callback(lambda _: self.alarm.set(Event.TAKEN))

    async def _taken(self) -> float:
        taking, self._taking = self._taking, None
        assert taking is not None
        try:
            return await taking
        finally:
            self.alarm.clear(Event.TAKEN)

    def _holds(self) -> bool:
        """Whether anything is claimed whose end the database does not have."""
        return any(member.held for member in self.standing.members)

    def _is_idle(self, beat: Beat) -> bool:
        """Whether nothing is left to do now, as far as the database looked.

        The last claim must have come after the last run's end, which may have let others start. And
        with `look_after` it did not look at everything: who asks again after that time knows.
        """
        nothing_due = beat.wake_after is None or beat.wake_after > 0
        return nothing_due and self._done_before == self.running.ended and not self._holds()

    async def _wait(self, until: float, full: list[str]) -> int:
        """Wait for an event; more room is one only for a kind that had none.

        What is ready is taken meanwhile.
        """
        if not self.stopping:
            self.claims.expect(full)
            self.alarm.at_ready = self._take_ready
            if self.alarm.events & Event.READY:
                self.alarm.at_ready()
        try:
            while True:
                seconds = max(until - self._loop.time(), 0.0)
                if not full:
                    return await self.alarm.wait(ANYTHING & ~(Event.ROOM | Event.READY), seconds)
                events = await self.alarm.wait(ANYTHING & ~Event.READY, seconds)
                if events != Event.ROOM or any(self.running.executors[kind].room for kind in full):
                    return events
                self.alarm.clear(Event.ROOM)
        except asyncio.CancelledError:
            if self._taking is not None:
                self._taking.cancel()
                await asyncio.wait((self._taking,))
            raise
        finally:
            self.alarm.at_ready = None

    def _works(self) -> None:
        """Whatever a turn asks has been answered: who can register may yet be refused claims."""
        self.outage.back("control")

    def longest_sleep(self) -> float:
        """Return how long this worker sleeps if nothing wakes it: seconds."""
        return min(self.settings.poll, self.settings.lease / 2)

    async def _ask(self, *, asleep: bool | None, full: Sequence[str] = ()) -> Beat:
        self._told = False
        return await self.standing.beat(asleep=asleep, full=full)
