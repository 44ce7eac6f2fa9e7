"""A thread that logs what async handlers raise, in place of the event loop.

An application's logging handler may take seconds (mail, HTTP), in which the loop could neither
claim nor report, and runs that did nothing wrong would time out. Plain handlers log in theirs.
"""

from __future__ import annotations

import atexit
import logging
import time
from contextlib import suppress
from contextvars import Context, copy_context
from queue import Full, Queue
from threading import Thread

from rowcron.log import Log
from rowcron.models import Run
from rowcron.returned import tell

MOST = 100  # that wait: each keeps what its traceback leads to, a handler's variables
LAST_WORDS = 1.0  # seconds that these are waited for at the end


class Teller:
    """Logs in the order in which it was told. What there is no room for, the ledger alone has."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self._waiting: Queue[tuple[Context, Run, BaseException] | None] = Queue(MOST)
        self._thread: Thread | None = None
        self._behind = False  # and it was said

    def tell(self, run: Run, error: BaseException) -> None:
        """Have it logged soon, in the caller's context: what a handler's tags are kept in."""
        try:
            self._waiting.put_nowait((copy_context(), run, error))
            if self._thread is None:
                thread = Thread(target=self._work, name="rowcron-telling", daemon=True)
                thread.start()
                self._thread = thread
        except Full:
            if not self._behind:
                self._behind = True
                text = (
                    "the application's logging is behind with what async handlers raise: until it"
                    " has caught up, some of that is in rowcron.history alone"
                )
                self.log.event("behind", text, "warning")
        except RuntimeError:  # no thread can be made now; with the next one it is tried again
            return

    def _work(self) -> None:
        while self._tell_next():
            if self._waiting.empty():
                self._behind = False

    def _tell_next(self) -> bool:
        """Nothing of what was told is kept while it waits for the next."""
        told = self._waiting.get()
        if told is not None:
            context, run, error = told
            context.run(tell, run, error)
        return told is not None

    def close(self) -> None:
        """Let the rest be logged, but wait only a moment for that."""
        if self._thread is not None:
            until = time.monotonic() + LAST_WORDS
            with suppress(Full):
                self._waiting.put(None, timeout=LAST_WORDS)
            self._thread.join(max(0.0, until - time.monotonic()))
            if self._thread.is_alive():
                atexit.unregister(logging.shutdown)  # which waits for what that thread is in
