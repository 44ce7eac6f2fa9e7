-- 025: near changes of time, and backwards.
--
-- Chapter 021 answers from the masks where no change of a zone's offset is near. Here the others
-- are found by walking from one change to the next: within a stretch of constant offset local
-- seconds and elapsed seconds are the same, and at its end the policies say what becomes of a gap
-- or a fold. When nothing is named for days, the walk starts two days before what is named next.
--
-- _previous is the same walk backwards, for whoever asks after downtime what the last occurrence
-- was.

set role rowcron_owner;

create or replace function rowcron._next_across(
  parsed rowcron._parsed,
  after timestamptz,
  timezone text,
  run_gap boolean,
  once boolean
) returns timestamptz
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
declare
  at timestamptz := after;
  local timestamp := after at time zone timezone;
  behind interval := local - (after at time zone 'UTC');
  latest constant timestamp := local + interval '45 years';
  next_behind interval;
  named timestamp;
  result timestamptz;
  change timestamptz;
begin
  if once then
    -- in the second of a doubled hour everything up to its end has been
    change := (rowcron._transitions(timezone, at - interval '24:00:00', at))[1];
    next_behind := ((change - interval '1 second') at time zone timezone)
      - ((change - interval '1 second') at time zone 'UTC');
    local := greatest(
      local, (change at time zone 'UTC') + next_behind - interval '1 second'
    );
  end if;
  loop
    named := rowcron._next(parsed, local at time zone 'UTC', 'UTC') at time zone 'UTC';
    -- what has met nothing but gaps for so long, the last Sunday of March at 02:30, always will
    if named is null or named > latest then
      return null;
    end if;
    result := (named - behind) at time zone 'UTC';
    change := (rowcron._transitions(
      timezone, at, least(result, at + interval '48:00:00')))[1];
    if change is null and result > at + interval '48:00:00' then
      -- nothing is named up to there: look at the days before only
      at := result - interval '48:00:00';
      behind := (at at time zone timezone) - (at at time zone 'UTC');
      local := named - interval '1 second';
      result := (named - behind) at time zone 'UTC';
      change := (rowcron._transitions(timezone, at, result))[1];
    end if;
    if change is null then
      return result;
    end if;
    next_behind := (change at time zone timezone) - (change at time zone 'UTC');
    if next_behind > behind and run_gap and named < (change at time zone 'UTC') + next_behind then
      return change;
    end if;
    -- go on behind the gap, or behind the fold, or at its beginning once more
    local := (change at time zone 'UTC') - interval '1 second'
      + case when once then greatest(behind, next_behind) else next_behind end;
    at := change;
    behind := next_behind;
  end loop;
end;
$$;

comment on function rowcron._next_across(
  rowcron._parsed, timestamptz, text, boolean, boolean
) is
  'The next instant of a cron schedule, walking over the changes of a time zone''s offset.';

create or replace function rowcron._previous_local(parsed rowcron._parsed, upto timestamp)
returns timestamp
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  day date := upto::date;
  second integer := floor(date_part('epoch', upto - upto::date));
  n integer;
  year integer;
  month integer;
  mask bigint;
begin
  -- the time: the last of the day that is not after second
  if rowcron._count_days(parsed, day, day) = 1
    and second >= parsed.first_second
  then
    n := second / 3600;
    if parsed.hours >> n & 1 = 1
      and second % 3600 >= parsed.first_second % 3600
    then
      n := second / 60 % 60;
      if parsed.minutes >> n & 1 = 0 or second % 60 < parsed.first_second % 60 then
        mask := parsed.minutes & ((1::bigint << n) - 1);
        second := second / 3600 * 3600 + (64 - strpos(mask::bit(64)::text, '1')) * 60 + 59;
      end if;
    else
      mask := parsed.hours & ((1 << n) - 1);
      second := (64 - strpos(mask::bit(64)::text, '1')) * 3600
        + (64 - strpos(parsed.minutes::bit(64)::text, '1')) * 60 + 59;
    end if;
  else
    -- the last time of the last day before
    second := (64 - strpos(parsed.hours::bigint::bit(64)::text, '1')) * 3600
      + (64 - strpos(parsed.minutes::bit(64)::text, '1')) * 60 + 59;
    day := day - 1;
    if parsed.day_rule = 1 then
      while parsed.weekdays >> (day - date '1600-01-02') % 7 & 1 = 0 loop
        day := day - 1;
      end loop;
    elsif parsed.day_rule = 2 then
      year := date_part('year', day);
      month := date_part('month', day);
      n := date_part('day', day);
      loop
        if year < 1960 then
          return null;
        end if;
        mask := 0;
        if parsed.months >> month & 1 = 1 then
          mask := rowcron._month_days(parsed, year, month) & ((2::bigint << n) - 1);
        end if;
        exit when mask <> 0;
        n := 31;
        month := month - 1;
        if month = 0 then
          year := year - 1;
          month := 12;
        end if;
      end loop;
      day := make_date(year, month, 64 - strpos(mask::bit(64)::text, '1'));
    end if;
  end if;
  mask := parsed.seconds & ((1::bigint << (second % 60 + 1)) - 1);
  return day + make_interval(
    secs => second / 60 * 60 + 64 - strpos(mask::bit(64)::text, '1')
  );
end;
$$;

comment on function rowcron._previous_local(rowcron._parsed, timestamp) is
  'The last local time up to one that a cron schedule names; null when there is none since 1960.';

create or replace function rowcron._previous(
  parsed rowcron._parsed,
  upto timestamptz,
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
  run_gap constant boolean := coalesce(on_gap = 'run', not parsed.elapsed);
  once constant boolean := coalesce(on_fold = 'once', not parsed.elapsed);
  at timestamptz := date_trunc('second', upto, 'UTC');
  local timestamp := at at time zone timezone;
  behind interval := local - (at at time zone 'UTC');
  next_behind interval;
  named timestamp;
  result timestamptz;
  changes timestamptz[];
  change timestamptz;
begin
  if parsed.form <> 'cron' then
    return rowcron._previous_uncron(parsed, upto, timezone, anchor, on_gap, on_fold);
  elsif parsed.form is null or upto is null or not isfinite(upto) then
    return null;
  end if;
  loop
    named := rowcron._previous_local(parsed, local);
    result := (named - behind) at time zone 'UTC';
    if result is null or result < timestamptz '1970-01-01 00:00:00+00' then
      return null;
    elsif timezone = 'UTC' then
      return result;
    end if;
    if result < at - interval '96:00:00'
      and rowcron._transitions(timezone, at - interval '48:00:00', at) = '{}'
    then
      -- nothing is named in between: look at the days around it only
      at := result + interval '48:00:00';
      behind := (at at time zone timezone) - (at at time zone 'UTC');
      local := at at time zone timezone;
      result := (named - behind) at time zone 'UTC';
    end if;
    -- the day before the result too, for a fold whose second pass it may be in
    changes := rowcron._transitions(
      timezone, greatest(result, at - interval '96:00:00') - interval '24:00:00', at);
    change := changes[cardinality(changes)];
    next_behind := ((change - interval '1 second') at time zone timezone)
      - ((change - interval '1 second') at time zone 'UTC');
    if change is null then
      if result >= at - interval '96:00:00' then
        return result;
      end if;
      at := at - interval '96:00:00';
      local := at at time zone timezone;
    elsif change <= result
      and not (once and named < (change at time zone 'UTC') + next_behind)
    then
      return result;
    else
      -- a change of time lies between, or the result repeats what ran before the change
      if run_gap and next_behind < behind and rowcron._previous_local(
        parsed, (change at time zone 'UTC') + behind - interval '1 second'
      ) >= (change at time zone 'UTC') + next_behind then
        return change;
      end if;
      at := change - interval '1 second';
      local := at at time zone timezone;
      behind := next_behind;
    end if;
  end loop;
end;
$$;

comment on function rowcron._previous(
  rowcron._parsed, timestamptz, text, timestamptz, text, text
) is
  'The last occurrence of a schedule up to and with an instant; null when there is none since 1970.';

reset role;
