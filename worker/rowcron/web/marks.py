"""How the page of a job tells whether what it shows is still so: a mark, which is compared."""

from __future__ import annotations

import json

from rowcron.web.actor import Asker

GONE = "gone"  # the mark of a job that is not there
# The names that a job has borne: what became of it stands in the ledger under each.
NAMES = """
  (
    select j.name
    union
    select c.old_values ->> 'name' from rowcron.change as c
    where c.job_id = j.id and c.action = 'update' and c.old_values ? 'name'
  ) as n (name)
"""
# Of each job that somebody looks at its mark (null: it is gone), and one of its runs alone. Some of
# what a page says changes though nobody writes: when workers die, when a window opens or closes,
# and for how long, behind how many others, a run has been ready.
MARKS = f"""
  (
    select coalesce(json_object_agg(w.id, json_build_array(case when j.id is not null then md5(row(
      j.updated_at, g.next_run_at, b.became,
      (select s.value from rowcron.setting as s where s.name = 'hold'),
      rowcron._is_overdue(j.id),
      rowcron._served(j.queue, j.kind, null),
      rowcron._served(j.queue, j.kind, case when j.kind = 'python' then j.command
        else 'connection ' || lower(j.connection) end),
      j.starts_at > clock_timestamp(),
      j.ends_at <= clock_timestamp(),
      case when exists (
        select from rowcron.run as r where r.job_id = j.id and r.state = 'ready'
      ) then floor(extract(epoch from clock_timestamp()) / 10) end
    )::text) end, b.became)), '{{}}')::text
    from unnest(%(jobs)s::bigint[]) as w (id)
    left join rowcron.job as j on j.id = w.id
    left join rowcron.agenda as g on g.job_id = j.id
    cross join lateral (
      select md5(row(
        (
          select string_agg(concat_ws('.', r.id, r.state, r.waits_for, r.attempt,
            r.cancel_asked_by), ',' order by r.id)
          from (
            select v.id, v.state, v.waits_for, v.attempt, v.cancel_asked_by
            from rowcron.run as v where v.job_id = w.id limit 50
          ) as r
        ),
        (
          select max(l.finished_at)
          from {NAMES}
          join rowcron.ledger as l on l.job = n.name and l.job_id = j.id
        )
      )::text) as became
    ) as b
  )
"""


async def marks_of(asker: Asker, job: int) -> tuple[str, str]:
    """Return the marks of a job and of its runs; read them before what the page shows."""
    mark, became = json.loads(await asker.value(f"select {MARKS} as marks", {"jobs": [job]}))[
        str(job)
    ]
    return mark or GONE, became
