-- What an executor (chapter 074) is given: the command of a run, and only while a token proves that
-- it is claimed now; what it lets the job find; and how it records that the job has succeeded.
--
-- What a job finds: current_user is its owner, with the rights that the owner has then; the
-- settings of ALTER ROLE ... SET that the owner might set itself (not those that time the session,
-- such as statement_timeout: the job's timeout holds); the search_path is the owner's, else
-- "$user", public, always followed by pg_temp; its context is in settings rowcron.run_id, attempt,
-- scheduled_for and args, and its args are $1 wherever a statement takes a parameter.
-- Its transaction was begun by the worker, READ COMMITTED: an owner's default_transaction_isolation
-- comes too late for it, and so would the job's own SET TRANSACTION.

set role rowcron_owner;

-- its columns have changed
do $$
begin
  if to_regprocedure('rowcron._claimed_command(bigint, uuid, regrole)') is not null and not exists (
    select from pg_catalog.pg_proc as p
    where p.oid = to_regprocedure('rowcron._claimed_command(bigint, uuid, regrole)')
      and 'settings' = any (p.proargnames)
  ) then
    drop function rowcron._claimed_command(bigint, uuid, regrole);
  end if;
end
$$;
create or replace function rowcron._claimed_command(
  run_id bigint, token uuid, owner regrole, out command text, out may_return_rows boolean,
  out args jsonb, out settings text[]
)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set jit = off  -- a job's would stay with the plan
as $$
begin
  select j.command,
    -- To try a cursor in vain costs more than the rest.
    case when j.command collate "C" ~* E'^\\s*(insert|update|delete|merge|do|create|refresh)\\M'
      then j.command collate "C" ilike '%returning%'
      else j.command collate "C"
        ~* E'\\m(select|values|table|returning|show|explain|fetch|execute|call|with)\\M' end,
    coalesce(r.args, j.args, '{}')
  into command, may_return_rows, args
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
  -- most have none, and to look costs less than to collect
  if exists (
    select from pg_db_role_setting as s
    where s.setrole = owner and s.setdatabase in (0, (
      select d.oid from pg_database as d where d.datname = current_database()
    ))
  ) then
    -- those of the role, then those of the role in this database, which win
    settings := array(
      select c.setting
      from pg_db_role_setting as s
      cross join unnest(s.setconfig) with ordinality as c (setting, place)
      where s.setrole = owner and s.setdatabase in (0, (
        select d.oid from pg_database as d where d.datname = current_database()
      ))
      order by s.setdatabase, c.place
    );
  end if;
end
$$;
comment on function rowcron._claimed_command(bigint, uuid, regrole) is
  'For executors: the command of a SQL run that is claimed now and belongs to this owner, whether '
    'it may return rows, its args, and the owner''s own settings. Raises RCCLM.';

create or replace function rowcron._apply_settings(settings text[]) returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  entry text;
  name text;
  value text;
  path text;
begin
  foreach entry in array settings loop
    name := lower(left(entry, strpos(entry, '=') - 1) collate "C");
    value := substr(entry, strpos(entry, '=') + 1);
    if name = 'search_path' then
      path := nullif(value, '');
    elsif name !~ ('^(role|session_authorization|client_encoding|client_connection_check_interval|'
      || 'exit_on_error|statement_timeout|(transaction|idle(_in_transaction)?_session)_timeout|'
      || E'transaction_.*|rowcron\\..*)$')
    then
      begin
        perform set_config(name, value, true);
      exception
        when insufficient_privilege or cant_change_runtime_param then
          null;  -- what the owner could not set itself
        when others then
          raise warning 'setting "%" of role "%" cannot be applied: %', name, current_user, sqlerrm;
      end;
    end if;
  end loop;
  return path;
end
$$;
comment on function rowcron._apply_settings(text[]) is
  'For executors, with the owner''s rights: applies settings of ALTER ROLE ... SET until the end of '
    'the transaction, as far as the owner could set them itself; returns its search_path.';

-- Each insert into this table takes the next command number of its transaction: two of them tell
-- whether anything was written in between. Nothing stays in it.
create unlogged table if not exists rowcron.tick (x integer);
comment on table rowcron.tick is 'Always empty; see rowcron._tick().';
comment on column rowcron.tick.x is 'Nothing.';

create or replace function rowcron._tick() returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set jit = off  -- a job's would stay with the plan
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

create or replace function rowcron._succeed(
  run_id bigint, token uuid, row_count bigint, result jsonb
) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set jit = off  -- a job's would stay with the plan
as $$
#variable_conflict use_column
declare
  answer jsonb := jsonb_strip_nulls(jsonb_build_object('rows', row_count, 'first', result));
  number cid;
  place tid;
  counts_from bigint;
begin
  insert into rowcron.tick (x) values (null) returning cmin, ctid into number, place;
  if octet_length(answer::text) > 65536 then
    answer := rowcron._bounded(answer, 65536);
  end if;
  with ended as (
    delete from rowcron.run as r
    where r.id = _succeed.run_id and r.seal = md5(_succeed.token::text)::uuid
      -- the agenda first (chapter 068); to look here is no further statement
      and case
        when r.scheduled_for is not null
          and (select (a.parsed).form from rowcron.agenda as a where a.job_id = r.job_id) = 'after'
          then rowcron._lock_agenda_of(r, 'succeeded')
        else true
      end
    returning r.job_id, r.job, r.owner, r.queue, r.kind, r.id, r.attempt, r.scheduled_for, r.due_at,
      r.started_at, r.worker_id, r.retry_of, r.retry_for, r.key, r.args
  ), swept as (
    delete from rowcron.tick as t where t.ctid = place
  )
  insert into rowcron.ledger (
    job_id, job, owner, queue, kind, run_id, attempt, final, scheduled_for, due_at, started_at,
    finished_at, outcome, result, worker_id, retry_of, retry_for, key, args
  )
  select
    e.job_id, e.job, e.owner, e.queue, e.kind, e.id, e.attempt, true, e.scheduled_for, e.due_at,
    e.started_at, clock_timestamp(), 'succeeded', answer, e.worker_id, e.retry_of,
    e.retry_for, e.key, e.args
  from ended as e
  returning case when ledger.scheduled_for is not null then ledger.job_id end into counts_from;
  if not found then
    -- its row has been locked since the beginning, so nobody else has done it
    raise exception using
      errcode = 'RCEXE',
      message = format('the job ended its own run %s', run_id),
      detail = 'It called finish with its own token. What it did is rolled back.',
      hint = 'Leave the end of the run to the worker.';
  end if;
  if counts_from is not null then
    perform rowcron._count_from_end(array[counts_from]);
  end if;
  return number::text::bigint;
end
$$;
comment on function rowcron._succeed(bigint, uuid, bigint, jsonb) is
  'For executors: ends a run whose job has done its work, in the transaction of its effect. Returns '
    'the command number before that. Raises RCEXE.';

reset role;
