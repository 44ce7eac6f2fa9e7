"""What one web process holds, and how a request finds it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from starlette.requests import Request

from rowcron.web.actor import Login
from rowcron.web.pool import Pool, SharedPool
from rowcron.web.sessions import Codes, Sessions
from rowcron.web.settings import WebSettings
from rowcron.web.signing import Door

if TYPE_CHECKING:
    from rowcron.web.canvas import Canvases
    from rowcron.web.live import Live


@dataclass
class State:
    """Everything that lives as long as the process."""

    settings: WebSettings
    live: Live
    canvases: Canvases
    sessions: Sessions = field(default_factory=Sessions)
    codes: Codes = field(default_factory=Codes)

    def __post_init__(self) -> None:
        settings = self.settings
        limits = (settings.connections, settings.requests)
        # the process's own login: tokens; and apart from them, whether the database is there
        self.pool = SharedPool(settings.conninfo, *limits)
        self.probe = Pool(settings.conninfo, 1, settings.requests)
        self.door = Door(settings, self.sessions)
        # whoever opens the one-time URL acts as this login
        self.own = Login("", Pool(settings.conninfo, *limits)) if settings.as_login else None
        self.address = f"http://{settings.host}:{settings.port}"

    def announce(self) -> None:
        """Print a one-time URL; a new one after each use, so that the terminal's owner has one."""
        if self.own is not None:
            print(f"Open:  {self.address}/sign-in?code={self.codes.make()}", flush=True)

    async def close(self) -> None:
        """Close all connections."""
        await self.door.close()
        for pool in self.pools:
            await pool.close()

    async def tidy(self) -> None:
        """Close connections that nobody needs; forget who has signed out."""
        await self.door.tidy()
        for pool in self.pools:
            await pool.tidy()

    @property
    def pools(self) -> list[Pool]:
        """Those of the process's own login."""
        return [self.pool, self.pool.lookups, self.probe, *([self.own.pool] if self.own else [])]


def state_of(request: Request) -> State:
    """Return the state of the process that serves the request."""
    state: State = request.app.state.rowcron
    return state
