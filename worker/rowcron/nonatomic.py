"""SQL jobs that name a connection: what cannot run inside a function, VACUUM and the like.

They run as the login of that connection, statement by statement in autocommit, at least once. What
the statements answer (`VACUUM`, `UPDATE 3`) is the output; of a last statement that returns rows
the first is the result.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import psycopg
from psycopg import pq

from rowcron.capture import LIMIT, storable, tail, to_json
from rowcron.connection import conninfo
from rowcron.encoding import spoken
from rowcron.errors import RowcronError, Unavailable, translate
from rowcron.executors import Host, stopped
from rowcron.lane import Lane
from rowcron.models import Outcome, Run
from rowcron.settings import small
from rowcron.splitter import statements
from rowcron.wire import Wire

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

CANCELED = "57014"
WATCHES = 140_000  # the first server version that can notice that its client is gone


async def execute(host: Host, number: int, run: Run) -> Outcome:
    """Execute a job's command over the connection that it names."""
    name = run.connection_name or ""
    url = host.settings.connections.get(small(name))
    if url is None:
        known = ", ".join(sorted(host.settings.connections)) or "none"
        # as with handlers: the job was given another one
        return Outcome(
            "released",
            "connection",
            f'this worker has no connection "{name}" (it has: {known});'
            f" set ROWCRON_CONNECTION_{name.upper()} where it is started",
        )
    before = run.state
    try:
        run.state = lane = Lane(number, host, conninfo(url, f"connection {name}"))
        lane.begin(run)
        try:
            return await _run(lane, await lane.open(), run)
        finally:
            lane.end(run)
            if lane.wire is not None:
                lane.wire.close()
            if lane.cancelling is not None:
                await asyncio.wait((lane.cancelling,))
    except RowcronError as error:
        if run.stopping is not None:
            return stopped(run)
        return Outcome("failed", "connection", f'connection "{name}": {error.message}')
    finally:
        run.state = before


async def _run(lane: Lane, wire: Wire, run: Run) -> Outcome:
    try:
        return await _execute(lane, wire, run)
    except psycopg.Error as error:
        if wire.connection.closed and error.sqlstate is None and lane.session is not None:
            lane.host.end_session(lane.session, lane.info)  # it may not have noticed
        return _failure(run, error, wire)


async def _execute(lane: Lane, wire: Wire, run: Run) -> Outcome:
    limit = time.monotonic() + run.seconds
    watch = lane.watch and wire.connection.info.server_version >= WATCHES
    also = "; set client_connection_check_interval = '2s'" if watch else ""
    await wire.ask_with(
        b"select pg_catalog.set_config('rowcron.run_id', $1, false),"
        b" pg_catalog.set_config('rowcron.attempt', $2, false),"
        b" pg_catalog.set_config('rowcron.scheduled_for', $3, false),"
        b" pg_catalog.set_config('rowcron.args', $4, false)",
        (
            str(run.run_id),
            str(run.attempt),
            run.scheduled_for.isoformat() if run.scheduled_for else "",
            run.args_json.decode(),
        ),
    )
    tags: list[str] = []
    row: PGresult | None = None
    for statement in statements(run.command):
        await asyncio.sleep(0)
        if run.stopping is not None:
            return stopped(run, "\n".join(tags))
        left = min(max(int((limit - time.monotonic()) * 1000), 1), 2_147_483_647)
        await wire.ask(f"set statement_timeout = {left}{also}".encode())
        wire.encoding = spoken(wire.connection)  # the job may have set another
        run.begun = True
        row, end = await wire.ask_first(statement.encode(wire.encoding))
        tags.append((end.command_status or b"").decode())
    output = tail("\n".join(tags)) or None
    if wire.connection.info.transaction_status != pq.TransactionStatus.IDLE:
        await wire.ask(b"rollback")
        text = (
            "the command left a transaction open; it was rolled back\n"
            "HINT: End it with COMMIT, or leave out BEGIN: each statement commits by itself."
        )
        return Outcome("failed", "transaction", text, output)
    result = None if row is None else await _as_json(wire, row)
    return Outcome("succeeded", None, None, output, result)


async def _as_json(wire: Wire, row: PGresult) -> str:
    """Return a row as `to_jsonb` writes it, as for any other SQL job.

    The statement has been committed: nothing that is odd about its answer makes it a failure.
    """
    columns = range(row.nfields)
    values = [row.get_value(0, column) for column in columns]
    if (size := sum(len(value or b"") for value in values)) > LIMIT:
        return to_json({"truncated": True, "bytes": size})
    names = [row.fname(column) or b"" for column in columns]
    listed = b", ".join(
        b'$%d as "%s"' % (n, name.replace(b'"', b'""')) for n, name in enumerate(names, 1)
    )
    # x.* is the row even if a column is named x
    query = b"select pg_catalog.to_jsonb(x.*) from (select %s) as x" % listed
    wire.encoding = spoken(wire.connection)
    try:
        answer = await wire.ask_typed(query, values, [row.ftype(column) for column in columns])
        return storable((answer.get_value(0, 0) or b"{}").decode(wire.encoding))
    except (psycopg.Error, UnicodeError):  # a type without input, such as record
        pass

    def text(data: bytes) -> str:
        return data.decode(wire.encoding, "backslashreplace")

    return to_json(
        {text(n): None if v is None else text(v) for n, v in zip(names, values, strict=True)}
    )


def _failure(run: Run, error: psycopg.Error, wire: Wire) -> Outcome:
    if run.stopping is not None:
        outcome = stopped(run)
        if error.sqlstate is None:  # cut: not even being terminated has made the server answer
            outcome.error = f"{outcome.error or 'stopped'}; the statement did not end and may go on"
        return outcome
    cause = translate(error)
    if error.sqlstate == CANCELED:
        return Outcome("failed", "timeout", f"timed out after {run.timeout}")
    if wire.connection.closed and isinstance(cause, Unavailable):
        return Outcome("lost", "connection", cause.message)
    return Outcome("failed", error.sqlstate, storable(str(error)[:LIMIT]))
