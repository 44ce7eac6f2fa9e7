# ruff: noqa: E501 -- the statements read better whole
"""A length that is short to every comparison and out of range to every addition harms nobody."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import psycopg
import pytest

from attack.conftest import Attack, Connect
from conftest import WORKER
from test_execute import Hands, add, only
from test_retention import maintain

# PostgreSQL takes a month as 30 days when it compares: a day, about, each
BACK = "-5000000 years 1800000001 days"
FORTH = "5000000 years -1799999999 days"
COLUMNS = ("timeout", "retry_delay", "max_retry_delay", "missed_grace", "jitter", "keep")


def test_a_length_that_takes_back_what_it_gives_is_refused(
    alice: psycopg.Connection, connect: Connect, attack: Attack
) -> None:
    add(alice, "job", "select 1")
    for value in (BACK, FORTH, "30 days -1 second"):
        for column in COLUMNS:
            error = attack.refused(alice, f"update rowcron.job set {column} = '{value}'", "RCLIM")
            assert "no part of it negative" in str(error), column
        attack.refused(
            alice, f"select rowcron.enqueue('job', key => 'k', key_ttl => '{value}')", "RCKEY"
        )
    worker = connect(WORKER)
    for name in ("lease", "poll"):
        attack.refused(
            worker,
            f"select rowcron.heartbeat(gen_random_uuid(), {name} => '-1 month 30 days 5 seconds')",
            "RCLIM",
        )
    attack.refused(worker, "select rowcron.claim(lease => '-1 month 30 days 5 seconds')", "RCLIM")
    alice.execute("update rowcron.job set timeout = '1 mon', keep = '3 years 2 days', jitter = '0'")


@pytest.fixture
def older(db: psycopg.Connection) -> psycopg.Connection:
    """An older release, to which such a length was as good as any."""
    db.execute("alter table rowcron.job drop constraint no_part_of_a_length_is_negative")
    return db


def store(db: psycopg.Connection, job: str, **columns: str) -> None:
    """Write past the triggers."""
    with db.transaction():
        db.execute("set local session_replication_role = replica")
        for column, value in columns.items():
            db.execute(f"update rowcron.job set {column} = '{value}' where name = '{job}'".encode())


def test_what_an_older_release_let_be_stored_harms_nobody(
    older: psycopg.Connection, alice: psycopg.Connection, bob: psycopg.Connection, hands: Hands
) -> None:
    add(bob, "bad", "select 1", schedule="@hourly", on_missed="skip")
    add(alice, "good", "select 1", schedule="@hourly")
    add(bob, "failing", "select 1/0", max_attempts=9)
    for claimed in hands.claim():
        hands.execute(claimed)
    older.execute("delete from rowcron.run")
    for column in ("jitter", "missed_grace"):
        for value in (BACK, FORTH):
            store(older, "bad", **{column: value})
            older.execute(
                "update rowcron.agenda set next_run_at = date_trunc('hour', clock_timestamp()),"
                " high_water = '2020-01-01' where (parsed).form is not null"
            )
            assert "good" in {claimed["job"] for claimed in hands.claim()}
            older.execute("delete from rowcron.run")
    for value in (BACK, FORTH):
        store(older, "failing", retry_delay=value, max_retry_delay=value)
        bob.execute("select rowcron.run_now('failing')")
        (claimed,) = hands.claim()
        answer = hands.execute(claimed)
        assert (answer["outcome"], answer["final"]) == ("failed", False)
        older.execute("delete from rowcron.run")


def test_an_upgrade_repairs_them(older: psycopg.Connection, bob: psycopg.Connection) -> None:
    add(bob, "bad", "select 1", schedule="@hourly")
    store(older, "bad", **dict.fromkeys(COLUMNS, BACK))
    older.execute((Path(__file__).parents[2] / "sql/036_lengths.sql").read_text().encode())
    assert older.execute(
        "select timeout::text, retry_delay::text, max_retry_delay::text, missed_grace::text, jitter, keep from rowcron.job"
    ).fetchone() == ("01:00:00", "00:00:10", "01:00:00", "00:01:00", None, None)
    maintain(older)


def test_an_upgrade_keeps_what_they_say_where_that_is_a_length(
    older: psycopg.Connection, bob: psycopg.Connection
) -> None:
    add(bob, "long", "select 1", schedule="@hourly", retry_delay="7 s")
    store(older, "long", **dict.fromkeys(("timeout", "jitter", "keep"), "1 day -1 hour"))
    older.execute((Path(__file__).parents[2] / "sql/036_lengths.sql").read_text().encode())
    assert older.execute(
        "select timeout::text, retry_delay::text, jitter::text, keep::text from rowcron.job"
    ).fetchone() == ("23:00:00", "00:00:07", "23:00:00", "23:00:00")


def test_an_asked_pause_is_clamped_whatever_it_is(
    bob: psycopg.Connection, hands: Hands, db: psycopg.Connection
) -> None:
    add(bob, "job", "x", max_attempts=9)
    asked = ((BACK, "-1 s", "1 s"), (FORTH, "23 hours", "1 day"), ("-1 day", "-1 s", "1 s"))
    for (value, low, high), outcome in product(asked, ("failed", "released")):
        claimed = hands.claim()[-1]
        db.execute(
            "select rowcron.finish(%s, %s, %s, retry_after => %s)",
            (claimed["run_id"], claimed["token"], outcome, value),
        )
        assert only(
            db, "select due_at - clock_timestamp() between %s and %s from rowcron.run", low, high
        ), (value, outcome)
        db.execute("delete from rowcron.run")
        bob.execute("select rowcron.run_now('job')")


def test_a_job_that_cannot_be_fired_stops_no_other(
    db: psycopg.Connection, alice: psycopg.Connection, bob: psycopg.Connection, hands: Hands
) -> None:
    """Whatever the reason: here a rule of somebody's own."""
    add(bob, "bad", "select 1", schedule="@hourly")
    for n in range(3):
        add(alice, f"good {n}", "select 1", schedule="@hourly")
    for claimed in hands.claim():
        hands.execute(claimed)
    db.execute(
        "create function public.forbid() returns trigger language plpgsql as $$ begin"
        " raise exception 'not this one'; end $$;"
        " create trigger forbid before insert on rowcron.run for each row when (new.job = 'bad')"
        " execute function public.forbid()"
    )
    due = (
        "update rowcron.agenda set next_run_at = date_trunc('hour', clock_timestamp()),"
        " high_water = '2020-01-01' where enabled"
    )
    db.execute(due)
    assert sorted(claimed["job"] for claimed in hands.claim()) == ["good 0", "good 1", "good 2"]
    assert hands.claim() == []
    assert db.execute(
        "select job, outcome, final from rowcron.ledger where reason = 'cannot be fired: not this one'"
    ).fetchall() == [("bad", "missed", True)]
    assert only(
        db,
        "select next_run_at is null from rowcron.agenda join rowcron.job on id = job_id where name = 'bad'",
    )
    # what is about no job stops nothing for good
    db.execute("delete from rowcron.run")
    db.execute(
        "create or replace function public.forbid() returns trigger language plpgsql as $$ begin"
        " raise exception 'no room' using errcode = '53100'; end $$"
    )
    db.execute(due)
    with pytest.raises(psycopg.errors.DiskFull):
        hands.claim()
    assert only(db, "select count(*) from rowcron.agenda where next_run_at is not null") == 4
