"""A limit on the time that a sample may take, so that one that hangs does not stop the rest."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

AGAIN = 60.0  # s for cleaning up, which may hang too


class TooLong(RuntimeError):
    """The sample was given up."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise `TooLong` in the block when it takes longer."""

    def over(_number: int, _frame: object) -> None:
        raise TooLong(f"given up after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
