-- The execution of a SQL job: its effect, its ledger entry and the end of its run are one
-- transaction, the one statement that the worker sends. The function is owned by rowcron_gate, a
-- role that may do nothing but call executors, so that whatever slips out of an executor is nobody.
--
-- After the executor has returned, on failure too, everything that could outlive it in the session
-- is closed and reset, because it would run or count as the worker at COMMIT or at the next
-- statement: cursors WITH HOLD, prepared statements that hijack a driver's names, temporary
-- objects, LISTEN, advisory locks, settings, the sessions that dblink opened.
--
-- A timeout set by the job does not bind: the worker sets statement_timeout in a statement of its
-- own before. The run row is locked FOR KEY SHARE: rescue (FOR UPDATE SKIP LOCKED) leaves it alone,
-- a cancel can still be written.

set role rowcron_owner;

-- its columns have changed
do $$
begin
  if exists (
    select from pg_catalog.pg_proc as p
    where p.oid = to_regprocedure('rowcron._begin_execute(bigint, uuid)')
      and 'args' = any (p.proargnames)
  ) then
    drop function rowcron._begin_execute(bigint, uuid);
  end if;
end
$$;
create or replace function rowcron._begin_execute(
  run_id bigint, token uuid, out owner regrole, out executor text, out edition integer
)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  name text;
  job_id bigint;
begin
  -- one statement, because each costs more to begin than to carry out
  select r.job, j.id, r.owner, e.name, e.edition,
    set_config('rowcron.run_id', r.id::text, true)
      || set_config('rowcron.attempt', r.attempt::text, true)
      || set_config('rowcron.scheduled_for', coalesce(to_char(
        coalesce(r.scheduled_for, r.retry_for) at time zone interval '0',
        'YYYY-MM-DD"T"HH24:MI:SS.US"+00"'), ''), true)
      || set_config('rowcron.args', coalesce(r.args, j.args, '{}')::text, true),
    -- else the job before could choose what random() gives this one
    setseed(uuid_hash_extended(_begin_execute.token, 0) / 9223372036854775808::double precision)
  into name, job_id, owner, executor, edition
  from rowcron.run as r
  left join rowcron.job as j on j.id = r.job_id and j.owner = r.owner
  left join rowcron.executor as e on e.owner = r.owner
  where r.id = _begin_execute.run_id and r.seal = md5(_begin_execute.token::text)::uuid
  for key share of r;
  if name is null then
    raise exception using
      errcode = 'RCCLM',
      message = format('the claim of run %s is lost', run_id),
      detail = 'The token is not that of a claim that stands: the run was handed out again, or has '
        'ended.',
      hint = 'Nothing was executed.';
  end if;
  if job_id is null then
    raise exception using
      errcode = 'RCNOJ',
      message = format('job "%s" of run %s was deleted', name, run_id),
      detail = 'There is no command to execute any more.',
      hint = 'Report the run as failed.';
  end if;
end
$$;
comment on function rowcron._begin_execute(bigint, uuid) is
  'Locks a claimed run for its execution, sets its context and returns its executor. Raises RCCLM, '
    'RCNOJ.';

create or replace function rowcron._end_execute(
  run_id bigint, token uuid, state text, message text, row_count bigint, result jsonb
) returns table (outcome text, final boolean, next_due_at timestamptz)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  live rowcron.run;
  again_at timestamptz;
  reason text;
begin
  select r.* into live from rowcron.run as r
  where r.id = _end_execute.run_id and r.seal = md5(_end_execute.token::text)::uuid
    -- the agenda first (chapter 068); to look here is no further statement
    and case
      when r.scheduled_for is not null
        and (select (a.parsed).form from rowcron.agenda as a where a.job_id = r.job_id) = 'after'
        then rowcron._lock_agenda_of(r, case when state is null then 'succeeded' else 'failed' end)
      else true
    end
  for update;
  if live.id is null and state is not null then
    raise exception using
      errcode = 'RCCLM',
      message = format('the claim of run %s is lost', run_id),
      detail = 'Its job failed, and when that was rolled back, the run was handed out again.',
      hint = 'Nothing of it is kept.';
  end if;
  if live.id is null then
    -- Its row has been locked since the beginning, so nobody else has done it. Not RCCLM: the claim
    -- stands again when this is rolled back, and its holder has to report the failure.
    raise exception using
      errcode = 'RCEXE',
      message = format('the job ended its own run %s', run_id),
      detail = 'It called finish with its own token. What it did is rolled back.',
      hint = 'Leave the end of the run to the worker.';
  end if;
  if state is null then
    perform rowcron._end_run(live, 'succeeded', null, null, null,
      jsonb_strip_nulls(jsonb_build_object('rows', row_count, 'first', result)));
    return query select 'succeeded', true, null::timestamptz;
    return;
  end if;
  if state = '57014' and live.cancel_asked_by is not null then
    perform rowcron._end_run(live, 'cancelled', 'cancelled by ' || live.cancel_asked_by, message);
    return query select 'cancelled', true, null::timestamptz;
    return;
  end if;
  reason := case
    when state = '57014' and clock_timestamp() >= live.started_at + coalesce(
      (select j.timeout from rowcron.job as j where j.id = live.job_id),
        '0') - interval '10 milliseconds' then 'timeout'
    else 'error ' || state end;
  again_at := rowcron._settle(live, 'failed', reason, message, null, null, null);
  return query select 'failed', again_at is null, again_at;
end
$$;
comment on function rowcron._end_execute(bigint, uuid, text, text, bigint, jsonb) is
  'Records how an execution ended, in the transaction of its effect. Raises RCCLM, RCEXE.';

-- What the gate may call; everything else is closed to it.
grant execute on function rowcron._is_executor(text, regrole) to rowcron_gate;
grant execute on function rowcron._begin_execute(bigint, uuid) to rowcron_gate;
grant execute
  on function rowcron._end_execute(bigint, uuid, text, text, bigint, jsonb) to rowcron_gate;
grant usage, create on schema rowcron to rowcron_gate;
reset role;

-- The gate may own something new here only now: so a restore by anybody but a superuser has left it
-- with the restorer, whose rights it would have.
do $$
begin
  if exists (
    select from pg_catalog.pg_proc as p
    where p.oid = to_regprocedure('rowcron.execute(bigint, uuid)')
      and pg_get_userbyid(p.proowner) <> 'rowcron_gate'
  ) then
    alter function rowcron.execute(bigint, uuid) owner to rowcron_gate;
  end if;
end
$$;

set role rowcron_gate;

create or replace function rowcron.execute(run_id bigint, token uuid) returns table (
  outcome text, final boolean, error text, row_count bigint, result jsonb, next_due_at timestamptz
)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  context record;
  state text;
  message text;
  detail text;
  hint text;
  place text;
  dblink regnamespace;
  n bigint;
  first_row jsonb;
begin
  -- Again: a timeout may strike where nothing is cleaned up any more, and the worker's way out, to
  -- close the connection, ends no session that a pooler keeps.
  deallocate all;
  perform pg_advisory_unlock_all();
  -- a serialization failure or a deadlock is tried again at once, by itself
  for try in 1..4 loop
    begin
      -- In here, because a lock of the transaction and a delete of its subtransaction would be a
      -- multixact for each run. While a failed try has been rolled back, nobody holds the run.
      context := null;
      context := rowcron._begin_execute(run_id, token);
      execute format('select x.row_count, x.result from rowcron_executor.%I($1, $2) as x',
        context.executor)
      into n, first_row using run_id, token;
      state := null;
      exit;
    exception when query_canceled or assert_failure or others then
      get stacked diagnostics
        state = returned_sqlstate, message = message_text, detail = pg_exception_detail,
        hint = pg_exception_hint, place = pg_exception_context;
    end;
    exit when context is null or state not in ('40001', '40P01');
  end loop;
  if state is not null and context is not null then
    n := null;
    first_row := null;
    -- another's has been refused by rowcron._claimed_command
    if not rowcron._is_executor(context.executor, context.owner) then
      state := 'RCEXE';
      message := 'the owner of this job has no executor';
      detail := '';
      hint := 'Its function in schema rowcron_executor was dropped or changed hands. As the owner: '
        'select rowcron.enrol();';
    end if;
    -- cut here: it goes to the worker and its log too, and a job may raise half a gigabyte
    message := concat_ws(E'\n', state || ': ' || left(message, 8000),
      'DETAIL: ' || nullif(left(detail, 4000), ''), 'HINT: ' || nullif(left(hint, 2000), ''),
      'CONTEXT: ' || nullif(
        left(split_part(place, 'PL/pgSQL function rowcron_executor.', 1), 2000), ''));
  end if;

  perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true),
    pg_catalog.pg_advisory_unlock_all();
  execute 'close all';  -- without execute it would be a cursor named all
  deallocate all;
  discard temp;
  discard sequences;
  unlisten *;
  reset all;
  set local search_path = pg_catalog, pg_temp;
  dblink := (select e.extnamespace from pg_extension as e where e.extname = 'dblink');
  if dblink is not null then
    -- it keeps sessions by name, whoever opened them, for whoever comes next
    begin
      execute format('select count(%1$s.dblink_disconnect(c.name))'
        ' from unnest(%1$s.dblink_get_connections()) as c (name)', dblink);
      execute format('select %s.dblink_disconnect()', dblink);
    exception
      when connection_does_not_exist then
        null;  -- there is no unnamed one; the named are closed, which nothing rolls back
      when insufficient_privilege then
        if has_function_privilege(
          context.owner, format('%s.dblink_connect(text, text)', dblink), 'execute')
        then
          raise exception using
            errcode = 'RCEXE',
            message = 'the sessions of dblink cannot be closed after the job',
            detail = 'The owner of the job may open them, but rowcron_gate may not call dblink.',
            hint = format('As a superuser: grant execute on function '
              '%1$s.dblink_get_connections(), %1$s.dblink_disconnect(), '
              '%1$s.dblink_disconnect(text) to rowcron_gate;', dblink);
        end if;
    end;
  end if;

  if context is null then  -- it could not begin, or not again
    raise exception using
      errcode = state, message = message, detail = coalesce(detail, ''), hint = coalesce(hint, '');
  end if;
  if state is null and context.edition >= 3 then  -- its executor has recorded it
    outcome := 'succeeded';
    final := true;
    row_count := n;
    result := first_row;
    return next;
    return;
  end if;
  return query
  select e.outcome, e.final, message, n, first_row, e.next_due_at
  from rowcron._end_execute(run_id, token, state, message, n, first_row) as e;
end
$$;
comment on function rowcron.execute(bigint, uuid) is
  'Runs a claimed SQL run as its owner and ends it: effect, ledger entry and end of the run commit '
    'together. A failing job is an outcome, not an error. Before each call set statement_timeout, '
    'by a statement of its own, to the timeout that claim returned: nothing that is set inside a '
    'statement binds it, so that without it a job may outlast its timeout. After a call the '
    'session has none of your settings, prepared statements, cursors, temporary tables, LISTEN or '
    'advisory locks any more: use it for nothing else, with client-side prepared statements off, '
    'and beat over another. Raises RCCLM, RCNOJ, RCEXE.';

reset role;
set role rowcron_owner;
do $$
begin
  if 'rowcron_owner' <> 'rowcron_gate' then
    execute format('revoke create on schema rowcron from %I', 'rowcron_gate');
  end if;
end
$$;

reset role;
