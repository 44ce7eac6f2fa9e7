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
    -- what it says about changes of time holds without policies of the job's own
    when j.on_gap is not null or j.on_fold is not null
      then split_part(
        rowcron.explain(j.schedule, j.timezone, j.owner || '.' || j.name), '; as it has', 1)
        || coalesce('; on_gap = ' || j.on_gap, '') || coalesce('; on_fold = ' || j.on_fold, '')
    else rowcron.explain(j.schedule, j.timezone, j.owner || '.' || j.name)
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
  from (
    select j.name
    union
    select c.old_values ->> 'name' from rowcron.change as c
    where c.job_id = j.id and c.action = 'update' and c.old_values ? 'name'
  ) as n (name)
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
  'ended last. state: scheduled, on demand, paused, or over (its schedule names nothing further).';

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

create or replace view rowcron.job_health with (security_invoker = true) as
select
  j.id,
  j.name,
  j.owner,
  j.enabled,
  h.runs,
  h.succeeded,
  h.failed,
  h.skipped,
  h.missed,
  h.last_outcome,
  h.last_success_at,
  h.median_duration,
  case
    when not j.enabled then 'paused'
    when h.last_outcome in ('failed', 'lost') then 'failing'
    when h.skipped_since_run >= 10 then 'stuck behind one run'
    when h.entries is null or h.entries = 0 then 'new'
    else 'well'
  end as verdict
from rowcron.job as j
left join lateral (
  select
    count(*) as entries,
    count(*) filter (where e.run_id is not null) as runs,
    count(*) filter (where e.outcome = 'succeeded') as succeeded,
    count(*) filter (where e.outcome in ('failed', 'lost')) as failed,
    count(*) filter (where e.outcome = 'skipped') as skipped,
    sum(e.occurrences) filter (where e.outcome = 'missed') as missed,
    (array_agg(e.outcome order by e.finished_at desc) filter (where e.run_id is not null))[1] as
      last_outcome,
    max(e.finished_at) filter (where e.outcome = 'succeeded') as last_success_at,
    percentile_cont(0.5) within group (order by e.finished_at - e.started_at)
      filter (where e.outcome = 'succeeded') as median_duration,
    count(*) filter (
      where e.outcome = 'skipped' and e.finished_at > coalesce(e.last_run_end, '-infinity')
    ) as skipped_since_run
  from (
    select l.*, max(l.finished_at) filter (where l.run_id is not null) over () as last_run_end
    from (
      select l.*
      from (
          select j.name
          union
          select c.old_values ->> 'name' from rowcron.change as c
          where c.job_id = j.id and c.action = 'update' and c.old_values ? 'name'
        ) as n (name)
      cross join lateral (
        select l.run_id, l.outcome, l.occurrences, l.started_at, l.finished_at
        from rowcron.ledger as l
        where l.job = n.name and l.job_id = j.id and l.final
        order by l.finished_at desc
        limit 100
      ) as l
      order by l.finished_at desc
      limit 100
    ) as l
  ) as e
) as h on true;
comment on view rowcron.job_health is 'How each job fares, by its last 100 entries in the ledger.';

create or replace view rowcron.workers with (security_invoker = true) as
select
  w.id,
  case
    when w.stopping then 'stopped'
    when w.lost_at is not null or w.expires_at <= clock_timestamp() then 'lost'
    when w.asleep then 'asleep'
    else 'awake'
  end as state,
  w.host,
  w.pid,
  w.login,
  w.version,
  w.queues,
  w.kinds,
  w.concurrency,
  (select count(*) from rowcron.run as r where r.worker_id = w.id
    and r.state = 'running') as running,
  w.started_at,
  w.seen_at,
  w.expires_at
from rowcron.worker as w;
comment on view rowcron.workers is 'The workers, and how many runs that you can see each of them '
  'holds.';

create or replace function rowcron._ledger_overflows() returns boolean
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
  select exists (select from rowcron.ledger_default)
$$;
comment on function rowcron._ledger_overflows()
  is 'Whether the ledger''s default partition holds entries whose day has no partition.';

create or replace view rowcron.queue_health with (security_invoker = true) as
select
  l.queue,
  l.kind,
  (
    select count(*) from rowcron.worker as w
    where w.lost_at is null and w.expires_at > clock_timestamp()
      and l.kind = any (w.kinds) and (w.queues is null or l.queue = any (w.queues))
  ) as workers,
  (select count(*) from (
    select from rowcron.run as r where r.queue = l.queue and r.kind = l.kind and r.state = 'ready'
      limit 1000
  ) as r) as ready_up_to_1000,
  clock_timestamp() - (
    select min(r.due_at) from (
      select r.due_at from rowcron.run as r
      where r.queue = l.queue and r.kind = l.kind and r.state = 'ready' limit 1000
    ) as r
  ) as oldest_ready_age,
  (
    select min(a.next_run_at) from rowcron.agenda as a where a.queue = l.queue and a.kind = l.kind
  ) as next_run_at,
  h.held,
  h.ledger_overflows,
  'rowcron_owner' = 'rowcron_gate' as single_role  -- noqa: ST10
from rowcron.lane as l
-- once, not for each lane
cross join (
  select
    rowcron._held() || '; select rowcron.release(); ends it' as held,
    rowcron._ledger_overflows() as ledger_overflows
  limit 1
) as h;
comment on view rowcron.queue_health is
  'Each queue and kind: workers, what is ready, how old, when something is due next; whether all '
    'is held, whether the ledger lacks a partition, and whether one role plays all parts (rowcron '
      'install --single-role), so that no job is kept from another.';

reset role;
