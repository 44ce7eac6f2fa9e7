-- What is asked for by a row in rowcron.change (chapter 032): cancel, retry, run_now, hold,
-- release, grants. The first trigger signs the row as whoever inserts it, the second carries out
-- what the signer may ask for and fills in what became of it, so that each such deed is recorded by
-- the statement that does it.

set role rowcron_owner;

create or replace function rowcron._sign_change() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if current_user <> 'rowcron_owner' then
    if new.action in ('insert', 'update', 'delete') then
      raise exception using
        errcode = 'RCOWN',
        message = 'changes of jobs are recorded by the database',
        detail = format('"%s" inserted one by hand.', current_user),
        hint = 'Change the job itself. After a restore without owners: rowcron install.';
    end if;
    if new.action = 'enrol' and new.owner is distinct from rowcron._me() then
      raise exception using
        errcode = 'RCOWN',
        message = format('"%s" may not enrol "%s"', current_user, new.owner),
        detail = 'An executor is made in its owner''s own name.',
        hint = 'select rowcron.enrol();';
    end if;
    if new.action = 'enrol' then  -- it is about its owner and nothing else
      new.job_id := null;
      new.job := null;
      new.run_id := null;
      new.old_values := null;
      new.new_values := null;
    end if;
    new.changed_by := current_user;
    new.changed_at := clock_timestamp();
    new.xid := pg_current_xact_id();
  else
    new.changed_by := coalesce(new.changed_by, current_user);
  end if;
  return new;
end
$$;
comment on function rowcron._sign_change() is 'Trigger: a change bears the name of the role that '
  'asks. Raises RCOWN.';

create or replace function rowcron._may(who text, owner regrole) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select quote_ident(who)::regrole = owner
    or pg_has_role(who, 'rowcron_operator', 'usage')
    or pg_has_role(who, 'rowcron_owner', 'usage')
$$;
comment on function rowcron._may(text, regrole)
  is 'Whether a role may cancel, retry and run what this owner''s jobs do: the owner itself and '
    'operators.';

create or replace function rowcron._cancel(asked rowcron.change) returns rowcron.change
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  live rowcron.run;
begin
  -- What ends here may be what its job's next occurrence counts from: agenda before run (chapter 068).
  -- Not what runs: an owner's open edit of its job must not hold up that it is asked to stop.
  perform from rowcron.agenda as a
  where (a.parsed).form = 'after' and a.job_id = (
    select r.job_id from rowcron.run as r where r.id = asked.run_id and r.state <> 'running'
  )
  for update;
  -- not FOR UPDATE: a SQL job holds its run row FOR KEY SHARE while it executes
  select r.* into live from rowcron.run as r where r.id = asked.run_id for no key update;
  if live.id is null or not rowcron._may(asked.changed_by, live.owner) then
    raise exception using
      errcode = 'RCNOR',
      message = case when asked.run_id is null then 'a run must be named'
        else format('run %s is not live', asked.run_id) end,
      detail = 'It has ended, or never was, or is somebody else''s.',
      hint = 'select * from rowcron.active; shows what is live.';
  end if;
  asked.job_id := live.job_id;
  asked.job := live.job;
  asked.owner := live.owner;
  if live.state = 'running' then
    -- if it is free: for whoever goes on to pause the job, its end would else have it before
    perform from rowcron.agenda as a
    where a.job_id = live.job_id and (a.parsed).form = 'after' and live.scheduled_for is not null
    for update skip locked;
    update rowcron.run as r set cancel_asked_by = asked.changed_by where r.id = live.id;
    asked.new_values := '"asked"';
    perform rowcron._notify();
  else
    perform rowcron._end_run(live, 'cancelled', format('cancelled by %s', asked.changed_by));
    asked.new_values := '"cancelled"';
  end if;
  return asked;
end
$$;
comment on function rowcron._cancel(rowcron.change) is
  'Ends a waiting or ready run at once; asks the holder of a running one. Raises RCNOR.';

create or replace function rowcron._run_again(asked rowcron.change) returns rowcron.change
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  ended rowcron.ledger;
  job rowcron.job;
begin
  if asked.action = 'retry' then
    select l.* into ended from rowcron.ledger as l where l.run_id = asked.run_id and l.final;
    if ended.run_id is null or not rowcron._may(asked.changed_by, ended.owner) then
      raise exception using
        errcode = 'RCNOR',
        message = case when asked.run_id is null then 'a run must be named'
          else format('run %s has not ended', asked.run_id) end,
        detail = 'It is live, or never was, or is somebody else''s.',
        hint = 'select * from rowcron.history; shows what has ended.';
    end if;
    select j.* into job from rowcron.job as j where j.id = ended.job_id;
  else
    select j.* into job from rowcron.job as j where j.name = asked.job and j.owner = asked.owner;
  end if;
  if job.id is null or not rowcron._may(asked.changed_by, job.owner) then
    raise exception using
      errcode = 'RCNOJ',
      message = format('there is no job "%s"', coalesce(asked.job, ended.job)),
      detail = format('"%s" sees no such job.', asked.changed_by),
      hint = 'select owner, name from rowcron.job; shows the jobs that you can see.';
  end if;
  perform rowcron._check_asked(job.name, octet_length(asked.new_values::text), null);
  insert into rowcron.run (
    job_id, job, owner, queue, kind, handler, state, priority, due_at, through_pause, args, retry_of,
    retry_for
  )
  values (
    job.id, job.name, job.owner, job.queue, job.kind,
    rowcron._handler(job.kind, job.command, job.connection), 'ready',
    job.priority, clock_timestamp(), not job.enabled, coalesce(asked.new_values, ended.args),
      ended.run_id, coalesce(ended.scheduled_for, ended.retry_for)
  )
  returning id into asked.run_id;
  asked.job_id := job.id;
  asked.job := job.name;
  asked.owner := job.owner;
  return asked;
end
$$;
comment on function rowcron._run_again(rowcron.change) is
  'A new run of a job, for run_now, or of an ended run''s job with its args and for its occurrence, '
    'for retry. Raises RCNOJ, RCNOR, RCCMD.';

create or replace function rowcron._carry_out() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  favoured regrole;
begin
  if new.action = 'cancel' then
    return rowcron._cancel(new);
  elsif new.action in ('run', 'retry') then
    return rowcron._run_again(new);
  elsif new.action in ('hold', 'release') then
    if not pg_has_role(new.changed_by, 'rowcron_operator', 'usage')
      and not pg_has_role(new.changed_by, 'rowcron_owner', 'usage') then
      raise exception using
        errcode = 'RCOWN',
        message = format('"%s" may not hold or release', new.changed_by),
        detail = 'That takes membership of rowcron_operator.',
        hint = format('As an administrator: grant rowcron_operator to %I;', new.changed_by);
    end if;
    new.old_values := (select s.value from rowcron.setting as s where s.name = 'hold' for update);
    new.new_values := case when new.action = 'hold' then jsonb_build_object(
      'reason', coalesce(new.new_values ->> 'reason', ''), 'by', new.changed_by, 'at',
        new.changed_at) else 'null' end;
    update rowcron.setting as s set value = new.new_values where s.name = 'hold';
    if new.action = 'release' then
      perform rowcron._bind();
      perform rowcron._take_up_jobs(new.changed_at);
    end if;
    perform rowcron._notify();
  elsif new.action = 'hand_over' then
    return rowcron._hand_over(new);
  elsif new.action = 'grant' then
    if not pg_has_role(new.changed_by, 'rowcron_owner', 'usage') then
      raise exception using
        errcode = 'RCOWN',
        message = format('"%s" may not grant %s', new.changed_by,
          case when new.new_values ? 'secret' then 'secrets' else 'connections' end),
        detail = 'That takes membership of rowcron_owner.',
        hint = 'Ask whoever installed rowcron.';
    end if;
    if new.new_values ? 'secret' then
      return rowcron._carry_out_secret(new);
    end if;
    favoured := rowcron._role_named(new.new_values ->> 'grantee');
    if favoured is null or coalesce(new.new_values ->> 'connection', '') = '' then
      raise exception using
        errcode = 'RCCON',
        message = format('connection "%s" cannot be granted to "%s"',
          new.new_values ->> 'connection', new.new_values ->> 'grantee'),
        detail = 'A connection has a name, and a role must exist.',
        hint = 'select rowcron.grant_connection(''admin'', ''alice'');';
    end if;
    if (new.new_values ->> 'granted')::boolean then
      insert into rowcron.connection_grant (connection, grantee, granted_by)
      values (new.new_values ->> 'connection', favoured, new.changed_by) on conflict do nothing;
    else
      delete from rowcron.connection_grant as g
      where g.connection = new.new_values ->> 'connection' and g.grantee = favoured;
    end if;
  end if;
  return new;
end
$$;
comment on function rowcron._carry_out() is
  'Trigger: does what a change asks for, as far as its signer may. Raises RCOWN, RCNOJ, RCNOR, '
    'RCCON, RCSEC.';

drop trigger if exists a10_sign on rowcron.change;
create trigger a10_sign before insert on rowcron.change
for each row execute function rowcron._sign_change();
drop trigger if exists a20_carry_out on rowcron.change;
create trigger a20_carry_out before insert on rowcron.change
for each row when (new.action in ('cancel', 'retry', 'run', 'hold', 'release', 'grant',
  'hand_over'))
execute function rowcron._carry_out();

create or replace function rowcron.cancel(run bigint) returns text
language sql
set search_path = pg_catalog, pg_temp
as $$
  insert into rowcron.change (action, run_id) values ('cancel', run) returning new_values #>> '{}'
$$;
comment on function rowcron.cancel(bigint) is
  'Cancels a run: "cancelled" when it had not started, "asked" when its worker is told to stop it. '
    'Raises RCNOR.';

create or replace function rowcron.retry(run bigint) returns bigint
language sql
set search_path = pg_catalog, pg_temp
as $$
  insert into rowcron.change (action, run_id) values ('retry', run) returning run_id
$$;
comment on function rowcron.retry(bigint) is
  'Runs an ended run''s job again with the same args, which sees the same scheduled_for; returns the '
    'new run, whose retry_of names the old. Asked twice it makes two runs: who repeats many leaves out '
    'those that a run in rowcron.active or rowcron.history names as its retry_of. Raises RCNOR, RCNOJ.';

create or replace function rowcron.run_now(job text, args jsonb default null,
  owner text default current_user) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  wanted rowcron.job := rowcron._job_named(job, owner);
  run bigint;
begin
  insert into rowcron.change as c (action, job, owner, new_values)
  values ('run', wanted.name, wanted.owner, args)
  returning c.run_id into run;
  return run;
end
$$;
comment on function rowcron.run_now(text, jsonb, text) is
  'Runs a job now, also a paused one; returns the run. Recorded in rowcron.change. Raises RCNOJ, '
    'RCCMD.';

create or replace function rowcron.hold(reason text default '') returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
  insert into rowcron.change (action, new_values) values ('hold',
    jsonb_build_object('reason', reason))
$$;
comment on function rowcron.hold(text) is
  'Everything stands still: nothing fires, nothing is claimed; what runs ends. For operators. '
    'Raises RCOWN.';

create or replace function rowcron.release() returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
  insert into rowcron.change (action) values ('release')
$$;
comment on function rowcron.release() is 'Ends hold(), and binds a restored or copied installation '
  'to its new database. What fell due meanwhile is treated as missed. For operators. Raises RCOWN.';

reset role;
