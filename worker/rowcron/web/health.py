"""Whether this process and its database are there, and figures for Prometheus."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from rowcron import __version__
from rowcron.web.actor import Asker, Record
from rowcron.web.answers import Health
from rowcron.web.auth import Who
from rowcron.web.problems import documented
from rowcron.web.state import state_of

router = APIRouter(prefix="/api", tags=["health"])

_WORKERS = "select w.state, count(*) as n, sum(w.running) as running from rowcron.workers as w"
# The same bounds as the views: figures must not become the largest cost of the database.
_ENDED = """
  select l.outcome, count(*) as n
  from (
    select h.outcome from rowcron.history as h
    where h.finished_at > clock_timestamp() - interval '5 minutes'
    order by h.finished_at desc
    limit 10000
  ) as l
  group by l.outcome
"""
# Half a millisecond a job that has a history.
_JOBS = """
  select h.verdict, count(*) as n
  from rowcron.job_health as h
  where h.id <= (
    select max(j.id) from (select v.id from rowcron.job as v order by v.id limit 1000) as j
  )
  group by h.verdict
"""


@router.get("/health", response_model=Health)
async def health() -> Any:
    """Answer, whatever the database does."""
    return {"status": "ok", "version": __version__}


@router.get(
    "/ready",
    response_model=Health,
    responses={503: documented()[503]},
)
async def ready(request: Request) -> Any:
    """Answer 200 if the database can be asked, else 503."""
    async with state_of(request).probe.connection() as connection:
        await Asker(connection).rows("select 1")
    return {"status": "ok", "version": __version__}


@router.get(
    "/metrics",
    response_class=PlainTextResponse,
    responses=documented() | {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(request: Request, who: Who) -> Response:
    """Tell figures of what your role may see, as Prometheus reads them."""
    async with who.ask() as asker:
        text = await _figures(asker)
    live = state_of(request).live
    lines = [
        "# HELP rowcron_web_viewers Pages that are open and live.",
        "# TYPE rowcron_web_viewers gauge",
        f"rowcron_web_viewers {live.viewers}",
        "# HELP rowcron_web_looks_total Statements that all live pages together have cost.",
        "# TYPE rowcron_web_looks_total counter",
        f"rowcron_web_looks_total {live.looks}",
    ]
    return PlainTextResponse(
        text + "\n".join(lines) + "\n", media_type="text/plain; version=0.0.4; charset=utf-8"
    )


async def _figures(asker: Asker) -> str:
    queues = await asker.rows(
        "select q.queue, q.kind, q.workers, q.ready_up_to_1000,"
        " coalesce(extract(epoch from q.oldest_ready_age), 0)::float8 as age,"
        " coalesce(extract(epoch from q.overdue_for), 0)::float8 as overdue,"
        " q.held is not null as held, q.ledger_overflows from rowcron.queue_health as q"
    )
    jobs = await asker.rows(_JOBS)
    workers = await asker.rows(_WORKERS + " group by w.state")
    ended = await asker.rows(_ENDED)
    lines: list[str] = []

    def metric(name: str, text: str, rows: list[Record], value: str, *labels: str) -> None:
        lines.append(f"# HELP rowcron_{name} {text}")
        lines.append(f"# TYPE rowcron_{name} gauge")
        for row in rows:
            marks = ",".join(f'{label}="{escape(row[label])}"' for label in labels)
            series = f"{name}{{{marks}}}" if labels else name
            lines.append(f"rowcron_{series} {float(row[value] or 0):g}")

    metric("queue_workers", "Live workers of a queue and kind.", queues, "workers", "queue", "kind")
    metric(
        "queue_ready", "Runs that are ready, counted up to 1000.", queues, "ready_up_to_1000",
        "queue", "kind",
    )  # fmt: skip
    metric("queue_oldest_ready_seconds", "Age of the oldest.", queues, "age", "queue", "kind")
    metric(
        "queue_overdue_seconds", "For how long what is due has been so, fired or not.", queues,
        "overdue", "queue", "kind",
    )  # fmt: skip
    metric("jobs", "Jobs by how they fare, of the first 1000.", jobs, "n", "verdict")
    metric("workers", "Workers by state.", workers, "n", "state")
    metric("running", "Runs that they hold.", workers, "running", "state")
    metric("ended_5m", "Entries of the last 5 minutes, up to 10000.", ended, "n", "outcome")
    held = [{"held": any(q["held"] for q in queues)}]
    overflows = [{"overflows": any(q["ledger_overflows"] for q in queues)}]
    metric("held", "1 while everything stands still.", held, "held")
    metric("ledger_overflows", "1 while the ledger lacks a partition.", overflows, "overflows")
    return "\n".join(lines) + "\n"


def escape(text: Any) -> str:
    """Return a label's value as Prometheus writes it."""
    return str(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
