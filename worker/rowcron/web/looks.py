"""What the pages show, read with the rights of whoever looks. Every list is bounded."""

from __future__ import annotations

from typing import Any

from rowcron.web.actor import Asker, Record
from rowcron.web.marks import MARKS
from rowcron.web.problems import Refusal
from rowcron.web.queries import CHANGES, JOB, STATE

# What is, and the marks of each job that somebody looks at: one statement, however many look.
NOW = f"""
  with instant as materialized (
    select clock_timestamp() as at
  ), waiting as materialized (
    select w.* from rowcron.waiting_page(case when %(now)s then 1001 else 0 end) as w
  )
  select
    i.at,
    case when %(now)s then json_build_object(
      'held', (select s.value from rowcron.setting as s where s.name = 'hold'),
      'workers', (
        select count(*) from rowcron.workers as w where w.state in ('awake', 'asleep')
      ),
      'running', (
        select coalesce(json_agg(r order by r.started_at, r.run_id), '[]') from (
          select
            a.run_id, a.job, a.owner, a.job_id, a.attempt, a.scheduled_for, a.started_at,
            a.cancel_asked_by
          from rowcron.active as a
          where a.state = 'running'
          order by a.started_at, a.run_id
          limit 100
        ) as r
      ),
      'running_count', (
        select count(*) from (
          select from rowcron.active as a where a.state = 'running' limit 1001
        ) as r
      ),
      'waiting', (
        select coalesce(json_agg(w order by w.due_at, w.run_id), '[]')
        from (select p.* from waiting as p order by p.due_at, p.run_id limit 20) as w
      ),
      'waiting_count', (select count(*) from waiting),
      'due', (
        select coalesce(json_agg(u order by u.due_at, u.priority desc, u.job_id, u.run_id), '[]')
        from rowcron.next_page(21, '-infinity') as u
        where u.due_at <= i.at
      ),
      'next', (
        select coalesce(json_agg(u order by u.due_at, u.priority desc, u.job_id, u.run_id), '[]')
        from rowcron.next_page(20, i.at) as u
      )
    )::text end as now,
    {MARKS} as marks
  from instant as i
"""
# What ended lately; asked less often where it is dear.
_ENTRY = (
    "e.run_id, e.job, e.owner, e.job_id, e.outcome, e.reason, e.finished_at, e.occurrences,"
    " e.scheduled_for, left(e.error, 200) as error, e.finished_at - e.started_at as duration"
)
_TROUBLE = f"""
  select {_ENTRY}
  from rowcron.ledger as e
  where e.final and e.outcome = '%s' and e.finished_at > now() - interval '24 hours'
  order by e.finished_at desc
  limit 10
"""
LATELY = f"""
  select json_build_object(
    'ended', (
      select coalesce(json_agg(l order by l.finished_at desc), '[]') from (
        select {_ENTRY}
        from rowcron.ended_page(12, now() - interval '24 hours') as e
      ) as l
    ),
    'failed', (
      select coalesce(json_agg(l order by l.finished_at desc), '[]') from (
        ({_TROUBLE % "failed"}) union all ({_TROUBLE % "lost"})
      ) as l
    ),
    'missed', (
      select coalesce(json_agg(l order by l.finished_at desc), '[]')
      from ({_TROUBLE % "missed"}) as l
    )
  )::text as lately
"""
_STATE = (
    "select s.*, extract(epoch from s.median_duration)::float8 as median_seconds"
    f" from ({STATE}) as s"
)
ENTRIES = """
  select
    h.run_id, h.attempt, h.outcome, h.reason, h.error, h.scheduled_for, h.first_scheduled_for,
    h.occurrences, h.started_at, h.finished_at,
    extract(epoch from h.finished_at - h.started_at)::float8 as seconds
  from rowcron._names_borne(%(id)s, %(name)s) as n (name)
  cross join lateral (
    select
      e.run_id, e.attempt, e.outcome, e.reason, e.error, e.scheduled_for, e.first_scheduled_for,
      e.occurrences, e.started_at, e.finished_at
    from rowcron.ledger as e
    -- no equation of numbers, as in job_health: all that the job has would be read and sorted
    where e.job = n.name and coalesce(e.job_id = %(id)s, false) and e.final
    order by e.finished_at desc
    limit 60
  ) as h
  order by h.finished_at desc
  limit 60
"""
_LIVE = """
  select
    a.run_id, a.state, a.waits_for, a.attempt, a.due_at, a.started_at, a.scheduled_for,
    a.cancel_asked_by
  from rowcron.active as a
  where a.job_id = %(id)s
  order by a.state = 'running' desc, a.due_at, a.run_id
  limit 30
"""
# What is overdue, and what is to come by the planner, up to where the schedule alone names ten.
_NEXT_TEN = """
  select
    n.at, n.state,
    to_char(n.at at time zone %(timezone)s, 'Dy DD Mon YYYY HH24:MI:SS') as local
  from (
    select a.next_run_at as at, 'due' as state
    from rowcron.agenda as a
    where a.job_id = %(id)s and a.enabled and a.next_run_at <= clock_timestamp()
    union all
    select o.scheduled_for, o.state
    from rowcron.job as j
    join rowcron.agenda as a on a.job_id = j.id
    cross join lateral rowcron._outlook(j, a, clock_timestamp(), coalesce(
      greatest(a.next_run_at, (
        select max(r.at)
        from rowcron.next_runs(
          schedule => j.schedule, count => 10, timezone => j.timezone,
          after => greatest(clock_timestamp(), j.starts_at - interval '1 microsecond'),
          anchor => coalesce(j.starts_at, j.created_at), seed => %(seed)s,
          on_gap => j.on_gap, on_fold => j.on_fold
        ) as r (at)
      )) + interval '1 microsecond', clock_timestamp()
    )) as o
    where j.id = %(id)s and o.state <> 'due'
  ) as n
  order by n.at
  limit 10
"""


async def look_at_job(asker: Asker, job: int) -> Record:
    """Return all that the page of a job shows. Raises `Refusal` 404."""
    found = await asker.one(
        "select j.*, jsonb_pretty(j.args) as args_text, j.owner = rowcron._me() as mine,"
        " pg_has_role(current_user, 'rowcron_operator', 'usage') as operator"
        f" from ({JOB}) as j",
        (job,),
    )
    if found is None:
        raise Refusal(404, f"there is no job {job}", detail="Or none that your role may see.")
    found["owner"] = str(found["owner"])
    values: dict[str, Any] = found | {"seed": f"{found['owner']}.{found['name']}"}
    state = await asker.one(_STATE, (job, job))
    over = state is None or (found["enabled"] and state["next_run_at"] is None)
    over = over or found["schedule"] is None
    return {
        "job": found,
        "may_ask": found["mine"] or found["operator"],
        "state": state,
        "gates": await asker.rows(
            "select w.gate, w.holds, w.detail, w.hint"
            " from rowcron.why_not_running(%(name)s, %(owner)s) as w",
            values,
        ),
        "entries": await asker.rows(ENTRIES, values),
        "live": await asker.rows(_LIVE, values),
        "ahead": [] if over else await asker.rows(_NEXT_TEN, values),
        "changes": await asker.rows(CHANGES, (job, 20)),
    }
