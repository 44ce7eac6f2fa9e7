"""How long a next run takes: SQL from the stored value, croniter's get_next, cronsim; and parsing.

    python tests/bench/bench_calendar.py DATABASE_URL

All in one run and on one machine, so that ratios mean something. The SQL is asked for many instants
in one statement (what a call costs inside the database, where jobs are fired); the time of the same
statement without the call is taken off. Each figure is the best of nine rounds, because the median
measures what else the machine does.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import psycopg
from croniter import croniter
from cronsim import CronSim

START = datetime(2026, 1, 1, tzinfo=UTC)
CASES = [
    ("*/5 * * * *", "UTC"),
    ("0 3 * * mon-fri", "UTC"),
    ("0 * * * *", "UTC"),
    ("15 10 1 * *", "UTC"),
    ("*/10 * * * * *", "UTC"),
    ("*/5 * * * *", "Europe/Berlin"),
    ("0 3 * * mon-fri", "Europe/Berlin"),
    ("30 2 * * *", "America/New_York"),
    ("15 10 1 * *", "Asia/Kolkata"),
    ("0 0 29 2 */7", "UTC"),
    ("30 2 29 3 *", "Europe/Berlin"),
]
ASK = """
select count({call}) from (
  select schedule, parsed, timestamptz '2026-01-01 00:00:00+00' + n * interval '977 s' as after
  from (select %s::text as schedule, rowcron._parse(%s) as parsed offset 0) as once,
    generate_series(1, %s) as n
  offset 0
) as instants
"""


def best(measure: Callable[[], float]) -> float:
    """The best of nine measurements."""
    return min(measure() for _ in range(9))


def sql_cost(db: psycopg.Connection, text: str, call: str, count: int) -> float:
    """Microseconds a call."""

    def seconds(what: str) -> float:
        started = time.perf_counter()
        db.execute(ASK.format(call=what), (text, text, count))
        return time.perf_counter() - started

    seconds(call)
    empty = best(lambda: seconds("after"))
    return (best(lambda: seconds(call)) - empty) / count * 1e6


def python_cost(step: Callable[[datetime], object], zone: str, count: int = 60) -> float:
    """Microseconds a step from instants like those above."""
    info = ZoneInfo(zone)
    instants = [(START + timedelta(seconds=977 * n)).astimezone(info) for n in range(1, count + 1)]

    def seconds() -> float:
        started = time.perf_counter()
        for instant in instants:
            step(instant)
        return time.perf_counter() - started

    return best(seconds) / count * 1e6


def croniter_cost(text: str, zone: str) -> float:
    """get_next of an iterator that has parsed already."""
    iterator = croniter(text, START, datetime, implement_cron_bug=True, second_at_beginning=True)
    return python_cost(lambda instant: iterator.get_next(datetime, start_time=instant), zone)


def cronsim_cost(text: str, zone: str) -> float:
    """A step of CronSim less its parsing, which cannot be had apart."""
    whole = python_cost(lambda instant: next(CronSim(text, instant)), zone)
    return whole - python_cost(lambda instant: CronSim(text, instant), zone)


def main(url: str) -> None:
    """Print one line a schedule, then parsing."""
    print(f"{'schedule':<18}{'zone':<18}{'SQL us':>8}{'croniter':>10}{'cronsim':>10}{'ratio':>8}")
    with psycopg.connect(url, autocommit=True) as db:
        db.execute("set jit = off")
        row = db.execute("show server_version").fetchone()
        for text, zone in CASES:
            count = 2000 if text.startswith(("0 0 29", "30 2 29")) else 20000
            sql = sql_cost(db, text, f"rowcron._next(parsed, after, '{zone}')", count)
            by_croniter = croniter_cost(text, zone)
            by_cronsim = cronsim_cost(text, zone)
            print(
                f"{text:<18}{zone:<18}{sql:>8.1f}{by_croniter:>10.1f}{by_cronsim:>10.1f}"
                f"{by_croniter / sql:>8.1f}"
            )
        for text in ("*/5 * * * *", "0 0 1-10,15 jan-mar mon-fri", "@every 1 h", "0 0 29 2 *"):
            # the instant's text makes each a different call, or one would be folded into a constant
            call = "rowcron._parse(schedule || repeat(' ', date_part('day', after)::integer))"
            print(f"parse {text:<30}{sql_cost(db, text, call, 1000):>8.0f} us")
        print(f"PostgreSQL {row[0] if row else '?'}, Python {sys.version.split()[0]}")


if __name__ == "__main__":
    main(sys.argv[1])
