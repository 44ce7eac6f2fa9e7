-- A process that dies closes its sessions, and that shows sooner than a lease runs out. A worker
-- whose heartbeat has a session of its own (not one lent by a pooler) holds an advisory lock in it.
-- Once that lock is free and the session gone the worker gets two seconds: one that lives, and
-- whose session was merely cut, notices at once and is heard of before. Then its lease ends. The
-- lock alone says nothing: a worker that executes SQL jobs in that session loses it with each
-- (chapter 075). Nor does the session's number alone, which the next one may have. When the server
-- itself has ended, every session has, and that says nothing about workers: what is known about
-- sessions is written in an unlogged table, which a crash and a failover empty, together with the
-- start of the server that it holds for.

set role rowcron_owner;

alter table rowcron.worker add column if not exists session_ended_at timestamptz;
comment on column rowcron.worker.session_ended_at is 'When its session was found to have ended; it '
  'has not been heard of since.';

create unlogged table if not exists rowcron.session (
  worker_id uuid not null,
  server timestamptz not null default pg_postmaster_start_time(),
  pid integer not null default pg_backend_pid(),
  constraint session_pkey primary key (worker_id)
);
comment on table rowcron.session is 'The workers that have a session of their own, in which they '
  'hold the lock by which its end shows. Unlogged: a crash of the server ends them all.';
comment on column rowcron.session.worker_id is 'The worker.';
comment on column rowcron.session.server is 'When the server started in which the session is.';
comment on column rowcron.session.pid is 'The session, which must not ask whether it has ended: its '
  'own locks are never in its way.';

create or replace function rowcron._session_lock(worker_id uuid) returns bigint
language sql immutable strict parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select hashtextextended('rowcron session ' || worker_id, 0)
$$;
comment on function rowcron._session_lock(uuid) is
  'The advisory lock that a worker''s own session holds for as long as it lasts.';

create or replace function rowcron._keep_session(worker_id uuid, session boolean) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  started_at timestamptz := pg_postmaster_start_time();
begin
  -- shared: an older session of the same worker may not have ended yet; never waiting
  if session and pg_try_advisory_lock_shared(rowcron._session_lock(_keep_session.worker_id)) then
    if not exists (
      select from rowcron.session as s
      where s.worker_id = _keep_session.worker_id and s.server = started_at
        and s.pid = pg_backend_pid()
    ) then
      insert into rowcron.session (worker_id) values (_keep_session.worker_id)
      on conflict (worker_id) do update set server = excluded.server, pid = excluded.pid;
    end if;
  else
    delete from rowcron.session as s where s.worker_id = _keep_session.worker_id;
  end if;
end
$$;
comment on function rowcron._keep_session(uuid, boolean) is
  'Notes that this session is a worker''s own, and takes its lock; or that it is not.';

create or replace function rowcron._holds(worker_id uuid) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- the latest first: behind it may lie the entries of many that have ended
  return coalesce((
    select true from rowcron.run as r
    where r.worker_id = _holds.worker_id and r.state = 'running'
    order by r.started_at desc  -- within exists() this would count for nothing
    limit 1
  ), false);
end
$$;
comment on function rowcron._holds(uuid) is 'Whether a worker holds a run.';

create or replace function rowcron._look_for_ended(at timestamptz) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  gone uuid;
  session integer;
  lock bigint;
begin
  for gone, session in
    select s.worker_id, s.pid
    from rowcron.session as s
    join rowcron.worker as w on w.id = s.worker_id
    where s.server = pg_postmaster_start_time() and s.pid <> pg_backend_pid()
      and w.lost_at is null and w.expires_at > at
      and rowcron._holds(w.id)
  loop
    lock := rowcron._session_lock(gone);
    continue when not pg_try_advisory_lock(lock);
    perform pg_advisory_unlock(lock);
    continue when exists (select from pg_stat_get_activity(session));
    -- whoever holds this row is the worker itself, or does the same
    perform from rowcron.worker as w where w.id = gone for no key update skip locked;
    continue when not found;
    -- once: if it goes on by its other connections, its lease counts as before
    delete from rowcron.session as s
    where s.worker_id in (
      select t.worker_id from rowcron.session as t where t.worker_id = gone for update skip locked
    );
    continue when not found;
    update rowcron.worker as w
    set expires_at = least(w.expires_at, at + interval '2 seconds'), session_ended_at = at
    where w.id = gone and w.lost_at is null;
  end loop;
end
$$;
comment on function rowcron._look_for_ended(timestamptz) is
  'Shortens the lease of workers that hold runs and whose session has ended to two seconds.';

create or replace function rowcron._look_each(at timestamptz) returns interval
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select least(greatest(interval '0.75 seconds', interval '0.1 seconds' * count(*)),
    interval '5 seconds')
  from rowcron.worker as w
  where w.asleep and w.expires_at > at
$$;
comment on function rowcron._look_each(timestamptz) is
  'How often each of those that sleep should look after others: as many as there are share it, up to '
    'once in five seconds each.';

create or replace function rowcron._look_after(worker_id uuid, at timestamptz) returns interval
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select min(case when w.session_ended_at is not null then w.expires_at - at
    else rowcron._look_each(at) end)
  from rowcron.worker as w
  where w.id <> _look_after.worker_id and w.lost_at is null and w.expires_at > at
    and (
      w.session_ended_at is not null
      or exists (select from rowcron.session as s where s.worker_id = w.id)
    )
    and rowcron._holds(w.id)
$$;
comment on function rowcron._look_after(uuid, timestamptz) is
  'When a worker that sleeps should look again whether another''s session has ended. Null: none '
    'that could hold runs.';

reset role;
