-- What a person asks. The views show what row security lets the asking role see; each is a plain
-- select that can be read with \d+. Counts are bounded, because a dashboard must not become the
-- largest cost of the database.

set role rowcron_owner;

create or replace view rowcron.jobs with (security_invoker = true) as
select
  j.id,
  j.name,
  j.owner,
  j.kind,
  j.schedule,
  j.timezone,
  case
    when j.schedule is null then 'on demand'
    else rowcron._explain_job(a.parsed, j.schedule, j.timezone, j.on_gap, j.on_fold)
  end as english,
  j.enabled,
  j.queue,
  j.priority,
  a.next_run_at,
  a.last_run_at,
  l.outcome as last_outcome,
  l.finished_at as last_finished_at,
  j.command,
  j.description,
  j.created_at,
  j.updated_at,
  case
    when not j.enabled then 'paused'
    when rowcron._is_overdue(j.id) then 'overdue'
    when j.schedule is null then 'on demand'
    when a.next_run_at is not null then 'scheduled'
    when a.booted_at is not null and (a.runs_fired >= j.max_runs or j.ends_at <= clock_timestamp())
      is not true then 'scheduled'
    when (a.parsed).form = 'after' and exists (
      select from rowcron.run as r where r.job_id = j.id and r.scheduled_for is not null
    ) then 'scheduled'  -- from the end of that run
    else 'over'
  end as state
from rowcron.job as j
left join rowcron.agenda as a on a.job_id = j.id
left join lateral (
  select e.outcome, e.finished_at
  from rowcron._names_borne(j.id, j.name) as n (name)
  cross join lateral (
    select l.outcome, l.finished_at
    from rowcron.ledger as l
    where l.job = n.name and l.job_id = j.id and l.final and l.run_id is not null
    order by l.finished_at desc
    limit 1
  ) as e
  order by e.finished_at desc
  limit 1
) as l on true;
comment on view rowcron.jobs is 'A job a row: what it is, in English, when it is next, how it '
  'ended last. state: scheduled, on demand, paused, overdue (due for more than a minute, and not '
  'begun), or over (its schedule names nothing further).';
comment on column rowcron.jobs.owner is 'The job''s owner; compared as job.owner is.';

drop function if exists rowcron._explain(rowcron._parsed, text, text);  -- the view had it

create or replace view rowcron.upcoming with (security_invoker = true) as
select
  a.next_run_at as due_at,
  j.name as job,
  j.owner,
  j.queue,
  j.kind,
  j.priority,
  a.job_id,
  null::bigint as run_id,
  a.next_run_at as scheduled_for,
  'schedule' as source
from rowcron.agenda as a
join rowcron.job as j on j.id = a.job_id
where a.next_run_at is not null
union all
select
  r.due_at,
  r.job,
  r.owner,
  r.queue,
  r.kind,
  r.priority,
  r.job_id,
  r.id,
  r.scheduled_for,
  'run' as source
from rowcron.run as r
where r.state = 'ready' or (r.state = 'waiting' and r.waits_for <> 'resume')
order by 1, 6 desc, 7, 8;
comment on view rowcron.upcoming is
  'What runs next, in order (due_at, priority desc, id): each job''s next occurrence, and the runs '
    'that wait or are ready.';
comment on column rowcron.upcoming.owner is 'The job''s owner; compared as job.owner is.';

create or replace view rowcron.active with (security_invoker = true) as
select
  r.id as run_id,
  r.job,
  r.owner,
  r.queue,
  r.kind,
  r.state,
  r.waits_for,
  r.attempt,
  r.scheduled_for,
  r.due_at,
  r.priority,
  r.started_at,
  clock_timestamp() - r.started_at as running_for,
  r.worker_id,
  r.cancel_asked_by,
  r.job_id,
  r.key,
  r.retry_of,
  r.created_at,
  r.args,
  r.retry_for
from rowcron.run as r;
comment on view rowcron.active is 'What is waiting, ready or running now.';
comment on column rowcron.active.owner is 'The job''s owner; compared as job.owner is.';

create or replace view rowcron.history with (security_invoker = true) as
select
  l.job,
  l.owner,
  l.run_id,
  l.attempt,
  l.scheduled_for,
  l.first_scheduled_for,
  l.occurrences,
  l.due_at,
  l.started_at,
  l.finished_at,
  l.finished_at - l.started_at as duration,
  l.outcome,
  l.reason,
  l.error,
  l.output,
  l.result,
  l.queue,
  l.kind,
  l.worker_id,
  l.job_id,
  l.retry_of,
  l.key,
  l.args,
  l.retry_for
from rowcron.ledger as l
where l.final
order by l.finished_at desc;
comment on view rowcron.history is
  'One row a run, and one for occurrences that did not run; newest first. attempt tells how many '
    'attempts it took; all of them stand in rowcron.ledger.';
comment on column rowcron.history.owner is 'The job''s owner; compared as job.owner is.';

reset role;
