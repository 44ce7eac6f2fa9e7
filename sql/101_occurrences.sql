-- What became of each occurrence, and what will. occurrences() joins three sources, each of which knows a stretch
-- of time: the ledger what has ended, rowcron.run what is live, the agenda and the calendar what comes after the
-- high-water mark. No occurrence stands in two of them: firing raises the mark in the statement that writes the
-- run or the entry, and a run leaves in the statement that writes its last entry.
--
-- An entry for many occurrences is unfolded by the calendar of the present schedule, if that names exactly as
-- many from the entry's first to its last; after an edit it may not, and then both ends stand for all.
--
-- dst_audit() says what a change of a time zone's offset does to the jobs. The functions here read with the rights of
-- whoever asks. Those that are definers read nothing but their arguments; they are it because the many
-- functions of the calendar that they call are granted to nobody.

set role rowcron_owner;

create or replace function rowcron._unfold(
  job rowcron.job, parsed rowcron._parsed, entry rowcron.ledger, "from" timestamptz, until timestamptz
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
        and rowcron._next(parsed, first - interval '1 microsecond', job.timezone, anchor, job.on_gap, job.on_fold)
          is not distinct from first
        and rowcron._previous(parsed, last, job.timezone, anchor, job.on_gap, job.on_fold) is not distinct from last
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
      scheduled_for := rowcron._next(parsed, scheduled_for, job.timezone, anchor, job.on_gap, job.on_fold);
    end loop;
  else
    return query
    select distinct i.instant, entry.occurrences = 1
    from unnest(array[first, last]) as i (instant)
    where i.instant >= "from" and i.instant < until;
  end if;
end
$$;
comment on function rowcron._unfold(rowcron.job, rowcron._parsed, rowcron.ledger, timestamptz, timestamptz) is
  'The occurrences in [from, until) for which a ledger entry stands, 10,000 at most; exact = false: its ends alone, because the schedule is another now.';

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
  plan rowcron._plan;
  first timestamptz := entry.next_run_at;
  due_until timestamptz := '-infinity';
  planned bigint := 0;
  room bigint;
begin
  until := least(until, job.ends_at);
  if not entry.enabled and (entry.parsed).form in ('cron', 'every', 'at')
    and (entry.runs_fired >= job.max_runs) is not true
  then
    first := rowcron._next(
      entry.parsed, greatest(entry.high_water, job.starts_at - interval '1 microsecond'), job.timezone, anchor,
      job.on_gap, job.on_fold);
  elsif first <= at then
    plan := rowcron._plan_due(job, entry, at);
    due_until := plan.high_water;
  end if;
  room := job.max_runs - entry.runs_fired - coalesce(cardinality(plan.runs), 0);
  scheduled_for := first;
  if (entry.parsed).form in ('cron', 'every') and first < "from" then
    scheduled_for := rowcron._next(
      entry.parsed, "from" - interval '1 microsecond', job.timezone, anchor, job.on_gap, job.on_fold);
    if room is not null and entry.enabled then
      planned := rowcron._count(
        entry.parsed, greatest(due_until, first - interval '1 microsecond'), "from" - interval '1 microsecond',
        job.timezone, anchor, job.on_gap, job.on_fold);
    end if;
  end if;
  for n in 1..10000 loop
    exit when scheduled_for is null or scheduled_for >= until;
    detail := null;
    if not entry.enabled then
      state := 'paused';
      detail := case when scheduled_for <= at then 'skipped, by the pause' else 'skipped if still paused by then' end;
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
comment on function rowcron._outlook(rowcron.job, rowcron.agenda, timestamptz, timestamptz) is
  'The occurrences in [from, until) above a job''s high-water mark, 10,000 at most: due, planned or paused.';

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
  if "from" is null or until is null or not isfinite("from") or not isfinite(until) then
    raise exception using
      errcode = 'RCLIM',
      message = format('"%s" to "%s" is not a stretch of time', "from", until),
      detail = 'Occurrences are listed from an instant on, and before another.',
      hint = format('select * from rowcron.occurrences(%L, now() - interval ''1 day'', now() + interval ''1 day'');', wanted.name);
  end if;
  select a.* into entry from rowcron.agenda as a where a.job_id = wanted.id;
  -- the ledger is found by the name that the job had at the time
  names := wanted.name || array(
    select c.old_values ->> 'name' from rowcron.change as c
    where c.job_id = wanted.id and c.action = 'update' and c.old_values ? 'name'
  );
  return query
  select o.scheduled_for, o.state, o.run_id, o.detail
  from (
    select
      u.scheduled_for, l.outcome as state, l.run_id,
      nullif(concat_ws('; ', l.reason, case when not u.exact then format(
        'stands for %s occurrences from %s to %s, of a schedule that has changed since', l.occurrences,
        rowcron._local_text(l.first_scheduled_for, wanted.timezone), rowcron._local_text(l.scheduled_for, wanted.timezone)) end), '') as detail
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
comment on function rowcron.occurrences(text, timestamptz, timestamptz, text) is
  'Each occurrence of a job from an instant on and before another, in order, with what became of it (the ledger''s outcome), becomes of it (waiting, ready, running) or will become of it (due, planned, paused). At most 10,000 rows, the first ones: go on from the last. Raises RCNOJ, RCLIM.';

create or replace function rowcron._dst_effects(
  parsed rowcron._parsed, schedule text, timezone text, anchor timestamptz, on_gap text, on_fold text,
  changes_at timestamptz
) returns table (
  change text, first_local timestamp, last_local timestamp, occurrences bigint, effect text, runs_at timestamptz, detail text
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  second constant interval := interval '1 second';
  before constant timestamp := ((changes_at - second) at time zone timezone) + second;
  after constant timestamp := changes_at at time zone timezone;
  low constant timestamp := least(before, after);
  high constant timestamp := greatest(before, after);
  elapsed constant boolean := parsed.form = 'cron' and parsed.elapsed;
  policy text;
  named timestamp[];
begin
  if parsed.form = 'cron' then
    occurrences := rowcron._count_local(parsed, low - second, high - second);
    first_local := rowcron._next(parsed, (low - second) at time zone 'UTC', 'UTC') at time zone 'UTC';
    last_local := rowcron._previous_local(parsed, high - second);
  else
    if parsed.form = 'every' and not parsed.elapsed then
      named := array(
        select l.local
        from generate_series(-3, 3) as i
        cross join lateral (
          select greatest(rowcron._every_number(parsed, changes_at, anchor) + i, 0) as n
        ) as o
        cross join lateral (select (anchor at time zone timezone) + make_interval(
          months => (o.n * (12 * date_part('year', parsed.step) + date_part('month', parsed.step)))::integer,
          days => (o.n * date_part('day', parsed.step))::integer
        ) as local) as l
        where o.n > 0 and l.local >= low and l.local < high
        group by l.local
        order by l.local
      );
    elsif parsed.form = 'at' and parsed.at_local >= low and parsed.at_local < high then
      named := array[parsed.at_local];
    end if;
    occurrences := coalesce(cardinality(named), 0);
    first_local := named[1];
    last_local := named[occurrences];
  end if;
  if occurrences = 0 then
    return;
  end if;
  change := case when after > before then 'gap' else 'fold' end;
  policy := case when change = 'gap' then coalesce(on_gap, case when elapsed then 'skip' else 'run' end)
    else coalesce(on_fold, case when elapsed then 'twice' else 'once' end) end;
  effect := case policy when 'run' then 'moved' when 'skip' then 'skipped' when 'twice' then 'doubled' else 'once' end;
  runs_at := case
    when effect = 'moved' then changes_at
    when change = 'fold' then changes_at - (high - first_local)
  end;
  detail := case effect
    when 'moved' then format('%s at the first instant after the gap, %s',
      case when occurrences = 1 then 'runs' else 'run together, once,' end, to_char(after, 'HH24:MI:SS'))
    when 'skipped' then 'the clock does not show it that day'
    when 'doubled' then format('%s in the first pass and again in the second', case when occurrences = 1 then 'runs' else 'run' end)
    else format('%s in the first pass only', case when occurrences = 1 then 'runs' else 'run' end)
  end || case
    when change = 'gap' and on_gap is not null then ' (on_gap = ' || on_gap || ')'
    when change = 'fold' and on_fold is not null then ' (on_fold = ' || on_fold || ')'
    when parsed.form <> 'cron' then ''
    when not elapsed then format(' (minute and hour are fixed; with a field of seconds it would be %s)',
      case when change = 'gap' then 'skipped' else 'doubled' end)
    when schedule ~ '^\s*\S+\s+(\*|\S+\s+\*)' and parsed.with_seconds or not parsed.with_seconds
    then ' (minute or hour begins with *: follows elapsed time)'
    else format(' (six fields follow elapsed time; without the seconds it would be %s)',
      case when change = 'gap' then 'moved' else 'run once' end)
  end;
  return next;
end
$$;
comment on function rowcron._dst_effects(
  rowcron._parsed, text, text, timestamptz, text, text, timestamptz
) is 'What one change of a zone''s offset does to a schedule: no row when it names no time in the gap or fold.';

create or replace function rowcron.dst_audit(until timestamptz default null)
returns table (
  job text, owner regrole, timezone text, changes_at timestamptz, change text, first_local timestamp,
  last_local timestamp, occurrences bigint, effect text, runs_at timestamptz, detail text
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  at constant timestamptz := clock_timestamp();
  upto constant timestamptz := least(coalesce(dst_audit.until, at + interval '8766 hours'), at + interval '876600 hours');
begin
  return query
  with zones as materialized (
    select z.timezone, c.changes_at
    from (select distinct j.timezone from rowcron.job as j where j.schedule is not null and j.enabled) as z
    cross join lateral unnest(rowcron._transitions(z.timezone, at, upto)) as c (changes_at)
  )
  select
    j.name, j.owner, j.timezone, z.changes_at, e.change, e.first_local, e.last_local, e.occurrences, e.effect,
    e.runs_at, e.detail
  from zones as z
  join rowcron.job as j on j.timezone = z.timezone and j.enabled
  join rowcron.agenda as a on a.job_id = j.id and (a.parsed).form in ('cron', 'every', 'at')
  cross join lateral rowcron._dst_effects(
    a.parsed, j.schedule, j.timezone, coalesce(j.starts_at, j.created_at), j.on_gap, j.on_fold, z.changes_at) as e
  where a.next_run_at is not null
    and (j.starts_at is null or z.changes_at >= j.starts_at) and (j.ends_at is null or z.changes_at < j.ends_at)
  order by z.changes_at, j.name, j.owner;
end
$$;
comment on function rowcron.dst_audit(timestamptz) is
  'What changes of time do to the jobs that you can see, from now until an instant (a year, if null; a century at most): which local times of a schedule fall into a gap (skipped or moved) or a fold (doubled, or run once), and by which rule.';

reset role;
