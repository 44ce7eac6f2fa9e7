"""What `rowcron next` and `rowcron check` say without a database is what the database says."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from itertools import product
from zoneinfo import ZoneInfo

import psycopg
import pytest

from rowcron.crontab_check import check_lines
from rowcron.crontab_check import zone as zone_named
from rowcron.preview import BadSchedule, next_runs

SEED = "alice.report"
AFTER = datetime(2026, 3, 27, 12, tzinfo=UTC)
ZONES = ("Australia/Lord_Howe", "America/Santiago")
ITEMS = {
    "minute": "* */5 */90 0 7 59 60 5-5 50-10 5/15 5/61 0-59/61 H H/15 H(0-29)/10 H(9-5) r 5,? ?"
    " 1,2,*/30 01 -1 a",
    "hour": "* */2 */25 0 3 24 3-3 22-2 5/15 H H(2-4) r ? L",
    "day": "* ? */2 */31 */32 1 31 32 0 1-1 28-3 1-31 1,15 5/10 L L-3 L-31 LW 1W 31W 32W 15W,L 1,L"
    " H H/7 L,L r",
    "month": "* 1 jan jan-mar nov-feb 2 */3 */13 0 13 feb,apr january H r 02",
    "weekday": "* ? 0 7 8 mon mon-fri fri-mon fri-fri 5/2 1-7 7-2 0-7 sun-sat 5#3 fri#3 5#5 5#6 1L"
    " fril l5 lfri 7L 0L 5#3,1 5L,1 */2 */8 H H(1-5) mo r",
}  # fmt: skip
WORDS = (
    "@daily @hourly @weekly @monthly @yearly @noon @reboot @every @every_90_seconds @every_P1D"
    " @every_2_weeks @every_1_day @every_1_month @every_1_hour_30_min @every_00:05:00"
    " @every_5_parsecs @after_5_minutes @after_1_day @at_2026-12-24_18:00"
    " @at_2026-12-24T18:00Z @at_2020-01-01"
)  # fmt: skip
# as they stand, blanks and all
LINES = (
    "0 3 * *\u00a0*", "0 3\u00a0* * * *", "0 3 * * *\x0b", "\u0663 3 * * *", "\uff11 3 * * *",
    "0 3 * * *\t\r\n", "@every 5 ms", "@every 5 msec", "@every 1 millisecond", "@every 1000 us",
    "@every 999 us", "@every .5 hours", "@every 1. hour", "@every 1.h", "@every 90 SECS",
    "@every 1h30m", "@every 90min5s", "@every 5 mss", "@every 5 mins", "@every 2 days",
    "@every 1.5 days", "@every 2 weeks 1 day", "@every foo month", "@every Pfoo", "@every month",
    "@every -1 month", "@every 1 month ago", "@every 200 years", "@every 100 years",
    "@every 99 years 12 months", "@every 0.0001 s", "@every 1 hour 1:00", "@every 2 hours 2 hours",
    "@every 1 day 1:00", "@every 1 1:00", "@every 1:60", "@every 1.5 s 1 ms", "@every P1W",
    "@every PT5M", "@every p1d", "@every P1DT", "@every P", "@every 5", "@every 5 minutes 3",
    "@every 0 s", "@every 1 mon", "@every\u00a05 minutes", "@every \u0663 minutes",
    "@every infinity", "@every 8:45:35 1 day", "@every 8:45 1 day", "@every 1:30 1:30",
    "@every 8:45 1.5 days", "@every 1:30.5",
    "@every 75:30.5", "@every 1 1:30.", "@every 1:00:60", "@every P.5Y", "@every P1.5e1D",
    "@every PT1.E2S",
    "@every P1eD", "@every P.D", "@every PT.5H", "@every 1 decade", "@after 5 ms", "@at 20270101",
    "@at 2027-W01-1",
    "@at 2026-12-24 18", "@at 2027-01-01x10:00", "@at 2027-1-1", "@at 2027-01-01 9:00",
    "@at 2027-01-01T09:00", "@at 2027-01-01T  09:00", "@at 2027-01-01 9:0", "@at 2027-02-29",
    "@at 2027-01-01 24:00", "@at 2027-01-01 09:00:00.25", "@at 2027-01-01 09:00:60",
    "@at 2027-01-01 09:00Z", "@at 2027-01-01 09:00 z", "@at 2027-01-01 09:00+0530",
    "@at 0000-01-01", "@at 2027-01-01 09:00 -15:59", "@at 2027-01-01 09:00+16", "@at 2027-01-01Z",
    "@at \u0662027-01-01", "@at 2026-10-04 02:15", "@at 2027-04-04 01:45", "@at 2026-09-06 00:30",
    "@at 2027-04-03 23:30", "0 0 L-30 2 *", "0 0 L-29 2 *", "0 0 L-28 2 *", "0 0 L-27 2,4 *",
    "0 0 30W 2 *", "0 0 29W 2 *", "0 0 31W 4,6 *", "0 0 018W * *", "0 0 L-030 * *",
    "0 0 01W,L-03 * *",
    "0 0 1W 2 *", "0 0 LW 2 *", "0 0 */31 * 5#2",
    "0 0 L-30 2 mon", "0 0 1,L-30 2 *", "0 0 */2 * 1L,2L", "0 0 LW,15 2 ?", "0 0 1W,L * *",
    "0 0 ? 2 5#5,L0", "0 " + "0," * 400 + "0 * * *", "0 " + "0," * 600 + "0 * * *",
    "TZ=UTC 0 3 * * *", "@ daily", "00001 * * * *", "@every", "@at", "@reboot 5",
)  # fmt: skip
ASKED_ZONES = (
    "UTC Europe/Berlin CET CEST EET EST EST5EDT HST MET MST WET GMT GMT0 Zulu UCT Universal Cuba"
    " PRC posix/Europe/Berlin right/UTC localtime posixrules Factory Etc/GMT+5 UTC+3 Europe"
    " Mars/Olympus ../UTC W-SU NZ GB"
)
NEAR = ("*/15 {} * * *", "30 {} * * *", "0,45 {} * * *", "0 */20 {} * * *")
PLAIN = {"minute": "30", "hour": "2", "day": "*", "month": "*", "weekday": "*"}


def expressions() -> list[str]:
    """Each item of each field by itself, each pair of day fields, and some of everything."""
    items = {field: text.split() for field, text in ITEMS.items()}
    found = [" ".join((PLAIN | {field: item}).values()) for field in items for item in items[field]]
    found += [f"30 2 {day} * {week}" for day, week in product(items["day"], items["weekday"])]
    luck = random.Random(1)
    found += [" ".join(luck.choice(each) for each in items.values()) for _ in range(200)]
    found += [f"{luck.choice(items['minute'])} {one}" for one in luck.sample(found, 100)]
    return found + [word.replace("_", " ") for word in WORDS.split()] + list(LINES)


@pytest.mark.once
@pytest.mark.parametrize("zone", ZONES)
def test_a_preview_says_what_the_database_says_or_nothing(
    db: psycopg.Connection, zone: str
) -> None:
    different, told = [], 0
    for schedule in expressions():
        theirs: object
        try:
            query = "select rowcron.next_runs(%s, 6, %s, %s, seed => %s)"
            theirs = [
                row[0].astimezone(UTC)
                for row in db.execute(query, [schedule, AFTER, zone, SEED]).fetchall()
            ]
        except psycopg.DatabaseError as error:
            theirs = "never" if "never happens" in str(error) else "bad"
        ours: object
        try:
            found = next_runs(schedule, 6, after=AFTER, timezone=ZoneInfo(zone), seed=SEED)
            ours = None if found is None else [at.astimezone(UTC) for at in found]
        except BadSchedule as error:
            ours = "never" if "never occurs" in str(error) else "bad"
        told += ours is not None
        if ours != theirs and not (ours is None and isinstance(theirs, list)):
            different.append((schedule, ours, theirs))
    assert different == []
    assert told > 600


@pytest.mark.once
@pytest.mark.parametrize(
    ("zone", "change"),
    [
        ("Europe/Berlin", datetime(2027, 10, 31, 1, tzinfo=UTC)),
        ("Europe/Berlin", datetime(2027, 3, 28, 1, tzinfo=UTC)),
        ("Australia/Lord_Howe", datetime(2027, 4, 3, 15, tzinfo=UTC)),
        ("Antarctica/Troll", datetime(2027, 10, 31, 1, tzinfo=UTC)),
        ("America/Havana", datetime(2027, 11, 7, 5, tzinfo=UTC)),
    ],
)
def test_a_preview_may_begin_next_to_a_change_of_time(
    db: psycopg.Connection, zone: str, change: datetime
) -> None:
    hours = {(change + timedelta(hours=n)).astimezone(ZoneInfo(zone)).hour for n in range(-2, 3)}
    schedules = [f"{line.format(hour)}" for line in NEAR for hour in sorted(hours)]
    for minutes in range(-200, 201, 20):
        after = change + timedelta(minutes=minutes)
        for schedule in schedules:
            theirs = db.execute(
                "select rowcron.next_runs(%s, 6, %s, %s)", [schedule, after, zone]
            ).fetchall()
            ours = next_runs(schedule, 6, after=after, timezone=ZoneInfo(zone))
            assert ours is not None
            found = [at.astimezone(UTC) for at in ours]
            assert found == [row[0].astimezone(UTC) for row in theirs], (schedule, after)


@pytest.mark.once
def test_the_zones_that_are_refused_are_the_databases(db: psycopg.Connection) -> None:
    different = []
    for name in ASKED_ZONES.split():
        try:
            db.execute("select rowcron._check_timezone(%s)", [name])
            theirs = True
        except psycopg.DatabaseError:
            theirs = False
        try:
            zone_named(name)
            ours = True
        except BadSchedule:
            ours = False
        if ours != theirs:
            different.append((name, ours, theirs))
    assert different == []


def test_blanks_that_are_none_of_a_crontab_s_do_not_part_its_fields() -> None:
    lines = ["0 3\u00a0* * * * backup", "0 3 * * *\tbackup"]
    verdicts = list(check_lines(lines, after=AFTER))
    assert [verdict.error is None for verdict in verdicts] == [False, True]
