"""Clocks that jump, downtime, and what is counted from the end of a run, under a fixed clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import frozen
from harness import Database

WORKER = "00000000-0000-4000-8000-000000000001"
Rows = list[tuple[Any, ...]]


class Clocked:
    """alice's jobs and a worker with room for all, at instants of 2030-01-07 or any other day."""

    def __init__(self, db: psycopg.Connection) -> None:
        self.db = db

    def at(self, time: str) -> None:
        """It is now `time`: HH:MM:SS, or with a date before it."""
        frozen.set_clock(self.db, time if "-" in time else f"2030-01-07 {time}")

    def insert(self, schedule: str, **columns: Any) -> None:
        """The job "job", and then its first moment is accounted for."""
        columns = {"name": "job", "command": "select 1", "schedule": schedule} | columns
        marks = ", ".join(["%s"] * len(columns))
        self.db.execute("set role alice")
        self.db.execute(
            f"insert into rowcron.job ({', '.join(columns)}) values ({marks})".encode(),
            tuple(columns.values()),
        )
        self.db.execute("reset role")

    def claim(self, time: str, capacity: int = 1000) -> list[str]:
        """The occurrences that a worker is handed at that time; they go on running."""
        self.at(time)
        return [
            row[0] or "on demand"
            for row in self.db.execute(
                "select to_char(c.scheduled_for, 'HH24:MI:SS')"
                " from rowcron._claim(%s, %s, null, '{sql}', null, rowcron_now()) as c",
                (WORKER, capacity),
            )
        ]

    def end(self, outcome: str = "succeeded") -> None:
        """All that runs ends."""
        self.db.execute(
            "select rowcron._settle(r, %s, null, null, null, null, null) from rowcron.run as r"
            " where r.state = 'running'",
            (outcome,),
        )

    def ledger(self) -> list[str]:
        """The entries in order of what they stand for."""
        return [
            " ".join(str(part) for part in row)
            for row in self.db.execute(
                "select l.outcome, to_char(coalesce(l.first_scheduled_for, l.scheduled_for),"
                " 'HH24:MI:SS'), l.occurrences from rowcron.ledger as l where l.final"
                " order by l.scheduled_for, l.finished_at"
            )
        ]

    def one(self, query: str) -> Any:
        row = self.db.execute(query.encode()).fetchone()
        return row and row[0]


@pytest.fixture
def clocked(database: Database, connect: Callable[[str], psycopg.Connection]) -> Clocked:
    db = connect("postgres")
    frozen.freeze(db)
    db.execute(
        "create function public.rowcron_now() returns timestamptz language sql"
        " as $$ select frozen.clock_timestamp() $$"
    )
    clocked = Clocked(db)
    clocked.at("00:00:30")
    return clocked


@pytest.mark.parametrize(
    ("on_missed", "entries"),
    [
        ("latest", ["failed 00:10:00 1", "missed 00:20:00 5"]),
        ("skip", ["failed 00:10:00 1", "missed 00:20:00 6"]),
        ("all", ["failed 00:10:00 1"]),
    ],
)
def test_an_hour_forward_is_an_hour_missed(
    clocked: Clocked, on_missed: str, entries: list[str]
) -> None:
    clocked.insert("*/10 * * * *", on_missed=on_missed)
    assert clocked.claim("00:10:00") == ["00:10:00"]
    clocked.end("fatal")
    handed = clocked.claim("01:13:00")
    assert handed == {"latest": ["01:10:00"], "skip": [], "all": ["00:20:00"]}[on_missed]
    assert clocked.ledger() == entries
    assert clocked.one("select max(next_run_at) = '2030-01-07 01:20' from rowcron.agenda")


def test_an_hour_back_runs_nothing_again_and_loses_nothing(clocked: Clocked) -> None:
    clocked.insert("*/10 * * * *")
    assert clocked.claim("01:10:00") == ["01:10:00"]
    clocked.end()
    for time in ("00:12:00", "00:20:00", "00:59:59", "01:10:00", "01:19:59"):
        assert clocked.claim(time) == []
    assert clocked.claim("01:20:00") == ["01:20:00"]
    clocked.end()
    assert clocked.ledger() == ["missed 00:10:00 6", "succeeded 01:10:00 1", "succeeded 01:20:00 1"]


def test_an_edit_while_the_clock_is_back_doubles_nothing(clocked: Clocked) -> None:
    clocked.insert("*/10 * * * *")
    assert clocked.claim("01:10:00") == ["01:10:00"]
    clocked.end()
    clocked.at("00:15:00")
    clocked.db.execute("update rowcron.job set enabled = false")
    clocked.db.execute("update rowcron.job set enabled = true")
    assert clocked.claim("01:10:00") == []
    assert clocked.claim("01:20:00") == ["01:20:00"]


def test_a_run_that_was_due_before_the_clock_went_back_is_handed_out(clocked: Clocked) -> None:
    clocked.insert("*/10 * * * *")
    assert clocked.claim("00:10:00", capacity=0) == []
    assert clocked.claim("2030-01-06 23:20:00") == ["00:10:00"]
    assert clocked.claim("00:10:00") == []


def test_a_year_of_downtime_costs_no_loop(clocked: Clocked) -> None:
    for name, schedule, zone in (
        ("cron", "* * * * * *", "UTC"),
        ("zone", "* * * * * *", "Europe/Berlin"),
        ("every", "@every 1 second", "UTC"),
    ):
        clocked.insert(schedule, name=name, timezone=zone)
    clocked.db.execute("set track_functions to 'all'")
    with clocked.db.transaction():
        assert len(clocked.claim("2031-01-07 00:00:30")) == 3
        calls = clocked.one(
            "select sum(f.calls) from pg_stat_xact_user_functions as f"
            " where f.schemaname = 'rowcron'"
        )
    assert calls < 2000
    assert clocked.db.execute(
        "select l.job, l.occurrences from rowcron.ledger as l order by l.job"
    ).fetchall() == [("cron", 31535999), ("every", 31535999), ("zone", 31535999)]


def test_after_counts_from_the_end_whatever_the_end(clocked: Clocked) -> None:
    clocked.insert("@after 5 minutes")
    assert clocked.claim("00:05:30") == ["00:05:30"]
    for outcome, end, following in (
        ("succeeded", "00:07:00", "00:12:00"),
        ("fatal", "00:20:00", "00:25:00"),
        ("lost", "00:26:00", "00:31:00"),
    ):
        clocked.db.execute("update rowcron.job set on_lost = 'fail'")
        assert clocked.claim(end) == []
        clocked.end(outcome)
        assert clocked.claim(following) == [following]


def test_after_goes_on_when_an_occurrence_was_missed(clocked: Clocked) -> None:
    clocked.insert("@after 5 minutes", on_missed="skip")
    assert clocked.claim("01:00:00") == []
    assert clocked.ledger() == ["missed 00:05:30 1"]
    assert clocked.claim("01:05:00") == ["01:05:00"]


def test_after_counts_first_from_starts_at(clocked: Clocked) -> None:
    clocked.insert("@after 5 minutes", starts_at="2030-01-07 02:00")
    assert clocked.one("select next_run_at = '2030-01-07 02:05' from rowcron.agenda")


def test_after_waits_for_the_last_of_several_runs(clocked: Clocked) -> None:
    """A line that an earlier schedule left behind."""
    clocked.insert("* * * * *", on_missed="all")
    assert clocked.claim("00:02:30") == ["00:01:00"]
    clocked.db.execute("update rowcron.job set schedule = '@after 1 minute'")
    clocked.end()
    assert clocked.one("select next_run_at is null from rowcron.agenda")
    assert clocked.claim("00:10:00") == ["00:02:00"]
    clocked.end()
    assert clocked.one("select next_run_at = '2030-01-07 00:11' from rowcron.agenda")


def test_what_waited_for_a_limit_goes_before_what_came_later(clocked: Clocked) -> None:
    clocked.insert("* * * * *", on_overlap="allow", max_running=1)
    assert clocked.claim("00:01:00") == ["00:01:00"]
    assert clocked.claim("00:02:00") == []
    clocked.end()
    clocked.at("00:02:30")
    clocked.db.execute("set role alice")
    clocked.db.execute("select rowcron.run_now('job')")
    clocked.db.execute("reset role")
    assert clocked.claim("00:02:40") == ["00:02:00"]
    clocked.end()
    assert clocked.claim("00:02:50") == ["on demand"]


def test_reboot_runs_once_a_start(clocked: Clocked) -> None:
    clocked.insert("@reboot")
    assert clocked.claim("00:01:00") == []
    frozen.set_start(clocked.db, "2030-01-07 00:02:00")
    assert clocked.claim("00:02:05") == ["00:02:00"]
    assert clocked.claim("00:02:06") == []
    clocked.end()
    assert clocked.claim("00:02:07") == []


@pytest.mark.parametrize(
    ("paused", "edit", "entry"),
    [
        (
            False,
            "update rowcron.job set enabled = false",
            "missed: paused before a worker fired it",
        ),
        (False, "delete from rowcron.job", "missed: deleted before a worker fired it"),
        (
            False,
            "update rowcron.job set schedule = '@hourly'",
            "missed: schedule changed before a worker fired it",
        ),
        (
            False,
            "update rowcron.job set ends_at = '2030-01-08'",
            "missed: schedule changed before a worker fired it",
        ),
        (True, "update rowcron.job set enabled = true", "skipped: paused"),
        (True, "delete from rowcron.job", "skipped: paused"),
    ],
)
def test_a_start_that_nobody_fired_stands_in_the_ledger_after_an_edit(
    clocked: Clocked, paused: bool, edit: str, entry: str
) -> None:
    clocked.insert("@reboot", enabled=not paused)
    frozen.set_start(clocked.db, "2030-01-07 00:02:00")
    clocked.at("00:03:00")
    clocked.db.execute(edit.encode())
    told = (
        "select string_agg(l.outcome || ': ' || l.reason, ', ') from rowcron.ledger as l"
        " where l.scheduled_for = '2030-01-07 00:02:00' and l.occurrences = 1"
    )
    assert clocked.one(told) == entry
    clocked.db.execute(b"update rowcron.job set enabled = not enabled")
    assert clocked.claim("00:04:00") == [], "once"
    assert clocked.one(told) == entry


def test_a_start_that_nobody_fires_is_overdue(clocked: Clocked) -> None:
    clocked.insert("@reboot")
    verdict = "select h.verdict from rowcron.job_health as h where h.name = 'job'"
    frozen.set_start(clocked.db, "2030-01-07 00:02:00")
    clocked.at("00:02:30")
    assert clocked.one(verdict) == "new"
    clocked.at("00:03:30")
    assert clocked.one(verdict) == "overdue"
    assert clocked.one("select state from rowcron.jobs") == "overdue"
    clocked.claim("00:03:40")
    assert clocked.one(verdict) == "new"


def test_each_start_that_a_pause_passes_over_is_skipped(clocked: Clocked) -> None:
    clocked.insert("@reboot", enabled=False)
    for minute in ("02", "04"):
        frozen.set_start(clocked.db, f"2030-01-07 00:{minute}:00")
        assert clocked.claim(f"00:{minute}:05") == []
        assert clocked.claim(f"00:{minute}:06") == []
    clocked.db.execute(b"update rowcron.job set enabled = true")
    assert clocked.claim("00:05:00") == []
    frozen.set_start(clocked.db, "2030-01-07 00:06:00")
    assert clocked.claim("00:06:05") == ["00:06:00"]
    assert clocked.ledger() == ["skipped 00:02:00 1", "skipped 00:04:00 1"]


@pytest.mark.parametrize(
    ("window", "handed"),
    [
        ({"ends_at": "2030-01-07 00:02:30"}, ["00:02:00"]),
        ({"starts_at": "2030-01-07 00:02:30"}, []),
    ],
)
def test_a_start_counts_by_when_it_was_not_by_when_it_is_fired(
    clocked: Clocked, window: dict[str, Any], handed: list[str]
) -> None:
    clocked.insert("@reboot", **window)
    frozen.set_start(clocked.db, "2030-01-07 00:02:00")
    assert clocked.claim("00:03:00") == handed


def test_at_runs_once_and_is_over(clocked: Clocked) -> None:
    clocked.insert("@at 2030-01-07 00:05", max_attempts=2, retry_delay="1 minute", retry_jitter=0)
    assert clocked.claim("00:05:00") == ["00:05:00"]
    clocked.end("failed")
    assert clocked.claim("00:05:30") == []
    assert clocked.claim("00:06:00") == ["00:05:00"]
    clocked.end()
    assert clocked.claim("2031-01-01 00:00") == []
    assert clocked.ledger() == ["succeeded 00:05:00 1"]
    assert clocked.one("select state from rowcron.jobs") == "over"


def test_health_flags_a_job_that_is_always_missed(clocked: Clocked) -> None:
    clocked.insert("@every 1 second", on_missed="skip", missed_grace="0")
    for second in range(31, 36):
        clocked.claim(f"00:00:{second}.5")
    health = "select h.verdict || ' ' || h.runs || ' ' || h.missed from rowcron.job_health as h"
    assert clocked.one(health) == "missed 0 5"


def test_health_flags_a_job_that_is_skipped_behind_one_run(clocked: Clocked) -> None:
    clocked.insert("* * * * *")
    verdict = "select h.verdict from rowcron.job_health as h where h.name = 'job'"
    assert clocked.claim("00:01:00") == ["00:01:00"]
    for minute in range(2, 11):
        clocked.claim(f"00:{minute:02}:00")
    assert clocked.one(verdict) == "well"
    clocked.claim("00:11:00")
    assert clocked.one(verdict) == "stuck behind one run"
    clocked.end()
    clocked.claim("00:12:00")
    assert clocked.one(verdict) == "well"
