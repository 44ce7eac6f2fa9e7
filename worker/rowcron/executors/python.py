"""kind python: a function that `--app` registered with `@handler` (see `rowcron.handlers`).

What a handler returns is its result: stored as JSON when it is that and at most 64 KiB, else its
text becomes the output. An exception is a failure with its traceback; `Abandon` means never again,
`RetryAfter` names the pause. What a plain handler returns to be awaited is awaited in the loop.
What handlers print is not captured. On timeout or cancel an async handler's task is cancelled; in
a plain one's thread an exception is raised, which arrives when it executes Python again. A child
that a handler forked ends with it (see `rowcron.forked`).
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Coroutine
from contextlib import suppress
from contextvars import Context
from functools import partial
from typing import Any, cast

from rowcron import forked
from rowcron.connection import conninfo, cut
from rowcron.eventloop import BEGUN
from rowcron.executors import UNBOUNDED, Host, stopped
from rowcron.handed import await_call, call
from rowcron.handlers import HANDLERS, Handler
from rowcron.models import Outcome, Run
from rowcron.pools import Pools
from rowcron.returned import dismiss, failure, success
from rowcron.telling import Teller
from rowcron.threads import Stop, Threads


class Promise(Outcome):
    """What a plain handler returned is to be awaited first: in the loop, not in its thread."""

    __slots__ = ("value",)

    def __init__(self, value: Awaitable[Any]) -> None:
        super().__init__("succeeded")
        self.value = value


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
        self.generation = forked.generation
        self.teller = Teller(self.host.log)
        self.failed = partial(failure, told=self.teller.tell)  # in the loop
        self.threads = Threads(settings.concurrency, self._call, self._answered)
        if settings.handler_database_url is not None:
            info = conninfo(settings.handler_database_url, "handler-database-url")
            self.pools = Pools(info, settings.handler_connections)

    async def close(self) -> None:
        """Let go of threads and connections."""
        self.threads.close()
        self.teller.close()
        if self.pools is not None:
            await self.pools.close()

    def early(self, run: Run) -> bool:
        """Say whether it may start before its claim is seen, as on a connection it would be."""
        handler = HANDLERS.get(run.command)
        return handler is not None and handler.connection is None

    def start(self, run: Run) -> None:
        """Hand the run to a thread or a task."""
        handler = HANDLERS.get(run.command)
        if handler is None:
            # the job was given another one, and whoever made the run had not seen that
            error = f"this worker has no handler {run.command!r}"
            self.host.done(run, Outcome("released", "handler", error))
        elif handler.connection is not None and self.pools is None:
            error = (
                f"handler {handler.name!r} asks for a connection, and this worker has none to give:"
                " start it with --handler-database-url"
            )
            self.host.done(run, Outcome("failed", "connection", error))
        elif not handler.is_async:
            self.threads.start(run)
        else:
            self._begin(handler, run, None)

    def _begin(self, handler: Handler, run: Run, value: Awaitable[Any] | None) -> None:
        # loop.create_task, a generated name and a callback for the end would double the cost
        coroutine = self._await(handler, run, value)
        run.state = asyncio.Task(coroutine, loop=self.loop, name=handler.name, **BEGUN)

    def _answered(self, run: Run, outcome: Outcome) -> None:
        """Take what a thread brings."""
        if not isinstance(outcome, Promise):
            self.host.done(run, outcome)
        elif run.stopping is None:
            self._begin(HANDLERS[run.command], run, outcome.value)
        else:
            dismiss(outcome.value)
            self.host.done(run, stopped(run))

    async def _await(self, handler: Handler, run: Run, value: Awaitable[Any] | None) -> None:
        if forked.generation != self.generation:
            forked.end()  # a copy of this task, in a child
        try:
            if handler.connection is None or value is not None:
                returned = await (begin(handler, run) if value is None else value)
                if forked.generation != self.generation:
                    forked.end()
                outcome = success(returned)
            else:
                assert self.pools is not None
                outcome = await await_call(
                    self.pools,
                    run,
                    lambda connection: self._settled(handler, run, connection),
                    success,
                    self.failed,
                )
        except BaseException as error:  # sys.exit() of a handler must not end the worker
            forked.end_if_forked(self.generation, error)
            stops = run.stopping and isinstance(error, asyncio.CancelledError)
            outcome = stopped(run) if stops else self.failed(run, error)
        self.host.done(run, outcome)

    async def _settled(self, handler: Handler, run: Run, connection: Any) -> Any:
        """Return what a handler returned, awaited if it is to be: a decorator may have answered."""
        try:
            value = begin(handler, run, connection)
            returned = await value if inspect.isawaitable(value) else value
        except BaseException as error:
            forked.end_if_forked(self.generation, error)  # before the parent's ROLLBACK is sent
            raise
        forked.end_if_forked(self.generation)
        return returned

    def _call(self, run: Run) -> Outcome:
        if run.stopping is not None:
            self._leave(run)
            return stopped(run)
        try:
            handler = HANDLERS[run.command]
            if handler.connection is None:
                value = begin_plain(handler, run)
                return Promise(value) if inspect.isawaitable(value) else success(value)
            assert self.pools is not None
            return call(
                self.pools,
                run,
                lambda connection: begin_plain(handler, run, connection),
                success,
                failure,
            )
        except Stop:
            self._leave(run)
            return stopped(run)
        except BaseException as error:
            return failure(run, error)

    def _leave(self, run: Run) -> None:
        if self.pools is not None:
            self.pools.leave(run)

    def stop(self, run: Run, grace: float) -> None:
        """Cancel the task or interrupt the thread; after `grace` seconds go on without them."""
        if isinstance(run.state, asyncio.Task):
            run.state.cancel()
            coroutine = cast("Coroutine[Any, Any, None]", run.state.get_coro())
            if inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:
                self.host.done(run, stopped(run))  # it never begins
                return
        elif not self.threads.stop(run):
            self.host.done(run, stopped(run))
            return
        elif (connection := run.state) is not None:
            # not one of the loop's own threads, which handlers may have filled; without one, its
            # connection is cut after the grace
            with suppress(RuntimeError):
                threading.Thread(target=cancel_statement, args=(connection,), daemon=True).start()
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


def begin(handler: Handler, run: Run, connection: Any = None) -> Any:
    """Call a handler: what it does beside its connection is not rolled back."""
    arguments = handler.arguments(run, connection)
    run.begun = True
    return handler.function(**arguments)


def begin_plain(handler: Handler, run: Run, connection: Any = None) -> Any:
    """Call a handler in its thread, and an empty context: the thread's own is the next one's, too.

    Not in a copy of the loop's, as a decimal context that is in there would be shared, not copied.
    """
    return forked.call(Context().run, begin, handler, run, connection)


def cancel_statement(connection: Any) -> None:
    """Cancel what a handler's connection executes, from another thread."""
    try:
        connection.cancel_safe(timeout=5.0)
    except Exception:  # it has ended, or is cut after the grace
        return
