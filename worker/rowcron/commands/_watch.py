"""Starts the embedded server again if something kills it while `rowcron up` runs."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from rowcron.text import safe

if TYPE_CHECKING:
    from rowcron.embedded import EmbeddedServer

LOOK = 0.5  # seconds between two looks at the process
PAUSE = 10.0  # seconds before another try when it does not start


@contextlib.contextmanager
def kept_alive(server: EmbeddedServer) -> Iterator[None]:
    """Look after the server within the block. The worker meanwhile waits and tries again."""
    over = threading.Event()

    def look() -> None:
        from rowcron.embedded import EmbeddedError

        while not over.wait(LOOK):
            if server.is_alive():
                continue
            try:
                server.start()
                click.echo("PostgreSQL had been stopped; it runs again", err=True)
            except (EmbeddedError, OSError) as error:
                click.echo(f"PostgreSQL had been stopped: {safe(str(error))}", err=True)
                over.wait(PAUSE)

    thread = threading.Thread(target=look, name="keep-alive")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
