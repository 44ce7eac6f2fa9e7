"""Answers that do not come: a peer that vanished without a word is told from one that is at work.

The kernel finds out a machine that is gone (keepalives, `tcp_user_timeout`), but not one in
between, a proxy or a firewall, that takes what is sent and forwards nothing. So when a statement is
silent for as long as `tcp_user_timeout` says, a new connection asks the server whether it works on
it. If not, or if nobody answers there either, the old connection is cut, and what follows a cut
follows. If it does but waits itself, for a lock or a standby, that is said once.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import psycopg
from psycopg import BaseConnection
from psycopg.conninfo import conninfo_to_dict

from rowcron.connection import brief, connect, cut
from rowcron.errors import RowcronError
from rowcron.log import Log

USUAL = 20.0  # seconds, unless the URL says tcp_user_timeout
UNKNOWN = (
    3  # times as long before a statement is given up about which a pooler's server says nothing
)
# Several sessions at once. Where track_activities is off the state is unknown, which is not idle.
_AT_WORK = """
  select
    pg_backend_pid(),
    coalesce(pg_catalog.json_object_agg(a.pid, case
      when a.wait_event_type = 'Lock' or a.wait_event = 'SyncRep' then a.wait_event
    end) filter (where a.state not like 'idle%%'), '{}')
  from pg_stat_activity as a where a.pid = any (%s)
"""
STANDBY = "SyncRep"
AWAY = (
    "for a synchronous standby (SyncRep); see pg_stat_replication and synchronous_standby_names:"
    " until it is back, nothing is claimed and no end recorded"
)


def patience(info: str) -> float:
    """Return for how long a statement may be silent before it is asked about: seconds."""
    milliseconds = conninfo_to_dict(info).get("tcp_user_timeout")
    return max(float(milliseconds or 0) / 1000, 1.0) if milliseconds else USUAL


class Watch:
    """Watches the statements of some connections, each while it is under way.

    Behind a pooler nobody can tell which session works for whom: `short` statements are cut there
    after three times the patience, others are left to their timeout.
    """

    def __init__(self, info: str, log: Log | None = None, *, short: bool) -> None:
        self.info = info
        self.short = short
        self._log = log
        self._told: set[BaseConnection[Any]] = set()  # that their statement waits
        self.seconds = patience(info)
        self._loop = asyncio.get_running_loop()
        self._since: dict[BaseConnection[Any], float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._asking: asyncio.Task[None] | None = None

    def begin(self, connection: BaseConnection[Any]) -> None:
        """A statement is sent; said from any thread."""
        self._since[connection] = time.monotonic()
        if self._timer is None:
            self._loop.call_soon_threadsafe(self._wind)

    def end(self, connection: BaseConnection[Any]) -> None:
        """It is answered, or cut; likewise."""
        self._since.pop(connection, None)
        self._told.discard(connection)

    def close(self) -> None:
        """Watch no more."""
        self._since.clear()
        if self._timer is not None:
            self._timer.cancel()
        if self._asking is not None:
            self._asking.cancel()

    def _wind(self) -> None:
        if self._timer is None and self._since:
            self._timer = self._loop.call_later(self.seconds, self._look)

    def _look(self) -> None:
        self._timer = None
        for connection in list(self._since):
            if connection.closed:  # by a thread that was interrupted before it could say so
                self.end(connection)
        under_way = self._since.copy()
        if not under_way:
            return  # the next statement sets the timer
        now = time.monotonic()
        late = {c: since for c, since in under_way.items() if now - since >= self.seconds}
        if late and (self._asking is None or self._asking.done()):
            self._asking = self._loop.create_task(self._ask(late))
        young = [since for c, since in under_way.items() if c not in late]
        next_look = min(young) + self.seconds if young else now + self.seconds
        self._timer = self._loop.call_later(next_look - now, self._look)

    async def _ask(self, late: dict[BaseConnection[Any], float]) -> None:
        """Cut those of `late` on which the server does not work."""
        pids = [connection.info.backend_pid for connection in late if not connection.closed]
        try:
            pooled, at_work = await self._at_work(pids)
        except RowcronError as error:
            if not isinstance(error.__cause__, psycopg.errors.ConnectionTimeout):
                return  # full, or restarting: that tells nothing about connections that stand
            pooled, at_work = False, {}
        await asyncio.sleep(min(self.seconds / 10, 1.0))  # the answer may be on its way
        now = time.monotonic()
        for connection, since in late.items():
            if self._since.get(connection) != since or connection.closed:
                continue
            if pooled and not (self.short and now - since > UNKNOWN * self.seconds):
                continue
            if not pooled and (pid := str(connection.info.backend_pid)) in at_work:
                self._tell(connection, at_work[pid], now - since)
                continue
            cut(connection)

    def _tell(self, connection: BaseConnection[Any], event: str | None, seconds: float) -> None:
        """Say once that a statement waits; for which locks a job does is its own affair."""
        if self._log is None or event is None or connection in self._told:
            return
        if event != STANDBY and not self.short:
            return
        self._told.add(connection)
        what = AWAY if event == STANDBY else f"for a lock ({event})"
        text = f"no answer for {seconds:.0f} s: the database waits {what}"
        self._log.event("waits", text, "warning", wait_event=event, seconds=seconds)

    async def _at_work(self, pids: list[int]) -> tuple[bool, dict[str, str | None]]:
        """Return whether a pooler is in between, and for what each that is at work waits."""
        connection = await connect(self.info)
        try:
            with brief(connection):
                cursor = await connection.execute(_AT_WORK, (pids,))
                row = await cursor.fetchone()
            assert row is not None
            return row[0] != connection.info.backend_pid, row[1]
        except psycopg.Error as error:
            raise RowcronError(str(error)) from error
        finally:
            await connection.close()
