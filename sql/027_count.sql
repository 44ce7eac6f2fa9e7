-- 027: how many.
--
-- After downtime the firing chapter asks how many occurrences there were. They are counted without
-- being visited: a stretch of constant offset is whole days times the runs of a day, plus what the
-- first and last day hold; days are counted from the masks of months. Only the changes of a zone's
-- offset are visited. A year of a job each second takes about a millisecond.

set role rowcron_owner;

create or replace function rowcron._runs_until(parsed rowcron._parsed, second integer)
returns bigint
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  hour constant integer := second / 3600;
  minute constant integer := second / 60 % 60;
  minutes constant bigint := bit_count(parsed.minutes::bit(64));
  seconds constant bigint := bit_count(parsed.seconds::bit(64));
begin
  return bit_count((parsed.hours & ((1 << hour) - 1))::bit(32)) * minutes * seconds
    + (parsed.hours >> hour & 1) * (
      bit_count((parsed.minutes & ((1::bigint << minute) - 1))::bit(64)) * seconds
      + (parsed.minutes >> minute & 1)
      * bit_count((parsed.seconds & ((1::bigint << (second % 60 + 1)) - 1))::bit(64))
    );
end;
$$;

comment on function rowcron._runs_until(rowcron._parsed, integer) is
  'Runs of a cron schedule in a day on which it runs, from its beginning through that second.';

create or replace function rowcron._count_days(parsed rowcron._parsed, first date, last date)
returns bigint
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  days bigint := 0;
  width constant integer := last - first + 1;
  week integer;
  year integer;
  month integer;
  mask bigint;
begin
  if width <= 0 then
    return 0;
  elsif parsed.day_rule = 0 then
    return width;
  elsif parsed.day_rule = 1 then
    week := (parsed.weekdays << 7 | parsed.weekdays) >> (first - date '1600-01-02') % 7;
    return width / 7 * bit_count(parsed.weekdays::bit(32))
      + bit_count((week & ((1 << width % 7) - 1))::bit(32));
  end if;
  year := date_part('year', first);
  month := date_part('month', first);
  while make_date(year, month, 1) <= last loop
    if parsed.months >> month & 1 = 1 then
      mask := rowcron._month_days(parsed, year, month);
      if make_date(year, month, 1) < first then
        mask := mask & (-1::bigint << date_part('day', first)::integer);
      end if;
      if year = date_part('year', last) and month = date_part('month', last) then
        mask := mask & ((2::bigint << date_part('day', last)::integer) - 1);
      end if;
      days := days + bit_count(mask::bit(64));
    end if;
    year := year + month / 12;
    month := month % 12 + 1;
  end loop;
  return days;
end;
$$;

comment on function rowcron._count_days(rowcron._parsed, date, date) is
  'Days from first through last on which a cron schedule runs.';

create or replace function rowcron._count_local(
  parsed rowcron._parsed, after timestamp, upto timestamp
) returns bigint
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  first constant date := after::date;
  last constant date := upto::date;
begin
  if upto <= after then
    return 0;
  end if;
  return
    rowcron._count_days(parsed, first, last - 1) * rowcron._runs_until(parsed, 86399)
    + rowcron._count_days(parsed, last, last)
    * rowcron._runs_until(parsed, floor(date_part('epoch', upto - last))::integer)
    - rowcron._count_days(parsed, first, first)
    * rowcron._runs_until(parsed, floor(date_part('epoch', after - first))::integer);
end;
$$;

comment on function rowcron._count_local(rowcron._parsed, timestamp, timestamp) is
  'Local times in (after, upto] that a cron schedule names.';

create or replace function rowcron._count(
  parsed rowcron._parsed,
  after timestamptz,
  upto timestamptz,
  timezone text,
  anchor timestamptz default null,
  on_gap text default null,
  on_fold text default null
) returns bigint
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
declare
  run_gap constant boolean := coalesce(on_gap = 'run', not parsed.elapsed);
  once constant boolean := coalesce(on_fold = 'once', not parsed.elapsed);
  total bigint := 0;
  at timestamptz := after;
  change timestamptz;
  local timestamp;
  behind interval;
  next_behind interval;
begin
  if parsed.form is null or after is null or upto is null then
    return null;
  elsif upto <= after or parsed.form = 'reboot' then
    return 0;
  elsif not isfinite(after) or not isfinite(upto) then
    return null;
  elsif parsed.form = 'every' and parsed.elapsed then
    anchor := coalesce(anchor, after + parsed.step);
    return greatest(rowcron._every_number(parsed, upto, anchor), -1)
      - greatest(rowcron._every_number(parsed, after, anchor), -1);
  elsif parsed.form <> 'cron' then
    anchor := coalesce(anchor, after);
    loop
      at := rowcron._next_uncron(parsed, at, timezone, anchor, on_gap, on_fold);
      exit when at is null or at > upto;
      total := total + 1;
      exit when parsed.form = 'after';
    end loop;
    return total;
  end if;
  local := at at time zone timezone;
  behind := local - (at at time zone 'UTC');
  if once and timezone <> 'UTC' then
    -- in the second of a doubled hour everything up to its end has been
    change := (rowcron._transitions(timezone, at - interval '24:00:00', at))[1];
    if change is not null then
      local := greatest(local, ((change - interval '1 second') at time zone timezone));
    end if;
  end if;
  foreach change in array rowcron._transitions(timezone, after, upto) loop
    next_behind := (change at time zone timezone) - (change at time zone 'UTC');
    total := total + rowcron._count_local(
      parsed, local, (change at time zone 'UTC') + behind - interval '1 second'
    );
    if run_gap and next_behind > behind
      and rowcron._count_local(
        parsed,
        (change at time zone 'UTC') + behind - interval '1 second',
        (change at time zone 'UTC') + next_behind - interval '1 second'
      ) > 0
      and rowcron._count_local(
        parsed,
        (change at time zone 'UTC') + next_behind - interval '1 second',
        (change at time zone 'UTC') + next_behind
      ) = 0
    then
      total := total + 1;
    end if;
    local := greatest(local, (change at time zone 'UTC') - interval '1 second'
      + case when once then greatest(behind, next_behind) else next_behind end);
    if not once then
      local := (change at time zone 'UTC') - interval '1 second' + next_behind;
    end if;
    behind := next_behind;
  end loop;
  return total + rowcron._count_local(parsed, local, upto at time zone timezone);
end;
$$;

comment on function rowcron._count(
  rowcron._parsed, timestamptz, timestamptz, text, timestamptz, text, text
) is
  'How many occurrences a schedule has in (after, upto]. Milliseconds for years of seconds; @every with
days or months counts them one by one. @after has at most one, since the next needs a run''s end.';

reset role;
