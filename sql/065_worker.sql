-- A worker's own row: registration, heartbeat. One row a worker, however many runs it holds:
-- a claim lives as long as its worker is heard of. A worker that was silent for too long (chapter
-- 080), and whose runs were handed out, is refused with RCWRK from then on: it has to stop what it
-- runs and begin anew under another id.

set role rowcron_owner;

create or replace function rowcron._register(
  worker_id uuid, queues text[], kinds text[], handlers text[], concurrency integer, lease interval,
  poll interval, version text, host text, pid integer, at timestamptz
) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  oldest text := rowcron._read_setting('oldest_worker') #>> '{}';
begin
  if worker_id is null or kinds is null
    or coalesce(lease not between '1 second' and '1 day', true)
      or coalesce(poll not between '10 milliseconds' and '1 hour', true)
      or not (rowcron._is_plain(lease) and rowcron._is_plain(poll))
  then
    raise exception using
      errcode = 'RCLIM',
      message = 'a worker''s id, kinds, lease and poll must be given',
      detail = 'A lease is 1 s to 1 day, a poll 10 ms to 1 hour, no part of them negative.',
      hint = 'For example lease => ''10 s'', poll => ''5 s''.';
  end if;
  if version ~ E'^\\d+\\.\\d+\\.\\d+' and
    (regexp_match(version, E'^(\\d+)\\.(\\d+)\\.(\\d+)'))::integer[] <
      (regexp_match(oldest, E'^(\\d+)\\.(\\d+)\\.(\\d+)'))::integer[]
  then
    raise exception using
      errcode = 'RCVER',
      message = format('worker %s is too old for this schema', version),
      detail = format('The schema is %s and serves workers from %s on.', rowcron.version(), oldest),
      hint = 'pip install --upgrade rowcron';
  end if;
  insert into rowcron.worker (
    id, host, pid, version, queues, kinds, handlers, concurrency, lease, poll, started_at, seen_at,
      expires_at
  )
  values (
    worker_id, left(host, 255), pid, left(version, 40), queues, kinds, handlers,
      greatest(coalesce(concurrency, 1), 0),
    lease, poll, at, rowcron._put_off(worker_id, at), at + lease
  )
  on conflict do nothing;
end
$$;
comment on function rowcron._register(uuid, text[], text[], text[], integer, interval, interval,
  text, text, integer, timestamptz) is
  'Makes a worker known. Raises RCVER, RCLIM.';

create or replace function rowcron._refuse_lost(worker_id uuid) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using
    errcode = 'RCWRK',
    message = format('worker %s was declared lost', worker_id),
    detail = 'It was silent for too long, or said that it stops; its runs were handed out.',
    hint = 'Stop what it runs and begin anew with another id.';
end
$$;
comment on function rowcron._refuse_lost(uuid)
  is 'Tells a worker that it is not one any more. Raises RCWRK.';

drop function if exists rowcron._awake(uuid, text[], text[], text[], interval, timestamptz);
create or replace function rowcron._sign_of_life(
  worker_id uuid, queues text[], kinds text[], handlers text[], lease interval, at timestamptz
) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  is_lost boolean;
begin
  update rowcron.worker as w
  set seen_at = rowcron._put_off(w.id, at), expires_at = at + w.lease, session_ended_at = null
  where w.id = worker_id and w.lost_at is null and w.expires_at < at + w.lease / 2;
  if found then
    return;
  end if;
  is_lost := (select w.lost_at is not null from rowcron.worker as w where w.id = worker_id);
  if is_lost then
    perform rowcron._refuse_lost(worker_id);
  elsif is_lost is null then
    perform rowcron._register(worker_id, queues, kinds, handlers, 1, lease, '5 seconds', null, null,
      null, at);
  end if;
end
$$;
comment on function rowcron._sign_of_life(uuid, text[], text[], text[], interval, timestamptz) is
  'A claim is a sign of life too; registers who claims without having said more. Raises RCWRK, '
    'RCLIM.';

create or replace function rowcron._changes_since(since bigint) returns jsonb
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
  -- not those that a transaction still open may precede: they come next time
  select coalesce(jsonb_agg(c.line order by c.id), '[]')
  from (
    select c.id, jsonb_build_object(
      'id', c.id, 'at', c.changed_at, 'by', c.changed_by, 'action', c.action, 'job', c.job, 'owner',
        c.owner, 'run_id', c.run_id,
      'columns', case when c.action = 'update'
        then (select jsonb_agg(k) from jsonb_object_keys(c.new_values) as k) end
    ) as line
    from rowcron.change as c
    where c.id > since and c.xid < pg_snapshot_xmin(pg_current_snapshot())
    order by c.id
    limit 100
  ) as c
$$;
comment on function rowcron._changes_since(bigint) is
  'At most 100 changes after this one, as JSON lines for a worker''s log: who did what, no values.';

drop function if exists rowcron.heartbeat(uuid, text[], text[], text[], integer, interval, interval,
  text, text, integer, boolean, boolean, bigint);
drop function if exists rowcron.heartbeat(uuid, text[], text[], text[], integer, interval, interval,
  text, text, integer, boolean, boolean, bigint, boolean);
-- a column more
drop function if exists rowcron.heartbeat(uuid, text[], text[], text[], integer, interval, interval,
  text, text, integer, boolean, boolean, bigint, boolean, bigint[]);
drop function if exists rowcron.heartbeat(uuid, text[], text[], text[], integer, interval, interval,
  text, text, integer, boolean, boolean, bigint, boolean, bigint[]);
create or replace function rowcron.heartbeat(
  worker_id uuid, queues text[] default null, kinds text[] default '{sql,http,python}',
  handlers text[] default null, concurrency integer default 1, lease interval default '10 seconds',
  poll interval default '5 seconds', version text default null, host text default null,
  pid integer default null, asleep boolean default null, stopping boolean default false,
  changes_since bigint default null, session boolean default null, holding bigint[] default null,
  full_kinds text[] default null
) returns table (
  wake_after interval, settled boolean, cancels bigint[], changes jsonb, look_after interval,
  held text, lead interval
)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set jit = off
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
as $$
#variable_conflict use_column
declare
  at timestamptz := clock_timestamp();
  known rowcron.worker;
  writing text[];
  due timestamptz;
  wakes timestamptz;
  full_due timestamptz;
begin
  held := rowcron._held();
  select w.* into known from rowcron.worker as w where w.id = heartbeat.worker_id;
  if known.id is null then
    perform rowcron._register(worker_id, queues, kinds, handlers, concurrency, lease, poll, version,
      host, pid, at);
    select w.* into known from rowcron.worker as w where w.id = heartbeat.worker_id;
  end if;
  if heartbeat.stopping then
    perform rowcron._give_back(worker_id, at, coalesce(holding, '{}'));
    return;
  end if;

  if heartbeat.asleep and known.asleep then
    writing := rowcron._writers();
    if known.unsettled is not null then
      writing := array(select u from unnest(known.unsettled) as u where u = any (writing));
    end if;
  end if;
  -- after the writers: what they left behind is seen now
  if heartbeat.asleep is not null and held is null then
    select n.due, n.look_after into due, look_after
    from rowcron._next_due(known.queues, case when full_kinds is null then known.kinds else array(
        select k from unnest(known.kinds) as k where k <> all (full_kinds)
      ) end, known.handlers, not heartbeat.asleep, at,
      known.asleep and cardinality(writing) = 0) as n;
    -- what it cannot take it fires all the same
    if full_kinds is not null then
      full_due := (
        select n.due
        from rowcron._next_due(known.queues, full_kinds, known.handlers, true, at) as n
      );
      due := least(due, full_due);
    end if;
    wakes := due;
    if heartbeat.asleep and due is distinct from full_due and due > at and due < at + known.poll + interval '1 second' then
      lead := rowcron._lead(known.queues, known.kinds, due);
    end if;
    if heartbeat.asleep and known.asleep and known.wake_at is not null
      and (due > known.wake_at or due is null)
    then
      if due <= at then
        wakes := known.wake_at;  -- it goes on looking
      elsif due <= at + interval '1 second' and known.wake_at > at then
        wakes := known.wake_at;  -- it looks so soon, and then announces its sleep anew
        due := wakes;
      else
        -- Whoever is writing relied on its waking earlier: as if it fell asleep just now. A poll
        -- that ends is none of this, so it is not announced. An instant that has passed must not
        -- stand: to whoever inserts it would say that this worker is about to look.
        writing := null;
      end if;
    end if;
    if not known.full_kinds <@ coalesce(full_kinds, '{}') then
      writing := null;  -- nobody has told it of those
    end if;
    if heartbeat.asleep then
      due := least(due, (
        select min(greatest(w.expires_at, case when w.lost_at is not null
          then at + interval '1 second' end))
        from rowcron.worker as w
        where w.id <> known.id
          and rowcron._holds(w.id)
      ));
    end if;
  end if;
  -- A pulse beats often, so that what is asked of its worker is heard soon, and writes seldom.
  if heartbeat.asleep is not null or known.lost_at is not null
    or known.expires_at < at + known.lease * 0.7
  then
    update rowcron.worker as w
    set
      seen_at = rowcron._put_off(w.id, at), expires_at = at + w.lease, session_ended_at = null,
      asleep = coalesce(heartbeat.asleep, w.asleep),
      wake_at = case when heartbeat.asleep then wakes when heartbeat.asleep is null
        then w.wake_at end,
      unsettled = case when heartbeat.asleep is null then w.unsettled else writing end,
      full_kinds = case when heartbeat.asleep is null then w.full_kinds else heartbeat.full_kinds end
    where w.id = heartbeat.worker_id and w.lost_at is null;
    if not found then
      perform rowcron._refuse_lost(worker_id);
    end if;
  end if;
  if session is not null then
    perform rowcron._keep_session(worker_id, session);
  end if;
  if holding is not null then
    perform rowcron._give_back_others(worker_id, holding);
  end if;
  if held is null then
    perform rowcron._look_for_ended(at);
    if rowcron._rescue(at) > 0 and heartbeat.asleep is not null then
      due := at;
    end if;
    if heartbeat.asleep then
      look_after := least(look_after, rowcron._look_after(worker_id, at));
    end if;
  end if;
  return query
  select
    due - clock_timestamp(),
    coalesce(cardinality(writing) = 0, false),
    array(
      select r.id from rowcron.run as r
      -- nothing about the state, which would let the larger run_running_idx be taken
      where r.worker_id = heartbeat.worker_id and r.cancel_asked_by is not null
    ),
    case when changes_since = 0 then jsonb_build_array(jsonb_build_object(
      'id', (select coalesce(max(c.id), -1) from rowcron.change as c)))
    when changes_since is not null then rowcron._changes_since(changes_since) else '[]' end,
    look_after, held, lead;
  perform rowcron._maintain(at);  -- last, because of the locks that it may take
end
$$;
comment on function rowcron.heartbeat(
  uuid, text[], text[], text[], integer, interval, interval, text, text, integer, boolean, boolean,
    bigint, boolean, bigint[], text[]
) is
  'A worker''s sign of life; the first registers it, one with stopping is its last; session => true: '
    'the session that says so is the worker''s own and lasts while it lives (none that executes '
    'SQL jobs: while one runs there, it cannot beat); holding: all the runs that it knows it holds, '
    'the others are given back (with stopping: those that had begun, and are lost with it); full_kinds: of these it can take no more, '
      'so that they are only fired, and nobody tells it of their runs. Returns how long there '
      'is nothing to do (asleep => true: to claim; false: to fire; null: not asked), whether a '
        'sleep announced is settled, which runs to cancel, what changed, when to say that it sleeps '
          'again, why everything is held, and how long before wake_after a claim ahead should come '
            '(null: none). Raises RCWRK, RCVER, RCLIM.';

reset role;
