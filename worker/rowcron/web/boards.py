"""What one role looks at, and when it is to be looked at again."""

from __future__ import annotations

from dataclasses import dataclass, field

from rowcron.web.actor import Login
from rowcron.web.canvas import Canvas
from rowcron.web.pulse import Beat
from rowcron.web.topics import Topic

SLOWEST = 10.0  # at least one look in so many seconds, for what changes with the time alone


@dataclass
class Board:
    """All that one role looks at."""

    login: Login
    topics: dict[str, Topic] = field(default_factory=dict)
    canvases: dict[str, Canvas] = field(default_factory=dict)
    fresh: bool = True  # a page was opened that has been told nothing
    behind: bool = False  # not all that has changed was asked for
    beat: Beat | None = None  # when it was last looked at
    looked: float = 0.0
    due: float = 0.0
    took: float = 0.0
    lately_due: float = 0.0
    lately: str = ""


def due(board: Board, beat: Beat | None, now: float) -> bool:
    """Return whether a board is to be looked at."""
    if board.fresh:
        return True
    changed = beat is None or beat != board.beat
    return now >= board.due and (changed or now - board.looked >= SLOWEST)
