"""kind sql: `rowcron.execute` runs the command as its owner and records the end in one commit.

Each connection here executes jobs and nothing else, one at a time; there are `--sql-connections` of
them. The timeout is the server's own. Whoever survives it, or a cancel, for longer than the grace
is terminated. A job that names a `connection` runs over that one instead, statement by statement
(`rowcron.nonatomic`).
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from typing import Any

import psycopg

from rowcron import database, nonatomic
from rowcron.connection import connect, conninfo
from rowcron.errors import ClaimLost, RowcronError, Unavailable
from rowcron.executors import Host, stopped
from rowcron.handed import cut
from rowcron.models import Outcome, Recorded, Run, Session

QUERY_CANCELED = "57014"
TRIES = 10  # to get a connection for a run that is claimed already
CUT_AFTER = 5.0  # seconds between terminating a session and giving up on its connection
CANCEL_AGAIN = 0.1  # seconds
SLOW = 1.0  # seconds; what is assumed before anything is known
AHEAD = 0.05  # seconds' worth of runs taken beyond the lanes
MOST_AHEAD = 200
PATIENCE = 1.0  # seconds that such a run waits before it is given back


class Lane:
    """One connection and what it executes."""

    def __init__(self) -> None:
        self.connection: psycopg.AsyncConnection[Any] | None = None
        self.session: Session | None = None
        self.run: Run | None = None
        self.wanted: asyncio.Future[None] | None = None  # set while it is idle
        self.task: asyncio.Task[None] | None = None
        self.cancelling: asyncio.Task[None] | None = None


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
        self.info = conninfo(settings.database_url)
        self.loop = asyncio.get_running_loop()
        bound = min(settings.sql_connections, settings.concurrency)
        self.lanes = [Lane() for _ in range(bound)]
        for lane in self.lanes:
            lane.task = self.loop.create_task(self._work(lane))

    async def close(self) -> None:
        """Close the connections."""
        for lane in self.lanes:
            if lane.task is not None:
                lane.task.cancel()
            if lane.connection is not None:
                await lane.connection.close()

    def start(self, run: Run) -> None:
        """Give the run to the next lane that is free."""
        self.held += 1
        self.waiting.append(run)
        if self.idle:
            wanted = self.idle.pop().wanted
            assert wanted is not None
            wanted.set_result(None)
        else:
            self.loop.call_later(PATIENCE, self._give_back, run)

    async def _work(self, lane: Lane) -> None:
        while True:
            if not self.waiting:
                self.idle.append(lane)
                lane.wanted = self.loop.create_future()
                await lane.wanted
                continue
            run = self.waiting.popleft()
            lane.run, run.state = run, lane
            begin = self.loop.time()
            try:
                outcome = await self._execute(lane, run)
            except Exception as error:
                outcome = Outcome("failed", "worker", f"{type(error).__name__}: {error}")
            lane.run = None
            if lane.cancelling is not None:  # it must not strike the next run
                await asyncio.wait((lane.cancelling,))
                lane.cancelling = None
            took = max(self.loop.time() - begin, 0.0001)
            self.pace += (took - self.pace) * (0.1 if took < self.pace else 0.5)
            self._done(run, outcome)

    def _done(self, run: Run, outcome: Outcome) -> None:
        self.held -= 1
        self.host.done(run, outcome)

    def _give_back(self, run: Run) -> None:
        if run.state is None and run in self.waiting:
            self.pace = SLOW
            self.waiting.remove(run)
            self._done(run, Outcome("released", "released"))

    async def _execute(self, lane: Lane, run: Run) -> Outcome:
        if run.connection_name is not None:
            return await nonatomic.execute(self.host, lane, run)
        connection = await self._connected(lane, run)
        if isinstance(connection, Outcome):
            return connection
        if run.stopping is not None:
            return stopped(run)
        try:
            recorded, text = await database.execute(connection, run)
        except ClaimLost as error:
            return Outcome("lost", "claim", error.message, recorded=Recorded("lost", True, None))
        except RowcronError as error:
            return self._broken(lane, run, error)
        reason = None if recorded.outcome == "succeeded" else run.stopping
        return Outcome(recorded.outcome, reason, text, recorded=recorded)

    async def _connected(self, lane: Lane, run: Run) -> psycopg.AsyncConnection[Any] | Outcome:
        """Return the lane's connection, or what becomes of a run for which there is none."""
        for attempt in range(TRIES):
            if run.stopping is not None:
                return stopped(run)
            try:
                return await self._open(lane)
            except RowcronError as error:
                trouble = error.message
            await asyncio.sleep(min(0.1 * 2**attempt, 5.0) * random.uniform(0.5, 1.0))
        return Outcome("released", "connection", f"no connection to execute it: {trouble}")

    def _broken(self, lane: Lane, run: Run, error: RowcronError) -> Outcome:
        assert lane.connection is not None
        if not lane.connection.closed:  # refused before the job began, and rolled back
            if run.stopping is not None:
                return stopped(run)
            reason = "timeout" if error.code == QUERY_CANCELED else "refused"
            return Outcome("failed", reason, error.message)
        lane.connection = None
        if lane.session is not None:
            self.host.end_session(lane.session)
        if run.stopping is None:
            return Outcome("lost", "connection", error.message, in_doubt=True)
        outcome = stopped(run)
        outcome.in_doubt = True
        if run.stopping == "timeout":
            outcome.outcome = "lost"
            outcome.error = f"did not end when its timeout of {run.timeout} had passed; terminated"
        return outcome

    async def _open(self, lane: Lane) -> psycopg.AsyncConnection[Any]:
        if lane.connection is None or lane.connection.closed:
            lane.session = None
            lane.connection = connection = await connect(self.info)
            connection.add_notice_handler(lambda notice: self._notice(lane, notice))
            try:
                lane.session = await database.session_of(connection)
            except psycopg.Error as error:
                raise Unavailable(str(error)) from error
        return lane.connection

    def _notice(self, lane: Lane, notice: psycopg.errors.Diagnostic) -> None:
        run = lane.run
        if run is not None:
            severity = (notice.severity_nonlocalized or "NOTICE").lower()
            self.host.log.event(
                "notice",
                f"{run.owner}.{run.job} run {run.run_id} {severity}: {notice.message_primary}",
                "warning" if severity == "warning" else "info",
                run_id=run.run_id,
                severity=severity,
                message=notice.message_primary,
                detail=notice.message_detail,
            )

    def stop(self, run: Run, grace: float) -> None:
        """Cancel the statement and terminate its session after `grace`, or at once."""
        lane: Lane | None = run.state
        if lane is None:
            if run in self.waiting:
                self.waiting.remove(run)
                self._done(run, stopped(run))
            return
        if lane.connection is None:
            return  # it sees `run.stopping` before it begins
        loop = self.loop
        if run.stopping == "cancelled" and grace > 0:
            lane.cancelling = loop.create_task(self._cancel(lane, run, lane.connection))
            loop.call_later(grace, self._terminate, lane, run)
        else:
            self._terminate(lane, run)

    async def _cancel(self, lane: Lane, run: Run, connection: psycopg.AsyncConnection[Any]) -> None:
        # again and again: the first may arrive before the statement does
        while lane.run is run and lane.connection is connection:
            try:
                await connection.cancel_safe(timeout=CUT_AFTER)
            except psycopg.Error:
                self._terminate(lane, run)
                return
            await asyncio.sleep(CANCEL_AGAIN)

    def _terminate(self, lane: Lane, run: Run) -> None:
        if lane.run is not run or lane.connection is None:
            return
        if lane.session is None:
            cut(lane.connection)
            return
        self.host.end_session(lane.session)
        self.loop.call_later(CUT_AFTER, self._cut, lane, run, lane.connection)

    def _cut(self, lane: Lane, run: Run, connection: psycopg.AsyncConnection[Any]) -> None:
        if lane.run is run and lane.connection is connection:
            cut(connection)
