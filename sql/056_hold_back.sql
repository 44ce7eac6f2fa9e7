-- What may not start is held back: of the runs that a claim has locked (chapter 059) those of a job
-- that is paused, busy up to its limit, or being edited are parked, until chapter 055 lets them go;
-- those without a job, or whose owner has lost a right, end; those whose job has moved follow it.
-- Nobody waits here. Whoever does not get the lock of a job's agenda row starts nothing of what it
-- guards, and parks that too: ready it would stand before the runs of others in each claim, for as
-- long as an edit of the job is open.

set role rowcron_owner;

create or replace function rowcron._hold_back(ids bigint[], picked bigint[]) returns bigint[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  kept bigint[];
  entry rowcron.agenda;
  decides boolean;  -- else somebody else does, about the whole job
  room bigint;
  mine bigint[];
  stray rowcron.run;
  told boolean;
begin
  -- What was enqueued, put back or inserted by hand while its job got another queue, kind or owner
  -- and did not see that goes where its job is now. To another owner, whose rights it gets there, only
  -- if its own has handed the job over.
  with moved as (
    update rowcron.run as r
    set job = j.name, owner = j.owner, queue = j.queue, kind = j.kind,
      handler = rowcron._handler(j.kind, j.command, j.connection)
    from rowcron.job as j
    where r.id = any (ids) and j.id = r.job_id
      and (j.owner <> r.owner or j.kind <> r.kind or j.queue <> r.queue)
      and (j.owner = r.owner or rowcron._was_owned_by(r))
    returning r.id
  )
  select array(select i from unnest(ids) as i where i not in (select m.id from moved as m)),
    (select rowcron._notify() from moved as m limit 1) is null
  into ids, told;
  -- a run whose job is gone or another's, or whose owner has lost a right
  for stray in
    select r.* from rowcron.run as r
    where r.id = any (ids) and not exists (
      select from rowcron.job as j
      where j.id = r.job_id and j.owner = r.owner and j.kind = r.kind and j.queue = r.queue
        and rowcron._may_own_kind(j.owner, j.kind)
        and (j.connection is null or rowcron._may_use_connection(j.owner, j.connection))
    )
  loop
    ids := array_remove(ids, stray.id);
    if not rowcron._can_end(stray) then
      update rowcron.run as r set state = 'waiting', waits_for = 'limit' where r.id = stray.id;
      continue;
    end if;
    perform rowcron._end_run(stray, 'cancelled', case
      when not exists (select from rowcron.job as j where j.id = stray.job_id) then 'job deleted'
      when not exists (
        select from rowcron.job as j where j.id = stray.job_id and j.owner = stray.owner
      ) then 'the run does not fit its job'
      when not rowcron._may_own_kind(stray.owner, stray.kind)
        then format('kind %s is not granted to %s', stray.kind, stray.owner)
      else coalesce((
        select format('connection %s is not granted to %s', j.connection, j.owner)
        from rowcron.job as j
        where j.id = stray.job_id and j.connection is not null
          and not rowcron._may_use_connection(j.owner, j.connection)
      ), 'the run does not fit its job') end);
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
  loop
    perform from rowcron.agenda as a where a.job_id = entry.job_id for update skip locked;
    decides := found;
    -- a new statement, so that it sees what was committed before the lock was granted
    select a.* into entry from rowcron.agenda as a where a.job_id = entry.job_id;
    mine := array(
      select r.id from rowcron.run as r
      where r.id = any (ids) and r.id <> all (kept) and r.job_id = entry.job_id
        and decides and (entry.enabled or r.through_pause)
      order by r.priority desc, r.due_at, r.id
    );
    if entry.max_running is not null then
      select greatest(entry.max_running - count(*), 0) into room
      from (
        select r.id from rowcron.run as r
        where r.job_id = entry.job_id and r.state = 'running' and r.limited
        union
        select r.id from rowcron.run as r where r.id = any (picked) and r.job_id = entry.job_id
      ) as r;
      mine := mine[:room];
    end if;
    kept := kept || mine;
    update rowcron.run as r
    -- a resume that is open now would not see what is parked for it
    set state = 'waiting', waits_for = case
      when not decides or entry.enabled or r.through_pause then 'limit' else 'resume' end
    where r.id = any (array(
      select v.id from rowcron.run as v
      where v.job_id = entry.job_id and v.state = 'ready' and v.id <> all (kept)
        and v.id <> all (picked)
        and (entry.max_running is not null or not v.through_pause)
      limit 1000
      for update skip locked
    ));
  end loop;
  return kept;
end
$$;
comment on function rowcron._hold_back(bigint[], bigint[]) is
  'Returns which of these locked runs may start now, beside those picked already; parks those of '
    'jobs that are paused, fully busy or being edited, ends those without a job.';

reset role;
