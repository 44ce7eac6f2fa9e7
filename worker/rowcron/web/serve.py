"""The process: uvicorn with our application, until it is told to stop."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace

import uvicorn
from fastapi import FastAPI

from rowcron.errors import RowcronError
from rowcron.web.app import create_app
from rowcron.web.settings import WebSettings
from rowcron.web.state import State


def listen(settings: WebSettings) -> socket.socket:
    """Return the bound socket. Raises `RowcronError` when the address is taken."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    bound = socket.socket(family)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((settings.host, settings.port))
        bound.listen(256)
    except OSError as error:
        bound.close()
        raise RowcronError(
            f"cannot listen on {settings.host} port {settings.port}: {error.strerror}",
            hint="another port: rowcron web --port 8080",
        ) from error
    return bound


def configured(app: FastAPI) -> uvicorn.Config:
    """Return how uvicorn serves the application."""
    return uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # it would believe the client's word before the proxy's (proxy.py)
        timeout_graceful_shutdown=3,
        timeout_keep_alive=30,
        h11_max_incomplete_event_size=64 * 1024,
    )


def serve(settings: WebSettings) -> None:
    """Serve until SIGINT or SIGTERM."""
    bound = listen(settings)
    settings = replace(settings, port=bound.getsockname()[1])
    app = create_app(settings)
    config = configured(app)
    state: State = app.state.rowcron
    if state.own is not None:
        state.announce()
    else:
        print(f"Open:  {state.address}", flush=True)

    async def run() -> None:
        server = uvicorn.Server(config)
        stopping = asyncio.create_task(_end_streams(server, state))
        try:
            await server.serve([bound])
        finally:
            stopping.cancel()

    asyncio.run(run())


async def _end_streams(server: uvicorn.Server, state: State) -> None:
    """Open pages hold streams, for which a server that stops would wait."""
    while not server.should_exit:  # noqa: ASYNC110  uvicorn has no event for it
        await asyncio.sleep(0.2)
    state.live.stop()
