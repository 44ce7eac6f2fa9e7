-- Why a job does not run now: every gate between a job and a run, in the order in which a run would meet
-- them. A gate that is shut says how to open it.

set role rowcron_owner;

create or replace function rowcron._has_room(queue text, kind text, handler text) returns boolean
language sql stable security definer  -- a worker is full of everybody's runs
set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select from rowcron.worker as w
    where w.lost_at is null and w.expires_at > clock_timestamp()
      and _has_room.kind = any (w.kinds) and (w.queues is null or _has_room.queue = any (w.queues))
      and (_has_room.handler is null or w.handlers is null or _has_room.handler = any (w.handlers))
      and (w.asleep and _has_room.kind = any (w.full_kinds)) is not true
      and w.concurrency > (
        select count(*) from (
          select from rowcron.run as r where r.worker_id = w.id and r.state = 'running'
          limit w.concurrency
        ) as r
      )
  )
$$;
comment on function rowcron._has_room(text, text, text)
  is 'Whether a live worker that takes runs of this queue, kind and handler holds fewer than it can.';

create or replace function rowcron._count_before(run rowcron.run) returns bigint
language plpgsql stable
set search_path = pg_catalog, pg_temp
-- by job or by lane, for the reason that chapter 106 gives
set plan_cache_mode = force_custom_plan
set jit = off
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_bitmapscan = off
as $$
begin
  if rowcron._has_few_runs() then
    return (
      select count(*)
      from rowcron.job as j
      cross join lateral (
        select x.queue, x.kind, x.state, x.rank, x.due_at, x.id
        from rowcron.run as x where x.job_id = j.id and x.state <> 'running' limit 1000
      ) as r
      where r.queue = run.queue and r.kind = run.kind and r.state = 'ready'
        and (r.rank, r.due_at, r.id) < (run.rank, run.due_at, run.id)
    );
  end if;
  return (
    select count(*)
    from (
      select from rowcron.run as r
      where r.queue = run.queue and r.kind = run.kind and r.state = 'ready'
        and (r.rank, r.due_at, r.id) < (run.rank, run.due_at, run.id)
      limit 1000
    ) as r
  );
end
$$;
comment on function rowcron._count_before(rowcron.run)
  is 'How many ready runs of its queue and kind that you can see stand before a run; counted up to '
    '1,000, or all of an author who has few.';

create or replace function rowcron.why_not_running(job text, owner text default current_user)
returns table (gate text, holds boolean, detail text, hint text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  at timestamptz := clock_timestamp();
  wanted rowcron.job := rowcron._job_named(job, owner);
  entry rowcron.agenda;
  live rowcron.run;
  backing_off rowcron.run;
  earlier rowcron.run;  -- of those that a schedule has made
  running bigint;
  is_full_up boolean;  -- the job, by max_running
  held text := rowcron._held();
  ungranted text := rowcron._ungranted_secret(wanted);
  -- the run's, if one is ready: an edit that is not committed when it is made leaves it where it was
  queue text := wanted.queue;
  kind text := wanted.kind;
  handler text := rowcron._handler(wanted.kind, wanted.command, wanted.connection);
  is_served boolean;
  is_full boolean := false;
  standing text;  -- of the run that is ready
  is_ahead boolean := rowcron._is_ahead(wanted.id);
begin
  select a.* into entry from rowcron.agenda as a where a.job_id = wanted.id;
  select r.* into live from rowcron.run as r where r.job_id = wanted.id
    order by r.state = 'running', r.due_at limit 1;
  select r.* into backing_off from rowcron.run as r
  where r.job_id = wanted.id and r.waits_for = 'time' and r.attempt > 1
  order by r.due_at limit 1;
  select r.* into earlier from rowcron.run as r
  where r.job_id = wanted.id and r.scheduled_for is not null
  order by r.scheduled_for limit 1;
  select count(*) into running from rowcron.run as r where r.job_id = wanted.id
    and r.state = 'running';
  is_full_up := coalesce(running >= wanted.max_running, false);
  if live.state = 'ready' then
    queue := live.queue;
    kind := live.kind;
    handler := live.handler;
  end if;
  is_served := rowcron._served(queue, kind, handler);
  if live.state = 'ready' then
    is_full := is_served and not rowcron._has_room(queue, kind, handler);
    standing := format('run %s has been ready for %s, behind %s others%s', live.id,
      to_char(make_interval(secs => trunc(extract(epoch from greatest(at - live.due_at, '0')))),
        'HH24:MI:SS'),
      (select case when b.n >= 1000 then '1000 or more' else b.n::text end
        from rowcron._count_before(live) as b (n)),
      case when not rowcron._sees_all() then ' that you can see' else '' end);
  end if;
  return query
  select g.gate, g.holds, g.detail, case when g.holds then g.hint end
  from (values
  ('held', held is not null, coalesce(held, 'nothing is held'), 'select rowcron.release();'),
  ('paused', not wanted.enabled, case when wanted.enabled then 'the job is enabled'
    else 'the job is paused' end,
    format('select rowcron.resume(%L);', wanted.name)),
  ('owner', rowcron._lacks_owner(wanted) is not null,
    coalesce(rowcron._lacks_owner(wanted), 'its owner is there'),
    case when exists (select from pg_roles as r where r.oid = wanted.owner)
      then 'As the owner: select rowcron.enrol(); which resumes the job.'
      else format('Delete it, or as a member of rowcron_owner: '
        'select rowcron.hand_over(%L, new_owner, %L);', wanted.name, wanted.owner) end),
  ('window',
    coalesce(wanted.starts_at > at or wanted.ends_at <= at or entry.runs_fired >= wanted.max_runs,
      false),
    case
      when wanted.starts_at > at then 'it starts at '
        || rowcron._local_text(wanted.starts_at, wanted.timezone)
      when wanted.ends_at <= at then 'it ended at '
        || rowcron._local_text(wanted.ends_at, wanted.timezone)
      when entry.runs_fired >= wanted.max_runs
        then format('all %s runs of max_runs were made', wanted.max_runs)
      else 'the window is open' end,
    'Change starts_at, ends_at or max_runs.'),
  ('due', case when live.id is null then coalesce(entry.next_run_at > at, true)
      else live.waits_for is not distinct from 'time' and live.id is distinct from backing_off.id end,
    case
      when live.waits_for = 'time' and live.id is distinct from backing_off.id then format('run %s is due at %s', live.id,
        rowcron._local_text(live.due_at, wanted.timezone))
      when live.id is not null then format('run %s is %s', live.id, live.state)
      when entry.job_id is null then 'the database has not taken it up: it was restored without its '
        'agenda; an operator says select rowcron.release()'
      when entry.next_run_at > at then 'it is next due at '
        || rowcron._local_text(entry.next_run_at, wanted.timezone)
      when entry.next_run_at <= at then 'it is due'
      when wanted.schedule is null then 'it has no schedule and runs on demand'
      when not wanted.enabled then 'while it is paused it has no next occurrence'
      when entry.booted_at is not null then 'it is next due when PostgreSQL has started again'
      else 'its schedule names no further occurrence' end
      || case when is_ahead and live.id is null then '; the clock was ahead, and what is due until '
        || rowcron._local_text(entry.high_water, wanted.timezone) || ' was accounted for then'
        else '' end,
    format('select rowcron.run_now(%L);', wanted.name)
      || case when is_ahead then format(' To have it follow its schedule before that, delete it and '
        'insert it anew: select rowcron.unschedule(%L);', wanted.name) else '' end),
  ('retry', backing_off.id is not null,
    case
      when backing_off.id is null then 'no attempt is backing off'
      else format('attempt %s of run %s is due at %s', backing_off.attempt, backing_off.id,
        rowcron._local_text(backing_off.due_at, wanted.timezone)) end,
    'It runs by itself then.'),
  ('overlap', live.waits_for is not distinct from 'overlap'
      or (earlier.id is not null and wanted.on_overlap = 'skip'),
    case when live.waits_for = 'overlap'
      then format('run %s stands in line behind an earlier one', live.id)
      when earlier.id is not null then format('scheduled run %s is %s', earlier.id, earlier.state)
      else 'no earlier run is in the way' end,
    'See rowcron.active; on_overlap = ''allow'' lets them run side by side.'),
  ('limit', is_full_up or live.waits_for is not distinct from 'limit',
    case when live.waits_for = 'limit' and not is_full_up
      then format('run %s waits for the next claim, or for an open edit of its job', live.id)
      else format('%s running, max_running is %s', running,
        coalesce(wanted.max_running::text, 'not set')) end,
    case when is_full_up then 'Raise max_running.'
      else 'Commit or roll back what edits the job.' end),
  ('kind', not rowcron._may_own_kind(wanted.owner, wanted.kind),
    format('kind %s', wanted.kind),
      format('As an administrator: grant rowcron_%s to %s;', wanted.kind, wanted.owner)),
  ('connection', wanted.connection is not null
      and not rowcron._may_use_connection(wanted.owner, wanted.connection),
    coalesce('connection ' || wanted.connection, 'it names no connection'),
    format('As an administrator: select rowcron.grant_connection(%L, %L);', wanted.connection,
      wanted.owner)),
  ('secret', ungranted is not null,
    coalesce('secret ' || ungranted || ' is not granted', 'no secret is lacking'),
    format('As an administrator: select rowcron.grant_secret(%L, %L);', ungranted, wanted.owner)),
  ('worker', not is_served,
    case when is_served then 'a live worker takes it'
      when rowcron._served(queue, kind, null)
      then format('no live worker has the %s "%s"', case when kind = 'python' then 'handler'
        else 'connection' end, case when kind = 'python' then handler
        else coalesce(wanted.connection, substr(handler, 12)) end)
      else format('no live worker serves queue "%s" and kind "%s"', queue, kind) end,
    format('rowcron worker --queue %s --kind %s', queue, kind)
      || case when kind = 'python' then ' --app MODULE; with --handler-database-url, '
        'without which handlers that ask for a connection are not offered'
        else coalesce(', with ROWCRON_CONNECTION_' || upper(wanted.connection collate "C") || ' set', '') end),
  ('room', is_full,
    case
      when is_full then 'each live worker that takes it is full; ' || standing
      when standing is not null then standing
      when live.state = 'running' then format('run %s is running', live.id)
      when live.id is null and entry.next_run_at <= at then 'no worker has fired it yet'
      else 'no run is ready' end,
    format('See rowcron.workers; another one: rowcron worker --queue %s --kind %s; or raise '
      || '--concurrency%s.', queue, kind,
      case when kind = 'sql' then ' and --sql-connections' else '' end))
  ) as g (gate, holds, detail, hint);
end
$$;
comment on function rowcron.why_not_running(text, text) is
  'Every gate between a job and a run, in order; holds = true: this one is shut. Raises RCNOJ.';

reset role;
