-- Time becomes runs. Firing takes jobs whose occurrence has come, decides what becomes of each
-- occurrence that is due (run, missed, skipped), moves the job on, all in one statement a chunk,
-- and compares nothing with any clock but the instant it is given. Races: jobs are locked with SKIP
-- LOCKED, so that two workers never wait for each other; job and agenda are read under that lock,
-- in a statement of its own, so that an edit is either before or after; next_run_at is always above
-- the high-water mark, which the same statement raises; and a unique index allows one live run an
-- occurrence. A job whose schedule cannot be computed any more (a zone that left the server's
-- tzdata) is taken off the agenda with an entry that says so, and harms no other; one for which the
-- server's tzdata of today names another instant is put right, and fired only if that is due.

set role rowcron_owner;

create or replace function rowcron._jittered(job rowcron.job, scheduled_for timestamptz,
  following timestamptz)
returns timestamptz
language sql stable
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'  -- in another zone a day of it may have 23 hours
as $$
  -- a share from the occurrence's hash, so that it is the same whoever fires it; never past the
  -- next one. In seconds, which no length carries out of range.
  select case when job.jitter is null then scheduled_for else scheduled_for + make_interval(
    secs => greatest(least(extract(epoch from job.jitter), 2592000,
      extract(epoch from following - scheduled_for) - 0.000001), 0)::double precision
    * ((('x'
      || left(md5(job.id || '/' || extract(epoch from scheduled_for)), 8))::bit(32)::bigint)::double
        precision / 4294967296)) end
$$;
comment on function rowcron._jittered(rowcron.job, timestamptz, timestamptz) is
  'When a run of this occurrence is due: up to jitter later, before the next occurrence, stable '
    'for the occurrence.';

drop function if exists rowcron._fire_due(
  tid[], timestamptz, boolean, integer, uuid, uuid, text[]
);
create or replace function rowcron._fire_due(
  due tid[], at timestamptz, careful boolean,
  room integer, worker_id uuid, seal uuid, handlers text[], ahead boolean,
  out started bigint[], out readied integer
)
language plpgsql
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'  -- missed_grace may have days
as $$
declare
  outdated bigint[];
begin
  with entries as materialized (
    -- Columns, not rows: commands may be long. Nearly always one occurrence is due, and all that
    -- there is to find out is what follows; else, and when careful, there is a plan.
    select
      a.ctid as tid, j.id as job_id, j.name, j.owner, j.queue, j.kind, j.priority, j.on_overlap,
      j.max_runs, a.next_run_at as first, f.following, z.outdated,
      rowcron._handler(j.kind, j.command, j.connection) as handler,
      case when j.jitter is not null then j end as jittered,
      case when f.following <= at then rowcron._plan_due(j, a, at) end as plan,
      -- what a claim would hand out as it is; the token of a SQL job is made of the run's number
      room > 0 and j.kind <> 'sql' and a.max_running is null and j.connection is null
        and (j.queue, j.kind) = (a.queue, a.kind)
        and (j.kind <> 'python' or handlers is null or j.command = any (handlers))
        and rowcron._may_own_kind(j.owner, j.kind) as startable
    from rowcron.agenda as a
    -- a range: for an equality also all jobs may be read, if that was planned while there were few
    join rowcron.job as j on j.id >= a.job_id and j.id <= a.job_id
    cross join lateral (
      select case  -- chapter 053
        when j.timezone = 'UTC' or (a.parsed).form = 'after' then false
        when careful then rowcron._is_outdated(a.next_run_at, a.parsed,
          greatest(a.high_water, j.starts_at - interval '1 microsecond'), j.timezone,
          coalesce(j.starts_at, j.created_at), j.on_gap, j.on_fold)
        else a.next_run_at is distinct from rowcron._next(a.parsed,
          greatest(a.high_water, j.starts_at - interval '1 microsecond'), j.timezone,
          coalesce(j.starts_at, j.created_at), j.on_gap, j.on_fold)
      end as outdated
      offset 0
    ) as z
    cross join lateral (
      select case
        when z.outdated then null
        when careful or j.max_runs is not null or j.starts_at > a.next_run_at
          or j.on_missed = 'skip' and a.next_run_at < at - j.missed_grace then '-infinity'
        when (a.parsed).form not in ('at', 'after') then (
          select case when n.next_at < j.ends_at or j.ends_at is null then n.next_at end
          from rowcron._next(a.parsed, a.next_run_at, j.timezone,
            coalesce(j.starts_at, j.created_at), j.on_gap, j.on_fold) as n (next_at)
        )
      end as following
      offset 0  -- computed once
    ) as f
    where a.ctid = any (due)  -- locked by us, so it stays where it is
      and not (ahead and a.max_running is not null)
  ), judged as materialized (
    select
      e.*, l.live_run_id, l.occurrences,
      -- several at once only with on_missed = all: they run one after the other, behind what is
      -- live
      l.live_run_id is not null and (e.plan is null or cardinality((e.plan).runs) = 1)
        and (e.on_overlap = 'skip' or e.on_overlap = 'wait' and l.in_line) as passed_over
    from entries as e
    cross join lateral (
      -- earlier scheduled runs of the job: the first, and whether one stands in line already
      select min(r.id) as live_run_id, bool_or(r.waits_for is not distinct from 'overlap')
        as in_line, array_agg(r.scheduled_for) as occurrences
      from rowcron.run as r
      where r.job_id = e.job_id and r.scheduled_for is not null
    ) as l
    where not e.outdated and not (ahead and l.live_run_id is not null and e.on_overlap <> 'allow')
  ), wanted as materialized (
    select
      d.job_id, d.name, d.owner, d.queue, d.kind, d.priority, d.handler, d.live_run_id,
      d.startable, o.scheduled_for,
      case when d.jittered is null then o.scheduled_for
        else rowcron._jittered(d.jittered, o.scheduled_for, o.following) end as due_at,
      case
        when d.passed_over then 'skip'
        when d.on_overlap = 'allow' or (d.live_run_id is null and o.nth = 1) then 'run'
        else 'line'
      end as verdict
    from judged as d
    cross join lateral (
      select d.first, d.following, 1 where d.plan is null
      union all
      select r.at, coalesce((d.plan).runs[r.nth + 1], (d.plan).following), r.nth
      from unnest((d.plan).runs) with ordinality as r (at, nth)
      where (d.plan).high_water is not null
    ) as o (scheduled_for, following, nth)
    -- one that is live already, put there by somebody's hand
    where (o.scheduled_for = any (d.occurrences)) is not true
  ), moved as (
    update rowcron.agenda as a
    set
      next_run_at = case when a.runs_fired + d.made >= d.max_runs then null else d.following end,
      high_water = greatest(a.high_water, d.high_water),
      last_run_at = coalesce(d.last, a.last_run_at),
      runs_fired = a.runs_fired + d.made
    from (
      select
        j.tid, j.max_runs,
        case when j.plan is null then j.following else (j.plan).following end as following,
        case when j.plan is null then j.first else (j.plan).high_water end as high_water,
        case when j.passed_over then 0 when j.plan is null then 1
          else coalesce(cardinality((j.plan).runs), 0) end as made,
        case when j.passed_over then null when j.plan is null then j.first
          else (j.plan).runs[cardinality((j.plan).runs)] end as last
      from judged as j
    ) as d
    where a.ctid = d.tid
  ), runs as (
    insert into rowcron.run (
      job_id, job, owner, queue, kind, handler, state, waits_for, priority, due_at, scheduled_for,
      worker_id, started_at, seal
    )
    select
      w.job_id, w.name, w.owner, w.queue, w.kind, w.handler, w.state,
      case when w.verdict = 'line' then 'overlap' when w.due_at > at then 'time' end,
      w.priority, w.due_at, w.scheduled_for,
      case when w.state = 'running' then _fire_due.worker_id end,
      case when w.state = 'running' then at end,
      case when w.state = 'running' then _fire_due.seal end
    from (
      select
        n.*, case
          when n.verdict <> 'run' or n.due_at > at then 'waiting'
          when n.startable and row_number() over (
            partition by n.verdict = 'run' and n.due_at <= at
            order by n.priority desc, n.due_at, n.job_id
          ) <= room then 'running'
          else 'ready'
        end as state
      from wanted as n
      where n.verdict <> 'skip'
    ) as w
    order by w.priority desc, w.due_at, w.job_id
    returning run.id, run.state
  ), notes as (
    insert into rowcron.ledger (
      job_id, job, owner, queue, kind, final, scheduled_for, first_scheduled_for, occurrences, due_at,
      finished_at, outcome, reason
    )
    select
      w.job_id, w.name, w.owner, w.queue, w.kind, true, w.scheduled_for, w.scheduled_for, 1,
      w.scheduled_for, clock_timestamp(), 'skipped', format('run %s is still live', w.live_run_id)
    from wanted as w
    where w.verdict = 'skip'
    union all
    select
      e.job_id, e.name, e.owner, e.queue, e.kind, true, m.last, m.first, m.count, m.first,
      clock_timestamp(), 'missed', m.why
    from judged as e
    cross join lateral unnest(
      (e.plan).missed_first, (e.plan).missed_last, (e.plan).missed_count, (e.plan).missed_why
    ) as m (first, last, count, why)
    where (e.plan).high_water is not null
  )
  select
    coalesce(array_agg(r.id) filter (where r.state = 'running'), '{}'),
    count(*) filter (where r.state = 'ready'),
    (select array_agg(e.job_id) from entries as e where e.outdated)
  into started, readied, outdated
  from runs as r;
  if outdated is not null then
    select s.due into outdated from rowcron._set_right(outdated, at) as s;
    -- at once: a session with other zone files, asked next, would put it back
    if outdated <> '{}' then
      select _fire_due.started || f.started, _fire_due.readied + f.readied into started, readied
      from rowcron._fire_due(
        array(select a.ctid from rowcron.agenda as a where a.job_id = any (outdated)), at, careful,
        room - cardinality(_fire_due.started), worker_id, seal, handlers, ahead) as f;
    end if;
  end if;
end
$$;
comment on function rowcron._fire_due(
  tid[], timestamptz, boolean, integer, uuid, uuid, text[], boolean
) is
  'Fires the jobs of these agenda rows, which the caller has locked. careful: a schedule that '
    'cannot be computed harms no other; else it raises what computing it raises. So many runs as '
    'there is room for are claimed at once with this seal, if the worker has their handlers. '
    'ahead: `at` is still to come; what an earlier run''s end may change until then is left out. '
    'Returns these, and how many others are ready.';

drop function if exists rowcron._fire_lane(text, text, timestamptz, integer);
drop function if exists rowcron._fire_lane(text, text, timestamptz, integer, timestamptz);
drop function if exists rowcron._fire_lane(
  text, text, timestamptz, integer, timestamptz, integer, uuid, uuid, text[]
);
create or replace function rowcron._fire_lane(
  queue text, kind text, at timestamptz, chunk integer, since timestamptz default null,
  room integer default 0, worker_id uuid default null, seal uuid default null,
  handlers text[] default null, ahead boolean default false,
  out fired integer, out started bigint[], out readied integer
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  due tid[];
begin
  for try in 1..2 loop
    begin
      -- within the block: a row that a transaction has locked and its subtransaction updates costs
      -- a multixact
      due := array(
        select a.ctid
        from rowcron.agenda as a
        where a.queue = _fire_lane.queue and a.kind = _fire_lane.kind
          and a.next_run_at <= _fire_lane.at and a.next_run_at >= coalesce(since, '-infinity')
        order by a.next_run_at
        limit chunk
        for update skip locked
      );
      fired := cardinality(due);
      if fired > 0 then
        select f.started, f.readied into started, readied
        from rowcron._fire_due(due, at, try = 2, room, worker_id, seal, handlers, ahead) as f;
      end if;
      return;
    exception when others then
      null;
    end;
  end loop;
  select o.fired, o.started, o.readied into fired, started, readied
  from rowcron._fire_one_by_one(queue, kind, at, chunk, since, room, worker_id, seal, handlers,
    ahead) as o;
end
$$;
comment on function rowcron._fire_lane(
  text, text, timestamptz, integer, timestamptz, integer, uuid, uuid, text[], boolean
) is
  'Fires at most `chunk` jobs of one queue and kind that are due by `at`; returns how many. since: '
    'what was due before is not looked for. The rest is _fire_due''s.';

reset role;
