"""Connections to the database: how they are made, and one that comes back when it is cut."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import AsyncConnection, Connection
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.types.numeric import Int8BinaryLoader
from psycopg.types.string import ByteaBinaryLoader

from rowcron.errors import Unavailable, translate
from rowcron.settings import BadSettings

NAME = "rowcron"
# A peer that vanished without a word is found out within half a minute.
_USUAL = {
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "25000",
}


def conninfo(url: str, option: str = "database-url") -> str:
    """Return libpq's connection string with our name and patience. Raises `BadSettings`."""
    try:
        given = conninfo_to_dict(url)
    except psycopg.ProgrammingError as error:
        raise BadSettings(
            f"option {option} cannot be read",
            detail=str(error).strip(),
            hint="postgresql://user@host:5432/database, or host=... dbname=... user=...",
        ) from None
    usual = {key: value for key, value in _USUAL.items() if key not in given}
    return make_conninfo(url, **usual, application_name=NAME)


async def connect(info: str, **options: Any) -> AsyncConnection[Any]:
    """Return a connection to a server that takes writes. Raises `Unavailable` and other errors."""
    try:
        connection = await AsyncConnection.connect(
            info, autocommit=True, prepare_threshold=None, **options
        )
    except psycopg.Error as error:
        raise translate(error) from error
    if is_standby(connection):
        await connection.close()
        raise Unavailable("the server is a standby, which takes no writes")
    return connection


def connect_in_thread(info: str, **options: Any) -> Connection[Any]:
    """Like `connect`, for a thread of its own."""
    try:
        connection = psycopg.connect(
            info, **{"autocommit": True, "prepare_threshold": None, **options}
        )
    except psycopg.Error as error:
        raise translate(error) from error
    if is_standby(connection):
        connection.close()
        raise Unavailable("the server is a standby, which takes no writes")
    return connection


def is_standby(connection: psycopg.BaseConnection[Any]) -> bool:
    """Return whether the server said, when it greeted us, that it is in recovery."""
    return connection.info.parameter_status("in_hot_standby") == "on"


class Link:
    """One connection, opened when it is first needed and again after it was cut.

    Nothing is kept in its session, so that it may as well be a transaction pooler's.
    """

    def __init__(self, info: str) -> None:
        self.info = info
        self._connection: AsyncConnection[Any] | None = None

    async def open(self) -> AsyncConnection[Any]:
        """Return the connection. Raises `Unavailable`."""
        if self._connection is not None and not self._connection.closed:
            return self._connection
        self._connection = connection = await connect(self.info)
        # The claim's values stay as the server sent them: most runs never look at them, and the
        # token only travels back.
        for name, loader in (
            ("uuid", ByteaBinaryLoader),
            ("jsonb", ByteaBinaryLoader),
            ("timestamptz", Int8BinaryLoader),
            ("interval", ByteaBinaryLoader),
        ):
            connection.adapters.register_loader(name, loader)
        return connection

    async def fetch(
        self, query: str, values: tuple[Any, ...] = (), row_factory: Any = None
    ) -> list[Any]:
        """Execute one statement and return its rows, binary where a loader is known.

        Raises what `errors.translate` makes of an error; its `in_doubt` is true when the connection
        was cut after the statement had been sent, so that it may have been carried out.
        """
        connection = await self.open()
        try:
            cursor = connection.cursor(
                binary=True, row_factory=row_factory or psycopg.rows.tuple_row
            )
            await cursor.execute(query, values)
            return await cursor.fetchall()
        except psycopg.Error as error:
            translated = translate(error)
            if connection.closed and isinstance(translated, Unavailable):
                translated.in_doubt = True
            raise translated from error

    async def close(self) -> None:
        """Close the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()
