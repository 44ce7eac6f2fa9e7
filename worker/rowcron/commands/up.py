"""`rowcron up`: everything here, in the foreground."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import click

from rowcron.commands._banner import banner, homely, psql_line, without_password
from rowcron.commands._base import (
    command,
    data_option,
    named,
    session,
)
from rowcron.commands._port import PortOption
from rowcron.commands._signals import stoppable, undisturbed
from rowcron.commands._watch import kept_alive
from rowcron.commands._web_beside import web_beside
from rowcron.commands._worker_options import worker_options, worker_settings
from rowcron.target import Named
from rowcron.text import safe, typed


@command("up", "rowcron up --data ./data --port 5433")
@click.option(
    "--samples/--no-samples",
    default=None,
    envvar="ROWCRON_SAMPLES",
    show_envvar=True,
    help="Add the sample jobs that are missing, or none. Default: only on the first start.",
)
@click.option(
    "--port",
    cls=PortOption,
    type=click.IntRange(1, 65535),
    metavar="NUMBER",
    envvar="ROWCRON_PORT",
    show_envvar=True,
    help="Let the embedded server listen on 127.0.0.1, too, with a password.",
)
@click.option(
    "--web",
    is_flag=True,
    envvar="ROWCRON_WEB",
    show_envvar=True,
    help="Serve the pages and the HTTP API, too, and print a URL that lets in once, as you.",
)
@worker_options
@data_option
@click.option(
    "--database-url",
    envvar="ROWCRON_DATABASE_URL",
    show_envvar=True,
    metavar="URL",
    help="Install and work in this database instead of an embedded one.",
)
def up(
    database_url: str | None,
    data: Path | None,
    port: int | None,
    samples: bool | None,
    web: bool,
    **options: Any,
) -> None:
    """Start everything here: a database, a worker, sample jobs.

    Without --database-url it starts a PostgreSQL of its own, which is kept in --data and stops
    with the command. http jobs reach this machine unless --http-allow says otherwise. Ctrl-C lets
    runs end, a second one stops at once.
    """
    given = named(database_url, data)
    if given.database_url and not given.data_typed:
        if port is not None:
            raise click.UsageError("--port is the embedded server's; --database-url names another")
        if web:
            raise click.UsageError(
                "--web is the embedded server's; rowcron web serves any database"
            )
        code = _on_given(given, bool(samples), options)
    else:
        code = _on_embedded(given.data, port, samples, options, web)
    raise click.exceptions.Exit(code)


def _on_embedded(
    data: Path | None, port: int | None, samples: bool | None, options: dict[str, Any], web: bool
) -> int:
    from rowcron.embedded import EmbeddedServer
    from rowcron.loop import serve

    server = EmbeddedServer(data, port)
    shown = safe(homely(server.data))
    with stoppable() as signals:
        if not (server.data / "pgdata").exists():
            click.echo(f"Making a database in {shown}, this once ...")
        try:
            with signals.held():
                server.start()
            done = server.prepare()
            me = Named(server.owner_url, None, True, False)
            with session(me) as client:
                wanted = done.previous is None if samples is None else samples
                added = _samples(client) if wanted else []
                version = client.conn.info.parameter_status("server_version") or ""
                url = os.environ.get("ROWCRON_HANDLER_DATABASE_URL") or server.owner_url
                # Whoever inserts jobs here sits at this machine: what it serves is theirs already.
                near = os.environ.get("ROWCRON_HTTP_ALLOW") or "127.0.0.0/8,::1"
                settings = worker_settings(
                    {"handler_database_url": url, "http_allow": (near,)} | _set(options),
                    server.worker_url,
                    connections={"admin": server.admin_url},
                )
            connect = psql_line(server.owner_url)
            if server.tcp_url:
                connect += f"\nor:       psql {shlex.quote(server.tcp_url)}"
            banner(f"PostgreSQL {version.split()[0]}", f"data in {shown}", connect)
            if added:
                here = f" --data {shlex.quote(str(data))}" if data else ""
                click.echo(f"Three sample jobs were added: {typed()} job list{here}\n")
            with kept_alive(server), web_beside(server.owner_url if web else None):
                return serve(settings)
        finally:
            with undisturbed():
                server.stop()


def _on_given(given: Named, samples: bool, options: dict[str, Any]) -> int:
    from rowcron.install import install
    from rowcron.loop import serve

    assert given.database_url is not None
    settings = worker_settings(options, given.database_url)
    with session(given) as client:
        info = client.conn.info
        where = f"database {info.dbname} as {info.user}"
        version = info.parameter_status("server_version") or ""
    done = install(given.database_url)
    if samples:
        with session(given) as client:
            _samples(client)
    connect = "rowcron psql"
    if given.url_typed:
        connect += f" --database-url {shlex.quote(without_password(given.database_url))}"
    state = "installed in" if done.changed else "in"
    banner(f"PostgreSQL {version.split()[0]}", f"{state} {safe(where)}", connect)
    return serve(settings)


def _samples(client: Any) -> list[str]:
    from rowcron.samples import add_samples

    return add_samples(client)


def _set(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value not in (None, ())}


COMMANDS = {"up": up}
