"""What a person at a terminal asks of the schema, with the rights of the role that is connected.

The worker's own module is `database.py`; it lives for weeks on asyncio. A command lives for one
question, so this one is a plain connection and loads nothing that it does not need. All rules are
the database's: here are only the questions.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import dict_row
from psycopg.types.datetime import TimestamptzLoader
from psycopg.types.json import set_json_loads
from psycopg.types.string import TextLoader

from rowcron.encoding import AS_THEY_ARE, CLIENT, must_be_raw
from rowcron.text import loads

# Whoever may create functions in a schema of the path could have ours call them.
OWN_PATH = "-c search_path=pg_catalog,pg_temp"
_READABLE = "-c datestyle=ISO -c intervalstyle=postgres"  # whatever a role or a database sets
Record = dict[str, Any]
Values = Sequence[Any] | Mapping[str, Any] | None


class _Instant(TimestamptzLoader):
    """`infinity` and years that Python has no datetime for stay as PostgreSQL writes them."""

    def load(self, data: Any) -> Any:
        try:
            return super().load(data)
        except psycopg.DataError:
            return bytes(data).decode()


def connect(
    conninfo: str, *, timeout: int = 10, encoding: str = CLIENT
) -> psycopg.Connection[Record]:
    """Connect; each statement commits by itself. Intervals come as text: a month is no timedelta.

    `timeout` is in seconds. Raises `psycopg.OperationalError`.
    """
    named = conninfo_to_dict(conninfo)
    usual: dict[str, str | int] = {"application_name": "rowcron", "connect_timeout": timeout}
    usual = {key: value for key, value in usual.items() if key not in named}
    plain = make_conninfo(conninfo, **usual, client_encoding=encoding)
    given = str(named.get("options") or os.environ.get("PGOPTIONS", ""))
    try:
        conn = _connect(make_conninfo(plain, options=f"{given} {OWN_PATH} {_READABLE}".strip()))
    except psycopg.OperationalError as error:
        if "startup parameter" not in str(error):
            raise
        conn = _connect(plain)  # a pooler, which knows no options
    if must_be_raw(conn):
        conn.close()
        return connect(conninfo, timeout=timeout, encoding=AS_THEY_ARE)
    # where a pooler drops options; of each client it knows the DateStyle
    if not (conn.info.parameter_status("DateStyle") or "ISO").startswith("ISO"):
        conn.execute("set datestyle = 'ISO'")
    conn.adapters.register_loader("timestamptz", _Instant)
    conn.adapters.register_loader("interval", TextLoader)
    set_json_loads(loads, conn)
    return conn


def _connect(conninfo: str) -> psycopg.Connection[Record]:
    return psycopg.Connection[Record].connect(
        conninfo, autocommit=True, prepare_threshold=None, row_factory=dict_row
    )


class Client:
    """One connection and the questions that the commands ask over it."""

    def __init__(self, conn: psycopg.Connection[Record]) -> None:
        self.conn = conn

    def rows(self, query: LiteralString | sql.Composed, values: Values = None) -> list[Record]:
        """Run one statement and return its rows."""
        cursor = self.conn.execute(query, values)
        return cursor.fetchall() if cursor.description else []

    def one(self, query: LiteralString | sql.Composed, values: Values = None) -> Record | None:
        """Run one statement and return its first row."""
        found = self.rows(query, values)
        return found[0] if found else None

    def call(self, function: str, named: Mapping[str, object]) -> list[Record]:
        """Call `rowcron.function(name => value, ...)` as a table."""
        arguments = sql.SQL(", ").join(
            sql.SQL("{} => {}").format(sql.Identifier(name), sql.Placeholder(name))
            for name in named
        )
        name = sql.Identifier("rowcron", function)
        return self.rows(
            sql.SQL("select * from {}({}) as answer").format(name, arguments), dict(named)
        )

    def value(self, function: str, named: Mapping[str, object]) -> Any:
        """Call a function that returns one value."""
        found = self.call(function, named)
        return next(iter(found[0].values())) if found else None

    def select(
        self,
        view: str,
        where: Sequence[tuple[LiteralString, object]],
        order: LiteralString,
        limit: int | None = None,
    ) -> list[Record]:
        """Read a view. `where` pairs a condition that holds one `%s` with its value."""
        query: sql.Composed = sql.SQL("select * from {} as v").format(
            sql.Identifier("rowcron", view)
        )
        values: list[object] = [value for _, value in where]
        if where:
            conditions = [sql.SQL(condition) for condition, _ in where]
            query += sql.SQL(" where ") + sql.SQL(" and ").join(conditions)
        query += sql.SQL(" order by ") + sql.SQL(order)
        if limit is not None:
            query += sql.SQL(" limit %s")
            values.append(limit)
        return self.rows(query, values)

    def change_job(self, owner: str | None, name: str, columns: Mapping[str, object]) -> int | None:
        """Change columns of a job (of one's own when `owner` is None); None if there is no such."""
        changes = sql.SQL(", ").join(
            sql.SQL("{} = %s").format(sql.Identifier(column)) for column in columns
        )
        query = sql.SQL(
            "update rowcron.job as j set {} where j.name = %s"
            " and j.owner = rowcron._role_named(coalesce(%s, current_user::text))"
            " returning j.id"
        ).format(changes)
        found = self.one(query, [*columns.values(), name, owner])
        return found["id"] if found else None
