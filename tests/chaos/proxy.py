"""A proxy between workers and the server that knows where in the protocol a connection is.

It reads the frontend's messages up to the one that asks for an answer (Sync or Query), and the
backend's up to ReadyForQuery. A rule names a statement and a moment: `sent`, the server has not
seen it yet, or `answered`, it is committed and the client does not know. There the rule cuts the
connection; leaves, which cuts the client's side alone, so that the server goes on; or holds it
until the test lets go or drops it.
"""

from __future__ import annotations

import asyncio
import re
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Literal
from urllib.parse import quote

Moment = Literal["sent", "answered"]
Deed = Literal["cut", "leave", "hold"]
_START = struct.Struct("!I")
_CANCEL = struct.pack("!I", 80877102)


class Rule:
    """What to do to the statements that match, at a moment; at most `times` times."""

    def __init__(
        self, pattern: str, moment: Moment, deed: Deed, times: int, chosen: Callable[[], bool]
    ) -> None:
        self.pattern = re.compile(pattern)
        self.moment = moment
        self.deed = deed
        self.left = times
        self.done = 0
        self.chosen = chosen
        self.reached = threading.Event()
        self.pid = 0  # of the session that reached it last
        self._over = asyncio.Event()

    def applies(self, text: str, moment: Moment) -> bool:
        """Whether to strike here and now."""
        if moment != self.moment or self.left == 0 or not self.pattern.search(text):
            return False
        return self.chosen()

    async def strike(self, pid: int) -> None:
        """Do the deed, after which the connection is over."""
        self.left -= 1
        self.done += 1
        self.pid = pid
        self.reached.set()
        if self.deed == "hold":
            await self._over.wait()

    def drop(self) -> None:
        """Hold nothing any longer: what is held is dropped. In the loop's thread."""
        self._over.set()


class Pair:
    """A client's connection and the one to the server that belongs to it."""

    def __init__(
        self,
        proxy: Proxy,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self.proxy = proxy
        self.from_client, self.to_client = client
        self.from_server, self.to_server = server
        self.pid = 0
        self.asked: str | None = None  # the statement under way
        self.left = False  # the server goes on, the client is gone

    async def run(self) -> None:
        """Carry messages until one side has ended."""
        tasks = [asyncio.create_task(part()) for part in (self._upwards, self._downwards)]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if self.left and not tasks[1].done():
                await tasks[1]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.to_client.close()
            self.to_server.close()

    async def _strike(self, moment: Moment) -> bool:
        assert self.asked is not None
        rule = self.proxy.rule_for(self.asked, moment)
        if rule is None:
            return False
        await rule.strike(self.pid)
        if rule.deed == "leave":
            self.left = True
            self.to_client.close()
        return True

    async def _upwards(self) -> None:
        start = await self.from_client.readexactly(4)
        body = await self.from_client.readexactly(_START.unpack(start)[0] - 4)
        self.to_server.write(start + body)
        if body.startswith(_CANCEL):
            await self.from_client.read()
            return
        request, text = b"", ""
        statements: dict[bytes, str] = {}  # by name; the one without a name is parsed each time
        while True:
            kind, message = await read_message(self.from_client)
            request += message
            if kind == b"Q":
                text = message[5:-1].decode("utf-8", "replace")
            elif kind == b"P":
                name, parsed = message[5:].split(b"\0")[:2]
                statements[name] = parsed.decode("utf-8", "replace")
            elif kind == b"B":
                text = statements[message[5:].split(b"\0")[1]]
            if kind not in (b"Q", b"S"):
                continue
            self.asked = text
            if await self._strike("sent"):
                if not self.left:
                    return
                self.to_server.write(request)
                await self.to_server.drain()
                await asyncio.Event().wait()  # until the answer has come: nobody hears it
            self.to_server.write(request)
            await self.to_server.drain()
            request, text = b"", ""

    async def _downwards(self) -> None:
        answer = b""
        greeted = False
        while True:
            kind, message = await read_message(self.from_server)
            if kind == b"K":
                self.pid = int.from_bytes(message[5:9], "big")
            if self.asked is None or not greeted:
                greeted = greeted or kind == b"Z"
                self.to_client.write(message)
                await self.to_client.drain()
                continue
            answer += message
            if kind == b"E" and self.to_client.is_closing() and not self.left:
                return
            if kind == b"Z":
                if self.left or await self._strike("answered"):
                    return
                self.asked = None
                self.to_client.write(answer)
                await self.to_client.drain()
                answer = b""
            elif kind == b"E" and b"\0VFATAL\0" in message:
                self.to_client.write(answer)
                await self.to_client.drain()


async def read_message(stream: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Return the next message's kind and all of its bytes. Raises when the stream has ended."""
    head = await stream.readexactly(5)
    return head[:1], head + await stream.readexactly(_START.unpack(head[1:])[0] - 4)


class Proxy:
    """Listens on a socket of its own in `directory`, in front of the server's socket."""

    def __init__(self, directory: Path, server: Path) -> None:
        self.directory = directory
        self.directory.mkdir(parents=True, exist_ok=True)
        self.server = server
        self.rules: list[Rule] = []
        self._loop = asyncio.new_event_loop()
        self._pairs: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="proxy")

    def __enter__(self) -> Proxy:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._main.cancel)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def url(self, role: str, database: str) -> str:
        """The address of a database, through here."""
        host = quote(str(self.directory), safe="")
        return f"postgresql://{quote(role)}@/{quote(database)}?host={host}"

    def rule(
        self,
        pattern: str,
        moment: Moment,
        deed: Deed = "hold",
        times: int = 1,
        chosen: Callable[[], bool] = lambda: True,
    ) -> Rule:
        """Add a rule; it counts from now on."""
        rule = Rule(pattern, moment, deed, times, chosen)
        self.rules.append(rule)
        return rule

    def drop(self, rule: Rule) -> None:
        """What the rule holds never arrives; both sides of the connection are closed."""
        self._loop.call_soon_threadsafe(rule.drop)

    def rule_for(self, text: str, moment: Moment) -> Rule | None:
        """The first rule that strikes here."""
        return next((rule for rule in self.rules if rule.applies(text, moment)), None)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._main = self._loop.create_task(self._listen())
        try:
            self._loop.run_until_complete(self._main)
        except asyncio.CancelledError:
            pass
        finally:
            self._loop.run_until_complete(asyncio.sleep(0.05))  # what was closed is gone
            self._loop.close()

    async def _listen(self) -> None:
        address = str(self.directory / ".s.PGSQL.5432")
        listening = await asyncio.start_unix_server(self._connected, address)
        self._ready.set()
        try:
            await asyncio.Event().wait()
        finally:
            listening.close()
            for pair in list(self._pairs):
                pair.cancel()
            await asyncio.gather(*self._pairs, return_exceptions=True)
            for one in self._writers:
                one.transport.abort()  # what a close waits for does not come any more

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pairs.add(task)
        try:
            self._writers.append(writer)
            server = await asyncio.open_unix_connection(str(self.server / ".s.PGSQL.5432"))
            self._writers.append(server[1])
            await Pair(self, (reader, writer), server).run()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._pairs.discard(task)
            writer.close()
