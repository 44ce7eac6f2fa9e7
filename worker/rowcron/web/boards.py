"""What one role looks at, and when it is to be looked at again."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from rowcron.web.actor import Asker, Login
from rowcron.web.canvas import Canvas
from rowcron.web.pulse import Beat
from rowcron.web.topics import Topic

SHARE = 20  # looks at a board, and likewise its pictures, may take one part in so many of the time
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

    async def draw(self, asker: Asker, beat: Beat | None, seconds: float) -> None:
        """Draw pictures for so long, the oldest first.

        Each may take its part of what all of them may: many cost no more than one, a dear one
        delays none that is cheap, and what else the role looks at waits for few.
        """
        topics, canvases = dict(self.topics), dict(self.canvases)
        end = time.monotonic() + seconds
        rest = SHARE * len(canvases)
        for name, canvas in sorted(canvases.items(), key=lambda item: item[1].drawn):
            now = time.monotonic()
            if now >= end or now < canvas.drawn + rest * canvas.took:
                self.behind = True
                continue
            await canvas.look(asker, beat)
            topics[name].show({"trouble": ""})


def due(board: Board, beat: Beat | None, now: float) -> bool:
    """Return whether a board is to be looked at."""
    if board.fresh:
        return True
    changed = beat is None or beat != board.beat
    return now >= board.due and (changed or now - board.looked >= SLOWEST)
