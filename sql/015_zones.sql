-- 015: time zones: which are accepted, and when their offsets change.
--
-- A job's time zone is the name of a file of the IANA database, spelt exactly. PostgreSQL takes
-- more: POSIX specifications whose sign is reversed (`UTC+3` is west of Greenwich), abbreviations
-- that hold one offset all year (`CEST`, and `CET` too, though a file has that name), other
-- spellings. All of these are refused, with the name that was probably meant.
--
-- PostgreSQL shows no table of the instants at which a zone's offset changes, so _transitions
-- finds them by comparing offsets, 6 days apart because no two changes are nearer, and halving the
-- rest. What a local time means that exists never or twice is chapter 021's; _instants answers for
-- one.
--
-- Since version 18 PostgreSQL takes the name of a zone for an abbreviation first, if the session's
-- own zone has one of that name: in a session in `UTC+3`, `at time zone 'UTC'` is three hours off.
-- So whatever names a zone sets the session's to UTC for its own length, which costs a third of a
-- microsecond; where UTC itself is meant, `at time zone interval '0'` costs nothing.

set role rowcron_owner;

create or replace function rowcron._check_timezone(timezone text) returns void
language plpgsql
stable
parallel restricted
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
declare
  likely text[];
  city text;
begin
  if timezone in ('UTC', 'Etc/UTC', 'GMT') then
    return;
  end if;
  -- Quick: letters only and Area/City, so neither abbreviation nor POSIX. Words that are not spelt
  -- as initcap spells them go the slow way, through all files.
  if timezone = initcap(timezone collate "C")
    and timezone collate "C" ~ '^[A-Z][a-z]+(/[A-Z][A-Za-z]*([_-][A-Z][a-z]*)*)+$'
    and timezone !~ '^(Posix|Right|Systemv|Us)/'
    and timezone !~ '(Mcmurdo|Dumontdurville|Easterisland|Baja(norte|sur)|Denoronha|Comodrivadavia)$'
    and timezone !~ '[/_-](Es|Au|Of|Utc|Uct|Gmt|Act|Nsw|Lhi|In)([/_-]|$)'
  then
    begin
      perform timestamptz 'epoch' at time zone timezone;
      return;
    exception
      when invalid_parameter_value then
        null;
    end;
  end if;
  if timezone !~ '^(posix|right|SystemV)/|^(localtime|posixrules|Factory)$'
    and exists (select from pg_timezone_names as z where z.name = timezone)
    and (
      not exists (select from pg_timezone_abbrevs as a where a.abbrev = upper(timezone collate "C"))
      or timezone in ('UCT', 'Zulu')
    )
  then
    return;
  end if;
  city := lower(regexp_replace(timezone, '^.*/', '') collate "C");
  select array_agg(near.name order by near.rank, near.name) into likely
  from (
    select
      z.name,
      case
        when lower(z.name collate "C") = lower(timezone collate "C") then 1
        when lower(regexp_replace(z.name, '^.*/', '') collate "C") = replace(city, ' ', '_') then 2
        when left(lower(regexp_replace(z.name, '^.*/', '') collate "C"), 4) = left(city, 4) then 3
      end as rank
    from pg_timezone_names as z
    where z.name ~ '/' and z.name !~ '^(posix|right|Etc|SystemV)/'
  ) as near
  where near.rank is not null and length(city) > 2;
  likely := coalesce(case upper(timezone collate "C")
    when 'CET' then '{Europe/Brussels}'
    when 'MET' then '{Europe/Brussels}'
    when 'CEST' then '{Europe/Berlin,Europe/Paris}'
    when 'EET' then '{Europe/Athens}'
    when 'EEST' then '{Europe/Athens}'
    when 'WET' then '{Europe/Lisbon}'
    when 'WEST' then '{Europe/Lisbon}'
    when 'BST' then '{Europe/London}'
    when 'EST' then '{America/New_York,America/Panama}'
    when 'EDT' then '{America/New_York}'
    when 'CST' then '{America/Chicago}'
    when 'CDT' then '{America/Chicago}'
    when 'MST' then '{America/Denver,America/Phoenix}'
    when 'MDT' then '{America/Denver}'
    when 'PST' then '{America/Los_Angeles}'
    when 'PDT' then '{America/Los_Angeles}'
    when 'HST' then '{Pacific/Honolulu}'
    when 'JST' then '{Asia/Tokyo}'
    when 'IST' then '{Asia/Kolkata}'
    when 'MSK' then '{Europe/Moscow}'
  end::text[], case
    when lower(timezone collate "C") in ('utc', 'z', 'etc/utc', 'utc+0', 'utc0') then '{UTC}'
    when timezone collate "C" ~* E'^(utc|gmt)?[+-](0?\\d|1[0-4])(:?00)?$' then array[
      'Etc/GMT' || translate(substring(timezone from '[+-]'), '+-', '-+')
      || substring(timezone from E'[+-]0?(\\d+)')::integer
    ]
  end::text[], likely[1:3], '{Europe/Berlin}');
  raise exception using
    errcode = 'RCTZN',
    message = case
      when timezone is null then 'time zone is null'
      else format('time zone "%s" is not the name of a zone', timezone)
    end,
    detail = case
      when timezone ~ E'\\d'
        then 'offsets are not zones: they know no daylight saving, and POSIX reverses signs'
      when timezone ~ '^[A-Z]{2,5}$'
        then 'abbreviations are not zones: they keep one offset all year'
      else 'a zone is an IANA name, spelt exactly as in pg_timezone_names'
    end,
    hint = 'write: ' || (
      select string_agg(quote_literal(name), ' or ') from unnest(likely) as name
    );
end;
$$;

comment on function rowcron._check_timezone(text) is
  'Refuses what is not exactly the name of an IANA time zone that this server knows.
Errors: RCTZN.';

create or replace function rowcron._transitions(
  timezone text, after timestamptz, upto timestamptz
) returns timestamptz[]
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
declare
  -- seconds, not intervals: adding an interval that has come to hold days asks the session's zone
  found_at timestamptz[] := array[]::timestamptz[];
  low bigint := floor(date_part('epoch', after));
  last constant bigint := floor(date_part('epoch', upto));
  high bigint;
  middle bigint;
  low_offset float8;
  high_offset float8;
begin
  if timezone = 'UTC' then
    return found_at;
  end if;
  low_offset := date_part('epoch', to_timestamp(low) at time zone timezone) - low;
  while low < last loop
    high := least(low + 518400, last);
    high_offset := date_part('epoch', to_timestamp(high) at time zone timezone) - high;
    if high_offset <> low_offset then
      while high - low > 1 loop
        middle := (low + high) / 2;
        if date_part('epoch', to_timestamp(middle) at time zone timezone) - middle = low_offset then
          low := middle;
        else
          high := middle;
        end if;
      end loop;
      found_at := found_at || to_timestamp(high);
      low_offset := high_offset;
    end if;
    low := high;
  end loop;
  return found_at;
end;
$$;

comment on function rowcron._transitions(text, timestamptz, timestamptz) is
  'Instants in (after, upto] at which the offset of a time zone changes, in order.';

create or replace function rowcron._instants(
  local timestamp, timezone text, skip_gap boolean, fold_twice boolean
) returns timestamptz[]
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
declare
  -- of two instants PostgreSQL takes the later, in a gap one after it
  late constant timestamptz := local at time zone timezone;
  before constant timestamptz := late - interval '24:00:00';
  early timestamptz;
begin
  if late at time zone timezone <> local then
    return case when skip_gap then '{}'::timestamptz[] else (
      select array[max(found_at)]
      from unnest(rowcron._transitions(timezone, late - interval '25:00:00', late)) as found_at
    ) end;
  end if;
  early := (local - ((before at time zone timezone) - (before at time zone 'UTC')))
    at time zone 'UTC';
  if early < late and early at time zone timezone = local then
    return case when fold_twice then array[early, late] else array[early] end;
  end if;
  return array[late];
end;
$$;

comment on function rowcron._instants(timestamp, text, boolean, boolean) is
  'Instants at which something set for a local time happens: none, one or two, in order.';

reset role;
