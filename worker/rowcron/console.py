"""The console: a reader that has stopped must not stop the worker."""

from __future__ import annotations

import os
import select
from typing import Final

AT_ONCE: Final = 4096  # bytes that a pipe takes without blocking once it takes any (PIPE_BUF)
MOST: Final = 1_000_000  # bytes that wait for a reader; what comes then is counted and lost


class Console:
    """Writes whole lines to a descriptor as far as it takes them now; the rest waits."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.lost = 0  # lines, since somebody last asked
        self._waiting = bytearray()
        self._writable = select.poll()
        self._writable.register(descriptor, select.POLLOUT)

    @property
    def waits(self) -> bool:
        """Whether something is to be written later."""
        return bool(self._waiting)

    def write(self, lines: bytes, seconds: float = 0.0) -> None:
        """Write what waits and these lines, waiting so long for a reader at most."""
        if len(self._waiting) + len(lines) > MOST and self._waiting:
            self.lost += lines.count(b"\n")
        else:
            self._waiting += lines
        while self._waiting:
            try:
                if not self._writable.poll(seconds * 1000):
                    return
                del self._waiting[: os.write(self.descriptor, self._piece())]
            except OSError:  # it has gone away, which is no reason to stop working
                self._waiting.clear()

    def _piece(self) -> bytes:
        """Whole lines, if they are not too long, because others may write there, too."""
        end = self._waiting.rfind(b"\n", 0, AT_ONCE) + 1
        return bytes(self._waiting[: end or AT_ONCE])
