"""`rowcron web` as a process beside the worker of `rowcron up`."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def web_beside(url: str | None) -> Iterator[None]:
    """Serve `url` within the block, as its login; nothing when it is None.

    In a session of its own, so that a terminal's Ctrl-C reaches the worker first.
    """
    if url is None:
        yield
        return
    process = subprocess.Popen(
        [sys.executable, "-m", "rowcron", "web", "--as-login"],
        env=os.environ | {"ROWCRON_DATABASE_URL": url},  # not in the list of processes
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
