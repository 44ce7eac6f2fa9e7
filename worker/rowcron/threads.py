"""Threads for handlers that are plain functions.

An executor of the standard library costs a future, two locks and a wake-up of the loop for each
call. Here calls wait in one queue, and the answers of many calls come back to the loop in one
wake-up.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue

from rowcron.models import Outcome, Run

Call = Callable[[Run], Outcome]

FIRST = 1  # threads that are made at once; more when these do not keep up
PATIENCE = 0.001  # seconds after which that is looked at
AGAIN = 1.0  # seconds until a thread is tried again that could not be made


class Stop(BaseException):
    """Raised inside a handler's thread when its run is to stop."""


class Threads:
    """At most `bound` threads, made when they are needed.

    A thousand calls that come together and do nothing but compute are done soonest by few threads,
    a thousand that wait by a thousand. So few begin, and while calls are left and threads are slow
    to come back for the next one, their number doubles.

    `call` is given a run and must return its outcome whatever happens; when it is interrupted it is
    called again, and sees by `run.stopping` that there is nothing left to do.
    """

    def __init__(self, bound: int, call: Call, done: Callable[[Run, Outcome], None]) -> None:
        self.bound = bound
        self.call = call
        self.done = done
        self.loop = asyncio.get_running_loop()
        self._busy: dict[Run, int] = {}  # thread; of one run there may be several attempts
        self._abandoned: set[int] = set()
        self._runs: SimpleQueue[Run | None] = SimpleQueue()
        self._answers: deque[tuple[Run, Outcome]] = deque()
        self._told = False
        self._unanswered: set[Run] = set()
        self._threads = 0
        self._growing = False
        self._limited = False  # and it was said
        self._begun = 0  # calls that threads have taken; may be short by some
        self._lock = threading.Lock()

    def start(self, run: Run) -> None:
        """Have a thread execute the run.

        Raises RuntimeError if there is none and none can be made; then it is not executed.
        """
        if self._threads < FIRST:
            self._add(1)
        self._unanswered.add(run)
        self._runs.put(run)
        if self._threads < min(len(self._unanswered), self.bound):
            self._grow_soon()

    def _add(self, count: int) -> None:
        for _ in range(count):
            threading.Thread(target=self._work, name="rowcron-handler", daemon=True).start()
            self._threads += 1

    def _grow_soon(self) -> None:
        if not self._growing:
            self._growing = True
            self.loop.call_later(PATIENCE, self._grow, self._begun)

    def _grow(self, begun: int) -> None:
        waiting, pause = self._runs.qsize(), PATIENCE
        if self._threads < FIRST or self._begun - begun < self._threads:
            try:
                self._add(min(waiting, max(self._threads, FIRST), self.bound - self._threads))
            except (RuntimeError, MemoryError) as error:  # a limit of the system
                pause = AGAIN
                if not self._limited:
                    logging.getLogger(__name__).warning(
                        "handlers share %d threads, not %d: %s; a lower --concurrency, or a higher"
                        " limit of memory or processes",
                        *(self._threads, self.bound, error),
                    )
                self._limited = True
        self._growing = waiting > 0 and self._threads < self.bound
        if self._growing:
            self.loop.call_later(pause, self._grow, self._begun)

    def _work(self) -> None:
        me = threading.get_ident()
        while (run := self._runs.get()) is not None:
            self._begun += 1
            with self._lock:
                if run.stopping:
                    continue  # stopped before it began; `stop` has answered
                self._busy[run] = me
            outcome = None
            while True:  # once, unless `Stop` strikes, which it may at any line
                try:
                    if outcome is None:
                        outcome = self.call(run)
                    with self._lock:
                        self._busy.pop(run, None)
                        if run.stopping is not None:
                            raise_in(me, None)  # from here on it cannot strike
                        abandoned = me in self._abandoned
                        self._abandoned.discard(me)
                    break
                except Stop:
                    continue
            if abandoned:
                return
            self._answers.append((run, outcome))
            if not self._told:
                self._told = True
                self.loop.call_soon_threadsafe(self._collect)

    def _collect(self) -> None:
        self._told = False
        while self._answers:
            run, outcome = self._answers.popleft()
            self._unanswered.discard(run)
            self.done(run, outcome)

    def stop(self, run: Run) -> bool:
        """Raise `Stop` where `run` is executed, at the next line of Python there.

        Returns False when it has not begun; then it will not, and no answer comes.
        """
        self._collect()
        if run not in self._unanswered:
            return True
        with self._lock:
            thread = self._busy.get(run)
            if thread is not None:
                raise_in(thread, Stop)
                return True
        self._unanswered.discard(run)
        return False

    def abandon(self, run: Run) -> bool:
        """Give up on the thread of a run that does not stop.

        Another takes its place, no answer comes.
        """
        with self._lock:
            thread = self._busy.get(run)
            if thread is None:
                return False
            self._abandoned.add(thread)
        self._threads -= 1
        self._unanswered.discard(run)
        if self._runs.qsize():
            self._grow_soon()
        return True

    def close(self) -> None:
        """Let the threads end."""
        for _ in range(self._threads):
            self._runs.put(None)


def raise_in(thread: int, error: type[BaseException] | None) -> None:
    """Raise an exception in another thread; None takes back one that has not arrived."""
    value = ctypes.py_object() if error is None else ctypes.py_object(error)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), value)
