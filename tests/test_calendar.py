"""The SQL calendar against a model, croniter and cronsim; `fuzz_calendar.py` tries many more."""

from __future__ import annotations

import os
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, product
from random import Random
from zoneinfo import ZoneInfo

import psycopg
import pytest
from croniter import croniter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calendar_changes import (
    HIGH,
    LOW,
    POLICIES,
    REACH,
    TELLING,
    compare_changes,
    moments_of,
    naive_runs,
)
from calendar_model import Schedule, random_schedule
from fuzz_calendar import (
    agreeing_zones,
    answers,
    by_croniter,
    by_cronsim,
    compare_all,
    expected,
    offset,
    prepare,
    random_case,
    read_zones_of,
)
from harness import TestServer

ALL_CHANGES = os.environ.get("ROWCRON_ALL_CHANGES")
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
    (
        "0 0 25,*/12 * 4-3", "2026-09-13 01:00:00", "UTC", "2026-09-14 00:00:00",
        "croniter", "a * later in the list does not make the day *: either day field will do",
    ),
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def zone_files(server: TestServer) -> Iterator[None]:
    """Python reads the server's own zone files, where it has some."""
    read_zones_of(server.bin)
    yield
    zoneinfo.reset_tzpath()
    ZoneInfo.clear_cache()


@pytest.fixture
def calendar(db: psycopg.Connection) -> psycopg.Connection:
    """A database in which batches can be asked."""
    prepare(db)
    return db


@pytest.fixture(scope="module")
def zones(server: TestServer, zone_files: None) -> list[str]:
    """The zones above, whose tzdata must be the same in Python and in the server."""
    with psycopg.connect(server.admin_url) as db:
        agreeing, differing = agreeing_zones(db, ZONES)
    assert differing == []
    return agreeing


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


def test_every_change_of_time_2000_to_2037_in_telling_zones(
    calendar: psycopg.Connection, zones: list[str]
) -> None:
    """Each change of these zones under every policy, with the schedules in turn."""
    tried = 0
    for name in zones:
        moments = moments_of(name)
        assert moments or name == "Asia/Kathmandu"
        rounds = product(POLICIES, enumerate(moments))
        tried += compare_changes(
            calendar, [(n, name, moment, policy) for policy, (n, moment) in rounds]
        )
    assert tried > 2000


@pytest.mark.once
def test_every_change_of_time_2000_to_2037_in_all_zones(calendar: psycopg.Connection) -> None:
    """What zones share (an instant, and the offsets around it) is tried in the first of them.

    Schedules and policies in turn; with ROWCRON_ALL_CHANGES, as `make fuzz` has it, each with all.
    """
    zones, differing = agreeing_zones(calendar, low=LOW - 2 * REACH, high=HIGH + 2 * REACH)
    found: dict[tuple[datetime, int, int], str] = {}
    for name in zones:
        zone = ZoneInfo(name)
        for moment in moments_of(name):
            second = int(moment.timestamp())
            found.setdefault((moment, offset(zone, second - 1), offset(zone, second)), name)
    turns = list(product(range(len(TELLING)), POLICIES))
    cases = [
        (turn, name, moment, policy)
        for n, ((moment, _, _), name) in enumerate(found.items())
        for turn, policy in (turns if ALL_CHANGES else turns[n % len(turns) :][:1])
    ]
    tried = compare_changes(calendar, cases)
    print(f"{tried} changes of {len(zones)} zones; other tzdata: {' '.join(differing) or 'none'}")
    assert len(zones) > 300
    assert tried > 2500


def test_an_interval_leads_on_from_every_instant_around_a_change(
    calendar: psycopg.Connection, zones: list[str]
) -> None:
    """Strictly, whatever pass of a fold it is; by elapsed time where it has no days."""
    rng = Random(26)
    reach = timedelta(hours=30)
    around = [
        (name, moment + timedelta(seconds=rng.uniform(-reach.total_seconds(), 9 * 3600)))
        for name in zones
        for moment in moments_of(name)
        for _ in range(3)
    ]
    found = calendar.execute(
        """
        with cases as materialized (
          select c.*, w.form, s.step, n.next_at
          from unnest(%s::text[], %s::timestamptz[]) as c (zone, after)
          cross join (values ('@after'), ('@every')) as w (form)
          cross join (values
            (interval '1 ms'), ('5 minutes'), ('1 hour'), ('24 hours'), ('1 day'), ('1 day 1 hour'),
            ('2 days 90 minutes'), ('1 month'), ('1 month 1 ms')
          ) as s (step)
          cross join lateral rowcron.next_run(
            format('%%s %%s', w.form, s.step), c.after, c.zone, c.after - interval '100 hours'
          ) as n (next_at)
        )
        select
          count(*),
          count(*) filter (where (next_at > after) is not true),
          count(*) filter (
            where form = '@after' and step < '24:00:00' and next_at <> after + step
          )
        from cases
        """,
        ([name for name, _ in around], [after for _, after in around]),
    ).fetchone()
    assert found is not None
    assert found[0] > 10000
    assert found[1:] == (0, 0)


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


def test_what_reads_alike_in_english_runs_alike(calendar: psycopg.Connection) -> None:
    """The English leaves nothing out: schedules with one sentence name the same instants."""
    rng = Random(5)
    texts = sorted({" ".join(random_schedule(rng).text.split()) for _ in range(6000)})
    row = calendar.execute(
        """
        with sentences as materialized (
          select rowcron.explain(t) as english, array_agg(t) as schedules
          from unnest(%s::text[]) as t
          where rowcron._parse_or_null(t) is distinct from null
          group by 1
        ), shared as (
          select s.english, array(
            select r from generate_series(2024, 2028) as year,
              rowcron.next_runs(t, 20, make_timestamptz(year, 2 * (year - 2023), 3, 4, 5, 6)) as r
          ) as runs
          from sentences as s, unnest(s.schedules) as t
          where cardinality(s.schedules) > 1
        )
        select count(distinct english), count(distinct (english, runs)) from shared
        """,
        (texts,),
    ).fetchone()
    assert row is not None
    assert row[0] > 40
    assert row[0] == row[1]


def test_answers_are_the_same_whatever_the_session_says(calendar: psycopg.Connection) -> None:
    rng = Random(7)
    cases = [random_case(rng, ["Europe/Berlin", "Pacific/Apia"]) for _ in range(300)]
    plain = answers(calendar, cases)
    calendar.execute("set timezone = 'Europe/Moscow'")
    calendar.execute("set datestyle = 'SQL, DMY'")
    calendar.execute("set intervalstyle = 'sql_standard'")
    calendar.execute("set search_path = pg_temp, rowcron")
    for name in ("lc_time", "lc_numeric", "lc_messages", "lc_monetary"):
        calendar.execute(f"set {name} = 'C.UTF-8'".encode())
    assert answers(calendar, cases) == plain
