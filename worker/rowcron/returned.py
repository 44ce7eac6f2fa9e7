"""What it means that a handler returned something, or raised."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable
from typing import Any

from rowcron.capture import describe, frames, result_and_output, tail
from rowcron.executors import stopped
from rowcron.handlers import Abandon, Cancel, RetryAfter, Snooze
from rowcron.log import RAISED
from rowcron.models import Outcome, Run
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


def failure(
    run: Run, error: BaseException, told: Callable[[Run, BaseException], None] | None = None
) -> Outcome:
    """Log that a handler raised, and return the outcome, whatever the exception's own code does.

    `told` logs in place of `tell`, for whom that must not hold up.
    """
    if run.stopping is not None and isinstance(error, Cancel | Snooze):
        return stopped(run)  # no plan any more: a timeout that is put off would never be counted
    (told or tell)(run, error)
    try:
        if isinstance(error, Abandon):
            return Outcome("fatal", "abandoned", describe(error))
        if isinstance(error, Cancel):
            return Outcome("cancelled", tail(str(error) or "cancelled by its handler", 1000))
        asks = isinstance(error, RetryAfter | Snooze)
        later = pause(getattr(error, "seconds", None)) if asks else None
        if isinstance(error, Snooze) and later is not None:
            text = tail(str(error), 1000)
            return Outcome("released", "snoozed", text, retry_after=later)
        return Outcome("failed", "exception", describe(error), retry_after=later)
    except Stop:
        raise
    except BaseException as odd:  # else the run would never end
        text = f"{type(error).__name__}, of which no more can be said: {type(odd).__name__}"
        return Outcome("failed", "exception", tail(text))


def tell(run: Run, error: BaseException) -> None:
    """Log what a handler raised through the standard library, where the application may listen.

    `RetryAfter`, `Snooze` and `Cancel` are plans, no errors. On the worker's own console a line of
    it stands already.
    """
    planned = isinstance(error, Cancel | RetryAfter | Snooze)
    about = {"run_id": run.run_id, "attempt": run.attempt, "job": run.job, "owner": run.owner}
    try:
        logger = logging.getLogger(RAISED)
        logger.disabled = False  # as an app's dictConfig leaves each logger that it does not name
        logger.log(
            logging.INFO if planned else logging.ERROR,
            "%s.%s run %s, attempt %s: %s",
            *(run.owner, run.job, run.run_id, run.attempt, error if planned else "failed"),
            exc_info=None if planned else (type(error), error, frames(error)),
            extra=about,
        )
    except Stop:
        raise
    except BaseException:  # of the application's logging, or the exception's own code
        return


def pause(seconds: Any) -> float | None:
    """Return a pause that can be reported, a day at most; None for what is no number of seconds."""
    try:
        number = float(seconds)
    except (TypeError, ValueError, OverflowError):
        return None
    return None if math.isnan(number) else min(max(number, 0.0), LONGEST_PAUSE)
