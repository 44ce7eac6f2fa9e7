"""Processes of `rowcron`, forked from one that has imported what a worker imports.

Importing takes a quarter of a second of CPU, which was most of what a test with a worker cost. The
command is the same one, a process in a session of its own, and gets the arguments, the environment
and the open files that it would have been executed with. What is different is what /proc says of
its command and its first environment, and what stands below `main`: tests that say something of the
process itself are marked `executed`, and it is.

The process that forks is the standard library's fork server, which imports this module: it imports
nothing that a worker does not.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rowcron import cli

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        "forks",
        "rowcron.commands.worker",
        "rowcron.loop",
        *(f"rowcron.executors.{kind}" for kind in ("http", "python", "shell", "sql")),
    ]
)


def _serve(arguments: Sequence[str], environment: Mapping[str, str], console: str) -> None:
    os.setsid()
    os.closerange(3, 1024)
    written = os.open(console, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(written, descriptor)
    os.close(written)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["rowcron", *arguments]
    cli.main()


class Fork:
    """`rowcron ARGUMENTS` with its output in a file; what tests use of `subprocess.Popen`."""

    def __init__(
        self, arguments: Sequence[str], environment: Mapping[str, str], console: Path
    ) -> None:
        self._process = _context.Process(
            target=_serve, args=(arguments, environment, str(console.absolute()))
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """Its exit code, or what signal has ended it, negative, once it has ended."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Whether it has ended, and how."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended."""
        self._process.join(timeout)
        if (code := self.returncode) is None:
            raise subprocess.TimeoutExpired("rowcron", timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)
