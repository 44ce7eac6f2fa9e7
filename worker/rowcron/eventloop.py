"""Which event loop a worker runs on.

uvloop's takes an eighth less CPU for a run that does nothing and a quarter less for one that waits
(docs/decisions/019). But what it starts writes to a socket, which cannot be opened by its name in
/dev, inherits the same descriptors twice, and cannot be another user's: so not where shell jobs
are executed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from rowcron.errors import BadSettings
from rowcron.settings import WorkerSettings


def run(main: Coroutine[Any, Any, int], settings: WorkerSettings) -> int:
    """Run `main` to its end and return what it returns. Raises `BadSettings`."""
    try:
        factory = loop_factory(settings)
    except BadSettings:
        main.close()
        raise
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)


def loop_factory(settings: WorkerSettings) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes the loop that the settings ask for; None: asyncio's own."""
    wanted = settings.event_loop
    if wanted == "auto":
        wanted = "asyncio" if "shell" in settings.kinds else "uvloop"
    elif wanted == "uvloop" and "shell" in settings.kinds:
        raise BadSettings(
            "uvloop cannot start shell jobs as they should be",
            detail="--event-loop uvloop was given together with --kind shell.",
            hint="leave --event-loop away, or have another worker execute the other kinds",
        )
    if wanted == "asyncio":
        return None
    try:
        import uvloop
    except ImportError as error:
        if settings.event_loop == "auto":
            return None
        raise BadSettings(
            "uvloop is not installed", detail=str(error), hint="pip install uvloop"
        ) from None
    return uvloop.new_event_loop
