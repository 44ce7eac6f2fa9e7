"""kind python: a function that `--app` registered with `@handler` (see `rowcron.handlers`).

What a handler returns is its result: stored as JSON when it is that and at most 64 KiB, else its
text becomes the output. An exception is a failure with its traceback; `Abandon` means never again,
`RetryAfter` names the pause. What handlers print is not captured. On timeout or cancel an async
handler's task is cancelled; in a plain one's thread an exception is raised, which arrives when it
executes Python again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any

from rowcron.capture import describe, result_and_output
from rowcron.connection import conninfo
from rowcron.executors import UNBOUNDED, Host, stopped
from rowcron.handed import Pools, await_call, call, cut
from rowcron.handlers import HANDLERS, Abandon, Handler, RetryAfter
from rowcron.models import Outcome, Run
from rowcron.threads import Stop, Threads


class Executor:
    """Calls handlers: plain ones in threads, async ones as tasks."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.room = UNBOUNDED
        self.pools: Pools | None = None

    async def open(self) -> None:
        """Prepare threads and pools; both are filled when needed."""
        settings = self.host.settings
        self.loop = asyncio.get_running_loop()
        self.threads = Threads(settings.concurrency, self._call, self.host.done)
        if settings.handler_database_url is not None:
            info = conninfo(settings.handler_database_url, "handler-database-url")
            self.pools = Pools(info, settings.handler_connections)

    async def close(self) -> None:
        """Let go of threads and connections."""
        self.threads.close()
        if self.pools is not None:
            await self.pools.close()

    def start(self, run: Run) -> None:
        """Hand the run to a thread or a task."""
        handler = HANDLERS.get(run.command)
        if handler is None:
            error = f"this worker has no handler {run.command!r}"
            self.host.done(run, Outcome("failed", "handler", error))
        elif handler.connection is not None and self.pools is None:
            error = (
                f"handler {handler.name!r} asks for a connection, and this worker has none to give:"
                " start it with --handler-database-url"
            )
            self.host.done(run, Outcome("failed", "connection", error))
        elif not handler.is_async:
            self.threads.start(run)
        else:
            try:
                coroutine = self._coroutine(handler, run)
            except Exception as error:
                self.host.done(run, failure(error))
                return
            run.state = task = self.loop.create_task(coroutine)
            task.add_done_callback(partial(self._ended, run))

    def _coroutine(self, handler: Handler, run: Run) -> Coroutine[Any, Any, Any]:
        if handler.connection is None:
            made: Coroutine[Any, Any, Any] = handler.function(**handler.arguments(run))
            return made
        assert self.pools is not None
        return await_call(
            self.pools,
            run,
            lambda connection: handler.function(**handler.arguments(run, connection)),
            success,
            failure,
        )

    def _ended(self, run: Run, task: asyncio.Task[Any]) -> None:
        if task.cancelled():
            outcome = stopped(run) if run.stopping else failure(asyncio.CancelledError())
        elif (error := task.exception()) is not None:
            outcome = failure(error)
        else:
            value = task.result()
            outcome = value if type(value) is Outcome else success(value)
        self.host.done(run, outcome)

    def _call(self, run: Run) -> Outcome:
        if run.stopping is not None:
            return stopped(run)
        try:
            handler = HANDLERS[run.command]
            if handler.connection is None:
                return success(handler.function(**handler.arguments(run)))
            assert self.pools is not None
            return call(
                self.pools,
                run,
                lambda connection: handler.function(**handler.arguments(run, connection)),
                success,
                failure,
            )
        except Stop:
            return stopped(run)
        except BaseException as error:
            return failure(error)

    def stop(self, run: Run, grace: float) -> None:
        """Cancel the task or interrupt the thread; after `grace` seconds go on without them."""
        if isinstance(run.state, asyncio.Task):
            run.state.cancel()
        elif not self.threads.stop(run):
            self.host.done(run, stopped(run))
            return
        elif (connection := run.state) is not None:
            self.loop.run_in_executor(None, cancel_statement, connection)
        self.loop.call_later(grace, self._give_up, run)

    def _give_up(self, run: Run) -> None:
        if isinstance(run.state, asyncio.Task):
            if run.state.done():
                return
        else:
            connection = run.state
            if not self.threads.abandon(run):
                return
            if connection is not None:
                cut(connection)
        outcome = stopped(run)
        outcome.error = f"{outcome.error or 'stopped'}; the handler does not stop and goes on"
        self.host.done(run, outcome)


def cancel_statement(connection: Any) -> None:
    """Cancel what a handler's connection executes, from another thread."""
    try:
        connection.cancel_safe(timeout=5.0)
    except Exception:  # it has ended, or is cut after the grace
        return


def success(value: Any) -> Outcome:
    """Return the outcome of a handler that returned `value`."""
    if value is None:
        return Outcome("succeeded")
    result, output = result_and_output(value)
    return Outcome("succeeded", None, None, output, result)


def failure(error: BaseException) -> Outcome:
    """Return the outcome of a handler that raised."""
    if isinstance(error, Abandon):
        return Outcome("fatal", "abandoned", describe(error))
    later = error.seconds if isinstance(error, RetryAfter) else None
    return Outcome("failed", "exception", describe(error), retry_after=later)
