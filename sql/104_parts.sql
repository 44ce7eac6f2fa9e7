-- How many occurrences fall into each part of a stretch of time: what a picture of many jobs and a
-- map of the load ask for. Nothing is walked through that is dense: of a day of a job each second
-- a part's count is the difference of two sums over the masks, as in chapter 027. Where a zone's
-- offset changes, the stretches before and after it are counted on their own.

set role rowcron_owner;

create or replace function rowcron._count_local_parts(
  parsed rowcron._parsed, origin timestamptz, step_us bigint, lower timestamptz, upper timestamptz,
  behind interval
) returns table (part integer, n bigint)
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
rows 100
as $$
declare
  -- seconds since the second in which the first part begins; instants of cron are whole seconds
  base constant bigint := floor(extract(epoch from origin));
  rest constant bigint := (extract(epoch from origin) - base) * 1000000;
  first constant bigint := ceil(extract(epoch from lower)) - base;
  last constant bigint := ceil(extract(epoch from upper)) - base;  -- not counted itself
  first_day constant date := (lower at time zone interval '0' + behind)::date;
  days constant integer := (upper at time zone interval '0' + behind)::date - first_day + 1;
  -- what leads from those seconds to seconds of the local days
  shift constant bigint := base + extract(epoch from behind)::bigint - (first_day - date '1970-01-01')
    * 86400::bigint;
  a_day constant bigint := rowcron._runs_until(parsed, 86399);
  on_hours constant integer[] := array(
    select h from generate_series(0, 23) as h where parsed.hours >> h & 1 = 1
  );
  on_minutes constant integer[] := array(
    select m from generate_series(0, 59) as m where parsed.minutes >> m & 1 = 1
  );
  on_seconds constant integer[] := array(
    select s from generate_series(0, 59) as s where parsed.seconds >> s & 1 = 1
  );
  on_days integer[] := '{}';
  passed bigint[] := '{0}';
  runs bigint := 0;
begin
  if last <= first then
    return;
  end if;
  for d in 0..days - 1 loop
    if rowcron._count_days(parsed, first_day + d, first_day + d) > 0 then
      on_days := on_days || d;
      runs := runs + a_day;
    end if;
    passed := passed || runs;
  end loop;
  if runs <= 2 * ((last - first) * 1000000 / step_us + 1) then
    return query
    select x.part, count(*)
    from (
      select ((s.at * 1000000 - rest) / step_us)::integer as part
      from unnest(on_days) as d (d)
      cross join unnest(on_hours) as h (h)
      cross join unnest(on_minutes) as m (m)
      cross join unnest(on_seconds) as c (c)
      cross join lateral (select d.d * 86400::bigint + h.h * 3600 + m.m * 60 + c.c - shift) as s (at)
      where s.at >= first and s.at < last
    ) as x
    group by x.part;
  else
    return query
    select x.part, x.n
    from (
      select p.part, lead(s.runs) over (order by p.part) - s.runs as n
      from generate_series(
        ((first * 1000000 - rest) / step_us)::integer,
        (((last - 1) * 1000000 - rest) / step_us)::integer + 1
      ) as p (part)
      cross join lateral (
        select shift + least(greatest(
          (rest + p.part * step_us + 999999) / 1000000, first), last)
      ) as l (at)
      cross join lateral (
        select passed[(l.at / 86400)::integer + 1] + case
          when (l.at / 86400)::integer = any (on_days)
          then rowcron._runs_until(parsed, (l.at % 86400)::integer - 1) else 0 end
      ) as s (runs)
    ) as x
    where x.n > 0;
  end if;
end
$$;
comment on function rowcron._count_local_parts(
  rowcron._parsed, timestamptz, bigint, timestamptz, timestamptz, interval
)
  is 'Occurrences of a cron schedule in [lower, upper) by the part, so many microseconds long and '
    'counted from the origin, into which they fall; the zone''s offset is the same throughout.';

create or replace function rowcron._count_parts(
  parsed rowcron._parsed, origin timestamptz, step_us bigint, lower timestamptz, upper timestamptz,
  timezone text, anchor timestamptz, on_gap text, on_fold text
) returns table (part integer, n bigint)
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
rows 100
as $$
declare
  run_gap constant boolean := coalesce(on_gap = 'run', not parsed.elapsed);
  once constant boolean := coalesce(on_fold = 'once', not parsed.elapsed);
  at timestamptz := lower;
  until timestamptz;
  change timestamptz;
  changes timestamptz[];
  behind interval;
  next_behind interval;
  every_us bigint;
  anchor_us bigint;
  first bigint;
  last bigint;
begin
  if parsed.form is null or parsed.form = 'reboot' or lower >= upper then
    return;
  elsif parsed.form = 'every' and parsed.elapsed then
    every_us := extract(epoch from parsed.step) * 1000000;
    anchor_us := extract(epoch from anchor - origin) * 1000000;
    lower := greatest(lower, anchor);
    first := extract(epoch from lower - origin) * 1000000;
    last := extract(epoch from upper - origin) * 1000000;
    if first >= last then
      return;
    elsif (last - first) / every_us <= 2 * ((last - first) / step_us + 1) then
      return query
      select x.part, count(*)
      from (
        select ((anchor_us + k * every_us) / step_us)::integer as part
        from generate_series(
          (first - anchor_us + every_us - 1) / every_us, (last - 1 - anchor_us) / every_us
        ) as k
      ) as x
      group by x.part;
    else
      return query
      select
        p, (least((p + 1) * step_us, last) - anchor_us + every_us - 1) / every_us
        - (greatest(p * step_us, first) - anchor_us + every_us - 1) / every_us
      from generate_series((first / step_us)::integer, ((last - 1) / step_us)::integer) as p;
    end if;
    return;
  elsif parsed.form <> 'cron' then
    at := rowcron._next(
      parsed, lower - interval '1 microsecond', timezone, anchor, on_gap, on_fold);
    while at < upper loop
      part := (extract(epoch from at - origin) * 1000000)::bigint / step_us;
      n := 1;
      return next;
      at := rowcron._next(parsed, at, timezone, anchor, on_gap, on_fold);
    end loop;
    return;
  end if;
  changes := rowcron._transitions(timezone, lower - interval '24:00:00', upper);
  -- as it was before a change at lower itself, whose gap may move an occurrence there
  behind := ((lower - interval '1 microsecond') at time zone timezone)
    - ((lower - interval '1 microsecond') at time zone 'UTC');
  if changes[1] < lower and once then
    -- the second of a doubled hour: all of it has been
    change := changes[1] - interval '1 second';
    at := greatest(lower, changes[1]
      + ((change at time zone timezone) - (change at time zone 'UTC') - behind));
  end if;
  foreach change in array changes || upper loop
    continue when change < lower;
    until := least(change, upper);
    return query
    select c.part, c.n
    from rowcron._count_local_parts(parsed, origin, step_us, at, until, behind) as c;
    exit when change >= upper;
    next_behind := (change at time zone timezone) - (change at time zone 'UTC');
    if run_gap and next_behind > behind
      and rowcron._count_local(
        parsed, (change at time zone 'UTC') + behind - interval '1 second',
        (change at time zone 'UTC') + next_behind - interval '1 second') > 0
      and rowcron._count_local(
        parsed, (change at time zone 'UTC') + next_behind - interval '1 second',
        (change at time zone 'UTC') + next_behind) = 0
    then
      part := (extract(epoch from change - origin) * 1000000)::bigint / step_us;
      n := 1;
      return next;
    end if;
    at := change + case when once then greatest(behind - next_behind, '0') else '0' end;
    behind := next_behind;
  end loop;
end
$$;
comment on function rowcron._count_parts(
  rowcron._parsed, timestamptz, bigint, timestamptz, timestamptz, text, timestamptz, text, text
)
  is 'Occurrences of a schedule in [lower, upper) by the part, so many microseconds long and '
    'counted from the origin, into which they fall. A part may come in two rows; one without any '
    'may be left out.';

reset role;
