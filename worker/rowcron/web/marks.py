"""How the page of a job or a run tells whether what it shows is still so: a mark, compared."""

from __future__ import annotations

import json
from collections.abc import Iterable

from rowcron.web.actor import Asker

GONE = "gone"  # the mark of what is not there
RUN = "run "  # what the topic of a run begins with; that of a job is its number alone
# Of a job all that its page shows of its live runs: those in its list, in the order of that list,
# and what is told of them all.
_ITS_RUNS = """
        (
          select string_agg(concat_ws(' ', r.id, r.state, r.waits_for, r.attempt, r.due_at,
            r.cancel_asked_by), ',' order by r.id)
          from (
            select v.id, v.state, v.waits_for, v.attempt, v.due_at, v.cancel_asked_by
            from rowcron.run as v where v.job_id = w.id
            order by v.state = 'running' desc, v.due_at, v.id
            limit 50
          ) as r
        ),
        (
          select row(count(*), count(*) filter (where v.state = 'running'), max(v.id),
            min(v.scheduled_for), min(v.due_at) filter (where v.state <> 'running'))::text
          from rowcron.run as v where v.job_id = w.id
        )
"""
# Of a job the gates of why_not_running that shut and open though nobody writes to it: what its
# owner has and may.
_ITS_GRANTS = """
        rowcron._lacks_owner(j),
        rowcron._may_own_kind(j.owner, j.kind),
        rowcron._may_use_connection(j.owner, j.connection),
        rowcron._ungranted_secret(j)
"""
# Of each job and run that somebody looks at its mark (null: it is not there), and whether the job
# is there. Some of what a page says changes though nobody writes: when workers die, when a window
# opens or closes, when a role is granted to the owner, and for how long, behind how many others, a
# run has been ready.
MARKS = f"""
  (
    select coalesce(json_object_agg(m.topic, json_build_array(m.mark, m.there)), '{{}}')::text
    from (
      select w.id::text as topic, j.id is not null as there,
        case when j.id is not null then md5(row(
        j.updated_at, g.next_run_at,
        {_ITS_RUNS},
        {_ITS_GRANTS},
        (
          select max(l.finished_at)
          from rowcron._names_borne(j.id, j.name) as n (name)
          join rowcron.ledger as l on l.job = n.name and l.job_id = j.id
        ),
        (select s.value from rowcron.setting as s where s.name = 'hold'),
        rowcron._is_overdue(j.id),
        rowcron._served(j.queue, j.kind, null),
        rowcron._served(j.queue, j.kind, rowcron._handler(j.kind, j.command, j.connection)),
        j.starts_at > clock_timestamp(),
        j.ends_at <= clock_timestamp(),
        case when exists (
          select from rowcron.run as r where r.job_id = j.id and r.state = 'ready'
        ) then floor(extract(epoch from clock_timestamp()) / 10) end
      )::text) end as mark
      from unnest(%(jobs)s::bigint[]) as w (id)
      left join rowcron.job as j on j.id = w.id
      left join rowcron.agenda as g on g.job_id = j.id
      union all
      select '{RUN}' || w.id, r.id is not null and j.id is not null or r.id is null and e.n > 0,
        case when r.id is not null or e.n > 0 then md5(row(
        r.state, r.waits_for, r.attempt, r.due_at, r.started_at, e.n, e.last
      )::text) end
      from unnest(%(runs)s::bigint[]) as w (id)
      left join rowcron.run as r on r.id = w.id
      left join rowcron.job as j on j.id = r.job_id
      cross join lateral (
        select count(*) as n, max(l.finished_at) as last
        from rowcron.ledger as l where l.run_id = w.id
      ) as e
    ) as m
  )
"""


def asked(topics: Iterable[str]) -> dict[str, list[int]]:
    """Return whose marks are asked for: the values that `MARKS` takes."""
    names = list(topics)
    return {
        "jobs": [int(name) for name in names if not name.startswith(RUN)],
        "runs": [int(name.removeprefix(RUN)) for name in names if name.startswith(RUN)],
    }


async def mark_of(asker: Asker, topic: str) -> str:
    """Return the mark of a job or a run; read it before what the page shows."""
    mark, _ = json.loads(await asker.value(f"select {MARKS} as marks", asked([topic])))[topic]
    return mark or GONE
