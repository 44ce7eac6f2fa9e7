-- What authors call. All of it runs with the caller's own rights: schedule, pause, resume and
-- unschedule are an insert, update or delete of rowcron.job that row security judges. Somebody
-- else's job is answered as if there were none.

set role rowcron_owner;

create or replace function rowcron._role_named(name text) returns regrole
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  role regrole := coalesce(
    to_regrole(quote_ident(name)),
    -- as regrole prints it, or in other case; anything else to_regrole may refuse with a syntax
    -- error
    case when name ~ '^("([^"]|"")+"|[A-Za-z_][A-Za-z0-9_$]*)$' then to_regrole(name) end);
begin
  if role is null and name ~ '^[0-9]+$' then  -- it was dropped, and its number is left
    role := (
      select j.owner from rowcron.job as j where j.owner::oid::text = _role_named.name limit 1
    );
  end if;
  return role;
end
$$;
comment on function rowcron._role_named(text) is 'A role by its name, quoted or not, or an owner of '
  'jobs by the number that is left of it; null when there is none.';

create or replace function rowcron._job_named(name text, owner text) returns rowcron.job
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  wanted rowcron.job;
  acts_as regrole;
begin
  owner := coalesce(owner, current_user);
  -- as a convenience 'owner.name'; names hold no dot
  if strpos(name, '.') > 0 then
    owner := left(name, length(name) - strpos(reverse(name), '.'));
    name := right(name, strpos(reverse(name), '.') - 1);
  end if;
  acts_as := rowcron._role_named(owner);
  select j.* into wanted
  from rowcron.job as j
  where j.name = _job_named.name and j.owner = acts_as;
  if wanted.id is null then
    raise exception using
      errcode = 'RCNOJ',
      message = case when name is null then 'a job''s name must be given'
        else format('there is no job "%s"', name) end,
      detail = format('"%s" sees no such job of "%s".', current_user, owner),
      -- a member of the owner has its rights, yet only as the owner does it see what it owns
      hint = case when acts_as <> quote_ident(current_user)::regrole
          and row_security_active('rowcron.job') and pg_has_role(current_user, acts_as, 'member')
        then format('set role %s;', acts_as)
        else 'select owner, name from rowcron.job; shows the jobs that you can see.' end;
  end if;
  return wanted;
end
$$;
comment on function rowcron._job_named(text, text) is
  'A job by name or owner.name, as far as the caller may see it. Raises RCNOJ.';

create or replace function rowcron.schedule(
  name text, schedule text default null, command text default null, kind text default null,
  args jsonb default null, timezone text default null, starts_at timestamptz default null,
  ends_at timestamptz default null, max_runs bigint default null, queue text default null,
  priority integer default null, enabled boolean default null, timeout interval default null,
  max_attempts integer default null, retry_delay interval default null,
  retry_backoff double precision default null, max_retry_delay interval default null,
  retry_jitter double precision default null, on_missed text default null,
  missed_grace interval default null, max_missed integer default null, on_overlap text default null,
  max_running integer default null, on_lost text default null, max_lost integer default null,
  on_gap text default null, on_fold text default null, jitter interval default null,
  connection text default null, keep interval default null, description text default null,
  owner text default current_user
) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
set extra_float_digits = 1  -- else what goes through jsonb is rounded as the caller reads numbers
as $$
#variable_conflict use_column
declare
  given jsonb;
  columns text;
  excluded text;
  job_id bigint;
begin
  if rowcron._role_named(schedule.owner) is null then
    raise exception using
      errcode = 'RCOWN',
      message = case when schedule.owner is null then 'a job''s owner must be given'
        else format('there is no role "%s"', schedule.owner) end,
      detail = 'A job belongs to a role, whose rights it has.',
      hint = 'Leave out the owner: the job is then yours.';
  end if;
  select jsonb_object_agg(g.key, g.value) into given
  from jsonb_each(jsonb_build_object(
    'name', schedule.name, 'schedule', schedule.schedule, 'command', schedule.command,
    'kind', schedule.kind, 'args', schedule.args, 'timezone', schedule.timezone,
    'starts_at', schedule.starts_at, 'ends_at', schedule.ends_at, 'max_runs', schedule.max_runs,
    'queue', schedule.queue, 'priority', schedule.priority, 'enabled', schedule.enabled,
    'timeout', schedule.timeout, 'max_attempts', schedule.max_attempts,
    'retry_delay', schedule.retry_delay, 'retry_backoff', schedule.retry_backoff,
    'max_retry_delay', schedule.max_retry_delay, 'retry_jitter', schedule.retry_jitter,
    'on_missed', schedule.on_missed, 'missed_grace', schedule.missed_grace,
    'max_missed', schedule.max_missed, 'on_overlap', schedule.on_overlap)
    || jsonb_build_object(
    'max_running', schedule.max_running, 'on_lost', schedule.on_lost, 'max_lost', schedule.max_lost,
    'on_gap', schedule.on_gap, 'on_fold', schedule.on_fold, 'jitter', schedule.jitter,
    'connection', schedule.connection, 'keep', schedule.keep, 'description', schedule.description,
    'owner', rowcron._role_named(schedule.owner)
  )) as g
  where g.value <> 'null';
  select string_agg(quote_ident(k), ', '), string_agg('excluded.' || quote_ident(k), ', ')
  into columns, excluded
  from jsonb_object_keys(given) as k
  where k not in ('name', 'owner');
  columns := coalesce(columns, 'name');
  excluded := coalesce(excluded, 'excluded.name');
  -- An insert alone would do, but it would be judged as a whole job, and a change may name one
  -- column.
  execute format(
    'update rowcron.job as j set (%1$s) = row (%2$s) from jsonb_populate_record(null::rowcron.job, '
      '$1) as excluded '
    'where j.name = excluded.name and j.owner = excluded.owner returning j.id', columns, excluded)
  into job_id using given;
  if job_id is null then
    execute format(
      'insert into rowcron.job (name, owner%1$s) select g.name, g.owner%2$s '
      'from jsonb_populate_record(null::rowcron.job, $1) as g '
      'on conflict (owner, name) do update set (%3$s) = row (%4$s) returning id',
      case when columns = 'name' then '' else ', ' || columns end,
      case when columns = 'name' then '' else ', ' || replace(excluded, 'excluded.', 'g.') end,
      columns, excluded)
    into job_id using given;
  end if;
  return job_id;
end
$$;
comment on function rowcron.schedule is
  'Creates a job, or changes only the columns named of the one that exists, and returns its id. To '
    'empty a column, update rowcron.job. Raises what an insert raises.';

create or replace function rowcron.unschedule(name text,
  owner text default current_user) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  job rowcron.job := rowcron._job_named(name, owner);
begin
  delete from rowcron.job as j where j.id = job.id;
  if not found then
    raise exception using
      errcode = 'RCOWN',
      message = format('"%s" may not remove job "%s"', current_user, job.name),
      detail = format('It belongs to "%s".', job.owner),
      hint = format('set role %s;', job.owner);
  end if;
  return job.id;
end
$$;
comment on function rowcron.unschedule(text, text) is
  'Deletes a job; its history stays, what waits is cancelled, what runs ends. Returns the id. '
    'Raises RCNOJ, RCOWN.';

create or replace function rowcron._set_enabled(name text, owner text,
  wanted boolean) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  job rowcron.job := rowcron._job_named(name, owner);
begin
  update rowcron.job as j set enabled = wanted
  where j.id = job.id
    -- or to be paused by somebody, too, so that enrol() does not resume it
    and (j.enabled <> wanted or not wanted and rowcron._paused_for_want(j.id));
  if not found and job.enabled <> wanted then
    raise exception using
      errcode = 'RCOWN',
      message = format('"%s" may not change job "%s"', current_user, job.name),
      detail = format('It belongs to "%s".', job.owner),
      hint = format('set role %s; or as an administrator: grant rowcron_operator to %I;', job.owner,
        current_user);
  end if;
  return job.id;
end
$$;
comment on function rowcron._set_enabled(text, text, boolean)
  is 'Pauses or resumes. Raises RCNOJ, RCOWN.';

create or replace function rowcron.pause(name text, owner text default current_user) returns bigint
language sql
set search_path = pg_catalog, pg_temp
as $$
  select rowcron._set_enabled(name, owner, false)
$$;
comment on function rowcron.pause(text, text) is
  'Pauses a job: it is never due, and its runs that are there stand still. What is enqueued from now '
    'on runs all the same: to stop that too, hold(), remove the workers of its queue, or revoke the '
    'right to enqueue. Returns the id. Raises RCNOJ, RCOWN.';

create or replace function rowcron.resume(name text, owner text default current_user) returns bigint
language sql
set search_path = pg_catalog, pg_temp
as $$
  select rowcron._set_enabled(name, owner, true)
$$;
comment on function rowcron.resume(text, text) is
  'Resumes a paused job: its next occurrence is the first after now. Returns the id. Raises RCNOJ, '
    'RCOWN.';

reset role;
