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
