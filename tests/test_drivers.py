"""What drivers make of a client's values: none, lists of lists, parameters without types."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

import node
from harness import WORKER, Database

Connect = Callable[[str], psycopg.Connection]
Ask = Callable[[str, str, list[Any]], Any]


@pytest.fixture
def ask(database: Database) -> Ask:
    """Node's pg, as any role: the answer to one statement."""
    place = {"host": str(database.server.base / "socket"), "database": database.name}
    return lambda role, text, values: node.query(place | {"user": role}, [(text, values)])[0]


@pytest.fixture
def job(alice: psycopg.Connection) -> str:
    """The name of a job of alice's."""
    alice.execute(
        "insert into rowcron.job (name, command, args) values ('job', 'select 1', %s)", [Jsonb([1])]
    )
    return "job"


def test_none_that_is_written_as_json_is_none(alice: psycopg.Connection, job: str) -> None:
    none = Jsonb(None)
    alice.execute("select rowcron.enqueue(%s, %s)", [job, none])
    alice.execute("select rowcron.run_now(%s, %s)", [job, none])
    alice.execute("select rowcron.enqueue_many(%s, %s)", [job, [none]])
    runs = "select count(*), count(args) from rowcron.active"
    assert alice.execute(runs).fetchone() == (3, 0)
    alice.execute("update rowcron.job set args = %s", [none])
    assert alice.execute("select args is null from rowcron.job").fetchone() == (True,)


def test_a_list_of_lists_is_not_taken_apart(ask: Ask, job: str) -> None:
    many = "select count(*) from rowcron.enqueue_many($1, $2)"
    refused = ask("alice", many, [job, [[1, 2], [3, 4]]])["error"]
    assert refused["code"] == "RCLIM"
    assert "list.map((args) => JSON.stringify(args))" in refused["hint"]
    assert ask("alice", many, [job, ["[1, 2]", "[3, 4]"]])["rows"] == [[2]]
    assert ask("alice", many, [job, [1, 2]])["error"]["code"] == "RCCMD"


def test_finish_is_called_by_name_where_parameters_have_no_types(
    ask: Ask, alice: psycopg.Connection, connect: Connect, job: str
) -> None:
    """By position the server cannot tell which of the two is meant; the hint can."""
    alice.execute("select rowcron.enqueue(%s)", [job])
    claim = "select run_id, token::text from rowcron.claim(gen_random_uuid(), 1)"
    run = connect(WORKER).execute(claim).fetchone()
    assert run is not None
    refused = ask(WORKER, "select rowcron.finish($1, $2, $3)", [*run, "well done"])["error"]
    assert refused["code"] == "RCLIM"
    answer = ask(WORKER, refused["hint"].rstrip(";"), [*run, "no luck"])
    assert answer["rows"] == [[True, "failed", None]]


@pytest.mark.parametrize("view", ["job", "jobs", "active", "run", "upcoming", "job_health"])
def test_an_owner_is_compared_as_its_comment_says(
    ask: Ask, alice: psycopg.Connection, job: str, view: str
) -> None:
    alice.execute("select rowcron.enqueue(%s)", [job])
    for condition in ("owner = $1::regrole", "owner::text = $1"):
        answer = ask("alice", f"select count(*) from rowcron.{view} where {condition}", ["alice"])
        assert answer["rows"] == [[1]]
    told = "select col_description(%s::regclass, attnum) from pg_attribute"
    told += " where attrelid = %s::regclass and attname = 'owner'"
    names = [f"rowcron.{view}"] * 2
    comment = alice.execute(told.encode(), names).fetchone()
    assert comment is not None
    assert "::regrole" in comment[0] or "compared as job.owner is" in comment[0]
