"""The signals that end a worker, and what becomes of them in processes that its handlers fork."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from typing import Final

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_heard: list[signal.Signals] = []
_forking = threading.local()  # any thread may fork, and each has a mask of its own


def heeded() -> list[signal.Signals]:
    """Return those that this process is to hear: under nohup not that its terminal was closed."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [number for number in SIGNALS if number != signal.SIGHUP or not ignored]


def hear(loop: asyncio.AbstractEventLoop, heard: Callable[[signal.Signals], None]) -> None:
    """Have the loop call `heard` with each of them, until `unhear`."""
    for number in heeded():
        loop.add_signal_handler(number, heard, number)
        _heard.append(number)


def unhear(loop: asyncio.AbstractEventLoop) -> None:
    """Let them end the process again, as is usual."""
    while _heard:
        loop.remove_signal_handler(_heard.pop())


# A forked child has no loop to hear its signals. It would write each where the loop of its parent
# reads, which would take it for its own. So they end the child, and wait until they can.


def _before_fork() -> None:
    _forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def _in_parent() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _forking.mask)


def _in_child() -> None:
    if _heard:
        signal.set_wakeup_fd(-1)
    while _heard:
        signal.signal(_heard.pop(), signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, _forking.mask)


os.register_at_fork(before=_before_fork, after_in_parent=_in_parent, after_in_child=_in_child)
