"""What one web process holds, and how a request finds it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from starlette.requests import Request

from rowcron.web.actor import Login
from rowcron.web.pool import Pool
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
        # the process's own login: tokens, and whether the database is there
        self.pool = Pool(settings.conninfo, settings.connections, settings.requests)
        self.door = Door(settings, self.sessions)
        # whoever opens the one-time URL acts as this login
        self.own = Login("", self.pool) if settings.as_login else None
        self.address = f"http://{settings.host}:{settings.port}"

    def announce(self) -> None:
        """Print a one-time URL; a new one after each use, so that the terminal's owner has one."""
        if self.own is not None:
            print(f"Open:  {self.address}/sign-in?code={self.codes.make()}", flush=True)

    async def close(self) -> None:
        """Close all connections."""
        await self.door.close()
        await self.pool.close()


def state_of(request: Request) -> State:
    """Return the state of the process that serves the request."""
    state: State = request.app.state.rowcron
    return state
