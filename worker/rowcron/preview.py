"""The next instants of a schedule by croniter, for where no database is at hand."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from rowcron.crondays import ever
from rowcron.cronfields import DAY, WEEK, BadSchedule, is_plain, read_field
from rowcron.intervals import read_interval

__all__ = ["ONLY_THE_DATABASE", "BadSchedule", "describe", "next_runs"]

NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
STRANGE = re.compile(r"[^\x20-\x7e\t\r\n]")
LONGEST = 1000
# as rowcron._parse_instant (sql/024)
INSTANT = re.compile(
    r"(\d{4})-(\d\d?)-(\d\d?)"
    r"(?:[Tt ] *([01]?\d|2[0-3]):([0-5]\d)(?::([0-5]\d)(?:\.(\d{1,6}))?)?"
    r" *(?:([Zz])|([+-])(0\d|1[0-5]):?([0-5]\d)?)?)?",
    re.ASCII,
)
FAR = timedelta(days=366 * 30)
WIDEST = timedelta(hours=3)  # no clock change moves further, days that a zone left out aside
LIMIT = 20_000
ONLY_THE_DATABASE = "well-formed; its times are known to the database only"


def next_runs(
    schedule: str, count: int, *, after: datetime, timezone: ZoneInfo, seed: str = ""
) -> list[datetime] | None:
    """Return the next `count` instants after `after`; None where only the database can tell.

    `after` has a time zone. `seed` spreads `H`: a job's is owner and name, joined by a dot. Raises
    `BadSchedule`.
    """
    try:
        return _next_runs(schedule, count, after, timezone, seed)
    except OverflowError:
        raise BadSchedule("it leads beyond the year 9999; ask the database") from None


def _next_runs(
    schedule: str, count: int, after: datetime, timezone: ZoneInfo, seed: str
) -> list[datetime] | None:
    if strange := STRANGE.search(schedule):
        raise BadSchedule(f'character "{strange[0]}" does not belong there; type it anew')
    if len(schedule) > LONGEST:
        raise BadSchedule(f"{len(schedule)} characters, a schedule has at most {LONGEST}")
    text = " ".join(schedule.split())
    word, _, rest = text.partition(" ")
    match word.lower():
        case "@reboot" if not rest:
            return []
        case "@every" | "@after":
            interval = read_interval(rest)
            if interval.calendar or (interval.days and not _is_fixed(timezone)):
                return None  # a day there may have 23 hours
            step = timedelta(interval.days, microseconds=round(interval.seconds * 1_000_000))
            start = after.astimezone(UTC)
            return [(start + step * number).astimezone(timezone) for number in range(1, count + 1)]
        case "@at":
            at = _instant(rest, timezone)
            return [at] if at.astimezone(UTC) > after.astimezone(UTC) else []
    text = NICKNAMES.get(text.lower(), text)
    if text.startswith("@"):
        raise BadSchedule(f'unknown schedule "{text}", for example @daily or @every 90 seconds')
    return _cron(text.split(" "), count, after, timezone, seed)


def describe(schedule: str) -> str | None:
    """Say what the instants of a schedule leave out."""
    text = schedule.strip().lower()
    if text == "@reboot":
        return "when PostgreSQL has started"
    if text.startswith("@every"):
        return "counted from now here, in the database from starts_at or the job's creation"
    if text.startswith("@after"):
        return "from the end of each run"
    if text.startswith("@at"):
        return "once"
    return None


def _cron(
    fields: list[str], count: int, after: datetime, timezone: ZoneInfo, seed: str
) -> list[datetime] | None:
    from croniter import croniter
    from croniter.croniter import CroniterError

    if len(fields) not in (5, 6):
        raise BadSchedule(
            f"{len(fields)} fields, a schedule has five (minute hour day month weekday)"
            " or six (seconds first)"
        )
    first = 6 - len(fields)
    read = [read_field(text, first + place, seed) for place, text in enumerate(fields)]
    days, weekdays = read[DAY - first], read[WEEK - first]
    either = not (fields[DAY - first][0] in "*?" or fields[WEEK - first][0] in "*?")
    if None in read or (either and not (is_plain(days) and is_plain(weekdays))):
        texts = fields[DAY - first], str(read[4 - first]), fields[WEEK - first]
        if not ever(*texts, either, seed):
            raise BadSchedule("it never occurs")
        return None
    if either and "*" in (days, weekdays):
        read[DAY - first] = read[WEEK - first] = "*"
    fixed = len(fields) == 5 and not any(part[0] == "*" for part in fields[:2])
    # Compared in UTC: Python compares two instants of one zone by their wall-clock time.
    start = after.astimezone(UTC)
    wall = start.astimezone(timezone).replace(tzinfo=None)
    end = wall + FAR
    times = croniter(
        " ".join(map(str, read)),
        wall - (WIDEST if _changed_near(start, timezone) else timedelta()),
        second_at_beginning=True,
        day_or=either,
    )
    found: list[datetime] = []
    try:
        while len(found) < count or _changes(wall, timezone):
            wall = times.get_next(datetime)
            if wall > end:
                break
            instants = [at.astimezone(UTC) for at in _instants(wall, timezone, fixed)]
            found += [at for at in instants if at > start and at not in found]
            if len(found) > LIMIT:
                break
    except CroniterError as error:
        if not found:
            raise BadSchedule("it never occurs") from error
    return [at.astimezone(timezone) for at in sorted(found)[:count]]


def _is_fixed(timezone: ZoneInfo) -> bool:
    """Whether its clocks are never changed, as far as the next years tell."""
    now = datetime.now(UTC)
    offsets = {(now + timedelta(days=30 * n)).astimezone(timezone).utcoffset() for n in range(24)}
    return len(offsets) == 1


def _changes(wall: datetime, timezone: ZoneInfo) -> bool:
    """Whether clocks change within `WIDEST` after this wall-clock time."""
    later = (wall + WIDEST).replace(tzinfo=timezone)
    return wall.replace(tzinfo=timezone).utcoffset() != later.utcoffset()


def _changed_near(at: datetime, timezone: ZoneInfo) -> bool:
    """Whether clocks change within `WIDEST` of an instant in UTC, before or after it."""
    sides = ((at + side).astimezone(timezone).utcoffset() for side in (-WIDEST, WIDEST))
    return len(set(sides)) > 1


def _instants(wall: datetime, timezone: ZoneInfo, fixed: bool) -> list[datetime]:
    """The instants of a wall-clock time: a fixed one has always one, others none in a gap."""
    if fixed:
        return [_first_instant(wall, timezone)]
    both = [wall.replace(tzinfo=timezone, fold=fold).astimezone(UTC) for fold in (0, 1)]
    return [
        at for at in dict.fromkeys(both) if at.astimezone(timezone).replace(tzinfo=None) == wall
    ]


def _first_instant(wall: datetime, timezone: ZoneInfo) -> datetime:
    """A wall-clock time as an instant: the first of a doubled hour, the first after a gap."""
    local = wall.replace(tzinfo=timezone, fold=0)
    there = local.astimezone(UTC).astimezone(timezone)
    if there.replace(tzinfo=None) == wall:
        return local
    before = local.replace(fold=0).utcoffset() or timedelta()
    after = local.replace(fold=1).utcoffset() or timedelta()
    width = abs(after - before)  # the gap: search its end to the minute
    low = (wall - width).replace(tzinfo=UTC) - min(before, after)
    for minute in range(int(2 * width.total_seconds() // 60) + 2):
        here = (low + timedelta(minutes=minute)).astimezone(timezone)
        if here.replace(tzinfo=None) > wall:
            return here
    return there


def _instant(text: str, timezone: ZoneInfo) -> datetime:
    found = INSTANT.fullmatch(text)
    if found is None:
        raise BadSchedule(f'"{text}" is not an instant, for example 2026-12-24 18:00')
    year, month, day, hour, minute, second = (int(part or 0) for part in found.groups()[:6])
    fraction = int((found[7] or "").ljust(6, "0"))
    try:
        wall = datetime(year, month, day, hour, minute, second, fraction)
    except ValueError:
        raise BadSchedule(f'instant "{text}" does not exist') from None
    if found[8] or found[9]:
        ahead = timedelta(hours=int(found[10] or 0), minutes=int(found[11] or 0))
        return wall.replace(tzinfo=UTC) - (-ahead if found[9] == "-" else ahead)
    return _first_instant(wall, timezone)
