-- Time becomes runs. Firing takes jobs whose occurrence has come, decides what becomes of each
-- occurrence that is due (run, missed, skipped), moves the job on, all in one statement a chunk,
-- and compares nothing with any clock but the instant it is given. Races: jobs are locked with SKIP
-- LOCKED, so that two workers never wait for each other; job and agenda are read under that lock,
-- in a statement of its own, so that an edit is either before or after; next_run_at is always above
-- the high-water mark, which the same statement raises; and a unique index allows one live run an
-- occurrence. A job whose schedule cannot be computed any more (a zone that left the server's
-- tzdata) is taken off the agenda with an entry that says so, and harms no other.

set role rowcron_owner;

create or replace function rowcron._jittered(job rowcron.job, scheduled_for timestamptz,
  following timestamptz)
returns timestamptz
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  -- a share from the occurrence's hash, so that it is the same whoever fires it; never past the
  -- next one
  select case when job.jitter is null then scheduled_for else scheduled_for
    + least(job.jitter, following - scheduled_for - interval '1 microsecond')
    * ((('x'
      || left(md5(job.id || '/' || extract(epoch from scheduled_for)), 8))::bit(32)::bigint)::double
        precision / 4294967296) end
$$;
comment on function rowcron._jittered(rowcron.job, timestamptz, timestamptz) is
  'When a run of this occurrence is due: up to jitter later, before the next occurrence, stable '
    'for the occurrence.';

create or replace function rowcron._fire_lane(queue text, kind text, at timestamptz,
  chunk integer) returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  due bigint[] := array(
    select a.job_id
    from rowcron.agenda as a
    where a.queue = _fire_lane.queue and a.kind = _fire_lane.kind and a.next_run_at <= _fire_lane.at
    order by a.next_run_at
    limit chunk
    for update skip locked
  );
begin
  if due = '{}' then
    return 0;
  end if;
  with plans as materialized (
    select j as job, a.job_id, rowcron._plan_due(j, a, at) as plan
    from rowcron.agenda as a
    join rowcron.job as j on j.id = a.job_id
    where a.job_id = any (due)
  ), judged as materialized (
    select
      p.job, p.job_id, p.plan, l.run_id as live_run_id,
      -- several at once only with on_missed = all: they run one after the other, behind what is
      -- live
      l.run_id is not null and cardinality((p.plan).runs) = 1
        and ((p.job).on_overlap = 'skip' or (p.job).on_overlap = 'wait'
          and l.in_line) as passed_over
    from plans as p
    cross join lateral (
      -- earlier scheduled runs of the job: the first, and whether one stands in line already
      select min(r.id) as run_id, bool_or(r.waits_for is not distinct from 'overlap') as in_line
      from rowcron.run as r
      where r.job_id = p.job_id and r.scheduled_for is not null
    ) as l
  ), wanted as materialized (
    select
      d.job, o.scheduled_for, d.live_run_id,
      case when (d.job).jitter is null then o.scheduled_for else rowcron._jittered(
        d.job, o.scheduled_for, coalesce((d.plan).runs[o.nth + 1], (d.plan).following))
          end as due_at,
      case
        when d.passed_over then 'skip'
        when (d.job).on_overlap = 'allow' or (d.live_run_id is null and o.nth = 1) then 'run'
        else 'line'
      end as verdict
    from judged as d
    cross join lateral unnest((d.plan).runs) with ordinality as o (scheduled_for, nth)
  ), moved as (
    update rowcron.agenda as a
    set
      next_run_at = case when a.runs_fired + d.made >= d.max_runs then null else (d.plan).following
        end,
      high_water = greatest(a.high_water, (d.plan).high_water),
      last_run_at = case when d.made > 0 then (d.plan).runs[d.made] else a.last_run_at end,
      runs_fired = a.runs_fired + d.made
    from (
      select
        d.job_id, d.plan, (d.job).max_runs,
        case when d.passed_over then 0 else coalesce(cardinality((d.plan).runs), 0) end as made
      from judged as d
    ) as d
    where a.job_id = d.job_id
  ), runs as (
    insert into rowcron.run (
      job_id, job, owner, queue, kind, handler, state, waits_for, priority, due_at, scheduled_for
    )
    select
      (w.job).id, (w.job).name, (w.job).owner, (w.job).queue, (w.job).kind,
      case when (w.job).kind = 'python' then (w.job).command end,
      case when w.verdict = 'run' and w.due_at <= at then 'ready' else 'waiting' end,
      case when w.verdict = 'line' then 'overlap' when w.due_at > at then 'time' end,
      (w.job).priority, w.due_at, w.scheduled_for
    from wanted as w
    where w.verdict <> 'skip'
    order by (w.job).priority desc, w.due_at, (w.job).id
    on conflict do nothing
  )
  insert into rowcron.ledger (
    job_id, job, owner, queue, kind, final, scheduled_for, first_scheduled_for, occurrences, due_at,
    finished_at, outcome, reason
  )
  select
    (w.job).id, (w.job).name, (w.job).owner, (w.job).queue, (w.job).kind, true, w.scheduled_for,
    w.scheduled_for, 1, w.scheduled_for, clock_timestamp(), 'skipped',
    format('run %s is still live', w.live_run_id)
  from wanted as w
  where w.verdict = 'skip'
  union all
  select
    (p.job).id, (p.job).name, (p.job).owner, (p.job).queue, (p.job).kind, true, m.last, m.first,
    m.count,
    m.first, clock_timestamp(), 'missed', m.why
  from plans as p
  cross join lateral unnest(
    (p.plan).missed_first, (p.plan).missed_last, (p.plan).missed_count, (p.plan).missed_why
  ) as m (first, last, count, why);
  return cardinality(due);
end
$$;
comment on function rowcron._fire_lane(text, text, timestamptz, integer) is
  'Fires at most `chunk` jobs of one queue and kind that are due by `at`; returns how many.';

create or replace function rowcron._fire_boot(queue text, kind text, started timestamptz,
  at timestamptz) returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  fired integer;
begin
  with due as materialized (
    select a.job_id
    from rowcron.agenda as a
    where a.queue = _fire_boot.queue and a.kind = _fire_boot.kind and a.booted_at < started
      and a.enabled
    limit 256
    for update skip locked
  ), allowed as materialized (
    select j.*, (select min(r.id) from rowcron.run as r where r.job_id = j.id and r.scheduled_for
      is not null) as live_run_id
    from due as d
    join rowcron.job as j on j.id = d.job_id
    join rowcron.agenda as a on a.job_id = d.job_id
    where (j.max_runs is null or a.runs_fired < j.max_runs)
      and (j.starts_at is null or j.starts_at <= at) and (j.ends_at is null or j.ends_at > at)
  ), moved as (
    update rowcron.agenda as a
    set
      booted_at = started,
      last_run_at = case when j.runs then started else a.last_run_at end,
      runs_fired = a.runs_fired + coalesce(j.runs, false)::integer,
      high_water = greatest(a.high_water, started)
    from due as d
    left join (select w.id, w.live_run_id is null or w.on_overlap <> 'skip' as runs
      from allowed as w) as j on j.id = d.job_id
    where a.job_id = d.job_id
  ), runs as (
    insert into rowcron.run (
      job_id, job, owner, queue, kind, handler, state, waits_for, priority, due_at, scheduled_for
    )
    select
      j.id, j.name, j.owner, j.queue, j.kind, case when j.kind = 'python' then j.command end,
      case when j.live_run_id is null or j.on_overlap = 'allow' then 'ready' else 'waiting' end,
      case when j.live_run_id is not null and j.on_overlap <> 'allow' then 'overlap' end,
        j.priority, at, started
    from allowed as j
    where j.live_run_id is null or j.on_overlap <> 'skip'
    on conflict do nothing
  ), entries as (
    insert into rowcron.ledger (
      job_id, job, owner, queue, kind, final, scheduled_for, due_at, finished_at, outcome, reason
    )
    select
      j.id, j.name, j.owner, j.queue, j.kind, true, started, started, clock_timestamp(), 'skipped',
      format('run %s is still live', j.live_run_id)
    from allowed as j
    where j.live_run_id is not null and j.on_overlap = 'skip'
  )
  select count(*) into fired from due;
  return fired;
end
$$;
comment on function rowcron._fire_boot(text, text, timestamptz, timestamptz) is
  'Fires the @reboot jobs of one queue and kind that have not run since PostgreSQL started; '
    'returns how many.';

reset role;
