-- What may not start is not among the ready runs: it waits for its time, for a limit, for an earlier
-- run, or for a resume. Here runs are let go, in the next chapter they are parked. Both is decided
-- under the lock of the job's agenda row, in statements of their own after the lock was granted, so
-- that counts are true. Nothing has to be remembered when a run or an edit ends: the next claim that
-- looks finds the room.

set role rowcron_owner;

create or replace function rowcron._lanes(
  inout queues text[], inout kinds text[]
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  select array_agg(l.queue order by l.queue, l.kind), array_agg(l.kind order by l.queue, l.kind)
  into _lanes.queues, _lanes.kinds
  from rowcron.lane as l
  where l.kind = any (_lanes.kinds)
    and (_lanes.queues is null or l.queue = any (_lanes.queues));
end
$$;
comment on function rowcron._lanes(text[], text[])
  is 'The lanes that there are of these queues (null: all) and kinds, as two arrays.';

drop function if exists rowcron._promote(text[], text[], timestamptz);
create or replace function rowcron._promote(queues text[], kinds text[], at timestamptz,
  since timestamptz default null) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_sort = off  -- run_waiting_idx: beside a thousand runs another was read from end to end
as $$
declare
  -- an array, not a subquery in the update: joined, it was planned as a walk through all of run
  due bigint[] := array(
    select w.id
    from unnest(queues, kinds) as l (queue, kind)
    cross join lateral (
      select v.id
      from rowcron.run as v
      where v.queue = l.queue and v.kind = l.kind and v.state = 'waiting' and v.waits_for = 'time'
        and v.due_at <= at and v.due_at >= coalesce(since, '-infinity')
      order by v.due_at
      limit 1000
      for update skip locked
    ) as w
  );
begin
  if due <> '{}' then
    update rowcron.run as r set state = 'ready', waits_for = null where r.id = any (due);
  end if;
  return cardinality(due);
end
$$;
comment on function rowcron._promote(text[], text[], timestamptz, timestamptz) is
  'Waiting runs of these lanes that are due become ready, at most 1000 a lane; returns how many. '
    'since: what was due before is not looked for.';

drop function if exists rowcron._release_parked(text[], text[]);
create or replace function rowcron._release_parked(queues text[], kinds text[]) returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  parked record;
  entry rowcron.agenda;
  released integer := 0;
  more integer;
begin
  for parked in
    with recursive jobs as (
      select l.queue, l.kind, (
        select r.job_id from rowcron.run as r
        where r.queue = l.queue and r.kind = l.kind and r.state = 'waiting'
          and r.waits_for in ('limit', 'overlap')
        order by r.job_id, r.due_at  -- run_parked_idx
        limit 1
      ) as job_id
      from unnest(queues, kinds) as l (queue, kind)
      union all
      select j.queue, j.kind, (
        select r.job_id from rowcron.run as r
        where r.queue = j.queue and r.kind = j.kind and r.state = 'waiting'
          and r.waits_for in ('limit', 'overlap')
          and r.job_id > j.job_id
        order by r.job_id, r.due_at
        limit 1
      )
      from jobs as j
      where j.job_id is not null
    )
    select j.job_id
    from jobs as j
    -- limit: a join planned while there were few jobs reads all of them
    cross join lateral (
      select g.max_running from rowcron.agenda as g where g.job_id = j.job_id limit 1
    ) as a
    where j.job_id is not null
      and (
        a.max_running is null
        or a.max_running > (select count(*) from rowcron.run as r where r.job_id = j.job_id
          and r.state = 'running' and r.limited)
      )
    order by j.job_id
  loop
    perform from rowcron.agenda as a where a.job_id = parked.job_id for update skip locked;
    continue when not found;
    -- a new statement, so that it sees what was committed before the lock was granted
    select a.* into entry from rowcron.agenda as a where a.job_id = parked.job_id;
    -- What was parked for a limit and then paused: among the others it would be looked at, and put
    -- back, before each run that may start in spite of the pause.
    if not entry.enabled then
      update rowcron.run as r
      set waits_for = 'resume'
      where r.id = any (array(
        select w.id
        from rowcron.run as w
        where w.job_id = parked.job_id and w.waits_for = 'limit' and not w.through_pause
        limit 1000
        for update skip locked
      ));
    end if;
    -- the best of all, so that what is ready already has no precedence over what was parked before
    update rowcron.run as r
    set state = 'ready', waits_for = null
    -- what its owner has locked, by a cancel that is not committed, say, holds nobody else up
    where r.id = any (array(
      select p.id
      from rowcron.run as p
      where p.waits_for = 'limit' and p.id = any (array(
        select w.id
        from rowcron.run as w
        where w.job_id = parked.job_id and (w.state = 'ready' or w.waits_for = 'limit')
          and (entry.enabled or w.through_pause)
        order by w.priority desc, w.due_at, w.id
        limit case when entry.max_running is null then 1000 else greatest(entry.max_running - (
          select count(*) from rowcron.run as v where v.job_id = parked.job_id
            and v.state = 'running' and v.limited
        ), 0) end
      ))
      for update skip locked
    ));
    get diagnostics more = row_count;
    released := released + more;
    update rowcron.run as r
    set
      state = case when r.due_at > clock_timestamp() then 'waiting' else 'ready' end,
      waits_for = case when r.due_at > clock_timestamp() then 'time' end
    where r.id = (
      select p.id
      from rowcron.run as p
      where p.id = (
        select w.id
        from rowcron.run as w
        where w.job_id = parked.job_id and w.state = 'waiting' and w.waits_for = 'overlap'
        order by w.scheduled_for
        limit 1
      ) and p.waits_for = 'overlap'
      for update skip locked
    ) and not exists (
      select from rowcron.run as v
      where v.job_id = parked.job_id and v.scheduled_for is not null and v.waits_for is distinct
        from 'overlap'
    );
    get diagnostics more = row_count;
    released := released + more;
  end loop;
  return released;
end
$$;
comment on function rowcron._release_parked(text[], text[]) is
  'Runs that waited for a limit or for an earlier run become ready as far as there is room now; '
    'returns how many.';

reset role;
