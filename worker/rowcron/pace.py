"""How fast runs end, and so how many to claim before there is room for them.

A claim takes as long as hundreds of calls that do little; without a few in line the handlers would
stand still meanwhile. Where few end, in all slots together, none is claimed ahead, so that another
worker may have it.
"""

from __future__ import annotations

from typing import Final

AHEAD: Final = 0.05  # so many seconds of work, at the speed of late
MOST: Final = 2_000
LEAST: Final = 10  # fewer are not worth it
INTERVAL: Final = 0.01  # seconds between two measurements, at least
MEMORY: Final = 0.02  # seconds after which a measurement weighs as much as all before it


class Pace:
    """Measures by the loop's clock; a pause makes it slow, and careful, again."""

    def __init__(self, now: float) -> None:
        self.ahead = 0  # runs
        self._ended = 0
        self._at = now
        self._speed = 0.0  # runs a second

    def measure(self, ended: int, now: float) -> int:
        """Take note that `ended` runs have ended so far; return how many to claim ahead."""
        passed = now - self._at
        if passed >= INTERVAL:
            weight = passed / (passed + MEMORY)
            self._speed += weight * ((ended - self._ended) / passed - self._speed)
            self._ended, self._at = ended, now
            ahead = min(int(self._speed * AHEAD), MOST)
            self.ahead = ahead if ahead >= LEAST else 0
        return self.ahead
