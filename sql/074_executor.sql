-- A SQL job runs with exactly its owner's rights. SET ROLE would not do: the job's text could RESET
-- it. Inside a SECURITY DEFINER function every spelling of SET and RESET ROLE is refused, so each
-- owner has an executor: a definer function that the owner itself created, in the moment of its
-- first insert into rowcron.job, and that runs the command of a run whose token proves that it is
-- claimed now.
--
-- An owner could alter or replace a function that it owns, so it holds neither USAGE nor CREATE on
-- the schema of the executors, but for that moment: of three triggers, in the order of their names,
-- the first (the schema owner's rights) grants both, the second (the inserting role's) creates, the
-- third revokes both. Nothing of the owner's runs in between. The grants of two first inserts would
-- collide in the catalog, so they queue up on a row of rowcron.setting, which no author can lock;
-- names are random, an executor is found by its owner.

set role rowcron_owner;

insert into rowcron.setting (name, value, description) values
  ('executor', 'true', 'Its row is locked while an owner''s executor is created.')
on conflict (name) do nothing;

create or replace function rowcron._claimed_command(
  run_id bigint, token uuid, owner regrole, out command text, out may_return_rows boolean
)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  select j.command,
    j.command ~* '\m(select|values|table|returning|show|explain|fetch|execute|call|with)\M'
  into command, may_return_rows
  from rowcron.run as r
  join rowcron.job as j on j.id = r.job_id and j.owner = r.owner
  where r.id = _claimed_command.run_id and r.seal = md5(_claimed_command.token::text)::uuid
    and r.owner = _claimed_command.owner and j.kind = 'sql' and j.connection is null;
  if command is null then
    raise exception using
      errcode = 'RCCLM',
      message = format('the claim of run %s is lost', run_id),
      detail = 'The token is not that of a claim that stands, or the run is not this owner''s SQL '
        'job.',
      hint = 'Nothing was executed.';
  end if;
end
$$;
comment on function rowcron._claimed_command(bigint, uuid, regrole) is
  'For executors: the command of a SQL run that is claimed now and belongs to this owner, and '
    'whether it may return rows. Raises RCCLM.';

-- Each insert into this table takes the next command number of its transaction: two of them tell
-- whether anything was written in between. Nothing stays in it.
create unlogged table if not exists rowcron.tick (x integer);
comment on table rowcron.tick is 'Always empty; see rowcron._tick().';
comment on column rowcron.tick.x is 'Nothing.';

create or replace function rowcron._tick() returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  number cid;
  place tid;
begin
  insert into rowcron.tick (x) values (null) returning cmin, ctid into number, place;
  delete from rowcron.tick as t where t.ctid = place;
  return number::text::bigint;
end
$$;
comment on function rowcron._tick() is
  'The command number of this transaction; takes two of them itself.';

create or replace function rowcron._has_executor(owner regrole) returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  return exists (
    select from rowcron.executor as e
    join pg_proc as p on p.proname = e.name and p.pronamespace = 'rowcron_executor'::regnamespace
    where e.owner = _has_executor.owner and p.proowner = _has_executor.owner and p.prosecdef
  );
end
$$;
comment on function rowcron._has_executor(regrole) is
  'Whether a role''s executor stands and is still its own. Volatile: it looks anew after a lock '
    'was waited for.';

create or replace function rowcron._open_executors() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '5s'
as $$
begin
  if not rowcron._has_executor(new.owner) then
    perform from rowcron.setting as s where s.name = 'executor' for update;
    -- whoever held the lock may have made it
    if not rowcron._has_executor(new.owner) then
      delete from rowcron.executor as e where e.owner = new.owner;
      execute format('grant usage, create on schema rowcron_executor to %s', new.owner);
    end if;
  end if;
  return new;
exception when lock_not_available then
  raise exception using
    errcode = 'RCEXE',
    message = format('the first job of "%s" has to wait', new.owner),
    detail = 'Another role''s first job is being stored by a transaction that is still open.',
    hint = 'Try again.';
end
$$;
comment on function rowcron._open_executors() is 'Trigger 1 of 3: lets the owner create its '
  'executor. Raises RCEXE.';

create or replace function rowcron._create_executor() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if not exists (select from rowcron.executor as e where e.owner = rowcron._me()) then
    -- The path is the job's: its owner's schema, then public. Everything of ours is qualified.
    execute format($create$
      create function rowcron_executor.%1$I(run_id bigint, token uuid, out row_count bigint,
        out result jsonb)
      language plpgsql security definer set search_path = "$user", public, pg_temp
      as $executor$
      declare
        claimed record;
        answer pg_catalog.refcursor;
        first_row record;
        before bigint;
        after bigint;
      begin
        select c.command, c.may_return_rows into claimed
        from rowcron._claimed_command(run_id, token,
          pg_catalog.quote_ident(current_user::pg_catalog.text)::pg_catalog.regrole) as c;
        if claimed.may_return_rows then
          begin
            open answer for execute claimed.command;
          exception when others then
            -- several statements, or one that returns no rows, or one that fails: nothing has been
            -- executed
            answer := null;
          end;
        end if;
        if answer is null then
          execute claimed.command;
          get diagnostics row_count = row_count;
        else
          fetch answer into first_row;
          get diagnostics row_count = row_count;
          if found then
            result := pg_catalog.to_jsonb(first_row);
            move forward all from answer;
            get diagnostics after = row_count;
            row_count := row_count operator(pg_catalog.+) after;
          end if;
          close answer;
        end if;
        for pass in 1..5 loop
          before := rowcron._tick();
          set constraints all immediate;
          after := rowcron._tick();
          if after operator(pg_catalog.-) before operator(pg_catalog.<=) 2::bigint then
            return;
          end if;
        end loop;
        raise exception using
          errcode = 'RCDEF', message = 'deferred triggers queue more deferred triggers without end',
          detail = 'After five passes of SET CONSTRAINTS ALL IMMEDIATE the job''s triggers still '
            'wrote.',
          hint = 'Make the constraint triggers of its tables not deferrable.';
      end
      $executor$
    $create$, 'run_' || replace(gen_random_uuid()::text, '-', ''));
    execute (
      select format('revoke all on function %1$s from public; grant execute on function %1$s to '
        'rowcron_gate', p.oid::regprocedure)
      from pg_proc as p
      where p.pronamespace = 'rowcron_executor'::regnamespace and p.proowner = rowcron._me()
      order by p.oid desc
      limit 1
    );
  end if;
  return new;
exception
  when insufficient_privilege or feature_not_supported then
    raise exception using
      errcode = 'RCEXE',
        message = format('the executor of "%s" could not be created: %s', current_user, sqlerrm),
      detail = 'Each owner of jobs has a function that runs them with its rights, created with its '
        'first job.',
      hint = 'If an event trigger forbids DDL, let an administrator insert the first job: set role '
        '...; insert ...';
end
$$;
comment on function rowcron._create_executor()
  is 'Trigger 2 of 3, with the inserting role''s rights: creates its executor if it has none. '
    'Raises RCEXE.';

create or replace function rowcron._close_executors() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if not exists (select from rowcron.executor as e where e.owner = new.owner) then
    insert into rowcron.executor (owner, name)
    select new.owner, p.proname
    from pg_proc as p
    where p.pronamespace = 'rowcron_executor'::regnamespace and p.proowner = new.owner
      and p.prosecdef
    order by p.oid desc
    limit 1;
    execute format('revoke usage, create on schema rowcron_executor from %s', new.owner);
  end if;
  return new;
end
$$;
comment on function rowcron._close_executors()
  is 'Trigger 3 of 3: takes the owner''s rights on the executors'' schema away again and notes the '
    'executor.';

-- before b10_check, after nothing: BEFORE triggers fire in the order of their names
drop trigger if exists a10_open on rowcron.job;
create trigger a10_open before insert on rowcron.job
for each row execute function rowcron._open_executors();
drop trigger if exists a20_create on rowcron.job;
create trigger a20_create before insert on rowcron.job
for each row execute function rowcron._create_executor();
drop trigger if exists a30_close on rowcron.job;
create trigger a30_close before insert on rowcron.job
for each row execute function rowcron._close_executors();

reset role;
