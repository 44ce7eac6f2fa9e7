-- 028: asking the calendar.
--
-- next_run and next_runs answer for any text, whether or not a job has it: what a person tries out
-- before inserting a job, and what `rowcron next` prints. They check as an insert does, so what
-- they accept a job may have. They parse each time; a job's own next run comes from chapter 021
-- directly. They are definers because whoever may ask need not be granted the many functions that
-- answer.

set role rowcron_owner;

create or replace function rowcron._check_policies(on_gap text, on_fold text) returns void
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  if on_gap not in ('run', 'skip') then
    raise exception using
      errcode = 'RCSCH',
      message = format('on_gap "%s" is not a policy', on_gap),
      detail = 'on_gap is run or skip; null means by the form of the schedule',
      hint = 'write: on_gap => ''run''';
  elsif on_fold not in ('once', 'twice') then
    raise exception using
      errcode = 'RCSCH',
      message = format('on_fold "%s" is not a policy', on_fold),
      detail = 'on_fold is once or twice; null means by the form of the schedule',
      hint = 'write: on_fold => ''once''';
  end if;
end;
$$;

comment on function rowcron._check_policies(text, text) is
  'Refuses policies for changes of time that do not exist.
Errors: RCSCH.';

create or replace function rowcron._check_reach(after timestamptz, anchor timestamptz) returns void
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  field text;
  given timestamptz;
  since timestamptz;
begin
  -- Weekdays are counted from 1600 on, and seconds as floats are exact until 20267. An interval may
  -- have begun as early as a job's starts_at.
  select c.field, c.given, c.since into field, given, since
  from (values
    ('after', nullif(after, 'infinity'), timestamptz '1601-01-01 00:00:00+00'),
    ('anchor', anchor, '0001-01-01 00:00:00+00')
  ) as c (field, given, since)
  where c.given < c.since or c.given >= '20000-01-01 00:00:00+00'
  limit 1;
  if field is not null then
    raise exception using
      errcode = 'RCLIM',
      message = format('%s "%s" is out of range', field, given),
      detail = format('Allowed: an instant of the years %s to 19999.',
        extract(year from since at time zone interval '0')),
      hint = format('write: %s => now()', field);
  end if;
end;
$$;

comment on function rowcron._check_reach(timestamptz, timestamptz) is
  'Refuses instants that the calendar does not reach; after infinity there is nothing.
Errors: RCLIM.';

create or replace function rowcron.next_run(
  schedule text,
  after timestamptz default clock_timestamp(),
  timezone text default 'UTC',
  anchor timestamptz default null,
  seed text default null,
  on_gap text default null,
  on_fold text default null
) returns timestamptz
language plpgsql
stable
parallel restricted
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform rowcron._check_timezone(timezone);
  perform rowcron._check_policies(on_gap, on_fold);
  perform rowcron._check_reach(after, anchor);
  return rowcron._next(
    rowcron._parse(schedule, seed), after, timezone, anchor, on_gap, on_fold
  );
end;
$$;

comment on function rowcron.next_run(
  text, timestamptz, text, timestamptz, text, text, text
) is
  'The next instant of a schedule strictly after an instant; null when there is none.
anchor: where @every counts from, otherwise after itself. seed: what spreads H; a job has its owner, as
quote_ident writes it, and its name, joined by a dot, as they were when that was stored. on_gap (run,
skip) and on_fold (once, twice): null means by the schedule''s form.
Errors: RCSCH, RCTZN, RCLIM.';

create or replace function rowcron.next_runs(
  schedule text,
  count integer default 10,
  after timestamptz default clock_timestamp(),
  timezone text default 'UTC',
  anchor timestamptz default null,
  seed text default null,
  on_gap text default null,
  on_fold text default null
) returns setof timestamptz
language plpgsql
stable
parallel restricted
rows 10
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  parsed constant rowcron._parsed := rowcron._parse(schedule, seed);
  start constant timestamptz := coalesce(anchor, after);
  at timestamptz := after;
begin
  perform rowcron._check_timezone(timezone);
  perform rowcron._check_policies(on_gap, on_fold);
  perform rowcron._check_reach(after, anchor);
  for n in 1 .. coalesce(count, 10) loop
    at := rowcron._next(parsed, at, timezone, start, on_gap, on_fold);
    exit when at is null or at >= '20000-01-01 00:00:00+00';
    return next at;
  end loop;
end;
$$;

comment on function rowcron.next_runs(
  text, integer, timestamptz, text, timestamptz, text, text, text
) is
  'The next instants of a schedule, at most count of them, in order, up to the year 19999. For @after each follows the one
before as if runs took no time. Arguments and errors as of next_run.
Errors: RCSCH, RCTZN, RCLIM.';

reset role;
