"""The fields of a cron expression, without a database: read into lists of numbers.

croniter takes more than the database does (steps beyond the field, `r`) and reads some of it
otherwise (`1-1`, `5/2` in weekdays), so it is given nothing but lists of numbers. This is
`rowcron._parse_field` (sql/023) once more; a test compares the two.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import NamedTuple

ITEM = re.compile(
    r"(?:(\*)|(H)(?:\((\d{1,4})-(\d{1,4})\))?|(\d{1,4}|[A-Z]{3})(?:-(\d{1,4}|[A-Z]{3}))?)"
    r"(?:/(\d{1,9}))?",
    re.ASCII,
)


class Field(NamedTuple):
    """What may stand in a field. `special`: what names other days than by their numbers."""

    name: str
    allowed: str
    low: int
    high: int
    names: tuple[str, ...] = ()
    special: str = "$."

    @property
    def span(self) -> int:
        """How many values there are; 7 is the 0 of weekdays."""
        return self.high if self.name == "day of week" else self.high - self.low + 1


MONTHS = tuple("JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC".split())
DAYS = tuple("SUN MON TUE WED THU FRI SAT".split())
MONTH_END = "L|LW|L-(0?[1-9]|[12][0-9]|30)|(0?[1-9]|[12][0-9]|3[01])W"
WEEKDAY = rf"0?[0-7]|{'|'.join(DAYS)}"
FIELDS = (
    Field("second", "0-59", 0, 59),
    Field("minute", "0-59", 0, 59),
    Field("hour", "0-23", 0, 23),
    Field("day of month", "1-31, L, L-3, LW, 15W", 1, 31, (), MONTH_END),
    Field("month", "1-12 or jan-dec", 1, 12, MONTHS),
    Field(
        "day of week", "0-7 or sun-sat, 5#3, 5L", 0, 7, DAYS,
        rf"({WEEKDAY})(#0?[1-5]|L)|L({WEEKDAY})",
    ),
)  # fmt: skip
DAY, WEEK = 3, 5


class BadSchedule(ValueError):
    """The schedule is not one, or its time zone is not."""


def is_plain(field: str | None) -> bool:
    """Whether a field that was read names days by their numbers alone."""
    return field == "*" or not re.search("[A-Z#]", field or "", re.I)


def read_field(text: str, slot: int, seed: str) -> str | None:
    """Return a field as the numbers that it means, or None where croniter has no word for it.

    `slot` is 0 for seconds to 5 for the day of the week. Raises `BadSchedule`.
    """
    values, special = values_of(text, slot, seed)
    if not special:
        whole = len(values) == FIELDS[slot].span
        return "*" if whole else ",".join(map(str, sorted(values)))
    if values or len(special) > 1 or (slot == DAY and special != ["L"]):
        return None
    if slot == DAY:
        return "L"
    found = re.fullmatch(r"L?(\d)(?:#(\d)|L)?", special[0])
    assert found is not None
    return f"{found[1]}#{found[2]}" if found[2] else f"L{found[1]}"


def values_of(text: str, slot: int, seed: str) -> tuple[set[int], list[str]]:
    """Return the numbers that a field names and what else it has, weekdays there from 0 to 6.

    Raises `BadSchedule`.
    """
    field = FIELDS[slot]
    values: set[int] = set()
    special: list[str] = []
    for written in text.split(","):
        item = "*" if text == "?" and slot in (DAY, WEEK) else written.upper()
        if found := ITEM.fullmatch(item):
            values.update(_values(found, slot, written, seed))
        elif not re.fullmatch(field.special, item):
            raise _invalid(field, written)
        elif slot == WEEK:
            numbers = re.sub("|".join(DAYS), lambda name: str(DAYS.index(name[0])), item)
            special.append(re.sub(r"^(L?)0?(\d)", _weekday, numbers.replace("#0", "#")))
        else:
            special.append(item)
    return values, special


def _weekday(found: re.Match[str]) -> str:
    return f"{found[1]}{int(found[2]) % 7}"


def _invalid(field: Field, written: str) -> BadSchedule:
    return BadSchedule(f'{field.name} "{written}" is not valid, allowed {field.allowed}')


def _values(found: re.Match[str], slot: int, written: str, seed: str) -> set[int]:
    """The numbers that an item means; as `rowcron._parse_field` has it."""
    field = FIELDS[slot]
    every, spread, *_ = found.groups()
    step = int(found[7] or 1)
    if not 1 <= step <= field.span:
        raise _invalid(field, written)
    if spread:
        if not seed:
            raise BadSchedule(
                f'{field.name} "{written}" needs a job to be spread by: --seed owner.name'
            )
        usual = 6 if slot == WEEK else 28 if slot == DAY and not found[7] else field.high
        low, high = int(found[3] or field.low), int(found[4] or usual)
        if not field.low <= low <= high <= field.high:
            raise _invalid(field, written)
        hashed = int(sha256(seed.encode()).hexdigest()[8 * slot :][:8], 16)
        if not found[7]:
            return {_within(field, low + hashed % (high - low + 1))}
        low += hashed % min(step, high - low + 1)
        return {_within(field, value) for value in range(low, high + 1, step)}
    if every:
        return {_within(field, value) for value in range(field.low, field.high + 1, step)}
    low = _number(field, found[5], written)
    if found[6]:
        high = _number(field, found[6], written)
        if slot == WEEK and low == 7 and high != 7:
            low = 0
        high += field.span if high < low else 0
    else:
        high = field.high if found[7] else low
    return {_within(field, value) for value in range(low, high + 1, step)}


def _number(field: Field, text: str, written: str) -> int:
    if text in field.names:
        return field.names.index(text) + field.low
    if not text.isdigit() or not field.low <= int(text) <= field.high:
        raise _invalid(field, written)
    return int(text)


def _within(field: Field, value: int) -> int:
    return field.low + (value - field.low) % field.span
