"""Schedules without a database: read them from a file, judge them, preview them with croniter.

A line is a schedule, or a crontab's line: five fields, then a command, in a system crontab with a
user in between. The database is the judge; this is its understudy, and says where it cannot tell.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from zoneinfo import ZoneInfo

from rowcron.preview import ONLY_THE_DATABASE, BadSchedule, describe, next_runs

__all__ = [
    "ONLY_THE_DATABASE",
    "BadSchedule",
    "Verdict",
    "check_lines",
    "describe",
    "next_runs",
    "zone",
]

SENTENCE = re.compile(r"@(every|after|at)\b", re.I)
SETTING = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*|\"[^\"]*\"|'[^']*')\s*=\s*(.*)$")
NAMES = "jan feb mar apr may jun jul aug sep oct nov dec sun mon tue wed thu fri sat".split()
FIELD = re.compile(rf"(?:[0-9*?/,\-LWH#()]|{'|'.join(NAMES)})+", re.I)
HASHED = re.compile(r"(^|[ ,])h\b", re.I)
SPREAD = "H: spread by the job's owner and name, here by the line, so its times differ"
# there are files of these names; why they are refused tells sql/015
NO_ZONE = re.compile(
    r"(posix|right|SystemV)/|(localtime|posixrules|Factory|CET|EET|EST|HST|MET|MST|WET)$"
)
BLANKS = re.compile(r"[ \t]+")  # no others: in a schedule they are refused
FORMATS = ("auto", "crontab", "system", "schedules")


@dataclass(frozen=True)
class Verdict:
    """What there is to say about one line: `error` is None when the schedule is good."""

    line: int
    schedule: str
    command: str | None = None
    user: str | None = None
    timezone: str = "UTC"
    error: str | None = None
    note: str | None = None
    next_runs: list[datetime] = field(default_factory=list)


def zone(name: str) -> ZoneInfo:
    """Return the time zone of an IANA name. Raises `BadSchedule`."""
    try:
        if not NO_ZONE.match(name):
            return ZoneInfo(name)
    except (OSError, ValueError, KeyError):
        pass
    raise BadSchedule(f'unknown time zone "{name}", use an IANA name: Europe/Berlin')


def check_lines(
    lines: Iterable[str],
    *,
    form: str = "auto",
    timezone: str = "UTC",
    count: int = 3,
    after: datetime,
) -> Iterator[Verdict]:
    """Yield a verdict for each line that holds a schedule; `CRON_TZ=` changes the zone below it."""
    current = timezone
    for number, raw in enumerate(lines, 1):
        line = raw.strip("\ufeff\r\n\t ")
        if not line or line.startswith("#"):
            continue
        if form != "schedules" and (setting := SETTING.match(line)):
            if setting[1] == "CRON_TZ":
                current = setting[2].strip().strip("\"'") or timezone
            continue
        schedule, rest = split_line(line, form)
        user, command = _user(rest, form)
        try:
            if form == "system" and command is None:
                raise BadSchedule("a system crontab has a user and a command after the schedule")
            if form == "crontab" and command is None:
                raise BadSchedule("a crontab has a command after the schedule")
            found = next_runs(schedule, count, after=after, timezone=zone(current), seed=line)
            note = describe(schedule) or (SPREAD if HASHED.search(schedule) else None)
            note = ONLY_THE_DATABASE if found is None else note
            yield Verdict(number, schedule, command, user, current, None, note, found or [])
        except BadSchedule as error:
            yield Verdict(number, schedule, command, user, current, str(error))


def split_line(line: str, form: str = "auto") -> tuple[str, str]:
    """Split a line into its schedule and the rest, which is empty when there is none."""
    if form == "schedules" or (form == "auto" and SENTENCE.match(line)):
        return line, ""
    if line.startswith("@"):
        schedule, _, rest = line.partition(" ")
        schedule, tab, more = schedule.partition("\t")
        return schedule, (more + " " + rest if tab else rest).strip()
    words = BLANKS.split(line)
    # Six fields, seconds first, only if all look so: `0 3 * * 1 backup` is a crontab's.
    if form == "auto" and len(words) <= 6 and all(FIELD.fullmatch(word) for word in words):
        return line, ""
    parts = BLANKS.split(line, 5)
    return " ".join(parts[:5]), parts[5] if len(parts) > 5 else ""


def _user(rest: str, form: str) -> tuple[str | None, str | None]:
    if form != "system":
        return None, rest or None
    user, *command = rest.split(None, 1) or [""]
    return user or None, command[0].strip() if command else None
