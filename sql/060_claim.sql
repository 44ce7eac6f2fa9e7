-- The claim: which runs a worker gets. Ready rows only, one index range a queue and kind, in the
-- order priority (higher first), due_at, id; FOR UPDATE SKIP LOCKED, so that workers never wait for
-- each other. What is due later, backing off, over a limit or behind an earlier run is not among
-- the ready rows and costs a claim nothing.
--
-- Two SKIP LOCKED claims would overspend a count, so a job with max_running, and a paused job, is
-- decided under the lock of its agenda row, which also serialises with edits; a claim that does not
-- get that lock leaves the job's runs for whoever holds it. The surplus is parked (state waiting,
-- for limit or resume) and released by the next claim that finds room, so that no event can be
-- forgotten.

set role rowcron_owner;

create or replace function rowcron._promote(queues text[], kinds text[],
  at timestamptz) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  update rowcron.run as r
  set state = 'ready', waits_for = null
  where r.id in (
    select w.id
    from unnest(queues, kinds) as l (queue, kind)
    cross join lateral (
      select v.id
      from rowcron.run as v
      where v.queue = l.queue and v.kind = l.kind and v.state = 'waiting' and v.waits_for = 'time'
        and v.due_at <= at
      order by v.due_at
      limit 1000
      for update skip locked
    ) as w
  );
end
$$;
comment on function rowcron._promote(text[], text[], timestamptz)
  is 'Waiting runs of these lanes that are due become ready, at most 1000 a lane.';

create or replace function rowcron._release_parked(queues text[], kinds text[]) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  parked record;
begin
  for parked in
    with recursive jobs as (
      select l.queue, l.kind, (
        select min(r.job_id) from rowcron.run as r
        where r.queue = l.queue and r.kind = l.kind and r.state = 'waiting'
          and r.waits_for in ('limit', 'overlap')
      ) as job_id
      from unnest(queues, kinds) as l (queue, kind)
      union all
      select j.queue, j.kind, (
        select min(r.job_id) from rowcron.run as r
        where r.queue = j.queue and r.kind = j.kind and r.state = 'waiting'
          and r.waits_for in ('limit', 'overlap')
          and r.job_id > j.job_id
      )
      from jobs as j
      where j.job_id is not null
    )
    select j.job_id, a.max_running
    from jobs as j
    join rowcron.agenda as a on a.job_id = j.job_id
    where j.job_id is not null
      and (
        a.max_running is null
        or a.max_running > (select count(*) from rowcron.run as r where r.job_id = j.job_id
          and r.state = 'running')
      )
    order by j.job_id
  loop
    perform from rowcron.agenda as a where a.job_id = parked.job_id for update skip locked;
    continue when not found;
    -- a new statement, so that it sees what was committed before the lock was granted
    -- the best of all, so that what is ready already has no precedence over what was parked before
    update rowcron.run as r
    set state = 'ready', waits_for = null
    where r.waits_for = 'limit' and r.id in (
      select w.id
      from rowcron.run as w
      where w.job_id = parked.job_id and (w.state = 'ready' or w.waits_for = 'limit')
      order by w.priority desc, w.due_at, w.id
      limit case when parked.max_running is null then 1000 else greatest(parked.max_running - (
        select count(*) from rowcron.run as v where v.job_id = parked.job_id
          and v.state = 'running'
      ), 0) end
    );
    update rowcron.run as r
    set
      state = case when r.due_at > clock_timestamp() then 'waiting' else 'ready' end,
      waits_for = case when r.due_at > clock_timestamp() then 'time' end
    where r.id = (
      select w.id
      from rowcron.run as w
      where w.job_id = parked.job_id and w.state = 'waiting' and w.waits_for = 'overlap'
      order by w.scheduled_for
      limit 1
    ) and not exists (
      select from rowcron.run as v
      where v.job_id = parked.job_id and v.scheduled_for is not null and v.waits_for is distinct
        from 'overlap'
    );
  end loop;
end
$$;
comment on function rowcron._release_parked(text[], text[]) is
  'Runs that waited for a limit or for an earlier run become ready as far as there is room now.';

-- Of runs that this transaction has locked and would claim: those that may not start are parked or
-- ended.
create or replace function rowcron._hold_back(ids bigint[], picked bigint[]) returns bigint[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  kept bigint[];
  entry rowcron.agenda;
  room bigint;
  mine bigint[];
  stray rowcron.run;
begin
  -- a run whose job is gone, or that somebody inserted by hand for another lane than its job's
  for stray in
    select r.* from rowcron.run as r
    where r.id = any (ids) and not exists (
      select from rowcron.job as j
      where j.id = r.job_id and j.owner = r.owner and j.kind = r.kind and j.queue = r.queue
        and rowcron._may_own_kind(j.owner, j.kind)
        and (j.connection is null or rowcron._may_use_connection(j.owner, j.connection))
    )
  loop
    perform rowcron._end_run(stray, 'cancelled', case
      when not exists (select from rowcron.job as j where j.id = stray.job_id) then 'job deleted'
      else 'the run does not fit its job, or its kind or connection is not granted' end);
    ids := array_remove(ids, stray.id);
  end loop;
  kept := array(
    select r.id from rowcron.run as r join rowcron.agenda as a on a.job_id = r.job_id
    where r.id = any (ids) and a.max_running is null and (a.enabled or r.through_pause)
  );
  for entry in
    select a.* from rowcron.agenda as a
    where a.job_id in (select r.job_id from rowcron.run as r where r.id = any (ids)
      and r.id <> all (kept))
    order by a.job_id
    for update skip locked
  loop
    mine := array(
      select r.id from rowcron.run as r
      where r.id = any (ids) and r.job_id = entry.job_id and (entry.enabled or r.through_pause)
      order by r.priority desc, r.due_at, r.id
    );
    if entry.max_running is not null then
      select greatest(entry.max_running - count(*), 0) into room
      from rowcron.run as r
      where r.job_id = entry.job_id and (r.state = 'running' or r.id = any (picked));
      mine := mine[:room];
    end if;
    kept := kept || mine;
    update rowcron.run as r
    set state = 'waiting', waits_for = case when entry.enabled or r.through_pause then 'limit'
      else 'resume' end
    where r.id in (
      select v.id from rowcron.run as v
      where v.job_id = entry.job_id and v.state = 'ready' and v.id <> all (mine)
        and v.id <> all (picked)
        and (entry.max_running is not null or not v.through_pause)
      limit 1000
      for update skip locked
    );
  end loop;
  return kept;
end
$$;
comment on function rowcron._hold_back(bigint[], bigint[]) is
  'Returns which of these locked runs may start now, beside those picked already; parks those of '
    'paused or fully busy jobs, ends those without a job.';

create or replace function rowcron._pick(
  queues text[], kinds text[], handlers text[], capacity integer
) returns bigint[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  picked bigint[] := '{}';
  ids bigint[];
  kept bigint[];
  seen bigint[] := '{}';
  doubtful boolean;
begin
  -- more than one pass only when runs had to be held back
  for pass in 1..4 loop
    with ready as materialized (
      select c.id, c.priority, c.due_at, c.job_id, c.owner, c.queue, c.kind
      from unnest(queues, kinds) as l (queue, kind)
      cross join lateral (
        select r.id, r.priority, r.due_at, r.job_id, r.owner, r.queue, r.kind
        from rowcron.run as r
        where r.queue = l.queue and r.kind = l.kind and r.state = 'ready'
          and (r.handler is null or handlers is null or r.handler = any (handlers))
          and (pass = 1 or r.id <> all (seen))
        order by r.priority desc, r.due_at, r.id
        limit capacity - cardinality(picked)
        for update skip locked
      ) as c
      order by c.priority desc, c.due_at, c.id
      limit capacity - cardinality(picked)
    ), jobs as (
      select distinct r.job_id, r.owner, r.queue, r.kind from ready as r
    )
    select
      array(select r.id from ready as r order by r.priority desc, r.due_at, r.id),
      exists (
        select from jobs as r
        left join rowcron.agenda as a on a.job_id = r.job_id
        left join rowcron.job as j on j.id = r.job_id
        where a.max_running is not null or not coalesce(a.enabled, false) or j.connection
          is not null
          or (j.owner, j.kind, j.queue) is distinct from (r.owner, r.kind, r.queue)
          or not rowcron._may_own_kind(j.owner, j.kind)
      )
    into ids, doubtful;
    if not doubtful then
      return picked || ids;
    end if;
    kept := rowcron._hold_back(ids, picked);
    picked := picked || array(select i from unnest(ids) as i where i = any (kept));
    seen := seen || ids;
    exit when cardinality(picked) >= capacity;
  end loop;
  return picked;
end
$$;
comment on function rowcron._pick(text[], text[], text[], integer) is
  'Locks and returns up to `capacity` ready runs of these lanes that may start, best first.';

create or replace function rowcron._claim(
  worker_id uuid, capacity integer, queues text[], kinds text[], handlers text[], at timestamptz
) returns table (
  run_id bigint, token uuid, job_id bigint, job text, owner text, queue text, kind text,
  command text, args jsonb, attempt integer, scheduled_for timestamptz, due_at timestamptz,
  started_at timestamptz, timeout interval, connection text, idempotency_key uuid
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  lane_queues text[];
  lane_kinds text[];
  lane record;
  booted timestamptz := pg_postmaster_start_time();
  installation text := rowcron._read_setting('installation') #>> '{}';
  ids bigint[];
  -- Random numbers are dear, so each run's token is a hash of one and of the run. Not the same for
  -- all: a SQL job reads its own in current_query(), and must not end the run of another owner with
  -- it.
  secret text := gen_random_uuid();
begin
  select array_agg(l.queue), array_agg(l.kind) into lane_queues, lane_kinds
  from rowcron.lane as l
  where l.kind = any (_claim.kinds) and (_claim.queues is null or l.queue = any (_claim.queues));
  -- before firing: a run in line whose forerunner has ended leaves the line free for the next
  perform rowcron._release_parked(lane_queues, lane_kinds);
  for lane in
    select l.queue, l.kind
    from unnest(lane_queues, lane_kinds) as l (queue, kind)
    where exists (
        select from rowcron.agenda as a where a.queue = l.queue and a.kind = l.kind
          and a.next_run_at <= at
      ) or exists (
        select from rowcron.agenda as a where a.queue = l.queue and a.kind = l.kind
          and a.booted_at < booted
      )
  loop
    -- small chunks: the first run starts before the last of many jobs is fired
    perform rowcron._fire_lane(lane.queue, lane.kind, at, 256);
    perform rowcron._fire_boot(lane.queue, lane.kind, booted, at);
  end loop;
  perform rowcron._promote(lane_queues, lane_kinds, at);
  if capacity <= 0 or lane_queues is null then
    return;
  end if;
  ids := rowcron._pick(lane_queues, lane_kinds, handlers, capacity);
  if ids = '{}' then
    return;
  end if;
  return query
  with claimed as (
    update rowcron.run as r
    set
      state = 'running', worker_id = _claim.worker_id, started_at = at,
      seal = md5(md5(secret || r.id)::uuid::text)::uuid
    where r.id = any (ids)
    returning r.*
  )
  select
    c.id, md5(secret || c.id)::uuid, c.job_id, c.job, c.owner::text, c.queue, c.kind,
    case when c.kind <> 'sql' or j.connection is not null then j.command end,
    coalesce(c.args, j.args, '{}'), c.attempt, c.scheduled_for, c.due_at, c.started_at, j.timeout,
      j.connection,
    -- The same for every attempt: the occurrence names the deed; on demand the run does, with its
    -- birth, because after a restore numbers come again.
    md5(concat_ws('/', installation, c.job_id, case when c.scheduled_for is not null
      then 's' || extract(epoch from c.scheduled_for)
      else 'r' || c.id || '/' || extract(epoch from c.created_at) end))::uuid
  from claimed as c
  join rowcron.job as j on j.id = c.job_id
  order by c.priority desc, c.due_at, c.id;
end
$$;
comment on function rowcron._claim(uuid, integer, text[], text[], text[], timestamptz) is
  'claim() at a given instant: fires, promotes, then hands up to `capacity` ready runs to the '
    'worker.';

create or replace function rowcron.claim(
  worker_id uuid default gen_random_uuid(), capacity integer default 1, queues text[] default null,
  kinds text[] default '{sql,http,python}', handlers text[] default null,
    lease interval default '10 seconds'
) returns table (
  run_id bigint, token uuid, job_id bigint, job text, owner text, queue text, kind text,
  command text, args jsonb, attempt integer, scheduled_for timestamptz, due_at timestamptz,
  started_at timestamptz, timeout interval, connection text, idempotency_key uuid
)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
-- Plans are cached while the tables are empty, and used when they are full: only nested loops over
-- indexes.
set jit = off
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_bitmapscan = off
as $$
#variable_conflict use_column
declare
  at timestamptz := clock_timestamp();
begin
  perform rowcron._awake(worker_id, queues, kinds, handlers, lease, at);
  if rowcron._read_setting('hold') <> 'null' then
    return;
  end if;
  perform rowcron._rescue(at);
  return query
  select c.run_id, c.token, c.job_id, c.job, c.owner, c.queue, c.kind, c.command, c.args, c.attempt,
    c.scheduled_for, c.due_at, c.started_at, c.timeout, c.connection, c.idempotency_key
  from rowcron._claim(claim.worker_id, least(coalesce(capacity, 1), 10000), claim.queues, kinds,
    handlers, at) as c;
end
$$;
comment on function rowcron.claim(uuid, integer, text[], text[], text[], interval) is
  'One call of a worker: rescues lost claims, fires what is due, then hands out up to `capacity` '
    'runs, best first. Fewer than asked means there are no more now. While held it returns '
      'nothing. Raises RCWRK when the worker was declared lost.';

reset role;
