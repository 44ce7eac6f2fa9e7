-- 029: words for chapter 022: lists, intervals, times of day.
--
-- A step is called "every 5 minutes" only where it is even over the end of the hour; hours in a
-- row are "from 09:00 to 17:45", which are the first and the last run of the day. Whatever fits
-- none of the patterns is listed value by value, in order.

set role rowcron_owner;

create or replace function rowcron._english_list(parts text[]) returns text
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select case
    when cardinality(parts) < 2 then parts[1]
    else array_to_string(parts[1:cardinality(parts) - 1], ', ') || ' and '
      || parts[cardinality(parts)]
  end
$$;

comment on function rowcron._english_list(text[]) is 'Words joined as in English: a, b and c.';

create or replace function rowcron._english_values(mask bigint, names text[]) returns text[]
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  parts text[] := array[]::text[];
  n integer := 0;
  last integer;
begin
  while n < 63 loop
    if mask >> n & 1 = 1 then
      last := n;
      while mask >> (last + 1) & 1 = 1 loop
        last := last + 1;
      end loop;
      if last - n >= 2 then
        parts := parts || (
          coalesce(names[n + 1], n::text) || ' to ' || coalesce(names[last + 1], last::text)
        );
      else
        parts := parts || coalesce(names[n + 1], n::text);
        if last > n then
          parts := parts || coalesce(names[last + 1], last::text);
        end if;
      end if;
      n := last;
    end if;
    n := n + 1;
  end loop;
  return parts;
end;
$$;

comment on function rowcron._english_values(bigint, text[]) is
  'The values of a mask, three and more in a row as "a to b"; names[n + 1] is what n is called.';

create or replace function rowcron._even_step(mask bigint, span integer) returns integer
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select step
  from generate_series(1, span - 1) as step
  where span % step = 0
    and mask = (
      select sum(1::bigint << n) from generate_series(0, span - 1, step) as n
    )
$$;

comment on function rowcron._even_step(bigint, integer) is
  'The step with which a mask fills its field evenly from 0, over the end of the field too; else null.';

create or replace function rowcron._explain_interval(step interval) returns text
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select string_agg(
    trim_scale(amount::numeric) || ' ' || unit || case when amount = 1 then '' else 's' end,
    ' ' order by place
  )
  from (values
    (1, date_part('year', step), 'year'),
    (2, date_part('month', step), 'month'),
    (3, date_part('day', step), 'day'),
    (4, date_part('hour', step), 'hour'),
    (5, date_part('minute', step), 'minute'),
    (6, date_part('second', step), 'second')
  ) as parts (place, amount, unit)
  where amount <> 0
$$;

comment on function rowcron._explain_interval(interval) is
  'An interval in words, whatever IntervalStyle is.';

create or replace function rowcron._explain_times(parsed rowcron._parsed) returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  second constant integer := parsed.first_second % 60;
  minute constant integer := parsed.first_second / 60 % 60;
  first_hour constant integer := parsed.first_second / 3600;
  last_hour constant integer := 64 - strpos(parsed.hours::bigint::bit(64)::text, '1');
  one_second constant boolean := parsed.seconds & (parsed.seconds - 1) = 0;
  one_minute constant boolean := parsed.minutes & (parsed.minutes - 1) = 0;
  one_hour constant boolean := parsed.hours & (parsed.hours - 1) = 0;
  hours_in_a_row constant boolean := parsed.hours = ((2 << last_hour) - 1) & (-1 << first_hour);
  second_step constant integer := rowcron._even_step(parsed.seconds, 60);
  minute_step constant integer := rowcron._even_step(parsed.minutes, 60);
  hour_step constant integer := rowcron._even_step(parsed.hours, 24);
  last_second constant integer := 60 - second_step;
  at_seconds text;
  of_minutes text;
  of_hours text;
  from_to text;
begin
  -- few enough to be listed
  if one_second
    and bit_count(parsed.hours::bit(32)) * bit_count(parsed.minutes::bit(64)) <= 4
  then
    return 'at ' || rowcron._english_list(array(
      select to_char(
        make_time(h, m, second), case second when 0 then 'HH24:MI' else 'HH24:MI:SS' end
      )
      from generate_series(0, 23) as h, generate_series(0, 59) as m
      where parsed.hours >> h & 1 = 1 and parsed.minutes >> m & 1 = 1
      order by h, m
    ));
  end if;
  at_seconds := case
    when second_step = 1 then 'every second'
    when second_step is not null then 'every ' || second_step || ' seconds'
    when parsed.seconds <> 1 then 'at second' || case when one_second then ' ' else 's ' end
      || rowcron._english_list(rowcron._english_values(parsed.seconds, null))
  end;
  of_minutes := 'minute' || case when one_minute then ' ' else 's ' end
    || rowcron._english_list(rowcron._english_values(parsed.minutes, null));
  of_hours := case
    when hour_step = 1 then 'every hour'
    else 'hour' || case when one_hour then ' ' else 's ' end
      || rowcron._english_list(rowcron._english_values(parsed.hours, null))
  end;
  from_to := case
    when hour_step = 1 then ''
    when hours_in_a_row then ' from ' || to_char(make_time(first_hour, minute, 0), 'HH24:MI')
      || ' to ' || to_char(make_time(last_hour, case
        when minute_step is null then minute else 60 - minute_step
      end, coalesce(last_second, 0)), 'HH24:MI' || case when last_second > 0 then ':SS' else '' end)
    when minute_step is not null then ' in ' || of_hours
  end;
  return case
    when second_step is not null and minute_step = 1 then at_seconds || from_to
    when second_step is not null then at_seconds || ' of ' || of_minutes || ' of ' || of_hours
    when minute_step is not null
      then 'every ' || case minute_step when 1 then 'minute' else minute_step || ' minutes' end
        || from_to || coalesce(' ' || at_seconds, '')
    when one_minute and one_second and (hours_in_a_row or hour_step is not null)
      then 'every ' || case when hour_step > 1 then hour_step || ' hours' else 'hour' end || case
        when hours_in_a_row and hour_step is null then from_to
        when minute > 0 or hour_step > 1 and second > 0 then ' at minute ' || minute
        else ''
      end || coalesce(' ' || at_seconds, '')
    else concat_ws(' of ', at_seconds, case when at_seconds is null then 'at ' else '' end
      || of_minutes, of_hours)
  end;
end;
$$;

comment on function rowcron._explain_times(rowcron._parsed) is
  'The times of day of a cron schedule, in English.';

reset role;
