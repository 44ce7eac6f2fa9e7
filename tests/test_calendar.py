"""The SQL calendar against a model, croniter and cronsim; `fuzz_calendar.py` tries many more."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise, product
from random import Random
from zoneinfo import ZoneInfo

import psycopg
import pytest
from croniter import croniter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calendar_model import Schedule, instants, local_times, random_schedule
from fuzz_calendar import (
    agreeing_zones,
    answers,
    by_croniter,
    by_cronsim,
    changes,
    compare_all,
    expected,
    prepare,
    random_case,
)

START = datetime(1970, 1, 2, tzinfo=UTC)
ZONES = [
    "Australia/Lord_Howe",  # half an hour
    "Pacific/Apia",  # a day that did not exist
    "Africa/El_Aaiun",  # Ramadan
    "Europe/Dublin",  # negative saving
    "Antarctica/Troll",  # two hours
    "Asia/Kathmandu",  # quarters of an hour
    "Asia/Gaza",
    "America/Nuuk",
    "Africa/Cairo",  # gaps and folds at midnight
    "Asia/Beirut",
    "America/Havana",
    "America/Santiago",
    "Europe/Berlin",
    "America/New_York",
]

# What tells apart: fixed in the gap, at its edges, wildcards, six fields, midnight, days.
TELLING = [
    ("30 2 * * *", {2}, {30}, {0}, False),
    ("0 0 * * *", {0}, {0}, {0}, False),
    ("0,30 0-3 * * *", {0, 1, 2, 3}, {0, 30}, {0}, False),
    ("15 1,2,3,23 * * *", {1, 2, 3, 23}, {15}, {0}, False),
    ("*/20 * * * *", set(range(24)), {0, 20, 40}, {0}, True),
    ("10 */2 * * *", set(range(0, 24, 2)), {10}, {0}, True),
    ("30 15 2 * * *", {2}, {15}, {30}, True),
    ("0 0 0-3 * * *", {0, 1, 2, 3}, {0}, {0}, True),
]

# Where an oracle says otherwise, the rule decides. schedule, after, zone, SQL, the oracle, why.
DECIDED = [
    (
        "20 18,0-3,12 * * *", "2004-10-31 01:01:59", "Europe/Tirane", "2004-10-31 02:20:00",
        "cronsim", "cronsim answers with the past in the second of a doubled hour",
    ),
    (
        "0 8 31W * *", "2026-06-01 00:00:00", "UTC", "2026-07-31 08:00:00",
        "croniter", "no working day is near a 31st that is not; croniter takes the last",
    ),
    (
        "0 0 * * 5/2", "2026-01-01 00:00:00", "UTC", "2026-01-02 00:00:00",
        "", "N/step goes on to 7, which is Sunday, as in cronsim; croniter's week ends on Saturday",
    ),
    (
        "0 0 1 1-1 *", "2026-01-02 00:00:00", "UTC", "2027-01-01 00:00:00",
        "croniter", "a range from a value to itself is that value; croniter takes the whole field",
    ),
]  # fmt: skip


@pytest.fixture
def calendar(db: psycopg.Connection) -> psycopg.Connection:
    """A database in which batches can be asked."""
    prepare(db)
    return db


@pytest.fixture
def zones(db: psycopg.Connection) -> list[str]:
    """The zones above whose tzdata is the same in Python and in the server."""
    return agreeing_zones(db, ZONES)[0]


def naive_runs(
    schedule: Schedule, zone: ZoneInfo, low: datetime, high: datetime, gap: str, fold: str
) -> list[datetime]:
    """Every instant in (low, high], by listing the local times of the days around."""
    start = low.astimezone(zone).replace(tzinfo=None) - timedelta(days=2)
    days = (high - low).days + 5
    found = {
        instant
        for local in local_times(schedule, start, days)
        for instant in instants(local, zone, gap, fold)
    }
    return sorted(instant for instant in found if low < instant <= high)


def telling() -> Iterator[Schedule]:
    """The schedules above as the model understands them."""
    for text, hours, minutes, seconds, elapsed in TELLING:
        yield Schedule(
            text, seconds, minutes, hours, set(range(1, 32)), set(range(1, 13)), set(range(7)),
            elapsed=elapsed,
        )  # fmt: skip


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(seed=st.integers(0, 2**32))
def test_sql_agrees_with_model_croniter_and_cronsim(
    calendar: psycopg.Connection, zones: list[str], seed: int
) -> None:
    rng = Random(seed)
    counts = compare_all(calendar, [random_case(rng, zones) for _ in range(40)])
    assert counts["model: agrees"] > 0
    assert not {what: n for what, n in counts.items() if what.endswith("differs")}, counts


def test_every_change_of_time_2000_to_2037_under_every_policy(
    calendar: psycopg.Connection, zones: list[str]
) -> None:
    low, high = datetime(2000, 1, 1, tzinfo=UTC), datetime(2038, 1, 1, tzinfo=UTC)
    tried = 0
    for name in zones:
        zone = ZoneInfo(name)
        probes = changes(zone)
        moments = [
            datetime.fromtimestamp(after, UTC)
            for before, after in pairwise(probes)
            if after - before == 1 and low.timestamp() < after < high.timestamp()
        ]
        assert moments or name == "Asia/Kathmandu"
        # every change once, with the schedules and policies in turn
        for number, moment in enumerate(moments):
            schedule = list(telling())[number % len(TELLING)]
            for gap, fold in product(("run", "skip"), ("once", "twice")):
                window = (moment - timedelta(hours=30), moment + timedelta(hours=30))
                row = calendar.execute(
                    "select array(select run from rowcron.next_runs(%s, 400, %s, %s,"
                    " on_gap => %s, on_fold => %s) as run where run <= %s),"
                    " rowcron._count(rowcron._parse(%s), %s, %s, %s, null, %s, %s)",
                    (
                        schedule.text, window[0], name, gap, fold, window[1],
                        schedule.text, *window, name, gap, fold,
                    ),
                ).fetchone()  # fmt: skip
                assert row is not None
                wanted = naive_runs(schedule, zone, *window, gap, fold)
                got = [run.astimezone(UTC) for run in row[0]]
                assert got == wanted, (schedule.text, name, moment, gap, fold)
                assert row[1] == len(wanted), (schedule.text, name, moment, gap, fold)
                tried += 1
    assert tried > 2000


def test_next_runs_increase_and_miss_nothing(
    calendar: psycopg.Connection, zones: list[str]
) -> None:
    rng = Random(20261123)
    for _ in range(150):
        schedule = random_schedule(rng, seconds=False)
        name = rng.choice(zones)
        low = START + timedelta(seconds=rng.randrange(120 * 365 * 86400))
        gap = "skip" if schedule.elapsed else "run"
        fold = "twice" if schedule.elapsed else "once"
        high = low + timedelta(days=4)
        wanted = naive_runs(schedule, ZoneInfo(name), low, high, gap, fold)[:300]
        parsed = calendar.execute(
            "select rowcron._parse_or_null(%s) is not distinct from null", (schedule.text,)
        ).fetchone()
        if parsed == (True,):
            assert not wanted, f"{schedule.text} was refused, but happens"
            continue
        rows = calendar.execute(
            "select run from rowcron.next_runs(%s, %s, %s, %s) as run",
            (schedule.text, max(len(wanted), 1), low, name),
        ).fetchall()
        got = [run.astimezone(UTC) for (run,) in rows]
        assert got == sorted(set(got))
        assert got[: len(wanted)] == wanted, (schedule.text, name, low)
        assert len(wanted) == 300 or got[len(wanted) :] == [] or got[len(wanted)] > high


@pytest.mark.parametrize("case", DECIDED, ids=lambda case: case[0])
def test_where_an_oracle_differs_the_rule_decides(
    calendar: psycopg.Connection, case: tuple[str, str, str, str, str, str]
) -> None:
    text, after_text, name, sql_text, oracle, _why = case
    after = datetime.fromisoformat(after_text).replace(tzinfo=UTC)
    row = calendar.execute("select rowcron.next_run(%s, %s, %s)", (text, after, name)).fetchone()
    assert row is not None
    sql = row[0].astimezone(UTC)
    assert sql == datetime.fromisoformat(sql_text).replace(tzinfo=UTC)
    if oracle:
        oracles = {"croniter": by_croniter, "cronsim": by_cronsim}
        said = oracles[oracle]((Schedule(text), after, name, None, None))
        assert said != sql, f"{oracle} now agrees: take the case out of the table"


def test_the_model_and_the_oracles_are_asked_at_all() -> None:
    """A comparison that compares nothing would pass: each oracle is seen to answer."""
    rng = Random(1)
    cases = [random_case(rng, ["Europe/Berlin"]) for _ in range(300)]
    plain = [case for case in cases if case[0].cronsim and case[3] is None]
    utc = [case for case in cases if case[0].croniter and case[2] == "UTC"]
    assert len(plain) > 10
    assert len(utc) > 10
    assert sum(by_croniter(case) == expected(case) for case in utc) > len(utc) * 0.9
    assert sum(by_cronsim(case) == expected(case) for case in plain) > len(plain) * 0.9


def test_crontab_lines_of_debian_packages_run_when_croniter_says(
    calendar: psycopg.Connection,
) -> None:
    """Of e2scrub_all, sysstat, certbot, php's sessionclean, anacron, the system crontab."""
    after = datetime(2026, 2, 27, 23, 30, tzinfo=UTC)
    for text in [
        "30 3 * * 0", "10 3 * * *", "5-55/10 * * * *", "59 23 * * *", "0 */12 * * *",
        "09,39 * * * *", "30 7-23 * * *", "17 * * * *", "25 6 * * *", "47 6 * * 7", "52 6 1 * *",
    ]:  # fmt: skip
        rows = calendar.execute(
            "select run from rowcron.next_runs(%s, 50, %s) as run", (text, after)
        ).fetchall()
        oracle = croniter(text, after, datetime, implement_cron_bug=True)
        assert [run.astimezone(UTC) for (run,) in rows] == list(islice(oracle.all_next(), 50))


def test_answers_are_the_same_whatever_the_session_says(calendar: psycopg.Connection) -> None:
    rng = Random(7)
    cases = [random_case(rng, ["Europe/Berlin", "Pacific/Apia"]) for _ in range(300)]
    plain = answers(calendar, cases)
    calendar.execute("set timezone = 'Europe/Moscow'")
    calendar.execute("set datestyle = 'SQL, DMY'")
    calendar.execute("set intervalstyle = 'sql_standard'")
    calendar.execute("set search_path = pg_temp, rowcron")
    assert answers(calendar, cases) == plain
