"""Compare the SQL calendar with a model, croniter and cronsim on many random cases.

    python tests/fuzz_calendar.py [CASES [SEED]]

Cases go to the database in batches, one query a batch. Prints how many agreed, and who did not.
"""

from __future__ import annotations

import signal
import sys
import time
import zoneinfo
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from random import Random
from zoneinfo import ZoneInfo, available_timezones

import psycopg
from croniter import CroniterBadDateError, croniter
from cronsim import CronSim

from calendar_model import Schedule, next_run, random_schedule
from harness import TestServer

BATCH = 1000
FIRST, LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2099, 1, 1, tzinfo=UTC)
Case = tuple[Schedule, datetime, str, str | None, str | None]

NEXT_BATCH = """
select case_number, date_part('epoch', first_run), consistent
from (
  select
    case_number, after, zone, on_gap, on_fold, rowcron._parse_or_null(schedule) as parsed
  from unnest(%s::int[], %s::text[], %s::timestamptz[], %s::text[], %s::text[], %s::text[])
    as cases (case_number, schedule, after, zone, on_gap, on_fold)
  offset 0
) as parsed_cases
cross join lateral rowcron._consistent(parsed, after, zone, on_gap, on_fold)
where (parsed).form is not null
"""

# Five steps forward, then the same five counted, and backwards from the fifth: three functions that
# share only the masks must tell one story.
CONSISTENT = """
create or replace function rowcron._consistent(
  parsed rowcron._parsed, after timestamptz, zone text, on_gap text, on_fold text,
  out first_run timestamptz, out consistent boolean
)
language plpgsql as $$
declare
  runs timestamptz[];
  at timestamptz := after;
begin
  for n in 1 .. 5 loop
    at := rowcron._next(parsed, at, zone, null, on_gap, on_fold);
    runs := runs || at;
  end loop;
  first_run := runs[1];
  consistent := runs[1] > after and runs[5] > runs[4] and runs[4] > runs[3]
    and runs[3] > runs[2] and runs[2] > runs[1]
    and rowcron._count(parsed, after, runs[5], zone, null, on_gap, on_fold) = 5
    and rowcron._count(
      parsed, after, runs[1] - interval '1 millisecond', zone, null, on_gap, on_fold) = 0
    and rowcron._count(parsed, runs[2], runs[4], zone, null, on_gap, on_fold) = 2
    and rowcron._previous(parsed, runs[5], zone, null, on_gap, on_fold) = runs[5]
    and rowcron._previous(
      parsed, runs[5] - interval '1 millisecond', zone, null, on_gap, on_fold) = runs[4]
    and rowcron._previous(
      parsed, runs[2] - interval '1 millisecond', zone, null, on_gap, on_fold) = runs[1]
    -- none at all, where the first since 1970 lies ahead
    and coalesce(rowcron._previous(
      parsed, runs[1] - interval '1 millisecond', zone, null, on_gap, on_fold) <= after, true);
  consistent := coalesce(consistent, false);
end;
$$
"""

PARSE_OR_NULL = """
create or replace function rowcron._parse_or_null(schedule text) returns rowcron._parsed
language plpgsql as $$
begin
  return rowcron._parse(schedule);
exception
  when sqlstate 'RCSCH' then
    return null;
end;
$$
"""


def prepare(db: psycopg.Connection) -> None:
    """Make the functions that a batch needs."""
    db.execute(PARSE_OR_NULL)
    db.execute(CONSISTENT)


def read_zones_of(bin: Path) -> None:
    """Let Python read the zone files that a server has, if it brings its own."""
    files = bin.parent / "share" / "timezone"
    zoneinfo.reset_tzpath([str(files)] if files.is_dir() else None)
    ZoneInfo.clear_cache()


def distinct(names: Iterable[str]) -> list[str]:
    """Of zones whose files are the same, the first."""
    found: dict[bytes, str] = {}
    for name in sorted(names):
        paths = (Path(directory, name) for directory in zoneinfo.TZPATH)
        content = next((path.read_bytes() for path in paths if path.is_file()), name.encode())
        found.setdefault(content, name)
    return list(found.values())


def agreeing_zones(
    db: psycopg.Connection,
    among: Sequence[str] = (),
    low: datetime = FIRST,
    high: datetime = LAST,
) -> tuple[list[str], list[str]]:
    """Zones whose offsets are the same here and in the server from low to high, and the others."""
    wanted = set(among) or available_timezones()
    names = [
        name
        for (name,) in db.execute("select name from pg_timezone_names where name ~ '/'")
        if name in wanted and not name.startswith(("posix/", "right/"))
    ]
    agreeing, differing = [], []
    for name in sorted(names) if among else distinct(names):
        # as text, which costs a quarter of what arrays of numbers do, both ways
        here = changes(ZoneInfo(name), low, high)
        row = db.execute(
            "select string_agg("
            " (date_part('epoch', to_timestamp(n) at time zone %s)::bigint - n)::text, ' '"
            " order by n)"
            " from unnest(%s::bigint[]) as n",
            (name, f"{{{','.join(str(second) for second, _ in here)}}}"),
        ).fetchone()
        assert row is not None
        same = row[0] == " ".join(str(ahead) for _, ahead in here)
        (agreeing if same else differing).append(name)
    return agreeing, differing


def offset(zone: ZoneInfo, second: int) -> int:
    """Seconds that local time is ahead of UTC."""
    ahead = datetime.fromtimestamp(second, zone).utcoffset()
    assert ahead is not None
    return ahead.days * 86400 + ahead.seconds


def changes(zone: ZoneInfo, low: datetime, high: datetime) -> list[tuple[int, int]]:
    """Seconds worth a look, in order, each with the offset that holds then.

    Every 83 hours, and each change with the second before.
    """
    steps = range(int(low.timestamp()), int(high.timestamp()), 83 * 3600)[1:]
    probes = [(second, offset(zone, second)) for second in steps]
    for (before, ahead), (after, then) in list(pairwise(probes)):
        if then == ahead:
            continue
        while after - before > 1:
            middle = (before + after) // 2
            if offset(zone, middle) == ahead:
                before = middle
            else:
                after = middle
        probes += [(second, offset(zone, second)) for second in (before, after)]
    return sorted(probes)


def random_case(rng: Random, zones: Sequence[str]) -> Case:
    """A schedule, an instant, a zone and policies; half of the instants stand near a change."""
    schedule = random_schedule(rng)
    after = datetime(1970, 1, 2, tzinfo=UTC) + timedelta(
        seconds=rng.randrange(int(129.9 * 365.25 * 86400)), microseconds=rng.choice([0, 0, 500000])
    )
    zone = "UTC" if rng.random() < 0.3 else rng.choice(zones)
    if zone != "UTC" and rng.random() < 0.6:
        after = near_change(rng, after, ZoneInfo(zone))
    if rng.random() < 0.5:
        return schedule, after, zone, None, None
    return schedule, after, zone, rng.choice(["run", "skip"]), rng.choice(["once", "twice"])


def near_change(rng: Random, after: datetime, zone: ZoneInfo) -> datetime:
    """An instant within a day or hours of the zone's next change of offset, if one is soon."""
    low = after
    for _ in range(80):
        high = low + timedelta(days=5)
        if high.astimezone(zone).utcoffset() != low.astimezone(zone).utcoffset():
            while high - low > timedelta(seconds=1):
                middle = low + (high - low) / 2
                if middle.astimezone(zone).utcoffset() == low.astimezone(zone).utcoffset():
                    low = middle
                else:
                    high = middle
            change = high.replace(microsecond=0)
            reach = rng.choice([4000, 30000, 90000])
            return change + timedelta(seconds=rng.randint(-reach, reach))
        low = high
    return after


def answers(
    db: psycopg.Connection, cases: Sequence[Case]
) -> dict[int, tuple[datetime | None, bool]]:
    """What the SQL says and whether it agrees with itself, by the number of the case.

    Refused schedules are left out.
    """
    rows = db.execute(
        NEXT_BATCH,
        (
            list(range(len(cases))),
            [case[0].text for case in cases],
            [case[1] for case in cases],
            [case[2] for case in cases],
            [case[3] for case in cases],
            [case[4] for case in cases],
        ),
    ).fetchall()
    return {
        number: (None if epoch is None else datetime.fromtimestamp(epoch, UTC), consistent)
        for number, epoch, consistent in rows
    }


def expected(case: Case) -> datetime | None:
    """What the model says."""
    schedule, after, zone, gap, fold = case
    return next_run(schedule, after, ZoneInfo(zone), gap, fold)


def by_croniter(case: Case) -> datetime | None:
    """What croniter says of a case in UTC."""
    schedule, after, _, _, _ = case
    try:
        found = croniter(
            schedule.text,
            after,
            datetime,
            implement_cron_bug=True,
            second_at_beginning=True,
        ).get_next()
    except CroniterBadDateError:
        return None
    assert isinstance(found, datetime)
    return found.astimezone(UTC)


def by_cronsim(case: Case) -> datetime | None:
    """What cronsim says of a case in any zone, without policies; TimeoutError after 5 s.

    It walks for ever around the changes at 00:01 that Goose Bay had.
    """
    schedule, after, zone, _, _ = case
    local = after.astimezone(UTC if zone == "UTC" else ZoneInfo(zone))
    handler = signal.signal(signal.SIGALRM, stop_waiting)
    signal.alarm(5)
    try:
        return next(CronSim(schedule.text, local), local).astimezone(UTC)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)


def stop_waiting(*_: object) -> None:
    """End an oracle that does not answer."""
    raise TimeoutError


def is_plainly_wrong(case: Case, sql: datetime | None, said: datetime | None) -> bool:
    """Whether cronsim answers with the past, passes over a named time, or gives one not named.

    The first in the second of a doubled hour; the others where changes are not whole hours.
    """
    schedule, after, zone, _, _ = case
    if said is None or sql is None:
        return False
    local, said_local = (t.astimezone(ZoneInfo(zone)).replace(tzinfo=None) for t in (sql, said))
    if said <= after:
        return True
    return schedule.elapsed and (
        not schedule.names(said_local) or (after < sql < said and schedule.names(local))
    )


def main(cases: int, seed: int) -> int:
    """Compare on the embedded server; the number of disagreements with the model or the rule."""
    counts: Counter[str] = Counter()
    rng = Random(seed)
    started = time.monotonic()
    server = TestServer()
    try:
        server.start()
        server.make_template()
        read_zones_of(server.bin)
        database = server.create_database()
        with psycopg.connect(database.url("postgres"), autocommit=True) as db:
            prepare(db)
            zones, differing = agreeing_zones(db)
            print(f"{len(zones)} zones; other tzdata: {' '.join(differing) or 'none'}", flush=True)
            for start in range(0, cases, BATCH):
                batch = [random_case(rng, zones) for _ in range(min(BATCH, cases - start))]
                counts += compare_all(db, batch)
                if (start + BATCH) % 50_000 == 0:
                    print(f"{start + BATCH} cases, {time.monotonic() - started:.0f} s", flush=True)
    finally:
        server.stop()
    for what, n in sorted(counts.items()):
        print(f"{n:>9} {what}")
    print(f"{cases} cases with seed {seed} in {time.monotonic() - started:.0f} s")
    return sum(n for what, n in counts.items() if what.endswith("differs"))


def compare_all(db: psycopg.Connection, cases: Sequence[Case]) -> Counter[str]:
    """Ask the database once and compare each answer; how often which oracle agreed."""
    counts: Counter[str] = Counter()
    found = answers(db, cases)
    for number, case in enumerate(cases):
        compare(case, found.get(number), counts)
    return counts


def compare(case: Case, answer: tuple[datetime | None, bool] | None, counts: Counter[str]) -> None:
    """Count and, where they differ, print one case."""
    schedule, after, zone, gap, fold = case
    if answer is None:
        counts["refused as never"] += 1
        days = (datetime(2000, 1, 1) + timedelta(days=n) for n in range(45 * 366))
        if any(schedule.matches(day.date()) for day in days):
            counts["model: differs"] += 1
            print(f"refused, but happens: {schedule.text!r}", flush=True)
        return
    sql, consistent = answer
    counts["next, previous and count: agree"] += consistent
    if not consistent:
        counts["model: differs"] += 1
        print(f"next, previous, count: {schedule.text!r} after {after} in {zone} {gap} {fold}")
    oracles = {"model": expected(case)}
    if zone == "UTC" and schedule.croniter:
        oracles["croniter"] = by_croniter(case)
    if gap is None and schedule.cronsim:
        try:
            oracles["cronsim"] = by_cronsim(case)
        except TimeoutError:
            counts["cronsim: no answer"] += 1
    for oracle, said in oracles.items():
        if said == sql:
            counts[f"{oracle}: agrees"] += 1
            continue
        if oracle == "cronsim" and is_plainly_wrong(case, sql, said):
            counts["cronsim: decided by the rule"] += 1
            continue
        counts[f"{oracle}: differs"] += 1
        if counts[f"{oracle}: differs"] <= 20:
            print(
                f"{oracle}: {schedule.text!r} after {after} in {zone} {gap} {fold}:"
                f" sql {sql}, {oracle} {said}",
                flush=True,
            )


if __name__ == "__main__":
    numbers = [int(argument) for argument in sys.argv[1:]]
    sys.exit(min(main(*(numbers + [1_000_000, 1][len(numbers) :])), 1))
