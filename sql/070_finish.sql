-- What becomes of an attempt. A report shows the token of its claim; one that does not match is
-- refused, and nothing of it is kept, because the run has another holder or has ended. A final
-- outcome deletes the run and writes its ledger entry in one statement; a failure with attempts
-- left, or a loss with losses left, writes an entry that is not final and puts the run back.

set role rowcron_owner;

drop function if exists rowcron.finish(
  uuid, bigint[], uuid[], text[], text[], text[], text[], jsonb[], interval[]
);
create or replace function rowcron.finish(
  worker_id uuid, run_ids bigint[], tokens uuid[], outcomes text[], reasons text[] default null,
  errors text[] default null, outputs text[] default null, results jsonb[] default null,
  retry_afters interval[] default null, terse boolean default false
) returns table (run_id bigint, accepted boolean, final boolean, outcome text,
  next_due_at timestamptz)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
-- as in claim(): only nested loops over indexes
set jit = off
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_bitmapscan = off
-- an owner whose transaction holds a run of its own must not hold up the reports of all others
set lock_timeout = '500ms'
as $$
#variable_conflict use_column
declare
  report record;
  live rowcron.run;
  again_at timestamptz;
  recorded bigint[];
  all_recorded boolean;
  -- Hashes are dear, and runs of one claim have one token; reports are mostly of one claim or two.
  first_token uuid := tokens[1];
  last_token uuid := tokens[cardinality(tokens)];
  first_seal uuid := md5(first_token::text);
  last_seal uuid := md5(last_token::text);
begin
  if (outcomes <@ '{succeeded,failed,fatal,cancelled,released,lost,stopped}'::text[]) is not true
    or cardinality(run_ids) <> cardinality(tokens)
    or cardinality(run_ids) <> cardinality(outcomes) then
    raise exception using
      errcode = 'RCLIM',
      message = 'reports are not well formed',
      detail = 'Outcomes are succeeded, failed, fatal, cancelled, released, lost, stopped; each run '
        'has a token and an outcome.',
      hint = 'select * from rowcron.finish(run_id => $1, token => $2, outcome => ''failed'', '
        'error => $3);';
  end if;

  with ended as (
    delete from rowcron.run as r
    using unnest(run_ids, tokens, outcomes, reasons, errors, outputs, results)
      as p (run_id, token, outcome, reason, error, output, result)
    -- a range: for an equality also all of run_pkey may be read, and the reports for each row
    where r.id >= p.run_id and r.id <= p.run_id
      and r.seal = case p.token when first_token then first_seal when last_token then last_seal
        else md5(p.token::text)::uuid end
      and p.outcome in ('succeeded', 'fatal', 'cancelled')
    returning r.job_id, r.job, r.owner, r.queue, r.kind, r.id, r.attempt, r.scheduled_for, r.due_at,
      r.started_at, r.worker_id, r.retry_of, r.retry_for, r.key, r.args, r.cancel_asked_by, p.outcome,
      p.reason, p.error, p.output, p.result
  ), entries as (
    insert into rowcron.ledger (
      job_id, job, owner, queue, kind, run_id, attempt, final, scheduled_for, due_at, started_at,
      finished_at,
      outcome, reason, error, output, result, worker_id, retry_of, retry_for, key, args
    )
    select
      e.job_id, e.job, e.owner, e.queue, e.kind, e.id, e.attempt, true, e.scheduled_for, e.due_at,
      e.started_at,
      clock_timestamp(), case when e.outcome = 'fatal' then 'failed' else e.outcome end,
      case when e.outcome = 'cancelled' and e.cancel_asked_by is not null
        then 'cancelled by ' || e.cancel_asked_by else left(e.reason, 1000) end,
      case when octet_length(e.error) > 65536 then rowcron._tail(e.error, 65536) else e.error end,
      case when octet_length(e.output) > 65536 then rowcron._tail(e.output, 65536) else e.output
        end,
      case when e.result is not null then rowcron._bounded(e.result, 65536) end,
      e.worker_id, e.retry_of, e.retry_for, e.key, e.args
    from ended as e
    returning ledger.run_id
  ), counted as (
    select rowcron._count_from_end(array_agg(e.job_id)) from ended as e where e.scheduled_for
      is not null
    having count(*) > 0
  )
  select coalesce(array_agg(e.run_id), '{}') into recorded
  from entries as e
  left join counted as c on true;
  all_recorded := cardinality(recorded) = cardinality(run_ids);
  if terse and all_recorded then
    return;
  end if;
  return query
  select u.run_id, all_recorded or u.run_id = any (recorded), all_recorded
    or u.run_id = any (recorded),
    case when u.outcome = 'fatal' then 'failed' else u.outcome end, null::timestamptz
  from unnest(run_ids, outcomes) as u (run_id, outcome)
  where u.outcome in ('succeeded', 'fatal', 'cancelled')
    and not (terse and u.run_id = any (recorded));

  for report in
    select u.run_id, u.token, u.outcome, u.reason, u.error, u.output, u.result, u.retry_after
    from unnest(run_ids, tokens, outcomes, reasons, errors, outputs, results, retry_afters)
      as u (run_id, token, outcome, reason, error, output, result, retry_after)
    where u.outcome in ('failed', 'released', 'lost', 'stopped')
    order by u.run_id
  loop
    select r.* into live from rowcron.run as r
    where r.id = report.run_id and r.seal = md5(report.token::text)::uuid for update;
    if live.id is not null then
      again_at := rowcron._settle(live, report.outcome, report.reason, report.error, report.output,
        report.result, report.retry_after);
    end if;
    run_id := report.run_id;
    accepted := live.id is not null;
    final := accepted and again_at is null;
    outcome := case report.outcome when 'stopped' then 'lost' else report.outcome end;
    next_due_at := again_at;
    return next;
    again_at := null;
  end loop;
end
$$;
comment on function rowcron.finish(uuid, bigint[], uuid[], text[], text[], text[], text[], jsonb[],
  interval[], boolean) is
  'A worker reports ended attempts, many at once. Outcomes: succeeded, failed, fatal (failed, '
    'never again), cancelled, released (given back, not counted: due again as it was, or after '
      'its retry_after, of a second at least), lost, '
      'stopped (lost because its worker was told to stop, not counted against max_lost). accepted = '
        'false: the claim was lost, nothing was recorded. terse: answers only for those that did not '
          'just end as reported. Name the arguments: by position they may be the other finish''s. '
            'Raises RCLIM.';

create or replace function rowcron._finish_one(
  run_id bigint, token uuid, outcome text, error text, output text, result jsonb, reason text,
    retry_after interval
) returns table (final boolean, outcome_ text, next_due_at timestamptz)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  live rowcron.run;
begin
  if _finish_one.outcome is null
    or _finish_one.outcome not in ('succeeded', 'failed', 'fatal', 'cancelled', 'released', 'lost',
      'stopped')
  then
    raise exception using
      errcode = 'RCLIM',
      message = format('outcome "%s" is not known', _finish_one.outcome),
      detail = 'Outcomes are succeeded, failed, fatal, cancelled, released, lost, stopped.',
      hint = 'select * from rowcron.finish(run_id => $1, token => $2, outcome => ''failed'', '
        'error => $3);';
  end if;
  select r.* into live from rowcron.run as r
  where r.id = _finish_one.run_id and r.seal = md5(_finish_one.token::text)::uuid
    -- the agenda first (chapter 068); to look here is no further statement
    and case
      when r.scheduled_for is not null
        and (select (a.parsed).form from rowcron.agenda as a where a.job_id = r.job_id) = 'after'
        then rowcron._lock_agenda_of(r, _finish_one.outcome)
      else true
    end
  for update;
  if live.id is null then
    raise exception using
      errcode = 'RCCLM',
      message = format('the claim of run %s is lost', _finish_one.run_id),
      detail = 'The token is not that of a claim that stands: the run was handed out again, or has '
        'ended.',
      hint = 'Drop what was done for it if it can be dropped; the ledger tells what became of the '
        'run.';
  end if;
  if _finish_one.outcome in ('succeeded', 'fatal', 'cancelled') then
    perform rowcron._end_run(live, case when _finish_one.outcome = 'fatal' then 'failed'
      else _finish_one.outcome end,
      case when _finish_one.outcome = 'cancelled' and live.cancel_asked_by is not null
        then 'cancelled by ' || live.cancel_asked_by else reason end,
      error, output, result);
    return query select true, case when _finish_one.outcome = 'fatal' then 'failed'
      else _finish_one.outcome end, null::timestamptz;
  else
    next_due_at := rowcron._settle(live, _finish_one.outcome, reason, error, output, result,
      retry_after);
    return query select next_due_at is null,
      case _finish_one.outcome when 'stopped' then 'lost' else _finish_one.outcome end, next_due_at;
  end if;
end
$$;
comment on function rowcron._finish_one(bigint, uuid, text, text, text, jsonb, text, interval) is
  'Ends one claimed attempt. Raises RCCLM, RCLIM.';

create or replace function rowcron.finish(
  run_id bigint, token uuid, outcome text default 'succeeded', error text default null,
  output text default null, result jsonb default null, reason text default null,
    retry_after interval default null
) returns table (final boolean, recorded text, next_due_at timestamptz)
language sql security definer
set search_path = pg_catalog, pg_temp
as $$
  select f.final, f.outcome_, f.next_due_at
  from rowcron._finish_one(run_id, token, outcome, error, output, result, reason, retry_after) as f
$$;
comment on function rowcron.finish(bigint, uuid, text, text, text, jsonb, text, interval) is
  'Reports one ended attempt; whoever shows the claim''s token may. In a transaction of its own '
    'work it commits effect and record together. Name the arguments, as in finish(run_id => $1, '
    'token => $2, outcome => ''failed'', error => $3): by position four parameters without types '
    'may be the other finish''s, too. Raises RCCLM when the claim is lost, RCLIM.';

reset role;
