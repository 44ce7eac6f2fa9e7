"""What holds for every object of the schema, so that nobody has to remember it."""

from __future__ import annotations

import psycopg
import pytest

SCHEMAS = "('rowcron', 'rowcron_executor')"

UNCOMMENTED = {
    "relations": """
        select format('%s %s', c.relkind, c.oid::regclass)
        from pg_class as c
        where c.relnamespace::regnamespace::text in {schemas} and c.relkind in ('r', 'p', 'v', 'm')
          and not c.relispartition and obj_description(c.oid, 'pg_class') is null
        """,
    "columns of tables": """
        select format('%s.%s', c.oid::regclass, a.attname)
        from pg_class as c
        join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        where c.relnamespace::regnamespace::text in {schemas} and c.relkind in ('r', 'p')
          and not c.relispartition and col_description(c.oid, a.attnum) is null
        """,
    "functions": """
        select p.oid::regprocedure::text
        from pg_proc as p
        where p.pronamespace = 'rowcron'::regnamespace
          and obj_description(p.oid, 'pg_proc') is null
        """,
    "types and domains": """
        select format('%s %s', t.typtype, t.oid::regtype)
        from pg_type as t
        left join pg_class as c on c.oid = t.typrelid
        where t.typnamespace::regnamespace::text in {schemas}
          and (t.typtype in ('d', 'e', 'r') or c.relkind = 'c')
          and obj_description(t.oid, 'pg_type') is null
          and obj_description(c.oid, 'pg_class') is null
        """,
    "schemas": "select nspname from pg_namespace as n where nspname in {schemas}"
    " and obj_description(oid, 'pg_namespace') is null",
}


def names(conn: psycopg.Connection, query: str, *arguments: object) -> list[str]:
    statement = query.replace("{schemas}", SCHEMAS).encode()
    return sorted(str(row[0]) for row in conn.execute(statement, arguments or None))


@pytest.fixture
def used(db: psycopg.Connection, alice: psycopg.Connection) -> psycopg.Connection:
    """A database in which an owner has a job, so that executors and partitions exist."""
    alice.execute("insert into rowcron.job (name, schedule, command) values ('a', '@daily', 'x')")
    return db


@pytest.mark.parametrize("kind", UNCOMMENTED)
def test_everything_has_a_comment(used: psycopg.Connection, kind: str) -> None:
    assert names(used, UNCOMMENTED[kind]) == []


def test_comments_begin_with_a_sentence_not_with_a_name(db: psycopg.Connection) -> None:
    found = names(
        db,
        "select p.proname from pg_proc as p where p.pronamespace::regnamespace::text in {schemas}"
        " and obj_description(p.oid, 'pg_proc') !~ '^.{15}'",
    )
    assert found == []


def test_every_function_pins_its_search_path_and_ends_it_in_pg_temp(
    used: psycopg.Connection,
) -> None:
    """But one that was parsed when it was created: it looks up no name when it is called."""
    loose = names(
        used,
        """
        select p.oid::regprocedure::text
        from pg_proc as p
        where p.pronamespace::regnamespace::text in {schemas} and p.prosqlbody is null
          and not exists (
            select from unnest(p.proconfig) as c(setting)
            where c.setting ~ '^search_path=.*pg_temp"?$'
          )
        """,
    )
    assert loose == []


def test_no_function_names_a_zone_in_a_session_whose_zone_may_redefine_it(
    db: psycopg.Connection,
) -> None:
    """Since 18 the abbreviations of the session's zone come first: `UTC`, in a session in UTC+3."""
    loose = names(
        db,
        """
        select p.oid::regprocedure::text
        from pg_proc as p
        where p.pronamespace::regnamespace::text in {schemas}
          and p.prosrc ~ 'at time zone(?! interval ''0'')'
          and not coalesce('TimeZone=UTC' = any (p.proconfig), false)
        """,
    )
    assert loose == []


def test_no_function_is_executable_by_strangers(used: psycopg.Connection) -> None:
    used.execute("create role stranger")
    try:
        found = names(
            used,
            "select p.oid::regprocedure::text from pg_proc as p"
            " where p.pronamespace::regnamespace::text in {schemas}"
            " and has_function_privilege('stranger', p.oid, 'execute')",
        )
        assert found == []
        tables = names(
            used,
            "select c.oid::regclass::text from pg_class as c"
            " where c.relnamespace::regnamespace::text in {schemas} and c.relkind in"
            " ('r', 'p', 'v', 'm') and has_any_column_privilege('stranger', c.oid, 'select')",
        )
        assert tables == []
        assert (
            names(
                used,
                "select nspname from pg_namespace where nspname in {schemas}"
                " and has_schema_privilege('stranger', oid, 'create')",
            )
            == []
        )
    finally:
        used.execute("drop role stranger")


def test_no_role_of_rowcron_is_mighty(db: psycopg.Connection) -> None:
    found = names(
        db,
        "select rolname from pg_roles where rolname ~ '^rowcron_' and (rolsuper or rolcreaterole"
        " or rolcreatedb or rolreplication or rolbypassrls or rolcanlogin)",
    )
    assert found == []


def test_definer_functions_belong_to_the_owner_the_gate_or_an_owner_of_jobs(
    used: psycopg.Connection,
) -> None:
    found = names(
        used,
        """
        select p.oid::regprocedure::text || ' of ' || p.proowner::regrole::text
        from pg_proc as p
        where p.pronamespace::regnamespace::text in {schemas} and p.prosecdef
          and p.proowner::regrole::text not in ('rowcron_owner', 'rowcron_gate')
          and p.pronamespace::regnamespace::text <> 'rowcron_executor'
        """,
    )
    assert found == []


def test_private_functions_are_nobody_s_to_call(db: psycopg.Connection) -> None:
    """Private ones may be granted where row security or a trigger needs them, never to a stranger;
    a worker calls public ones only."""
    found = names(
        db,
        "select p.oid::regprocedure::text from pg_proc as p"
        " where p.pronamespace = 'rowcron'::regnamespace and p.proname like '\\_%%'"
        " and has_function_privilege('rowcron_worker', p.oid, 'execute')",
    )
    assert found == []


def test_constraints_are_named_by_hand(db: psycopg.Connection) -> None:
    """PostgreSQL's own names for checks end in _check and a number, or repeat the column."""
    found = names(
        db,
        "select format('%%s: %%s', conrelid::regclass, conname) from pg_constraint"
        " where connamespace::regnamespace::text in {schemas} and contype = 'c'"
        " and conname ~ '_check[0-9]*$'",
    )
    assert found == []


def test_every_function_compiles_with_all_extra_checks(used: psycopg.Connection) -> None:
    """plpgsql's own: `create or replace` of each function, shadowed variables being errors."""
    rows = used.execute(
        "select p.oid::regprocedure::text, pg_get_functiondef(p.oid) from pg_proc as p"
        " where p.pronamespace = 'rowcron'::regnamespace and p.prokind in ('f', 'p')"
    ).fetchall()
    assert len(rows) > 30
    used.execute("set plpgsql.extra_errors = 'shadowed_variables'")
    with used.transaction(force_rollback=True):
        for _, definition in rows:
            used.execute(definition.encode())


def test_plpgsql_check_finds_nothing(used: psycopg.Connection) -> None:
    """Where the server has the extension (Debian's PostgreSQL 15); the test above runs anywhere."""
    available = "select from pg_available_extensions where name = 'plpgsql_check'"
    if used.execute(available.encode()).fetchone() is None:
        assert used.info.server_version >= 160000, "apt-get install postgresql-15-plpgsql-check"
        return
    used.execute("create extension plpgsql_check")
    found = names(
        used,
        """
        select format('%s, line %s: %s [%s] %s', c.functionid, c.lineno, c.message, c.level, c.hint)
        from pg_proc as p
        join pg_language as l on l.oid = p.prolang and l.lanname = 'plpgsql'
        left join pg_trigger as t on t.tgfoid = p.oid and t.tgparentid = 0
        cross join lateral plpgsql_check_function_tb(
          p.oid, coalesce(t.tgrelid, 0), oldtable => t.tgoldtable, newtable => t.tgnewtable,
          extra_warnings => false, performance_warnings => false
        ) as c
        where p.pronamespace = 'rowcron'::regnamespace
          and (t.oid is not null or p.prorettype <> 'trigger'::regtype)
          -- other warnings are of taste: a parameter "from", arrays that are cast by their text
          and (c.level = 'error' or c.message ~ '^(unused|never)')
        """,
    )
    assert found == []


def test_literals_mean_the_same_whatever_a_session_sets(used: psycopg.Connection) -> None:
    """An owner's job may set it in the worker's session, and functions are read there once."""
    used.execute("set standard_conforming_strings = off; set escape_string_warning = on")
    notices: list[str] = []
    used.add_notice_handler(lambda notice: notices.append(notice.message_primary or ""))
    used.execute(r"select 'a\\b'")
    assert notices == [r"nonstandard use of \\ in a string literal"]
    sources = used.execute(
        "select oid::regprocedure::text, pg_get_functiondef(oid) from pg_proc"
        " where pronamespace = 'rowcron'::regnamespace and prokind = 'f'"
    ).fetchall()
    assert len(sources) > 150
    for name, source in sources:
        del notices[:]
        used.execute("begin")
        used.execute(source.encode())
        used.execute("rollback")
        assert notices == [], name


def test_a_schedule_is_read_the_same_under_old_strings(alice: psycopg.Connection) -> None:
    alice.execute("set standard_conforming_strings = off")
    alice.execute(
        "insert into rowcron.job (name, kind, command)"
        " values ('old', 'sql', 'select 1'), ('comment', 'sql', '-- first E''\\n select 2')"
    )
    for schedule in ("*/5 * * * *", "H(0-29) 3 L-3 * 5#3", "@every 90 seconds"):
        alice.execute("select rowcron.schedule('old', %s)", (schedule,))
        alice.execute("select rowcron.explain(%s)", (schedule,))


def test_calendar_functions_work_in_parallel_plans(alice: psycopg.Connection) -> None:
    alice.execute(
        "create table wish as"
        " select '@every 5 minutes'::text as schedule from generate_series(1, 20000)"
    )
    alice.execute(
        "set parallel_setup_cost = 0; set parallel_tuple_cost = 0;"
        " set min_parallel_table_scan_size = 0; set max_parallel_workers_per_gather = 2"
    )
    alice.execute("analyze wish")
    alice.execute("create function wished(text) returns int parallel safe return 1")
    plan = alice.execute("explain select count(*) from wish where wished(schedule) = 1").fetchall()
    assert any("Parallel" in line for (line,) in plan)
    for call in (
        "rowcron.next_run(schedule, '2027-01-01') < '2026-01-01'",
        "rowcron.next_run('0 3 * * *', '2027-01-01', left(schedule, 0) || 'Europe/Berlin') is null",
        "rowcron.explain(schedule) = 'never'",
    ):
        count = alice.execute(f"select count(*) from wish where {call}".encode()).fetchone()
        assert count == (0,)
    alice.execute("drop table wish; drop function wished")
