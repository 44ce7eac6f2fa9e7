"""Whether any day is one of a cron expression's, for day fields that croniter has no words for.

As `rowcron._next_day` (sql/021), but day by day: it is asked about a schedule that is checked.
"""

from __future__ import annotations

import re
from datetime import date, timedelta

from rowcron.cronfields import DAY, WEEK, values_of

__all__ = ["ever"]

FIRST, LAST = date(2000, 1, 1), date(2040, 1, 1)  # after 40 years weekdays come again


def ever(day: str, months: str, week: str, either: bool, seed: str) -> bool:
    """Whether a day of these fields exists; `months` as numbers, or `*`."""
    allowed = set(range(1, 13)) if months == "*" else {int(month) for month in months.split(",")}
    days, day_items = values_of(day, DAY, seed)
    weekdays, week_items = values_of(week, WEEK, seed)
    today = FIRST
    while today < LAST:
        if today.month in allowed:
            last = (today.replace(day=28) + timedelta(days=4)).replace(day=1) - timedelta(days=1)
            by_day = today.day in days or any(_is_day(item, today, last) for item in day_items)
            by_week = today.isoweekday() % 7 in weekdays or any(
                _is_week(item, today, last) for item in week_items
            )
            if (by_day or by_week) if either else (by_day and by_week):
                return True
        today += timedelta(days=1)
    return False


def _is_day(item: str, today: date, last: date) -> bool:
    """`L`, `L-3`, `LW`, `15W`."""
    if item.endswith("W"):
        wanted = last if item == "LW" else _of_month(last, int(item[:-1]))
        return wanted is not None and today == _working_day(wanted, last, item == "LW")
    return today == last - timedelta(days=int(item[2:] or 0))


def _of_month(last: date, day: int) -> date | None:
    return last.replace(day=day) if day <= last.day else None


def _working_day(wanted: date, last: date, before: bool) -> date:
    """The nearest working day of the same month, or the one before."""
    weekday = wanted.isoweekday()
    if weekday < 6:
        return wanted
    back, on = weekday - 5, 8 - weekday
    if before or (weekday == 6 and wanted.day > 1) or (weekday == 7 and wanted == last):
        return wanted - timedelta(days=back)
    return wanted + timedelta(days=on)


def _is_week(item: str, today: date, last: date) -> bool:
    """`5#3`, `5L`, `L5`, with numbers from 0 to 6."""
    found = re.fullmatch(r"L?([0-6])(?:#([1-5])|L)?", item)
    assert found is not None
    if today.isoweekday() % 7 != int(found[1]):
        return False
    return (today.day + 6) // 7 == int(found[2]) if found[2] else last.day - today.day < 7
