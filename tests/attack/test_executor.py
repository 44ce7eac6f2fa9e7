# ruff: noqa: E501 -- the statements read better whole
"""Inside an executor: no way out of the owner's skin, wherever the attempt is hidden."""

from __future__ import annotations

import psycopg
import pytest

from attack.conftest import Attack
from test_execute import Hands, add, only

BECOME = """
create table public.tries (place text, spelled text, who text, said text);
create function public.become(place text) returns integer language plpgsql as $$
declare
  spelled text;
begin
  foreach spelled in array array['reset role', 'set role none', 'set role w_worker',
    'set local role w_worker', 'set session role none', 'reset session authorization',
    'set session authorization default', 'set local session authorization default',
    'set session authorization w_worker', 'set role rowcron_owner', 'set role rowcron_gate',
    'select set_config(''role'', ''none'', false)', 'select set_config(''role'', ''w_worker'', true)',
    'select set_config(''session_authorization'', ''default'', true)',
    'do $d$ begin reset role; end $d$'] loop
    begin
      execute spelled;
      insert into public.tries values (place, spelled, current_user, 'went through');
    exception when others then
      insert into public.tries values (place, spelled, current_user, sqlstate);
    end;
  end loop;
  return 1;
end $$;
create function public.quietly(place text) returns integer language plpgsql immutable as $$
begin return public.become(place); end $$;
create function public.in_sql(place text) returns integer language sql
  as $$ select public.become(place) $$;
create function public.on_row() returns trigger language plpgsql as $$
begin perform public.become(tg_name); return null; end $$;
create table public.t (x integer);
"""
PLACES = {
    "the command": "select public.become('the command')",
    "do": "do $$ begin perform public.become('do'); end $$",
    "an SQL function": "select public.in_sql('an SQL function')",
    "a handler": "do $$ begin perform 1/0; exception when others then"
    " perform public.become('a handler'); end $$",
    "a trigger": 'create trigger "a trigger" after insert on t for each row'
    " execute function on_row(); insert into t values (1)",
    "a deferred trigger": 'create constraint trigger "a deferred trigger" after insert on t'
    " deferrable initially deferred for each row execute function on_row();"
    " insert into t values (1)",
    "a rule": "create rule r as on insert to t do also select public.become('a rule');"
    " insert into t values (1)",
    "a policy": "alter table t enable row level security; alter table t force row level security;"
    " create policy p on t using (true) with check (public.become('a policy') = 1);"
    " insert into t values (1)",
    "a default": "insert into t values (1);"
    " alter table t add y integer default public.become('a default')",
    "a generated column": "insert into t values (1);"
    " alter table t add y integer generated always as (public.quietly('a generated column')) stored",
    "an index": "insert into t values (1);"
    " create index on t (public.quietly('an index' || left(x::text, 0)))",
    "a domain": "create domain d as integer check (public.become('a domain') = 1); select 1::d",
    "a cast": "create type c as (x integer); create function to_c(integer) returns c language sql"
    " as $$ select row(public.become('a cast'))::c $$;"
    " create cast (integer as c) with function to_c(integer); select 1::c",
    "an operator": "create function op(integer, text) returns integer language sql"
    " as $$ select public.become($2) $$;"
    " create operator %%% (leftarg = integer, rightarg = text, function = op);"
    " select 1 %%% 'an operator'",
    "an aggregate": "create function add_up(integer, text) returns integer language sql"
    " as $$ select public.become($2) $$; create aggregate agg(text)"
    " (sfunc = add_up, stype = integer); select agg('an aggregate')",
    "a definer function": "create function inner_one() returns integer language sql"
    " security definer as $$ select public.become('a definer function') $$; select inner_one()",
    "a procedure": "create procedure p() language plpgsql"
    " as $$ begin perform public.become('a procedure'); end $$; call p()",
    "a materialized view": "create materialized view m as select public.become('a materialized view')",
    "a prepared statement": "prepare q as select public.become('a prepared statement'); execute q",
    "a cursor": "declare c cursor with hold for select public.become('a cursor'); fetch all from c",
}


@pytest.mark.parametrize("place", PLACES)
def test_no_role_is_left_from_any_hiding_place(
    alice: psycopg.Connection, hands: Hands, attack: Attack, place: str
) -> None:
    alice.execute(BECOME.encode())
    add(alice, "job", PLACES[place])
    answer = hands.execute(hands.claim()[0])
    tries = alice.execute("select spelled, who, said from public.tries").fetchall()
    if answer["outcome"] == "succeeded":
        assert len(tries) >= 15, (place, answer)
    else:  # refused as a whole, and without effect
        assert tries == []
    assert [t for t in tries if t[1] != "alice" or t[2] == "went through"] == []
    assert only(hands.session, "select current_user::text") == "w_worker"
    said = ", ".join(sorted({t[2] for t in tries})) or str(answer["error"]).splitlines()[0]
    attack.note(f"15 spellings of SET ROLE in {place}", f"{said}; still alice")


def test_an_event_trigger_is_not_an_owner_s_to_make(
    alice: psycopg.Connection, hands: Hands, attack: Attack
) -> None:
    alice.execute("create function ev() returns event_trigger language plpgsql as $$ begin end $$")
    add(alice, "job", "create event trigger e on ddl_command_end execute function ev()")
    answer = hands.execute(hands.claim()[0])
    assert answer["error"].startswith("42501")
    attack.note("create event trigger", answer["error"].splitlines()[0])


def test_nobody_calls_executors_or_verbs_with_guessed_tokens(
    alice: psycopg.Connection, bob: psycopg.Connection, hands: Hands, attack: Attack
) -> None:
    run = add(alice, "job", "select 1")
    (claimed,) = hands.claim()
    name = only(alice, "select name from rowcron.executor")
    for statement, code in {
        f"select rowcron_executor.{name}({run}, '{claimed['token']}')": "42501",
        f"select rowcron._claimed_command({run}, gen_random_uuid(), 'alice')": "RCCLM",
        f"select rowcron._claimed_command({run}, '{claimed['token']}', 'bob')": "RCCLM",
        f"select rowcron.execute({run}, '{claimed['token']}')": "42501",
        f"select rowcron.finish({run}, gen_random_uuid())": "RCCLM",
        "select rowcron.claim()": "42501",
        "select rowcron.heartbeat(gen_random_uuid())": "42501",
    }.items():
        attack.refused(bob, statement, code)
    attack.refused(hands.control, f"select rowcron.execute({run}, gen_random_uuid())", "RCCLM")
    assert hands.execute(claimed)["outcome"] == "succeeded"
    attack.refused(hands.control, f"select rowcron.execute({run}, '{claimed['token']}')", "RCCLM")
    attack.refused(hands.control, f"select rowcron.finish({run}, '{claimed['token']}')", "RCCLM")


@pytest.mark.parametrize("how", ["finish", "_succeed"])
def test_a_job_that_ends_its_own_run_has_failed_and_changed_nothing(
    alice: psycopg.Connection, hands: Hands, attack: Attack, how: str
) -> None:
    alice.execute("create table t (x integer)")
    add(
        alice,
        "job",
        f"insert into t values (1); select rowcron.{how}("
        "current_setting('rowcron.run_id')::bigint, current_setting('alice.token')::uuid"
        f"{', 1, null' if how == '_succeed' else ''})",
    )
    # the worker's statement shows the token to the job; here it is handed over by a setting
    (claimed,) = hands.claim()
    hands.session.execute(f"set alice.token = '{claimed['token']}'")
    answer = hands.execute(claimed)
    assert (answer["outcome"], answer["final"]) == ("failed", True)
    assert answer["error"].startswith("RCEXE")
    assert only(alice, "select count(*) from t") == 0
    assert alice.execute("select outcome, reason from rowcron.ledger").fetchall() == [
        ("failed", "error RCEXE")
    ]
    assert alice.execute("select * from rowcron.run").fetchall() == []
    attack.note(f"a job that calls {how} with its own token", answer["error"].splitlines()[0])


def test_an_executor_cannot_be_made_in_advance_or_by_another(
    alice: psycopg.Connection, bob: psycopg.Connection, attack: Attack
) -> None:
    attack.refused(bob, "create function rowcron_executor.run_x() returns int return 1", "42501")
    attack.refused(
        bob, "insert into rowcron.change (action, owner) values ('enrol', 'alice')", "RCOWN"
    )
    attack.refused(bob, "insert into rowcron.executor values ('alice', 'x', 2)", "42501")
    attack.refused(bob, "update rowcron.executor set name = 'x'", "42501")
    bob.execute("select rowcron.enrol()")
    assert only(bob, "select count(*) from rowcron.executor") == 1
    bob.execute("select rowcron.enrol()")
    assert only(bob, "select count(*) from rowcron.change where action = 'enrol'") == 1
    attack.refused(bob, "create function rowcron_executor.run_x() returns int return 1", "42501")
