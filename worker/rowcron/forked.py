"""Processes that handlers fork: what they may not go on with.

A child has the thread that forked, and copies of all else: runs in line, the loop, connections
whose server takes it for its parent. What it does until its handler has returned or raised is the
handler's own; from there on it would be a second worker, so there it ends.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, Final, NoReturn, TypeVar

from rowcron.capture import describe

T = TypeVar("T")
generation = 0  # forks between the command's first process and this one; cheaper than its number
_LOOPS_OWN: Final = ("asyncio.events", "asyncio.runners")  # uvloop has no frames between these
_loops: Final[list[tuple[asyncio.AbstractEventLoop, int]]] = []


def guard(loop: asyncio.AbstractEventLoop) -> None:
    """Have children that the loop's thread, this one, forks end when they are back in the loop."""
    _loops[:] = [(loop, threading.get_ident())]


def call(function: Callable[..., T], /, *args: Any, **options: Any) -> T:
    """Call what may fork, in a thread that would go on with what stands in line for it."""
    since = generation
    try:
        value = function(*args, **options)
    except BaseException as error:
        end_if_forked(since, error)
        raise
    if generation != since:
        end()
    return value


def end_if_forked(since: int, error: BaseException | None = None) -> None:
    """End this process if it was forked after `since` was the generation."""
    if generation != since:
        end(error)


def end(error: BaseException | None = None) -> NoReturn:
    """End a child as a program that raised `error`, or returned.

    Nothing is cleaned up, not even by `atexit`: what there is belongs to the parent, too.
    """
    code = 0 if error is None else 1
    try:
        if isinstance(error, SystemExit) and isinstance(error.code, int | None):
            code = (error.code or 0) & 0xFF
        elif isinstance(error, SystemExit):
            print(error.code, file=sys.stderr)
        elif error is not None:
            print(describe(error), file=sys.stderr)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    finally:
        os._exit(code)


def _in_child() -> None:
    global generation
    generation += 1
    for loop, thread in _loops:
        if thread == threading.get_ident() and not loop.is_closed():
            loop.call_soon(end)
            _end_sooner(loop)
    _loops.clear()


def _end_sooner(loop: asyncio.AbstractEventLoop) -> None:
    """End when a task of the loop has ended or gives others their turn.

    Before the next callback uvloop polls, and what it changes then, it changes for the parent. Both
    are told to the loop by the task itself, that is by nobody's code but the loop's.
    """
    usual = loop.call_soon

    def call_soon(callback: Any, *args: Any, **options: Any) -> asyncio.Handle:
        if sys._getframe(1).f_globals.get("__name__") in _LOOPS_OWN:
            for task in args:
                if isinstance(task, asyncio.Task) and task.done() and not task.cancelled():
                    end(task.exception())
            end()
        return usual(callback, *args, **options)

    vars(loop)["call_soon"] = call_soon


os.register_at_fork(after_in_child=_in_child)
