"""Look-ups of host names for http jobs, so many at a time for each owner.

A name whose servers are silent takes the system half a minute and longer, and nothing ends that
sooner: the threads that an event loop has for it are few and everybody's. So each look-up has a
thread of its own, no owner has more than its share of them, and one that nobody waits for any more
counts for as long as it lasts. The threads are daemons: they do not keep a worker from ending.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import defaultdict
from contextlib import suppress
from typing import Any

EACH = 32  # at a time


class Lookups:
    """What is being looked up in this process."""

    def __init__(self, each: int = EACH) -> None:
        self._rooms: dict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(each))

    async def addresses(self, owner: str, host: str, port: int) -> list[str]:
        """Return a host's addresses, in the system's order. Raises OSError, UnicodeError."""
        loop = asyncio.get_running_loop()
        room = self._rooms[owner]
        await room.acquire()
        answer: asyncio.Future[list[str]] = loop.create_future()

        def told(found: list[str], error: Exception | None) -> None:
            room.release()
            if answer.done():  # cancelled
                return
            if error is None:
                answer.set_result(found)
            else:
                answer.set_exception(error)

        def look_up() -> None:
            found, failure = [], None
            try:
                found = look(host, port)
            except Exception as error:
                failure = error
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(told, found, failure)

        try:
            threading.Thread(target=look_up, name="rowcron-lookup", daemon=True).start()
        except RuntimeError as error:  # no more threads
            room.release()
            raise OSError(str(error)) from error
        return await answer


def look(host: str, port: int) -> list[str]:
    """Return a host's addresses, each once."""
    answers: list[Any] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(answer[4][0]).partition("%")[0] for answer in answers))
