-- Falling asleep: the worker announces it (asleep = true) and commits, so that whoever makes
-- something due earlier notifies. A transaction that was writing when the announcement committed
-- may not see it; so the worker sleeps lightly until each of those, known by the write lock that it
-- holds on a table through which runs come to be, has ended. A REPEATABLE READ transaction, whose
-- snapshot may be older still, always notifies (chapter 090). What is announced is when the worker
-- will have something to do, not when its poll ends: a transaction that relied on that could commit
-- just after the look that follows. A claim that finds little leaves the announcement as it
-- stands, so that of many workers that one run wakes none needs to announce anew.
--
-- Here is what a worker must know for it; the heartbeat that announces it is in chapter 065.

set role rowcron_owner;

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

drop function if exists rowcron._next_due(text[], text[], text[], boolean, timestamptz);
create or replace function rowcron._next_due(
  queues text[], kinds text[], handlers text[], firing_only boolean, at timestamptz,
  settled boolean default false, out due timestamptz, out look_after interval
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  lane_queues text[];
  lane_kinds text[];
  lane record;
  booted timestamptz := pg_postmaster_start_time();
  key text := rowcron._reach_key(_next_due.queues, _next_due.kinds, handlers);
  reached rowcron._reached;
  sweeps boolean;
  began timestamptz := clock_timestamp();
begin
  select l.queues, l.kinds into lane_queues, lane_kinds
  from rowcron._lanes(_next_due.queues, _next_due.kinds) as l;
  reached := rowcron._recall(key);
  sweeps := rowcron._sweep_due(reached, not firing_only);
  for lane in
    select l.queue, l.kind from unnest(lane_queues, lane_kinds) as l (queue, kind)
  loop
    due := least(due, (
      select min(a.next_run_at) from rowcron.agenda as a
      where a.queue = lane.queue and a.kind = lane.kind
        and a.next_run_at >= coalesce(case when not sweeps then reached.fired_until end, '-infinity')
    ), (
      select at from rowcron.agenda as a
      where a.queue = lane.queue and a.kind = lane.kind and a.booted_at < booted limit 1
    ));
    continue when firing_only;
    due := least(due, (
      select min(r.due_at) from rowcron.run as r
      where r.queue = lane.queue and r.kind = lane.kind and r.state = 'waiting'
        and r.waits_for = 'time'
        and r.due_at >= coalesce(case when not sweeps then reached.promoted_until end, '-infinity')
    ), (
      -- released by the claim that follows some run's end
      select at + interval '1 second' from rowcron.run as r
      where r.queue = lane.queue and r.kind = lane.kind and r.state = 'waiting'
        and r.waits_for in ('limit', 'overlap')
      order by r.job_id, r.due_at  -- run_parked_idx
      limit 1
    ));
  end loop;
  if firing_only then
    return;
  end if;
  due := least(due, (
    select at
    from unnest(rowcron._bands(lane_queues, lane_kinds, case when not sweeps then reached.bounds
      end)) as l
    cross join lateral (
      select r.id
      from rowcron.run as r
      where r.queue = l.queue and r.kind = l.kind and r.state = 'ready'
        and (r.rank, r.due_at, r.id) >= (l.from_rank, l.from_due_at, l.from_id)
        and r.rank <= l.until_rank
        and (r.handler is null or handlers is null or r.handler = any (handlers))
      -- the order of run_ready_idx: no other index must be taken
      order by r.rank, r.due_at, r.id
      limit 1
    ) as r
    limit 1
  ));
  if reached.swept_at is null then
    return;
  end if;
  -- Once all has been looked at while the sleep was settled, what comes notifies. Until then there
  -- may be something below the bounds.
  if sweeps then
    if due <= at then
      perform rowcron._remember(key, null);  -- the claim that follows must find it
      return;
    end if;
    reached.swept_at := clock_timestamp();
    reached.took := extract(epoch from reached.swept_at - began);
    reached.idle := settled;
    perform rowcron._remember(key, reached);
  end if;
  if not reached.idle then
    look_after := greatest(make_interval(secs => 10 * reached.took), interval '10 milliseconds')
      - (clock_timestamp() - reached.swept_at);
  end if;
end
$$;
comment on function rowcron._next_due(text[], text[], text[], boolean, timestamptz, boolean) is
  'When there is next something to fire, or unless firing_only to claim, in these queues and kinds; '
    'and after what time to ask again, because bounds (chapter 058) may hide something. settled: '
    'whoever made something due without notifying has committed before.';

reset role;
