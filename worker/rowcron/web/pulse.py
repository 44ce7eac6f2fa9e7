"""Whether anything has changed: one question a tick for all open pages, over one connection.

The connection is the process's own login's. It listens, too, so that a notification brings the
question forward; behind a pooler that drops LISTEN it is asked at every tick all the same. Where
the login may not ask, one of the roles that look does.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

import psycopg

from rowcron.errors import RowcronError
from rowcron.web.actor import Login
from rowcron.web.connections import Connection, open_connection

Beat = tuple[str, str]  # of the jobs; of runs, ledger and workers
ASK = "select p.jobs, p.work from rowcron.pulse() as p"
AGAIN = 60.0  # seconds until a login that may not ask tries again


class Pulse:
    """The one question."""

    def __init__(self, info: str) -> None:
        self.asked = 0
        self._info = info
        self._connection: Connection | None = None
        self._not_before = 0.0

    async def ask(self, login: Login) -> Beat:
        """Return two words that are others once something has changed.

        Raises `psycopg.Error`, `Refusal`.
        """
        self.asked += 1
        if time.monotonic() >= self._not_before:
            for _ in range(2):  # a connection that was cut is opened again, once
                try:
                    return await self._ask_self()
                except psycopg.OperationalError:
                    await self.close()
                except (psycopg.Error, RowcronError):
                    await self.close()
                    self._not_before = time.monotonic() + AGAIN
                    break
        async with login.glance() as asker:
            found = (await asker.rows(ASK))[0]
        return str(found["jobs"]), str(found["work"])

    async def _ask_self(self) -> Beat:
        if self._connection is None or self._connection.closed:
            self._connection = await open_connection(self._info)
            for statement in ("set role rowcron_web", "listen rowcron"):
                # a login that need not become it, a server that does not know it
                with contextlib.suppress(psycopg.ProgrammingError, psycopg.DataError):
                    await self._connection.execute(statement)
        found = await (await self._connection.execute(ASK)).fetchone()
        assert found is not None
        return str(found[0]), str(found[1])

    async def wait(self, seconds: float, wake: asyncio.Event) -> None:
        """Sleep so long, or until a notification comes or `wake` is set."""
        connection, loop = self._connection, asyncio.get_running_loop()
        number = None
        if connection is not None and not connection.closed:
            number = connection.fileno()
            loop.add_reader(number, wake.set)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await wake.wait()
        finally:
            if number is not None:
                loop.remove_reader(number)

    async def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()
