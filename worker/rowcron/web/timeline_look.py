"""What the page Timeline asks: counted by the database into as many parts as the picture has."""

from __future__ import annotations

JOBS = 100  # of one page
# The jobs of the picture, how many there are, and what of them runs.
BASE = """
  with wanted as materialized (
    select j.id, j.name, j.owner::text as owner
    from rowcron.job as j
    where %(search)s = '' or strpos(lower(j.name), lower(%(search)s)) > 0
  ), jobs as materialized (
    select w.* from wanted as w order by w.name, w.id offset %(skip)s limit %(limit)s
  )
  select
    extract(epoch from clock_timestamp())::float8 as now,
    (select count(*) from wanted) as count,
    (select coalesce(json_agg(j order by j.name, j.id), '[]') from jobs as j) as jobs,
    (
      select coalesce(json_agg(json_build_array(r.job_id, extract(epoch from r.started_at)::float8)
        order by r.run_id), '[]')
      from (
        select a.job_id, a.run_id, a.started_at
        from rowcron.active as a
        where a.state = 'running'
        limit 5000
      ) as r
      where r.job_id in (select j.id from jobs as j)
    ) as running
"""
# What became of them: by job, outcome, and the part in which it began.
PAST = """
  select
    e.job_id, e.outcome, e.ran, floor(e.began / %(step)s::float8)::bigint as part,
    min(e.began) as began, max(e.ended) as ended, sum(e.occurrences)::bigint as n
  from (
    select
      l.job_id, l.outcome, l.run_id is not null as ran, l.occurrences,
      extract(epoch from case when l.run_id is not null
        then coalesce(l.started_at, l.scheduled_for, l.finished_at)
        else coalesce(l.first_scheduled_for, l.scheduled_for, l.finished_at) end)::float8 as began,
      extract(epoch from case when l.run_id is not null
        then l.finished_at else coalesce(l.scheduled_for, l.finished_at) end)::float8 as ended
    from rowcron.ledger as l
    where l.final and l.job_id = any (%(jobs)s::bigint[])
      and l.finished_at >= to_timestamp(%(since)s) and l.finished_at < to_timestamp(%(before)s)
  ) as e
  group by 1, 2, 3, 4
"""
AHEAD = """
  select p.job_id, p.state, p.part, p.n
  from rowcron.planned(to_timestamp(%(from)s), to_timestamp(%(until)s), %(parts)s, %(jobs)s) as p
"""
# Starts by minute: those to come of all jobs that the role sees, and those that were.
LOAD_NEXT = """
  select (%(from)s / 60)::bigint + p.part as minute, p.n
  from rowcron.planned_load(
    to_timestamp(%(from)s), to_timestamp(%(from)s) + interval '24:00:00', 1440, %(search)s
  ) as p
"""
LOAD_LAST = """
  select floor(extract(epoch from l.started_at)::float8 / 60)::bigint as minute, count(*) as n
  from rowcron.ledger as l
  where l.final and l.started_at is not null
    and l.finished_at >= to_timestamp(%(since)s) and l.finished_at < to_timestamp(%(before)s)
    and (%(search)s = '' or strpos(lower(l.job), lower(%(search)s)) > 0)
  group by 1
"""
