"""What a worker says when it begins: what it takes, of whom, over how many connections."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from rowcron.handlers import Handler
from rowcron.log import Log
from rowcron.settings import WorkerSettings


def offered(handlers: Mapping[str, Handler], settings: WorkerSettings) -> set[str]:
    """Return the names of the handlers that this worker can call.

    Those that ask for a connection are left to workers that have some to give. So are SQL jobs over
    a connection of another worker's configuration: its own it names as handlers of a sort.
    """
    connected = settings.handler_database_url is not None
    names = {name for name, each in handlers.items() if each.connection is None or connected}
    return names | {f"connection {name}" for name in settings.connections}


def introduce(
    log: Log, settings: WorkerSettings, worker: UUID, handlers: Mapping[str, Handler]
) -> None:
    """Log what this worker takes, and which handlers it does not offer."""
    sql = min(settings.sql_connections, settings.concurrency) if "sql" in settings.kinds else 0
    handed = 0
    if settings.handler_database_url is not None and "python" in settings.kinds:
        handed = 2 * settings.handler_connections
    queues = "all queues" if settings.queues is None else f"queues {', '.join(settings.queues)}"
    names = offered(handlers, settings)
    log.event(
        "worker",
        f"taking {settings.concurrency} runs at a time, {queues}, {', '.join(settings.kinds)};"
        f" up to {5 + sql + handed} connections",
        worker=str(worker),
        queues=settings.queues,
        kinds=settings.kinds,
        handlers=sorted(names),
        connections=5 + sql + handed,
    )
    withheld = sorted(handlers.keys() - names)
    if withheld and "python" in settings.kinds:
        log.event(
            "withheld",
            f"not offered, because they ask for a connection: {', '.join(withheld)};"
            " with --handler-database-url they have one",
            "warning",
            handlers=withheld,
        )
