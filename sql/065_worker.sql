-- A worker's own row: registration, heartbeat, sleep. One row a worker, however many runs it holds:
-- a claim lives as long as its worker is heard of. A worker that was silent for longer than its
-- lease, and whose runs were handed out, is refused with RCWRK from then on: it has to stop what it
-- runs and begin anew under another id.
--
-- Falling asleep: the worker announces it (asleep = true) and commits, so that whoever makes
-- something due earlier notifies. A transaction that was writing when the announcement committed
-- may not see it; so the worker sleeps lightly until each of those, known by the write lock that it
-- holds on a table through which runs come to be, has ended. A REPEATABLE READ transaction, whose
-- snapshot may be older still, always notifies (chapter 090).

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
  then
    raise exception using
      errcode = 'RCLIM',
      message = 'a worker''s id, kinds, lease and poll must be given',
      detail = 'A lease is 1 s to 1 day, a poll 10 ms to 1 hour.',
      hint = 'For example lease => ''10 s'', poll => ''5 s''.';
  end if;
  if version ~ '^\d+\.\d+\.\d+' and
    (regexp_match(version, '^(\d+)\.(\d+)\.(\d+)'))::integer[] <
      (regexp_match(oldest, '^(\d+)\.(\d+)\.(\d+)'))::integer[]
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
    lease, poll, at, at, at + lease
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
    detail = 'It was silent for longer than its lease, or said that it stops; its runs were handed '
      'out.',
    hint = 'Stop what it runs and begin anew with another id.';
end
$$;
comment on function rowcron._refuse_lost(uuid)
  is 'Tells a worker that it is not one any more. Raises RCWRK.';

create or replace function rowcron._awake(
  worker_id uuid, queues text[], kinds text[], handlers text[], lease interval, at timestamptz
) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  known rowcron.worker;
begin
  select w.* into known from rowcron.worker as w where w.id = worker_id;
  if known.id is null then
    perform rowcron._register(worker_id, queues, kinds, handlers, 1, lease, '5 seconds', null, null,
      null, at);
  elsif known.lost_at is not null then
    perform rowcron._refuse_lost(worker_id);
  elsif known.asleep or known.expires_at < at + known.lease / 2 then
    update rowcron.worker as w
    set asleep = false, wake_at = null, unsettled = null, seen_at = at, expires_at = at + w.lease
    where w.id = worker_id and w.lost_at is null;
    if not found then
      perform rowcron._refuse_lost(worker_id);
    end if;
  end if;
end
$$;
comment on function rowcron._awake(uuid, text[], text[], text[], interval, timestamptz) is
  'A claim is a sign of life too; registers who claims without having said more. Raises RCWRK, '
    'RCLIM.';

create or replace function rowcron._writers() returns text[]
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(array_agg(distinct l.virtualtransaction), '{}')
  from pg_locks as l
  where l.locktype = 'relation' and l.mode = 'RowExclusiveLock' and l.granted
    and l.database = (select d.oid from pg_database as d where d.datname = current_database())
    and l.relation in ('rowcron.run'::regclass, 'rowcron.job'::regclass, 'rowcron.agenda'::regclass)
    and l.pid is distinct from pg_backend_pid()
$$;
comment on function rowcron._writers() is
  'The transactions that hold a write lock on a table through which runs come to be.';

create or replace function rowcron._next_due(
  queues text[], kinds text[], handlers text[], firing_only boolean, at timestamptz
) returns timestamptz
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  lane record;
  due timestamptz;
  booted timestamptz := pg_postmaster_start_time();
begin
  for lane in
    select l.queue, l.kind from rowcron.lane as l
    where l.kind = any (kinds) and (queues is null or l.queue = any (queues))
  loop
    due := least(due, (
      select min(a.next_run_at) from rowcron.agenda as a
      where a.queue = lane.queue and a.kind = lane.kind and a.next_run_at is not null
    ), (
      select at from rowcron.agenda as a
      where a.queue = lane.queue and a.kind = lane.kind and a.booted_at < booted limit 1
    ));
    continue when firing_only;
    due := least(due, (
      select min(r.due_at) from rowcron.run as r
      where r.queue = lane.queue and r.kind = lane.kind and r.state = 'waiting'
        and r.waits_for = 'time'
    ), (
      select at from rowcron.run as r
      where r.queue = lane.queue and r.kind = lane.kind and r.state = 'ready'
        and (r.handler is null or handlers is null or r.handler = any (handlers))
      -- the order of run_ready_idx: no other index must be taken
      order by r.priority desc, r.due_at, r.id
      limit 1
    ), (
      -- released by the claim that follows some run's end
      select at + interval '1 second' from rowcron.run as r
      where r.queue = lane.queue and r.kind = lane.kind and r.state = 'waiting'
        and r.waits_for in ('limit', 'overlap')
      order by r.job_id, r.due_at  -- run_parked_idx
      limit 1
    ));
  end loop;
  return due;
end
$$;
comment on function rowcron._next_due(text[], text[], text[], boolean, timestamptz) is
  'When there is next something to fire, or unless firing_only to claim, in these queues and '
    'kinds.';

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

create or replace function rowcron.heartbeat(
  worker_id uuid, queues text[] default null, kinds text[] default '{sql,http,python}',
  handlers text[] default null, concurrency integer default 1, lease interval default '10 seconds',
  poll interval default '5 seconds', version text default null, host text default null,
  pid integer default null, asleep boolean default null, stopping boolean default false,
  changes_since bigint default null
) returns table (wake_after interval, settled boolean, cancels bigint[], changes jsonb)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
set enable_bitmapscan = off
as $$
#variable_conflict use_column
declare
  at timestamptz := clock_timestamp();
  known rowcron.worker;
  writing text[];
  due timestamptz;
begin
  select w.* into known from rowcron.worker as w where w.id = heartbeat.worker_id;
  if known.id is null then
    perform rowcron._register(worker_id, queues, kinds, handlers, concurrency, lease, poll, version,
      host, pid, at);
    select w.* into known from rowcron.worker as w where w.id = heartbeat.worker_id;
  end if;
  if heartbeat.stopping then
    perform rowcron._give_back(worker_id, at);
    return;
  end if;

  if heartbeat.asleep and known.asleep then
    writing := rowcron._writers();
    if known.unsettled is not null then
      writing := array(select u from unnest(known.unsettled) as u where u = any (writing));
    end if;
  end if;
  -- after the writers: what they left behind is seen now
  if heartbeat.asleep is not null and rowcron._read_setting('hold') = 'null' then
    due := rowcron._next_due(known.queues, known.kinds, known.handlers, not heartbeat.asleep, at);
    if heartbeat.asleep then
      due := least(due, (
        select min(greatest(w.expires_at, case when w.lost_at is not null
          then at + interval '1 second' end))
        from rowcron.worker as w
        where w.id <> known.id
          and exists (select from rowcron.run as r where r.worker_id = w.id and r.state = 'running')
      ));
    end if;
  end if;
  update rowcron.worker as w
  set
    seen_at = at, expires_at = at + w.lease,
    asleep = coalesce(heartbeat.asleep, w.asleep),
    wake_at = case when heartbeat.asleep then least(due, at + w.poll) when heartbeat.asleep is null
      then w.wake_at end,
    unsettled = case when heartbeat.asleep is null then w.unsettled else writing end
  where w.id = heartbeat.worker_id and w.lost_at is null;
  if not found then
    perform rowcron._refuse_lost(worker_id);
  end if;
  if rowcron._read_setting('hold') = 'null' then
    perform rowcron._rescue(at);
  end if;
  perform rowcron._maintain(at);
  return query
  select
    due - clock_timestamp(),
    coalesce(cardinality(writing) = 0, false),
    array(
      select r.id from rowcron.run as r
      where r.worker_id = heartbeat.worker_id and r.state = 'running' and r.cancel_asked_by
        is not null
    ),
    case when changes_since = 0 then jsonb_build_array(jsonb_build_object(
      'id', (select coalesce(max(c.id), -1) from rowcron.change as c)))
    when changes_since is not null then rowcron._changes_since(changes_since) else '[]' end;
end
$$;
comment on function rowcron.heartbeat(
  uuid, text[], text[], text[], integer, interval, interval, text, text, integer, boolean, boolean,
    bigint
) is
  'A worker''s sign of life; the first registers it, one with stopping is its last. Returns how '
    'long there is nothing to do (asleep => true: to claim; false: to fire; null: not asked), '
      'whether a sleep announced is settled, which runs to cancel, and what changed. Raises RCWRK, '
        'RCVER, RCLIM.';

reset role;
