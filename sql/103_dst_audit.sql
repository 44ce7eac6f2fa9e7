-- What changes of a time zone's offset do to the jobs, told beforehand. Each change of each zone
-- that a job names is found once; then each job in that zone says which of its local times fall
-- into the gap (the clock is put forward) or the fold (put back), and by which rule they are
-- skipped, moved, doubled or run once. Where a field of seconds would change the rule, the detail
-- says so.
--
-- dst_audit() reads with the rights of whoever asks; _dst_effects and _leaves_room are definers that read
-- nothing but their arguments, because the functions of the calendar are granted to nobody.

set role rowcron_owner;

drop function if exists rowcron._dst_effects(  -- a column more
  rowcron._parsed, text, text, timestamptz, text, text, timestamptz
);
create or replace function rowcron._dst_effects(
  parsed rowcron._parsed, schedule text, timezone text, anchor timestamptz, on_gap text,
  on_fold text, changes_at timestamptz
) returns table (
  change text, first_local timestamp, last_local timestamp, occurrences bigint, effect text,
  runs_at timestamptz, detail text, again_at timestamptz
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
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
    first_local := rowcron._next(parsed, (low - second) at time zone 'UTC', 'UTC')
      at time zone 'UTC';
    last_local := rowcron._previous_local(parsed, high - second);
  else
    -- of days and hours together no local time is named beforehand
    if parsed.form = 'every' and parsed.step = date_trunc('day', parsed.step) then
      named := array(
        select l.local
        from generate_series(-3, 3) as i
        cross join lateral (
          select greatest(rowcron._every_number(parsed, changes_at, anchor) + i, 0) as n
        ) as o
        cross join lateral (select (anchor at time zone timezone) + make_interval(
          months => (o.n
            * (12 * date_part('year', parsed.step) + date_part('month', parsed.step)))::integer,
          days => (o.n * date_part('day', parsed.step))::integer
        ) as local) as l
        where o.n > 0 and l.local >= low and l.local < high
        group by l.local
        order by l.local
      );
    elsif parsed.form = 'at' and parsed.at_instant is null and parsed.at_local >= low
      and parsed.at_local < high
    then
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
  policy := case
    when change = 'gap' then coalesce(on_gap, case when elapsed then 'skip' else 'run' end)
    when parsed.form = 'at' then 'once'
    else coalesce(on_fold, case when elapsed then 'twice' else 'once' end) end;
  effect := case policy
    when 'run' then 'moved' when 'skip' then 'skipped' when 'twice' then 'doubled' else 'once' end;
  runs_at := case
    when effect = 'moved' then changes_at
    when change = 'fold' then changes_at - (high - first_local)
  end;
  again_at := case when effect = 'doubled' then changes_at + (first_local - low) end;
  detail := case effect
    when 'moved' then format('%s at the first instant after the gap, %s',
      case when occurrences = 1 then 'runs' else 'run together, once,' end,
      to_char(after, 'HH24:MI:SS'))
    when 'skipped' then 'the clock does not show it that day'
    when 'doubled' then format('%s in the first pass and again in the second',
      case when occurrences = 1 then 'runs' else 'run' end)
    else format('%s in the first pass only', case when occurrences = 1 then 'runs' else 'run' end)
  end || case
    when change = 'gap' and on_gap is not null then ' (on_gap = ' || on_gap || ')'
    when change = 'fold' and on_fold is not null and parsed.form <> 'at' then ' (on_fold = ' || on_fold || ')'
    when parsed.form <> 'cron' then ''
    when not elapsed then format(
      ' (minute and hour are fixed; with a field of seconds it would be %s)',
      case when change = 'gap' then 'skipped' else 'doubled' end)
    when schedule ~ E'^\\s*\\S+\\s+(\\*|\\S+\\s+\\*)' and parsed.with_seconds or not parsed.with_seconds
    then ' (minute or hour begins with *: follows elapsed time)'
    else format(' (six fields follow elapsed time; without the seconds it would be %s)',
      case when change = 'gap' then 'moved' else 'run once' end)
  end;
  return next;
end
$$;
comment on function rowcron._dst_effects(
  rowcron._parsed, text, text, timestamptz, text, text, timestamptz
)
  is 'What one change of a zone''s offset does to a schedule: no row when it names no time in the '
    'gap or fold. again_at: where doubled, the first instant of the second pass.';

create or replace function rowcron._leaves_room(
  job rowcron.job, entry rowcron.agenda, instant timestamptz
) returns boolean
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  begins record := rowcron._outlook_begins(job, entry, clock_timestamp());
begin
  return begins.room is null or begins.room > rowcron._count(
    entry.parsed, greatest((begins.plan).high_water, begins.first - interval '1 microsecond'),
    instant - interval '1 microsecond', job.timezone, coalesce(job.starts_at, job.created_at),
    job.on_gap, job.on_fold);
end
$$;
comment on function rowcron._leaves_room(rowcron.job, rowcron.agenda, timestamptz)
  is 'Whether max_runs leaves room for an occurrence at an instant, behind those before it.';

create or replace function rowcron.dst_audit(until timestamptz default null)
returns table (
  job text, owner regrole, timezone text, changes_at timestamptz, change text,
  first_local timestamp, last_local timestamp, occurrences bigint, effect text,
  runs_at timestamptz, detail text
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  at constant timestamptz := clock_timestamp();
  upto constant timestamptz := greatest(at, least(
    coalesce(dst_audit.until, at + interval '8766 hours'), at + interval '876600 hours'));
begin
  return query
  with zones as materialized (
    select z.timezone, c.changes_at
    from (
      select distinct j.timezone from rowcron.job as j where j.schedule is not null and j.enabled
    ) as z
    cross join lateral unnest(rowcron._transitions(z.timezone, at, upto)) as c (changes_at)
  )
  select
    j.name, j.owner, j.timezone, z.changes_at, e.change, e.first_local, e.last_local, e.occurrences,
    case when e.effect = 'doubled' and not (p.first and p.second) then 'once' else e.effect end,
    case when p.first then e.runs_at else e.again_at end,
    case
      when e.effect = 'doubled' and not p.second then 'only the first pass lies in the window and max_runs'
      when e.effect = 'doubled' and not p.first then 'only the second pass lies in the window'
      else e.detail
    end
  from zones as z
  join rowcron.job as j on j.timezone = z.timezone and j.enabled
  join rowcron.agenda as a on a.job_id = j.id and (a.parsed).form in ('cron', 'every', 'at')
  cross join lateral rowcron._dst_effects(
    a.parsed, j.schedule, j.timezone, coalesce(j.starts_at, j.created_at), j.on_gap, j.on_fold,
    z.changes_at) as e
  cross join lateral (
    select
      coalesce(bool_or(i.fits) filter (where i.pass = 1), false) as first,
      coalesce(bool_or(i.fits) filter (where i.pass = 2), false) as second
    from (
      select
        n.pass,
        (j.starts_at is null or n.at >= j.starts_at)
        and (j.ends_at is null or n.at < j.ends_at)
        and (j.max_runs is null or rowcron._leaves_room(j, a, n.at)) as fits
      from (values (1, coalesce(e.runs_at, z.changes_at)), (2, e.again_at)) as n (pass, at)
      where n.at is not null
    ) as i
  ) as p
  where a.next_run_at is not null and (p.first or p.second)
  order by z.changes_at, j.name, j.owner;
end
$$;
comment on function rowcron.dst_audit(timestamptz)
  is 'What changes of time do to the jobs that you can see, from now until an instant (a year, if '
    'null; a century at most): which local times of a schedule fall into a gap (skipped or moved) '
    'or a fold (doubled, or run once), and by which rule.';

reset role;
