"""`rowcron web`."""

from __future__ import annotations

import click

from rowcron.commands._base import Failure, command, with_database
from rowcron.commands._port import PortOption
from rowcron.target import Named, find
from rowcron.text import safe


@command("web", "rowcron web --database-url postgresql://web_login@db/app --port 8080")
@click.option(
    "--host",
    default="127.0.0.1",
    metavar="ADDRESS",
    envvar="ROWCRON_WEB_HOST",
    show_envvar=True,
    help="Where to listen. [default: 127.0.0.1, this machine alone]",
)
@click.option(
    "--port",
    cls=PortOption,
    type=click.IntRange(0, 65535),
    default=8765,
    metavar="NUMBER",
    envvar="ROWCRON_WEB_PORT",
    show_envvar=True,
    help="The port; 0: any that is free. [default: 8765]",
)
@click.option(
    "--as-login/--no-as-login",
    default=None,
    help="Print a one-time URL with which one acts as the login of the database's address. "
    "Default: with the server of rowcron up.",
)
@click.option(
    "--trusted-host",
    multiple=True,
    metavar="NAME",
    help="A name under which browsers ask (repeatable), such as a proxy's.",
)
@click.option(
    "--cors-origin", multiple=True, metavar="ORIGIN", help="A site whose scripts may use the API."
)
@click.option(
    "--behind-proxy",
    is_flag=True,
    help="Believe what who connects says last in X-Forwarded-For and -Proto.",
)
@with_database
def web(
    named: Named,
    host: str,
    port: int,
    as_login: bool | None,
    trusted_host: tuple[str, ...],
    cors_origin: tuple[str, ...],
    behind_proxy: bool,
) -> None:
    """Serve live pages and the HTTP API.

    People sign in with their PostgreSQL role and password, programs send a token of
    rowcron.create_token(). For tokens its own login needs rowcron_web, and each role that makes
    them granted to it; for people it needs nothing.
    """
    target = find(named)
    from rowcron.connection import conninfo

    conninfo(target.conninfo)  # rather refused now than by each request
    try:
        from rowcron.web.serve import serve
        from rowcron.web.settings import WebSettings
    except ModuleNotFoundError as error:  # of the extra's packages, or its files' one
        raise Failure(
            f"rowcron web needs the module {safe(error.name or '')}",
            hint="pip install 'rowcron[web]'",
        ) from error
    embedded = target.named_by == "the embedded server of rowcron up" or target.named_by.endswith(
        ("--data", "ROWCRON_DATA")
    )
    serve(
        WebSettings(
            conninfo=target.conninfo,
            host=host,
            port=port,
            as_login=embedded if as_login is None else as_login,
            trusted_hosts=trusted_host,
            cors_origins=cors_origin,
            behind_proxy=behind_proxy,
        )
    )


COMMANDS = {"web": web}
