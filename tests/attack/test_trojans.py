# ruff: noqa: E501 -- the statements read better whole
"""Functions, operators, casts and types that take the place of those that we, or others, mean."""

from __future__ import annotations

import psycopg
import pytest

from attack.conftest import Attack
from harness import Database
from test_execute import Hands, add, only

# What a statement of ours might call if a path of somebody else's were looked at.
FUNCTIONS = {
    "quote_ident": "text", "quote_literal": "text", "current_setting": "text", "set_config": "text, text, boolean",
    "format": "text, text", "concat_ws": "text, text, text", "to_jsonb": "record", "md5": "text",
    "clock_timestamp": "", "now": "", "pg_has_role": "name, name, text", "pg_backend_pid": "",
    "lower": "text", "length": "text", "coalesce_x": "text", "jsonb_strip_nulls": "jsonb",
    "pg_notify": "text, text", "pg_advisory_unlock_all": "", "array_length": "anyarray, integer",
}  # fmt: skip
OPERATORS = [("=", "text"), ("=", "bigint"), ("=", "oid"), ("<=", "bigint"), ("+", "bigint"), ("-", "bigint"),
             ("~", "text"), ("||", "text"), ("<", "timestamptz"), ("<=", "timestamptz"), ("->>", "jsonb")]  # fmt: skip
RETURNS = {"=": "boolean", "<=": "boolean", "<": "boolean", "~": "boolean"}


def plant(owner: psycopg.Connection, schema: str) -> int:
    """Put a trojan for each of them into a schema; each writes down who called it."""
    owner.execute("create table if not exists public.caught (who text, by text)")
    owner.execute("grant insert on public.caught to public")
    body = (
        "language plpgsql as $$ begin insert into public.caught values (current_user, '{0}');"
        " return null; end $$"
    )
    planted = 0
    for name, arguments in FUNCTIONS.items():
        returns = "timestamptz" if name in ("now", "clock_timestamp") else "text"
        owner.execute(
            f'create function {schema}."{name}"({arguments}) returns {returns} {body.format(name)}'.encode()
        )
        planted += 1
    for symbol, of in OPERATORS:
        name = f"op_{planted}"
        returns = RETURNS.get(symbol, of)
        owner.execute(
            f"create function {schema}.{name}({of}, {of}) returns {returns} {body.format(symbol)};"
            f" create operator {schema}.{symbol} (leftarg = {of}, rightarg = {of}, function = {schema}.{name})".encode()
        )
        planted += 1
    for kind in ("regrole", "text", "record", "bigint", "jsonb", "interval", "job", "run"):
        owner.execute(f'create type {schema}."{kind}" as (x integer)'.encode())
        planted += 1
    owner.execute(
        f"create type {schema}.mine as (x text);"
        f" create function {schema}.to_mine(text) returns {schema}.mine {body.format('cast')};"
        f" create cast (text as {schema}.mine) with function {schema}.to_mine(text) as implicit;"
        f" create function {schema}.from_mine({schema}.mine) returns text {body.format('cast')};"
        f" create cast ({schema}.mine as text) with function {schema}.from_mine({schema}.mine) as implicit".encode()
    )
    owner.execute(f"grant usage on schema {schema} to public")
    return planted + 2


def work(connection: psycopg.Connection, name: str) -> None:
    """Use all of rowcron that an author uses."""
    connection.execute(
        f"select rowcron.schedule('{name}', '@daily', 'select 1 as one'), rowcron.schedule('{name}', priority => 2);"
        f" insert into rowcron.job (name, command) values ('{name}2', 'select 2 as two');"
        f" update rowcron.job set queue = 'q' where name operator(pg_catalog.=) '{name}2';"
        f" select rowcron.pause('{name}'), rowcron.resume('{name}'), rowcron.run_now('{name}');"
        f" select rowcron.enqueue('{name}', key => 'k'), rowcron.enqueue('{name}', key => 'k');"
        f" select rowcron.job_as_of('{name}', pg_catalog.now()); select * from rowcron.why_not_running('{name}');"
        " select rowcron.explain('0 3 * * mon-fri'), rowcron.next_run('@daily');"
        " table rowcron.jobs; table rowcron.upcoming; table rowcron.active; table rowcron.history;"
        " table rowcron.job_health; table rowcron.workers; table rowcron.queue_health;"
        f" select rowcron.cancel(rowcron.run_now('{name}2')); select rowcron.unschedule('{name}2')"
    )


@pytest.mark.parametrize("path", ["alice, pg_catalog, public", "alice, public"])
def test_trojans_in_a_schema_catch_nobody_whose_path_names_it_first(
    alice: psycopg.Connection,
    bob: psycopg.Connection,
    db: psycopg.Connection,
    hands: Hands,
    attack: Attack,
    path: str,
) -> None:
    db.execute("create schema alice authorization alice")
    planted = plant(alice, "alice")
    db.execute("grant rowcron_operator to bob")
    add(alice, "job", "select current_user::text as who")
    add(bob, "his", "select current_user::text as who")
    try:
        for who, connection in (
            ("bob", bob),
            ("w_worker", hands.control),
            ("w_worker", hands.session),
        ):
            tried = attack(
                f"{planted} trojans in the schema that {who}'s path, {path}, names first"
            )
            connection.execute(f"set search_path = {path}")
            if who == "bob":
                work(connection, "work")
            elif connection is hands.session:
                found = [hands.execute(claimed) for claimed in hands.claim()]
                assert {
                    a["result"]["who"] for a in found if a["result"] and "who" in a["result"]
                } == {"alice", "bob"}
                assert {a["outcome"] for a in found} == {"succeeded"}, found
            assert db.execute("select distinct who from public.caught").fetchall() == []
            tried.stopped("the paths of our functions are pinned, views and triggers are bound")
    finally:
        db.execute("revoke rowcron_operator from bob")


def test_an_owner_s_path_lends_its_trojans_to_the_owner_alone(
    alice: psycopg.Connection, db: psycopg.Connection, hands: Hands, attack: Attack
) -> None:
    db.execute("create schema alice authorization alice")
    planted = plant(alice, "alice")
    tried = attack(f"{planted} trojans in the schema that the owner's own path names first")
    db.execute("alter role alice set search_path = 'alice', 'pg_catalog'")
    try:
        add(
            alice,
            "job",
            "select quote_ident('x'), current_setting('rowcron.run_id'), 1::pg_catalog.int8 + 1",
        )
        (claimed,) = hands.claim()
        answer = hands.execute(claimed)
        assert answer["outcome"] == "succeeded", answer
    finally:
        db.execute("alter role alice reset search_path")
    caught = db.execute("select distinct who, by from public.caught order by by").fetchall()
    assert {who for who, _ in caught} == {"alice"}
    assert ("alice", "quote_ident") in caught
    assert ("alice", "set_config") not in caught, "what the executor itself calls is qualified"
    assert only(hands.session, "select current_user::text") == "w_worker"
    tried.possible("they run for the job's own text, as the owner; nothing of ours calls them")


def test_ours_cannot_be_shadowed_or_overloaded(
    alice: psycopg.Connection, db: psycopg.Connection, database: Database, attack: Attack
) -> None:
    for statement, codes in {
        "create schema rowcron": "42501 42P06",
        "alter schema rowcron rename to gone": "42501",
        "create function rowcron.run_now(name) returns bigint language sql as 'select 1::bigint'": "42501",
        "create function rowcron.enqueue(text, text) returns bigint language sql as 'select 1::bigint'": "42501",
        "create operator rowcron.= (leftarg = text, rightarg = text, function = texteq)": "42501",
        "create type rowcron.mine as (x integer)": "42501",
        "create cast (text as bigint) with inout as implicit": "42501 42710",
        "create cast (text as regrole) with inout as implicit": "42501 42710",
        "create cast (rowcron.job as text) with inout as implicit": "42501",
        "create cast (name as jsonb) with inout as assignment": "42501",
        "drop cast (text as regclass)": "42501",
        "create operator class public.x default for type text using btree as operator 1 <": "42501",
        "alter table rowcron.job add constraint c check (public.evil(name))": "42501",
        "create trigger t before insert on rowcron.job for each row execute function suppress_redundant_updates_trigger()": "42501",
        "create rule r as on insert to rowcron.job do also select 1": "42501",
        "create policy p on rowcron.job using (true)": "42501",
        "create index on rowcron.job ((public.evil(name)))": "42501",
        "create table public.child () inherits (rowcron.job)": "42501",
        "create table public.part partition of rowcron.ledger default": "42501",
        "create function pg_catalog.quote_ident(integer) returns text language sql as 'select 1::text'": "42501",
        "create table pg_catalog.t (x integer)": "42501",
    }.items():
        attack.refused(alice, statement, *codes.split())
    db.execute(f"grant create on database {database.name} to alice")
    attack.refused(alice, "create schema rowcron", "42P06")
    attack.refused(alice, "create schema pg_rowcron", "42939")
    attack.refused(alice, "alter schema rowcron rename to gone", "42501")


def test_a_domain_s_check_and_a_cast_run_as_the_owner(
    alice: psycopg.Connection, db: psycopg.Connection, hands: Hands, attack: Attack
) -> None:
    alice.execute(
        "create table public.caught (who text); grant insert on public.caught to public;"
        "create function public.see(text) returns boolean language plpgsql as $$ begin"
        " insert into public.caught values (current_user); return true; end $$;"
        "create domain public.seen as text check (public.see(value));"
        "create domain public.seen_json as jsonb check (public.see(value::text));"
        "grant usage on type public.seen, public.seen_json to public"
    )
    tried = attack("a domain whose check tells who looks, as name, args and result of a job")
    alice.execute(
        "insert into rowcron.job (name, command, args) values ('job'::public.seen,"
        " 'select ''x''::public.seen as x', '{}'::jsonb::public.seen_json)"
    )
    alice.execute("select rowcron.run_now('job'::public.seen)")
    (claimed,) = hands.claim()
    assert hands.execute(claimed)["result"] == {"x": "x"}
    db.execute("table rowcron.history; table rowcron.jobs")
    assert {who for (who,) in db.execute("select who from public.caught")} == {"alice"}
    tried.stopped(
        "values lose their domain in our columns; a result is made JSON inside the executor"
    )
