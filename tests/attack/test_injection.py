"""Text of an author's in every column: stored as it is, executed nowhere, shown harmlessly."""

from __future__ import annotations

import psycopg
import pytest
from psycopg.types.json import Jsonb

from attack.conftest import Attack
from harness import Database
from test_execute import Hands, only
from workers import Jobs, Start, jobs, start

__all__ = ["jobs", "start"]

EVIL = [
    "%s %I %L %1$s %% %",
    "'; drop table rowcron.job; --",
    '"; reset role; --',
    "$executor$ $create$ $$ ; reset role; $$",
    "\\'; select pg_sleep(9); \\echo",
    "{0} {__class__} %(x)s ${HOME} $(id) `id`",
    "x' || (select 1) || '",
    "../../etc/passwd",
    "\u202egnp.exe",
]
COLUMNS = ("name", "queue", "timezone", "schedule", "description", "command", "connection", "kind")


@pytest.mark.parametrize("column", COLUMNS)
def test_text_is_data_in_each_column(
    alice: psycopg.Connection,
    db: psycopg.Connection,
    hands: Hands,
    attack: Attack,
    column: str,
) -> None:
    alice.execute("set client_min_messages = error")
    stored = 0
    for number, evil in enumerate(EVIL):
        row = {"name": f"job{number}", "command": "select 1", column: evil.replace(".", "")
               if column == "name" else evil}  # fmt: skip
        names, marks = ", ".join(row), ", ".join("%s" for _ in row)
        try:
            alice.execute(
                f"insert into rowcron.job ({names}) values ({marks})".encode(), list(row.values())
            )
        except psycopg.Error as error:
            if not (error.sqlstate or "").startswith("RC"):
                raise
            attack.note(f"{column} {evil!r}", f"{error.sqlstate} {error.diag.message_primary}")
            continue
        stored += 1
        assert (
            only(alice, f"select {column} from rowcron.job where name = %s", row["name"])
            == (row[column])
        )
        name = row["name"]
        run = only(alice, "select rowcron.run_now(%s, %s)", name, Jsonb({"x": evil}))
        alice.execute("select rowcron.enqueue(%s, key => %s)", [name, evil])
        alice.execute("select rowcron.pause(%s), rowcron.resume(%s)", [name, name])
        for query in ("why_not_running(%s)", "job_as_of(%s, now())", "schedule(%s, priority => 1)"):
            alice.execute(f"select * from rowcron.{query}".encode(), [name])
        for claimed in hands.claim(100):
            hands.execute(claimed)
        assert only(alice, "select count(*) from rowcron.history where run_id = %s", run) == 1
        alice.execute("select * from rowcron.jobs; select * from rowcron.upcoming")
        alice.execute("select rowcron.unschedule(%s)", [name])
    if stored:
        attack.note(f"{column}: {stored} texts", "stored as they are, executed nowhere")
    assert only(db, "select to_regclass('rowcron.job') is not null")
    assert only(hands.session, "select current_user::text") == "w_worker"


def test_control_characters_do_not_reach_a_terminal(
    jobs: Jobs, start: Start, alice: psycopg.Connection, attack: Attack
) -> None:
    for column in ("name", "queue"):
        attack.refused(
            alice,
            f"insert into rowcron.job (command, {column}) values ('select 1', E'a\\x1b[31mb')"
            if column == "name"
            else "insert into rowcron.job (name, command, queue) values ('j', 'x', E'a\\x1b[31mb')",
            "RCNAM",
        )
    worker = start("--kind", "sql")
    run = jobs.run("sql", "do $$ begin raise exception E'\\x1b]0;owned\\x07\\n\\x1b[2J'; end $$")
    jobs.end(run)
    worker.wait_for("end", run_id=run)
    job = only(alice, "select id from rowcron.job")
    forged = alice.execute(
        "insert into rowcron.run (job_id, job, owner, queue, kind, state, due_at)"
        " values (%s, E'forged\\x1b[2J', 'alice', 'default', 'sql', 'ready', now()) returning id",
        [job],
    ).fetchone()
    assert forged is not None
    worker.wait_for("end", run_id=forged[0])
    worker.stop()
    console = worker.console.read_bytes()
    assert b"owned" in console
    assert b"\x1b" not in console
    assert b"\x07" not in console
    attack.note("escape sequences in errors and names", "spelt out on the worker's console")


def test_huge_values_are_refused(
    alice: psycopg.Connection, database: Database, attack: Attack
) -> None:
    alice.execute("set client_min_messages = error")
    alice.execute("insert into rowcron.job (name, command) values ('job', 'select 1')")
    huge = "repeat('x', 3000000)"
    for column in ("name", "queue", "timezone", "schedule", "description", "command", "connection",
                   "kind"):  # fmt: skip
        attack.refused(alice, f"update rowcron.job set {column} = {huge}",
                       "RCNAM", "RCTZN", "RCSCH", "RCLIM", "RCCMD", "RCCON", "RCKND")  # fmt: skip
    attack.refused(alice, f"update rowcron.job set args = to_jsonb({huge})", "RCCMD")
    attack.refused(alice, f"select rowcron.run_now('job', to_jsonb({huge}))", "RCCMD")
    attack.refused(alice, f"select rowcron.enqueue('job', to_jsonb({huge}))", "RCCMD")
    attack.refused(alice, f"select rowcron.enqueue('job', key => {huge})", "RCKEY")
    attack.refused(
        alice,
        "insert into rowcron.run (job_id, job, owner, queue, kind, state, due_at)"
        f" select id, {huge}, owner, queue, kind, 'ready', now() from rowcron.job",
        "42501",
    )
