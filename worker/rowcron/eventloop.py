"""Which event loop a worker runs on.

uvloop's takes an eighth less CPU for a run that does nothing and a quarter less for one that waits
(docs/decisions/019). But what it starts writes to a socket, which cannot be opened by its name in
/dev, inherits the same descriptors twice, and cannot be another user's: so not where shell jobs
are executed.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import Context
from typing import Any, Final, TypeVar

from rowcron import ending, forked
from rowcron.errors import BadSettings
from rowcron.settings import WorkerSettings

T = TypeVar("T")
PATIENCE: Final = 1.0  # seconds for tasks that were cancelled, and for the loop's threads, to end
THREADS: Final = "rowcron-loop"  # how they are named
# From Python 3.12 a task may begin at once: one that never waits then costs the loop nothing.
BEGUN: dict[str, Any] = {"eager_start": True} if sys.version_info >= (3, 12) else {}


class Pool(ThreadPoolExecutor):
    """The loop's threads, for `asyncio.to_thread`."""

    def submit(self, function: Callable[..., T], /, *args: Any, **options: Any) -> Future[T]:
        """Have it called; a child that it forks does not go on with the calls in line."""
        return super().submit(forked.call, function, *args, **options)


def run(main: Coroutine[Any, Any, int], settings: WorkerSettings) -> int:
    """Run `main` to its end and return what it returns. Raises `BadSettings`."""
    try:
        factory = loop_factory(settings)
    except BadSettings:
        main.close()
        raise
    runner = asyncio.Runner(loop_factory=factory)
    runner.get_loop().set_default_executor(Pool(thread_name_prefix=THREADS))
    forked.guard(runner.get_loop())
    generation = forked.generation
    try:
        # Tasks copy its context, but not the decimal context in it, and psycopg leaves one where it
        # is imported: all async handlers would share it.
        return runner.run(main, context=Context())
    except BaseException as error:
        forked.end_if_forked(generation, error)  # before its parent's tasks are cancelled
        raise
    finally:
        _close(runner)


def _close(runner: asyncio.Runner) -> None:
    """Do what the runner's `close` does, which waits for tasks and threads however long that takes.

    What does not end soon is left behind: a thread that a handler waited for cannot be cancelled.
    """
    until = time.monotonic() + PATIENCE
    for task in runner.run(_cancelled()):
        ending.leave(task)
    runner.get_loop().close()  # lets the threads end, and does not wait for them
    for thread in threading.enumerate():
        if thread.name.startswith(THREADS):
            thread.join(max(until - time.monotonic(), 0.0))
            if thread.is_alive():
                ending.leave(thread)


async def _cancelled() -> set[asyncio.Task[Any]]:
    """Cancel all tasks, close what generates for them, and return the tasks that go on."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        _, tasks = await asyncio.wait(tasks, timeout=PATIENCE)
    if not tasks:
        closing = asyncio.create_task(asyncio.get_running_loop().shutdown_asyncgens())
        _, tasks = await asyncio.wait((closing,), timeout=PATIENCE)
    return tasks


def loop_factory(settings: WorkerSettings) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes the loop that the settings ask for; None: asyncio's own."""
    wanted = settings.event_loop
    if wanted == "auto":
        wanted = "asyncio" if "shell" in settings.kinds else "uvloop"
    elif wanted == "uvloop" and "shell" in settings.kinds:
        raise BadSettings(
            "uvloop cannot start shell jobs as they should be",
            detail="--event-loop uvloop was given together with --kind shell.",
            hint="leave --event-loop away, or have another worker execute the other kinds",
        )
    if wanted == "asyncio":
        return None
    try:
        import uvloop
    except ImportError as error:
        if settings.event_loop == "auto":
            return None
        raise BadSettings(
            "uvloop is not installed", detail=str(error), hint="pip install uvloop"
        ) from None
    return uvloop.new_event_loop
