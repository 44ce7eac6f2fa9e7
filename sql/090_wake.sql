-- Who is told, and when. A worker asks the tables; a notification only makes it ask sooner. It says
-- "ready" when a few runs are and none waits for its time (chapter 062), and carries nothing else. A commit that notifies takes a lock of the whole cluster, so it is done only
-- when somebody sleeps past the new instant, once a statement, and never on a run's change of state
-- (a cancel of a running one excepted).
--
-- What a READ COMMITTED statement sees when its trigger runs is every announcement committed
-- before; one that comes later finds the writer's lock and waits for its end (chapter 063). A
-- transaction of another isolation level looks at its old snapshot and therefore always notifies.
-- PREPARE TRANSACTION fails after NOTIFY: setting notify = false.

set role rowcron_owner;

drop function if exists rowcron._notify();
create or replace function rowcron._notify(what text default '') returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if rowcron._read_setting('notify') = 'true' then
    perform pg_notify('rowcron', what);
  end if;
end
$$;
comment on function rowcron._notify(text) is 'Notifies the channel rowcron, unless the setting '
  'notify is false. what: "ready" when a few runs are, else nothing.';

-- No pinned path, as in chapter 037: so it is no call.
create or replace function rowcron._old_snapshot() returns boolean
language sql stable
return current_setting('transaction_isolation') <> 'read committed';
comment on function rowcron._old_snapshot() is 'Whether this transaction may not see who has '
  'fallen asleep since it began.';

create or replace function rowcron._wake_for_runs() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  at timestamptz := clock_timestamp();
begin
  -- statements of their own: mostly nobody sleeps, and a part that is not needed costs, too
  if not rowcron._old_snapshot() then
    if not exists (select from rowcron.worker as w where w.asleep) then
      return null;
    end if;
    if not exists (
      select from (
        select f.queue, f.kind, min(f.due_at) as due_at
        from fresh as f
        where f.state = 'ready' or f.waits_for = 'time'
        group by f.queue, f.kind
      ) as f
      join rowcron.worker as w on f.kind = any (w.kinds)
        and (w.queues is null or f.queue = any (w.queues))
        and (w.full_kinds is null or f.kind <> all (w.full_kinds))
      where w.asleep and w.expires_at > at and (w.wake_at is null or w.wake_at > f.due_at)
    ) then
      return null;
    end if;
  end if;
  perform rowcron._notify(case when (
    select count(*) between 1 and 10 and bool_and(f.state = 'ready')
    from (
      select f.state from fresh as f where f.state = 'ready' or f.waits_for = 'time' limit 11
    ) as f
  ) then 'ready' else '' end);
  return null;
end
$$;
comment on function rowcron._wake_for_runs() is 'Trigger: notifies when a worker sleeps past the '
  'moment at which one of the new runs is due.';

create or replace function rowcron._wake_for_jobs() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  at timestamptz := clock_timestamp();
begin
  if rowcron._old_snapshot() or (
    exists (select from rowcron.worker as w where w.asleep and w.expires_at > at)
    and exists (
      select from (
        select a.queue, a.kind, min(a.next_run_at) as due_at
        from fresh as f
        join rowcron.agenda as a on a.job_id = f.id
        group by a.queue, a.kind
        union all
        select r.queue, r.kind, min(r.due_at)
        from fresh as f
        join rowcron.run as r on r.job_id = f.id and r.state = 'ready'
        group by r.queue, r.kind
      ) as f
      join rowcron.worker as w on f.kind = any (w.kinds)
        and (w.queues is null or f.queue = any (w.queues))
      where w.asleep and w.expires_at > at and (w.wake_at is null or w.wake_at > f.due_at)
    )
  ) then
    perform rowcron._notify();
  end if;
  return null;
end
$$;
comment on function rowcron._wake_for_jobs() is 'Trigger: notifies when a worker sleeps past the '
  'next run of a job that was stored or changed.';

create or replace function rowcron._served(queue text, kind text, handler text) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select from rowcron.worker as w
    where w.lost_at is null and w.expires_at > clock_timestamp()
      and _served.kind = any (w.kinds) and (w.queues is null or _served.queue = any (w.queues))
      and (_served.handler is null or w.handlers is null or _served.handler = any (w.handlers))
  )
$$;
comment on function rowcron._served(text, text, text)
  is 'Whether a live worker takes runs of this queue, kind and handler.';

create or replace function rowcron._warn_unserved() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  lane record;
begin
  for lane in
    select f.queue, f.kind, min(f.name) as name, count(*) as jobs, min(f.connection) as connection
    from fresh as f
    group by f.queue, f.kind, rowcron._handler(f.kind, f.command, f.connection)
    having not rowcron._served(f.queue, f.kind, rowcron._handler(f.kind, f.command, f.connection))
    limit 5
  loop
    raise warning using
      message = format('no live worker takes job "%s" (queue "%s", kind "%s")', lane.name,
        lane.queue, lane.kind),
      detail = format('%s such job%s inserted.', lane.jobs, case when lane.jobs = 1 then ' was'
        else 's were' end),
      hint = format('The job is stored and waits; start one: rowcron worker%s%s',
        case when lane.queue <> 'default' then ' --queue ' || lane.queue else '' end,
        case when lane.kind not in ('sql', 'http', 'python') then ' --kind sql --kind ' || lane.kind
          else '' end
        || coalesce('; with ROWCRON_CONNECTION_' || upper(lane.connection collate "C") || ' set', ''));
  end loop;
  return null;
end
$$;
comment on function rowcron._warn_unserved() is 'Trigger: warns when nobody would execute a job '
  'that was just inserted.';

drop trigger if exists e10_wake on rowcron.run;
create trigger e10_wake after insert on rowcron.run
referencing new table as fresh for each statement execute function rowcron._wake_for_runs();
drop trigger if exists e10_wake_insert on rowcron.job;
create trigger e10_wake_insert after insert on rowcron.job
referencing new table as fresh for each statement execute function rowcron._wake_for_jobs();
drop trigger if exists e10_wake_update on rowcron.job;
create trigger e10_wake_update after update on rowcron.job
referencing new table as fresh for each statement execute function rowcron._wake_for_jobs();
drop trigger if exists e20_warn_unserved on rowcron.job;
create trigger e20_warn_unserved after insert on rowcron.job
referencing new table as fresh for each statement execute function rowcron._warn_unserved();

reset role;
