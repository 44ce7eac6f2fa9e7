-- How it fares: a job by what has become of it and what should have, the workers, and each queue and
-- kind. What nobody does leaves no entry in the ledger, so here it shows: what has been due for more
-- than a minute is overdue, whether a worker would have to fire it, to promote it or to take it.
-- Counts are bounded, as in chapter 100.

set role rowcron_owner;

create or replace function rowcron._is_overdue(job_id bigint) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
-- planned for any job: where one has most of the runs, the whole table would be read for the others
set enable_seqscan = off
set enable_bitmapscan = off
as $$
  select exists (
    select from rowcron.agenda as a
    join rowcron.job as j on j.id = a.job_id
    where a.job_id = _is_overdue.job_id and (
      a.next_run_at < clock_timestamp() - interval '1 minute'
      or a.enabled and a.booted_at < pg_postmaster_start_time()  -- as chapter 052 judges it
        and pg_postmaster_start_time() < clock_timestamp() - interval '1 minute'
        and (a.runs_fired >= j.max_runs) is not true
        and (j.starts_at > pg_postmaster_start_time()) is not true
        and (j.ends_at <= pg_postmaster_start_time()) is not true
    )
  ) or exists (
    select from (
      select r.state, r.waits_for, r.due_at from rowcron.run as r
      where r.job_id = _is_overdue.job_id and r.state <> 'running'  -- run_idle_job_idx
      limit 1000
    ) as r
    -- nobody has promoted what waited for its time
    where (r.state = 'ready' or r.waits_for = 'time')
      and r.due_at < clock_timestamp() - interval '1 minute'
  )
$$;
comment on function rowcron._is_overdue(bigint)
  is 'Whether an occurrence of a job, or one of its runs (a thousand are looked at), has been due for '
    'more than a minute and nobody has begun it.';

create or replace function rowcron._is_ahead(job_id bigint) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select from rowcron.agenda as a
    join rowcron.job as j on j.id = a.job_id
    where a.job_id = _is_ahead.job_id and a.enabled and j.schedule is not null
      and a.booted_at is null and (a.runs_fired >= j.max_runs) is not true
      -- a claim ahead of the instant raises it a little early
      and a.high_water > clock_timestamp() + interval '1 minute'
  )
$$;
comment on function rowcron._is_ahead(bigint)
  is 'Whether occurrences of a job that have yet to be due are accounted for, because the clock was '
    'ahead when it was fired or edited: it is silent until they have passed.';

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
    when rowcron._is_overdue(j.id) then 'overdue'
    when rowcron._is_ahead(j.id) then 'ahead of the clock'
    when h.runs = 0 and h.missed > 0 or h.missed_since_run >= 10 then 'missed'
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
    coalesce(sum(e.occurrences) filter (where e.outcome = 'skipped'), 0)::bigint as skipped,
    sum(e.occurrences) filter (where e.outcome = 'missed') as missed,
    (array_agg(e.outcome order by e.finished_at desc) filter (where e.run_id is not null))[1] as
      last_outcome,
    max(e.finished_at) filter (where e.outcome = 'succeeded') as last_success_at,
    percentile_cont(0.5) within group (order by e.finished_at - e.started_at)
      filter (where e.outcome = 'succeeded') as median_duration,
    count(*) filter (
      where e.outcome = 'skipped' and e.finished_at > coalesce(e.last_run_end, '-infinity')
    ) as skipped_since_run,
    count(*) filter (
      where e.outcome = 'missed' and e.finished_at > coalesce(e.last_run_end, '-infinity')
    ) as missed_since_run
  from (
    select l.*, max(l.finished_at) filter (where l.run_id is not null) over () as last_run_end
    from (
      select l.*
      from rowcron._names_borne(j.id, j.name) as n (name)
      cross join lateral (
        select l.run_id, l.outcome, l.occurrences, l.started_at, l.finished_at
        from rowcron.ledger as l
        -- As an equation it is taken for a second, independent one: a few entries are expected, and
        -- all that the job has are read and sorted.
        where l.job = n.name and coalesce(l.job_id = j.id, false) and l.final
        order by l.finished_at desc
        limit 100
      ) as l
      order by l.finished_at desc
      limit 100
    ) as l
  ) as e
) as h on true;
comment on view rowcron.job_health is 'How each job fares, by its last 100 entries in the ledger; '
  'skipped and missed count occurrences. verdict: paused, failing (its last run), stuck behind one '
  'run (ten entries skipped since the last that ended), overdue (due for more than a minute, and '
  'not begun: no worker takes it, or none has room), ahead of the clock (which was ahead: what has '
  'yet to be due is accounted for, and the job is silent until then), missed (its occurrences, and '
  'none has run; or ten entries since the last run), new, well.';
comment on column rowcron.job_health.owner is 'The job''s owner; compared as job.owner is.';

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
      order by r.rank limit 1000  -- run_ready_idx: else all of the others' is read to find none
  ) as r) as ready_up_to_1000,
  clock_timestamp() - o.due_at as oldest_ready_age,
  (
    select min(a.next_run_at) from rowcron.agenda as a where a.queue = l.queue and a.kind = l.kind
  ) as next_run_at,
  h.held,
  h.ledger_overflows,
  'rowcron_owner' = 'rowcron_gate' as single_role,  -- noqa: ST10
  nullif(greatest(clock_timestamp() - least(
    (select min(a.next_run_at) from rowcron.agenda as a where a.queue = l.queue and a.kind = l.kind),
    (
      select min(r.due_at) from rowcron.run as r
      where r.queue = l.queue and r.kind = l.kind and r.state = 'waiting' and r.waits_for = 'time'
    ),
    o.due_at
  ), '0'), '0') as overdue_for
from rowcron.lane as l
-- ready runs lie by priority, then by due_at: the oldest is the oldest of each priority's first,
-- the last priority first, because it starves first
cross join lateral (
  with recursive ranks as (
    select max(r.rank) as rank
    from rowcron.run as r
    where r.queue = l.queue and r.kind = l.kind and r.state = 'ready'
    union all
    select (
      select max(r.rank) from rowcron.run as r
      where r.queue = l.queue and r.kind = l.kind and r.state = 'ready' and r.rank < p.rank
    )
    from ranks as p
    where p.rank is not null
  )

  select min(f.due_at) as due_at
  from (select p.rank from ranks as p where p.rank is not null limit 1000) as p
  cross join lateral (
    select min(r.due_at) as due_at from rowcron.run as r
    where r.queue = l.queue and r.kind = l.kind and r.state = 'ready' and r.rank = p.rank
  ) as f
) as o
-- once, not for each lane
cross join (
  select
    rowcron._held() || '; select rowcron.release(); ends it' as held,
    rowcron._ledger_overflows() as ledger_overflows
  limit 1
) as h;
comment on view rowcron.queue_health is
  'Each queue and kind: workers, what is ready, how old the oldest of it is (of the last thousand '
    'priorities), when something is due next, for how long the first of what is due has been so, '
    'fired or not (null: nothing is due); whether all is held, whether the ledger lacks a '
    'partition, and whether one role plays all parts (rowcron install --single-role), so that no '
    'job is kept from another.';

reset role;
