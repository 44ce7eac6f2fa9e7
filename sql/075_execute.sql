-- The execution of a SQL job: its effect, its ledger entry and the end of its run are one
-- transaction, the one statement that the worker sends. The function is owned by rowcron_gate, a
-- role that may do nothing but call executors, so that whatever slips out of an executor is nobody.
--
-- After the executor has returned, on failure too, everything that could outlive it in the session
-- is closed and reset, because it would run or count as the worker at COMMIT or at the next
-- statement: cursors WITH HOLD, prepared statements that hijack a driver's names, temporary
-- objects, LISTEN, advisory locks, settings.
--
-- A timeout set by the job does not bind: the worker sets statement_timeout in a statement of its
-- own before. The run row is locked FOR KEY SHARE: rescue (FOR UPDATE SKIP LOCKED) leaves it alone,
-- a cancel can still be written.

set role rowcron_owner;

create or replace function rowcron._begin_execute(run_id bigint, token uuid, out executor text,
  out attempt integer,
  out scheduled_for timestamptz, out args jsonb
)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  live rowcron.run;
  job rowcron.job;
begin
  select r.* into live from rowcron.run as r
  where r.id = _begin_execute.run_id
    and r.seal = md5(_begin_execute.token::text)::uuid for key share;
  if live.id is null then
    raise exception using
      errcode = 'RCCLM',
      message = format('the claim of run %s is lost', run_id),
      detail = 'The token is not that of a claim that stands: the run was handed out again, or has '
        'ended.',
      hint = 'Nothing was executed.';
  end if;
  select j.* into job from rowcron.job as j where j.id = live.job_id and j.owner = live.owner;
  if job.id is null then
    raise exception using
      errcode = 'RCNOJ',
      message = format('job "%s" of run %s was deleted', live.job, run_id),
      detail = 'There is no command to execute any more.',
      hint = 'Report the run as failed.';
  end if;
  executor := (
    select e.name
    from rowcron.executor as e
    join pg_proc as p on p.proname = e.name and p.pronamespace = 'rowcron_executor'::regnamespace
    where e.owner = live.owner and p.proowner = live.owner and p.prosecdef
  );
  attempt := live.attempt;
  scheduled_for := live.scheduled_for;
  args := coalesce(live.args, job.args, '{}');
end
$$;
comment on function rowcron._begin_execute(bigint, uuid) is
  'Locks a claimed run for its execution and returns its executor and context. Raises RCCLM, '
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
  where r.id = _end_execute.run_id and r.seal = md5(_end_execute.token::text)::uuid for update;
  if live.id is null then
    raise exception using
      errcode = 'RCCLM',
      message = format('the claim of run %s is lost', run_id),
      detail = 'The run was ended while it was executed.',
      hint = 'What it did is rolled back.';
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
  'Records how an execution ended, in the transaction of its effect. Raises RCCLM.';

-- What the gate may call; everything else is closed to it.
grant execute on function rowcron._begin_execute(bigint, uuid) to rowcron_gate;
grant execute
  on function rowcron._end_execute(bigint, uuid, text, text, bigint, jsonb) to rowcron_gate;
grant usage, create on schema rowcron to rowcron_gate;
reset role;

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
  n bigint;
  first_row jsonb;
begin
  select b.executor, b.attempt, b.scheduled_for, b.args into context
  from rowcron._begin_execute(run_id, token) as b;
  -- a serialization failure or a deadlock is tried again at once, by itself
  for try in 1..4 loop
    state := null;
    message := null;
    begin
      if context.executor is null then
        raise exception using
          errcode = 'RCEXE', message = 'the owner of this job has no executor',
          hint = 'Its function in schema rowcron_executor was dropped or changed hands; insert any '
            'job as the owner to make it anew.';
      end if;
      perform
        set_config('rowcron.run_id', run_id::text, true),
        set_config('rowcron.attempt', context.attempt::text, true),
        set_config('rowcron.scheduled_for', coalesce(to_char(
          context.scheduled_for at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00"'), ''), true),
        set_config('rowcron.args', context.args::text, true);
      execute format('select x.row_count, x.result from rowcron_executor.%I($1, $2) as x',
        context.executor)
      into n, first_row using run_id, token;
    exception when query_canceled or assert_failure or others then
      get stacked diagnostics
        state = returned_sqlstate, message = message_text, detail = pg_exception_detail,
        hint = pg_exception_hint, place = pg_exception_context;
    end;
    exit when state is null or state not in ('40001', '40P01');
  end loop;
  if state is not null then
    n := null;
    first_row := null;
    message := concat_ws(E'\n', state || ': ' || message, 'DETAIL: ' || nullif(detail, ''), 'HINT: '
      || nullif(hint, ''),
      'CONTEXT: ' || nullif(split_part(place, 'PL/pgSQL function rowcron_executor.', 1), ''));
  end if;

  set local search_path = pg_catalog, pg_temp;
  perform pg_catalog.pg_advisory_unlock_all();
  execute 'close all; deallocate all; discard temp; discard sequences; unlisten *; reset all';
  perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

  return query
  select e.outcome, e.final, message, n, first_row, e.next_due_at
  from rowcron._end_execute(run_id, token, state, message, n, first_row) as e;
end
$$;
comment on function rowcron.execute(bigint, uuid) is
  'Runs a claimed SQL run as its owner and ends it: effect, ledger entry and end of the run commit '
    'together. A failing job is an outcome, not an error. Raises RCCLM, RCNOJ.';

reset role;
set role rowcron_owner;
revoke create on schema rowcron from rowcron_gate;

reset role;
