"""A wire asks one message after the other on a connection and is told of its end at once."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import tempfile
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

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
            number, text, nothing, instant = wire.rows(answer)[0]
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


def test_values_are_text_and_answers_binary(on_wire: OnWire) -> None:
    async def scenario(wire: Wire) -> None:
        query = b"select $1::int + 1, $2::text, $3::uuid, $4::text[]"
        values = ("41", "ü 'x' \\", None, '{a,NULL,"b c"}')
        await wire.prepare(b"mine", query)
        for ask in (wire.ask_prepared(b"mine", values), wire.ask_with(query, values)):
            answer = await ask
            assert answer.fformat(0) == 1
            assert wire.rows(answer) == [(42, "ü 'x' \\", None, ["a", None, "b c"])]
        with pytest.raises(psycopg.DataError, match="NUL"):
            await wire.ask_prepared(b"mine", ("1", "a\0b", None, None))
        with pytest.raises(psycopg.errors.InvalidTextRepresentation):
            await wire.ask_prepared(b"mine", ("x", None, None, None))
        assert wire.rows(await wire.ask_prepared(b"mine", ("1", None, None, None)))[0][0] == 2

    on_wire(scenario)


def test_notifications_are_heard_at_once_and_the_end_once(
    on_wire: OnWire, db: psycopg.Connection
) -> None:
    async def scenario(first: Wire) -> None:
        news: asyncio.Queue[tuple[bytes, bytes]] = asyncio.Queue()
        ends: asyncio.Queue[str] = asyncio.Queue()
        wire = Wire(
            await connect(first.connection.info.dsn),
            lambda n: news.put_nowait((n.relname, n.extra)),
            lambda: ends.put_nowait("end"),
        )
        await wire.ask(b"listen news")
        db.execute("notify news, 'idle'")
        assert await news.get() == (b"news", b"idle")
        await wire.ask(b"notify news, 'own'; select 1")
        db.execute("notify news; notify news, 'two'")
        assert [(await news.get())[1] for _ in range(3)] == [b"own", b"", b"two"]
        assert ends.empty()
        end(db, wire)
        assert await ends.get() == "end"
        wire.close()
        assert ends.empty()
        assert wire.connection.closed

    on_wire(scenario)


class DyingServer:
    """Stands in front of the server; dies with last words, and without reading what it was sent."""

    LAST_WORDS = b"SFATAL\0VFATAL\0C57P01\0Mterminating connection\0\0"

    def __init__(self, directory: Path, server: Path) -> None:
        self.place = directory / ".s.PGSQL.5432"
        self.listening = socket.socket(socket.AF_UNIX)
        self.listening.bind(str(self.place))
        self.listening.listen(1)
        self.server = socket.socket(socket.AF_UNIX)
        self.server.connect(str(server / ".s.PGSQL.5432"))
        self.dying = threading.Event()
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self) -> None:
        client, _ = self.listening.accept()
        with self.listening, self.server, client:
            while not self.dying.is_set():
                for end in select.select([client, self.server], [], [], 0.01)[0]:
                    if not self.dying.is_set():
                        (self.server if end is client else client).sendall(end.recv(65536))
            select.select([client], [], [], 10)
            words = self.LAST_WORDS
            client.sendall(b"E" + (len(words) + 4).to_bytes(4, "big") + words)


@pytest.mark.parametrize("asked", [True, False], ids=["asked", "idle"])
def test_a_server_that_dies_before_it_has_read_all_is_noticed(on_wire: OnWire, asked: bool) -> None:
    async def scenario(first: Wire) -> None:
        info = first.connection.info
        with tempfile.TemporaryDirectory() as directory:  # pytest's names are too long for a socket
            server = DyingServer(Path(directory), Path(info.host))
            gone = asyncio.Event()
            url = make_conninfo(info.dsn, host=directory)
            wire = Wire(await connect(url), None, gone.set)
            try:
                assert (await wire.ask(b"select 1")).get_value(0, 0) == b"1"
                server.dying.set()
                if asked:
                    with pytest.raises(psycopg.OperationalError, match="terminating"):
                        await asyncio.wait_for(wire.ask(b"select 2"), 10)
                else:
                    with socket.socket(fileno=os.dup(wire.connection.fileno())) as copy:
                        copy.send(b"S\0\0\0\4")  # unread
                await asyncio.wait_for(gone.wait(), 10)
                assert wire.connection.closed
            finally:
                wire.close()
                server.dying.set()
                server.thread.join(15)

    on_wire(scenario)
