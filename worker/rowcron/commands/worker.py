"""`rowcron worker`."""

from __future__ import annotations

from typing import Any

import click

from rowcron.commands._base import command, with_database
from rowcron.commands._worker_options import worker_options, worker_settings
from rowcron.target import Named, find


@command("worker", "rowcron worker --queue mail --kind sql,http --concurrency 50")
@worker_options
@click.option(
    "--until-idle",
    is_flag=True,
    default=None,
    help="End, with 0, once nothing is ready, due or running here; what waits for later does not"
    " count. For tests and one-off drains.  [env var: ROWCRON_UNTIL_IDLE]",
    allow_from_autoenv=False,
)
@with_database
def worker(named: Named, **options: Any) -> None:
    """Execute jobs as they fall due.

    Its login needs the role rowcron_worker and nothing else. SIGINT or SIGTERM once: it claims no
    more and lets runs end, as long as --grace; twice: it stops at once. What has begun and does not
    end is a lost attempt (see --on-lost of `rowcron job add`); a SQL job is rolled back and given
    back. Start as many as you like.

    ROWCRON_CONNECTION_MAINTENANCE=URL in its environment is where SQL jobs with the connection
    `maintenance` run, outside of a transaction and in any database: VACUUM, CREATE INDEX
    CONCURRENTLY. A role's jobs may name it after, as whoever installed rowcron,
    `select rowcron.grant_connection('maintenance', 'alice')`. Likewise ROWCRON_SECRET_TOKEN is what
    ${secret:TOKEN} stands for, and `rowcron.grant_secret` who may name it.
    """
    target = find(named)
    settings = worker_settings(options, target.conninfo)
    from rowcron.loop import serve

    raise click.exceptions.Exit(serve(settings))


COMMANDS = {"worker": worker}
