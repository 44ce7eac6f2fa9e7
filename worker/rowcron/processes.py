"""Several worker processes under a supervisor that passes signals on and replaces the fallen."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from rowcron.ending import end
from rowcron.errors import RowcronError
from rowcron.eventloop import run
from rowcron.log import complain
from rowcron.settings import WorkerSettings
from rowcron.signals import SIGNALS, heeded

SOONEST_RESTART = 1.0  # seconds
# What makes a start vain makes every further one vain: wrong settings, no schema, no rights.
VAIN = 2


class Supervisor:
    """Keeps `--processes` workers running."""

    def __init__(
        self, settings: WorkerSettings, work: Callable[[WorkerSettings], Coroutine[Any, Any, int]]
    ) -> None:
        self.settings = settings
        self.work = work
        self.children: dict[int, float] = {}
        self.stopping = False
        self.exit_code = 0
        # Children see the end of this pipe when the supervisor is gone, however it went.
        self.alive, self._held = os.pipe()

    def run(self) -> int:
        """Start the workers and wait for their end."""
        for number in heeded():
            signal.signal(number, self._forward)
        for _ in range(self.settings.processes):
            self._spawn()
        while self.children:
            try:
                pid, status = os.wait()
            except ChildProcessError:
                break
            self._ended(pid, os.waitstatus_to_exitcode(status))
        return self.exit_code

    def _forward(self, number: int, _frame: object) -> None:
        self.stopping = True
        for pid in self.children:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue

    def _spawn(self) -> None:
        """Start a worker, unless it is too late for one.

        A signal waits until we know the child, and in the child until it has its own way with it.
        """
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        if not self.stopping:
            pid = os.fork()
            if pid == 0:
                self._child(mask)
            self.children[pid] = time.monotonic()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _child(self, mask: set[Any]) -> NoReturn:
        code = 1
        try:
            os.close(self._held)
            # A terminal's Ctrl-C reaches the whole group; once from the supervisor is enough.
            os.setpgid(0, 0)
            for number in heeded():
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            code = run(self._worker(), self.settings)
        except RowcronError as error:
            complain(error)
            code = VAIN
        except KeyboardInterrupt:
            code = 0
        finally:
            end(code)  # an exit by exception would be the parent's own

    async def _worker(self) -> int:
        loop = asyncio.get_running_loop()
        loop.add_reader(self.alive, self._orphaned)
        return await self.work(self.settings)

    def _orphaned(self) -> None:
        asyncio.get_running_loop().remove_reader(self.alive)
        os.kill(os.getpid(), signal.SIGTERM)

    def _ended(self, pid: int, code: int) -> None:
        started = self.children.pop(pid, None)
        if started is None:
            return  # none of these workers: the embedded server, say
        if self.stopping and -code in SIGNALS:
            code = 0  # told to stop before it had begun
        if self.stopping or code == 0:
            self.exit_code = max(self.exit_code, abs(code))
            return
        if code == VAIN:
            self.exit_code = 1
            self._forward(signal.SIGTERM, None)
            return
        print(f"worker process {pid} ended with {code}; starting another", file=sys.stderr)
        pause = SOONEST_RESTART - (time.monotonic() - started)
        if pause > 0:
            select.select([], [], [], pause)
        self._spawn()
