"""SQL jobs that name a connection: what cannot run inside a function, VACUUM and the like.

They run as the login of that connection, statement by statement in autocommit, at least once. What
the statements answer (`VACUUM`, `UPDATE 3`) is the output; of a last statement that returns rows
the first is the result.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import psycopg
from psycopg import AsyncClientCursor, AsyncConnection
from psycopg.rows import dict_row

from rowcron.capture import LIMIT, storable, tail, to_json
from rowcron.connection import connect, conninfo
from rowcron.errors import RowcronError, Unavailable, translate
from rowcron.executors import Host, stopped
from rowcron.lane import Lane
from rowcron.models import Outcome, Run
from rowcron.splitter import statements

CANCELED = "57014"


async def execute(host: Host, lane: Lane, run: Run) -> Outcome:
    """Execute a job's command over the connection that it names."""
    name = run.connection_name or ""
    url = host.settings.connections.get(name.lower())
    if url is None:
        known = ", ".join(sorted(host.settings.connections)) or "none"
        # as with handlers: the job was given another one
        return Outcome(
            "released",
            "connection",
            f'this worker has no connection "{name}" (it has: {known});'
            f" set ROWCRON_CONNECTION_{name.upper()} where it is started",
        )
    try:
        connection = await connect(conninfo(url, f"connection {name}"))
    except RowcronError as error:
        return Outcome("failed", "connection", f'connection "{name}": {error.message}')
    lane.connection, kept = connection, (lane.connection, lane.session)
    lane.session = None
    try:
        return await _run(connection, run)
    except psycopg.Error as error:
        return _failure(run, error, connection)
    finally:
        lane.connection, lane.session = kept
        await connection.close()


async def _run(connection: AsyncConnection[Any], run: Run) -> Outcome:
    limit = time.monotonic() + run.seconds
    context = {
        "run_id": str(run.run_id),
        "attempt": str(run.attempt),
        "scheduled_for": run.scheduled_for.isoformat() if run.scheduled_for else "",
        "args": run.args_json.decode(),
    }
    settings = ", ".join("set_config(%s, %s, false)" for _ in context)
    values = [value for name, text in context.items() for value in (f"rowcron.{name}", text)]
    await connection.execute(f"select {settings}", values)
    tags: list[str] = []
    row: Any = None
    cursor = AsyncClientCursor(connection, row_factory=dict_row)
    for statement in statements(run.command):
        await asyncio.sleep(0)
        if run.stopping is not None:
            return stopped(run, "\n".join(tags))
        left = min(max(int((limit - time.monotonic()) * 1000), 1), 2_147_483_647)
        await connection.execute(f"set statement_timeout = {left}")
        run.begun = True
        await cursor.execute(statement)
        tags.append(cursor.statusmessage or "")
        row = await cursor.fetchone() if cursor.description else None
    try:
        result = None if row is None else to_json(row)
    except (TypeError, ValueError):
        result = to_json({name: None if v is None else str(v) for name, v in row.items()})
    return Outcome("succeeded", None, None, tail("\n".join(tags)) or None, result)


def _failure(run: Run, error: psycopg.Error, connection: AsyncConnection[Any]) -> Outcome:
    if run.stopping is not None:
        return stopped(run)
    cause = translate(error)
    if error.sqlstate == CANCELED:
        return Outcome("failed", "timeout", f"timed out after {run.timeout}")
    if connection.closed and isinstance(cause, Unavailable):
        return Outcome("lost", "connection", cause.message)
    return Outcome("failed", error.sqlstate, storable(str(error)[:LIMIT]))
