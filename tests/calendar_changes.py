"""What telling schedules do around changes of a zone's offset: the SQL against a plain listing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise, product
from zoneinfo import ZoneInfo

import psycopg

from calendar_model import Schedule, instants, local_times
from fuzz_calendar import changes

LOW, HIGH = datetime(2000, 1, 1, tzinfo=UTC), datetime(2038, 1, 1, tzinfo=UTC)
REACH = timedelta(hours=30)  # looked at before and after a change
BATCH = 500
POLICIES = tuple(product(("run", "skip"), ("once", "twice")))
Policy = tuple[str, str]  # on_gap, on_fold
Case = tuple[int, str, datetime, Policy]  # which schedule (in turn), zone, change, policy


def _every_day(
    text: str, hours: set[int], minutes: set[int], seconds: set[int], *, elapsed: bool
) -> Schedule:
    days, months, weekdays = set(range(1, 32)), set(range(1, 13)), set(range(7))
    return Schedule(text, seconds, minutes, hours, days, months, weekdays, elapsed=elapsed)


# What tells apart: fixed in the gap, at its edges, wildcards, six fields, midnight, days.
TELLING = [
    _every_day("30 2 * * *", {2}, {30}, {0}, elapsed=False),
    _every_day("0 0 * * *", {0}, {0}, {0}, elapsed=False),
    _every_day("0,30 0-3 * * *", {0, 1, 2, 3}, {0, 30}, {0}, elapsed=False),
    _every_day("15 1,2,3,23 * * *", {1, 2, 3, 23}, {15}, {0}, elapsed=False),
    _every_day("*/20 * * * *", set(range(24)), {0, 20, 40}, {0}, elapsed=True),
    _every_day("10 */2 * * *", set(range(0, 24, 2)), {10}, {0}, elapsed=True),
    _every_day("30 15 2 * * *", {2}, {15}, {30}, elapsed=True),
    _every_day("0 0 0-3 * * *", {0, 1, 2, 3}, {0}, {0}, elapsed=True),
]

RUNS = """
select
  n,
  array(
    select run
    from rowcron.next_runs(schedule, upto, low, zone, on_gap => on_gap, on_fold => on_fold) as run
    where run <= high
  ),
  rowcron._count(rowcron._parse(schedule), low, high, zone, null, on_gap, on_fold)
from unnest(
  %s::integer[], %s::text[], %s::timestamptz[], %s::timestamptz[], %s::text[], %s::text[],
  %s::text[], %s::integer[]
) as cases (n, schedule, low, high, zone, on_gap, on_fold, upto)
"""


@cache
def moments_of(name: str) -> list[datetime]:
    """The changes of a zone's offset from 2000 to 2037."""
    probes = changes(ZoneInfo(name), LOW, HIGH)
    return [
        datetime.fromtimestamp(after, UTC)
        for (before, _), (after, _) in pairwise(probes)
        if after - before == 1 and LOW.timestamp() < after < HIGH.timestamp()
    ]


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


def compare_changes(db: psycopg.Connection, cases: Sequence[Case]) -> int:
    """Fail at the first case in which SQL and listing differ; how many were tried."""
    for begin in range(0, len(cases), BATCH):
        batch = [
            (n, TELLING[n % len(TELLING)], name, moment, policy)
            for n, name, moment, policy in cases[begin : begin + BATCH]
        ]
        wanted = [
            naive_runs(schedule, ZoneInfo(name), moment - REACH, moment + REACH, *policy)
            for _, schedule, name, moment, policy in batch
        ]
        rows = db.execute(
            RUNS,
            (
                list(range(len(batch))),
                [schedule.text for _, schedule, _, _, _ in batch],
                [moment - REACH for _, _, _, moment, _ in batch],
                [moment + REACH for _, _, _, moment, _ in batch],
                [name for _, _, name, _, _ in batch],
                [gap for _, _, _, _, (gap, _) in batch],
                [fold for _, _, _, _, (_, fold) in batch],
                [len(runs) + 1 for runs in wanted],  # one more, which must lie behind the stretch
            ),
        ).fetchall()
        assert len(rows) == len(batch)
        for place, runs, count in rows:
            _, schedule, name, moment, policy = batch[place]
            what = (schedule.text, name, moment, policy)
            assert [run.astimezone(UTC) for run in runs] == wanted[place], what
            assert count == len(wanted[place]), what
    return len(cases)
