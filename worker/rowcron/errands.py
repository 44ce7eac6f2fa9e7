"""What a worker does beside its runs, and waits for before it stops."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from rowcron.errors import RowcronError
from rowcron.log import Log
from rowcron.session import Session, terminate


class Errands:
    """Tasks that nobody waits for until the end."""

    def __init__(self, info: str, log: Log) -> None:
        self.info = info
        self.log = log
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()

    def begin(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Do something beside the rest."""
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def end_session(self, session: Session, info: str | None) -> None:
        """End a session of ours that does not listen; if it is gone, all the better."""
        self.begin(self._end_session(session, info or self.info))

    async def _end_session(self, session: Session, info: str) -> None:
        try:
            await terminate(info, session)
        except RowcronError as error:
            self.log.debug(f"cannot terminate session {session.pid}: {error.message}")

    async def ended(self) -> None:
        """Wait until nothing is being done, not even what was begun meanwhile."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))
