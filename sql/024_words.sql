-- 024: schedules that begin with @.
--
-- Nicknames (`@daily`) are the five fields that they stand for, in every respect. `@every` repeats
-- an interval from the job's start: months and days by the job's calendar, hours and less by
-- elapsed time; it never drifts, because occurrence n is start + n intervals. `@after` counts from
-- the end of the last run. `@at` is once: local to the job's zone, or absolute when it ends in Z
-- or an offset. `@reboot` is each start of the server; the calendar knows no instant for it.
--
-- An interval without a unit is refused: 90 of what? So is anything that runs backwards or is
-- shorter than a millisecond. Only ISO dates are read, because others depend on the session's
-- DateStyle.
--
-- What is given is tried in a subtransaction, which a parallel worker cannot begin: parallel
-- restricted, and whatever parses or asks for a zone with it.

set role rowcron_owner;

create or replace function rowcron._parse_interval(schedule text, place integer) returns interval
language plpgsql
immutable
parallel restricted
set search_path = pg_catalog, pg_temp
as $$
declare
  word constant text := lower(substring(schedule from '@[A-Za-z]+') collate "C");
  spec constant text := btrim(substr(schedule, place), E' \t\r\n');
  example constant text := case word
    when '@every' then 'for example: @every 90 seconds'
    else 'for example: @after 5 minutes'
  end;
  fact constant text := word || ' takes an interval, from 1 millisecond to 100 years';
  step interval;
begin
  if spec = '' then
    perform rowcron._refuse_schedule(schedule, greatest(length(schedule), 1),
      format('%s names no interval', word), fact, example);
  elsif spec ~ E'^\\d+(\\.\\d+)?$' then
    perform rowcron._refuse_schedule(schedule, place, format('interval "%s" has no unit', spec),
      fact,
      case when rowcron._parses(format('@every %s seconds', spec))
        then format('for example: %s %s seconds', word, spec) else example end);
  elsif spec ~ '-' or spec collate "C" ~* 'ago' then
    perform rowcron._refuse_schedule(schedule, place,
      format('interval "%s" runs backwards', spec), fact, example);
  elsif spec collate "C" !~* E'^(\\d|\\.\\d|P)[0-9A-Z:. ]*$' or spec collate "C" ~* E'[A-Z ]\\d+(\\.\\d+)?$' and spec !~ ':' then
    perform rowcron._refuse_schedule(schedule, place,
      format('interval "%s" is not understood', spec), fact, example);
  end if;
  begin
    step := spec::interval;
  exception
    when data_exception then
      perform rowcron._refuse_schedule(schedule, place,
        format('interval "%s" is not understood', spec), fact, example);
  end;
  if step < interval '1 millisecond' or step > interval '100 years' then
    perform rowcron._refuse_schedule(schedule, place,
      format('interval "%s" is too %s', spec,
        case when step < interval '1 s' then 'short' else 'long' end),
      fact, example);
  end if;
  return step;
end;
$$;

comment on function rowcron._parse_interval(text, integer) is
  'The interval of an @every or @after that begins at that character.
Errors: RCSCH.';

create or replace function rowcron._parse_instant(schedule text, place integer)
returns rowcron._parsed
language plpgsql
immutable
parallel restricted
set search_path = pg_catalog, pg_temp
as $$
declare
  spec constant text := btrim(substr(schedule, place), E' \t\r\n');
  part constant text[] := regexp_match(spec,
    E'^(\\d{4})-(\\d\\d?)-(\\d\\d?)(?:[Tt ] *([01]?\\d|2[0-3]):([0-5]\\d)(?::([0-5]\\d(?:\\.\\d{1,6})?))?'
    || E' *(?:(Z|z)|([+-])(0\\d|1[0-5]):?([0-5]\\d)?)?)?$');
  example constant text := 'for example: @at 2026-12-24 18:00';
  fact constant text :=
    '@at takes a date and a time, in the time zone of the job unless it ends in one';
  parsed rowcron._parsed;
begin
  if part is null then
    perform rowcron._refuse_schedule(schedule, least(place, greatest(length(schedule), 1)),
      case
        when spec = '' then '@at names no instant'
        else format('instant "%s" is not understood', spec)
      end,
      fact, example);
  end if;
  parsed.form := 'at';
  begin
    parsed.at_local := make_timestamp(
      part[1]::integer, part[2]::integer, part[3]::integer,
      coalesce(part[4], '0')::integer, coalesce(part[5], '0')::integer,
      coalesce(part[6], '0')::float8
    );
  exception
    when data_exception then
      perform rowcron._refuse_schedule(schedule, place,
        format('instant "%s" does not exist', spec), fact, example);
  end;
  if part[7] is not null or part[8] is not null then
    parsed.at_instant := (parsed.at_local at time zone interval '0') - coalesce(
      make_interval(
        hours => (part[8] || part[9])::integer,
        mins => (part[8] || coalesce(part[10], '0'))::integer
      ),
      interval '0'
    );
  end if;
  return parsed;
end;
$$;

comment on function rowcron._parse_instant(text, integer) is
  'The schedule @at whose instant begins at that character.
Errors: RCSCH.';

create or replace function rowcron._parse_word(schedule text, seed text) returns rowcron._parsed
language plpgsql
immutable
parallel restricted
set search_path = pg_catalog, pg_temp
as $$
declare
  place constant integer := strpos(schedule, '@');
  word constant text := lower(substring(schedule from E'@[^ \\t\\r\\n]*') collate "C");
  beyond constant integer := place + length(word)
    + length(substring(substr(schedule, place + length(word)) from E'^[ \\t\\r\\n]*'));
  same_as constant text := case word
    when '@yearly' then '0 0 1 1 *'
    when '@annually' then '0 0 1 1 *'
    when '@monthly' then '0 0 1 * *'
    when '@weekly' then '0 0 * * 0'
    when '@daily' then '0 0 * * *'
    when '@midnight' then '0 0 * * *'
    when '@hourly' then '0 * * * *'
  end;
  parsed rowcron._parsed;
begin
  if word in ('@every', '@after') then
    parsed.form := substr(word, 2);
    parsed.step := rowcron._parse_interval(schedule, beyond);
    parsed.elapsed := date_part('day', parsed.step) = 0
      and date_part('month', parsed.step) = 0 and date_part('year', parsed.step) = 0;
  elsif word = '@at' then
    parsed := rowcron._parse_instant(schedule, beyond);
  elsif same_as is null and word <> '@reboot' then
    perform rowcron._refuse_schedule(schedule, place, format('word "%s" is not known', word),
      'the words are @yearly @monthly @weekly @daily @hourly @reboot @every @after @at',
      'for example: @daily, or 0 0 * * * (at 00:00 every day)');
  elsif beyond <= length(schedule) then
    perform rowcron._refuse_schedule(schedule, beyond, format('%s is followed by "%s"', word,
      btrim(substr(schedule, beyond), E' \t\r\n')), word || ' stands alone', 'write: ' || word);
  elsif same_as is not null then
    parsed := rowcron._parse(same_as, seed);
  else
    parsed.form := 'reboot';
  end if;
  return parsed;
end;
$$;

comment on function rowcron._parse_word(text, text) is
  'A schedule that begins with @: a nickname, @reboot, @every, @after or @at.
Errors: RCSCH.';

reset role;
