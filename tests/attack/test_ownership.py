# ruff: noqa: E501 -- the statements read better whole
"""Nobody owns another's job, makes a job for another, or runs as somebody who is gone."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import sql

from attack.conftest import Attack, Connect
from harness import INSTALLER
from test_execute import Hands, add, only

FORGED = {
    "insert into rowcron.job (name, command, owner) values ('f', 'select 1', 'bob')": "RCOWN",
    "insert into rowcron.job (name, command, owner) values ('f', 'select 1', 'postgres')": "RCOWN",
    "insert into rowcron.job (name, command, owner) values ('f', 'x', 'rowcron_owner')": "RCOWN",
    "insert into rowcron.job (name, command, owner) values ('f', 'x', 'bob') returning id": "RCOWN",
    "insert into rowcron.job (name, command) values ('mine', 'x') on conflict (owner, name)"
    " do update set owner = 'bob'": "RCOWN",
    "insert into rowcron.job (name, command, owner) values ('his', 'x', 'bob') on conflict"
    " (owner, name) do update set command = 'evil'": "RCOWN",
    "update rowcron.job set owner = 'bob'": "RCOWN",
    "update rowcron.job set id = default": "RCOWN",
    "insert into rowcron.job (id, name, command) overriding system value values (-1, 'f', 'x')": "RCOWN",
    "set rowcron.handing_over = '1 bob'; update rowcron.job set owner = 'bob'": "RCOWN",
    "merge into rowcron.job as j using (values (1)) as v on true"
    " when matched then update set owner = 'bob'": "RCOWN",
    "merge into rowcron.job as j using (values (1)) as v on false when not matched then"
    " insert (name, command, owner) values ('f', 'x', 'bob')": "RCOWN",
    "select rowcron.schedule('f', command => 'x', owner => 'bob')": "RCOWN",
    "set session_replication_role = replica": "42501",
    "alter table rowcron.job disable trigger all": "42501",
    "alter table rowcron.job disable row level security": "42501",
    "set row_security = off; select * from rowcron.job": "42501",
    "create table child () inherits (rowcron.job)": "42501",
    "create trigger t before insert on rowcron.job for each row"
    " execute function suppress_redundant_updates_trigger()": "42501",
    "create rule r as on insert to rowcron.job do instead nothing": "42501",
    "create table planted (j bigint references rowcron.job)": "42501",
    "create policy p on rowcron.job using (true)": "42501",
    "truncate rowcron.job": "42501",
    "insert into rowcron.agenda (job_id, owner, queue, kind, enabled, high_water)"
    " values (1, 'bob', 'q', 'sql', true, now())": "42501",
    "insert into rowcron.run (job_id, job, owner, queue, kind, state, due_at) select id, name, 'bob',"
    " queue, kind, 'ready', now() from rowcron.job": "42501",
    "select rowcron.hand_over('mine', 'bob')": "RCOWN",
    "insert into rowcron.change (action, job, owner, new_values) values ('hand_over', 'his', 'bob',"
    ' \'{"owner": "alice"}\')': "RCNOJ",
    "insert into rowcron.change (action, changed_by) values ('hold', 'postgres')": "42501",
    "insert into rowcron.change (action, job) values ('update', 'his')": "RCOWN",
    "update rowcron.change set changed_by = 'bob'": "42501",
    "delete from rowcron.change": "42501",
}


@pytest.mark.filterwarnings("ignore")
def test_ownership_and_the_record_cannot_be_forged(
    alice: psycopg.Connection, bob: psycopg.Connection, db: psycopg.Connection, attack: Attack
) -> None:
    for owner, name in ((alice, "mine"), (bob, "his")):
        owner.execute("set client_min_messages = error")
        owner.execute(f"insert into rowcron.job (name, command) values ('{name}', 'select 1')")
    before = db.execute("select id, name, owner::text, command from rowcron.job").fetchall()
    changes = only(db, "select count(*) from rowcron.change")
    for statement, code in FORGED.items():
        attack.refused(alice, statement, code)
        alice.execute("reset all")
        assert (
            db.execute("select id, name, owner::text, command from rowcron.job").fetchall()
            == before
        )
    assert only(db, "select count(*) from rowcron.change") == changes
    with pytest.raises(psycopg.errors.FeatureNotSupported) as refused, alice.cursor() as cursor:  # noqa: SIM117
        with cursor.copy("copy rowcron.job (name, command) from stdin") as copy:
            copy.write_row(("copied", "select 1"))
    attack.note("copy rowcron.job from stdin", str(refused.value.diag.message_primary))
    # the way that chapter 110 names
    alice.execute("create temp table staged (name text, command text)")
    with alice.cursor() as cursor, cursor.copy("copy staged from stdin") as copy:
        copy.write_row(("copied", "select 1"))
    alice.execute("insert into rowcron.job (name, command) select name, command from staged")
    assert only(db, "select owner::text from rowcron.job where name = 'copied'") == "alice"


def sweep(db: psycopg.Connection) -> None:
    """What a worker's claim or heartbeat does once a minute."""
    with db.transaction():
        db.execute("set local role rowcron_owner")
        db.execute("select rowcron._pause_orphans()")


@pytest.fixture
def leaver(db: psycopg.Connection, connect: Connect) -> psycopg.Connection:
    """A role that owns a job and will be gone."""
    db.execute("drop role if exists leaver")
    db.execute("create role leaver login")
    db.execute("grant rowcron_user to leaver")
    owner = connect("leaver")
    owner.execute("set client_min_messages = error")
    return owner


def test_dropping_an_owner_is_refused_or_leaves_paused_jobs(
    db: psycopg.Connection,
    leaver: psycopg.Connection,
    bob: psycopg.Connection,
    hands: Hands,
    attack: Attack,
) -> None:
    db.execute("create table who (who text)")
    db.execute("grant insert on who to public")
    add(leaver, "job", "insert into public.who values (current_user)")
    attack.refused(db, "drop role leaver", "2BP01")
    db.execute("reassign owned by leaver to bob")
    add(bob, "other", "select 1")
    for claimed in hands.claim():
        answer = hands.execute(claimed)
        if claimed["job"] == "job":
            assert answer["error"].startswith("RCEXE")
            attack.note("reassign owned by leaver to bob", answer["error"].splitlines()[0])
        else:
            assert answer["outcome"] == "succeeded"
    sweep(db)
    assert only(db, "select enabled from rowcron.job where name = 'job'") is False
    assert only(bob, "select enabled from rowcron.job where name = 'other'") is True
    gate = (
        "select detail from rowcron.why_not_running('job', 'leaver') where gate = 'owner' and holds"
    )
    db.execute("create role looker")
    db.execute("grant rowcron_viewer to looker")
    assert only(leaver, gate) == "its owner's executor was dropped or changed hands"
    leaver.execute("select rowcron.resume('job')")  # an own update makes the executor anew
    leaver.execute("select rowcron.run_now('job')")
    assert hands.execute(hands.claim()[0])["outcome"] == "succeeded"
    db.execute("drop owned by leaver")
    leaver.close()
    db.execute("drop role leaver")
    db.execute("drop owned by looker")
    db.execute("drop role looker")
    sweep(db)
    assert only(db, "select enabled from rowcron.job where name = 'job'") is False
    reason = only(db, "select new_values ->> 'reason' from rowcron.change order by id desc limit 1")
    assert reason == "its owner was dropped"
    assert hands.claim() == []
    assert db.execute("select who from who").fetchall() == [("leaver",)]
    attack.note("drop owned by leaver; drop role leaver", f"job paused: {reason}")


def test_a_job_is_handed_over_by_a_member_of_both_alone(
    db: psycopg.Connection,
    alice: psycopg.Connection,
    bob: psycopg.Connection,
    hands: Hands,
    attack: Attack,
) -> None:
    db.execute("drop role if exists team")
    db.execute("create role team")
    db.execute("grant rowcron_user to team")
    run = add(alice, "job", "select current_user::text as who")
    attack.refused(alice, "select rowcron.hand_over('job', 'team')", "RCOWN")
    attack.refused(bob, "select rowcron.hand_over('job', 'bob', 'alice')", "RCNOJ")
    for name, detail in (
        ("nobody-of-that-name", "There is no such role."),
        ("postgres", "It is a superuser."),
        ("bob", '"alice" cannot SET ROLE to it.'),
    ):
        with pytest.raises(psycopg.Error) as refused:
            alice.execute("select rowcron.hand_over('job', %s)", (name,))
        assert (refused.value.sqlstate, refused.value.diag.message_detail) == ("RCOWN", detail)
    attack.refused(alice, "select rowcron.hand_over('job', 'postgres')", "RCOWN")
    db.execute("grant team to alice")
    try:
        (claimed,) = hands.claim()
        attack.refused(alice, "select rowcron.hand_over('job', 'team')", "RCLIM")
        assert hands.execute(claimed)["result"] == {"who": "alice"}
        run = only(alice, "select rowcron.run_now('job')")
        before = only(db, "select clock_timestamp()")
        alice.execute("select rowcron.hand_over('job', 'team')")
        assert only(alice, "select current_user::text || current_setting('role')") == "alicenone"
        assert only(db, "select owner::text from rowcron.run where id = %s", run) == "team"
        assert only(db, "select owner::text from rowcron.agenda") == "team"
        (claimed,) = hands.claim()
        assert hands.execute(claimed)["result"] == {"who": "team"}
        rows = db.execute(
            "select changed_by, action, owner::text, old_values ->> 'owner',"
            " new_values ->> 'owner' from rowcron.change"
            " where action = 'hand_over' or new_values ? 'owner' and action = 'update' order by id"
        ).fetchall()
        assert sorted(rows) == [
            ("alice", "hand_over", "alice", "alice", "team"),
            ("alice", "update", "team", "alice", "team"),
        ]
        was = "select (rowcron.job_as_of('job', %s)).owner::text"
        assert only(alice, was, before) == "alice"
        assert only(alice, "select (rowcron.job_as_of('job', clock_timestamp())).id is null")
        assert alice.execute("select * from rowcron.job").fetchall() == []
    finally:
        db.execute("drop owned by team")
        db.execute("drop role team")


def test_a_job_whose_owner_was_dropped_is_adopted_by_an_administrator_alone(
    db: psycopg.Connection,
    leaver: psycopg.Connection,
    connect: Connect,
    hands: Hands,
    attack: Attack,
) -> None:
    add(leaver, "job", "select current_user::text as who")
    hands.execute(hands.claim()[0])
    installer = connect(INSTALLER)
    db.execute("create role team; grant rowcron_user to team")
    db.execute("create role op login; grant rowcron_operator, team to op")
    operator = connect("op")
    try:
        db.execute(sql.SQL("grant team to {}").format(sql.Identifier(INSTALLER)))
        attack.refused(installer, "select rowcron.hand_over('job', 'team', 'leaver')", "RCNOJ")
        db.execute("drop owned by leaver")
        leaver.close()
        db.execute("drop role leaver")
        sweep(db)
        left = only(db, "select owner::text from rowcron.job")
        gate = "select hint from rowcron.why_not_running('job', %s) where gate = 'owner'"
        told = f"select rowcron.hand_over('job', new_owner, '{left}');"
        assert told in only(installer, gate, left)
        with pytest.raises(psycopg.Error) as refused:
            operator.execute("select rowcron.hand_over('job', 'team', %s)", (left,))
        assert refused.value.sqlstate == "RCNOJ"
        assert "of rowcron_owner and the new one" in str(refused.value.diag.message_hint)
        with pytest.raises(psycopg.Error) as refused:
            installer.execute("select rowcron.hand_over('job', 'alice', %s)", (left,))
        assert refused.value.diag.message_detail == f'"{INSTALLER}" cannot SET ROLE to it.'
        installer.execute("select rowcron.hand_over('job', 'team', %s)", (left,))
        operator.execute("select rowcron.resume('job', 'team')")
        operator.execute("select rowcron.run_now('job', owner => 'team')")
        assert hands.execute(hands.claim()[0])["result"] == {"who": "team"}
    finally:
        operator.close()
        db.execute("drop owned by team, op")
        db.execute("drop role team, op")


@pytest.mark.parametrize("heir", ["My-Role", 'odd "name"'])
def test_an_heir_s_name_may_hold_anything(
    db: psycopg.Connection, alice: psycopg.Connection, hands: Hands, heir: str
) -> None:
    role = sql.Identifier(heir)
    db.execute(sql.SQL("drop role if exists {0}; create role {0}").format(role))
    db.execute(sql.SQL("grant rowcron_user to {0}; grant {0} to alice").format(role))
    try:
        add(alice, "job", "select current_user::text as who")
        alice.execute("select rowcron.hand_over('job', %s)", (heir,))
        assert only(alice, "select current_setting('role')") == "none"
        (claimed,) = hands.claim()
        assert hands.execute(claimed)["result"] == {"who": heir}
    finally:
        db.execute(sql.SQL("drop owned by {0}; drop role {0}").format(role))


def test_a_job_is_told_as_it_was(alice: psycopg.Connection, bob: psycopg.Connection) -> None:
    alice.execute("set client_min_messages = error")
    marks = [only(alice, "select clock_timestamp()")]
    for change in [
        "insert into rowcron.job (name, schedule, command) values ('a', '@daily', 'select 1')",
        "update rowcron.job set command = 'select 2', description = 'x'",
        "update rowcron.job set name = 'b', schedule = null",
        "delete from rowcron.job",
        "insert into rowcron.job (name, command) values ('a', 'select 3')",
    ]:
        alice.execute(change.encode())
        marks.append(only(alice, "select clock_timestamp()"))
    query = "select j.command, j.schedule, j.description from rowcron.job_as_of(%s, %s) as j"
    told = [[alice.execute(query, [n, m]).fetchone() for m in marks] for n in ("a", "b")]
    none = (None, None, None)
    first, second = ("select 1", "@daily", None), ("select 2", "@daily", "x")
    third, last = ("select 2", None, "x"), ("select 3", None, None)
    assert told == [[none, first, second, none, none, last], [none, none, none, third, none, none]]
    query = "select (rowcron.job_as_of('a', %s, 'alice')).command"
    assert [only(bob, query, m) for m in marks] == [None] * 6, "nothing for others"


def test_args_are_measured_as_what_they_become(
    db: psycopg.Connection,
    alice: psycopg.Connection,
    bob: psycopg.Connection,
    hands: Hands,
    attack: Attack,
) -> None:
    """A number of twelve bytes is a text of 131 072 digits, and what is compressed looks small."""
    add(alice, "big", "select 1")
    alice.execute(
        "create table huge as select (select jsonb_agg(y) from (select"
        " (select jsonb_agg('1e131071'::jsonb) from generate_series(1, 30)) as y"
        " from generate_series(1, 300)) as s) as x; grant select on huge to public"
    )
    insert = (
        "insert into rowcron.run (job_id, job, owner, queue, kind, state, due_at, args)"
        " select id, name, owner, queue, kind, 'ready', now(), {} from rowcron.job"
    )
    ten = "(select jsonb_agg('1e131071'::jsonb) from generate_series(1, 10))"
    db.execute("grant rowcron_operator to bob")
    try:
        for author in (alice, bob):
            for args in ("(select x from huge)", ten):
                attack.refused(author, insert.format(args), "42501", "54000", "XX000", "53200")
            author.execute(insert.format("'[1e131071, 1e131071]'::jsonb").encode())
            author.execute(insert.format("""'{"a": 1}'::jsonb""").encode())
    finally:
        db.execute("revoke rowcron_operator from bob")
    claimed = hands.control.execute("select job from rowcron.claim(%s, 10)", (hands.id,))
    assert claimed.fetchall() == [("big",)] * 5


def test_what_is_asked_of_enrol_is_about_its_owner_alone(alice: psycopg.Connection) -> None:
    alice.execute(
        "insert into rowcron.change (action, owner, job, run_id, new_values)"
        " values ('enrol', 'alice', repeat('x', 100000), 7, '\"y\"')"
    )
    stored = alice.execute(
        "select job, run_id, new_values, changed_by from rowcron.change where action = 'enrol'"
    ).fetchall()
    assert stored == [(None, None, None, "alice")]


def test_enrol_resumes_what_the_database_has_paused_and_nobody_since(
    db: psycopg.Connection, alice: psycopg.Connection, connect: Connect
) -> None:
    alice.execute("set client_min_messages = error")
    alice.execute(
        "insert into rowcron.job (name, command)"
        " select name, 'select 1'"
        " from unnest('{hers,renamed,updated,operators,same}'::text[]) as name"
    )
    alice.execute("insert into rowcron.job (name, command, enabled) values ('off', 'x', false)")
    dropped = only(db, "select name from rowcron.executor where owner = 'alice'::regrole")
    db.execute(f"drop function rowcron_executor.{dropped}")
    sweep(db)
    assert only(db, "select count(*) from rowcron.job where enabled") == 0
    changes = "select count(*) from rowcron.change"
    before = only(db, changes)
    for _ in range(2):  # it says so once
        alice.execute("select rowcron.pause('hers'), rowcron.pause('off')")
    assert only(db, changes) == before + 1
    alice.execute("update rowcron.job set name = 'renamed again' where name = 'renamed'")
    alice.execute("update rowcron.job set enabled = false where name = 'updated'")
    alice.execute("update rowcron.job set command = command where name = 'same'")
    db.execute("create role op login; grant rowcron_operator to op")
    try:
        connect("op").execute("select rowcron.pause('operators', 'alice')")
    finally:
        db.execute("drop role op")
    alice.execute("select rowcron.enrol()")
    resumed = db.execute("select name from rowcron.job where enabled order by name").fetchall()
    assert resumed == [("renamed again",), ("same",)]
    signed = db.execute(
        "select job, changed_by from rowcron.change where new_values = '{\"enabled\": false}'"
        " order by id desc limit 3"
    ).fetchall()
    assert signed == [("operators", "op"), ("updated", "alice"), ("hers", "alice")]
