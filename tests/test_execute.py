"""SQL jobs run as their owner and nothing more; effect, record and end of the run are one commit.

The worker here is a login that is only rowcron_worker, calling the four verbs as any client would.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from attack.minutes import Attack
from harness import WORKER, wait_until

Connect = Callable[[str], psycopg.Connection]

# What a SQL job may try to become somebody else. Each must be refused, or change nothing.
ESCAPES = [
    "reset role",
    "set role none",
    "set role w_worker",
    "set role postgres",
    "set local role rowcron_owner",
    "set session authorization default",
    "reset session authorization",
    "set session authorization 'postgres'",
    "select set_config('role', 'w_worker', false)",
    "select set_config('session_authorization', 'postgres', false)",
    "do $$ begin execute 'reset role'; end $$",
    "do $$ begin set role w_worker; end $$",
    "commit",
    "select 1; commit; select 2",
    "savepoint s",
    "alter function pg_catalog.now() owner to alice",
    "select * from rowcron_executor.no_such(1, null)",
    "create function rowcron_executor.mine() returns int language sql as 'select 1'",
    "select rowcron.execute(1, gen_random_uuid())",
    "select * from rowcron.claim()",
    "select * from rowcron.heartbeat(gen_random_uuid())",
    "select rowcron._end_run(r, 'succeeded', null) from rowcron.run as r",
    "update rowcron.run set state = 'ready'",
    "delete from rowcron.ledger",
    "copy rowcron.ledger to program 'true'",
    "select pg_read_file('/etc/passwd')",
]


class Hands:
    """A worker without Python: claims and executes over one connection each."""

    def __init__(self, connect: Connect) -> None:
        self.control = connect(WORKER)
        self.session = connect(WORKER)
        self.session.prepare_threshold = None
        self.id = uuid.uuid4()

    def claim(self, capacity: int = 10) -> list[dict[str, Any]]:
        cursor = self.control.cursor(row_factory=psycopg.rows.dict_row)
        return cursor.execute("select * from rowcron.claim(%s, %s)", [self.id, capacity]).fetchall()

    def execute(self, run: dict[str, Any], timeout: int = 0) -> dict[str, Any]:
        self.session.execute(f"set statement_timeout = {timeout}")
        cursor = self.session.cursor(row_factory=psycopg.rows.dict_row)
        answer = cursor.execute(
            "select * from rowcron.execute(%s, %s)", [run["run_id"], run["token"]]
        ).fetchone()
        assert answer is not None
        return answer


@pytest.fixture
def hands(connect: Connect) -> Hands:
    return Hands(connect)


def add(owner: psycopg.Connection, name: str, command: str, **columns: Any) -> int:
    """Stores a job on demand and enqueues one run of it; returns the run."""
    names = "".join(f", {c}" for c in columns)
    marks = ", %s" * len(columns)
    owner.execute(
        f"insert into rowcron.job (name, command{names}) values (%s, %s{marks})",
        [name, command, *columns.values()],
    )
    row = owner.execute("select rowcron.run_now(%s)", [name]).fetchone()
    assert row is not None
    return int(row[0])


def only(connection: psycopg.Connection, query: str, *args: Any) -> Any:
    row = connection.execute(query, args).fetchone()
    assert row is not None, query
    return row[0]


def test_a_job_runs_as_its_owner_with_its_context(alice: psycopg.Connection, hands: Hands) -> None:
    alice.execute("create table seen (who text, run text, attempt text, args jsonb, at text)")
    run = add(
        alice,
        "look",
        "insert into seen select current_user, current_setting('rowcron.run_id'),"
        " current_setting('rowcron.attempt'), current_setting('rowcron.args')::jsonb,"
        " current_setting('rowcron.scheduled_for')",
        args='{"n": 1}',
    )
    (claimed,) = hands.claim()
    assert claimed["command"] is None, "a SQL job's text does not leave the database"
    answer = hands.execute(claimed)
    assert (answer["outcome"], answer["final"], answer["row_count"]) == ("succeeded", True, 1)
    assert alice.execute("select * from seen").fetchall() == [
        ("alice", str(run), "1", {"n": 1}, "")
    ]
    assert only(alice, "select outcome from rowcron.history where run_id = %s", run) == "succeeded"
    assert alice.execute("select * from rowcron.run").fetchall() == []


@pytest.mark.parametrize(
    ("command", "rows", "first"),
    [
        ("select 42 as answer, 'x' as word", 1, {"answer": 42, "word": "x"}),
        ("select n from generate_series(1, 1000) as n", 1000, {"n": 1}),
        ("select 1 where false", 0, None),
        ("values (1), (2)", 2, {"column1": 1}),
        ("show search_path", 1, None),
        ("create table t (x int); insert into t select generate_series(1, 7)", 7, None),
        ("select 1; select 2 as second", 1, None),
        ("do $$ begin perform 1; end $$", 0, None),
        ("create table made as select generate_series(1, 3)", 3, None),
    ],
)
def test_row_count_and_first_row_are_the_result(
    alice: psycopg.Connection, hands: Hands, command: str, rows: int, first: Any
) -> None:
    add(alice, "job", command)
    (claimed,) = hands.claim()
    answer = hands.execute(claimed)
    assert answer["outcome"] == "succeeded", answer["error"]
    assert answer["row_count"] == rows
    if first is not None:
        assert answer["result"] == first


def test_insert_returning_runs_once_and_tells_its_row(
    alice: psycopg.Connection, hands: Hands
) -> None:
    alice.execute("create table t (id int generated always as identity, x int)")
    add(alice, "job", "insert into t (x) select generate_series(1, 3) returning id, x")
    answer = hands.execute(hands.claim()[0])
    assert (answer["row_count"], answer["result"]) == (3, {"id": 1, "x": 1})
    assert only(alice, "select count(*) from t") == 3


def test_a_failing_job_leaves_no_effect_and_a_record(
    alice: psycopg.Connection, hands: Hands
) -> None:
    alice.execute("create table t (x int)")
    run = add(alice, "job", "insert into t values (1); select 1 / 0")
    answer = hands.execute(hands.claim()[0])
    assert (answer["outcome"], answer["final"]) == ("failed", True)
    assert only(alice, "select count(*) from t") == 0
    outcome, reason, error = alice.execute(
        "select outcome, reason, error from rowcron.history where run_id = %s", [run]
    ).fetchone()
    assert (outcome, reason) == ("failed", "error 22012")
    assert error.startswith("22012: division by zero")


def test_runs_leave_no_multixacts_behind(
    alice: psycopg.Connection, db: psycopg.Connection, hands: Hands
) -> None:
    """A lock of a transaction and a delete of its subtransaction are one, to be frozen one day."""

    def multixacts() -> Any:
        db.execute("checkpoint")
        return only(db, "select (c.next_multixact_id, c.next_multi_offset)::text"
            " from pg_control_checkpoint() as c")  # fmt: skip

    add(alice, "works", "select 1", max_running=5)
    add(alice, "fails", "select 1 / 0", max_attempts=2, retry_delay="0 s")
    before = multixacts()
    ended = [hands.execute(run)["outcome"] for _ in range(3) for run in hands.claim()]
    assert sorted(ended) == ["failed", "failed", "succeeded"]
    assert multixacts() == before


def test_a_failed_job_whose_run_was_ended_meanwhile_records_nothing(
    alice: psycopg.Connection, db: psycopg.Connection, hands: Hands
) -> None:
    """While what it did is rolled back, its lock is, too: for that moment nobody holds the run."""
    add(alice, "fails", "select 1 / 0")
    run = hands.claim()[0]
    claim = [run["run_id"], run["token"]]
    hands.control.execute("select rowcron.finish(%s, %s)", claim)
    with pytest.raises(psycopg.Error, match="the run was handed out again") as lost:
        db.execute("select rowcron._end_execute(%s, %s, '22012', 'no', null, null)", claim)
    assert lost.value.sqlstate == "RCCLM"
    assert only(alice, "select array_agg(outcome) from rowcron.history") == ["succeeded"]


@pytest.mark.parametrize("text", ESCAPES)
def test_an_escape_gains_nothing(
    alice: psycopg.Connection, db: psycopg.Connection, hands: Hands, attack: Attack, text: str
) -> None:
    tried = attack(text)
    db.execute("create table mark (who text)")
    db.execute("grant insert on mark to public")
    alice.execute("create table own (who text)")
    add(alice, "job", f"insert into own values (current_user); {text}")
    answer = hands.execute(hands.claim()[0])
    who = only(hands.session, "select current_user::text")
    assert who == WORKER
    # either refused, and then without effect, or harmless, and then still as the owner
    assert {r[0] for r in alice.execute("select who from own")} <= {"alice"}
    if answer["outcome"] == "succeeded":
        add(alice, "after", "insert into own values (current_user)")
        hands.execute(hands.claim()[0])
        assert {r[0] for r in alice.execute("select who from own")} == {"alice"}
    tried.stopped((answer["error"] or "it changed nothing").splitlines()[0])


AFTERWARDS = {
    "a cursor WITH HOLD": "declare c cursor with hold for select evil()",
    "a prepared statement of the driver's name": (
        "deallocate all; prepare _pg3_0 as select evil()"
    ),
    "a deferred trigger": "insert into deferred values (1)",
    "a deferred trigger that defers again": "insert into again values (1)",
    "a temporary function": (
        "create function pg_temp.evil_now() returns int language sql as 'select 1'"
    ),
    "a listener": "listen rowcron",
    "a setting": "set work_mem = '64kB'; set search_path = alice_trap; set role_spy.x = 'y'",
    "an advisory lock": "select pg_advisory_lock(4711)",
    "a temporary table": "create temp table run (id bigint)",
    "a sequence's current value": "create sequence seq_left; select nextval('seq_left')",
}


@pytest.fixture
def trap(alice: psycopg.Connection) -> psycopg.Connection:
    """Alice's evil function writes down who executes it; tables whose triggers call it late."""
    alice.execute("create table caught (who text)")
    alice.execute("grant insert on caught to public")
    alice.execute(
        "create function evil() returns int language plpgsql as $$"
        " begin insert into public.caught values (current_user); return 1; end $$"
    )
    alice.execute("grant execute on function evil() to public")
    for table, body in {
        "deferred": "perform public.evil(); return null;",
        "again": (
            "if pg_trigger_depth() < 9 then set constraints all deferred;"
            " insert into public.deferred values (1); end if; return null;"
        ),
    }.items():
        alice.execute(f"create table {table} (x int)")
        alice.execute(
            f"create function late_{table}() returns trigger language plpgsql"
            f" as $$ begin {body} end $$"
        )
        alice.execute(
            f"create constraint trigger late after insert on {table} deferrable initially deferred"
            f" for each row execute function late_{table}()"
        )
    return alice


@pytest.mark.parametrize("what", AFTERWARDS)
@pytest.mark.parametrize("fails", [False, True], ids=["succeeds", "fails"])
def test_nothing_outlives_the_job(
    trap: psycopg.Connection, hands: Hands, attack: Attack, what: str, fails: bool
) -> None:
    tried = attack(f"{what} left behind by a job that {'fails' if fails else 'succeeds'}")
    hands.session.execute("do $$ begin end $$")  # loads PL/pgSQL and its settings
    before = settings(hands.session)
    command = AFTERWARDS[what] + ("; select 1 / 0" if fails else "")
    add(trap, "job", command)
    answer = hands.execute(hands.claim()[0])
    # the worker's next statements run as they would have
    hands.session.execute("select 1")
    hands.session.prepare_threshold = 0
    hands.session.execute("select 2")
    hands.session.prepare_threshold = None
    who = {r[0] for r in trap.execute("select who from caught").fetchall()}
    assert who <= {"alice"}, (what, answer)
    assert settings(hands.session) == before
    assert only(hands.session, "select count(*) from pg_cursors where is_holdable") == 0
    assert (
        only(
            hands.session,
            "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()",
        )
        == 0
    )
    assert hands.session.execute("select * from pg_listening_channels()").fetchall() == []
    assert (
        only(
            hands.session,
            "select count(*) from pg_class where relpersistence = 't' and pg_table_is_visible(oid)",
        )
        == 0
    )
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        hands.session.execute("select lastval()")
    tried.stopped("closed and reset by rowcron.execute")


KEPT_LOCKS = "select count(*) from pg_locks where locktype = 'advisory' and objid = 4711"
KEPT = """
  select array(select name from pg_prepared_statements),
    (select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid())
"""


def test_a_job_that_is_deleted_between_two_tries_leaves_nothing(
    alice: psycopg.Connection, hands: Hands, attack: Attack
) -> None:
    """The second try does not begin; what the first has prepared must not wait for another's."""
    tried = attack("prepare a statement, fail to be tried again, and be deleted meanwhile")
    command = (
        "do $$ begin prepare q as select 1; perform pg_advisory_lock(4711), pg_sleep(0.5);"
        " raise sqlstate '40001'; end $$"
    )
    add(alice, "job", command)
    run = hands.claim()[0]

    def delete() -> None:
        wait_until(lambda: only(alice, KEPT_LOCKS) == 1, what="the first try")
        alice.execute("delete from rowcron.job")

    thread = threading.Thread(target=delete)
    thread.start()
    with pytest.raises(psycopg.Error) as refused:
        hands.execute(run)
    thread.join()
    assert refused.value.sqlstate == "RCNOJ"
    assert hands.session.execute(KEPT).fetchone() == ([], 0)
    tried.stopped("closed and reset by rowcron.execute, then RCNOJ")


def test_what_a_session_holds_is_gone_before_a_job_begins(
    alice: psycopg.Connection, hands: Hands, attack: Attack
) -> None:
    """A timeout may strike while the job before is cleaned up after."""
    tried = attack("leave a prepared statement to the next job of a session")
    hands.session.execute("prepare q as select 1")
    hands.session.execute("select pg_advisory_lock(4711)")
    add(alice, "job", f"select kept::text from ({KEPT}) as t (kept, locks)")
    answer = hands.execute(hands.claim()[0])
    assert answer["result"] == {"kept": "{}"}
    assert hands.session.execute(KEPT).fetchone() == ([], 0)
    tried.stopped("reset at the beginning, too")


def settings(connection: psycopg.Connection) -> list[Any]:
    return connection.execute(
        "select name, setting from pg_settings where name <> 'statement_timeout' order by name"
    ).fetchall()


def test_triggers_that_defer_for_ever_fail_the_job(
    alice: psycopg.Connection, hands: Hands, attack: Attack
) -> None:
    tried = attack("a deferred trigger that defers for ever")
    alice.execute("create table t (x int)")
    alice.execute(
        "create function more() returns trigger language plpgsql as $$ begin"
        " set constraints all deferred; insert into t values (1); return null; end $$"
    )
    alice.execute(
        "create constraint trigger more after insert on t deferrable initially deferred"
        " for each row execute function more()"
    )
    add(alice, "job", "insert into t values (1)")
    answer = hands.execute(hands.claim()[0])
    assert answer["outcome"] == "failed"
    assert answer["error"].startswith("RCDEF") or "stack depth" in answer["error"]
    assert only(alice, "select count(*) from t") == 0
    tried.stopped(answer["error"].splitlines()[0])


def test_an_owner_cannot_touch_executors(
    alice: psycopg.Connection, db: psycopg.Connection, hands: Hands, attack: Attack
) -> None:
    add(alice, "job", "select 1")
    name = only(
        db,
        "select name from rowcron.executor where owner = 'alice'::regrole",
    )
    for statement in [
        f"alter function rowcron_executor.{name}(bigint, uuid) security invoker",
        f"alter function rowcron_executor.{name} rename to mine",
        f"drop function rowcron_executor.{name}",
        f"create or replace function rowcron_executor.{name}(run_id bigint, token uuid,"
        " out row_count bigint, out result jsonb) language sql as 'select 1::bigint, null::jsonb'",
        f"select * from rowcron_executor.{name}(1, gen_random_uuid())",
        f"grant execute on function rowcron_executor.{name} to public",
        "create table rowcron_executor.t (x int)",
    ]:
        attack.refused(alice, statement, "42501")
    call = f"select * from rowcron_executor.{name}(1, gen_random_uuid())"
    attack.refused(hands.session, call, "42501")


def test_a_wrong_or_stale_token_is_refused_with_its_own_code(
    alice: psycopg.Connection, hands: Hands
) -> None:
    add(alice, "job", "select 1")
    (claimed,) = hands.claim()
    with pytest.raises(psycopg.Error) as refused:
        hands.execute({**claimed, "token": uuid.uuid4()})
    assert refused.value.sqlstate == "RCCLM"
    assert hands.execute(claimed)["outcome"] == "succeeded"
    with pytest.raises(psycopg.Error) as refused:
        hands.execute(claimed)
    assert refused.value.sqlstate == "RCCLM"


def test_owners_of_any_name_have_executors_that_run(
    db: psycopg.Connection, connect: Connect, hands: Hands
) -> None:
    names = ['odd "name" ü🐘', "x" * 63, "select", "a.b"]
    try:
        for name in names:
            quoted = psycopg.sql.Identifier(name).as_string(db)
            db.execute(f"create role {quoted} login")
            db.execute(f"grant rowcron_user to {quoted}")
            owner = connect(name)
            add(owner, "job", "select current_user::text as who")
            answer = hands.execute(hands.claim()[0])
            assert answer["result"] == {"who": name}, answer["error"]
    finally:
        for name in names:
            quoted = psycopg.sql.Identifier(name).as_string(db)
            db.execute(f"drop owned by {quoted}")
            db.execute(f"drop role {quoted}")


def test_first_inserts_at_once_end_well(db: psycopg.Connection, connect: Connect) -> None:
    names = [f"newcomer_{n}" for n in range(8)]
    for name in names:
        db.execute(f"create role {name} login")
        db.execute(f"grant rowcron_user to {name}")
    try:
        connections = [connect(name) for name in names for _ in range(2)]
        errors: list[Exception] = []

        def insert(connection: psycopg.Connection, number: int) -> None:
            try:
                connection.execute(
                    "insert into rowcron.job (name, command) values (%s, 'select 1')",
                    [f"j{number}"],
                )
            except Exception as error:
                errors.append(error)

        threads = [threading.Thread(target=insert, args=(c, n)) for n, c in enumerate(connections)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert (
            only(db, "select count(*) from rowcron.executor where owner::text like 'newcomer%%'")
            == 8
        )
        executors = only(
            db,
            "select count(*) from pg_proc as p join pg_namespace as n on n.oid = p.pronamespace"
            " where n.nspname = 'rowcron_executor'",
        )
        assert executors == 8
        assert (
            only(
                db,
                "select count(*) from pg_roles where rolname like 'newcomer%%'"
                " and (has_schema_privilege(rolname, 'rowcron_executor', 'usage')"
                " or has_schema_privilege(rolname, 'rowcron_executor', 'create'))",
            )
            == 0
        )
    finally:
        for name in names:
            db.execute(f"drop owned by {name}")
            db.execute(f"drop role {name}")


def test_a_timeout_ends_the_job_even_if_it_sets_its_own(
    alice: psycopg.Connection, hands: Hands
) -> None:
    run = add(alice, "job", "set statement_timeout = 0; select pg_sleep(30)", timeout="300 ms")
    answer = hands.execute(hands.claim()[0], timeout=300)
    assert answer["outcome"] == "failed"
    assert only(alice, "select reason from rowcron.history where run_id = %s", run) == "timeout"


def test_a_cancel_of_a_running_sql_job_is_recorded_as_cancelled(
    alice: psycopg.Connection, connect: Connect, hands: Hands
) -> None:
    run = add(alice, "job", "select pg_sleep(30)")
    (claimed,) = hands.claim()
    thread = threading.Thread(target=lambda: hands.execute(claimed))
    thread.start()
    wait_until(
        lambda: hands.control.execute(
            "select 1 from pg_stat_activity where wait_event = 'PgSleep' and usename = %s", [WORKER]
        ).fetchone()
    )
    assert only(alice, "select rowcron.cancel(%s)", run) == "asked"
    beat = hands.control.execute("select cancels from rowcron.heartbeat(%s)", [hands.id]).fetchone()
    assert beat == ([run],)
    hands.session.cancel_safe()
    thread.join(10)
    assert alice.execute(
        "select outcome, reason from rowcron.history where run_id = %s", [run]
    ).fetchall() == [("cancelled", "cancelled by alice")]


def test_a_serialization_failure_is_tried_again_at_once(
    alice: psycopg.Connection, hands: Hands
) -> None:
    alice.execute("create sequence tries")
    add(
        alice,
        "job",
        "do $$ begin if nextval('tries') < 3 then"
        " raise exception using errcode = '40001', message = 'again'; end if; end $$",
    )
    answer = hands.execute(hands.claim()[0])
    assert answer["outcome"] == "succeeded"
    assert only(alice, "select last_value from tries") == 3


def test_a_job_deleted_while_it_runs_ends_in_the_ledger(
    alice: psycopg.Connection, hands: Hands
) -> None:
    run = add(alice, "job", "select pg_sleep(0.5)", max_attempts=3)
    (claimed,) = hands.claim()
    thread = threading.Thread(target=lambda: hands.execute(claimed))
    thread.start()
    wait_until(
        lambda: hands.control.execute(
            "select 1 from pg_stat_activity where wait_event = 'PgSleep' and usename = %s", [WORKER]
        ).fetchone()
    )
    alice.execute("delete from rowcron.job where name = 'job'")
    thread.join(10)
    assert alice.execute(
        "select job, outcome, final from rowcron.ledger where run_id = %s", [run]
    ).fetchall() == [("job", "succeeded", True)]


def test_a_revoked_right_bites_at_the_next_run(
    alice: psycopg.Connection, db: psycopg.Connection, hands: Hands
) -> None:
    db.execute("create table secret (x int)")
    db.execute("grant select on secret to alice")
    add(alice, "job", "select count(*) from secret")
    assert hands.execute(hands.claim()[0])["outcome"] == "succeeded"
    db.execute("revoke select on secret from alice")
    alice.execute("select rowcron.run_now('job')")
    answer = hands.execute(hands.claim()[0])
    assert answer["outcome"] == "failed"
    assert answer["error"].startswith("42501")


def test_a_reassigned_executor_runs_nothing(
    db: psycopg.Connection, connect: Connect, hands: Hands
) -> None:
    db.execute("create role leaver login")
    db.execute("grant rowcron_user to leaver")
    owner = connect("leaver")
    add(owner, "job", "select current_user::text as who")
    with pytest.raises(psycopg.errors.DependentObjectsStillExist):
        db.execute("drop role leaver")
    db.execute("reassign owned by leaver to postgres")
    try:
        answer = hands.execute(hands.claim()[0])
        assert answer["outcome"] == "failed"
        assert answer["error"].startswith("RCEXE")
    finally:
        db.execute("drop owned by leaver")
        db.execute("drop role leaver")


def test_an_executor_of_an_older_edition_runs_and_is_recorded_once(
    alice: psycopg.Connection, db: psycopg.Connection, hands: Hands
) -> None:
    alice.execute("create table done (who text)")
    run = add(alice, "job", "insert into done values (current_user)")
    db.execute(
        "create function rowcron_executor.older(run_id bigint, token uuid, out row_count bigint,"
        " out result jsonb) language plpgsql security definer"
        ' set search_path = "$user", public, pg_temp as $$ declare claimed record; begin'
        " select c.command, c.args into claimed from rowcron._claimed_command(run_id, token,"
        " quote_ident(current_user::text)::regrole) as c;"
        " execute claimed.command using claimed.args;"
        " get diagnostics row_count = row_count; end $$"
    )
    db.execute("alter function rowcron_executor.older owner to alice")
    db.execute("grant execute on function rowcron_executor.older to rowcron_gate")
    db.execute(
        "update rowcron.executor set name = 'older', edition = 2 where owner = 'alice'::regrole"
    )
    answer = hands.execute(hands.claim()[0])
    assert (answer["outcome"], answer["row_count"]) == ("succeeded", 1), answer["error"]
    assert alice.execute("select who from done").fetchall() == [("alice",)]
    entries = "select run_id, outcome, final from rowcron.ledger"
    assert alice.execute(entries).fetchall() == [(run, "succeeded", True)]
    alice.execute("update rowcron.job set description = 'written again'")
    assert only(alice, "select edition from rowcron.executor") == 3
    alice.execute("select rowcron.run_now('job')")
    assert hands.execute(hands.claim()[0])["outcome"] == "succeeded"
    assert only(alice, "select count(*) from rowcron.ledger") == 2


def test_a_worker_has_no_right_of_its_own(hands: Hands, alice: psycopg.Connection) -> None:
    add(alice, "job", "select 1")
    for relation in ["job", "run", "agenda", "ledger", "worker", "change", "setting", "key"]:
        for statement in [
            f"select * from rowcron.{relation}",
            f"delete from rowcron.{relation}",
        ]:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                hands.control.execute(statement)
    for call in [
        "select rowcron.enqueue('job')",
        "select rowcron.hold('x')",
        "select rowcron._claimed_command(1, gen_random_uuid(), 'alice'::regrole)",
        "select rowcron._rescue(now())",
    ]:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            hands.control.execute(call)


def test_an_operator_who_is_an_author_cannot_change_what_others_run(
    db: psycopg.Connection, alice: psycopg.Connection, connect: Connect
) -> None:
    alice.execute("insert into rowcron.job (name, command) values ('job', 'select 1')")
    db.execute("create role both_hats login")
    db.execute("grant rowcron_user, rowcron_operator to both_hats")
    try:
        operator = connect("both_hats")
        for change in ["command = 'select 2'", "args = '{}'", "queue = 'x'", "schedule = '@daily'"]:
            with pytest.raises(psycopg.Error) as refused:
                operator.execute(f"update rowcron.job set {change}")
            assert refused.value.sqlstate == "RCOWN"
        operator.execute("delete from rowcron.job")
        operator.execute("select rowcron.pause('job', 'alice')")
        assert alice.execute("select command, enabled from rowcron.job").fetchall() == [
            ("select 1", False)
        ]
        operator.execute("select rowcron.resume('job', 'alice')")
        assert only(operator, "select rowcron.run_now('job', owner => 'alice')") > 0
    finally:
        operator.close()
        db.execute("drop owned by both_hats")
        db.execute("drop role both_hats")
