"""A file of lines that is rotated by size, also when several processes write it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class RotatedFile:
    """Appends whole lines to `path`; past `size` bytes it becomes `path.1`, that one `path.2`, ...

    Every write is one `write(2)` in append mode, so lines of several processes do not mix. Who
    rotates holds a lock on the file that is to be moved; the others see by its inode that it was.
    """

    def __init__(self, path: Path, size: int, count: int) -> None:
        self.path = path
        self.size = size
        self.count = count
        self._descriptor = self._open()
        self._torn = False

    def _open(self) -> int:
        return os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def write(self, lines: bytes) -> None:
        """Append lines. A full disk loses them rather than stopping the worker."""
        try:
            status = os.fstat(self._descriptor)
            if status.st_size > 0 and status.st_size + len(lines) > self.size:
                self._rotate()
            if self._torn:  # a full disk took half a line
                lines = b"\n" + lines
            written = os.write(self._descriptor, lines)
            self._torn = written < len(lines)
        except OSError:
            return

    def _rotate(self) -> None:
        """Begin a new file; go on with this one if another process does it, or it cannot be."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return
        try:
            mine = os.fstat(self._descriptor)
            try:
                current: os.stat_result | None = self.path.stat()
            except FileNotFoundError:
                current = None
            if current is not None and (current.st_dev, current.st_ino) == (
                mine.st_dev,
                mine.st_ino,
            ):
                self._move()
            fresh = self._open()
        except OSError:  # its directory is somebody else's, say
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            return
        old, self._descriptor = self._descriptor, fresh
        os.close(old)  # gives up the lock

    def _move(self) -> None:
        for number in range(self.count - 1, 0, -1):
            older = self.path.with_name(f"{self.path.name}.{number}")
            if older.exists():
                older.replace(self.path.with_name(f"{self.path.name}.{number + 1}"))
        self.path.replace(self.path.with_name(f"{self.path.name}.1"))

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)
