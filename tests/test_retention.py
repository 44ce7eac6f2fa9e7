"""What is made and thrown away while others read, claim and finish."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from harness import Database, wait_until

OLD = "ledger_20200101"
PARTITIONS = (
    "select c.relname from pg_inherits as i join pg_class as c on c.oid = i.inhrelid"
    " where i.inhparent = 'rowcron.ledger'::regclass"
)


def partitions(db: psycopg.Connection) -> set[str]:
    """The ledger's partitions."""
    return {row[0] for row in db.execute(PARTITIONS.encode())}


def maintain(db: psycopg.Connection, at: datetime | None = None) -> float:
    """Clean up as if a minute had passed; how long it took, in seconds."""
    db.execute(
        "update rowcron.setting set value = '\"1970-01-01T00:00:00Z\"' where name = 'maintained_at'"
    )
    begin = time.monotonic()
    db.execute("select rowcron._maintain(%s)", [at or datetime.now(UTC)])
    return time.monotonic() - begin


class Traffic(threading.Thread):
    """Enqueues, claims and finishes without end; keeps the longest that each took."""

    def __init__(self, database: Database) -> None:
        super().__init__(daemon=True)
        self.database = database
        self.longest = 0.0
        self.runs = 0
        self.over = threading.Event()

    def run(self) -> None:
        """Until stopped."""
        with psycopg.connect(self.database.url("postgres"), autocommit=True) as conn:
            job = conn.execute("select j from rowcron.job as j where j.name = 'busy'").fetchone()
            while not self.over.is_set():
                conn.execute("select rowcron._enqueue(%s, null, null, null, null, null)", job)
                begin = time.monotonic()
                held = conn.execute("select run_id, token from rowcron.claim()").fetchone()
                claimed = time.monotonic()
                conn.execute("select rowcron.finish(%s, %s)", held)
                finished = time.monotonic()
                self.longest = max(self.longest, claimed - begin, finished - claimed)
                self.runs += 1

    @contextmanager
    def going(self) -> Iterator[None]:
        """While this is entered."""
        self.start()
        wait_until(lambda: self.runs > 20, what="traffic")
        self.longest = 0.0
        yield
        runs = self.runs
        wait_until(lambda: self.runs > runs + 20, what="more traffic")
        self.over.set()
        self.join(10)


@pytest.fixture
def busy(db: psycopg.Connection, alice: psycopg.Connection) -> psycopg.Connection:
    """A database whose ledger has a partition that is past its time, and a job for traffic."""
    alice.execute("set client_min_messages = error")
    alice.execute("insert into rowcron.job (name, command) values ('busy', 'select 1')")
    db.execute("select rowcron._make_partition('2020-01-01')")
    assert OLD in partitions(db)
    return db


@pytest.mark.parametrize(
    "query",
    [
        f"select from rowcron.{OLD}",
        "select count(*) from rowcron.ledger",
        "select count(*) from rowcron.history",
        "select from rowcron.ledger where finished_at > '2030-01-01'",
        "select from only rowcron.ledger",
    ],
)
def test_a_reader_postpones_a_drop_and_stalls_nobody(
    busy: psycopg.Connection, database: Database, query: str
) -> None:
    traffic = Traffic(database)
    with traffic.going(), psycopg.connect(database.url("postgres")) as reader:
        reader.execute(query.encode())  # and the transaction stays open
        took = max(maintain(busy) for _ in range(5))
        assert OLD in partitions(busy)
        assert took < 1.0
        reader.rollback()
        maintain(busy)
        wait_until(lambda: maintain(busy) and OLD not in partitions(busy), what="the drop")
    assert not traffic.is_alive()
    print(
        f"\n{query}: longest claim or finish {traffic.longest * 1000:.0f} ms, {traffic.runs} runs"
    )
    assert traffic.longest < 1.0  # 50 ms and what a busy machine adds


def test_partitions_are_made_while_others_write(
    busy: psycopg.Connection, database: Database
) -> None:
    traffic = Traffic(database)
    with traffic.going():
        tomorrow = datetime.now(UTC) + timedelta(days=1)
        for day in range(3):
            wait_until(
                lambda at=tomorrow + timedelta(days=day): (
                    maintain(busy, at)
                    and f"ledger_{at + timedelta(days=7):%Y%m%d}" in partitions(busy)
                ),
                what="the partition",
            )
    assert traffic.longest < 1.0


def test_the_default_partition_is_emptied_when_nobody_reads_it(
    busy: psycopg.Connection, database: Database, alice: psycopg.Connection
) -> None:
    health = "select ledger_overflows from rowcron.queue_health limit 1"
    day = datetime.now(UTC) + timedelta(days=100)
    busy.execute(
        "insert into rowcron.ledger (job_id, job, owner, queue, kind, final, scheduled_for,"
        " finished_at, outcome) values (1, 'x', 'alice', 'q', 'sql', true, now(), %s, 'missed')",
        [day],
    )
    assert alice.execute(health).fetchone() == (True,)
    name = f"ledger_{day:%Y%m%d}"
    with psycopg.connect(database.url("postgres")) as reader:
        reader.execute("select count(*) from rowcron.ledger")
        maintain(busy)
        assert name not in partitions(busy)
        assert alice.execute(health).fetchone() == (True,)
    maintain(busy)
    assert name in partitions(busy)
    assert alice.execute(health).fetchone() == (False,)
    moved = "select count(*) from rowcron.ledger where tableoid = %s::regclass"
    assert busy.execute(moved, [f"rowcron.{name}"]).fetchone() == (1,)


def test_whatever_is_much_goes_in_batches_until_it_is_gone(db: psycopg.Connection) -> None:
    db.execute(
        "insert into rowcron.key (job_id, key, run_id, expires_at)"
        " select 1, 'k' || n, n, now() - interval '1 day' from generate_series(1, 12000) as n"
    )
    db.execute("set role rowcron_owner")
    db.execute(
        "insert into rowcron.change (changed_at, changed_by, action)"
        " select now() - interval '2 years', 'x', 'update' from generate_series(1, 12000)"
    )
    db.execute("update rowcron.change set changed_at = now() - interval '2 years'")
    db.execute(
        "insert into rowcron.change (changed_by, action) values ('x', 'update'), ('x', 'update')"
    )
    db.execute("reset role")
    left = "select (select count(*) from rowcron.key), (select count(*) from rowcron.change)"
    at = datetime.now(UTC)
    seen = []
    for second in range(4):  # a heartbeat a second; no need to wait for the minute
        db.execute("select rowcron._maintain(%s)", [at + timedelta(minutes=2, seconds=second)])
        seen.append(db.execute(left).fetchone())
    assert seen == [(7000, 7002), (2000, 2002), (0, 2), (0, 2)]


def test_a_lane_that_nobody_uses_is_forgotten_and_one_that_somebody_takes_is_not(
    db: psycopg.Connection, alice: psycopg.Connection, database: Database
) -> None:
    lanes = "select queue from rowcron.lane order by queue"
    insert = "insert into rowcron.job (name, queue, command) values (%s, %s, 'select 1')"
    alice.execute("set client_min_messages = error")
    for name in ("gone", "taken", "used"):
        alice.execute(insert, [name, name])
    alice.execute("delete from rowcron.job where name in ('gone', 'taken')")
    with psycopg.connect(database.url("alice")) as other:
        other.execute("set client_min_messages = error")
        other.execute(insert, ["again", "taken"])  # not committed yet
        maintain(db)
        assert [row[0] for row in db.execute(lanes.encode())] == ["taken", "used"]
        other.commit()
    maintain(db)
    assert [row[0] for row in db.execute(lanes.encode())] == ["taken", "used"]
    # the other way round: the lane is being forgotten when somebody takes it
    with psycopg.connect(database.url("postgres")) as cleaner:
        alice.execute("delete from rowcron.job where name = 'again'")
        cleaner.execute("select rowcron._forget_lanes()")
        taker = threading.Thread(target=alice.execute, args=(insert, ["third", "taken"]))
        taker.start()
        blocked = "select from pg_stat_activity where wait_event_type = 'Lock'"
        wait_until(lambda: db.execute(blocked.encode()).fetchone() is not None, what="the wait")
        cleaner.commit()
        taker.join(10)
    assert [row[0] for row in db.execute(lanes.encode())] == ["taken", "used"]


def test_what_goes_wrong_while_cleaning_up_costs_no_heartbeat(db: psycopg.Connection) -> None:
    db.execute("alter table rowcron.setting disable trigger a10_check")  # stored before it stood
    db.execute(
        "update rowcron.setting set value = '\"no interval\"' where name = 'change_retention'"
    )
    notices: list[str] = []
    db.add_notice_handler(lambda notice: notices.append(notice.message_primary or ""))
    db.execute(
        "update rowcron.setting set value = '\"1970-01-01T00:00:00Z\"' where name = 'maintained_at'"
    )
    for _ in range(2):  # said once a minute
        db.execute("select rowcron.heartbeat('00000000-0000-4000-8000-000000000001')")
    assert len(notices) == 1
    assert notices[0].startswith("cleaning up rows failed: invalid input syntax for type interval")


def test_an_entry_that_breaks_a_rule_is_found(database: Database, db: psycopg.Connection) -> None:
    known = "job_id, job, owner, queue, kind, finished_at, outcome, final, occurrences"
    more = "first_scheduled_for, scheduled_for, run_id, attempt"
    for values in (
        "'done', true, 1, null, null, 1, 1",
        "'missed', true, 1, null, null, 1, 1",
        "'succeeded', true, 1, null, null, 1, null",
        "'succeeded', false, 1, null, null, 1, 1",
        "'missed', true, 2, '2030-01-01', '2030-01-01', null, null",
    ):
        db.execute(
            f"insert into rowcron.ledger ({known}, {more}) select 1, 'job', 'alice'::regrole, 'q',"
            f" 'sql', now(), {values}".encode()
        )
    assert [fault[0] for fault in database.ledger_faults()] == [
        "the outcome is known",
        "what was no run has no attempt",
        "what was no run has no attempt",
        "only what failed or was lost is tried again",
        "several occurrences name the first, and are no run",
    ]
    db.execute("delete from rowcron.ledger")


def test_a_run_that_comes_into_a_forgotten_lane_is_found(
    db: psycopg.Connection, alice: psycopg.Connection, database: Database
) -> None:
    """Its transaction was open while its job moved, or went, and the lane was forgotten."""
    insert = "insert into rowcron.job (name, queue, command) values (%s, %s, 'select 1')"
    for name in ("moves", "goes", "later"):
        alice.execute(insert, [name, name])
    with psycopg.connect(database.url("alice")) as author:
        for name in ("moves", "goes"):
            author.execute("select rowcron.enqueue(%s, key => 'k')", [name])
        author.execute("select rowcron.enqueue('later', due_at => now() + interval '0.1 s')")
        alice.execute("update rowcron.job set queue = 'other' where name in ('moves', 'later')")
        alice.execute("delete from rowcron.job where name = 'goes'")
        maintain(db)
    lanes = "select queue from rowcron.lane order by queue"
    assert [row[0] for row in db.execute(lanes.encode())] == ["other"]
    claim = "select job, queue from rowcron.claim(capacity => 10)"
    assert db.execute(claim.encode()).fetchall() == []
    maintain(db)
    time.sleep(0.2)
    found = [row for _ in range(3) for row in db.execute(claim.encode()).fetchall()]
    assert sorted(found) == [("later", "other"), ("moves", "other")]
    ended = db.execute("select job, outcome, reason from rowcron.ledger").fetchall()
    assert ended == [("goes", "cancelled", "job deleted")]
    maintain(db)
    assert [row[0] for row in db.execute(lanes.encode())] == ["other"]


def test_a_publication_of_all_tables_stops_no_cleaning(
    db: psycopg.Connection, alice: psycopg.Connection
) -> None:
    """It refuses to have rows updated or deleted where nothing identifies them."""
    db.execute("create publication everything for all tables")
    alice.execute("set client_min_messages = error")
    alice.execute(
        "insert into rowcron.job (name, command, keep) values ('short', 'select 1', '1 second')"
    )
    db.execute(
        "insert into rowcron.ledger (job_id, job, owner, queue, kind, run_id, attempt, final,"
        " finished_at, outcome, output) select id, name, owner, queue, kind, n, 1, true,"
        " now() - interval '1 day' + n * interval '2 days', 'succeeded', 'x'"
        " from rowcron.job, generate_series(0, 10, 10) as n"
    )
    assert db.execute("select count(*) from rowcron.ledger_default").fetchone() == (2,)
    notices: list[str] = []
    db.add_notice_handler(lambda notice: notices.append(notice.message_primary or ""))
    maintain(db)
    assert notices == []
    outputs = "select count(*), count(output) from rowcron.ledger"
    assert db.execute(outputs.encode()).fetchone() == (2, 1)
    assert db.execute("select count(*) from rowcron.ledger_default").fetchone() == (0,)
    for table in names_of_tables(db):  # as a claim, a report, an edit do
        db.execute(f"delete from rowcron.{table} where false".encode())


def names_of_tables(db: psycopg.Connection) -> list[str]:
    """All tables of ours that hold rows."""
    query = (
        "select quote_ident(relname) from pg_class"
        " where relnamespace = 'rowcron'::regnamespace and relkind = 'r'"
    )
    return [row[0] for row in db.execute(query.encode())]


def test_outputs_of_a_renamed_job_go_with_its_others(
    db: psycopg.Connection, alice: psycopg.Connection
) -> None:
    alice.execute(
        "insert into rowcron.job (name, command, keep) values ('a', 'select 1', '1 second')"
    )
    for name in ("b", "c"):
        db.execute(
            "insert into rowcron.ledger (job_id, job, owner, queue, kind, run_id, attempt, final,"
            " finished_at, outcome, output) select id, name, owner, queue, kind, 1, 1, true,"
            " now() - interval '1 minute', 'succeeded', 'x' from rowcron.job"
        )
        alice.execute("update rowcron.job set name = %s", (name,))
    maintain(db)
    assert db.execute("select count(*), count(output) from rowcron.ledger").fetchone() == (2, 0)


def test_grants_of_a_role_that_is_gone_go_too(db: psycopg.Connection) -> None:
    """Restored elsewhere, its number may be somebody else's."""
    db.execute("create role rowcron_test_gone")
    db.execute("select rowcron.grant_secret('TOKEN', 'rowcron_test_gone')")
    db.execute("select rowcron.grant_connection('admin', 'rowcron_test_gone')")
    db.execute("select rowcron.grant_secret('TOKEN', 'alice')")
    db.execute("drop role rowcron_test_gone")
    maintain(db)
    left = "select grantee::text from rowcron.secret_grant union all select grantee::text"
    assert db.execute(f"{left} from rowcron.connection_grant".encode()).fetchall() == [("alice",)]
