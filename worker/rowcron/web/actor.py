"""As whom a request acts, and how it asks the database as that role.

A person's connections are logged in as the person, so PostgreSQL itself keeps them apart. A token
has no password: the process's own login, a member of the token's role, acts as that role for one
transaction. Both send nothing but the fixed statements of this package, with parameters.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from rowcron.web.pool import Connection, NotLetIn, Pool
from rowcron.web.problems import Refusal

Query = LiteralString | sql.Composed
Record = dict[str, Any]
TOKEN_LENGTH = 200


class Asker:
    """A transaction as some role."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.asked = 0  # statements

    async def rows(self, query: Query, values: Sequence[Any] | Record = ()) -> list[Record]:
        """Return the rows of one statement."""
        self.asked += 1
        async with self.connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(query, values or None)
            return await cursor.fetchall() if cursor.description else []

    async def one(self, query: Query, values: Sequence[Any] | Record = ()) -> Record | None:
        """Return the first row."""
        found = await self.rows(query, values)
        return found[0] if found else None

    async def value(self, query: Query, values: Sequence[Any] | Record = ()) -> Any:
        """Return the first column of the first row; None if there is none."""
        found = await self.one(query, values)
        return next(iter(found.values())) if found else None


class Login:
    """A role that is logged in by itself."""

    def __init__(self, role: str, pool: Pool) -> None:
        self.role = role
        self.pool = pool
        self.refused = False

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        try:
            async with self.pool.connection() as connection:
                yield connection
        except NotLetIn as error:
            self.refused = True  # its sessions count no more
            raise Refusal(
                401,
                f'PostgreSQL does not let "{self.role}" in any more',
                hint="Sign in again.",
                headers={"WWW-Authenticate": "Bearer"},
            ) from error

    @asynccontextmanager
    async def ask(self) -> AsyncIterator[Asker]:
        """Begin a transaction; it commits at the block's end, unless that fails."""
        async with self._connection() as connection, connection.transaction():
            yield Asker(connection)

    @asynccontextmanager
    async def glance(self) -> AsyncIterator[Asker]:
        """Ask single statements, each of its own."""
        async with self._connection() as connection:
            yield Asker(connection)


@dataclass(frozen=True)
class Bearer:
    """Whoever holds a token; its role is asked for with each transaction."""

    token: str
    pool: Pool

    @asynccontextmanager
    async def ask(self) -> AsyncIterator[Asker]:
        """Begin a transaction as the token's role."""
        async with self.pool.connection() as connection, connection.transaction():
            asker = Asker(connection)
            await _become(asker, await self._role(asker))
            yield asker

    glance = ask

    async def _role(self, asker: Asker) -> str:
        seal = hashlib.sha256(self.token.encode("utf-8", "surrogateescape")).digest()
        try:
            # the login may be one that inherits nothing
            await asker.rows("select set_config('role', 'rowcron_web', true)")
        except psycopg.errors.InvalidParameterValue:
            role = None
        except psycopg.errors.InsufficientPrivilege as error:
            raise Refusal(
                401,
                "tokens are not taken here",
                detail="The web process's own login is not a member of rowcron_web.",
                hint="As an administrator: grant rowcron_web to the login of rowcron web.",
                headers={"WWW-Authenticate": "Bearer"},
            ) from error
        else:
            role = await asker.value("select rowcron.token_role(%s)", (seal,))
        if role is None:
            raise Refusal(
                401,
                "the token is not valid",
                detail="There is none such, it was revoked, or it has expired.",
                hint="As your role, in psql: select rowcron.create_token('what it is for');",
                headers={"WWW-Authenticate": 'Bearer error="invalid_token"'},
            )
        return str(role)


async def _become(asker: Asker, role: str) -> None:
    try:
        await asker.rows("select set_config('role', %s, true)", (role,))
    except psycopg.Error as error:
        if error.sqlstate not in ("42501", "22023"):
            raise
        raise Refusal(
            403,
            f'the web process may not act for role "{role}"',
            detail="Its own login is not a member of that role.",
            hint=f"As an administrator: grant {role} to the login of rowcron web.",
        ) from error


Actor = Login | Bearer
