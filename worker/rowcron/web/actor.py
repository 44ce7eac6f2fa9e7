"""As whom a request acts, and how it asks the database as that role.

A person's connections are logged in as the person, so PostgreSQL itself keeps them apart. A token
has no password: the process's own login, a member of the token's role, acts as that role for one
transaction. Both send nothing but the fixed statements of this package, with parameters.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from rowcron.web.connections import Connection, lets_in
from rowcron.web.pool import NotLetIn, Pool, SharedPool
from rowcron.web.problems import Refusal

Query = LiteralString | sql.Composed
Record = dict[str, Any]
TOKEN_LENGTH = 200
PATIENCE = 60.0  # seconds for which a role without any connection must be refused to be out


class NoRoom(Refusal):
    """PostgreSQL lets in no further connection of a role."""

    def __init__(self, role: str) -> None:
        super().__init__(
            503,
            f'PostgreSQL lets no further connection of "{role}" in at the moment',
            detail="The role, or the server, may have no more (connection limit, max_connections); "
            "or the role's password or LOGIN is gone.",
            hint="Try again in a moment.",
        )


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
    """A role that is logged in by itself.

    `own` is the address of the process's own login, which tells a role that is shut out from a
    server that is full; without it the login is that one, and never counts as shut out.
    """

    def __init__(self, role: str, pool: Pool, own: str | None = None) -> None:
        self.role = role
        self.pool = pool
        self.refused = False  # then its sessions count no more
        self._own = own
        self._shut_since: float | None = None

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        try:
            async with self.pool.connection() as connection:
                self._shut_since = None
                yield connection
        except NotLetIn as error:
            if self._own is None:
                raise
            if await self._is_shut_out(self._own):
                self.refused = True
                raise Refusal(
                    401,
                    f'PostgreSQL does not let "{self.role}" in any more',
                    hint="Sign in again.",
                    headers={"WWW-Authenticate": "Bearer"},
                ) from error
            raise NoRoom(self.role) from error

    async def _is_shut_out(self, own: str) -> bool:
        """Return whether it is more than want of room that keeps the role out."""
        now = time.monotonic()
        if self.pool.held:
            self._shut_since = None
            return False
        if self._shut_since is None:
            self._shut_since = now
        return now - self._shut_since >= PATIENCE and await lets_in(own)

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
    pool: SharedPool

    @asynccontextmanager
    async def ask(self) -> AsyncIterator[Asker]:
        """Begin a transaction as the token's role."""
        async with self.pool.lookups.connection() as connection:
            role = await self._role(connection)
        async with self.pool.connection_for(role) as connection:
            role = await self._role(connection)  # it may have ended while its request waited
            async with connection.transaction():
                asker = Asker(connection)
                await _become(asker, role)
                yield asker

    glance = ask

    async def _role(self, connection: Connection) -> str:
        # a transaction of its own: that the token was used is noted, whatever comes of it, and no
        # lock on the token keeps its revocation waiting for the request
        async with connection.transaction():
            return await self._look_up(Asker(connection))

    async def _look_up(self, asker: Asker) -> str:
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
                detail="There is none such, it was revoked or has expired, or its role may no "
                "longer log in.",
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
        quoted = sql.Identifier(role).as_string(None)
        raise Refusal(
            403,
            f'the web process may not act for role "{role}"',
            detail="Its own login is not a member of that role.",
            hint=f"As an administrator: grant {quoted} to the login of rowcron web.",
        ) from error


Actor = Login | Bearer
