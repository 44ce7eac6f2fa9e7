-- Runs follow their job in the transaction that edits or deletes it (chapter 042), as far as it sees
-- them: not what a transaction open at the same time has enqueued, fired or put back for another
-- attempt, and in REPEATABLE READ nothing that came after its snapshot. Most of that is put right
-- when it is claimed (chapter 056). Here is the rest, once a minute: what nobody would claim, because
-- it stands in a queue or asks for a handler that nobody has any more, or because it waits for a
-- resume that has been; what has no job; what runs without being counted; and a job that is never
-- due again, because an edit gave it a schedule @after, to be counted from the end of its run, while
-- that run ended under the old one. All of it comes of a change, so it is looked for among the jobs
-- that were changed lately.

set role rowcron_owner;

create or replace function rowcron._reconcile(at timestamptz, most integer) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
-- by the job's number, however many runs there were when it was planned
set jit = off
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  changed bigint[] := array(
    select distinct c.job_id
    from (
      select n.job_id, n.action, n.changed_at from rowcron.change as n order by n.id desc limit 10000
    ) as c
    where c.action in ('update', 'delete') and c.changed_at > at - interval '1 day'
  );
  stray rowcron.run;
  ended integer := 0;
  moved integer;
begin
  for stray in
    select r.*
    from rowcron.run as r
    where r.job_id = any (changed) and r.state <> 'running'
      and not exists (
        select from rowcron.job as j
        where j.id = r.job_id and (j.owner = r.owner or rowcron._was_owned_by(r))
      )
    limit most
    for update of r skip locked
  loop
    perform rowcron._end_run(stray, 'cancelled', case
      when exists (select from rowcron.job as j where j.id = stray.job_id)
        then 'the run does not fit its job' else 'job deleted' end);
    ended := ended + 1;
  end loop;
  update rowcron.run as r
  set
    job = j.name, owner = j.owner, queue = j.queue, kind = j.kind,
    handler = rowcron._handler(j.kind, j.command, j.connection),
    state = case when j.enabled and r.waits_for = 'resume' then 'ready' else r.state end,
    waits_for = case when j.enabled and r.waits_for = 'resume' then null else r.waits_for end
  from rowcron.job as j
  where j.id = r.job_id and r.id = any (array(
    select v.id
    from rowcron.run as v
    join rowcron.job as w on w.id = v.job_id
    where v.job_id = any (changed) and v.state <> 'running'
      and (v.owner = w.owner or rowcron._was_owned_by(v))
      and (
        (v.job, v.owner, v.queue, v.kind, v.handler) is distinct from (w.name, w.owner, w.queue, w.kind,
          rowcron._handler(w.kind, w.command, w.connection))
        or w.enabled and v.waits_for = 'resume'
      )
    limit most
    for update of v skip locked
  ));
  get diagnostics moved = row_count;
  if moved > 0 then
    perform rowcron._notify();
  end if;
  update rowcron.run as r set limited = true
  where r.id = any (array(
    select v.id
    from rowcron.run as v
    join rowcron.agenda as a on a.job_id = v.job_id
    where v.job_id = any (changed) and v.state = 'running' and not v.limited
      and a.max_running is not null
    for update of v skip locked
  ));
  -- From now: within a minute of that end. What has no next instant, or none that can be computed,
  -- is left: it was told when it came to that.
  perform rowcron._count_from_end(array(
    select a.job_id
    from rowcron.agenda as a
    join rowcron.job as j on j.id = a.job_id
    cross join lateral rowcron._next_or_fault(j, a.parsed, greatest(at, a.high_water), a.runs_fired)
      as n
    where a.job_id = any (changed) and a.enabled and a.next_run_at is null
      and (a.parsed).form = 'after' and n.next_at is not null
      and not exists (
        select from rowcron.run as r where r.job_id = a.job_id and r.scheduled_for is not null
      )
    for update of a skip locked
  ));
  return ended < most and moved < most;
end
$$;
comment on function rowcron._reconcile(timestamptz, integer) is
  'Runs that miss what became of their job in the last day follow it, so many at a time, and a '
    'schedule @after that misses the end of its run is due again. Returns whether that were all.';

-- A restore of data alone, with triggers off, brings jobs without their rows in the agenda.
create or replace function rowcron._take_up_jobs(at timestamptz) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  job rowcron.job;
  meaning rowcron._parsed;
begin
  for job in
    select j.* from rowcron.job as j
    where not exists (select from rowcron.agenda as a where a.job_id = j.id)
    order by j.id
  loop
    begin
      meaning := case when job.schedule is not null
        then rowcron._parse(job.schedule, job.owner || '.' || job.name) end;
      perform rowcron._keep_lane(job.queue, job.kind);
      insert into rowcron.agenda as a (
        job_id, owner, queue, kind, enabled, max_running, parsed, high_water, next_run_at, booted_at
      ) values (
        job.id, job.owner, job.queue, job.kind, job.enabled, job.max_running, meaning, at,
        rowcron._next_in_window(job, meaning, at, 0),
        case when (meaning).form = 'reboot' then pg_postmaster_start_time() end
      );
    exception when others then  -- a zone that this server does not know, say
      raise warning 'job "%" of "%" cannot be taken up: %', job.name, job.owner, sqlerrm
        using hint = 'Its owner deletes it and inserts it anew as it should be.';
    end;
  end loop;
end
$$;
comment on function rowcron._take_up_jobs(timestamptz) is
  'Takes up the schedules of jobs that have no agenda, from now on.';

select rowcron._take_up_jobs(clock_timestamp());

reset role;
