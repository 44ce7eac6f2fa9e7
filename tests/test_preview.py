"""What `rowcron next` and `rowcron check` say without a database is what the database says."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from itertools import product
from zoneinfo import ZoneInfo

import psycopg
import pytest

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
PLAIN = {"minute": "30", "hour": "2", "day": "*", "month": "*", "weekday": "*"}


def expressions() -> list[str]:
    """Each item of each field by itself, each pair of day fields, and some of everything."""
    items = {field: text.split() for field, text in ITEMS.items()}
    found = [" ".join((PLAIN | {field: item}).values()) for field in items for item in items[field]]
    found += [f"30 2 {day} * {week}" for day, week in product(items["day"], items["weekday"])]
    luck = random.Random(1)
    found += [" ".join(luck.choice(each) for each in items.values()) for _ in range(200)]
    found += [f"{luck.choice(items['minute'])} {one}" for one in luck.sample(found, 100)]
    return found + [word.replace("_", " ") for word in WORDS.split()]


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
        if ours != theirs and not (ours is None and theirs != "bad"):
            different.append((schedule, ours, theirs))
    assert different == []
    assert told > 600
