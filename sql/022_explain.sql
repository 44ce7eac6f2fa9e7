-- 022: a schedule in English.
--
-- The sentence is made from the masks, not from the text, so that it says what will happen: two
-- schedules that mean the same are explained alike, and `*/7` is not called "every 7 minutes",
-- because from minute 56 to minute 0 there are four. First the times of a day, then the days, then
-- the zone.
--
-- Where times of day that are told follow elapsed time, because there are six fields or the minute
-- or hour begins with `*`, the sentence says what that means when the clock changes, since another
-- line that names the same times would behave otherwise.

set role rowcron_owner;

create or replace function rowcron._explain_days(parsed rowcron._parsed) returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  weekday_names constant text[] :=
    '{Sunday,Monday,Tuesday,Wednesday,Thursday,Friday,Saturday}'::text[];
  month_names constant text[] := '{"",January,February,March,April,May,June,July,August,'
    'September,October,November,December}'::text[];
  ordinals constant text[] := (
    select array_agg(n || case
      when n in (1, 21, 31) then 'st' when n in (2, 22) then 'nd' when n in (3, 23) then 'rd'
      else 'th'
    end order by n)
    from generate_series(0, 31) as n
  );
  every_day constant boolean := parsed.days = 4294967294;
  every_weekday constant boolean := parsed.weekdays = 127;
  months constant text := case when parsed.months <> 8190 then
    rowcron._english_list(rowcron._english_values(parsed.months, month_names)) end;
  by_day text;
  by_weekday text;
  plain text;
begin
  by_day := rowcron._english_list(
    array(
      select case place when 1 then 'the ' else '' end || part
      from unnest(rowcron._english_values(parsed.days, ordinals))
        with ordinality as parts (part, place)
      order by place
    )
    || array(
      select case n
        when 0 then 'the last day'
        when 1 then 'the day before the last'
        else 'the day ' || n || ' days before the last'
      end
      from generate_series(0, 30) as n
      where parsed.days_from_end >> n & 1 = 1
    )
    || array(
      select case n
        when 0 then 'the last working day' else 'the working day nearest the ' || ordinals[n + 1]
      end
      from generate_series(0, 31) as n
      where parsed.days_near >> n & 1 = 1
    )
  );
  plain := case parsed.weekdays
    when 62 then 'weekdays'
    when 65 then 'weekends'
    else rowcron._english_list(
      (select array_agg(weekday_names[n + 1] || 's' order by (n + 6) % 7)
      from generate_series(0, 6) as n
      where parsed.weekdays >> n & 1 = 1)
    )
  end;
  by_weekday := rowcron._english_list(array_remove(array[plain], null) || array(
    select 'the ' || (array['first', 'second', 'third', 'fourth', 'fifth', 'last'])[w + 1] || ' '
      || weekday_names[n + 1]
    from generate_series(0, 5) as w, generate_series(0, 6) as n
    where parsed.nth_weekdays >> (7 * w + n) & 1 = 1
    order by w, n
  ));
  if parsed.either_day and not every_day and not every_weekday then
    return 'on ' || by_day || ' of ' || coalesce(months, 'the month') || ', and also on '
      || by_weekday || case when parsed.nth_weekdays <> 0 or months is not null
        then ' of ' || coalesce(months, 'the month') else '' end;
  elsif parsed.either_day or every_day and every_weekday then
    return case when months is null then '' else 'every day of ' || months end;
  elsif every_weekday then
    return 'on ' || by_day || ' of ' || coalesce(months, 'the month');
  elsif every_day then
    return 'on ' || by_weekday || case
      when months is not null then ' of ' || months
      when parsed.nth_weekdays <> 0 then ' of the month'
      else ''
    end;
  end if;
  return 'on ' || by_day || ' of ' || coalesce(months, 'the month') || ', but only on '
    || by_weekday || case when parsed.nth_weekdays <> 0 then ' of the month' else '' end;
end;
$$;

comment on function rowcron._explain_days(rowcron._parsed) is
  'The days of a cron schedule, in English; empty for every day.';

create or replace function rowcron._explain_change(
  parsed rowcron._parsed, on_gap text, on_fold text
) returns text
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select format(
    '; as %s it follows elapsed time: %s (without the %s it would run once)',
    case when parsed.with_seconds then 'it has seconds' else 'minute or hour begins with *' end,
    concat_ws(
      ', ',
      case when on_gap is null then 'not at all where the clock is put forward over it' end,
      case when on_fold is null then 'twice where it is put back' end
    ),
    case when parsed.with_seconds then 'seconds' else '*' end
  )
  where on_gap is null or on_fold is null
$$;

comment on function rowcron._explain_change(rowcron._parsed, text, text) is
  'What a change of time does to a schedule that follows elapsed time, as far as no policy says; else null.';

create or replace function rowcron._explain_job(
  parsed rowcron._parsed, schedule text, timezone text, on_gap text, on_fold text
) returns text
language plpgsql
immutable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  sentence text;
  days text;
  lists_times boolean;
begin
  if parsed.form = 'every' then
    sentence := 'every '
      || regexp_replace(rowcron._explain_interval(parsed.step), E'^1 (\\w+)$', E'\\1')
      || case when parsed.elapsed then '' else ', ' || timezone end;
  elsif parsed.form = 'after' then
    sentence := rowcron._explain_interval(parsed.step) || ' after the end of the last run';
  elsif parsed.form = 'at' then
    sentence := 'once, on ' || to_char(
      coalesce(parsed.at_instant at time zone interval '0', parsed.at_local),
      'FMDD FMMonth YYYY" at "HH24:MI'
    ) || case
      when date_part('second', parsed.at_local) <> 0
        then regexp_replace(to_char(parsed.at_local, ':SS.US'), E'\\.?0{1,6}$', '')
      else ''
    end || ', ' || case when parsed.at_instant is null then timezone else 'UTC' end;
  elsif parsed.form = 'reboot' then
    sentence := 'at each start of the server';
  elsif parsed.form is null then
    return 'only on demand';
  else
    sentence := rowcron._explain_times(parsed);
    days := rowcron._explain_days(parsed);
    lists_times := sentence like 'at %' and sentence not like '%every hour';
    sentence := sentence
      || case
        when days <> '' then ' ' || days
        when lists_times then ' every day'
        else ''
      end
      || ', ' || timezone
      || case
        when parsed.elapsed and timezone <> 'UTC' and (
          lists_times or parsed.with_seconds
          and btrim(schedule, E' \t\r\n') ~ E'^\\S+\\s+[^*]\\S*\\s+[^*]'
        ) then coalesce(rowcron._explain_change(parsed, on_gap, on_fold), '')
        else ''
      end;
  end if;
  return sentence || coalesce('; on_gap = ' || on_gap, '') || coalesce('; on_fold = ' || on_fold, '');
end;
$$;

comment on function rowcron._explain_job(rowcron._parsed, text, text, text, text) is
  'A parsed schedule in English, with a job''s policies for changes of time; null parsed means only on
demand. A definer that reads nothing but its arguments: whoever sees a job is told its schedule as it
stands in the agenda.';

create or replace function rowcron.explain(
  schedule text, timezone text default 'UTC', seed text default null
) returns text
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  spread constant boolean := seed is null and schedule !~ E'^\\s*@'
    and schedule collate "C" ~* E'(^|[\\s,])H([\\s,(/]|$)';
begin
  perform rowcron._check_timezone(timezone);
  return case when spread then 'for example ' else '' end
    || rowcron._explain_job(
      rowcron._parse(schedule, case when spread then 'owner.name' else seed end), schedule, timezone,
      null, null
    )
    || case when spread then '; H spreads jobs by owner and name' else '' end;
end;
$$;

comment on function rowcron.explain(text, text, text) is
  'A schedule in English, such as "at 03:00 on weekdays, Europe/Berlin".
seed as of next_run; without one a schedule with H is explained by an example.
Errors: RCSCH, RCTZN.';

reset role;
