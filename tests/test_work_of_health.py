"""How much it reads to tell how jobs and queues fare: not with what has been or what waits.

Two hundred jobs with the same past, short and long, and a backlog beside; as tests/test_work.py
counts.
"""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from harness import Database, TestServer
from rowcron.commands.show import LAST_FIVE
from rowcron.web.looks import ENTRIES
from test_work import work

JOBS = 200
SHORT, LONG = 110, 1500  # entries a job; twenty times as many runs are ready
LOAD = """
insert into rowcron.job (name, owner, kind, command)
select 'load-' || i, 'alice'::regrole, 'sql', 'select 1' from generate_series(1, %(jobs)s) as i
"""
# A job's entries lie on pages of their own, because others end in between.
PAST = """
insert into rowcron.ledger (job_id, job, owner, queue, kind, run_id, attempt, final, due_at,
  started_at, finished_at, outcome)
select j.id, j.name, j.owner, j.queue, j.kind, i * 1000 + j.id, 1, true, now(), now(),
  now() - i * interval '1 ms', 'succeeded'
from generate_series(%(count)s, 1, -1) as i, rowcron.job as j where j.name like 'load-%%'
"""
BACKLOG = """
insert into rowcron.run (job_id, job, owner, queue, kind, state, priority, due_at)
select j.id, j.name, j.owner, 'crowded', 'sql', 'ready', i %% 5 + 5, now()
from generate_series(1, %(count)s * 20) as i, rowcron.job as j where j.name = 'load-1'
union all
select j.id, j.name, j.owner, 'crowded', 'sql', 'ready', 0, now() - interval '2 hours'
from rowcron.job as j where j.name = 'load-2'
"""
LANES = """
insert into rowcron.lane values ('crowded', 'sql'), ('empty', 'sql') on conflict do nothing
"""


@pytest.fixture(scope="module")
def pair(server: TestServer) -> Iterator[tuple[Database, Database]]:
    """The same jobs with a short past and backlog, and with long ones."""
    databases = (server.create_database(), server.create_database())
    for database, count in zip(databases, (SHORT, LONG), strict=True):
        with psycopg.connect(database.url("alice"), autocommit=True) as alice:
            alice.execute("insert into rowcron.job (name, command) values ('idle', 'select 1')")
        with psycopg.connect(database.url("postgres"), autocommit=True) as db:
            db.execute("set session_replication_role = replica")  # set-wise, past the triggers
            for text in (LOAD, PAST, BACKLOG):
                db.execute(text.encode(), {"jobs": JOBS, "count": count})
            db.execute(LANES.encode())
            db.execute("vacuum (analyze)")
    yield databases
    for database in databases:
        server.drop_database(database)


def both(
    pair: tuple[Database, Database], statement: str, name: str | None = None
) -> list[dict[str, int]]:
    """What a statement, of the job of that name, touches beside little, and beside much."""
    found = []
    for database in pair:
        with psycopg.connect(database.url("postgres"), autocommit=True) as db:
            row = db.execute("select max(j.id) from rowcron.job as j where j.name = %s", (name,))
            values = {"id": row.fetchone()[0], "name": name}
            found.append(work(db, psycopg.ClientCursor(db).mogrify(statement, values)))
    return found


@pytest.mark.parametrize(
    "statement",
    [
        "select count(*), min(h.verdict) from rowcron.job_health as h",
        "select count(*), min(v.last_outcome) from rowcron.jobs as v",
    ],
)
def test_how_all_jobs_fare_is_told_by_their_last_entries(
    pair: tuple[Database, Database], statement: str
) -> None:
    few, many = both(pair, statement)
    assert many["rows"] <= few["rows"] * 1.1 + 10, (few, many)
    assert many["buffers"] <= few["buffers"] + JOBS * 150, (few, many)  # each on another page


@pytest.mark.parametrize("statement", [LAST_FIVE, ENTRIES], ids=["show", "the page of a job"])
@pytest.mark.parametrize("name", ["load-7", "idle"])
def test_a_job_s_last_entries_are_found_without_its_first_ones(
    pair: tuple[Database, Database], statement: str, name: str
) -> None:
    few, many = both(pair, statement, name)
    assert many["rows"] <= few["rows"] * 1.1 + 10, (few, many)
    assert many["rows"] <= 300, (few, many)
    assert many["buffers"] <= few["buffers"] + 150, (few, many)


def test_the_oldest_that_is_ready_is_found_without_reading_all_that_is(
    pair: tuple[Database, Database],
) -> None:
    few, many = both(pair, "select * from rowcron.queue_health")
    assert many["rows"] <= few["rows"] * 1.1 + 10, (few, many)
    assert many["buffers"] <= few["buffers"] * 1.5 + 150, (few, many)
    for database in pair:
        with psycopg.connect(database.url("postgres"), autocommit=True) as db:
            found = db.execute(
                "select q.oldest_ready_age >= interval '2 hours',"
                " q.overdue_for >= interval '2 hours' from rowcron.queue_health as q"
                " where q.queue = 'crowded'"
            ).fetchone()
            assert found == (True, True)
