"""Executors: one kind of job each, behind one protocol.

A kind of your own is a class named by an entry point of the group `rowcron.executors`; most derive
from `TaskExecutor` and write one coroutine. Workers execute the kinds that they were started with.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Protocol

from rowcron.capture import describe
from rowcron.errors import RowcronError
from rowcron.models import Outcome, Run
from rowcron.session import Session

if TYPE_CHECKING:
    from rowcron.log import Log
    from rowcron.settings import WorkerSettings
    from rowcron.wake import Outage

GROUP = "rowcron.executors"
OURS = ("sql", "shell", "http", "python")
UNBOUNDED = 1 << 30


class Host(Protocol):
    """What the worker is to an executor."""

    settings: WorkerSettings
    log: Log
    outage: Outage

    def done(self, run: Run, outcome: Outcome) -> None:
        """Take the outcome of a run that was started. Once a run, from the loop's thread."""

    def make_room(self) -> None:
        """Learn that `room` has grown."""

    def end_session(self, session: Session, info: str | None = None) -> None:
        """End a database session of ours that does not listen; `info` logs in as its role."""


class Executor(Protocol):
    """Executes one kind of job. All methods are called from the loop's thread.

    One that has `early(run) -> bool` is asked whether a run may start while its claim is being
    committed, which others do not see yet.
    """

    def __init__(self, host: Host) -> None: ...

    @property
    def room(self) -> int:
        """How many more runs it can start now."""

    async def open(self) -> None:
        """Get ready, before the first run."""

    def start(self, run: Run) -> None:
        """Begin; later, or now, call `host.done` with the outcome.

        Set `run.begun` before anything is done that is not rolled back when the worker stops.
        """

    def stop(self, run: Run, grace: float) -> None:
        """Stop a run, because of `run.stopping`: ask, and force it after `grace` seconds.

        `host.done` is still called, with `stopped(run)` unless it ended by itself. May be called
        again, with less grace.
        """

    async def close(self) -> None:
        """Let go of everything; nothing runs any more."""


def load(kind: str) -> Callable[[Host], Executor]:
    """Return the executor's class for a kind. Raises `RowcronError` if there is none."""
    if kind in OURS:
        found: Callable[[Host], Executor] = import_module(f"rowcron.executors.{kind}").Executor
        return found
    for point in entry_points(group=GROUP, name=kind):
        loaded: Callable[[Host], Executor] = point.load()
        return loaded
    raise RowcronError(
        f'no executor for kind "{kind}"',
        detail=f"Known are {', '.join(OURS)}, and what packages name in entry point group {GROUP}.",
        hint=f"install the package that brings kind {kind}, or leave out --kind {kind}",
    )


def stopped(run: Run, output: str | None = None) -> Outcome:
    """Return the outcome of a run that was stopped before it ended by itself."""
    match run.stopping:
        case "timeout":
            return Outcome("failed", "timeout", f"timed out after {run.timeout}", output)
        case "cancelled":
            return Outcome("cancelled", "cancelled", None, output)
        case _ if run.begun:
            return Outcome("stopped", "its worker was stopped", None, output)
        case _:
            return Outcome("released", "released", None, output)


class TaskExecutor:
    """An executor whose runs are tasks.

    Write `execute`, expect `CancelledError` when it is to stop.
    """

    def __init__(self, host: Host) -> None:
        self.host = host

    @property
    def room(self) -> int:
        """No bound of its own."""
        return UNBOUNDED

    async def open(self) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        """Nothing to do."""

    async def execute(self, run: Run) -> Outcome:
        """Execute and return the outcome; an exception is a failure."""
        raise NotImplementedError

    def start(self, run: Run) -> None:
        """Begin a task."""
        task = asyncio.get_running_loop().create_task(self._begin(run))
        run.state = task
        task.add_done_callback(lambda done: self._ended(run, done))

    async def _begin(self, run: Run) -> Outcome:
        run.begun = True
        return await self.execute(run)

    def _ended(self, run: Run, task: asyncio.Task[Outcome]) -> None:
        if task.cancelled():
            outcome = stopped(run)
        elif (error := task.exception()) is not None:
            outcome = Outcome("failed", "exception", describe(error))
        else:
            outcome = task.result()
        self.host.done(run, outcome)

    def stop(self, run: Run, grace: float) -> None:
        """Cancel the task."""
        task: asyncio.Task[Any] = run.state
        task.cancel()
