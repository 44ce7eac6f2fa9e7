"""What drivers make of a client's values: none, lists of lists."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

import node
from harness import Database

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
