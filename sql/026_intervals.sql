-- 026: instants of schedules that are not cron: @every, @after, @at, @reboot.
--
-- Occurrence n of `@every` is anchor + n intervals, so that nothing adds up over years: n is
-- computed, not counted. Months and days go by the clock of the job's zone (a job each month from
-- 31 January runs on 28 February and on 31 March), hours and less by elapsed time. The first
-- occurrence is the anchor.
--
-- A day of the calendar can fall into a gap or a fold: run and once, unless the job's policies
-- differ.

set role rowcron_owner;

create or replace function rowcron._every(
  parsed rowcron._parsed,
  n bigint,
  timezone text,
  anchor timestamptz,
  on_gap text,
  on_fold text
) returns timestamptz[]
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
declare
  months constant integer := 12 * date_part('year', parsed.step) + date_part('month', parsed.step);
  days constant integer := date_part('day', parsed.step);
  span constant interval := make_interval(
    months => (months * n)::integer, days => (days * n)::integer
  );
  elapsed constant interval := n * (parsed.step - make_interval(months => months, days => days));
begin
  if n = 0 then
    return array[anchor];
  end if;
  return array(
    select instant + elapsed
    from unnest(rowcron._instants(
      (anchor at time zone timezone) + span, timezone,
      coalesce(on_gap = 'skip', false), coalesce(on_fold = 'twice', false)
    )) as instant
    order by instant
  );
end;
$$;

comment on function rowcron._every(
  rowcron._parsed, bigint, text, timestamptz, text, text
) is
  'Instants of the n-th occurrence of @every: one, or by policy none in a gap, two in a fold.';

create or replace function rowcron._every_number(
  parsed rowcron._parsed, at timestamptz, anchor timestamptz
) returns bigint
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  return floor(
    extract(epoch from (at - anchor)) / (
      extract(epoch from parsed.step)
      -- an interval takes a month as 30 days and 12 as 365.25; on average it is 30.436875
      - extract(epoch from make_interval(
        months => (12 * date_part('year', parsed.step) + date_part('month', parsed.step))::integer
      ))
      + 2629746 * (12 * date_part('year', parsed.step) + date_part('month', parsed.step))::numeric
    )
  );
end;
$$;

comment on function rowcron._every_number(rowcron._parsed, timestamptz, timestamptz) is
  'How often the interval of @every goes into the time since its anchor: exact where it has no months
and days, otherwise at most two off.';

create or replace function rowcron._next_uncron(
  parsed rowcron._parsed,
  after timestamptz,
  timezone text,
  anchor timestamptz,
  on_gap text,
  on_fold text
) returns timestamptz
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  n bigint;
  instant timestamptz;
begin
  if after is null or not isfinite(after) then
    return null;
  elsif parsed.form = 'at' then
    return (
      select min(instants.instant)
      from unnest(case
        when parsed.at_instant is not null then array[parsed.at_instant]
        else rowcron._instants(
          parsed.at_local, timezone,
          coalesce(on_gap = 'skip', false), false  -- once, whatever on_fold says
        )
      end) as instants (instant)
      where instants.instant > after
    );
  elsif parsed.form = 'after' then
    if parsed.elapsed then
      return after + parsed.step;  -- by the clock a doubled hour would answer with its first pass
    end if;
    return (rowcron._every(parsed, 1, timezone, after, 'run', 'once'))[1];
  elsif parsed.form = 'every' then
    anchor := coalesce(anchor, after);
    if after < anchor then
      return anchor;
    end if;
    n := rowcron._every_number(parsed, after, anchor);
    if parsed.elapsed then
      return anchor + interval '1 microsecond'
        * ((n + 1) * (extract(epoch from parsed.step) * 1000000)::bigint);
    end if;
    n := greatest(n - 2, 0);
    loop
      foreach instant in array rowcron._every(parsed, n, timezone, anchor, on_gap, on_fold) loop
        if instant > after then
          return instant;
        end if;
      end loop;
      n := n + 1;
    end loop;
  end if;
  return null;
end;
$$;

comment on function rowcron._next_uncron(
  rowcron._parsed, timestamptz, text, timestamptz, text, text
) is
  'The next instant of @every, @after or @at strictly after an instant; null when there is none, and
for @reboot. Without an anchor @every counts from that instant.';

create or replace function rowcron._previous_uncron(
  parsed rowcron._parsed,
  upto timestamptz,
  timezone text,
  anchor timestamptz,
  on_gap text,
  on_fold text
) returns timestamptz
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  n bigint;
  instant timestamptz;
begin
  if parsed.form = 'at' then
    return (
      select max(instants.instant)
      from unnest(case
        when parsed.at_instant is not null then array[parsed.at_instant]
        else rowcron._instants(
          parsed.at_local, timezone,
          coalesce(on_gap = 'skip', false), false  -- once, whatever on_fold says
        )
      end) as instants (instant)
      where instants.instant <= upto
    );
  elsif parsed.form = 'after' then
    instant := rowcron._next_uncron(parsed, anchor, timezone, null, on_gap, on_fold);
    return case when instant <= upto then instant end;
  elsif parsed.form = 'every' and anchor <= upto then
    n := rowcron._every_number(parsed, upto, anchor);
    if parsed.elapsed then
      return anchor + interval '1 microsecond'
        * (n * (extract(epoch from parsed.step) * 1000000)::bigint);
    end if;
    n := n + 2;
    loop
      instant := (
        select max(instants.instant)
        from unnest(rowcron._every(parsed, n, timezone, anchor, on_gap, on_fold))
          as instants (instant)
        where instants.instant <= upto
      );
      exit when instant is not null;
      n := n - 1;
    end loop;
    return instant;
  end if;
  return null;
end;
$$;

comment on function rowcron._previous_uncron(
  rowcron._parsed, timestamptz, text, timestamptz, text, text
) is
  'The last instant of @every, @after or @at up to an instant; null when there is none. For @after the
anchor is the end of the last run.';

reset role;
