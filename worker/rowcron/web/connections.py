"""Connections as this process needs them: opened, looked after, asked for in vain."""

from __future__ import annotations

import contextlib
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.types.datetime import TimestamptzLoader
from psycopg.types.json import set_json_loads
from psycopg.types.string import TextLoader

from rowcron.connection import conninfo, says_standby
from rowcron.encoding import AS_THEY_ARE, CLIENT, must_be_raw
from rowcron.errors import Unavailable
from rowcron.text import loads

# What every statement of ours is under. An empty path: nothing of a user's is found by name. No
# compilation: statements over many partitions look dear and take milliseconds.
_SESSION = (
    "select set_config('statement_timeout', '15s', false), set_config('lock_timeout', '5s', false),"
    " set_config('idle_in_transaction_session_timeout', '30s', false),"
    " set_config('search_path', '', false), set_config('timezone', 'UTC', false),"
    " set_config('datestyle', 'ISO', false), set_config('intervalstyle', 'postgres', false),"
    " set_config('jit', 'off', false)"
)
Connection = AsyncConnection[Any]


class _Instant(TimestamptzLoader):
    """`infinity` and years that Python has no datetime for stay as PostgreSQL writes them."""

    def load(self, data: Any) -> Any:
        try:
            return super().load(data)
        except psycopg.DataError:
            return bytes(data).decode()


async def open_connection(info: str, encoding: str = CLIENT) -> Connection:
    """Return a new connection. Raises `psycopg.OperationalError`, `Unavailable`."""
    connection = await AsyncConnection.connect(
        conninfo(info), autocommit=True, prepare_threshold=None, client_encoding=encoding
    )
    try:
        if says_standby(connection):
            raise Unavailable("the server is a standby, which takes no writes")
        if must_be_raw(connection):
            await connection.close()
            return await open_connection(info, AS_THEY_ARE)
        connection.adapters.register_loader("timestamptz", _Instant)
        set_json_loads(loads, connection)
        connection.adapters.register_loader("interval", TextLoader)  # a month is no timedelta
        await connection.execute(_SESSION)
    except BaseException:
        await connection.close()
        raise
    return connection


def is_alive(connection: Connection) -> bool:
    """Return whether an idle connection was not cut meanwhile, as by a restart; asks nobody."""
    with contextlib.suppress(psycopg.OperationalError):
        for _ in range(2):  # the server's last words, then the end
            connection.pgconn.consume_input()
    return not connection.closed


async def lets_in(info: str) -> bool:
    """Return whether the server lets a new connection in."""
    try:
        await (await open_connection(info)).close()
    except (psycopg.Error, Unavailable):
        return False
    return True


def reachable(info: str) -> bool:
    """Return whether the server answers, whoever asks. Blocks for up to a few seconds."""
    answer = psycopg.pq.PGconn.ping(conninfo(info).encode())
    return answer == psycopg.pq.Ping.OK
