"""The application: routes, OpenAPI, files, and what every request passes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.openapi.utils import get_openapi
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response

from rowcron import __version__
from rowcron.web import (
    caught,
    deeds,
    health,
    job_write,
    jobs,
    pages,
    problems,
    render,
    run_write,
    runs,
    sign_pages,
    timeline,
    tools,
)
from rowcron.web.auth import SCHEMES, session_of
from rowcron.web.canvas import Canvases
from rowcron.web.live import Live
from rowcron.web.middleware import Guard
from rowcron.web.pulse import Pulse
from rowcron.web.settings import WebSettings
from rowcron.web.state import State

ABOUT = """
Jobs, runs and schedules over HTTP. Whoever asks acts as their PostgreSQL role, through the same
functions, views and row security as in psql; what is refused is refused by the database, in its own
words, as a problem document (RFC 9457).

A program sends `Authorization: Bearer TOKEN`; a role makes its token in psql:
`select rowcron.create_token('what it is for');`. A change of a job names the ETag that it was read
with in `If-Match`; a run of a job is put in line once for each `Idempotency-Key`.
"""
_DISTRIBUTION = distribution("flask-swagger-ui")
SWAGGER = Path(str(_DISTRIBUTION.locate_file("flask_swagger_ui/dist")))  # found, not imported
SWAGGER_FILES = {"swagger-ui.css": "text/css", "swagger-ui-bundle.js": "text/javascript"}
STATIC_FILES = {
    "style.css": "text/css", "app.js": "text/javascript", "docs.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}  # fmt: skip
FOR_EVER = {"Cache-Control": "public, max-age=31536000, immutable"}
OPEN = ("/api/health", "/api/ready")


def create_app(settings: WebSettings) -> FastAPI:
    """Return the application."""
    state = State(settings, Live(settings.tick, Pulse(settings.conninfo)), Canvases())

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        tidying = asyncio.create_task(_tidy(state))
        try:
            yield
        finally:
            tidying.cancel()
            state.live.stop()
            await state.close()

    app = FastAPI(
        title="rowcron",
        version=__version__,
        description=ABOUT,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
        lifespan=lifespan,
        license_info={"name": "PostgreSQL", "identifier": "PostgreSQL"},
    )
    app.state.rowcron = state
    caught.install(app, pages.problem_page)
    app.add_exception_handler(pages.SignInFirst, pages.first_sign_in)
    routers = (
        jobs.router, job_write.router, run_write.router, runs.router, tools.router, tools.whole,
        health.router, sign_pages.router, deeds.router, pages.router, timeline.router,
    )  # fmt: skip
    for router in routers:
        app.include_router(router)
    _add_files(app)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    app.add_middleware(GZipMiddleware, minimum_size=1000, compresslevel=5)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "If-Match", "Idempotency-Key"],
            expose_headers=["ETag", "Location", "Retry-After"],
        )
    app.add_middleware(Guard, settings=settings)
    return app


async def _tidy(state: State) -> None:
    while True:
        await asyncio.sleep(10)
        await state.tidy()


def _add_files(app: FastAPI) -> None:
    @app.get("/api/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return JSONResponse(app.openapi())

    @app.get("/api/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        session = session_of(request)
        return HTMLResponse(render.page("docs", proof=session.proof() if session else ""))

    @app.get("/api/docs/{name}", include_in_schema=False)
    async def swagger(name: str) -> Response:
        if name not in SWAGGER_FILES:
            raise problems.Refusal(404, "there is no such file")
        return FileResponse(SWAGGER / name, media_type=SWAGGER_FILES[name])

    @app.get("/static/{name}", include_in_schema=False)
    async def static(name: str) -> Response:
        if name not in STATIC_FILES:
            raise problems.Refusal(404, "there is no such file")
        return FileResponse(render.STATIC / name, media_type=STATIC_FILES[name], headers=FOR_EVER)


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema:
        return app.openapi_schema
    schema = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        routes=app.routes,
        license_info=app.license_info,
    )
    components = schema.setdefault("components", {})
    components["securitySchemes"] = SCHEMES
    schemas = components.setdefault("schemas", {})
    schemas["Problem"] = problems.Problem.model_json_schema()
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            if path not in OPEN:
                operation["security"] = [{"token": []}, {"session": []}]
    app.openapi_schema = schema
    return schema
