"""What it means that a handler returned something, or raised."""

from __future__ import annotations

import inspect
import math
from typing import Any

from rowcron.capture import describe, result_and_output, tail
from rowcron.handlers import Abandon, Cancel, RetryAfter, Snooze
from rowcron.models import Outcome
from rowcron.threads import Stop

LONGEST_PAUSE = 86_400.0  # seconds, as the database has it


def success(value: Any) -> Outcome:
    """Return the outcome of a handler that returned `value`.

    Raises `Abandon` where that is work yet to be done.
    """
    if value is None:
        return Outcome("succeeded")
    if inspect.isawaitable(value) or inspect.isgenerator(value) or inspect.isasyncgen(value):
        dismiss(value)
        raise Abandon(
            f"the handler returned a {type(value).__name__}, and nothing of that was executed:"
            " await or iterate it in the handler"
        )
    result, output = result_and_output(value)
    return Outcome("succeeded", None, None, output, result)


def dismiss(value: Any) -> None:
    """Let go of what is not executed, without Python's complaint about that."""
    if inspect.iscoroutine(value) or inspect.isgenerator(value):
        value.close()


def failure(error: BaseException) -> Outcome:
    """Return the outcome of a handler that raised, whatever the exception's own code does."""
    try:
        if isinstance(error, Abandon):
            return Outcome("fatal", "abandoned", describe(error))
        if isinstance(error, Cancel):
            return Outcome("cancelled", tail(str(error) or "cancelled by its handler", 1000))
        asks = isinstance(error, RetryAfter | Snooze)
        later = pause(getattr(error, "seconds", None)) if asks else None
        if isinstance(error, Snooze) and later is not None:
            return Outcome("released", "snoozed", tail(str(error), 1000), retry_after=later)
        return Outcome("failed", "exception", describe(error), retry_after=later)
    except Stop:
        raise
    except BaseException as odd:  # else the run would never end
        text = f"{type(error).__name__}, of which no more can be said: {type(odd).__name__}"
        return Outcome("failed", "exception", tail(text))


def pause(seconds: Any) -> float | None:
    """Return a pause that can be reported, a day at most; None for what is no number of seconds."""
    try:
        number = float(seconds)
    except (TypeError, ValueError, OverflowError):
        return None
    return None if math.isnan(number) else min(max(number, 0.0), LONGEST_PAUSE)
