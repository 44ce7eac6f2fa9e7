-- A process that dies closes its sessions, and that shows sooner than a lease runs out. A worker
-- whose heartbeat has a session of its own (not one lent by a pooler) notes its number. Once no
-- session has that number any more the worker gets two seconds: one that lives, and whose session was
-- merely cut, notices at once and is heard of before. Then its lease ends. Where the number has come
-- again meanwhile, the lease decides. When the server itself has ended, every session has, and that
-- says nothing about workers: what is known about sessions is written in an unlogged table, which a
-- crash and a failover empty, together with the start of the server that it holds for.

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
comment on table rowcron.session is 'The workers that have a session of their own, whose end shows. '
  'Unlogged: a crash of the server ends them all.';
comment on column rowcron.session.worker_id is 'The worker.';
comment on column rowcron.session.server is 'When the server started in which the session is.';
comment on column rowcron.session.pid is 'The session''s number.';

drop function if exists rowcron._session_lock(uuid);
create or replace function rowcron._keep_session(worker_id uuid, session boolean) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  started_at timestamptz := pg_postmaster_start_time();
begin
  if session then
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
  'Notes that this session is a worker''s own, or that it is not.';

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
begin
  for gone in
    select s.worker_id
    from rowcron.session as s
    join rowcron.worker as w on w.id = s.worker_id
    where s.server = pg_postmaster_start_time() and w.lost_at is null and w.expires_at > at
      -- not whose end was put off: in an outage of the network all sessions end (chapter 080)
      and w.expires_at <= w.seen_at + w.lease
      and rowcron._holds(w.id) and not exists (select from pg_stat_get_activity(s.pid))
  loop
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
