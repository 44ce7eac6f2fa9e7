-- 021: the calendar: the next instant of a schedule.
--
-- A schedule names local times; a time zone says which instants these are. Where a local time
-- exists once there is nothing to decide. In a gap (the clock is put forward) a local time exists
-- never, in a fold (put back) twice, and two policies decide:
--
--   on_gap   run: at the first instant after the gap    skip: not at all
--   on_fold  once: at the first of the two              twice: at both
--
-- A five-field schedule with fixed minute and hour has run and once, as in Debian cron. What
-- follows elapsed time (minute or hour begins with `*`, or six fields) has skip and twice: it runs
-- whenever the clock shows a time that it names. Occurrences are instants, so several times that
-- fall into one gap are one run at its end, the same one as a time that names the gap's end
-- itself.
--
-- _next answers from the masks alone when no change of time is near: it computes in local seconds,
-- then checks that the zone agrees. Only if that check fails _next_across walks from change to
-- change. Since 1970 no zone has changed twice within 6.9 days, no fold is longer than 7 hours and
-- no gap longer than a day (tzdata 2026a); from there come the 6 days, 24 hours and 2 days below.
-- Intervals of a day are written as 24 hours: `+ interval '1 day'` would look at the session's
-- zone.

set role rowcron_owner;

create or replace function rowcron._month_days(
  parsed rowcron._parsed, year integer, month integer
) returns bigint
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  last constant integer := case month
    when 2 then 28 + (year % 4 = 0 and (year % 100 <> 0 or year % 400 = 0))::integer
    else 30 + (5546 >> month & 1)
  end;
  -- 2 January 1600 was a Sunday, and 400 years are whole weeks
  first_weekday constant integer := (make_date(year, month, 1) - date '1600-01-02') % 7;
  within constant bigint := (1::bigint << (last + 1)) - 2;
  days bigint := parsed.days;
  weekdays bigint;
  week bigint;
begin
  if parsed.days_from_end <> 0 then
    for n in 0 .. last - 1 loop
      days := days | ((parsed.days_from_end >> n & 1) << (last - n));
    end loop;
  end if;
  if parsed.days_near <> 0 then
    for n in 0 .. last loop
      if parsed.days_near >> n & 1 = 1 then
        days := days | (1::bigint << (case
          when n = 0 then last - greatest((first_weekday + last + 6) % 7 - 5, 0)
            - 2 * ((first_weekday + last - 1) % 7 = 0)::integer
          when (first_weekday + n - 1) % 7 = 6 then n - 1 + 3 * (n = 1)::integer
          when (first_weekday + n - 1) % 7 = 0 then n + 1 - 3 * (n = last)::integer
          else n
        end));
      end if;
    end loop;
  end if;
  week := parsed.weekdays;
  weekdays := ((((week << 7 | week) >> first_weekday) & 127) * 270549121) << 1;
  if parsed.nth_weekdays <> 0 then
    for n in 0 .. 5 loop
      week := parsed.nth_weekdays >> (7 * n) & 127;
      if n < 5 then
        weekdays := weekdays | ((((week << 7 | week) >> first_weekday) & 127) << (7 * n + 1));
      else
        weekdays := weekdays
          | ((((week << 7 | week) >> ((first_weekday + last) % 7)) & 127) << (last - 6));
      end if;
    end loop;
  end if;
  return within & (case when parsed.either_day then days | weekdays else days & weekdays end);
end;
$$;

comment on function rowcron._month_days(rowcron._parsed, integer, integer) is
  'Days of a month on which a cron schedule may run: bit d is day d. Its months are not looked at.';

create or replace function rowcron._next_day(parsed rowcron._parsed, day date) returns date
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  year integer := date_part('year', day);
  month integer := date_part('month', day);
  first integer := date_part('day', day);
  -- days that may match at all: spares 30 of 40 Februaries to a 29 February
  candidates constant bigint := case
    when parsed.either_day or parsed.days_from_end <> 0 or parsed.days_near <> 0 then 4294967294
    else parsed.days
  end;
  last_year constant integer := year + 45;
  rest bigint;
begin
  while year <= last_year loop
    if parsed.months >> month & 1 = 1
      and (month <> 2 or candidates & 536870910 <> 0 or year % 4 = 0)
    then
      rest := rowcron._month_days(parsed, year, month) & (-1::bigint << first);
      if rest <> 0 then
        return make_date(year, month, bit_count(((rest & -rest) - 1)::bit(64))::integer);
      end if;
    end if;
    first := 1;
    rest := parsed.months & (-1::bigint << (month + 1));
    if rest = 0 then
      year := year + 1;
      rest := parsed.months;
    end if;
    month := bit_count(((rest & -rest) - 1)::bit(64));
  end loop;
  return null;
end;
$$;

comment on function rowcron._next_day(rowcron._parsed, date) is
  'The first day, that one included, on which a cron schedule may run; null when there is none in 45
years, which means never: weekdays repeat after 40 at the latest.';

create or replace function rowcron._next(
  parsed rowcron._parsed,
  after timestamptz,
  timezone text,
  anchor timestamptz default null,
  on_gap text default null,
  on_fold text default null
) returns timestamptz
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
declare
  utc constant boolean := timezone = 'UTC';
  before_s bigint;
  local_s bigint;
  day integer;
  s integer;
  hour integer;
  rest bigint;
  week integer;
  found_day date;
  result_s bigint;
  result timestamptz;
  once boolean;
begin
  if parsed.form <> 'cron' then
    return rowcron._next_uncron(parsed, after, timezone, anchor, on_gap, on_fold);
  elsif not isfinite(after) or after is null then
    return null;
  end if;
  before_s := floor(date_part('epoch', after));
  local_s := case when utc then before_s
    else floor(date_part('epoch', after at time zone timezone)) end;
  day := floor((local_s + 1) / 86400.0::float8);
  s := local_s + 1 - day * 86400::bigint;
  -- the first time from s on: s becomes the second of the day, or -1 where today has no more
  hour := s / 3600;
  if parsed.hours >> hour & 1 = 1 then
    rest := case when parsed.minutes >> (s / 60 % 60) & 1 = 1
      then parsed.seconds >> (s % 60) else 0 end;
    if rest <> 0 then
      s := s + bit_count(((rest & -rest) - 1)::bit(64))::integer;
      hour := -1;
    else
      rest := parsed.minutes >> (s / 60 % 60 + 1);
      if rest <> 0 then
        s := (s / 60 + 1 + bit_count(((rest & -rest) - 1)::bit(64))::integer) * 60
          + parsed.first_second % 60;
        hour := -1;
      end if;
    end if;
  end if;
  if hour >= 0 then
    rest := parsed.hours >> (hour + 1);
    s := case when rest <> 0
      then (hour + 1 + bit_count(((rest & -rest) - 1)::bit(64))::integer) * 3600
        + parsed.first_second % 3600
      else -1
    end;
  end if;
  -- the first day from today on, or from tomorrow
  if s < 0 then
    s := parsed.first_second;
    day := day + 1;
  end if;
  if parsed.day_rule = 1 then
    week := (parsed.weekdays << 7 | parsed.weekdays) >> (day + 700004) % 7;
    if week & 1 = 0 then
      s := parsed.first_second;
      day := day + bit_count(((week & -week) - 1)::bit(32))::integer;
    end if;
  elsif parsed.day_rule = 2 then
    found_day := rowcron._next_day(parsed, date '1970-01-01' + day);
    if found_day is null then
      return null;
    elsif found_day > date '1970-01-01' + day then
      s := parsed.first_second;
      day := found_day - date '1970-01-01';
    end if;
  end if;
  result_s := day * 86400::bigint + s;
  if utc then
    return to_timestamp(result_s);
  end if;
  once := coalesce(on_fold = 'once', not parsed.elapsed);
  if result_s - local_s < 518400 then
    result := to_timestamp(result_s - local_s + before_s);
    if date_part('epoch', result at time zone timezone) = result_s
      and (
        not once
        or date_part('epoch', (result - interval '24:00:00') at time zone timezone)
        = result_s - 86400
      )
    then
      return result;
    end if;
  else
    result := (to_timestamp(result_s) at time zone 'UTC') at time zone timezone;
    if date_part('epoch', result at time zone timezone) = result_s
      and date_part('epoch', (result - interval '24:00:00') at time zone timezone)
        = result_s - 86400
      and (
        once
        or floor(date_part('epoch', (after + interval '24:00:00') at time zone timezone))
        = local_s + 86400
      )
    then
      return result;
    end if;
  end if;
  return rowcron._next_across(
    parsed, after, timezone, coalesce(on_gap = 'run', not parsed.elapsed), once
  );
end;
$$;

comment on function rowcron._next(
  rowcron._parsed, timestamptz, text, timestamptz, text, text
) is
  'The next instant of a schedule strictly after an instant; null when there is none.
anchor is where @every counts from; for @after pass the end of the last run as after. on_gap and on_fold
null mean by the form of the schedule.';

reset role;
