"""A wire asks one message after the other on a connection and is told of its end at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import pytest

from harness import WORKER, Database, wait_until
from rowcron.connection import connect, conninfo
from rowcron.wire import Wire

LARGE = 20_000_000  # characters, more than sockets hold


@pytest.fixture(params=["asyncio", "uvloop"])
def on_wire(
    request: pytest.FixtureRequest, database: Database
) -> Callable[[Callable[[Wire], Awaitable[None]]], None]:
    """Runs a scenario with a wire, on each event loop."""
    make: Any = None
    if request.param == "uvloop":
        make = pytest.importorskip("uvloop").new_event_loop

    def run(scenario: Callable[[Wire], Awaitable[None]]) -> None:
        async def main() -> None:
            wire = Wire(await connect(conninfo(database.url(WORKER))))
            try:
                await asyncio.wait_for(scenario(wire), 60)
            finally:
                wire.close()

        with asyncio.Runner(loop_factory=make) as runner:
            runner.run(main())

    return run


OnWire = Callable[[Callable[[Wire], Awaitable[None]]], None]


def end(db: psycopg.Connection, wire: Wire) -> None:
    db.execute("select pg_terminate_backend(%s)", [wire.connection.info.backend_pid])


def test_the_last_of_several_statements_is_the_answer(on_wire: OnWire) -> None:
    async def scenario(wire: Wire) -> None:
        for n in range(200):
            answer = await wire.ask(b"select 1; select %d, 'x', null, timestamptz 'epoch'" % n)
            number, text, nothing, instant = wire.row(answer)
            assert (number, text, nothing, instant.timestamp()) == (n, "x", None, 0)

    on_wire(scenario)


def test_an_error_is_raised_with_its_code_and_the_wire_goes_on(on_wire: OnWire) -> None:
    async def scenario(wire: Wire) -> None:
        with pytest.raises(psycopg.errors.DivisionByZero) as failed:
            await wire.ask("select 1; select 1 / 0, 'ü'; select 2".encode())
        assert failed.value.sqlstate == "22012"
        assert failed.value.diag.message_primary == "division by zero"
        assert (await wire.ask(b"select 3")).get_value(0, 0) == b"3"

    on_wire(scenario)


def test_what_is_larger_than_the_sockets_is_sent_and_received(on_wire: OnWire) -> None:
    async def scenario(wire: Wire) -> None:
        for _ in range(2):
            answer = await wire.ask(b"select '%s'" % (b"x" * LARGE))
            assert len(answer.get_value(0, 0) or b"") == LARGE

    on_wire(scenario)


def test_a_session_that_ends_while_it_is_asked_is_told(
    on_wire: OnWire, db: psycopg.Connection
) -> None:
    async def scenario(wire: Wire) -> None:
        answer = asyncio.ensure_future(wire.ask(b"select pg_sleep(60)"))
        asleep = "select 1 from pg_stat_activity where wait_event = 'PgSleep'"
        await asyncio.to_thread(wait_until, lambda: db.execute(asleep).fetchone())
        end(db, wire)
        with pytest.raises(psycopg.errors.AdminShutdown):
            await answer
        assert wire.connection.closed
        with pytest.raises(psycopg.OperationalError):
            await wire.ask(b"select 1")

    on_wire(scenario)


def test_a_session_that_ends_idle_is_closed_and_costs_nothing_more(
    on_wire: OnWire, db: psycopg.Connection
) -> None:
    async def scenario(wire: Wire) -> None:
        await wire.ask(b"select 1")
        number, info = wire.connection.fileno(), wire.connection.info.dsn
        end(db, wire)
        await asyncio.to_thread(wait_until, lambda: wire.connection.closed)
        # the descriptor's number comes again, and belongs to whoever has it then
        other = Wire(await connect(info))
        assert other.connection.fileno() == number
        assert (await other.ask(b"select 2")).get_value(0, 0) == b"2"
        wire.close()
        assert (await other.ask(b"select 3")).get_value(0, 0) == b"3"
        other.close()

    on_wire(scenario)
