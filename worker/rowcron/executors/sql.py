"""kind sql: `rowcron.execute` runs the command as its owner and records the end in one commit.

Each connection here executes jobs and nothing else, one at a time; there are `--sql-connections` of
them. The timeout is the server's own. Whoever survives it, or a cancel, for longer than the grace
is terminated. A job that names a `connection` runs over that one instead, statement by statement
(`rowcron.nonatomic`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import psycopg

from rowcron import database, nonatomic
from rowcron.connection import conninfo
from rowcron.errors import ClaimLost, RowcronError, Unavailable
from rowcron.executors import Host, stopped
from rowcron.lane import Lane
from rowcron.models import Outcome, Recorded, Run
from rowcron.pools import is_alive
from rowcron.silence import Watch
from rowcron.wake import TRIES, pause_after
from rowcron.wire import Wire

QUERY_CANCELED = "57014"
SLOW = 1.0  # seconds; what is assumed before anything is known
AHEAD = 0.1  # seconds' worth of runs taken beyond the lanes; a claim costs as much as 50 runs in it
MOST_AHEAD = 500
TIMELY = 0.01  # seconds; the server's clock and ours may differ so much about a timeout
PATIENCE = 1.0  # seconds that such a run waits before it is given back


class Executor:
    """Executes SQL jobs on its lanes.

    While runs are short, a few more than there are lanes are taken, so that no lane idles during a
    claim: as many as the lanes end in `AHEAD` seconds. Those that nevertheless wait for longer
    than `PATIENCE` are given back, because another worker may be idle.
    """

    def __init__(self, host: Host) -> None:
        self.host = host
        self.lanes: list[Lane] = []
        self.idle: list[Lane] = []
        self.waiting: deque[Run] = deque()
        self.held = 0
        self.looking: asyncio.TimerHandle | None = None  # at what waits
        self.pace = SLOW  # seconds that a run takes, lately

    @property
    def room(self) -> int:
        """One for each lane, and some ahead; none while half of those are still waiting."""
        wanted = len(self.lanes) + min(int(len(self.lanes) * AHEAD / self.pace), MOST_AHEAD)
        if self.waiting and self.held > wanted // 2:
            return 0
        return max(wanted - self.held, 0)

    async def open(self) -> None:
        """Make the lanes; each connects when it is first used."""
        settings = self.host.settings
        named = settings.sql_database_url
        self.info = conninfo(
            named or settings.database_url, "sql-database-url" if named else "database-url"
        )
        self.loop = asyncio.get_running_loop()
        self.watch = Watch(self.info, self.host.log, short=False)
        bound = min(settings.sql_connections, settings.concurrency)
        self.lanes = [Lane(number, self.host, self.info) for number in range(bound)]
        for lane in self.lanes:
            lane.task = self.loop.create_task(self._work(lane))

    async def close(self) -> None:
        """Close the connections."""
        self.watch.close()
        if self.looking is not None:
            self.looking.cancel()
        for lane in self.lanes:
            if lane.task is not None:
                lane.task.cancel()
            if lane.wire is not None:
                lane.wire.close()

    def start(self, run: Run) -> None:
        """Give the run to the next lane that is free."""
        self.held += 1
        self.waiting.append(run)
        if self.idle:
            wanted = self.idle.pop().wanted
            assert wanted is not None
            wanted.set_result(None)
        elif self.looking is None:
            self.looking = self.loop.call_later(PATIENCE, self._give_back)

    async def _work(self, lane: Lane) -> None:
        while True:
            if not self.waiting:
                self.idle.append(lane)
                lane.wanted = self.loop.create_future()
                await lane.wanted
                self._look_after(lane)
                continue
            run = self.waiting.popleft()
            run.state = lane
            lane.begin(run)
            begin = self.loop.time()
            try:
                outcome = await self._execute(lane, run)
            except Exception as error:
                outcome = Outcome("failed", "worker", f"{type(error).__name__}: {error}")
            lane.end(run)
            if lane.cancelling is not None:  # it must not strike the next run
                await asyncio.wait((lane.cancelling,))
                lane.cancelling = None
            if lane.bulky and lane.wire is not None:
                # libpq's buffer has grown to hold what the job said, and would stay so
                lane.bulky = False
                lane.wire.close()
            took = max(self.loop.time() - begin, 0.0001)
            self.pace += (took - self.pace) * (0.1 if took < self.pace else 0.5)
            self._done(run, outcome)

    def _look_after(self, lane: Lane) -> None:
        """Let go of a connection that was cut while it lay idle: it must not cost a run a loss."""
        wire = lane.wire
        if wire is not None and not wire.connection.closed and not is_alive(wire.connection):
            wire.close()

    def _done(self, run: Run, outcome: Outcome) -> None:
        self.held -= 1
        self.host.done(run, outcome)

    def _give_back(self) -> None:
        """Give back what has waited for too long; those in front have waited longest."""
        latest = self.loop.time() - PATIENCE
        while self.waiting and self.waiting[0].started <= latest:
            self.pace = SLOW
            self._done(self.waiting.popleft(), Outcome("released", "released"))
        self.looking = None
        if self.waiting:
            again = self.waiting[0].started + PATIENCE
            self.looking = self.loop.call_at(again, self._give_back)

    async def _execute(self, lane: Lane, run: Run) -> Outcome:
        if run.connection_name is not None:
            return await nonatomic.execute(self.host, lane.number, run)
        trouble = ""
        try:
            while run.stopping is None:
                wire = await self._connected(lane, run)
                if isinstance(wire, Outcome):
                    return wire
                if _is_stopped(run):
                    break  # told while there was nothing yet to be cancelled
                sent = self.loop.time()
                try:
                    recorded, text = await self._recorded(lane, wire, run)
                except RowcronError as error:
                    in_trouble = self._in_trouble(wire.connection, run, error)
                    took = self.loop.time() - sent
                    outcome = None if in_trouble else self._broken(lane, run, error, took)
                    # with whatever the job has left in the session, where nothing was cleaned up
                    wire.close()
                    if outcome is not None:
                        return outcome
                    # no room for its record, say: all is rolled back, and not for the job's fault
                    trouble = error.message
                    await asyncio.sleep(self.host.outage.failed(lane.part, error))
                else:
                    reason = None if recorded.outcome == "succeeded" else run.stopping
                    return Outcome(recorded.outcome, reason, text, recorded=recorded)
            return _not_executed(run, trouble)
        finally:
            self.host.outage.back(lane.part)

    async def _recorded(self, lane: Lane, wire: Wire, run: Run) -> tuple[Recorded, str | None]:
        self.watch.begin(wire.connection)
        try:
            return await database.execute(wire, run, watch=lane.watch)
        finally:
            self.watch.end(wire.connection)

    async def _connected(self, lane: Lane, run: Run) -> Wire | Outcome:
        """Return the lane's connection, or what becomes of a run for which there is none."""
        if lane.wire is not None and not lane.wire.connection.closed and run.stopping is None:
            return lane.wire
        trouble = "none was made in time"
        for attempt in range(TRIES):
            if run.stopping is not None:
                break
            try:
                return await lane.open()
            except RowcronError as error:
                trouble = error.message
            await asyncio.sleep(pause_after(attempt))
        return _not_executed(run, f"no connection to execute it: {trouble}")

    @staticmethod
    def _in_trouble(
        connection: psycopg.AsyncConnection[Any], run: Run, error: RowcronError
    ) -> bool:
        return (
            run.stopping is None
            and isinstance(error, Unavailable)
            and error.code != QUERY_CANCELED
            and not connection.closed
        )

    def _broken(self, lane: Lane, run: Run, error: RowcronError, took: float) -> Outcome:
        assert lane.connection is not None
        if isinstance(error, ClaimLost):
            return Outcome("lost", "claim", error.message, recorded=Recorded("lost", True, None))
        if not lane.connection.closed:  # refused before the job began, and rolled back
            if run.stopping is not None:
                return stopped(run)
            if error.code != QUERY_CANCELED:
                return Outcome("failed", "refused", error.message)
            if took >= run.seconds - TIMELY:
                return Outcome("failed", "timeout", error.message)
            return _not_executed(run, error.message)  # by somebody, outside the job's own code
        lane.connection = lane.wire = None
        if lane.session is not None:
            self.host.end_session(lane.session, self.info)
        if run.stopping is None:
            return Outcome("lost", "connection", error.message, in_doubt=True)
        outcome = stopped(run)
        outcome.in_doubt = True
        if run.stopping == "timeout":
            outcome.outcome = "lost"
            outcome.error = f"did not end when its timeout of {run.timeout} had passed; terminated"
        return outcome

    def stop(self, run: Run, grace: float) -> None:
        """Cancel the statement and terminate its session after `grace`, or at once."""
        lane: Lane | None = run.state
        if lane is None:
            if run in self.waiting:
                self.waiting.remove(run)
                self._done(run, stopped(run))
            return
        lane.stop(run, grace)


def _is_stopped(run: Run) -> bool:
    return run.stopping is not None


def _not_executed(run: Run, trouble: str) -> Outcome:
    """Return the outcome of a run of which nothing is left and whose job is not to blame.

    Be it that its time has passed meanwhile.
    """
    if run.stopping == "cancelled":
        return stopped(run)
    return Outcome("released", "connection", trouble)
