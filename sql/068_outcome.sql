-- What follows an attempt's end: the end of the run, or another attempt after a pause. A final outcome
-- deletes the run and writes its ledger entry together; a failure with attempts left, or a loss with
-- losses left, writes an entry that is not final and puts the run back. Callers hold the run's lock.
-- An attempt that its worker broke off because it was told to stop (stopped) is lost, too: what it
-- had done stays done. But it does not count against max_lost, because a job that takes longer than
-- the time between two deployments would else end without ever having had its time.
--
-- The order of locks: job, agenda, run. An owner who pauses a job and cancels its run has the agenda
-- before the run, so whoever ends a run that a schedule @after counts from locks the agenda first, too,
-- and until then holds the run FOR KEY SHARE at most, which lets a cancel be written. While an agenda
-- is locked nobody waits for what runs FOR UPDATE. Who has the run first, because it looks for runs and
-- not for one, must not wait: it passes over an agenda that is locked, or gives up soon (chapter 070).
--
-- Neither job nor agenda is written, with one exception: the schedule @after counts from here. Where
-- it cannot be counted, the job is taken off the agenda with an entry that says so: the end of the run,
-- and of those that end in the same statement, stands nevertheless.

set role rowcron_owner;

create or replace function rowcron._tail(value text, bytes integer) returns text
language plpgsql immutable strict
set search_path = pg_catalog, pg_temp
as $$
begin
  value := right(value, bytes);
  while octet_length(value) > bytes loop
    value := right(value, length(value) - (octet_length(value) - bytes + 3) / 4);
  end loop;
  return value;
end
$$;
comment on function rowcron._tail(text, integer)
  is 'The end of a text, at most so many bytes, cut on a character.';

create or replace function rowcron._bounded(value jsonb, bytes integer) returns jsonb
language sql immutable strict
set search_path = pg_catalog, pg_temp
as $$
  select case when octet_length(value::text) > bytes
    then jsonb_build_object('truncated', true, 'bytes', octet_length(value::text)) else value end
$$;
comment on function rowcron._bounded(jsonb, integer)
  is 'A result if it is small enough, else its size.';

create or replace function rowcron._next_or_fault(
  job rowcron.job, parsed rowcron._parsed, after timestamptz, runs_fired bigint,
  out next_at timestamptz, out fault text
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  next_at := rowcron._next_in_window(job, parsed, after, runs_fired);
  if next_at <= after then
    raise exception 'what follows % is not after it', after;
  end if;
exception when others then
  next_at := null;
  fault := 'schedule cannot be computed: ' || sqlerrm;
end
$$;
comment on function rowcron._next_or_fault(rowcron.job, rowcron._parsed, timestamptz, bigint)
  is 'As _next_in_window, but tells why it has failed instead of raising that.';

create or replace function rowcron._lock_agenda_of(live rowcron.run, outcome text) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform from rowcron.agenda as a
  join rowcron.job as j on j.id = a.job_id
  where a.job_id = live.job_id and (a.parsed).form = 'after'
    and (
      outcome in ('succeeded', 'fatal', 'cancelled') or live.cancel_asked_by is not null
      -- another attempt does not touch the agenda, so it does not wait for it
      or outcome = 'failed' and live.failures + 1 >= j.max_attempts
    )
  for update of a;
  return true;
end
$$;
comment on function rowcron._lock_agenda_of(rowcron.run, text) is
  'For a condition on a run that is then locked or deleted: locks the agenda before, if this outcome '
    'ends the run and a schedule @after counts from there. Always true.';

-- For rows that have been deleted from run just now.
create or replace function rowcron._count_from_end(job_ids bigint[]) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform from rowcron.agenda as a
  where a.job_id = any (job_ids) and (a.parsed).form = 'after'
  order by a.job_id
  for update;
  if not found then
    return;
  end if;
  -- a new statement, which sees what somebody has made of the job, or ended, before the lock
  with counted as materialized (
    select j.id, j.name, j.owner, j.queue, j.kind, c.at, n.next_at, n.fault
    from rowcron.agenda as a
    join rowcron.job as j on j.id = a.job_id
    cross join lateral (
      select greatest(clock_timestamp(), a.high_water) as at offset 0
    ) as c
    cross join lateral rowcron._next_or_fault(j, a.parsed, c.at, a.runs_fired) as n
    where a.job_id = any (job_ids) and (a.parsed).form = 'after'
      -- a run in line, left from an earlier schedule, will end later
      and not exists (
        select from rowcron.run as r where r.job_id = a.job_id and r.scheduled_for is not null
      )
  ), moved as (
    update rowcron.agenda as a
    set
      next_run_at = c.next_at,
      high_water = case when c.fault is null then a.high_water else c.at end
    from counted as c
    where a.job_id = c.id
  )
  insert into rowcron.ledger (
    job_id, job, owner, queue, kind, final, scheduled_for, first_scheduled_for, due_at,
    finished_at, outcome, reason
  )
  select
    c.id, c.name, c.owner, c.queue, c.kind, true, c.at, c.at, c.at, clock_timestamp(), 'missed',
    c.fault
  from counted as c
  where c.fault is not null;
end
$$;
comment on function rowcron._count_from_end(bigint[])
  is 'A job with schedule @after is next due counted from now, when its run has ended.';

create or replace function rowcron._can_end(live rowcron.run) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if live.scheduled_for is null then
    return true;
  end if;
  perform from rowcron.agenda as a
  where a.job_id = live.job_id and (a.parsed).form = 'after'
  for update skip locked;
  return found or not exists (
    select from rowcron.agenda as a where a.job_id = live.job_id and (a.parsed).form = 'after'
  );
end
$$;
comment on function rowcron._can_end(rowcron.run) is
  'Whether _end_run would wait for nobody: locks what the job''s next occurrence is counted in; '
    'false while an edit of the job is open. For those who act for many owners and can come again.';

create or replace function rowcron._record(
  live rowcron.run, final boolean, outcome text, reason text, error text, output text, result jsonb
) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into rowcron.ledger (
    job_id, job, owner, queue, kind, run_id, attempt, final, scheduled_for, due_at, started_at,
    finished_at,
    outcome, reason, error, output, result, worker_id, retry_of, retry_for, key, args
  )
  values (
    live.job_id, live.job, live.owner, live.queue, live.kind, live.id, live.attempt, final,
    live.scheduled_for,
    live.due_at, live.started_at, clock_timestamp(), outcome, reason, rowcron._tail(error, 65536),
    rowcron._tail(output, 65536), rowcron._bounded(result, 65536), live.worker_id, live.retry_of,
    live.retry_for, live.key, live.args
  );
end
$$;
comment on function rowcron._record(rowcron.run, boolean, text, text, text, text, jsonb) is
  'The entry in the ledger of an attempt that has ended; final: and its run with it.';

create or replace function rowcron._end_run(
  live rowcron.run, outcome text, reason text, error text default null, output text default null,
  result jsonb default null
) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  delete from rowcron.run as r where r.id = live.id;
  perform rowcron._record(live, true, outcome, reason, error, output, result);
  if live.scheduled_for is not null then
    perform rowcron._count_from_end(array[live.job_id]);
  end if;
end
$$;
comment on function rowcron._end_run(rowcron.run, text, text, text, text, jsonb) is
  'Ends a run whose row the caller has locked: out of run, into the ledger, final.';

create or replace function rowcron._retry_pause(job rowcron.job, failures integer) returns interval
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
  -- whatever the job says, it is between nothing and a number of days: the end of an attempt stands
  select make_interval(secs => greatest(least(
      extract(epoch from job.retry_delay)::double precision * power(job.retry_backoff,
        least(failures - 1, 100)),
      extract(epoch from job.max_retry_delay)::double precision, 2592000
    ) * (1 + job.retry_jitter * (2 * random() - 1)), 0))
$$;
comment on function rowcron._retry_pause(rowcron.job, integer) is
  'The pause after so many failures: delay times backoff for each further one, capped, give or '
    'take the jitter''s share.';

-- A failure, loss or return of a run whose row the caller has locked. Returns when it is due again,
-- null when it has ended.
create or replace function rowcron._settle(
  live rowcron.run, outcome text, reason text, error text, output text, result jsonb,
    retry_after interval
) returns timestamptz
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  job rowcron.job;
  at timestamptz := clock_timestamp();
  again_at timestamptz;
  counts boolean := outcome <> 'stopped';
  pause interval := case when retry_after is not null then make_interval(secs =>
    greatest(least(extract(epoch from retry_after), 86400), 0)::double precision) end;
begin
  select j.* into job from rowcron.job as j where j.id = live.job_id;
  reason := left(reason, 1000);
  if outcome = 'stopped' then
    outcome := 'lost';
    reason := coalesce(reason, 'its worker was stopped');
  end if;
  if live.cancel_asked_by is not null and outcome in ('released', 'lost', 'failed') then
    if outcome <> 'failed' then
      outcome := 'cancelled';
    end if;
    reason := concat_ws('; ', reason, 'cancelled by ' || live.cancel_asked_by);
  elsif job.id is null then
    reason := concat_ws('; ', reason, 'job deleted');
    outcome := case when outcome = 'released' then 'cancelled' else outcome end;
  elsif outcome = 'released' then
    -- what counts nothing would else come again for ever, at once
    again_at := case when pause is null then live.due_at
      else at + greatest(pause, interval '1 second') end;
  elsif outcome = 'failed' then
    live.failures := live.failures + 1;
    if live.failures < job.max_attempts then
      again_at := at + coalesce(pause, rowcron._retry_pause(job, live.failures));
    end if;
  elsif outcome = 'lost' then
    live.losses := live.losses + counts::integer;
    if job.on_lost = 'fail' then
      reason := concat_ws('; ', reason, 'on_lost = fail');
    elsif counts and live.losses >= job.max_lost then
      reason := concat_ws('; ', reason, format('lost %s times', live.losses));
    else
      again_at := at;
    end if;
  end if;
  if again_at is null then
    perform rowcron._end_run(live, case when outcome = 'fatal' then 'failed' else outcome end,
      reason, error, output, result);
    return null;
  end if;
  if outcome <> 'released' then
    perform rowcron._record(live, false, outcome, reason, error, output, result);
  end if;
  update rowcron.run as r
  set
    state = case when again_at > at then 'waiting' else 'ready' end,
    waits_for = case when again_at > at then 'time' end,
    attempt = live.attempt + case when outcome = 'released' then 0 else 1 end,
    failures = live.failures, losses = live.losses, due_at = again_at,
    worker_id = null, seal = null, started_at = null, cancel_asked_by = null,
    job = job.name, queue = job.queue, kind = job.kind,
    handler = rowcron._handler(job.kind, job.command, job.connection)
  where r.id = live.id;
  return again_at;
end
$$;
comment on function rowcron._settle(rowcron.run, text, text, text, text, jsonb, interval) is
  'Ends an attempt by the job''s rules: another attempt later, or the end. Returns when the run is '
    'due again, null when it has ended.';

reset role;
