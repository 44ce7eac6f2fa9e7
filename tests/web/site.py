"""A web process for the tests, and what tests do with it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import psycopg
import uvicorn

from harness import Database, wait_until
from rowcron.web.app import create_app
from rowcron.web.serve import configured, listen
from rowcron.web.settings import WebSettings

PEOPLE = {"ada": "rowcron_user", "bea": "rowcron_user", "vic": "rowcron_viewer",
          "otto": "rowcron_operator"}  # fmt: skip
ASKED = "asked"  # of whose members the server asks a password, too
WEB = "web_login"


def password(role: str) -> str:
    """What a role of the tests signs in with."""
    return f"{role}'s secret"


class Site:
    """A web process in a thread, with its own event loop and a real socket."""

    def __init__(self, settings: WebSettings, port: int = 0) -> None:
        bound = listen(replace(settings, port=port))
        self.settings = replace(settings, port=bound.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.settings.port}"
        self.app = create_app(self.settings)
        self.server = uvicorn.Server(configured(self.app))
        self.server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(
            target=lambda: self._serve(self.server.serve([bound])), name="site"
        )
        self.thread.start()
        wait_until(lambda: self.server.started, what="the site")

    def _serve(self, serving: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            runner.run(serving)

    def ask_pool(self, query: str) -> Any:
        """What a connection of the process's own login, as a request left it, says."""

        async def ask() -> Any:
            async with self.state.pool.connection() as connection:
                cursor = await connection.execute(query)
                return (await cursor.fetchone())[0]

        return asyncio.run_coroutine_threadsafe(ask(), self.loop).result(20)

    @property
    def state(self) -> Any:
        return self.app.state.rowcron

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=30, **options)

    @contextlib.contextmanager
    def sign_in(self, role: str) -> Iterator[httpx.Client]:
        """A browser in which the role is signed in."""
        with self.client() as client:
            given = {"role": role, "password": password(role)}
            answer = client.post("/sign-in", data=given)
            assert answer.status_code == 303, answer.text
            yield client

    def stop(self) -> None:
        self.state.live.stop()
        self.server.should_exit = True
        self.thread.join(20)
        assert not self.thread.is_alive()


def psql_as(shared: Database, role: str) -> psycopg.Connection:
    """The role's own connection, autocommit."""
    return psycopg.connect(shared.url(role), autocommit=True, password=password(role))


Bearer = Callable[..., httpx.Client]


def proof_of(client: httpx.Client, path: str = "/") -> str:
    """The proof that a page of ours carries."""
    found = re.search(r'name="csrf" content="([^"]+)"', client.get(path).text)
    assert found is not None
    return found[1]


def chromium() -> Path:
    """Debian's browser, or the one that is named."""
    named = os.environ.get("ROWCRON_TEST_CHROMIUM")
    for path in (named, "/usr/bin/chromium-headless-shell", "/usr/bin/chromium"):
        if path and Path(path).exists():
            return Path(path)
    raise AssertionError("no browser: apt-get install chromium-headless-shell")
