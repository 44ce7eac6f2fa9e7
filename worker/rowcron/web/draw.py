"""The shapes of the page Timeline, from what the database has counted. No text of a user's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from math import ceil

WIDTH, ROW, TOP = 960, 20, 4
LETTER = 8  # the most that a letter of a tick takes
SPANS = {"1h": 1, "6h": 6, "24h": 24, "48h": 48, "7d": 168}
Bar = tuple[str, bool, float, float, int]  # outcome, whether it ran, from, until, how many
Spans = list[tuple[int, int]]


@dataclass(frozen=True)
class View:
    """The stretch of time that the picture shows, in `WIDTH` parts of `step` seconds."""

    first: int  # the number of its first part, counted from 1970
    span: str
    zone: tzinfo

    @classmethod
    def around(cls, middle: float, span: str, zone: tzinfo) -> View:
        """Return the view whose middle is an instant."""
        return cls(int(middle // (SPANS[span] * 3600 / WIDTH)) - WIDTH // 2, span, zone)

    @property
    def step(self) -> float:
        """The seconds of one part; exact."""
        return SPANS[self.span] * 3600 / WIDTH

    @property
    def begin(self) -> float:
        """Its begin."""
        return self.first * self.step

    @property
    def until(self) -> float:
        """Its end."""
        return (self.first + WIDTH) * self.step

    def x(self, epoch: float) -> int:
        """Where an instant stands, within the picture."""
        return min(max(round((epoch - self.begin) / self.step), 0), WIDTH)

    def ticks(self) -> list[tuple[int, str, int]]:
        """Where the hours stand that are told, how ("": no room), and when they are."""
        ticks: list[tuple[int, str, int]] = []
        end = 0  # of the last that is told
        for epoch in self._full_hours():
            at = datetime.fromtimestamp(epoch, self.zone)
            is_day = self.span == "7d" or at.hour == at.minute == 0
            text = f"{at:%a %d %b}" if is_day else f"{at:%H:%M}"
            x = self.x(epoch)
            reach = x + LETTER * len(text)
            # where clocks are put on, the name of a day needs the room of the hour after it
            told = end <= x and reach <= WIDTH
            end = reach if told else end
            ticks.append((x, text if told else "", int(epoch)))
        return ticks

    def _full_hours(self) -> list[float]:
        """Return the instants within it at which the reader's clock shows full parts of a day."""
        step = {"1h": 600, "6h": 3600, "24h": 7200, "48h": 14400, "7d": 86400}[self.span]
        local = datetime.fromtimestamp(self.begin, self.zone)
        local = local.replace(minute=0, second=0, microsecond=0)
        if step <= 3600:  # as time passes: none in an hour that is left out, all in a doubled one
            first = int(local.timestamp())
            instants: Iterable[float] = range(first, ceil(self.until), step)
        else:  # as clocks tell it: the first of two, and after a gap its end
            at = local.replace(hour=0, fold=0, tzinfo=None)
            days = ceil((self.until - self.begin) / 86400) + 2
            wall = (at + timedelta(seconds=n * step) for n in range(days * 86400 // step))
            instants = (w.replace(tzinfo=self.zone).timestamp() for w in wall)
        return [at for at in sorted(set(instants)) if self.begin <= at < self.until]


def row(view: View, bars: Iterable[Bar], ahead: Iterable[tuple[str, int]]) -> str:
    """Return one job's shapes: a path for all that went well, and one for each state to come."""
    good: Spans = []
    rest: list[tuple[int, int, str, bool, float, int]] = []
    for outcome, ran, began, ended, count in bars:
        if ended < view.begin or began >= view.until:
            continue
        left = view.x(began)
        right = max(view.x(ended), left + (2 if ran else 5))
        if outcome == "succeeded":
            good.append((left, right))
        else:
            rest.append((left, right, outcome, ran, began, count))
    shapes = [f'<path class="bar succeeded" d="{_boxes(good, 4, 12)}"/>'] if good else []
    # what did not run first, so that it hides nothing that did
    for left, right, outcome, ran, began, count in sorted(rest, key=lambda bar: bar[3]):
        said = f"{count} {outcome}" if count > 1 else outcome
        at = datetime.fromtimestamp(began, view.zone)
        shapes.append(
            f'<rect class="bar {outcome}" x="{left}" y="{4 if ran else 7}" width="{right - left}"'
            f' height="{12 if ran else 6}" rx="1"><title>{said}, {at:%a %H:%M:%S}</title></rect>'
        )
    marks: dict[str, Spans] = {}
    for state, part in ahead:
        marks.setdefault(state, []).append((part, part + 1))
    shapes += [
        f'<path class="mark {state}" d="{_boxes(spans, 6, 8)}"/>'
        for state, spans in sorted(marks.items())
    ]
    return "".join(shapes)


def _boxes(spans: Spans, y: int, height: int) -> str:
    """Return a path of boxes, from left to right; those that touch become one."""
    joined: Spans = []
    for left, right in sorted(spans):
        if joined and left <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(right, joined[-1][1]))
        else:
            joined.append((left, right))
    return "".join(f"M{left} {y}h{right - left}v{height}H{left}z" for left, right in joined)


@dataclass(frozen=True)
class Heat:
    """A map of starts by hour and minute."""

    total: int
    most: int
    at: str  # when most start
    levels: list[str]  # a path for each level, from few to many
    named: list[tuple[int, int, str]]  # the highest cells: place, and what they say


def heat(minutes: dict[int, int], zone: tzinfo) -> Heat:
    """Return the map; minutes are counted from 1970."""
    cells: dict[tuple[int, int], int] = {}
    for minute, n in minutes.items():
        local = datetime.fromtimestamp(minute * 60, zone)
        place = local.hour, local.minute
        cells[place] = cells.get(place, 0) + n
    most = max(cells.values(), default=0)
    levels: list[list[str]] = [[] for _ in range(5)]
    named: list[tuple[int, int, str]] = []
    for (hour, minute), n in sorted(cells.items()):
        level = min(int(4 * (n - 1) / max(most - 1, 1)), 4)
        x, y = 34 + minute * 14, 18 + hour * 14
        levels[level].append(f"M{x} {y}h13v13h-13z")
        if level >= 2 and len(named) < 200:
            named.append((x, y, f"{hour:02}:{minute:02}: {n}"))
    top = max(cells, key=lambda place: (cells[place], -place[0], -place[1]), default=(0, 0))
    return Heat(
        sum(cells.values()), most, f"{top[0]:02}:{top[1]:02}", ["".join(d) for d in levels], named
    )
