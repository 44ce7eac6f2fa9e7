"""A worker's standing with the database: what it says about itself, and what it is told.

It registers, gives signs of life, hears of cancels and changes, and of having been declared lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from uuid import UUID

from rowcron import heartbeat, narrate
from rowcron.errors import WorkerLost
from rowcron.heartbeat import Registration
from rowcron.link import Link
from rowcron.log import Log
from rowcron.members import Member, Members
from rowcron.models import Beat
from rowcron.running import Running
from rowcron.wake import Event


class Standing:
    """Speaks for all of a worker's registrations; `claiming` is the one that claims."""

    def __init__(self, log: Log, control: Link, running: Running, about: Registration) -> None:
        self.log = log
        self.control = control
        self.running = running
        self.about = about
        self.members = Members(control)
        self.asked_at = 0.0  # by the loop's clock
        self._change = 0 if log.audits or log.level <= 20 else None
        self._held: str | None = None
        self._loop = asyncio.get_running_loop()

    @property
    def claiming(self) -> Member:
        """The registration under which this worker claims."""
        return self.members.claiming

    @contextmanager
    def asking(self) -> Iterator[Member]:
        """Ask something for the registration that claims, and learn if it is lost."""
        member = self.claiming
        try:
            yield member
        except WorkerLost:
            self.lost(member)
            raise

    async def retire(self) -> None:
        """End the older registrations as far as they hold nothing any more."""
        for member in await self.members.retire():
            self.lost(member)

    async def register(self) -> None:
        """Make this worker known. Raises `Unavailable`, `NotInstalled`, `WrongVersion`, ..."""
        with self.asking() as member:
            beat = await heartbeat.register(self.control, member.id, self.about, self._change)
        member.registered = True
        self._heard(beat)
        text = f"worker {member.id} registered"
        self.log.event("registered", text, "debug", worker=str(member.id))

    async def beat(self, *, asleep: bool | None, full: Sequence[str] = ()) -> Beat:
        """Give a sign of life and hear what there is; of the kinds `full` no more can be taken.

        Raises `WorkerLost`, `Unavailable`, ...
        """
        self.asked_at = self._loop.time()
        with self.asking() as member:
            beat = await heartbeat.beat(self.control, member.id, asleep, self._change, full=full)
        self._heard(beat)
        return beat

    def _heard(self, beat: Beat) -> None:
        if beat.held != self._held:
            self._held = beat.held
            narrate.held(self.log, beat.held)
        self.running.cancel(beat.cancels)
        for change in beat.changes:
            if self._change:
                narrate.changed(self.log, change)
            self._change = change["id"]

    def lost(self, member: Member) -> None:
        """Declared lost: what runs under it is somebody else's now."""
        if member.lost:
            return
        self.members.lose(member)
        text = f"worker {member.id} was declared lost (RCWRK); stopping {len(member.held)} runs"
        self.log.event("lost", text, "warning", worker=str(member.id), code="RCWRK")
        running = self.running
        running.stop_all("released", running.settings.kill_grace, lambda run: run.member is member)
        running.alarm.set(Event.NOTIFIED)

    def heard_in_thread(self, _worker: UUID, beat: Beat) -> None:
        """Take what the heartbeat's thread was answered."""
        if beat.cancels:
            self._loop.call_soon_threadsafe(self.running.cancel, beat.cancels)

    def lost_in_thread(self, worker: UUID) -> None:
        """Learn from the heartbeat's thread that a registration was declared lost."""
        self._loop.call_soon_threadsafe(self._lost_by_id, worker)

    def _lost_by_id(self, worker: UUID) -> None:
        if (member := self.members.known(worker)) is not None:
            self.lost(member)

    def pulse_away_in_thread(self) -> None:
        """Learn that the heartbeat's thread cannot speak; give a sign of life instead."""
        self._loop.call_soon_threadsafe(self.running.alarm.set, Event.NOTIFIED)
