-- The short claim: what a sleeping worker asks first when it hears that runs are ready (chapter
-- 090). Nearly always that is one run of a job without limits, and all there is: it is handed out for
-- little more than half of what a whole claim costs, and the worker, whose announced sleep (chapter
-- 065) stands, sleeps on without another word. Whatever is not as plain is left to the whole claim, at
-- once: a limit, a pause, a job that must not begin twice, a worker that has to give a sign of life, a
-- hold. What is handed out so may begin while the claim is being committed: nothing is lost but the
-- claim if that fails, and the run is tried again (docs/decisions/027). A row of nulls says that
-- there may be more, so that a claim has to follow; firing, promoting and rescuing have their time when
-- the sleep ends. Who finds nothing is told when to look after the worker that was quicker: of many
-- that are woken for one run each says one word, and then one when its turn comes.

set role rowcron_owner;

create or replace function rowcron.pin_plans() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  -- as in claim(): only nested loops over indexes
  perform set_config(s.name, s.value, false)
  from (values
    ('jit', 'off'), ('plan_cache_mode', 'force_generic_plan'), ('enable_seqscan', 'off'),
    ('enable_hashjoin', 'off'), ('enable_mergejoin', 'off'), ('enable_bitmapscan', 'off'),
    ('rowcron.pinned', 'yes')
  ) as s (name, value);
end
$$;
comment on function rowcron.pin_plans() is
  'Makes this session one of a worker, from which claim_ready() may take runs: what claim() sets for '
    'each call, because a plan could be made in it, is set here once.';

create or replace function rowcron.claim_ready(
  worker_id uuid, capacity integer default 1, queues text[] default null,
  kinds text[] default '{sql,http,python}', handlers text[] default null,
  lease interval default '10 seconds'
) returns table (
  run_id bigint, token uuid, job_id bigint, job text, owner text, queue text, kind text,
  command text, args jsonb, attempt integer, scheduled_for timestamptz, due_at timestamptz,
  started_at timestamptz, timeout interval, connection text, idempotency_key uuid,
  secrets text[], args_secrets text[]
)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  at timestamptz := clock_timestamp();
  here text := current_setting('rowcron.identity', true);  -- as _identity() keeps it
  most integer := least(greatest(coalesce(capacity, 1), 0), 10);
  entries bigint := pg_stat_get_xact_tuples_returned('rowcron.run_ready_idx'::regclass);
  blocks bigint := pg_stat_get_xact_blocks_fetched('rowcron.run_ready_idx'::regclass);
  tids tid[];
  seen integer;
  wades boolean;
  secret uuid;
  shared_seal uuid;
begin
  -- where dead entries lie in the way, the whole claim knows where to begin (chapter 058)
  if current_setting('rowcron.pinned', true) = 'yes'
    and coalesce(current_setting('rowcron.wades', true), '') = ''
  then
    with ready as materialized (  -- in the order of chapter 059
      select d.tid, d.job_id, d.owner, d.queue, d.kind
      from rowcron.lane as l
      cross join lateral (
        select r.ctid as tid, r.id, r.priority, r.due_at, r.job_id, r.owner, r.queue, r.kind
        from rowcron.run as r
        where r.queue = l.queue and r.kind = l.kind and r.state = 'ready'
          and (r.handler is null or handlers is null or r.handler = any (handlers))
        order by r.rank, r.due_at, r.id
        limit most
      ) as d
      where l.kind = any (claim_ready.kinds)
        and (claim_ready.queues is null or l.queue = any (claim_ready.queues))
      order by d.priority desc, d.due_at, d.id
      limit most
    ), locked as materialized (  -- and nothing else: what others find locked they leave to us
      select r.ctid as tid
      from rowcron.run as r
      where r.state = 'ready' and r.ctid = any (array(
        select f.tid
        from ready as f
        where coalesce((
            select a.max_running is null and a.enabled
            from rowcron.agenda as a where a.job_id = f.job_id
          ), false) and coalesce((
            select j.connection is null and j.on_lost = 'retry'
              and (j.owner, j.kind, j.queue) is not distinct from (f.owner, f.kind, f.queue)
              and rowcron._may_own_kind(j.owner, j.kind)
            from rowcron.job as j where j.id = f.job_id
          ), false)
          and exists (
            select from rowcron.worker as w
            where w.id = claim_ready.worker_id and w.lost_at is null
              and w.expires_at >= at + w.lease / 2
          )
          and exists (select from rowcron.setting as s where s.name = 'hold' and s.value = 'null')
          and exists (
            select from rowcron.setting as s where s.name = 'identity' and s.value #>> '{}' = here
          )
      ))
      for update skip locked
    )
    select array(select l.tid from locked as l), (select count(*) from ready)
    into tids, seen;
    wades :=
      pg_stat_get_xact_tuples_returned('rowcron.run_ready_idx'::regclass) > entries + 5000
      or pg_stat_get_xact_blocks_fetched('rowcron.run_ready_idx'::regclass) > blocks + 100;
    if wades then
      perform set_config('rowcron.wades', 'yes', false);
    end if;
    if tids <> '{}' then
      secret := gen_random_uuid();
      shared_seal := md5(secret::text);
      return query
      with claimed as (  -- as in chapter 060
        update rowcron.run as r
        set
          state = 'running', worker_id = claim_ready.worker_id, started_at = at,
          seal = case when r.kind = 'sql' then md5(md5(secret || '/' || r.id)::uuid::text)::uuid
            else shared_seal end,
          limited = false,
          priority = r.priority
        where r.ctid = any (tids)
        returning r.id, r.job_id, r.owner, r.kind, r.args, r.attempt, r.scheduled_for, r.retry_for,
          r.due_at, r.created_at, r.priority
      )
      select
        c.id, case when c.kind = 'sql' then md5(secret || '/' || c.id)::uuid else secret end,
        c.job_id, j.name, j.owner::text, j.queue, j.kind,
        case when c.kind <> 'sql' or j.connection is not null then j.command end,
        coalesce(c.args, j.args, '{}'), c.attempt, coalesce(c.scheduled_for, c.retry_for), c.due_at,
        at, j.timeout, j.connection,
        md5((
          select convert_to(s.value #>> '{}', 'UTF8') from rowcron.setting as s
          where s.name = 'installation'
        ) || int8send(c.job_id) || case when c.scheduled_for is not null
          then timestamptz_send(c.scheduled_for)
          else int8send(c.id) || timestamptz_send(c.created_at) end)::uuid,
        case when j.kind in ('http', 'shell') and strpos(j.command, '${secret:') > 0
          then rowcron._granted_secrets(c.owner, j.command) end,
        case when j.kind in ('http', 'shell') and c.args is null
            and strpos(j.args::text, '${secret:') > 0
          then rowcron._granted_secrets(c.owner, j.args::text) end
      from claimed as c
      join rowcron.job as j on j.id = c.job_id
      order by c.priority desc, c.due_at, c.id;
      -- who found more than a little is awake (chapter 060)
      if seen >= least(most, 4) then
        update rowcron.worker as w set asleep = false, wake_at = null, unsettled = null
        where w.id = claim_ready.worker_id and w.asleep;
      end if;
      if wades or seen >= least(most, 4) or seen > cardinality(tids) then
        return next;  -- nobody has given its columns a value
      end if;
      return;
    end if;
    -- others are awake, too: for what another has taken nobody needs to look at everything
    if seen = 0 and not wades then
      timeout := rowcron._look_each(at);
      return next;
      return;
    end if;
  end if;
  return query
  select c.run_id, c.token, c.job_id, c.job, c.owner, c.queue, c.kind, c.command, c.args, c.attempt,
    c.scheduled_for, c.due_at, c.started_at, c.timeout, c.connection, c.idempotency_key, c.secrets,
    c.args_secrets
  from rowcron.claim(claim_ready.worker_id, most, claim_ready.queues, claim_ready.kinds, handlers,
    lease, true) as c;
  perform set_config('rowcron.wades', current_setting(
    rowcron._reach_key(claim_ready.queues, claim_ready.kinds, handlers), true), false);
  return next;
end
$$;
comment on function rowcron.claim_ready(uuid, integer, text[], text[], text[], interval) is
  'The claim of a worker that was woken while its sleep stands: up to `capacity` ready runs, ten at '
    'most, best first, as claim() returns them. A last row of nulls says that there may be more: '
      'claim() has to follow. Without it the worker may sleep on as announced. Where there is none, a '
        'row whose timeout alone is not null says for how long. Without a row of nulls runs are of '
          'jobs that are tried again when a claim is lost: they may begin before the commit. In a '
            'session without pin_plans() it is claim(). Raises as claim().';

reset role;
