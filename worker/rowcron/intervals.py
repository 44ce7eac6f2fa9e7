"""Intervals of `@every` and `@after`, without a database.

This is `rowcron._parse_interval` (sql/024) once more, and of PostgreSQL's own reader what people
write: numbers with units, a clock among them, and ISO 8601 with its letters. A test compares.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

from rowcron.cronfields import BadSchedule

__all__ = ["Interval", "read_interval"]

DAY = 86400
SECONDS = {
    "microsecond": Fraction(1, 1_000_000),
    "millisecond": Fraction(1, 1000),
    "second": Fraction(1),
    "minute": Fraction(60),
    "hour": Fraction(3600),
}
DAYS = {"day": 1, "week": 7}
MONTHS = {"month": 1, "year": 12, "decade": 120, "century": 1200, "millennium": 12000}
LONG = {"day": Fraction(1), "week": Fraction(7), "month": Fraction(30)}
SPELT = {
    "microsecond": "us usec usecs usecond useconds microsecond microseconds",
    "millisecond": "ms msec msecs msecond mseconds millisecond milliseconds",
    "second": "s sec secs second seconds",
    "minute": "m min mins minute minutes",
    "hour": "h hr hrs hour hours",
    "day": "d day days",
    "week": "w week weeks",
    "month": "mon mons month months",
    "year": "y yr yrs year years",
    "decade": "dec decs decade decades",
    "century": "c cent century centuries",
    "millennium": "mil mils millennia millennium",
}
WORDS = {word: unit for unit, words in SPELT.items() for word in words.split()}
FINER = ("millisecond", "microsecond")
LETTERS = {"Y": "year", "W": "week", "D": "day", "H": "hour", "S": "second"}
# Hours and minutes, perhaps seconds; with a fraction but one colon these are minutes and seconds.
CLOCK = re.compile(
    r"(?:([0-9]+) +)?([0-9]+):([0-5]?[0-9]|60(?=\.))"
    r"(?:(\.[0-9]*)|:((?:[0-5]?[0-9]|60)(?:\.[0-9]*)?))?(?: +|$)"
)
# A digit or a point next to letters begins a date, unless these are a word that dates have, too.
PART = re.compile(
    r"([0-9]+(?:\.[0-9]+|\.(?= ))?|\.[0-9]+) *((?:[dhmsy]|mon|dec)(?=[0-9])|[a-z]+(?![a-z0-9.])) *",
    re.I,
)
NUMBER = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[Ee][0-9]{1,3})?"
ISO = re.compile(rf"P((?:{NUMBER}[YMWD])*)(?:T((?:{NUMBER}[HMS])*))?")
ISO_PART = re.compile(rf"({NUMBER})([A-Z])")


class Interval(NamedTuple):
    """`seconds` of elapsed time, and whole `days`; `calendar`: months too, so no length is told."""

    days: int
    seconds: Fraction
    calendar: bool


def read_interval(text: str) -> Interval:
    """Read `90 seconds`, `1 h 30 min`, `00:05:00`, `PT5M`. Raises `BadSchedule`."""
    parts = _iso(text) if text.startswith("P") else _words(text)
    if parts is None:
        raise BadSchedule(f'"{text}" is not an interval, for example 90 seconds')
    months, days, seconds = 0, Fraction(), Fraction()
    for unit, amount in parts:
        if unit in MONTHS:  # of a year no days are left over, of a month they are
            count = amount if unit == "month" else Fraction(round(amount * MONTHS[unit]))
            months += int(count)
            days += count % 1 * 30
        elif unit in DAYS:
            days += amount * DAYS[unit]
        else:
            seconds += amount * SECONDS[unit]
    seconds += days % 1 * DAY
    # a month has 30 days where PostgreSQL compares it
    length = (months * 30 + int(days)) * DAY + round(seconds, 6)
    if not SECONDS["millisecond"] <= length <= 36000 * DAY:
        raise BadSchedule(f'"{text}" is not between 1 millisecond and 100 years')
    return Interval(int(days), seconds, months > 0)


def _iso(text: str) -> list[tuple[str, Fraction]] | None:
    found = ISO.fullmatch(text)
    if found is None:
        return None
    date = ISO_PART.findall(found[1])
    time = ISO_PART.findall(found[2] or "")
    parts = [("month" if letter == "M" else LETTERS[letter], amount) for amount, letter in date]
    parts += [("minute" if letter == "M" else LETTERS[letter], amount) for amount, letter in time]
    return [(unit, Fraction(amount)) for unit, amount in parts]


def _words(text: str) -> list[tuple[str, Fraction]] | None:
    """Numbers with units, none twice, and somewhere among them perhaps a clock."""
    parts: list[tuple[str, Fraction]] = []
    units: list[str] = []
    place, has_clock = 0, False
    while place < len(text):
        if part := PART.match(text, place):
            unit = WORDS.get(part[2].lower())
            if unit is None:
                raise BadSchedule(f'unknown unit "{part[2]}" in "{text}", for example 90 seconds')
            amount = Fraction(part[1].removesuffix("."))
            if has_clock and unit in LONG:  # PostgreSQL reads from the end; a clock then sets
                amount = int(amount * LONG[unit]) / LONG[unit]  # what of a day was left over
            parts.append((unit, amount))
            units += [unit, *(FINER if unit == "second" and "." in part[1] else ())]
            place = part.end()
        elif clock := CLOCK.match(text, place):
            read = _clock(clock)
            if read is None:
                return None
            parts += read
            units += [*(unit for unit, _ in read), *FINER]
            place, has_clock = clock.end(), True
        else:
            return None
    return parts if parts and len(set(units)) == len(units) else None


def _clock(found: re.Match[str]) -> list[tuple[str, Fraction]] | None:
    days, hours, minutes, fraction, seconds = found.groups()
    if fraction is not None:
        hours, minutes, seconds = "0", hours, minutes + fraction
        if int(minutes) > 59:
            return None
    read = [("hour", hours), ("minute", minutes), ("second", (seconds or "0").removesuffix("."))]
    read += [] if days is None else [("day", days)]
    return [(unit, Fraction(amount)) for unit, amount in read]
