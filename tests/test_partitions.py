"""The ledger's partitions where one of them is in the way, or somebody is writing."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import psycopg
import pytest

from harness import INSTALLER, Database, wait_until
from test_retention import maintain, partitions
from workers import Jobs, Start, jobs, start

__all__ = ["jobs", "start"]
NOON = datetime(2050, 3, 1, 12, tzinfo=UTC)
MAINTAIN = "select rowcron._maintain_partitions(%s)"
ENTRIES = (
    "insert into rowcron.ledger (job_id, job, owner, queue, kind, final, scheduled_for,"
    " finished_at, outcome) select 1, 'x', 'alice', 'q', 'sql', true, now(), %s, 'missed'"
    " from generate_series(1, %s)"
)


def named(day: date) -> str:
    """The partition of a day."""
    return f"ledger_{day:%Y%m%d}"


@pytest.fixture
def told(db: psycopg.Connection) -> list[str]:
    """The warnings that maintenance raises."""
    told: list[str] = []
    db.add_notice_handler(lambda notice: told.append(notice.message_primary or ""))
    return told


def test_making_a_partition_fails_nothing_that_ends_meanwhile(
    jobs: Jobs, start: Start, database: Database
) -> None:
    start()
    wait_until(
        lambda: (
            jobs.db.execute(
                "select from rowcron.setting where name = 'maintained_at' and value <>"
                " '\"1970-01-01T00:00:00Z\"'"
            ).rowcount
        ),
        what="the worker's own maintenance",
    )
    today = named(jobs.db.execute("select (now() at time zone 'UTC')::date").fetchone()[0])
    jobs.db.execute(f"drop table rowcron.{today}".encode())
    run = jobs.run("sql", "insert into public.effect (n) values (1); select pg_sleep(1)")
    jobs.wait_running(run)
    with psycopg.connect(database.url(INSTALLER)) as maker:
        maker.execute("set local role rowcron_owner")
        maker.execute("select rowcron._maintain_partitions(clock_timestamp())")
        blocked = "select from pg_stat_activity where wait_event_type = 'Lock'"
        wait_until(lambda: jobs.db.execute(blocked.encode()).rowcount, what="the job's end")
    entry = jobs.end(run)
    assert (entry["outcome"], entry["error"]) == ("succeeded", None)
    assert jobs.db.execute("select n from public.effect").fetchall() == [(1,)]
    assert jobs.db.execute(f"select run_id from rowcron.{today}".encode()).fetchall() == [(run,)]


def test_much_of_a_day_that_is_being_written_is_moved_when_it_has_passed(
    db: psycopg.Connection,
) -> None:
    db.execute(ENTRIES, [NOON, 10001])
    db.execute(ENTRIES, [NOON - timedelta(days=1), 10001])
    db.execute(MAINTAIN, [NOON])
    # neither: while there is no partition for today, its writers wait for the default one
    assert min(partitions(db) - {"ledger_default"}) == "ledger_20500302"
    db.execute(MAINTAIN, [NOON + timedelta(hours=12, minutes=59)])
    assert named(NOON.date()) not in partitions(db), "who began before midnight may still write"
    db.execute(MAINTAIN, [NOON + timedelta(hours=13)])
    count = "select tableoid::regclass::text, count(*) from rowcron.ledger group by 1 order by 1"
    assert db.execute(count.encode()).fetchall() == [
        ("rowcron.ledger_20500228", 10001),
        ("rowcron.ledger_20500301", 10001),
    ]


def test_what_keeps_one_partition_from_being_dropped_or_made_harms_no_other(
    db: psycopg.Connection, told: list[str]
) -> None:
    for day in ("2020-01-01", "2020-01-02"):
        db.execute("select rowcron._make_partition(%s)", [day])
    db.execute("create view public.old as select * from rowcron.ledger_20200101")
    db.execute(MAINTAIN, [NOON])
    db.execute("drop table rowcron.ledger_20500303, rowcron.ledger_20500304")
    db.execute(
        "create table rowcron.mine partition of rowcron.ledger"
        " for values from ('2050-03-03 00:00+00') to ('2050-03-04 00:00+00')"
    )
    db.execute("alter table rowcron.ledger detach partition rowcron.ledger_20500305")
    told.clear()
    db.execute(MAINTAIN, [NOON + timedelta(days=1)])
    assert partitions(db) == {
        "ledger_default", "ledger_20200101", "mine",
        *(f"ledger_205003{day:02}" for day in (1, 2, 4, 6, 7, 8, 9)),
    }  # fmt: skip
    assert told == [
        'partition ledger_20500303 of the ledger cannot be made: partition "ledger_20500303" would'
        ' overlap partition "mine"',
        "partition ledger_20500305 of the ledger cannot be made: relation"
        ' "ledger_20500305" stands there and is not one of the ledger\'s',
        "partition ledger_20200101 of the ledger cannot be dropped: cannot drop table"
        " rowcron.ledger_20200101 because other objects depend on it",
    ]
    db.execute("drop view public.old")
    db.execute(MAINTAIN, [NOON + timedelta(days=1)])
    assert "ledger_20200101" not in partitions(db)


def test_a_generated_column_of_somebody_s_own_is_in_no_partition_s_way(
    db: psycopg.Connection, told: list[str]
) -> None:
    db.execute(
        "alter table rowcron.ledger add column day date"
        " generated always as ((finished_at at time zone 'UTC')::date) stored"
    )
    day = datetime.now(UTC) + timedelta(days=100)
    db.execute(ENTRIES, [day, 1])
    maintain(db)
    assert told == []
    moved = f"select day from rowcron.{named(day.date())}"
    assert db.execute(moved.encode()).fetchall() == [(day.date(),)]
