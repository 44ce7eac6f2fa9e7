"""Occurrences counted by the part, against the same occurrences listed one by one."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from itertools import product

import psycopg

# Sparse and dense; both forms of day fields; fixed, in gaps and folds; seconds; intervals.
SCHEDULES = [
    "* * * * * *", "*/7 * * * * *", "30 */2 1-3 * * *", "* * * * *", "*/5 * * * *", "30 2 * * *",
    "0,30 0-3 * * *", "15 1,2,3,23 * * mon-fri", "0 0 L * *", "0 12 1,15 * 5", "10 */2 * * *",
    "@every 7 seconds", "@every 90 minutes", "@every 250 ms", "@every 1 day", "@every 1 month",
    "@at 2026-03-29 02:30",
]  # fmt: skip
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe"]
# Around changes of these zones' offsets, and far from any.
MOMENTS = [
    datetime(2026, 3, 29, 1, tzinfo=UTC), datetime(2026, 10, 25, 1, tzinfo=UTC),
    datetime(2026, 3, 8, 7, tzinfo=UTC), datetime(2026, 11, 1, 6, tzinfo=UTC),
    datetime(2026, 4, 4, 15, tzinfo=UTC), datetime(2026, 10, 3, 15, 30, tzinfo=UTC),
    datetime(2026, 7, 1, 12, tzinfo=UTC),
]  # fmt: skip
HOUR = timedelta(hours=1)
COUNTED = """
select coalesce(jsonb_object_agg(c.part, c.n), '{}') from (
  select p.part, sum(p.n) as n
  from rowcron._count_parts(rowcron._parse(%(schedule)s, %(zone)s), %(origin)s, %(step)s, %(low)s,
    %(high)s, %(zone)s, %(anchor)s, %(gap)s, %(fold)s) as p
  where p.n <> 0
  group by p.part
) as c
"""
# One after the other, which knows nothing of counting.
LISTED = """
with recursive runs as (
  select p.parsed, rowcron._next(p.parsed, %(low)s::timestamptz - interval '1 microsecond',
    %(zone)s, %(anchor)s, %(gap)s, %(fold)s) as at
  from (select rowcron._parse(%(schedule)s, %(zone)s) as parsed offset 0) as p
  union all
  select r.parsed, rowcron._next(r.parsed, r.at, %(zone)s, %(anchor)s, %(gap)s, %(fold)s)
  from runs as r where r.at < %(high)s
)
select coalesce(jsonb_object_agg(c.part, c.n), '{}') from (
  select floor(extract(epoch from r.at - %(origin)s) * 1000000 / %(step)s) as part, count(*) as n
  from runs as r
  where r.at < %(high)s
  group by 1
) as c
"""


def test_parts_count_what_a_list_holds(db: psycopg.Connection) -> None:
    """On days on which the clocks are changed, too, whatever on_gap and on_fold say."""
    dice = random.Random(7)
    full = 0
    for case in range(500):
        schedule, moment = SCHEDULES[case % len(SCHEDULES)], dice.choice(MOMENTS)
        often = schedule in ("* * * * * *", "@every 250 ms")
        hours = dice.uniform(0.05, 0.4) if often else dice.uniform(0.5, 30)
        if often:
            moment += timedelta(hours=dice.uniform(-1, 1))
        origin = moment - timedelta(hours=dice.choice([hours * dice.random(), dice.uniform(0, 3)]))
        span = timedelta(hours=hours)
        low = origin + (dice.random() * span / 2 if dice.random() < 0.5 else timedelta(0))
        step = int(span.total_seconds() * 1e6) // dice.choice([1, 7, 48, 500])
        values = {
            "schedule": schedule, "zone": dice.choice(ZONES), "origin": origin, "step": step,
            "low": low, "high": origin + span, "anchor": moment - timedelta(days=90, seconds=1.5),
            "gap": dice.choice([None, "run", "skip"]), "fold": dice.choice([None, "once", "twice"]),
        }  # fmt: skip
        counted = db.execute(COUNTED.encode(), values).fetchone()[0]  # type: ignore[index]
        listed = db.execute(LISTED.encode(), values).fetchone()[0]  # type: ignore[index]
        assert counted == listed, values
        full += bool(counted)
    assert full > 250


def test_parts_that_begin_where_the_offset_changes_count_what_a_list_holds(
    db: psycopg.Connection,
) -> None:
    """To a microsecond: what a gap moves happens at the very instant."""
    second = timedelta(seconds=1)
    begins = [timedelta(0), timedelta(microseconds=-1), timedelta(microseconds=1), -second, second]
    full = 0
    zones = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]
    changes = [(moment, zones[n // 2]) for n, moment in enumerate(MOMENTS[:6])]
    schedules = ["30 2 * * *", "0,30 1-3 * * *", "*/20 * * * *", "0 */20 * * * *"]
    policies = product(("run", "skip"), ("once", "twice"))
    for (moment, zone), schedule, policy, begin in product(changes, schedules, policies, begins):
        low = moment + begin
        values = {
            "schedule": schedule, "zone": zone, "origin": low, "step": 600_000_000, "low": low,
            "high": low + timedelta(hours=5), "anchor": None, "gap": policy[0], "fold": policy[1],
        }  # fmt: skip
        counted = db.execute(COUNTED.encode(), values).fetchone()[0]  # type: ignore[index]
        listed = db.execute(LISTED.encode(), values).fetchone()[0]  # type: ignore[index]
        assert counted == listed, values
        full += bool(counted)
    assert full > 250


def test_an_occurrence_that_a_gap_moves_is_planned(alice: psycopg.Connection) -> None:
    """Also as the job's next run, with which what is planned begins."""
    alice.execute(
        "insert into rowcron.job (name, schedule, timezone, on_gap, command)"
        " values ('moved', '30 2 * 3 0L', 'Europe/Berlin', 'run', 'x')"
    )
    (at,) = alice.execute("select next_run_at from rowcron.jobs where name = 'moved'").fetchone()  # type: ignore[misc]
    assert at.astimezone(UTC).hour == 1
    for stretch in (f"'{at}', '{at + timedelta(1)}'", f"'{at - timedelta(1)}', '{at + HOUR}'"):
        rows = alice.execute(
            f"select (select count(*) from rowcron.occurrences('moved', {stretch})),"
            f" (select sum(n) from rowcron.planned({stretch}, 24)),"
            f" (select sum(n) from rowcron.planned_load({stretch}, 24, 'moved'))".encode()
        ).fetchall()
        assert rows == [(1, 1, 1)], stretch


def test_a_job_each_second_is_counted_to_the_end_of_the_day(
    db: psycopg.Connection, alice: psycopg.Connection
) -> None:
    """By job and over all; jobs of one schedule, with an end, with a limit, paused."""
    alice.execute(
        "insert into rowcron.job (name, schedule, command, max_runs, ends_at, enabled) values"
        " ('each second', '* * * * * *', 'x', null, null, true),"
        " ('its twin', '* * * * * *', 'x', null, null, true),"
        " ('for an hour', '* * * * * *', 'x', null, date_trunc('minute', now()) + '62 min', true),"
        " ('often', '@every 1 second', 'x', 50000, null, true),"
        " ('few', '*/2 * * * *', 'x', 3, null, true),"
        " ('paused', '* * * * * *', 'x', null, null, false)"
    )
    begin, end = "date_trunc('minute', now()) + '2 min'", "date_trunc('minute', now()) + '1442 min'"
    with alice.transaction():
        rows = alice.execute(
            "select j.name, p.state, sum(p.n)::int, count(*), max(p.n)::int"
            f" from rowcron.planned({begin}, {end}, 1440) as p"
            " join rowcron.job as j on j.id = p.job_id group by 1, 2"
        ).fetchall()
        found = {row[0]: row[1:] for row in rows}
        assert found["each second"] == found["its twin"] == ("planned", 86400, 1440, 60)
        assert found["paused"] == ("paused", 86400, 1440, 60)
        assert found["for an hour"] == ("planned", 3600, 60, 60)
        # what lies before the stretch has been counted against max_runs
        before = alice.execute(
            f"select count(*) from rowcron.occurrences('often', now(), {begin})"
        ).fetchone()[0]  # type: ignore[index]
        assert found["often"][1] == 50000 - before
        listed = alice.execute(
            f"select count(*) from rowcron.occurrences('few', {begin}, {end})"
        ).fetchone()[0]  # type: ignore[index]
        assert 1 <= found["few"][1] == listed <= 3
        load = alice.execute(
            f"select sum(n)::int, count(*) from rowcron.planned_load({begin}, {end}, 1440)"
        ).fetchone()
        assert load == (sum(v[1] for v in found.values()) - 86400, 1440)
        twins = alice.execute(
            f"select sum(n)::int from rowcron.planned_load({begin}, {end}, 1440, 'S')"
        ).fetchone()[0]  # type: ignore[index]
        assert twins == 2 * 86400


def test_occurrences_that_are_overdue_are_counted_as_due(
    db: psycopg.Connection, alice: psycopg.Connection
) -> None:
    alice.execute(
        "insert into rowcron.job (name, schedule, command) values ('a', '* * * * *', 'x')"
    )
    db.execute(
        "update rowcron.agenda set next_run_at = date_trunc('minute', now()) - '9 min'::interval,"
        " high_water = now() - '1 hour'::interval"
    )
    begin, end = "date_trunc('hour', now()) - '1 h'::interval", "date_trunc('hour', now()) + '2 h'"
    rows = alice.execute(
        f"select p.state, sum(p.n)::int, o.n::int from rowcron.planned({begin}, {end}, 180) as p"
        f" join (select o.state, count(*) as n from rowcron.occurrences('a', {begin}, {end}) as o"
        " group by 1) as o on o.state = p.state group by 1, 3 order by 1"
    ).fetchall()
    assert [row[0] for row in rows] == ["due", "planned"]
    assert all(counted == listed for _, counted, listed in rows), rows
    assert rows[0][1] == 10
