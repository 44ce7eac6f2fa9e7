"""The end of a process in which code of others may go on.

A process ends when its threads have, and a thread cannot be ended from outside. What a handler has
begun could so keep a stopped worker's process for ever, executing a run that others have by now.
"""

from __future__ import annotations

import atexit
import os
import sys
from typing import Final, NoReturn

# Kept, not only counted: a task that is forgotten is closed, and its handler's cleaning up begins.
_LEFT: Final[list[object]] = []


def leave(behind: object) -> None:
    """Have this process end without waiting for `behind`, nor for what that may have begun."""
    _LEFT.append(behind)


def end_as(error: BaseException) -> None:
    """End the process as `error` would, without waiting; do nothing if nothing was left behind."""
    if not _LEFT:
        return
    code = 1
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    else:
        sys.excepthook(type(error), error, error.__traceback__)
    end(code)


def end(code: int) -> NoReturn:
    """End this process; wait for what the application registered with `atexit`, for no thread."""
    try:
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    finally:
        os._exit(code)
