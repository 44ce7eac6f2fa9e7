"""Sessions with the server: which one a connection has, how to end one, and a notification.

Nothing here knows the schema.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

import psycopg
from psycopg import AsyncConnection

from rowcron.connection import brief, connect
from rowcron.errors import translate

_INTRODUCE = (
    "select version() ~* 'linux|darwin|bsd', a.pid, a.backend_start"
    " from pg_stat_activity as a where a.pid = pg_backend_pid()"
)
_TERMINATE = (
    "select pg_terminate_backend(a.pid) from pg_stat_activity as a"
    " where a.pid = %s and a.backend_start = %s::timestamptz"
)


class Session(NamedTuple):
    """A database session, named so that it cannot be taken for a later one with the same pid."""

    pid: int
    started: datetime


async def introduce(connection: AsyncConnection[Any]) -> tuple[bool, Session | None]:
    """Return whether the server can watch its clients, and which session this is.

    The session can be ended from another one by that; None behind a pooler, where the session that
    executes is another one each time.
    """
    with brief(connection):
        # binary: the text of an instant is written in the session's DateStyle
        row = await (await connection.execute(_INTRODUCE, binary=True)).fetchone()
    if row is None:
        return False, None
    watches, pid, started = row
    known = started is not None and pid == connection.info.backend_pid
    return watches, Session(pid, started) if known else None


async def terminate(info: str, session: Session) -> bool:
    """End a session of our own login; return whether there was one. Opens a connection for it."""
    connection = await connect(info)
    try:
        with brief(connection):
            cursor = await connection.execute(_TERMINATE, session)
            return await cursor.fetchone() is not None
    except psycopg.Error as error:
        raise translate(error) from error
    finally:
        await connection.close()


async def notify(info: str, channel: str) -> None:
    """Notify a channel over a connection that is opened for it."""
    connection = await connect(info)
    try:
        with brief(connection):
            await connection.execute("select pg_notify(%s, '')", (channel,))
    except psycopg.Error as error:
        raise translate(error) from error
    finally:
        await connection.close()
