"""The worker: it gets ready, works, and stops when it is told to.

What it does in between stands in `rowcron.turns`: wake, claim, execute, finish.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import Coroutine
from typing import Any

from psycopg.conninfo import conninfo_to_dict

from rowcron import ending, executors, heartbeat, signals
from rowcron.connection import conninfo
from rowcron.errors import NotPermitted, RowcronError, Unavailable
from rowcron.eventloop import run
from rowcron.handlers import HANDLERS, load_app
from rowcron.introduction import introduce, offered
from rowcron.limits import close_process
from rowcron.listener import Listener
from rowcron.log import Bridge, Log
from rowcron.processes import Supervisor
from rowcron.pulse import Pulse
from rowcron.settings import WorkerSettings
from rowcron.turns import Turns
from rowcron.wake import Event

GIVE_UP = 10.0  # seconds for killed runs to end and reports to be taken, when stopping at once
FAREWELL = 2.0  # seconds for a last word
LAST_TURN = 2.0  # seconds for the statement under way when it is told to stop
OWN_FAULT = 70  # exit code, sysexits' EX_SOFTWARE


class Worker:
    """One process's hands. `run` returns its exit code."""

    def __init__(self, settings: WorkerSettings, log: Log) -> None:
        self.settings = settings
        self.log = log
        self.info = conninfo(settings.database_url)
        handlers = load_app(settings.app)
        about = heartbeat.describe(
            settings.queues,
            settings.kinds,
            sorted(offered(handlers, settings)),
            settings.concurrency,
            settings.lease,
            settings.poll,
        )
        self.turns = Turns(settings, log, self.info, about)
        self.running = self.turns.running
        self.exit_code = 0
        self._interruptible: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()

    async def run(self) -> int:
        """Work until stopped. Raises `RowcronError` when it cannot start."""
        self.log.loop = self._loop
        Bridge(self.log).install()
        for kind in self.settings.kinds:
            self.running.executors[kind] = executors.load(kind)(self.running)
            await self.running.executors[kind].open()
        spare_garbage_collector()
        signals.hear(self._loop, self._signalled)
        turns, outage = self.turns, self.turns.outage
        listener = Listener(self.info, turns.longest_sleep(), self.log, turns.alarm, outage)
        lease = self.settings.lease
        pulse = Pulse(
            self.info,
            lease,
            turns.standing.members.registered,
            turns.standing.members.holding,
            turns.standing.heard_in_thread,
            turns.standing.lost_in_thread,
            turns.standing.pulse_away_in_thread,
        )
        tasks: list[asyncio.Task[None]] = []
        try:
            await self._hearing_signals(self._until_registered())
            if turns.standing.claiming.registered:
                tasks += [self._task(listener.run()), self._task(self.running.reporter.run())]
                pulse.start()
                await self._hearing_signals(turns.work())
                await self._stop(pulse)
        finally:
            pulse.stop()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for executor in self.running.executors.values():
                await executor.close()
            await turns.control.close()
            await self.running.reporter.link.close()
            signals.unhear(self._loop)
            self.log.event(
                "stop",
                "worker stopped",
                worker=str(turns.standing.claiming.id),
                exit_code=self.exit_code,
            )
        return self.exit_code

    def _task(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(coroutine)
        task.add_done_callback(self._ended)
        return task

    async def _hearing_signals(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Let it run. Told to stop, it may end by itself, but it may also wait for a lock."""
        self._interruptible = task = self._loop.create_task(coroutine)
        try:
            await asyncio.wait((task,))
        finally:
            self._interruptible = None
            task.cancel()
        if not task.cancelled():
            task.result()

    def _interrupt(self) -> None:
        if self._interruptible is not None:
            self._interruptible.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.log.event("defect", f"worker's own fault: {error!r}", "error")
            self.exit_code = OWN_FAULT
            self._signalled(signal.SIGTERM)

    def _signalled(self, number: int) -> None:
        now = bool(self.turns.stopping) or number == signal.SIGHUP
        self.turns.stopping = "now" if now else "drain"
        text = "stopping at once" if now else f"stopping, {len(self.running.active)} runs to finish"
        self.log.event("drain", text, signal=signal.Signals(number).name)
        self.turns.alarm.set(Event.STOP)
        if now:
            self._interrupt()
        else:
            self._loop.call_later(LAST_TURN, self._interrupt)

    async def _until_registered(self) -> None:
        turns = self.turns
        while not turns.stopping:
            try:
                await turns.standing.register()
                introduce(self.log, self.settings, turns.standing.claiming.id, HANDLERS)
                return
            except NotPermitted as error:
                login = conninfo_to_dict(self.info).get("user") or os.environ.get("PGUSER", "...")
                error.hint = error.hint or f"as an administrator: grant rowcron_worker to {login};"
                raise
            except Unavailable as error:
                pause = turns.outage.failed("control", error)
                await turns.alarm.wait(Event.STOP, pause)

    async def _stop(self, pulse: Pulse) -> None:
        """Let runs finish, give back what is left, say goodbye."""
        running, turns = self.running, self.turns
        running.give_back()
        if turns.stopping == "drain" and running.active:
            await self._settled_within(self.settings.grace)
        if running.active:
            grace = 0.0 if turns.stopping == "now" else min(self.settings.kill_grace, 2.0)
            ending.leave(list(running.active.values()))  # threads of theirs may go on
            running.stop_all("released", grace)
        if not await self._settled_within(GIVE_UP):
            left = len(running.active) + running.reporter.backlog + running.reporter.aside
            self.log.event("left", f"{left} runs are left to the lease", "warning")
            self.exit_code = 1
        await pulse.end()
        for member in turns.standing.members:
            try:
                if member.registered or member.retiring:
                    await asyncio.wait_for(turns.standing.members.farewell(member), FAREWELL)
            except (RowcronError, TimeoutError):
                self.exit_code = 1

    async def _settled_within(self, seconds: float) -> bool:
        """Wait for the last run and its report; a second signal ends the patience."""
        waiting = asyncio.create_task(self.running.settled())
        before = self.turns.stopping
        until = self._loop.time() + seconds
        while not waiting.done() and self._loop.time() < until and self.turns.stopping == before:
            await asyncio.wait((waiting,), timeout=min(until - self._loop.time(), 0.05))
        if waiting.done():
            return True
        waiting.cancel()
        return False


def spare_garbage_collector() -> None:
    """Look for cycles less often: at full speed a quarter of this process's time went there.

    What is there now stays; of the rest twenty thousand objects may gather between two looks.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)


async def run_worker(settings: WorkerSettings) -> int:
    """Run one worker in this process until it is stopped; return its exit code.

    0 after a drain, 1 when something had to be left to the lease. Raises `RowcronError` when it
    cannot start. Handles SIGINT, SIGTERM and SIGHUP meanwhile.
    """
    log = Log.from_settings(settings)
    try:
        return await Worker(settings, log).run()
    finally:
        log.close()


def serve(settings: WorkerSettings) -> int:
    """Run the worker or workers that the settings ask for; return the exit code.

    Raises `RowcronError` when a single worker cannot start; of several, each says so itself.
    """
    if "shell" in settings.kinds:
        close_process()
    if settings.processes == 1:
        return run(run_worker(settings), settings)
    return Supervisor(settings, run_worker).run()
