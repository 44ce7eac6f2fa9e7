# ruff: noqa: E501 -- the statements read better whole
"""What the server itself tells: its log, and its statistics."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from attack.conftest import Attack, Connect
from harness import SETTINGS, Database, TestServer, wait_until
from test_execute import Hands, add, only
from workers import Jobs, Start, jobs, start

__all__ = ["jobs", "start"]
VALUE = "s3cr3t-value-of-the-token"
FORGED = "2026-11-24 12:00:00.000 UTC [1] FATAL:  the administrator's password is needed"


class ServerLog:
    """What the server writes about one database from now on."""

    def __init__(self, server: TestServer) -> None:
        self.path = server.base / "log"
        self.start = self.path.stat().st_size

    def text(self) -> str:
        return self.path.read_bytes()[self.start :].decode()


@pytest.fixture
def log(server: TestServer, database: Database, db: psycopg.Connection) -> ServerLog:
    """The server's log, which tells as much as it can of this database."""
    for setting in (
        "log_statement = 'all'", "log_min_duration_statement = 0", "log_min_messages = 'debug1'",
        "log_min_error_statement = 'debug1'", "log_error_verbosity = 'verbose'",
        "log_parameter_max_length = -1", "log_parameter_max_length_on_error = -1",
        "session_preload_libraries = 'auto_explain'", "auto_explain.log_min_duration = 0",
        "auto_explain.log_nested_statements = on", "auto_explain.log_verbose = on",
    ):  # fmt: skip
        db.execute(f"alter database {database.name} set {setting}")
    return ServerLog(server)


def test_a_secret_s_value_is_in_no_line_of_the_server_s_log(
    jobs: Jobs, start: Start, log: ServerLog, attack: Attack
) -> None:
    jobs.db.execute("select rowcron.grant_secret('token', 'alice')")
    start("--kind", "sql,shell,http", ROWCRON_SECRET_TOKEN=VALUE)
    for kind, command, args in (
        ("shell", 'echo "${secret:token}"; echo "${secret:token}" | base64; exit 3', None),
        (
            "http",
            "http://127.0.0.1:1/${secret:token}\nX-A: ${secret:token}",
            {"a": "${secret:token}"},
        ),
    ):
        tried = attack(f"the value of a secret that a {kind} job was given, with all logging on")
        jobs.end(jobs.run(kind, command, **({"args": args} if args else {})))
        text = log.text()
        assert "finish" in text, "the log tells of the statements"
        assert VALUE not in text
        assert "czNjcjN0LXZhbHVl" not in text
        tried.stopped("the worker fills it in and blanks it before it reports; no statement has it")


def test_who_may_read_the_server_s_log_reads_what_jobs_do(
    jobs: Jobs, start: Start, log: ServerLog, bob: psycopg.Connection, attack: Attack
) -> None:
    start("--kind", "sql")
    jobs.end(jobs.run("sql", "select 'text of hers', $1 ->> 'a'", {"a": "args of hers"}))
    text = wait_until(lambda: log.text() if "text of hers" in log.text() else "", what="its text")
    assert "rowcron.execute(" in text
    attack("commands, args and claims' tokens in the server's log").possible(
        "with log_statement or auto_explain they stand there, as the statements of any client do;"
        " a token is worth nothing without the worker's login, and nothing after the run"
    )
    for statement in (
        "select pg_current_logfile()",
        "select pg_ls_logdir()",
        "select pg_read_file('log')",
        "copy (select 1) to program 'cat'",
        "set log_statement = 'none'",
        "set log_min_messages = 'panic'",
        "load 'auto_explain'",
        "set auto_explain.log_min_duration = -1",
    ):
        attack.refused(bob, statement, "42501")


def test_an_error_of_a_job_is_in_the_ledger_and_not_in_the_server_s_log(
    jobs: Jobs, start: Start, database: Database, server: TestServer, attack: Attack
) -> None:
    log = ServerLog(server)  # as it is usually set
    tried = attack("another owner's data in the server's log, by an error that quotes it")
    start("--kind", "sql")
    entry = jobs.end(jobs.run("sql", "select 'a value of hers'::integer"))
    assert "a value of hers" in entry["error"]
    assert "a value of hers" not in log.text()
    tried.stopped("execute catches the error, so that the server has none to log")


def test_a_job_forges_no_line_of_the_server_s_log(
    jobs: Jobs, start: Start, log: ServerLog, attack: Attack
) -> None:
    start("--kind", "sql")
    for what, command in {
        "a message": f"do $$ begin raise log E'x\n%', $q${FORGED}$q$; end $$",
        "a detail and a hint": f"do $$ begin raise log 'x' using detail = E'x\n' || $q${FORGED}$q$, hint = E'\n' || $q${FORGED}$q$; end $$",
        "a statement": f"select 1 /*\n{FORGED}\n*/",
        "the name of a missing table": f'select * from "x\n{FORGED[:50]}"',
        "application_name": f"set application_name = E'x\n' || {FORGED[:9]!r}; do $$ begin raise log 'y'; end $$",
        "application_name, by set_config": f"select set_config('application_name', E'x\n' || $q${FORGED}$q$, false)",
    }.items():
        tried = attack(f"a line feed and a forged line, in {what}")
        jobs.end(jobs.run("sql", command))
        lines = log.text().split("\n")
        assert not [line for line in lines if line.startswith(FORGED[:40])]
        tried.stopped("the server begins each further line of a message with a tab")
    assert [line for line in log.text().split("\n") if line.startswith(f"\t{FORGED}")]
    jobs.end(jobs.run("sql", "do $$ begin raise log E'a\rb \x1b[2J'; end $$"))
    assert "a\rb \x1b[2J" in log.text()
    attack("carriage returns and escape sequences in RAISE LOG").possible(
        "PostgreSQL writes them as they are, from any session: read its log with a pager that"
        " spells them out, or as jsonlog"
    )


def test_how_much_a_job_logs_is_not_bounded(
    jobs: Jobs, start: Start, log: ServerLog, attack: Attack
) -> None:
    start("--kind", "sql")
    command = "do $$ begin for n in 1..1000 loop raise log '%', repeat('x', 1000); end loop; end $$"
    assert jobs.end(jobs.run("sql", command))["outcome"] == "succeeded"
    assert log.text().count("x" * 1000) >= 1000
    attack("a job that fills the server's disk by RAISE LOG").possible(
        "who may execute anything may do so in PostgreSQL; its log's rotation is the bound"
    )


def test_statistics_tell_how_much_and_not_whose(
    alice: psycopg.Connection, bob: psycopg.Connection, db: psycopg.Connection, attack: Attack
) -> None:
    alice.execute("set client_min_messages = error")
    alice.execute("insert into rowcron.job (name, command) values ('sesame', 'select sesame')")
    alice.execute("select rowcron.run_now('sesame', '{\"say\": \"sesame\"}')")
    alice.execute("select pg_stat_force_next_flush()")
    db.execute("analyze")
    ours = "schemaname = 'rowcron' and relname"
    count = f"select n_tup_ins from pg_stat_user_tables where {ours} = 'job'"
    assert wait_until(lambda: only(bob, count), what="the count") == 1
    assert only(bob, "select reltuples from pg_class where oid = 'rowcron.job'::regclass") == 1
    for what in (
        "pg_stat_user_tables: rows inserted, changed, deleted, scans",
        "pg_statio_user_tables, pg_stat_user_indexes: blocks read, index scans",
        "pg_class.reltuples, relpages, pg_relation_size: about how many rows there are",
        "pg_stat_user_functions (track_functions): how often each function was called",
        "pg_sequences, ids: how many jobs and runs there have been",
        "pg_stat_database, pg_stat_wal: how busy the server is",
        "pg_locks: that somebody locks a table, and which process",
    ):
        attack(what).possible("PostgreSQL tells everybody how much; not whose, and no value")
    for view, schema in (
        ("pg_stats", "schemaname"),
        ("pg_stats_ext", "schemaname"),
        ("pg_stats_ext_exprs", "schemaname"),
    ):
        tried = attack(f"{view}: the commonest values of our columns")
        private = "tablename in ('job', 'run', 'ledger', 'change', 'key')"
        assert (
            only(bob, f"select count(*) from {view} where {schema} = 'rowcron' and {private}") == 0
        )
        tried.stopped("row security hides them")
    attack.refused(bob, "table pg_statistic", "42501")
    tried = attack("any view of statistics that shows a text of hers")
    views = bob.execute(
        "select c.oid::regclass::text from pg_class as c where c.relnamespace = 'pg_catalog'::regnamespace"
        " and c.relkind = 'v' and c.relname ~ '^pg_(stat|sequences|locks|cursors|prepared|indexes|views|settings)'"
        " and has_table_privilege(c.oid, 'select')"
    ).fetchall()
    looked = 0
    for (view,) in views:
        try:
            rows = bob.execute(f"select x::text from {view} as x".encode()).fetchall()
        except psycopg.Error:
            continue  # refused, or nothing is collected
        looked += 1
        assert not [text for (text,) in rows if "sesame" in text], view
    assert looked > 25
    tried.stopped(f"none of {looked} has it")


@pytest.fixture
def counting(server: TestServer) -> Iterator[Database]:
    """A database of a server that counts statements."""
    if not list(Path(server.bin).parent.glob("lib/**/pg_stat_statements.so")):
        pytest.skip("there is no pg_stat_statements")
    more = {"shared_preload_libraries": "pg_stat_statements", "pg_stat_statements.track": "all"}
    other = TestServer(server.bin, {**SETTINGS, **more})
    try:
        other.start()
        other.make_template()
        yield other.create_database()
    finally:
        other.stop()


def test_pg_stat_statements_shows_an_owner_its_own_texts(
    counting: Database, attack: Attack
) -> None:
    with (
        psycopg.connect(counting.url("postgres"), autocommit=True) as db,
        psycopg.connect(counting.url("alice"), autocommit=True) as alice,
        psycopg.connect(counting.url("bob"), autocommit=True) as bob,
        psycopg.connect(counting.url("w_worker"), autocommit=True) as control,
        psycopg.connect(counting.url("w_worker"), autocommit=True) as session,
    ):
        ends = iter((control, session))
        hands = Hands(lambda _: next(ends))
        db.execute("create extension pg_stat_statements")
        add(alice, "job", "select 1 as sesame")
        (claimed,) = hands.claim()
        assert hands.execute(claimed)["outcome"] == "succeeded"
        texts = "select query, userid::regrole::text from pg_stat_statements where query ~ %s"
        assert db.execute(texts, ["as sesame$"]).fetchall() == [("select $1 as sesame", "alice")]
        for who in (bob, control):
            tried = attack(f"the text of another's job in pg_stat_statements, as {who.info.user}")
            assert who.execute(texts, ["sesame"]).fetchall() == []
            tried.stopped("<insufficient privilege>; how often and how long is told to all")
        tried = attack("a claim's token in pg_stat_statements")
        assert db.execute(texts, [str(claimed["token"])]).fetchall() == []
        tried.stopped("constants and parameters are left out of its texts")


def test_the_seed_of_random_is_not_the_next_owner_s(
    alice: psycopg.Connection,
    bob: psycopg.Connection,
    hands: Hands,
    connect: Connect,
    attack: Attack,
) -> None:
    add(alice, "seed", "select setseed(0.5)")
    hands.execute(hands.claim()[0])
    add(bob, "draw", "select random() as x")
    drawn = hands.execute(hands.claim()[0])["result"]["x"]
    mine = connect("alice")
    mine.execute("select setseed(0.5)")
    tried = attack("foresee the next owner's random() by setseed()")
    assert drawn not in [
        row[0] for row in mine.execute("select random() from generate_series(1, 100)")
    ]
    tried.stopped("execute seeds it anew from the token, of which the job before knows nothing")
