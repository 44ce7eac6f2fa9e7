"""Signals around the worker, which handles its own: whatever comes, the server is stopped."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from rowcron.signals import SIGNALS, heeded


class Stoppable:
    """Each of the signals ends what is going on as Ctrl-C does."""

    def __init__(self) -> None:
        self._held = False
        self._pending = False

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        if self._held and not self._pending:
            self._pending = True
            return
        raise KeyboardInterrupt

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Put the first signal off to the end of the block: a half-started server is no one's."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self._pending:
            raise KeyboardInterrupt


@contextlib.contextmanager
def stoppable() -> Iterator[Stoppable]:
    """End as Ctrl-C does on SIGTERM and on a closed terminal, until the worker takes over."""
    state = Stoppable()
    before = {number: signal.signal(number, state.interrupt) for number in heeded()}
    try:
        yield state
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Ignore signals: stopping the server takes a moment, and impatience must not leave it."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
