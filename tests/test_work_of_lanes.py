"""How much a claim does for each queue that there is, counted: no more than look it up."""

from __future__ import annotations

import re
from collections.abc import Callable

import psycopg
import pytest

from test_work import WORKER, work

CLAIM = f"select * from rowcron.claim('{WORKER}', 1, null, '{{sql}}')"
NOTED = "select coalesce(current_setting(rowcron._reach_key(null, '{sql}', null), true), '')"
Connect = Callable[[str], psycopg.Connection]


def open_lanes(db: psycopg.Connection, count: int) -> None:
    """So many jobs, each in a queue of its own with a run that is ready; past the triggers."""
    db.execute("set session_replication_role = replica")
    for statement in (
        "insert into rowcron.job (name, owner, command, queue) select 'j' || i, 'alice',"
        " 'select 1', 'q' || i from generate_series(1, %s) as i",
        "insert into rowcron.lane (queue, kind) select queue, kind from rowcron.job",
        "insert into rowcron.agenda (job_id, owner, queue, kind, enabled, high_water)"
        " select id, owner, queue, kind, true, now() from rowcron.job",
        "insert into rowcron.run (job_id, job, owner, queue, kind, state, due_at)"
        " select id, name, owner, queue, kind, 'ready', now() - interval '1 minute'"
        " from rowcron.job",
    ):
        db.execute(statement.encode(), (count,) if "%s" in statement else ())
    db.execute("reset session_replication_role")
    db.execute("vacuum (analyze)")


def test_a_claim_looks_each_lane_up_and_remembers_none(db: psycopg.Connection) -> None:
    lanes = 1_000
    open_lanes(db, lanes)
    assert len(db.execute(CLAIM.encode()).fetchall()) == 1
    found = work(db, CLAIM)
    assert found["out"] == 1
    assert found["buffers"] < 25 * lanes, found
    assert found["rows"] < 5 * lanes, found
    assert db.execute(NOTED).fetchone() == ("",)


def test_bounds_of_many_lanes_are_not_compared_with_each(
    db: psycopg.Connection, connect: Connect
) -> None:
    lanes = 190  # of more none is remembered
    open_lanes(db, lanes)
    connection = connect("postgres")
    bounds = (
        "select array_agg(row(null, queue, kind, -1, now(), 0, null)::rowcron._band)"
        " from rowcron.lane"
    )
    said: list[str] = []
    connection.add_notice_handler(lambda notice: said.append(notice.message_primary or ""))
    for setting in (
        "load 'auto_explain'",
        "set auto_explain.log_min_duration = 0",
        "set auto_explain.log_analyze = on",
        "set auto_explain.log_nested_statements = on",
        "set auto_explain.log_level = 'notice'",
        "set enable_hashjoin = off",  # as in claim()
        "set enable_mergejoin = off",
    ):
        connection.execute(setting.encode())
    bands = connection.execute(
        "select cardinality(rowcron._bands(array_agg(queue order by queue),"
        f" array_agg(kind order by queue), ({bounds}))) from rowcron.lane".encode()
    ).fetchone()
    assert bands == (2 * lanes,)
    removed = [int(n) for text in said for n in re.findall(r"by Join Filter: (\d+)", text)]
    assert said
    assert sum(removed) < 10 * lanes, removed


@pytest.mark.parametrize("lanes", [5, 300])
def test_what_is_ready_in_any_lane_is_found(db: psycopg.Connection, lanes: int) -> None:
    open_lanes(db, lanes)
    got = db.execute(CLAIM.replace(" 1,", " 1000,").encode()).fetchall()
    assert len(got) == lanes
