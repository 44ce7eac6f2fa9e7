"""Statements that both the pages and the API send."""

from __future__ import annotations

JOB = """
  select
    j.id, j.name, j.owner, j.kind, j.command, j.args, j.schedule,
    (select v.english from rowcron.jobs as v where v.id = j.id) as english,
    j.timezone, j.starts_at, j.ends_at, j.max_runs, j.queue, j.priority, j.enabled, j.timeout,
    j.max_attempts, j.retry_delay, j.retry_backoff, j.max_retry_delay, j.retry_jitter, j.on_missed,
    j.missed_grace, j.max_missed, j.on_overlap, j.max_running, j.on_lost, j.max_lost, j.on_gap,
    j.on_fold, j.jitter, j.connection, j.keep, j.description, j.created_at, j.updated_at
  from rowcron.job as j
  where j.id = %s
"""
STATE = """
  select
    j.id, j.enabled, j.next_run_at, j.last_run_at, h.verdict, h.runs, h.succeeded, h.failed,
    h.skipped, coalesce(h.missed, 0) as missed, h.last_outcome, h.last_success_at,
    h.median_duration, j.state
  from rowcron.jobs as j
  join rowcron.job_health as h on h.id = j.id
  where j.id = %s and h.id = %s
"""
CHANGES = """
  select c.id, c.changed_at, c.changed_by, c.action, c.run_id, c.old_values, c.new_values
  from rowcron.change as c
  where c.job_id = %s
  order by c.id desc
  limit %s
"""
LIVE = """
  select
    a.run_id, a.job_id, a.job, a.owner, a.queue, a.kind, a.state, a.waits_for, a.attempt,
    a.scheduled_for, a.due_at, a.started_at, null::timestamptz as finished_at, null as reason,
    null as error, null::jsonb as result, a.retry_of, a.key, a.args, a.worker_id
  from rowcron.active as a
"""
ENDED = """
  select
    l.run_id, l.job_id, l.job, l.owner, l.queue, l.kind, l.outcome, null, l.attempt,
    l.scheduled_for, l.due_at, l.started_at, l.finished_at, l.reason, l.error, l.result, l.retry_of,
    l.key, l.args, l.worker_id
  from rowcron.history as l
"""
RUN = f"""
  {LIVE} where a.run_id = %(run)s
  union all
  {ENDED} where l.run_id = %(run)s
"""
ATTEMPTS = """
  select
    l.attempt, l.final, l.outcome, l.due_at, l.started_at, l.finished_at, l.reason, l.error,
    l.output, l.result, l.worker_id
  from rowcron.ledger as l
  where l.run_id = %s
  order by l.finished_at
"""
