"""How much a look at the page Now touches: it must not grow with what waits or has been.

A viewer, an author of nearly all, and one of little beside it; as tests/test_work.py counts.
"""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from harness import Database, TestServer
from rowcron.web import looks
from rowcron.web.pulse import ASK
from test_work import FEW, MANY, loaded, work

RUNNING = """
insert into rowcron.run (job_id, job, owner, queue, kind, state, due_at, worker_id, seal,
  started_at)
select j.id, j.name, j.owner, 'default', 'sql', 'running', now(), gen_random_uuid(),
  gen_random_uuid(), now()
from rowcron.job as j, generate_series(1, 5) where j.name = 'on-demand'
"""
# Ready in the lane that is looked at, and trouble in the past of somebody else.
BACKLOG = """
insert into rowcron.run (job_id, job, owner, queue, kind, state, waits_for, priority, due_at)
select j.id, j.name, j.owner, 'default', 'sql', s.state, s.waits_for, i % 10, now()
  - i * interval '1 ms'
from rowcron.job as j, generate_series(1, {count}) as i, (values
  ('ready', null), ('waiting', 'limit'), ('waiting', 'resume')
) as s (state, waits_for)
where j.name = 'on-demand'
"""
TROUBLE = """
insert into rowcron.ledger (job_id, job, owner, queue, kind, run_id, attempt, final, due_at,
  started_at, finished_at, outcome)
select j.id, j.name, j.owner, 'default', 'sql', i, 1, true, now(), now(),
  now() - i * interval '1 ms', case when i % 2 = 0 then 'failed' else 'succeeded' end
from rowcron.job as j, generate_series(1, {count}) as i
where j.name = 'on-demand' or (j.name = 'b' and i < 20)
"""


@pytest.fixture(scope="module")
def pair(server: TestServer) -> Iterator[tuple[Database, Database]]:
    with psycopg.connect(server.admin_url, autocommit=True) as db:
        for role, member in (("viewer", "viewer"), ("web", "web"), ("author", "user")):
            db.execute(f"create role work_{role} login")
            db.execute(f"grant rowcron_{member} to work_{role}".encode())
    databases = (loaded(server, FEW), loaded(server, MANY))
    for database, count in zip(databases, (FEW, MANY), strict=True):
        with psycopg.connect(database.url("work_author"), autocommit=True) as author:
            author.execute(
                "insert into rowcron.job (name, schedule, command) values ('b', '@daily', 'x')"
            )
            author.execute("select rowcron.enqueue('b')")
        with psycopg.connect(database.url("postgres"), autocommit=True) as db:
            db.execute("set session_replication_role = replica")
            for text in (RUNNING, BACKLOG, TROUBLE):
                db.execute(text.format(count=count).encode())
            db.execute("vacuum (analyze)")
    yield databases
    for database in databases:
        server.drop_database(database)
    with psycopg.connect(server.admin_url, autocommit=True) as db:
        db.execute("drop role work_viewer, work_web, work_author")


@pytest.mark.parametrize("role", ["work_viewer", "alice", "work_author"])
@pytest.mark.parametrize("what", ["what is", "what ended lately"])
def test_a_look_touches_no_more_beside_many_rows(
    pair: tuple[Database, Database], role: str, what: str
) -> None:
    buffers, found = [], []
    text = looks.NOW.replace("%(now)s", "true")
    text = text.replace("%(jobs)s", "'{}'").replace("%(runs)s", "'{}'")
    for database in pair:
        with psycopg.connect(database.url(role), autocommit=True) as db:
            buffers.append(work(db, text if what == "what is" else looks.LATELY)["buffers"])
            row = db.execute(looks.NOW, {"now": True, "jobs": [], "runs": []}).fetchone()
            assert row is not None
            found.append(row[1])
    # what is shown is a thousand runs at most, each of which may lie on a page of its own
    assert buffers[1] <= buffers[0] * 1.5 + 1500, buffers
    assert buffers[1] < 6000, buffers
    assert ('"waiting_count" : 1,' in found[1]) == (role == "work_author"), "it is not empty"
    assert ('"waiting_count" : 1001' in found[1]) == (role != "work_author"), (
        "nor counted to the end"
    )


def test_the_question_whether_anything_has_changed_costs_the_same(
    pair: tuple[Database, Database],
) -> None:
    buffers = []
    for database in pair:
        with psycopg.connect(database.url("work_web"), autocommit=True) as db:
            buffers.append(work(db, ASK)["buffers"])
    assert buffers[1] <= buffers[0] * 1.5 + 100, buffers


@pytest.mark.parametrize(("role", "job"), [("work_viewer", "on-demand"), ("work_author", "b")])
@pytest.mark.parametrize("ask", ["_count_before(r)", "_is_overdue(r.job_id)"])
def test_how_a_job_stands_is_found_without_reading_all_that_waits(
    pair: tuple[Database, Database], role: str, job: str, ask: str
) -> None:
    last = (
        "select r.id from rowcron.run as r where r.queue = 'default' and r.state = 'ready'"
        " and r.job = %s order by r.rank desc, r.due_at desc, r.id desc limit 1"
    )
    buffers = []
    for database in pair:
        with psycopg.connect(database.url("postgres"), autocommit=True) as db:
            found = db.execute(last, (job,)).fetchone()
            assert found is not None
        with psycopg.connect(database.url(role), autocommit=True) as db:
            one = f"select rowcron.{ask} from rowcron.run as r where r.id = %s"
            buffers.append(work(db, one, found[0])["buffers"])
    assert buffers[1] <= buffers[0] * 1.5 + 1500, buffers
