"""rowcron: insert a row, get a job. The rules live in PostgreSQL; this package is the hands.

For an application there are six names: `handler` registers a function for python jobs, `Run` is
what it may ask for, `Abandon`, `Cancel`, `RetryAfter` and `Snooze` are what it may raise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Abandon", "Cancel", "RetryAfter", "Run", "Snooze", "__version__", "handler"]

if TYPE_CHECKING:
    from rowcron.handlers import Abandon, Cancel, RetryAfter, Snooze, handler
    from rowcron.models import Run


def __getattr__(name: str) -> Any:
    """Import late: `rowcron --help` needs none of it."""
    if name in ("Abandon", "Cancel", "RetryAfter", "Snooze", "handler"):
        from rowcron import handlers

        return getattr(handlers, name)
    if name == "Run":
        from rowcron.models import Run

        return Run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
