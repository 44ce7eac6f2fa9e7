"""What a worker claims: how many runs, of which kinds, and that they begin."""

from __future__ import annotations

import asyncio

from rowcron import database
from rowcron.heartbeat import Registration
from rowcron.link import Link
from rowcron.literals import text_array
from rowcron.pace import Pace
from rowcron.running import Running
from rowcron.standing import Standing

MANY = 50  # runs that a claim brings, from which on the next one is sent before they begin
LARGEST = 1_000  # runs asked for in one claim
MOST_REPORTS = 2_000  # unanswered, and two a slot, beyond which nothing is claimed


class Claims:
    """Asks for runs under this worker's registration and has them begun."""

    def __init__(
        self, control: Link, running: Running, standing: Standing, about: Registration
    ) -> None:
        self.control = control
        self.running = running
        self.standing = standing
        self.about = about
        self.in_vain = 0  # looks for what is due now since the last claim that brought something
        self._few = 0
        self._wanted: database.Wanted = ()
        self._loop = asyncio.get_running_loop()
        self._pace = Pace(self._loop.time())

    def free(self) -> int:
        """Return how many runs may be claimed now, some ahead; none while reports pile up."""
        if self.is_choked:
            return 0
        running, most = self.running, self.running.settings.concurrency
        ahead = self._pace.measure(running.ended, self._loop.time())
        running.enough = most + ahead // 2
        if len(running.active) >= running.enough:
            return 0
        # not all at once, so that a claim is on its way while the one before is worked off
        return min(most + ahead - len(running.active), LARGEST)

    @property
    def is_choked(self) -> bool:
        """Whether the database takes reports too slowly for more runs to be worth claiming.

        Those put aside count, too, as each is held here and its run in the database: one that is
        refused on and on becomes one of a failure in the end, and the room comes back.
        """
        most, reporter = self.running.settings.concurrency, self.running.reporter
        return reporter.backlog + reporter.aside > 2 * most + MOST_REPORTS

    async def take(self, capacity: int, kinds: str | None = None, *, ahead: bool = False) -> int:
        """Claim up to so many runs of these kinds, as an array's text; return how many came."""
        with self.standing.asking() as member:
            runs = await database.claim(
                self.control, member.id, capacity, self.about, kinds, ahead=ahead
            )
        # where more is to be had, the next claim is sent before these are started
        last = ahead or len(runs) < min(capacity, MANY)
        self.running.begin(runs, member, at_once=last)
        if runs:
            self.in_vain = 0
            if last:
                await asyncio.sleep(0)  # handlers begin before anything else is asked
                if ahead:
                    await self.running.begun()
        return len(runs)

    def expect(self, full: list[str]) -> None:
        """Work out what to ask for when something is said to be ready: then time counts.

        The announcement said that of the kinds `full` no more can be taken.
        """
        free, rooms = self.free(), self.running.rooms()
        taking = {kind: room for kind, room in rooms.items() if room > 0}
        few = min([free, *taking.values()]) if taking else 0
        if not rooms.keys() - taking.keys() <= set(full):
            few = 0  # nobody here waits for room of a kind that has become full since
        kinds = None if len(taking) == len(rooms) else text_array(taking)
        self._few = few
        self._wanted = database.wanted(self.standing.claiming.id, few, self.about, kinds)

    async def take_ready(self) -> float:
        """Take what we were told of; return how long we may sleep on as announced: seconds."""
        few = self._few
        if few <= 0 or not (self.control.pinned or await self.control.pin()):
            return 0.0  # a whole turn
        with self.standing.asking() as member, self.running.committing(member) as commit:
            runs, stands = await database.claim_ready(self.control, self._wanted, commit.begin)
        self.running.begin([run for run in runs if run not in commit.begun], member, at_once=True)
        if runs:
            self.in_vain = 0
            await asyncio.sleep(0)  # handlers begin before anything else is asked
        return stands if len(runs) < few else 0.0
