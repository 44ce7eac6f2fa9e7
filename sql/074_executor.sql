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

alter table rowcron.executor add column if not exists edition integer not null default 1;
comment on column rowcron.executor.edition is 'Which text of the function it is; one that is older '
  'than the installed is made anew when its owner next writes a job.';

create or replace function rowcron._latest_edition() returns integer
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
  select 3
$$;
comment on function rowcron._latest_edition() is
  'The edition of the text that rowcron._create_executor writes.';

create or replace function rowcron._has_executor(owner regrole) returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  return exists (
    select from rowcron.executor as e
    where e.owner = _has_executor.owner and e.edition = rowcron._latest_edition()
      and rowcron._is_executor(e.name, e.owner)
  );
end
$$;
comment on function rowcron._has_executor(regrole) is
  'Whether a role''s executor stands, is still its own and of the latest edition. Volatile: it '
    'looks anew after a lock was waited for.';

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
      if new.owner <> rowcron._me() then  -- a single role has them already
        execute format('grant usage, create on schema rowcron_executor to %s', new.owner);
      end if;
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
        path pg_catalog.text;
        answer pg_catalog.refcursor;
        first_row record;
        before bigint;
        after bigint;
      begin
        claimed := rowcron._claimed_command(run_id, token,
          pg_catalog.quote_ident(current_user::pg_catalog.text)::pg_catalog.regrole);
        if claimed.settings is not null then
          path := rowcron._apply_settings(claimed.settings);
          if path is not null then
            perform pg_catalog.set_config('search_path',
              pg_catalog.concat_ws(', ', path, 'pg_temp'), true);
          end if;
        end if;
        if claimed.may_return_rows then
          begin
            open answer for execute claimed.command using claimed.args;
          exception when others then
            -- several statements, or one that returns no rows, or one that fails: nothing has been
            -- executed
            answer := null;
          end;
        end if;
        if answer is null then
          execute claimed.command using claimed.args;
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
        before := rowcron._tick();
        set constraints all immediate;
        after := rowcron._succeed(run_id, token, row_count, result);
        for pass in 2..5 loop
          if after operator(pg_catalog.-) before operator(pg_catalog.<=) 2::bigint then
            return;
          end if;
          before := rowcron._tick();
          set constraints all immediate;
          after := rowcron._tick();
        end loop;
        if after operator(pg_catalog.-) before operator(pg_catalog.<=) 2::bigint then
          return;
        end if;
        raise exception using
          errcode = 'RCDEF', message = 'deferred triggers queue more deferred triggers without end',
          detail = 'After five passes of SET CONSTRAINTS ALL IMMEDIATE the job''s triggers still '
            'wrote.',
          hint = 'Make the constraint triggers of its tables not deferrable.';
      end
      $executor$
    $create$, 'run_' || replace(gen_random_uuid()::text, '-', ''));
    execute (
      select format('revoke all on function %1$s from public; grant execute on function %1$s to %2$I',
        p.oid::regprocedure, 'rowcron_gate')
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
    insert into rowcron.executor (owner, name, edition)
    select new.owner, p.proname, rowcron._latest_edition()
    from pg_proc as p
    where p.pronamespace = 'rowcron_executor'::regnamespace and p.proowner = new.owner
      and p.prosecdef
    order by p.oid desc
    limit 1
    -- one that was committed after the snapshot of REPEATABLE READ: 40001, not 23505
    on conflict (owner) do nothing;
    if new.owner <> rowcron._me() then
      execute format('revoke usage, create on schema rowcron_executor from %s', new.owner);
    end if;
  end if;
  return new;
end
$$;
comment on function rowcron._close_executors()
  is 'Trigger 3 of 3: takes the owner''s rights on the executors'' schema away again and notes the '
    'executor.';

-- Before b10_check, after nothing: BEFORE triggers fire in the order of their names. On an update
-- they make anew what was dropped or is of an older edition, for the owner itself alone: whether it
-- is the owner who asks is decided by the condition, which has the rights of who asks.
do $$
declare
  target text;
  step text[];
begin
  foreach target in array array['job', 'change'] loop
    foreach step slice 1 in array array[
      array['a10_open', 'a12_open', '_open_executors'],
      array['a20_create', 'a14_create', '_create_executor'],
      array['a30_close', 'a16_close', '_close_executors']
    ] loop
      execute format('drop trigger if exists %I on rowcron.%I',
        step[case when target = 'job' then 1 else 2 end], target);
      execute format('create trigger %I before %s on rowcron.%I for each row when (%s '
        'new.owner = pg_catalog.quote_ident(current_user)::regrole) execute function rowcron.%I()',
        step[case when target = 'job' then 1 else 2 end],
        case when target = 'job' then 'insert or update' else 'insert' end, target,
        case when target = 'job' then '' else 'new.action = ''enrol'' and' end, step[3]);
    end loop;
  end loop;
end
$$;

create or replace function rowcron.enrol() returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
  insert into rowcron.change (action, owner)
  select 'enrol', quote_ident(current_user)::regrole
  where not rowcron._has_executor(quote_ident(current_user)::regrole);
  update rowcron.job as j
  set enabled = true
  where j.owner = quote_ident(current_user)::regrole and not j.enabled
    and rowcron._paused_for_want(j.id)
$$;
comment on function rowcron.enrol() is
  'Makes the executor of the role that asks, if it has none: the function that runs its SQL jobs '
    'with its rights. Its first job does so by itself. Resumes its jobs that were paused for want of '
    'one, and by nobody since. Raises RCEXE.';

reset role;
