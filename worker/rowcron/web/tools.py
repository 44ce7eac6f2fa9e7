"""/api/schedule, /api/upcoming and what concerns the whole."""

from __future__ import annotations

from typing import Annotated, Any

import psycopg
from fastapi import APIRouter, Query
from starlette.responses import Response

from rowcron.web.actor import Asker
from rowcron.web.answers import English, Held, Items, Me, Next, Queue, Upcoming, Verdict, Worker
from rowcron.web.auth import Who
from rowcron.web.bodies import Hold, Text
from rowcron.web.problems import documented, problem_of
from rowcron.web.raw import items, json_rows
from rowcron.web.simple import Start

router = APIRouter(prefix="/api", tags=["schedules"])
whole = APIRouter(prefix="/api", tags=["the whole"])
Zone = Annotated[str, Query(description="An IANA zone.", examples=["Europe/Berlin"])]
Schedule = Annotated[str, Query(examples=["0 3 * * mon-fri"])]

ME = """
  select
    current_user::text as role,
    pg_has_role(current_user, 'rowcron_user', 'usage') as author,
    pg_has_role(current_user, 'rowcron_operator', 'usage') as operator,
    pg_has_role(current_user, 'rowcron_viewer', 'usage') as viewer
"""
WORKERS = """
  select
    w.id, w.state, w.host, w.pid, w.login, w.version, w.queues, w.kinds, w.concurrency, w.running,
    w.started_at, w.seen_at, w.expires_at
  from rowcron.workers as w
  order by w.started_at, w.id
"""
QUEUES = """
  select
    q.queue, q.kind, q.workers, q.ready_up_to_1000, q.oldest_ready_age, q.next_run_at, q.held,
    q.ledger_overflows, q.overdue_for
  from rowcron.queue_health as q
  order by q.queue, q.kind
"""
_NEXT = """
  select to_json(n.at) #>> '{}' as at
  from rowcron.next_runs(
    schedule => %(schedule)s, count => %(count)s,
    after => coalesce(%(after)s::timestamptz, clock_timestamp()), timezone => %(timezone)s,
    seed => quote_ident(current_user) || '.' || %(name)s,
    on_gap => %(on_gap)s, on_fold => %(on_fold)s
  ) as n (at)
"""


async def next_of(asker: Asker, **values: Any) -> list[str]:
    """Return the next instants of a schedule as a job of that name would have them."""
    values = {"after": None, "name": None, "on_gap": None, "on_fold": None} | values
    return [row["at"] for row in await asker.rows(_NEXT, values)]


async def judge(asker: Asker, text: Text) -> Verdict:
    """Return what the database says of a schedule, for the moment in which it is typed."""
    try:
        async with asker.connection.transaction():
            english = await asker.value(
                "select rowcron.explain(%s, %s)", (text.schedule, text.timezone)
            )
            instants = await next_of(asker, **text.model_dump() | {"name": text.name or "name"})
    except (psycopg.Error, UnicodeEncodeError) as error:
        problem = problem_of(error)
        if problem.status >= 500:
            raise
        return Verdict(valid=False, problem=problem.model_dump(exclude_none=True))
    return Verdict(valid=True, english=english, next=instants)


@router.get("/schedule/next", response_model=Next, responses=documented())
async def next_runs(
    who: Who,
    schedule: Schedule,
    timezone: Zone = "UTC",
    count: Annotated[int, Query(ge=1, le=1000)] = 10,
    after: Start | None = None,
    name: Annotated[str | None, Query(description="The job's name: spreads H.")] = None,
    on_gap: str | None = None,
    on_fold: str | None = None,
) -> Any:
    """Tell the next instants of a schedule."""
    async with who.glance() as asker:
        return {
            "next": await next_of(
                asker, schedule=schedule, timezone=timezone, count=count, after=after, name=name,
                on_gap=on_gap, on_fold=on_fold,
            )
        }  # fmt: skip


@router.get("/schedule/explain", response_model=English, responses=documented())
async def explain(who: Who, schedule: Schedule, timezone: Zone = "UTC") -> Any:
    """Say a schedule in English."""
    async with who.glance() as asker:
        english = await asker.value("select rowcron.explain(%s, %s)", (schedule, timezone))
    return {"english": english}


@router.post("/schedule/validate", response_model=Verdict, responses=documented(413))
async def validate(who: Who, body: Text) -> Any:
    """Try a schedule while it is typed: valid, in English, the next instants; or what is wrong."""
    async with who.ask() as asker:
        return await judge(asker, body)


@whole.get("/upcoming", response_model=Items[Upcoming], responses=documented())
async def upcoming(
    who: Who,
    count: Annotated[int, Query(ge=1, le=1000)] = 50,
    skip: Annotated[int, Query(ge=0, le=100_000)] = 0,
) -> Response:
    """List what runs next, in order (`rowcron.upcoming_page`)."""
    async with who.glance() as asker:
        rows = await json_rows(
            asker,
            'select u."position", u.due_at, u.job, u.owner, u.queue, u.kind, u.priority, u.job_id,'
            " u.run_id, u.scheduled_for, u.source from rowcron.upcoming_page(%s, %s) as u",
            (count, skip),
        )
    return items(rows)


@whole.get("/workers", response_model=Items[Worker], responses=documented())
async def workers(who: Who) -> Response:
    """List the workers."""
    async with who.glance() as asker:
        return items(await json_rows(asker, WORKERS))


@whole.get("/queues", response_model=Items[Queue], responses=documented())
async def queues(who: Who) -> Response:
    """List each queue and kind: workers, what is ready, how old it is."""
    async with who.glance() as asker:
        return items(await json_rows(asker, QUEUES))


@whole.get("/me", response_model=Me, responses=documented())
async def me(who: Who) -> Any:
    """Tell as whom you act."""
    async with who.glance() as asker:
        return await asker.one(ME)


@whole.post("/hold", response_model=Held, responses=documented(409, 413))
async def hold(who: Who, body: Hold) -> Any:
    """Make everything stand still: nothing fires, nothing is claimed. For operators."""
    async with who.ask() as asker:
        await asker.rows("select rowcron.hold(%s)", (body.reason,))
    return {"held": True}


@whole.post("/release", response_model=Held, responses=documented(409))
async def release(who: Who) -> Any:
    """End a hold. For operators."""
    async with who.ask() as asker:
        await asker.rows("select rowcron.release()")
    return {"held": False}
