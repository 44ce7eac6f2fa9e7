"""A slow and plain model of the calendar, and random schedules that know what they mean.

`tests/test_calendar.py` and `tests/fuzz_calendar.py` compare the SQL with this model and with two
libraries, croniter and cronsim. The model is written from DESIGN.md's paragraph on schedules: it
lists the local times that a schedule names, day by day, and maps each to its instants. It shares
nothing with the SQL, which computes with masks and offsets.
"""

from __future__ import annotations

import calendar
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from random import Random
from zoneinfo import ZoneInfo

LIMITS = {
    "second": (0, 59),
    "minute": (0, 59),
    "hour": (0, 23),
    "day": (1, 31),
    "month": (1, 12),
    "weekday": (0, 6),
}
MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
WEEKDAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]


@dataclass
class Schedule:
    """A cron schedule as text, with the sets that its text was made from."""

    text: str = ""
    seconds: set[int] = field(default_factory=lambda: {0})
    minutes: set[int] = field(default_factory=set)
    hours: set[int] = field(default_factory=set)
    days: set[int] = field(default_factory=set)
    months: set[int] = field(default_factory=set)
    weekdays: set[int] = field(default_factory=set)
    from_end: set[int] = field(default_factory=set)  # L is 0, L-3 is 3
    near: set[int] = field(default_factory=set)  # 15W; 0 is LW
    nth: set[tuple[int, int]] = field(default_factory=set)  # (week, weekday); week 6 is the last
    either: bool = False
    elapsed: bool = False
    croniter: bool = True  # croniter means the same by the same text
    cronsim: bool = True

    def matches(self, day: date) -> bool:
        """Whether the schedule runs on that day."""
        if day.month not in self.months:
            return False
        last = calendar.monthrange(day.year, day.month)[1]
        weekday = day.isoweekday() % 7
        by_day = (
            day.day in self.days
            or last - day.day in self.from_end
            or any(day.day == working_day(day, last, n) for n in self.near)
        )
        by_weekday = (
            weekday in self.weekdays
            or ((day.day + 6) // 7, weekday) in self.nth
            or (day.day + 7 > last and (6, weekday) in self.nth)
        )
        return by_day or by_weekday if self.either else by_day and by_weekday

    def names(self, local: datetime) -> bool:
        """Whether the schedule names that local time."""
        return (
            self.matches(local.date())
            and local.hour in self.hours
            and local.minute in self.minutes
            and local.second in self.seconds
        )


def working_day(day: date, last: int, wanted: int) -> int | None:
    """The day of the month that `15W` (or `LW`, as 0) means; None if the month has no such day."""
    if wanted > last:
        return None
    weekday = day.replace(day=wanted or last).isoweekday()
    if wanted == 0:
        return last - max(weekday - 5, 0)
    if weekday == 6:
        return wanted - 1 if wanted > 1 else 3
    if weekday == 7:
        return wanted + 1 if wanted < last else wanted - 2
    return wanted


def instants(local: datetime, zone: ZoneInfo, gap: str, fold: str) -> list[datetime]:
    """Instants (UTC) of a naive local time under a policy."""
    found = sorted(
        {
            instant
            for n in (0, 1)
            if (instant := local.replace(tzinfo=zone, fold=n).astimezone(UTC))
            .astimezone(zone)
            .replace(tzinfo=None)
            == local
        }
    )
    if found:
        return found if fold == "twice" else found[:1]
    if gap == "skip":
        return []
    late = max(local.replace(tzinfo=zone, fold=n).astimezone(UTC) for n in (0, 1))
    low, high = late - timedelta(days=2), late + timedelta(days=1)
    while high - low > timedelta(seconds=1):
        middle = low + timedelta(seconds=(high - low) // timedelta(seconds=1) // 2)
        if middle.astimezone(zone).replace(tzinfo=None) > local:
            high = middle
        else:
            low = middle
    return [high]


def local_times(schedule: Schedule, start: datetime, days: int) -> Iterator[datetime]:
    """Local times from one on that the schedule names, in order, looking so many days ahead."""
    hours, minutes, seconds = (
        sorted(values) for values in (schedule.hours, schedule.minutes, schedule.seconds)
    )
    for n in range(days):
        day = start.date() + timedelta(days=n)
        if not schedule.matches(day):
            continue
        for h in hours:
            if n == 0 and h < start.hour:
                continue
            for m in minutes:
                if n == 0 and (h, m) < (start.hour, start.minute):
                    continue
                for s in seconds:
                    local = datetime(day.year, day.month, day.day, h, m, s)
                    if local >= start:
                        yield local


def spread(day: date, zone: ZoneInfo) -> tuple[timedelta, timedelta]:
    """How far apart the offsets around a day are, and one of them."""
    noon = datetime.combine(day, time(12), UTC)
    offsets = [(noon + timedelta(days=n)).astimezone(zone).utcoffset() for n in range(-3, 4)]
    known = [offset for offset in offsets if offset is not None]
    return max(known) - min(known), known[0]


def next_run(
    schedule: Schedule,
    after: datetime,
    zone: ZoneInfo,
    gap: str | None = None,
    fold: str | None = None,
) -> datetime | None:
    """The first instant (UTC) of a schedule strictly after one; None if none in 45 years."""
    gap = gap or ("skip" if schedule.elapsed else "run")
    fold = fold or ("twice" if schedule.elapsed else "once")
    start = after.astimezone(zone).replace(tzinfo=None)
    best: datetime | None = None
    seen: date | None = None
    for local in local_times(schedule, start - spread(start.date(), zone)[0], 45 * 366):
        if local.date() != seen:
            seen = local.date()
            width, offset = spread(seen, zone)
        if best and local > best.astimezone(zone).replace(tzinfo=None) + width:
            break
        found = (
            instants(local, zone, gap, fold) if width else [(local - offset).replace(tzinfo=UTC)]
        )
        for instant in found:
            if instant > after and (best is None or instant < best):
                best = instant
    return best


def random_schedule(rng: Random, seconds: bool | None = None) -> Schedule:
    """A schedule over the whole grammar of five and six fields, without H."""
    schedule = Schedule()
    six = rng.random() < 0.3 if seconds is None else seconds
    texts = []
    if six:
        text, schedule.seconds = random_field(rng, schedule, "second")
        texts.append(text)
    text, schedule.minutes = random_field(rng, schedule, "minute")
    texts.append(text)
    text, schedule.hours = random_field(rng, schedule, "hour")
    texts.append(text)
    day, schedule.days = random_field(rng, schedule, "day", star=0.5)
    month, schedule.months = random_field(rng, schedule, "month", star=0.6)
    weekday, schedule.weekdays = random_field(rng, schedule, "weekday", star=0.5)
    schedule.either = day[0] not in "*?" and weekday[0] not in "*?"
    schedule.elapsed = six or texts[0][0] == "*" or texts[1][0] == "*"
    texts += [day, month, weekday]
    schedule.text = rng.choice([" ", " ", "  ", "\t"]).join(texts)
    whole = len(schedule.weekdays) == 7 or len(schedule.days) == 31
    if schedule.either and whole and "*" in day + weekday:
        schedule.croniter = False  # it takes a * anywhere in the list for one
    if (schedule.near or schedule.nth) and (day[0] not in "*?" and weekday[0] not in "*?"):
        schedule.croniter = False  # it takes W and # as conditions of their own
    if "?" in (day, weekday):
        schedule.cronsim = False
    return schedule


def random_field(
    rng: Random, schedule: Schedule, name: str, star: float = 0.2
) -> tuple[str, set[int]]:
    """One field: its text and its values; days go into the schedule's own sets too."""
    low, high = LIMITS[name]
    if name in ("day", "weekday") and rng.random() < 0.1:
        return "?", set(range(low, high + 1))
    if rng.random() < star:
        return "*", set(range(low, high + 1))
    values: set[int] = set()
    items = []
    count = rng.choice([1, 1, 1, 2, 3])
    for _ in range(count):
        if name in ("day", "weekday") and rng.random() < 0.25:
            items.append(random_special(rng, schedule, name, count))
        else:
            text, more = random_item(rng, schedule, name)
            items.append(text)
            values |= more
    if name == "weekday" and schedule.nth and values:
        schedule.croniter = False
    return ",".join(items), values


def random_item(rng: Random, schedule: Schedule, name: str) -> tuple[str, set[int]]:
    """A value, a range or a step, and its values."""
    low, high = LIMITS[name]
    shape = rng.choice(["value", "value", "range", "range", "step", "star", "range/step"])
    first, last = rng.randint(low, high), rng.randint(low, high)
    step = rng.randint(1, rng.choice([3, 7, high - low + 1]))
    if shape == "value":
        return spelling(rng, schedule, name, first), {first}
    if shape == "star":
        return f"*/{step}", set(range(low, high + 1, step))
    if shape == "step":
        top = 7 if name == "weekday" else high
        if name == "weekday" or first == high:
            schedule.croniter = False  # its week ends on Saturday; a start at the top is its own
        if name == "weekday" and top in range(first, top + 1, step):
            values = {n % 7 for n in range(first, 8, step)}
        else:
            values = set(range(first, top + 1, step))
        return f"{spelling(rng, schedule, name, first, plain=True)}/{step}", values
    if last <= first:
        schedule.cronsim = False
        if last == first or shape == "range/step":
            schedule.croniter = False  # croniter: jan-jan is the year; another phase after the wrap
    ordered = range(first, (last if first <= last else last + high - low + 1) + 1)
    values = set(ordered if shape == "range" else ordered[::step])
    text = (
        f"{spelling(rng, schedule, name, first, True)}-{spelling(rng, schedule, name, last, True)}"
    )
    return (
        text if shape == "range" else f"{text}/{step}",
        {low + (n - low) % (high - low + 1) for n in values},
    )


def random_special(rng: Random, schedule: Schedule, name: str, count: int) -> str:
    """L, L-3, LW, 15W; 5#3, 5L, L5."""
    if name == "day":
        shape = rng.choice(["L", "L-n", "LW", "nW"])
        if shape == "L":
            schedule.from_end.add(0)
            return "L"
        if shape == "L-n":
            schedule.croniter = schedule.cronsim = False
            n = rng.randint(1, 30)
            schedule.from_end.add(n)
            return f"L-{n}"
        if shape == "LW":
            schedule.croniter = False
            schedule.near.add(0)
            return rng.choice(["LW", "lw"])
        schedule.cronsim = False
        n = rng.randint(1, 31)
        # croniter has no list of these, and takes the last day where a month lacks the day
        schedule.croniter &= count == 1 and n <= 28
        schedule.near.add(n)
        return f"{n}W"
    week = rng.randint(1, 6)
    weekday = rng.randint(0, 6)
    schedule.nth.add((week, weekday))
    if week < 6:
        return f"{spelling(rng, schedule, name, weekday)}#{week}"
    if rng.random() < 0.5:
        schedule.croniter = False
        return f"{weekday}L"
    schedule.cronsim = False
    return f"L{weekday}"


def spelling(rng: Random, schedule: Schedule, name: str, value: int, plain: bool = False) -> str:
    """A value as a number or a name, in any case."""
    names = {"month": MONTHS, "weekday": WEEKDAYS}.get(name)
    if names and rng.random() < 0.4:
        text = names[value - LIMITS[name][0]]
        return rng.choice([text, text.upper(), text.capitalize()])
    if name == "weekday" and value == 0 and not plain and rng.random() < 0.5:
        return "7"
    return f"{value:02d}" if rng.random() < 0.1 else str(value)
