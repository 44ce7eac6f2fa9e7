"""The registrations under which a worker claims: the one that does, and older ones that hold runs.

After an outage, and when the database has declared it lost, a worker goes on under another one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from rowcron import heartbeat
from rowcron.errors import WorkerLost
from rowcron.link import Link

if TYPE_CHECKING:
    from rowcron.models import Run

ASK_AGAIN = 1.0  # seconds between giving back what a registration holds without our knowing


class Member:
    """One registration in `rowcron.worker`."""

    def __init__(self) -> None:
        self.id: UUID = uuid4()
        self.held: set[Run] = set()  # claimed under it, and their end is not settled
        self.asked = 0.0  # when the database was last told what is held, by the loop's clock
        self.registered = False
        self.retiring = False  # claims no more; another has taken its place
        self.lost = False  # declared so by the database


class Members:
    """All of a worker's registrations; the last one claims."""

    def __init__(self, control: Link) -> None:
        self.control = control
        self._members = [Member()]
        self._loop = asyncio.get_running_loop()

    def __iter__(self) -> Iterator[Member]:
        return iter(list(self._members))

    @property
    def claiming(self) -> Member:
        """The registration under which this worker claims."""
        return self._members[-1]

    def begin_anew(self) -> None:
        """Go on under another registration.

        A crash without synchronous commit, or a failover, may have undone what was committed last:
        the database then counts runs as held here that this side has finished, or never heard of.
        A claim whose answer was cut off leaves such runs, too. They are given back at once, and
        again and again until the runs known here have ended: a claim may commit long after the cut.
        """
        if self.claiming.registered:
            self.claiming.retiring = True
            self._members.append(Member())

    def lose(self, member: Member) -> None:
        """Take note that the database has declared one lost."""
        member.lost = member.retiring = True
        if member is self.claiming:
            self._members.append(Member())

    def known(self, worker: UUID) -> Member | None:
        """Return the registration with that id, if it is not lost yet."""
        return next((m for m in self._members if m.id == worker and not m.lost), None)

    async def retire(self) -> list[Member]:
        """End those that hold nothing any more, and let go of what others hold unknowingly.

        Returns those of which the database says that they are lost.
        """
        lost = []
        for member in self._members[:-1]:
            if not member.held or member.lost:
                if not member.lost:
                    await self.farewell(member)  # if that is cut off, too, it is said again
                self._members.remove(member)
            elif (now := self._loop.time()) >= member.asked + ASK_AGAIN:
                member.asked = now
                try:
                    await heartbeat.tell_held(self.control, member.id, member.held)
                except WorkerLost:
                    lost.append(member)
        return lost

    async def farewell(self, member: Member) -> None:
        """Give back what is still held under a registration, and end it."""
        try:
            await heartbeat.beat(self.control, member.id, stopping=True, held=member.held)
        except WorkerLost:
            return

    def holding(self) -> list[UUID]:
        """Return the registrations that must not be forgotten by the database; from any thread."""
        return [member.id for member in self if member.held and not member.lost]

    def registered(self) -> list[UUID]:
        """Return the registrations that the database knows; from any thread."""
        return [member.id for member in self if member.registered and not member.lost]
