-- The claim: what a worker gets, and what is done on the way: what fell due is fired, what waited for
-- its time or for a limit becomes ready, the best of what is ready (chapter 059) is handed out.

set role rowcron_owner;

-- A column more or less in what a claim returns cannot be replaced.
drop function if exists rowcron.claim(uuid, integer, text[], text[], text[], interval);
drop function if exists rowcron.claim(uuid, integer, text[], text[], text[], interval, boolean);
drop function if exists rowcron._claim(uuid, integer, text[], text[], text[], timestamptz);
drop function if exists rowcron._claim(uuid, integer, text[], text[], text[], timestamptz, boolean);

create or replace function rowcron._claim(
  worker_id uuid, capacity integer, queues text[], kinds text[], handlers text[], at timestamptz,
  terse boolean default false, ahead boolean default false
) returns table (
  run_id bigint, token uuid, job_id bigint, job text, owner text, queue text, kind text,
  command text, args jsonb, attempt integer, scheduled_for timestamptz, due_at timestamptz,
  started_at timestamptz, timeout interval, connection text, idempotency_key uuid,
  secrets text[], args_secrets text[]
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  lane_queues text[];
  lane_kinds text[];
  booted timestamptz := pg_postmaster_start_time();
  installation bytea;
  has_parked boolean;
  has_due boolean;
  has_timed boolean;
  tids tid[];
  firsts bigint[];
  limited_jobs bigint[];
  gave_up boolean;
  -- chapter 058
  key text := rowcron._reach_key(_claim.queues, _claim.kinds, handlers);
  reached rowcron._reached;
  sweeps boolean;
  began timestamptz := clock_timestamp();
  latest timestamptz := least(at, began) - interval '0.5 seconds';
  passed bigint := rowcron._passed_over();
  read_before bigint;
  since timestamptz;
  fires_at timestamptz;
  oldest timestamptz;
  room integer;
  started bigint[] := '{}';
  readied integer;
  fired boolean := true;
  promoted boolean;
  most integer := case when ahead then 1000 else 500 end;  -- ahead nothing waits for the last one
  -- Random numbers and hashes are dear, so one claim has one token. But a SQL job reads its own in
  -- current_query(), and must not end the run of another owner with it: these have each a hash of
  -- the token and of the run.
  secret uuid;
  shared_seal uuid;
begin
  if current_setting(key, true) <> '' then
    reached := rowcron._recall(key);
  end if;
  sweeps := reached.swept_at is null or rowcron._sweep_due(reached, reached.short);
  since := case when sweeps then null else reached.fired_until end;
  -- Each statement costs some 20 us before it does anything, so one tells which others are needed.
  select
    array_agg(l.queue), array_agg(l.kind), bool_or(l.has_parked), bool_or(l.has_due),
    bool_or(l.has_timed),
    (select convert_to(s.value #>> '{}', 'UTF8') from rowcron.setting as s
      where s.name = 'installation')
  into lane_queues, lane_kinds, has_parked, has_due, has_timed, installation
  from (
    select
      l.queue, l.kind,
      exists (
        select from rowcron.run as r
        where r.queue = l.queue and r.kind = l.kind and r.state = 'waiting'
          and r.waits_for in ('limit', 'overlap')
      ) as has_parked,
      exists (
        select from rowcron.agenda as a where a.queue = l.queue and a.kind = l.kind
          and a.next_run_at <= at and a.next_run_at >= coalesce(since, '-infinity')
      ) or exists (
        select from rowcron.agenda as a where a.queue = l.queue and a.kind = l.kind
          and a.booted_at < booted
      ) as has_due,
      exists (
        select from rowcron.run as r
        where r.queue = l.queue and r.kind = l.kind and r.state = 'waiting'
          and r.waits_for = 'time' and r.due_at <= at
          and r.due_at >= coalesce(case when not sweeps then reached.promoted_until end, '-infinity')
      ) as has_timed
    from rowcron.lane as l
    where l.kind = any (_claim.kinds) and (_claim.queues is null or l.queue = any (_claim.queues))
    order by l.queue, l.kind
  ) as l;
  -- before firing: a run in line whose forerunner has ended leaves the line free for the next; what
  -- is released may be below a bound
  if has_parked and rowcron._release_parked(lane_queues, lane_kinds) > 0 then
    sweeps := true;
    has_timed := true;
  end if;
  promoted := not has_timed or rowcron._promote(lane_queues, lane_kinds, at,
    case when sweeps then null else reached.promoted_until end) < 1000;
  -- entries known to be dead are skipped without a word, but the pages that they fill are read, until
  -- a vacuum: at full speed a thousand more every few seconds
  read_before := pg_stat_get_xact_blocks_fetched('rowcron.run_ready_idx'::regclass);
  for pass in 1..2 loop
    if capacity > 0 and lane_queues is not null then
      select p.picked, p.firsts, p.limited, p.gave_up into tids, firsts, limited_jobs, gave_up
      from rowcron._pick(rowcron._bands(lane_queues, lane_kinds,
        case when sweeps then null else reached.bounds end), handlers, capacity) as p;
    end if;
    exit when not has_due or pass = 2;
    -- What falls due is claimed as it is fired where nothing better can be left: where nothing was
    -- ready, or all that is fired has room beside it. Else it is ready, and the best are picked
    -- anew. So many are fired as can start: the first must not wait for the last.
    room := greatest(capacity, 0) - coalesce(cardinality(tids), 0);
    if tids <> '{}' and room < 64 then
      room := 0;
    end if;
    secret := gen_random_uuid();
    shared_seal := md5(secret::text);
    fires_at := clock_timestamp();
    select f.complete, f.oldest, f.started, f.readied into fired, oldest, started, readied
    from rowcron._fire(lane_queues, lane_kinds, at, booted, since,
      case when capacity <= 0 then 1000 else least(greatest(room, 64), most) end,
      least(room, most), worker_id, shared_seal, handlers, ahead) as f;
    began := began + (clock_timestamp() - fires_at);  -- firing is not what a sweep takes
    latest := least(latest, oldest);
    -- what is fired late is due below bounds
    reached.bounds := rowcron._lowered(reached.bounds, latest);
    capacity := capacity - cardinality(started);
    exit when readied = 0 or capacity <= 0;
  end loop;
  if _claim.capacity + cardinality(started) <= 0 or lane_queues is null then
    return;
  end if;
  passed := rowcron._passed_over() - passed + 50 * greatest(0,
    pg_stat_get_xact_blocks_fetched('rowcron.run_ready_idx'::regclass) - read_before
      - cardinality(tids) / 20 - 3 * cardinality(lane_queues));  -- each lane is looked up
  if passed >= 5000 or not sweeps or reached.swept_at is not null then
    perform rowcron._note_reach(key, reached, sweeps, passed, began, latest,
      lane_queues, lane_kinds, tids, cardinality(tids) < capacity and not gave_up, fired,
      promoted);
  end if;
  if tids = '{}' and started = '{}' then
    return;
  end if;
  if secret is null then
    secret := gen_random_uuid();
    shared_seal := md5(secret::text);
  end if;
  return query
  with claimed as (
    update rowcron.run as r
    set
      state = 'running', worker_id = _claim.worker_id, started_at = at,
      seal = case when r.kind = 'sql' then md5(md5(secret || '/' || r.id)::uuid::text)::uuid
        else shared_seal end,
      limited = coalesce(r.job_id = any (limited_jobs), false),
      -- named, PostgreSQL 16 to 18 read what rank is made of once a statement, and else once a row
      priority = r.priority
    where r.ctid = any (tids)  -- locked by us, so it stays where it is
    returning r.id, r.job_id, r.job, r.owner, r.queue, r.kind, r.args, r.attempt, r.scheduled_for,
      r.retry_for, r.due_at, r.created_at, r.priority
  ), handed as (
    select c.*, not terse or c.id = any (firsts) as whole from claimed as c
    union all
    select r.id, r.job_id, r.job, r.owner, r.queue, r.kind, r.args, r.attempt, r.scheduled_for,
      r.retry_for, r.due_at, r.created_at, r.priority, true  -- nearly always each of another job
    from rowcron.run as r
    where r.id = any (started)
  )
  select
    c.id, case when c.kind = 'sql' then md5(secret || '/' || c.id)::uuid when j.id is not null
      then secret end,
    c.job_id,
    case when terse then j.name else c.job end, j.owner::text, j.queue, j.kind,
    case when c.kind <> 'sql' or j.connection is not null then j.command end,
    coalesce(c.args, j.args, case when j.id is not null then '{}'::jsonb end), c.attempt,
    coalesce(c.scheduled_for, c.retry_for), c.due_at,
    case when j.id is not null then at end, j.timeout, j.connection,
    -- The same for every attempt: the occurrence names the deed; on demand the run does, with its
    -- birth, because after a restore numbers come again. So a run that repeats another is not taken
    -- for it, though it is told the same occurrence.
    md5(installation || int8send(c.job_id) || case when c.scheduled_for is not null
      then timestamptz_send(c.scheduled_for)
      else int8send(c.id) || timestamptz_send(c.created_at) end)::uuid,
    -- chapter 047; a run's own args are data
    case when j.kind in ('http', 'shell') and strpos(j.command, '${secret:') > 0
      then rowcron._granted_secrets(c.owner, j.command) end,
    case when j.kind in ('http', 'shell') and c.args is null
        and strpos(j.args::text, '${secret:') > 0
      then rowcron._granted_secrets(c.owner, j.args::text) end
  from handed as c
  left join rowcron.job as j on j.id = case when c.whole then c.job_id end
  order by c.priority desc, c.due_at, c.id;
end
$$;
comment on function rowcron._claim(
  uuid, integer, text[], text[], text[], timestamptz, boolean, boolean
) is
  'claim() at a given instant: fires, promotes, then hands up to `capacity` ready runs to the '
    'worker. ahead: that instant is still to come.';

create or replace function rowcron.claim(
  worker_id uuid default gen_random_uuid(), capacity integer default 1, queues text[] default null,
  kinds text[] default '{sql,http,python}', handlers text[] default null,
    lease interval default '10 seconds', terse boolean default false, ahead boolean default false
) returns table (
  run_id bigint, token uuid, job_id bigint, job text, owner text, queue text, kind text,
  command text, args jsonb, attempt integer, scheduled_for timestamptz, due_at timestamptz,
  started_at timestamptz, timeout interval, connection text, idempotency_key uuid,
  secrets text[], args_secrets text[]
)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
-- Plans are cached while the tables are empty, and used when they are full: only nested loops over
-- indexes.
set jit = off
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_bitmapscan = off
as $$
#variable_conflict use_column
declare
  at timestamptz := clock_timestamp();
  here text := rowcron._identity();
  is_alive boolean;
  was_asleep boolean;
  is_free boolean;  -- nothing is held, as far as can be seen at once
  has_expired boolean;
  due timestamptz;
  brought bigint;
begin
  -- an older snapshot would not see what was paused, held or counted against a limit meanwhile
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception using
      errcode = 'RCISO',
      message = 'runs are claimed in read committed transactions only',
      detail = format('This one is %s.', current_setting('transaction_isolation')),
      hint = format('alter role %I set default_transaction_isolation = ''read committed'';',
        session_user);
  end if;
  select
    exists (
      select from rowcron.worker as w
      where w.id = claim.worker_id and w.lost_at is null and w.expires_at >= at + w.lease / 2
    ),
    (select w.asleep from rowcron.worker as w where w.id = claim.worker_id),
    exists (
      select from rowcron.setting as s where s.name = 'hold' and s.value = 'null'
    ) and exists (
      select from rowcron.setting as s where s.name = 'identity' and s.value #>> '{}' = here
    ),
    exists (select from rowcron.worker as w where w.expires_at <= at)
  into is_alive, was_asleep, is_free, has_expired;
  if not is_alive then
    perform rowcron._sign_of_life(worker_id, queues, kinds, handlers, lease, at);
  end if;
  if not is_free and rowcron._held() is not null then
    return;
  end if;
  if has_expired then
    perform rowcron._rescue(at);
  end if;
  return query
  select c.run_id, c.token, c.job_id, c.job, c.owner, c.queue, c.kind, c.command, c.args, c.attempt,
    c.scheduled_for, c.due_at, c.started_at, c.timeout, c.connection, c.idempotency_key, c.secrets,
    c.args_secrets
  from rowcron._claim(claim.worker_id, least(coalesce(capacity, 1), 10000), claim.queues, kinds,
    handlers, at, terse) as c;
  get diagnostics brought = row_count;
  if ahead and brought = 0 and capacity > 0 then
    due := rowcron._due_soon(claim.queues, kinds, at);
    if due is not null then
      -- until when it must not be committed; who is not heard of any more before holds nobody up
      perform set_config('rowcron.claimed_for', extract(epoch from due)::text, true);
      perform set_config('idle_in_transaction_session_timeout', '1s', true);
      return query
      select c.run_id, c.token, c.job_id, c.job, c.owner, c.queue, c.kind, c.command, c.args,
        c.attempt, c.scheduled_for, c.due_at, c.started_at, c.timeout, c.connection,
        c.idempotency_key, c.secrets, c.args_secrets
      from rowcron._claim(claim.worker_id, least(capacity, 10000), claim.queues, kinds, handlers,
        due, terse, true) as c;
      get diagnostics brought = row_count;
    end if;
  end if;
  -- Who found little sleeps on, as announced: of many that are woken for one run none has to say a
  -- word. Who found more is awake, so that what comes meanwhile notifies nobody.
  if was_asleep and brought >= least(greatest(coalesce(capacity, 1), 1), 4) then
    update rowcron.worker as w set asleep = false, wake_at = null, unsettled = null
    where w.id = claim.worker_id;
  end if;
end
$$;
comment on function rowcron.claim(
  uuid, integer, text[], text[], text[], interval, boolean, boolean
) is
  'One call of a worker: rescues lost claims, fires what is due, then hands out up to `capacity` '
    'runs, best first. Fewer than asked means there are no more now, or many that may not start '
      'stood before them: the next call goes on. While held it returns '
      'nothing. terse: of each job one row alone tells what belongs to the job, and the token '
        'unless kind is sql; args that are missing are those of that row. ahead: where there is '
          'nothing now, what falls due within 0.25 s; nothing may then be started, nor the '
          'transaction committed, before the instant in the setting rowcron.claimed_for (seconds '
          'since 1970, in this transaction alone), whatever was handed out. Raises RCWRK when the '
          'worker was declared lost, RCISO where snapshots outlive a statement.';

reset role;
