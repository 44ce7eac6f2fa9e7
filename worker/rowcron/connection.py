"""Connections to the database: how they are made, and how they are cut."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import AsyncConnection, Connection
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from rowcron import address
from rowcron.encoding import AS_THEY_ARE, CLIENT, must_be_raw
from rowcron.errors import RowcronError, Unavailable, translate

NAME = "rowcron"
STANDBY = "the server is a standby, which takes no writes"
_WHOSE = "select pg_backend_pid(), current_setting('transaction_isolation') = 'read committed'"
_IN_RECOVERY = "select pg_is_in_recovery()"
# A peer that vanished without a word is found out within half a minute (see rowcron.silence).
_USUAL = {
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
}


def conninfo(url: str, option: str = "database-url") -> str:
    """Return libpq's connection string with our name and patience. Raises `BadSettings`."""
    given = address.read(url, f"option {option}")
    usual = {key: value for key, value in _USUAL.items() if key not in given}
    hosts = given.get("host") or given.get("hostaddr") or os.environ.get("PGHOST") or ""
    if "," in str(hosts) and "PGTARGETSESSIONATTRS" not in os.environ:
        # else it would be the first that answers, even if that one is a standby
        usual["target_session_attrs"] = str(given.get("target_session_attrs") or "read-write")
    return make_conninfo(url, **usual, application_name=NAME, client_encoding=CLIENT)


async def connect(info: str, **options: Any) -> AsyncConnection[Any]:
    """Return a connection to a server that takes writes. Raises `Unavailable` and other errors."""
    try:
        connection = await AsyncConnection.connect(
            info, autocommit=True, prepare_threshold=None, **options
        )
    except psycopg.Error as error:
        raise _refused(error) from error
    try:
        if must_be_raw(connection):
            await connection.close()
            return await connect(info, **options, client_encoding=AS_THEY_ARE)
        if says_standby(connection) and not _promoted(await _ask(connection)):
            raise Unavailable(STANDBY)
    except BaseException:
        await connection.close()
        raise
    return connection


def connect_in_thread(info: str, **options: Any) -> Connection[Any]:
    """Like `connect`, for a thread of its own."""
    try:
        connection = psycopg.connect(
            info, **{"autocommit": True, "prepare_threshold": None, **options}
        )
    except psycopg.Error as error:
        raise _refused(error) from error
    try:
        if must_be_raw(connection):
            connection.close()
            return connect_in_thread(info, **options, client_encoding=AS_THEY_ARE)
        if says_standby(connection) and not _promoted(connection.execute(_IN_RECOVERY).fetchone()):
            raise Unavailable(STANDBY)
    except psycopg.Error as error:
        connection.close()
        raise translate(error) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _refused(error: psycopg.Error) -> RowcronError:
    """Return the error of a connection that did not come about; poolers are hard to please."""
    refused = translate(error)
    if "startup parameter" in refused.message:
        refused.hint = (
            "a pooler refuses parameters that it does not know: take options out of the URL and"
            " PGOPTIONS, or name them in its ignore_startup_parameters"
        )
    return refused


def says_standby(connection: psycopg.BaseConnection[Any]) -> bool:
    """Return whether we were told in the greeting that the server is in recovery."""
    return connection.info.parameter_status("in_hot_standby") == "on"


async def _ask(connection: AsyncConnection[Any]) -> Any:
    try:
        with brief(connection):
            return await (await connection.execute(_IN_RECOVERY)).fetchone()
    except psycopg.Error as error:
        raise translate(error) from error


def _promoted(row: Any) -> bool:
    """Return whether it is none any more: a pooler's greeting may be old."""
    return row is not None and row[0] is False


async def pooled(connection: AsyncConnection[Any]) -> tuple[bool, bool]:
    """Return whether a pooler is in between, and whether transactions are read committed.

    A pooler cannot know the number of the session to come.
    """
    try:
        with brief(connection):
            row = await (await connection.execute(_WHOSE)).fetchone()
    except psycopg.Error as error:
        raise translate(error) from error
    assert row is not None
    return row[0] != connection.info.backend_pid, row[1]


@contextmanager
def brief(connection: AsyncConnection[Any]) -> Iterator[None]:
    """Cut the connection when what is inside takes longer than connecting may."""
    usual = _USUAL["connect_timeout"]
    allowed = float(conninfo_to_dict(connection.info.dsn).get("connect_timeout") or usual)
    if allowed <= 0:  # libpq's way to say for ever, which is no time for a short statement
        allowed = float(usual)
    timer = asyncio.get_running_loop().call_later(allowed, cut, connection)
    try:
        yield
    finally:
        timer.cancel()


def cut(connection: psycopg.BaseConnection[Any]) -> None:
    """Cut a connection that somebody else uses, so that its transaction cannot commit any more."""
    try:
        with socket.socket(fileno=os.dup(connection.fileno())) as copy:
            copy.shutdown(socket.SHUT_RDWR)
    except (OSError, psycopg.Error):
        return
