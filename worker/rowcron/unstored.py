"""What is reported in place of a report that the database cannot store as it is.

First the same with escapes for characters that the database's encoding may not have, so that error
and output survive; then only why. A pause that was asked for is kept: without it a run that is not
to be tried for an hour would be due at once, again and again.
"""

from __future__ import annotations

import re

from rowcron.errors import RowcronError
from rowcron.models import Outcome

_FOREIGN = re.compile("[^\x01-\x7f]+")  # what an encoding may lack, and what none can hold


def escaped(text: str) -> str:
    """Return `text` in ASCII, with Python's escapes."""
    return _FOREIGN.sub(lambda match: ascii(match[0])[1:-1], text)


def in_ascii(outcome: Outcome) -> Outcome | None:
    """Return the same outcome in ASCII, or None where it is that already."""
    reason, error, output = (
        text and escaped(text) for text in (outcome.reason, outcome.error, outcome.output)
    )
    # JSON's own escapes would be read as the characters that they stand for
    result = outcome.result and _FOREIGN.sub(
        lambda match: ascii(match[0])[1:-1].replace("\\", "\\\\"), outcome.result
    )
    told = (outcome.reason, outcome.error, outcome.output, outcome.result)
    if (reason, error, output, result) == told:
        return None
    return Outcome(outcome.outcome, reason, error, output, result, outcome.retry_after)


def plain(outcome: Outcome, as_what: str, error: RowcronError) -> Outcome:
    """Return a report of this outcome that holds nothing but why it could not be stored itself."""
    text = outcome.error
    if outcome.reason != "report":
        text = escaped(f"{outcome.outcome}, but the report could not be stored: {error.message}")
    return Outcome(as_what, "report", text, retry_after=outcome.retry_after)
