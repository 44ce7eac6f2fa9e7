"""`rowcron up`: everything here, in the foreground."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import click

from rowcron import __version__
from rowcron.commands._base import (
    command,
    data_option,
    named,
    session,
)
from rowcron.commands._worker_options import worker_options, worker_settings
from rowcron.target import Named
from rowcron.text import safe


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
    type=click.IntRange(1, 65535),
    metavar="NUMBER",
    envvar="ROWCRON_PORT",
    show_envvar=True,
    help="Let the embedded server listen on 127.0.0.1, too, with a password.",
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
    **options: Any,
) -> None:
    """Start everything here: a database, a worker, sample jobs.

    Without --database-url it starts a PostgreSQL of its own, which is kept in --data and stops
    with the command. Ctrl-C lets runs end, a second one stops at once.
    """
    given = named(database_url, data)
    if given.database_url and not given.data_typed:
        if port is not None:
            raise click.UsageError("--port is the embedded server's; --database-url names another")
        code = _on_given(given, bool(samples), options)
    else:
        code = _on_embedded(given.data, port, samples, options)
    raise click.exceptions.Exit(code)


def _on_embedded(
    data: Path | None, port: int | None, samples: bool | None, options: dict[str, Any]
) -> int:
    from rowcron.embedded import EmbeddedServer
    from rowcron.loop import serve

    server = EmbeddedServer(data, port)
    shown = safe(_homely(server.data))
    with _stoppable():
        if not (server.data / "pgdata").exists():
            click.echo(f"Making a database in {shown}, this once ...")
        try:
            server.start()
            done = server.prepare()
            me = Named(server.owner_url, None, True, False)
            with session(me) as client:
                wanted = done.previous is None if samples is None else samples
                added = _samples(client) if wanted else []
                version = client.conn.info.parameter_status("server_version") or ""
                url = os.environ.get("ROWCRON_HANDLER_DATABASE_URL") or server.owner_url
                settings = worker_settings(
                    {"handler_database_url": url} | _set(options),
                    server.worker_url,
                    connections={"admin": server.admin_url},
                )
            click.echo(
                f"\nrowcron {__version__} on PostgreSQL {version.split()[0]}, data in {shown}"
            )
            _banner(server.psql_command, bool(added))
            if server.tcp_url:
                click.echo(f"Over TCP:  psql {shlex.quote(server.tcp_url)}\n")
            return serve(settings)
        finally:
            with _undisturbed():
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
    state = "installed" if done.changed else "there already"
    click.echo(f"rowcron {__version__}, {state}, on PostgreSQL {version.split()[0]}, {safe(where)}")
    added: list[str] = []
    if samples:
        with session(given) as client:
            added = _samples(client)
    _banner("rowcron psql", bool(added))
    return serve(settings)


def _samples(client: Any) -> list[str]:
    from rowcron.samples import add_samples

    return add_samples(client)


def _banner(connect: str, added: bool) -> None:
    click.echo(f"Connect:  {click.style(connect, bold=True)}\n")
    click.echo("Insert a row, get a job:")
    click.echo("  insert into rowcron.job (name, schedule, command)")
    click.echo("  values ('hello', '@every 5 seconds', 'select now()');\n")
    if added:
        click.echo(
            "Three sample jobs are there: rowcron job list shows them, --no-samples has none."
        )
    click.echo("Ctrl-C stops.\n")


def _set(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value not in (None, ())}


def _homely(path: Path) -> str:
    try:
        return "~/" + str(path.relative_to(Path.home()))
    except (ValueError, RuntimeError):
        return str(path)


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """Until the worker handles signals itself, SIGTERM ends as Ctrl-C does: the server stops.

    A terminal that is closed (SIGHUP) asks to stop, as SIGTERM does.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    def terminate(number: int, frame: FrameType | None) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    before = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, interrupt),
        signal.SIGHUP: signal.signal(signal.SIGHUP, terminate),
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Stopping the server takes a moment, and an impatient signal must not leave it running."""
    before = {
        number: signal.signal(number, signal.SIG_IGN)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


COMMANDS = {"up": up}
