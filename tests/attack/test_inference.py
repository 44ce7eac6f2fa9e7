# ruff: noqa: E501 -- the statements read better whole
"""What an author can learn of others' jobs: nothing, not even that a name or a key is taken."""

from __future__ import annotations

import psycopg
import pytest

from attack.conftest import Attack, Connect
from test_execute import Hands, add, only


@pytest.fixture
def secretive(alice: psycopg.Connection) -> psycopg.Connection:
    """Alice has a job, a run, a key and a queue of which nobody shall know."""
    alice.execute("set client_min_messages = error")
    alice.execute(
        "insert into rowcron.job (name, queue, command) values ('sesame', 'sesame', 'select sesame')"
    )
    alice.execute("select rowcron.enqueue('sesame', '{\"sesame\": 1}', key => 'sesame')")
    return alice


def test_no_relation_and_no_error_tells_of_another_s_job(
    secretive: psycopg.Connection, bob: psycopg.Connection, db: psycopg.Connection, attack: Attack
) -> None:
    bob.execute("set client_min_messages = error")
    bob.execute("insert into rowcron.job (name, command) values ('sesame', 'select 1')")
    attack.note("taking the name of another's job", "nothing: names are unique per owner")
    db.execute("analyze")
    relations = db.execute(
        "select c.oid::regclass::text from pg_class as c where c.relnamespace = 'rowcron'::regnamespace"
        " and c.relkind in ('r', 'p', 'v') and has_table_privilege('bob', c.oid, 'select')"
    ).fetchall()
    for (relation,) in relations:
        seen = bob.execute(f"select x::text from {relation} as x").fetchall()
        assert [r for r in seen if "alice" in r[0] or "(1,sesame" in r[0]] == [], relation
    assert only(bob, "select count(*) from rowcron.lane where queue = 'sesame'") == 0
    assert only(bob, "select count(*) from rowcron.queue_health where queue = 'sesame'") == 0
    assert only(bob, "select count(*) from rowcron.key") == 0
    assert only(bob, "select count(*) from rowcron.job") == 1
    assert only(bob, "select count(*) from pg_stats where schemaname = 'rowcron' and tablename in"
                     " ('job', 'run', 'ledger', 'change', 'agenda', 'key', 'lane')") == 0  # fmt: skip
    attack.note("pg_stats of rowcron's tables", "row security hides them")
    errors = []
    for owner in ("alice", "nobody-at-all"):
        for call in ("run_now('sesame', owner => %s)", "pause('sesame', %s)",
                     "enqueue('sesame', owner => %s)", "unschedule('sesame', %s)",
                     "hand_over('sesame', 'bob', %s)", "why_not_running('sesame', %s)"):  # fmt: skip
            with pytest.raises(psycopg.Error) as refused:
                bob.execute(f"select rowcron.{call}".encode(), [owner])
            text = str(refused.value.diag.message_primary) + str(refused.value.diag.message_detail)
            errors.append((owner, call, refused.value.sqlstate, text.replace(owner, "?")))
    half = len(errors) // 2
    assert [e[1:] for e in errors[:half]] == [e[1:] for e in errors[half:]]
    attack.note("telling an existing job by the error", f"{errors[0][2]} either way, same words")


def test_a_leaky_function_sees_no_other_s_row(
    secretive: psycopg.Connection, bob: psycopg.Connection, attack: Attack
) -> None:
    bob.execute("create table seen (x text)")
    bob.execute(
        "create function leak(x text) returns boolean language plpgsql cost 0.0000001 as"
        " $$ begin insert into public.seen values (x); return true; end $$"
    )
    for relation, column in (("job", "command"), ("run", "job"), ("change", "job"), ("jobs", "name"),
                             ("lane", "queue"), ("ledger", "job"), ("key", "key")):  # fmt: skip
        bob.execute(f"select from rowcron.{relation} where leak({column}::text)".encode())
    assert bob.execute("select x from seen").fetchall() == []
    attack.note("a cheap leaky function in WHERE", "row security comes first")


def test_keys_of_others_cannot_be_probed(
    secretive: psycopg.Connection, bob: psycopg.Connection, db: psycopg.Connection, attack: Attack
) -> None:
    job = only(db, "select id from rowcron.job")
    bob.execute("set lock_timeout = '5s'")
    with secretive.transaction():
        secretive.execute("select rowcron.enqueue('sesame', key => 'being taken')")
        for key in ("sesame", "free", "being taken"):
            error = attack.refused(
                bob,
                "insert into rowcron.run (job_id, job, owner, queue, kind, state, due_at, key,"
                f" key_expires_at) values ({job}, 'x', 'bob', 'q', 'sql', 'ready', now(), '{key}',"
                " now() + interval '1 day')",
                "RCNOJ",
            )
            assert key not in str(error)
    assert only(db, "select count(*) from rowcron.key") == 2


def test_a_name_in_an_open_transaction_of_another_delays_nobody(
    alice: psycopg.Connection, bob: psycopg.Connection, attack: Attack
) -> None:
    for owner in (alice, bob):
        owner.execute("set client_min_messages = error")
        owner.execute("insert into rowcron.job (name, command) values ('first', 'select 1')")
    bob.execute("set lock_timeout = '1ms'")
    with alice.transaction():
        alice.execute("insert into rowcron.job (name, command) values ('open', 'select 1')")
        bob.execute("insert into rowcron.job (name, command) values ('open', 'select 1')")
    attack.note("timing of unique names", "no lock is waited for: the index is by owner")


def test_notifications_and_activity_tell_nothing(
    secretive: psycopg.Connection, bob: psycopg.Connection, hands: Hands, attack: Attack
) -> None:
    bob.execute("listen rowcron")
    secretive.execute("set default_transaction_isolation = 'repeatable read'")  # always notifies
    secretive.execute("select rowcron.run_now('sesame')")
    secretive.execute("reset default_transaction_isolation")
    heard = list(bob.notifies(timeout=2, stop_after=1))
    assert [(n.channel, n.payload) for n in heard] == [("rowcron", "ready")]
    attack.note("listen rowcron", "that something became ready or was changed, not what or whose")
    add(secretive, "spy", "select count(*) from pg_stat_activity where usename = 'w_worker' and"
        " query <> '<insufficient privilege>'", queue="spy")  # fmt: skip
    for claimed in hands.claim():
        answer = hands.execute(claimed)
        if claimed["job"] == "spy":
            assert answer["result"] == {"count": 0}, answer
    attack.note("pg_stat_activity of the worker, from inside", "<insufficient privilege>")


def test_grants_of_connections_are_told_to_their_grantee_alone(
    db: psycopg.Connection, alice: psycopg.Connection, bob: psycopg.Connection, attack: Attack
) -> None:
    db.execute("select rowcron.grant_connection('payroll', 'alice')")
    call = "select rowcron._may_use_connection('alice', 'payroll')"
    assert only(alice, call) is True
    assert only(bob, call) is False
    attack.note("asking what connections another may use", "row security of connection_grant")
    error = attack.refused(
        bob,
        "insert into rowcron.job (name, command, connection) values ('x', 'vacuum', 'payroll')",
        "RCCON",
    )
    assert "alice" not in str(error)
    attack.refused(bob, "select rowcron.grant_connection('payroll', 'bob')", "RCOWN")
    attack.refused(
        bob, "insert into rowcron.connection_grant values ('payroll', 'bob', 'x')", "42501"
    )


def test_a_view_of_another_runs_with_the_job_s_owner_alone(
    alice: psycopg.Connection,
    bob: psycopg.Connection,
    connect: Connect,
    hands: Hands,
    attack: Attack,
) -> None:
    alice.execute("create table private (x int); insert into private values (1)")
    bob.execute("create view peep with (security_invoker = true) as select * from public.private")
    bob.execute("create view peep_as_bob as select * from public.private")
    add(bob, "job", "select * from peep")
    add(bob, "job2", "select * from peep_as_bob")
    for claimed in hands.claim():
        answer = hands.execute(claimed)
        assert answer["error"].startswith("42501")
        attack.note(
            f"{claimed['job']}: a view over another's table", answer["error"].splitlines()[0]
        )
