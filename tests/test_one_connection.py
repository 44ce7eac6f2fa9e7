"""A worker written by somebody else, which does everything over one connection."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import psycopg
import pytest

from harness import WORKER, wait_until

Connect = Callable[[str], psycopg.Connection]
LEASE = "select session_ended_at is null, expires_at - clock_timestamp() > '1 hour' as long"
BEAT = "select from rowcron.heartbeat(%s, lease => '2 hours', session => %s)"


@pytest.mark.parametrize("command", ["select 1", "select 1 / 0", "select pg_advisory_unlock_all()"])
def test_it_is_not_lost_when_it_has_executed_a_sql_job(
    db: psycopg.Connection, alice: psycopg.Connection, connect: Connect, command: str
) -> None:
    alice.execute("insert into rowcron.job (name, command) values ('job', %s)", [command])
    alice.execute("select rowcron.enqueue('job'), rowcron.enqueue('job')")
    one, other, me = connect(WORKER), connect(WORKER), uuid.uuid4()
    lease = f"{LEASE} from rowcron.worker where id = %s"

    one.execute(BEAT, [me, True])
    run = one.execute("select run_id, token from rowcron.claim(%s, 2)", [me]).fetchall()[0]
    one.execute("select from rowcron.execute(%s, %s)", run, prepare=False)
    other.execute(BEAT, [uuid.uuid4(), False])
    assert db.execute(lease, [me]).fetchone() == (True, True)

    one.execute(BEAT, [me, True])  # its end shows as before
    one.close()

    def ended() -> bool:
        other.execute(BEAT, [uuid.uuid4(), False])
        return db.execute(lease, [me]).fetchone() == (False, False)

    wait_until(ended, what="its session's end to show")


def test_its_session_s_end_shows_when_its_last_word_was_a_sql_job(
    db: psycopg.Connection, alice: psycopg.Connection, connect: Connect
) -> None:
    alice.execute("insert into rowcron.job (name, command) values ('job', 'select 1')")
    alice.execute("select rowcron.enqueue('job'), rowcron.enqueue('job')")
    one, other, me = connect(WORKER), connect(WORKER), uuid.uuid4()
    one.execute(BEAT, [me, True])
    run = one.execute("select run_id, token from rowcron.claim(%s, 2)", [me]).fetchall()[0]
    one.execute("select from rowcron.execute(%s, %s)", run, prepare=False)
    one.close()

    def ended() -> bool:
        other.execute(BEAT, [uuid.uuid4(), False])
        query = "select session_ended_at is not null from rowcron.worker where id = %s"
        return db.execute(query, [me]).fetchone() == (True,)

    wait_until(ended, what="its session's end to show")
