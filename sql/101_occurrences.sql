-- What became of each occurrence, and what will. occurrences() joins three sources, each of which
-- knows a stretch of time: the ledger what has ended, rowcron.run what is live, the agenda and the
-- calendar what comes after the high-water mark. No occurrence stands in two of them: firing raises
-- the mark in the statement that writes the run or the entry, and a run leaves in the statement
-- that writes its last entry.
--
-- An entry for many occurrences is unfolded by the calendar of the present schedule, if that names
-- exactly as many from the entry's first to its last; after an edit it may not, and then both ends
-- stand for all.
--
-- These functions read with the rights of whoever asks. Those that are definers read nothing but
-- their arguments; they are it because the many functions of the calendar that they call are
-- granted to nobody.

set role rowcron_owner;

create or replace function rowcron._unfold(
  job rowcron.job, parsed rowcron._parsed, entry rowcron.ledger, "from" timestamptz,
  until timestamptz
) returns table (scheduled_for timestamptz, exact boolean)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
rows 100
as $$
declare
  anchor constant timestamptz := coalesce(job.starts_at, job.created_at);
  first constant timestamptz := coalesce(entry.first_scheduled_for, entry.scheduled_for);
  last timestamptz := entry.scheduled_for;
begin
  if entry.occurrences > 1 then
    begin
      exact := (parsed).form in ('cron', 'every')
        and rowcron._next(parsed, first - interval '1 microsecond', job.timezone, anchor,
          job.on_gap, job.on_fold) is not distinct from first
        and rowcron._previous(parsed, last, job.timezone, anchor, job.on_gap, job.on_fold)
          is not distinct from last
        and 1 + rowcron._count(parsed, first, last, job.timezone, anchor, job.on_gap, job.on_fold)
          is not distinct from entry.occurrences;
    exception when others then
      exact := false;  -- a zone that has left the server's tzdata
    end;
  end if;
  if exact then
    scheduled_for := case when first >= "from" then first else rowcron._next(
      parsed, "from" - interval '1 microsecond', job.timezone, anchor, job.on_gap, job.on_fold) end;
    for n in 1..10000 loop
      exit when scheduled_for > last or scheduled_for >= until;
      return next;
      scheduled_for := rowcron._next(
        parsed, scheduled_for, job.timezone, anchor, job.on_gap, job.on_fold);
    end loop;
  else
    return query
    select distinct i.instant, entry.occurrences = 1
    from unnest(array[first, last]) as i (instant)
    where i.instant >= "from" and i.instant < until;
  end if;
end
$$;
comment on function rowcron._unfold(
  rowcron.job, rowcron._parsed, rowcron.ledger, timestamptz, timestamptz
)
  is 'The occurrences in [from, until) for which a ledger entry stands, 10,000 at most; exact = '
    'false: its ends alone, because the schedule is another now.';

create or replace function rowcron._outlook_begins(
  job rowcron.job, entry rowcron.agenda, at timestamptz,
  out first timestamptz, out plan rowcron._plan, out room bigint
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  first := entry.next_run_at;
  if not entry.enabled and (entry.parsed).form in ('cron', 'every', 'at')
    and (entry.runs_fired >= job.max_runs) is not true
  then
    first := rowcron._next(
      entry.parsed, greatest(entry.high_water, job.starts_at - interval '1 microsecond'),
      job.timezone, coalesce(job.starts_at, job.created_at), job.on_gap, job.on_fold);
  elsif first <= at then
    plan := rowcron._plan_due(job, entry, at);
  end if;
  if entry.enabled then
    room := job.max_runs - entry.runs_fired - coalesce(cardinality(plan.runs), 0);
  end if;
end
$$;
comment on function rowcron._outlook_begins(rowcron.job, rowcron.agenda, timestamptz)
  is 'The first occurrence above a job''s high-water mark, what becomes of those that are due, and '
    'for how many after these max_runs leaves room (null: no end).';

create or replace function rowcron._outlook(
  job rowcron.job, entry rowcron.agenda, "from" timestamptz, until timestamptz
) returns table (scheduled_for timestamptz, state text, detail text)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
rows 100
as $$
declare
  at constant timestamptz := clock_timestamp();
  anchor constant timestamptz := coalesce(job.starts_at, job.created_at);
  begins record;
  plan rowcron._plan;
  first timestamptz;
  due_until timestamptz;
  planned bigint := 0;
  room bigint;
begin
  until := least(until, job.ends_at);
  begins := rowcron._outlook_begins(job, entry, at);
  first := begins.first;
  plan := begins.plan;
  room := begins.room;
  due_until := coalesce(plan.high_water, '-infinity');
  scheduled_for := first;
  if (entry.parsed).form in ('cron', 'every') and first < "from" then
    scheduled_for := rowcron._next(
      entry.parsed, "from" - interval '1 microsecond', job.timezone, anchor, job.on_gap,
      job.on_fold);
    if room is not null then
      planned := rowcron._count(
        entry.parsed, greatest(due_until, first - interval '1 microsecond'),
        "from" - interval '1 microsecond',
        job.timezone, anchor, job.on_gap, job.on_fold);
    end if;
  end if;
  for n in 1..10000 loop
    exit when scheduled_for is null or scheduled_for >= until;
    detail := null;
    if not entry.enabled then
      state := 'paused';
      detail := case when scheduled_for <= at then 'skipped, by the pause'
        else 'skipped if still paused by then' end;
    elsif scheduled_for <= due_until then
      state := 'due';
      detail := case when scheduled_for = any (plan.runs) then 'runs as soon as a worker fires it'
        else coalesce((
          select 'missed: ' || m.why
          from unnest(plan.missed_first, plan.missed_last, plan.missed_why) as m (first, last, why)
          where scheduled_for between m.first and m.last
        ), 'missed') end;
    else
      planned := planned + 1;
      exit when planned > room;
      state := 'planned';
    end if;
    if scheduled_for >= "from" then
      return next;
    end if;
    exit when (entry.parsed).form not in ('cron', 'every');
    scheduled_for := rowcron._next(
      entry.parsed, scheduled_for, job.timezone, anchor, job.on_gap, job.on_fold);
  end loop;
end
$$;
comment on function rowcron._outlook(rowcron.job, rowcron.agenda, timestamptz, timestamptz)
  is 'The occurrences in [from, until) above a job''s high-water mark, 10,000 at most: due, '
    'planned or paused.';

create or replace function rowcron.occurrences(
  job text, "from" timestamptz, until timestamptz, owner text default current_user
) returns table (scheduled_for timestamptz, state text, run_id bigint, detail text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
rows 100
as $$
declare
  wanted rowcron.job := rowcron._job_named(job, owner);
  entry rowcron.agenda;
  names text[];
begin
  if "from" is null or until is null or not isfinite("from") or not isfinite(until)
    or "from" >= '20000-01-01 00:00:00+00'
  then
    raise exception using
      errcode = 'RCLIM',
      message = format('"%s" to "%s" is not a stretch of time', "from", until),
      detail = 'Occurrences are listed from an instant on, and before another, up to the year 19999.',
      hint = format('select * from rowcron.occurrences(%L, now() - interval ''1 day'', '
        || 'now() + interval ''1 day'');', wanted.name);
  end if;
  -- what the calendar reaches, as in chapter 028
  "from" := greatest("from", '1601-01-01 00:00:00+00');
  until := least(until, '20000-01-01 00:00:00+00');
  select a.* into entry from rowcron.agenda as a where a.job_id = wanted.id;
  -- the ledger is found by the name that the job had at the time
  names := array(select n.name from rowcron._names_borne(wanted.id, wanted.name) as n (name));
  return query
  select o.scheduled_for, o.state, o.run_id, o.detail
  from (
    select
      u.scheduled_for, l.outcome as state, l.run_id,
      nullif(concat_ws('; ', l.reason, case when not u.exact then format(
        'stands for %s occurrences from %s to %s, of a schedule that has changed since',
        l.occurrences, rowcron._local_text(l.first_scheduled_for, wanted.timezone),
        rowcron._local_text(l.scheduled_for, wanted.timezone)) end), '') as detail
    from rowcron.ledger as l
    cross join lateral rowcron._unfold(wanted, entry.parsed, l, "from", until) as u
    where l.job = any (names) and l.job_id = wanted.id and l.final and l.scheduled_for >= "from"
      and coalesce(l.first_scheduled_for, l.scheduled_for) < until
      -- an occurrence ends after it was due; a day's grace for clocks that are put back
      and l.finished_at >= "from" - interval '1 day'
    union all
    select r.scheduled_for, r.state, r.id, 'waits for ' || r.waits_for
    from rowcron.run as r
    where r.job_id = wanted.id and r.scheduled_for >= "from" and r.scheduled_for < until
    union all
    select p.scheduled_for, p.state, null, p.detail
    from rowcron._outlook(wanted, entry, "from", until) as p
  ) as o
  order by o.scheduled_for, o.run_id
  limit 10000;
end
$$;
comment on function rowcron.occurrences(text, timestamptz, timestamptz, text)
  is 'Each occurrence of a job from an instant on and before another, in order, with what became '
    'of it (the ledger''s outcome), becomes of it (waiting, ready, running) or will become of it '
    '(due, planned, paused). At most 10,000 rows, the first ones: go on from the last. Raises '
    'RCNOJ, RCLIM.';

reset role;
