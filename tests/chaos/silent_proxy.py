"""A TCP proxy that can fall silent: connections stand, and nothing passes them any more."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class Proxy:
    """Forwards a port of 127.0.0.1 to a socket; connections made after `silence` work again."""

    def __init__(self, target: Path | int) -> None:
        self.target = target
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port = int(self._listener.getsockname()[1])
        self._silent: set[socket.socket] = set()
        self._open: set[socket.socket] = set()
        self.mute = False  # new connections, too
        self.cut_short = 0  # silent ones that their client has closed
        threading.Thread(target=self._accept, daemon=True).start()

    def silence(self, *, mute: bool = False) -> int:
        """Let nothing pass the connections that stand, and no FIN either; return how many."""
        self.mute = mute
        self.cut_short = 0
        self._silent |= self._open
        return len(self._open) // 2

    def close(self) -> None:
        """End everything."""
        for one in (self._listener, *self._open):
            _end(one)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = self._connect()
                if server is None:
                    client.close()
                    continue
                self._open |= {client, server}
                if self.mute:
                    self._silent |= {client, server}
                for pair in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _connect(self) -> socket.socket | None:
        try:
            if isinstance(self.target, int):
                return socket.create_connection(("127.0.0.1", self.target))
            server = socket.socket(socket.AF_UNIX)
            server.connect(str(self.target))
            return server
        except OSError:
            return None

    def _pump(self, source: socket.socket, sink: socket.socket, client: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if source not in self._silent:
                    sink.sendall(data)
        if source in self._silent:
            self.cut_short += client
            return  # the other side never learns of it
        for one in (source, sink):
            self._open.discard(one)
            _end(one)


def _end(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()


@contextmanager
def proxied(target: Path | int) -> Iterator[Proxy]:
    """A proxy in front of `target`."""
    proxy = Proxy(target)
    try:
        yield proxy
    finally:
        proxy.close()
