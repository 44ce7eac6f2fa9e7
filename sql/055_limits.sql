-- What may not start is not among the ready runs: it waits for its time, for a limit, for an earlier
-- run, or for a resume. Here runs are parked and released. Both happen under the lock of the job's
-- agenda row, in statements of their own after the lock was granted, so that counts are true; whoever
-- does not get that lock leaves the job to whoever holds it. Nothing has to be remembered when a run
-- ends: the next claim that looks finds the room.

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

reset role;
