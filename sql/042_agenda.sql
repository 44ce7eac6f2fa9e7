-- The agenda follows the job. What a schedule means is parsed once, when the job is stored; moving
-- on from an occurrence is then arithmetic on bit masks. Only a change of when a job runs locks its
-- agenda row; the row is locked before anything is judged, so that a worker that fires at the same
-- instant is either before the edit or after it.
--
-- An edit of when a job runs closes the books first: occurrences that were due under the old
-- schedule and that no worker had fired become one missed entry, so that nothing vanishes and
-- nothing runs that the new schedule does not name. Those that a pause passed over become one
-- skipped entry at the resume. Deleting does the same, and cancels what waits; a run that is
-- running ends as it would, without further attempts.

set role rowcron_owner;

create or replace function rowcron._next_in_window(
  job rowcron.job, parsed rowcron._parsed, after timestamptz, runs_fired bigint
) returns timestamptz
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  following timestamptz;
begin
  if not job.enabled or parsed is null or runs_fired >= job.max_runs then
    return null;
  end if;
  -- closed on the left: an occurrence at starts_at itself counts; @after counts from there
  following := rowcron._next(
    parsed,
    greatest(after, job.starts_at
      - case when parsed.form = 'after' then interval '0' else '1 microsecond' end),
    job.timezone, coalesce(job.starts_at, job.created_at), job.on_gap, job.on_fold);
  return case when following >= job.ends_at then null else following end;
end
$$;
comment on function rowcron._next_in_window(rowcron.job, rowcron._parsed, timestamptz, bigint) is
  'The job''s next occurrence after an instant within its window; null when paused, over or none.';

-- Occurrences that are due by `at` under the agenda as it stands, and that nobody fired; of a
-- paused job those that the pause passed over.
create or replace function rowcron._close_books(job rowcron.job, at timestamptz,
  why text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  entry rowcron.agenda;
  upto timestamptz := least(at, job.ends_at - interval '1 microsecond');
  first timestamptz;
  last timestamptz;
  passed bigint := 1;
  anchor timestamptz := coalesce(job.starts_at, job.created_at);
  started constant timestamptz := pg_postmaster_start_time();
begin
  select a.* into entry from rowcron.agenda as a where a.job_id = job.id for update;
  first := entry.next_run_at;
  if entry.booted_at < started and (started < job.starts_at) is not true
    and (entry.runs_fired >= job.max_runs) is not true
  then
    first := started;  -- of @reboot, which has no next instant
  end if;
  begin
    if not entry.enabled and (entry.parsed).form in ('cron', 'every', 'at')
      and (entry.runs_fired >= job.max_runs) is not true
    then
      first := rowcron._next(
        entry.parsed, greatest(entry.high_water, job.starts_at - interval '1 microsecond'),
        job.timezone, anchor, job.on_gap, job.on_fold);
    end if;
    last := first;
    if first <= upto and (entry.parsed).form in ('cron', 'every') then
      passed := 1 + rowcron._count(entry.parsed, first, upto, job.timezone, anchor, job.on_gap,
        job.on_fold);
      last := rowcron._previous(entry.parsed, upto, job.timezone, anchor, job.on_gap, job.on_fold);
    end if;
  exception when others then
    -- must not stand in the way of its correction
    why := 'schedule cannot be computed: ' || sqlerrm;
    last := first;
  end;
  if first <= upto then
    insert into rowcron.ledger (
      job_id, job, owner, queue, kind, final, scheduled_for, first_scheduled_for, occurrences,
      due_at, finished_at, outcome, reason
    )
    values (
      job.id, job.name, job.owner, job.queue, job.kind, true, last, first, passed, first,
      clock_timestamp(),
      case when entry.enabled then 'missed' else 'skipped' end,
      case when entry.enabled then why else 'paused' end
    );
  end if;
  update rowcron.agenda as a
  set
    high_water = greatest(a.high_water, at), next_run_at = null,
    booted_at = case when a.booted_at is not null then started end
  where a.job_id = job.id;
end
$$;
comment on function rowcron._close_books(rowcron.job, timestamptz, text) is
  'Before an edit or a deletion: occurrences due and not fired become one missed entry, those that '
    'a pause passed over one skipped entry, and the high-water mark rises to now. Locks the agenda '
      'row.';

create or replace function rowcron._loses_instant(
  before rowcron.job, after rowcron.job, meaning rowcron._parsed
) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- a pause hides the loss until it ends
  before.enabled := true;
  after.enabled := true;
  return (
    select
      f.next_at is not null
      and rowcron._next_in_window(after, meaning, a.high_water, a.runs_fired) is null
    from rowcron.agenda as a
    cross join lateral rowcron._next_or_fault(before, a.parsed, a.high_water, a.runs_fired) as f
    where a.job_id = before.id
  );
end
$$;
comment on function rowcron._loses_instant(rowcron.job, rowcron.job, rowcron._parsed) is
  'Whether a job whose books are closed had an occurrence to come before an edit, and none after it.';

create or replace function rowcron._follow_job() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  at timestamptz := clock_timestamp();
  meaning rowcron._parsed;
  following timestamptz;
begin
  if tg_op = 'UPDATE'
    and (new.schedule, new.timezone, new.starts_at, new.ends_at, new.max_runs, new.enabled,
      new.on_gap, new.on_fold)
      is not distinct from
      (old.schedule, old.timezone, old.starts_at, old.ends_at, old.max_runs, old.enabled,
        old.on_gap, old.on_fold)
    -- H is taken from owner and name
    and ((new.name, new.owner) = (old.name, old.owner) or new.schedule collate "C" !~* E'\\mh\\M')
  then
    if (new.queue, new.kind, new.max_running, new.owner) is distinct
      from (old.queue, old.kind, old.max_running, old.owner) then
      perform rowcron._keep_lane(new.queue, new.kind);
      update rowcron.agenda as a
      set queue = new.queue, kind = new.kind, max_running = new.max_running, owner = new.owner
      where a.job_id = new.id;
    end if;
  else
    if new.schedule is not null then
      meaning := rowcron._parse(new.schedule, new.owner || '.' || new.name);
    end if;
    if tg_op = 'UPDATE' and new.schedule collate "C" ~* E'\\mh\\M'
      and (new.schedule, new.name, new.owner) = (old.schedule, old.name, old.owner)
    then
      -- H stays where it is, whatever the owner is called by now
      meaning := (select a.parsed from rowcron.agenda as a where a.job_id = new.id);
    end if;
    if tg_op = 'INSERT' then
      perform rowcron._keep_lane(new.queue, new.kind);
      insert into rowcron.agenda (job_id, owner, queue, kind, enabled, max_running, parsed,
      high_water, booted_at)
      values (
        new.id, new.owner, new.queue, new.kind, new.enabled, new.max_running, meaning, at,
        case when (meaning).form = 'reboot' then pg_postmaster_start_time() end);
    else
      perform rowcron._close_books(old, at,
        case when old.enabled and not new.enabled then 'paused before a worker fired it'
          else 'schedule changed before a worker fired it' end);
    end if;
    following := rowcron._next_in_window(
      new, meaning, (select a.high_water from rowcron.agenda as a where a.job_id = new.id),
      (select a.runs_fired from rowcron.agenda as a where a.job_id = new.id));
    if (meaning).form = 'after' and exists (
      select from rowcron.run as r where r.job_id = new.id and r.scheduled_for is not null
    ) then
      following := null;  -- counted from the end of that run
    end if;
    if following is null and (meaning).form = 'at' and (case
      when tg_op = 'INSERT' or new.schedule is distinct from old.schedule then new.enabled
      -- of its zone, window or policy: it would never run, and nothing would say so
      else rowcron._loses_instant(old, new, meaning)
    end) then
      raise exception using
        errcode = 'RCSCH',
        message = format('schedule "%s" lies in the past or outside of the window', new.schedule),
        detail = format('It is now %s%s.', rowcron._local_text(at, new.timezone),
          case when new.on_gap = 'skip'
            then '; and with on_gap = ''skip'' a time that a gap leaves out is none' else '' end),
        hint = 'Name a later instant, or leave out the schedule and call rowcron.run_now.';
    end if;
    if following is null and (meaning).form = 'cron' and new.timezone <> 'UTC'
      and (tg_op = 'INSERT' or (new.schedule, new.timezone, new.on_gap) is distinct from
        (old.schedule, old.timezone, old.on_gap))
      and rowcron._next(meaning, at, new.timezone, null, new.on_gap, new.on_fold) is null
    then
      raise exception using
        errcode = 'RCSCH',
        message = format('schedule "%s" never runs in %s', new.schedule, new.timezone),
        detail = 'Each time that it names falls into a gap, when the clock is put forward over it.',
        hint = 'Set on_gap = ''run'' for the first instant after the gap, or name another time.';
    end if;
    update rowcron.agenda as a
    set
      queue = new.queue, kind = new.kind, enabled = new.enabled, max_running = new.max_running,
      owner = new.owner, parsed = meaning, next_run_at = following,
      booted_at = case when (meaning).form = 'reboot'
        then coalesce(a.booted_at, pg_postmaster_start_time()) end
    where a.job_id = new.id;
    if new.enabled and tg_op = 'UPDATE' then
      update rowcron.run as r set state = 'ready', waits_for = null
      where r.job_id = new.id and r.state = 'waiting' and r.waits_for = 'resume';
    end if;
  end if;

  if tg_op = 'UPDATE' and old.max_running is null and new.max_running is not null then
    -- what runs already counts; a claim under way this moment goes by the limit that it read
    update rowcron.run as r set limited = true
    where r.job_id = new.id and r.state = 'running' and not r.limited;
  end if;
  if tg_op = 'UPDATE' and (new.queue, new.kind, new.name, new.command, new.connection, new.owner)
    is distinct from (old.queue, old.kind, old.name, old.command, old.connection, old.owner)
  then
    update rowcron.run as r
    -- of another owner than it had there is none, and if there were, it would stay that (chapter 056)
    set owner = case when r.owner = old.owner then new.owner else r.owner end,
      queue = new.queue, kind = new.kind, job = new.name,
      handler = rowcron._handler(new.kind, new.command, new.connection)
    where r.job_id = new.id and r.state <> 'running'
      and (r.owner, r.queue, r.kind, r.job, r.handler) is distinct from
        (new.owner, new.queue, new.kind, new.name,
          rowcron._handler(new.kind, new.command, new.connection));
  end if;
  return null;
end
$$;
comment on function rowcron._follow_job() is
  'Trigger: keeps the agenda, and runs that wait, in step with the job. Raises RCSCH.';

create or replace function rowcron._local_text(at timestamptz, timezone text) returns text
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
  select to_char(at at time zone timezone, 'YYYY-MM-DD HH24:MI:SS') || ' ' || timezone
$$;
comment on function rowcron._local_text(timestamptz, text)
  is 'An instant as a person in that zone writes it; the same under every session setting.';

create or replace function rowcron._forget_job() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform rowcron._close_books(old, clock_timestamp(), 'deleted before a worker fired it');
  with gone as (
    delete from rowcron.run as r
    where r.job_id = old.id and r.state <> 'running'
    returning r.*
  )
  insert into rowcron.ledger (
    job_id, job, owner, queue, kind, run_id, attempt, final, scheduled_for, due_at, finished_at,
    outcome, reason, retry_of, retry_for, key, args
  )
  select
    g.job_id, g.job, g.owner, g.queue, g.kind, g.id, g.attempt, true, g.scheduled_for, g.due_at,
    clock_timestamp(), 'cancelled', 'job deleted', g.retry_of,
    g.retry_for, g.key, g.args
  from gone as g;
  delete from rowcron.key as k where k.job_id = old.id;
  return old;
end
$$;
comment on function rowcron._forget_job() is
  'Trigger: a deleted job''s unfired occurrences become missed, its waiting runs cancelled; a '
    'running one ends as it would.';

drop trigger if exists c10_follow on rowcron.job;
create trigger c10_follow after insert or update on rowcron.job
for each row execute function rowcron._follow_job();
drop trigger if exists b20_forget on rowcron.job;
create trigger b20_forget before delete on rowcron.job
for each row execute function rowcron._forget_job();

reset role;
