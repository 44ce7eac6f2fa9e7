# ruff: noqa: E501 -- the statements read better whole
"""A job and its session: what it finds, what it may do to it, and that the next job is safe."""

from __future__ import annotations

import psycopg
import pytest

from attack.conftest import Attack
from harness import Database
from test_execute import Hands, add, only
from workers import Jobs, Start, jobs, start

__all__ = ["jobs", "start"]


def test_args_are_the_first_parameter(alice: psycopg.Connection, hands: Hands) -> None:
    for number, (command, first) in enumerate(
        {
            "select $1 ->> 'n' as n": {"n": "7"},
            "select ($1 ->> 'n')::int + 1 as n; ": {"n": 8},
            "create table t (x int); insert into t select ($1 ->> 'n')::int returning x": None,
            "do $d$ begin execute 'select $1' using 1; perform $q$ $1 $q$; end $d$; select 1": None,
            "create function f(int) returns int language sql as 'select $1 + 1'; select f(1)": None,
            "select '$1' as n": {"n": "$1"},
            "prepare p (int) as select $1 + 1; execute p(1)": None,
            "with w as (select $1 as a) select a -> 'n' as n from w": {"n": 7},
        }.items()
    ):
        add(alice, f"job{number}", command, args='{"n": 7}')
        answer = hands.execute(hands.claim()[0])
        assert answer["outcome"] == "succeeded", (command, answer)
        if first is not None:
            assert answer["result"] == first, command
    assert only(alice, "select x from t") == 7


def test_the_owner_s_settings_hold_and_go(
    alice: psycopg.Connection, db: psycopg.Connection, database: Database, hands: Hands
) -> None:
    db.execute("create schema own authorization alice")
    for setting in [
        "work_mem = '3MB'", "search_path = own, public", "app.tenant = 'acme'",
        "statement_timeout = '1ms'", "rowcron.run_id = '999'", "timezone = 'Asia/Tokyo'",
        "log_statement = 'all'", "role = 'bob'", "client_encoding = 'latin1'",
        "exit_on_error = 'on'", "session_preload_libraries = 'nowhere'",
    ]:  # fmt: skip
        db.execute(f"alter role alice set {setting}")
    db.execute(f"alter role alice in database {database.name} set work_mem = '5MB'")
    show = (
        "select current_setting('work_mem') as m, current_setting('search_path') as p,"
        " current_setting('app.tenant', true) as t, current_setting('timezone') as z,"
        " current_setting('log_statement') as l, current_setting('client_encoding') as e,"
        " current_setting('statement_timeout') as s, current_user::text as u,"
        " current_setting('rowcron.run_id') <> '999' as r"
    )
    try:
        add(alice, "job", show)
        before = hands.session.execute(show.split(", current_setting('rowcron")[0]).fetchone()
        answer = hands.execute(hands.claim()[0], timeout=60000)
        assert answer["result"] == {
            "m": "5MB", "p": "own, public, pg_temp", "t": "acme", "z": "Asia/Tokyo", "l": "none",
            "e": "UTF8", "s": "1min", "u": "alice", "r": True,
        }, answer  # fmt: skip
        hands.session.execute("reset all")
        after = hands.session.execute(show.split(", current_setting('rowcron")[0]).fetchone()
        assert after is not None
        assert before is not None
        assert [v or None for v in after] == [v or None for v in before]
        db.execute("alter role alice reset all")
        db.execute("alter role alice set search_path = ''")
        db.execute(f"alter role alice in database {database.name} reset all")
        alice.execute("select rowcron.run_now('job')")
        assert hands.execute(hands.claim()[0])["result"]["p"] in ('"", pg_temp', "pg_temp")
        db.execute("alter role alice reset all")
        alice.execute("select rowcron.run_now('job')")
        assert hands.execute(hands.claim()[0])["result"]["p"] == '"$user", public, pg_temp'
    finally:
        db.execute("alter role alice reset all")
        db.execute(f"alter role alice in database {database.name} reset all")


KILLERS = {
    "pg_terminate_backend": "select pg_terminate_backend(pg_backend_pid())",
    "pg_cancel_backend": "select pg_cancel_backend(pg_backend_pid())",
    "all backends": "select pg_terminate_backend(pid) from pg_stat_activity",
}


@pytest.mark.parametrize("how", KILLERS)
def test_a_job_does_not_signal_backends(
    alice: psycopg.Connection, hands: Hands, attack: Attack, how: str
) -> None:
    add(alice, "job", KILLERS[how])
    answer = hands.execute(hands.claim()[0])
    assert answer["error"].startswith("42501"), answer
    attack.note(KILLERS[how], answer["error"].splitlines()[0])


GREEDY = {
    "ends its session": ("set exit_on_error = on; select 1 / 0", "lost"),
    "a hundred thousand notifications": (
        "select pg_notify('rowcron', n::text) from generate_series(1, 100000) as n", "succeeded"),
    "a result of 60 MB": ("select repeat('x', 60000000) as x", "succeeded"),
    "ten thousand notices": (
        "do $$ begin for n in 1..10000 loop raise notice '% %', n, repeat('x', 100); end loop; end $$",
        "succeeded"),
    "a lock on the jobs of all, for ever": (
        "lock table rowcron.job in access exclusive mode; select pg_sleep(600)", "failed"),
    "a debugger's messages": (
        "set client_min_messages = debug5; set debug_print_plan = on; select 1", "succeeded"),
}  # fmt: skip


@pytest.mark.parametrize("what", GREEDY)
def test_a_greedy_job_does_not_stop_the_others(
    jobs: Jobs, start: Start, attack: Attack, what: str
) -> None:
    command, outcome = GREEDY[what]
    start("--kind", "sql")
    timeout = "2 seconds" if outcome == "failed" else "10 seconds"
    run = jobs.run("sql", command, timeout=timeout, max_lost=1)
    entry = jobs.end(run, 60)
    assert entry["outcome"] == outcome, entry
    if what == "a result of 60 MB":
        assert entry["result"]["truncated"] is True
    assert jobs.end(jobs.run("sql", "select 1"), 60)["outcome"] == "succeeded"
    attack.note(what, f"{entry['outcome']} {entry['reason'] or ''}; the next job runs")


def test_temporary_files_are_bounded_by_the_worker_login_s_limit(
    alice: psycopg.Connection, db: psycopg.Connection, hands: Hands, attack: Attack
) -> None:
    db.execute("alter role w_worker set temp_file_limit = '1MB'")
    try:
        limited = Hands(lambda _: psycopg.connect(hands.session.info.dsn, autocommit=True))
        add(
            alice,
            "job",
            "set work_mem = '64kB'; select count(*) from"
            " (select n from generate_series(1, 500000) as n order by md5(n::text)) as s",
        )
        answer = limited.execute(limited.claim()[0])
        assert answer["error"].startswith("53400"), answer
        attack.note("fills temporary files", answer["error"].splitlines()[0])
        add(alice, "raise", "set temp_file_limit = -1")
        answer = limited.execute(limited.claim()[0])
        assert answer["error"].startswith("42501")
        limited.control.close()
        limited.session.close()
    finally:
        db.execute("alter role w_worker reset temp_file_limit")


def test_an_author_may_lock_the_table_of_jobs_and_delays_all_for_as_long(
    jobs: Jobs, start: Start, bob: psycopg.Connection, attack: Attack
) -> None:
    tried = attack("lock table rowcron.job in access exclusive mode, from psql")
    worker = start("--kind", "sql")
    job = jobs.add("sql", "select 1")
    with bob.transaction():
        bob.execute("lock table rowcron.job in access exclusive mode")
        assert bob.execute("select pg_sleep(1)").fetchone() == ("",)
        assert worker.process.poll() is None
    assert jobs.end(jobs.start(job))["outcome"] == "succeeded"
    tried.possible("DELETE on a table allows each LOCK TABLE; workers go on when it is released")
