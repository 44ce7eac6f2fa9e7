-- Runs on demand. An author may insert into rowcron.run the columns that describe a run that nobody
-- holds yet; row security allows this for its own jobs, a trigger refuses what contradicts itself, and
-- the claim compares the run with its job once more, so that a row inserted by hand gains nothing.
--
-- A key: within key_ttl the same key of the same job returns the run that it named first, running
-- or ended. Callers at once queue up behind the first, whose commit decides; in REPEATABLE READ a
-- caller whose snapshot is older than that commit gets 40001 and tries again.

set role rowcron_owner;

create or replace function rowcron._check_asked(job text, bytes integer, due_at timestamptz)
returns void
language plpgsql stable  -- the time zone is the caller's
set search_path = pg_catalog, pg_temp
as $$
begin
  if bytes > 1048576 then
    raise exception using
      errcode = 'RCCMD',
      message = format('args of a run of job "%s" are longer than 1 MiB', job),
      detail = 'They are written as JSON of at most 1 MiB.',
      hint = 'Store large data in a table and hand over its key.';
  end if;
  if not isfinite(due_at) then
    raise exception using
      errcode = 'RCLIM',
      message = format('due_at "%s" is not an instant', due_at),
      detail = 'A run is due at some time.',
      hint = 'Leave it out for now.';
  end if;
end
$$;
comment on function rowcron._check_asked(text, integer, timestamptz) is
  'Refuses what no run on demand may have: args of so many bytes as JSON, or such a due_at. Raises '
    'RCCMD, RCLIM.';

create or replace function rowcron._enqueue(
  job rowcron.job, args jsonb, due_at timestamptz, key text, key_ttl interval, priority integer
) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  at timestamptz := clock_timestamp();
  run_id bigint;
begin
  if key is not null and (key = '' or octet_length(key) > 500 or key_ttl is null or key_ttl <= '0'
    or key_ttl > '366 days' or not rowcron._is_plain(key_ttl)) then
    raise exception using
      errcode = 'RCKEY',
      message = format('key "%s" or its time to live "%s" is not valid', left(key, 60), key_ttl),
      detail = 'A key has 1 to 500 bytes and lives more than 0 and at most 366 days, no part '
        'of them negative.',
      hint = 'For example key => ''invoice-4711'', key_ttl => ''1 day''.';
  end if;
  perform rowcron._check_asked(job.name, octet_length(args::text), due_at);
  for attempt in 1..3 loop
    insert into rowcron.run (
      job_id, job, owner, queue, kind, handler, state, waits_for, priority, due_at, through_pause,
      key,
      key_expires_at, args
    )
    values (
      job.id, job.name, job.owner, job.queue, job.kind,
      rowcron._handler(job.kind, job.command, job.connection),
      case when due_at > at then 'waiting' else 'ready' end, case when due_at > at then 'time' end,
      coalesce(priority, job.priority), coalesce(due_at, at), not job.enabled, key, at + key_ttl,
        args
    )
    returning id into run_id;
    -- no row: the key names a run (trigger _take_key)
    if run_id is null then
      select k.run_id into run_id
      from rowcron.key as k
      where k.job_id = job.id and k.key = _enqueue.key and k.expires_at > at;
    end if;
    exit when run_id is not null;  -- else the key expired between the two statements
  end loop;
  return run_id;
end
$$;
comment on function rowcron._enqueue(rowcron.job, jsonb, timestamptz, text, interval, integer) is
  'Inserts a run of a job that the caller may see, or returns the run that the key names. Raises '
    'RCKEY, RCCMD, RCLIM.';

create or replace function rowcron._refuse_run() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using
    errcode = 'RCLIM',
    message = format('a run of job "%s" contradicts itself', left(new.job, 200)),
    detail = 'A run is ready; or it is waiting, and for time, limit, overlap or resume; or it is '
      'running, and has its holder. Its attempts count from 1, and its key has 1 to 500 bytes.',
    hint = format('select rowcron.enqueue(%L);', left(new.job, 200));
end
$$;
comment on function rowcron._refuse_run() is
  'Trigger: refuses a run that cannot be. Raises RCLIM.';

create or replace function rowcron._take_key() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  began constant timestamptz := clock_timestamp();
  waited interval;
begin
  -- who inserts by hand may leave it out; as the default of enqueue's key_ttl
  new.key_expires_at := coalesce(new.key_expires_at, began + interval '1 day');
  insert into rowcron.key as k (job_id, key, run_id, expires_at)
  values (new.job_id, new.key, new.id, new.key_expires_at)
  on conflict (job_id, key) do update
  set run_id = excluded.run_id, expires_at = excluded.expires_at
  where k.expires_at <= clock_timestamp();
  if not found then
    return null;
  end if;
  waited := clock_timestamp() - began;
  if waited > interval '100 milliseconds' then  -- its time to live begins when it is taken
    new.key_expires_at := new.key_expires_at + waited;
    update rowcron.key as k set expires_at = new.key_expires_at
    where k.job_id = new.job_id and k.key = new.key;
  end if;
  return new;
end
$$;
comment on function rowcron._take_key() is
  'Trigger: a run with a key is inserted only if the key is free or expired; the key is its own for '
    'a day, unless key_expires_at says until when. Waits for whoever is taking the same key.';

-- Row security judges a row only after its BEFORE triggers: without this a stranger to the job could
-- tell by a10_take_key whether a key is taken, or wait for whoever is taking it.
create or replace function rowcron._see_job() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  -- to see it, as a viewer does, is not enough
  if row_security_active('rowcron.run')
    and not exists (
      select from rowcron.job as j
      where j.id = new.job_id and j.owner = new.owner
        and (j.owner = rowcron._me() or pg_has_role(current_user, 'rowcron_operator', 'usage'))
    )
  then
    raise exception using
      errcode = 'RCNOJ',
      message = format('there is no job %s', new.job_id),
      detail = format('"%s" has no such job, and "%s" enqueues.', new.owner, current_user),
      hint = 'select owner, name from rowcron.job; shows the jobs that you can see.';
  end if;
  return new;
end
$$;
comment on function rowcron._see_job() is
  'Trigger, with the rights of who enqueues: a key is looked at only for a job whose runs it may '
    'enqueue. Raises RCNOJ.';

drop trigger if exists a00_check on rowcron.run;
create trigger a00_check before insert on rowcron.run
for each row when (not (
  case new.state when 'ready' then true when 'waiting' then new.waits_for is not null
    when 'running' then new.seal is not null else false end
  and (new.waits_for is null
    or new.state = 'waiting' and new.waits_for in ('time', 'limit', 'overlap', 'resume'))
  and (new.seal is null) = (new.worker_id is null) and (new.seal is null) = (new.started_at is null)
  and (new.seal is null or new.state = 'running')
  and new.attempt >= 1 and new.failures >= 0 and new.losses >= 0
  and (new.key is null or new.key <> '' and octet_length(new.key) <= 500)
)) execute function rowcron._refuse_run();
drop trigger if exists a05_see_job on rowcron.run;
create trigger a05_see_job before insert on rowcron.run
for each row when (new.key is not null) execute function rowcron._see_job();
drop trigger if exists a10_take_key on rowcron.run;
create trigger a10_take_key before insert on rowcron.run
for each row when (new.key is not null) execute function rowcron._take_key();

create or replace function rowcron.enqueue(
  job text, args jsonb default null, due_at timestamptz default null, key text default null,
  key_ttl interval default '1 day', priority integer default null, owner text default current_user
) returns bigint
language sql
set search_path = pg_catalog, pg_temp
as $$
  select rowcron._enqueue(
    rowcron._job_named(job, owner), args, due_at, key, case when key is not null then key_ttl end,
      priority)
$$;
comment on function rowcron.enqueue(text, jsonb, timestamptz, text, interval, integer, text) is
  'A run on demand, due now or at due_at; returns its id. The same key of the same job within '
    'key_ttl returns the run that exists, also when that has ended. Behind an open transaction that '
    'uses the key it waits, then returns the run of that transaction, or its own if that was rolled '
    'back. In REPEATABLE READ and SERIALIZABLE a key that was taken since the snapshot raises '
    '40001: repeat the transaction. An expired key is as if it had never been. Raises RCNOJ, RCKEY, '
    'RCCMD, RCLIM.';

create or replace function rowcron.enqueue_many(
  job text, args jsonb[], due_at timestamptz default null, priority integer default null,
  owner text default current_user
) returns setof bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  at timestamptz := clock_timestamp();
  wanted rowcron.job := rowcron._job_named(job, owner);
begin
  if array_ndims(args) > 1 then
    raise exception using
      errcode = 'RCLIM',
      message = format('args of the runs of job "%s" are an array of %s dimensions', wanted.name,
        array_ndims(args)),
      detail = 'Each element of one dimension is the args of a run.',
      hint = 'Some drivers send lists of lists so: hand over each element as JSON text, in '
        'JavaScript list.map((args) => JSON.stringify(args)).';
  end if;
  perform rowcron._check_asked(wanted.name,
    (select max(octet_length(a::text)) from unnest(args) as a), due_at);
  return query
  insert into rowcron.run (
    job_id, job, owner, queue, kind, handler, state, waits_for, priority, due_at, through_pause,
      args
  )
  select
    wanted.id, wanted.name, wanted.owner, wanted.queue, wanted.kind,
    rowcron._handler(wanted.kind, wanted.command, wanted.connection),
    case when enqueue_many.due_at > at then 'waiting' else 'ready' end,
    case when enqueue_many.due_at > at then 'time' end,
    coalesce(enqueue_many.priority, wanted.priority), coalesce(enqueue_many.due_at, at),
      not wanted.enabled, a.args
  from unnest(enqueue_many.args) as a (args)
  returning id;
end
$$;
comment on function rowcron.enqueue_many(text, jsonb[], timestamptz, integer, text) is
  'A run for each element of args, in one statement; returns their ids in order. Raises RCNOJ, '
    'RCCMD, RCLIM.';

reset role;
