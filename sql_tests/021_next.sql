-- The calendar: days, zones, gaps and folds, intervals, backwards and counting.

begin;
select plan(147);
set local timezone to 'UTC';

create function pg_temp.utc(instant timestamptz) returns text language sql as $$
  select to_char(instant at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS')
$$;

-- The next instant after one, in UTC.
select is(pg_temp.utc(rowcron.next_run(schedule, after)), expected, format('"%s": %s', schedule, what))
from (values
  ('*/5 * * * *', timestamptz '2026-01-01 00:00:00+00', '2026-01-01 00:05:00', 'strictly after'),
  ('*/5 * * * *', '2026-01-01 00:04:59.999999+00', '2026-01-01 00:05:00', 'fractions count'),
  ('* * * * * *', '2026-01-01 00:00:00.5+00', '2026-01-01 00:00:01', 'each second'),
  ('59 23 31 12 *', '2026-12-31 23:59:00+00', '2027-12-31 23:59:00', 'over the year'),
  ('0 0 29 2 *', '2096-02-29 00:00:00+00', '2104-02-29 00:00:00', 'eight years, because 2100 has none'),
  ('0 0 29 2 */7', '2060-02-29 00:00:00+00', '2088-02-29 00:00:00', 'once in 28 years'),
  ('0 0 29 2 */7', '2088-02-29 00:00:00+00', '2128-02-29 00:00:00', '40 years over 2100'),
  ('0 0 13 * fri', '2026-03-01 00:00:00+00', '2026-03-06 00:00:00', 'two restricted day fields: either'),
  ('0 0 */2 * mon', '2026-03-01 00:00:00+00', '2026-03-09 00:00:00', 'a star in front: both'),
  ('0 0 13 * */5', '2026-01-02 00:00:00+00', '2026-02-13 00:00:00', 'a star in front: both'),
  ('0 0 L * *', '2028-02-01 00:00:00+00', '2028-02-29 00:00:00', 'the last day'),
  ('0 0 L-3 2 *', '2026-01-01 00:00:00+00', '2026-02-25 00:00:00', 'three days before the last'),
  ('0 0 LW * *', '2026-05-01 00:00:00+00', '2026-05-29 00:00:00', 'the last working day'),
  ('0 0 15W * *', '2026-08-01 00:00:00+00', '2026-08-14 00:00:00', 'Saturday: the Friday before'),
  ('0 0 15W * *', '2026-11-01 00:00:00+00', '2026-11-16 00:00:00', 'Sunday: the Monday after'),
  ('0 0 1W * *', '2026-08-01 00:00:00+00', '2026-08-03 00:00:00', 'Saturday the 1st: not last month'),
  ('0 0 31W * *', '2026-05-01 00:00:00+00', '2026-05-29 00:00:00', 'Sunday the 31st: not next month'),
  ('0 0 31W * *', '2026-06-01 00:00:00+00', '2026-07-31 00:00:00', 'June has no 31st'),
  ('0 0 * * fri#1', '2026-05-02 00:00:00+00', '2026-06-05 00:00:00', 'the first Friday'),
  ('0 0 * * 1#5', '2026-02-01 00:00:00+00', '2026-03-30 00:00:00', 'the fifth Monday, where there is one'),
  ('0 0 * * 5L', '2026-02-01 00:00:00+00', '2026-02-27 00:00:00', 'the last Friday'),
  ('@at 2026-12-24 18:00', '2026-12-24 17:59:59+00', '2026-12-24 18:00:00', 'once'),
  ('@at 2026-12-24 18:00', '2026-12-24 18:00:00+00', null, 'never again'),
  ('@at 2026-12-24 18:00+02', '2026-01-01 00:00:00+00', '2026-12-24 16:00:00', 'absolute'),
  ('@after 5 minutes', '2026-01-01 00:00:10+00', '2026-01-01 00:05:10', 'from the end'),
  ('@reboot', '2026-01-01 00:00:00+00', null, 'no instant'),
  ('* * * * *', 'infinity', null, 'after the end of time')
) as cases (schedule, after, expected, what);

-- Gaps and folds: the next instant after one, in UTC, by form and by policy.
select is(
  pg_temp.utc(rowcron.next_run(schedule, after, zone, on_gap => gap, on_fold => fold)), expected,
  format('"%s" in %s after %s, %s, %s: %s', schedule, zone, pg_temp.utc(after), gap, fold, what)
) from (values
  -- Berlin 2026-03-29 01:00 UTC: 02:00 becomes 03:00. 2026-10-25 01:00 UTC: 03:00 becomes 02:00.
  ('30 2 * * *', timestamptz '2026-03-28 12:00+00', 'Europe/Berlin', null, null, '2026-03-29 01:00:00', 'first instant after'),
  ('30 2 * * *', '2026-03-28 12:00+00', 'Europe/Berlin', 'skip', null, '2026-03-30 00:30:00', 'left out'),
  ('0 30 2 * * *', '2026-03-28 12:00+00', 'Europe/Berlin', null, null, '2026-03-30 00:30:00', 'six fields'),
  ('0 30 2 * * *', '2026-03-28 12:00+00', 'Europe/Berlin', 'run', null, '2026-03-29 01:00:00', 'six fields, run'),
  ('*/30 2 * * *', '2026-03-28 12:00+00', 'Europe/Berlin', null, null, '2026-03-30 00:00:00', 'wildcard minute'),
  ('0,30 2 * * *', '2026-03-29 01:00+00', 'Europe/Berlin', null, null, '2026-03-30 00:00:00', 'two in one gap are one run'),
  ('0 3 * * *', '2026-03-28 12:00+00', 'Europe/Berlin', null, null, '2026-03-29 01:00:00', 'the end of the gap itself'),
  ('30 2 29 3 *', '2026-01-01 12:00+00', 'Europe/Berlin', null, null, '2026-03-29 01:00:00', 'from months before'),
  ('30 2 * * *', '2026-10-24 12:00+00', 'Europe/Berlin', null, null, '2026-10-25 00:30:00', 'first of two'),
  ('30 2 * * *', '2026-10-25 00:30+00', 'Europe/Berlin', null, null, '2026-10-26 01:30:00', 'and only that'),
  ('30 2 * * *', '2026-10-25 00:30+00', 'Europe/Berlin', null, 'twice', '2026-10-25 01:30:00', 'by policy'),
  ('30 2 * * *', '2026-10-25 01:10+00', 'Europe/Berlin', null, null, '2026-10-26 01:30:00', 'in the second hour'),
  ('0 30 2 * * *', '2026-10-25 00:30+00', 'Europe/Berlin', null, null, '2026-10-25 01:30:00', 'six fields'),
  ('0 30 2 * * *', '2026-10-25 00:30+00', 'Europe/Berlin', null, 'once', '2026-10-26 01:30:00', 'six fields, once'),
  ('*/15 * * * *', '2026-10-25 00:45+00', 'Europe/Berlin', null, null, '2026-10-25 01:00:00', 'wildcard goes on'),
  ('*/15 * * * *', '2026-10-25 00:45+00', 'Europe/Berlin', null, 'once', '2026-10-25 02:00:00', 'wildcard, once'),
  ('0 30 2 25 10 *', '2026-10-25 00:45+00', 'Europe/Berlin', null, null, '2026-10-25 01:30:00', 'yearly, in the first hour'),
  ('0 0 30 12 *', '2011-12-01 00:00+00', 'Pacific/Apia', null, null, '2011-12-30 10:00:00', 'a day that did not exist'),
  ('0 12 30 12 *', '2011-12-01 00:00+00', 'Pacific/Apia', 'skip', null, '2012-12-29 22:00:00', 'a day that did not exist'),
  ('15 2 * * *', '2026-10-03 00:00+00', 'Australia/Lord_Howe', null, null, '2026-10-03 15:30:00', 'half an hour'),
  ('45 1 * * *', '2026-04-04 10:00+00', 'Australia/Lord_Howe', null, null, '2026-04-04 14:45:00', 'half an hour'),
  ('0 0 * * *', '2026-04-23 12:00+00', 'Africa/Cairo', null, null, '2026-04-23 22:00:00', 'a gap at midnight'),
  ('30 23 * * *', '2026-10-29 12:00+00', 'Africa/Cairo', null, null, '2026-10-29 20:30:00', 'a fold before midnight'),
  ('30 1 * * *', '2026-10-24 12:00+00', 'Europe/Dublin', null, null, '2026-10-25 00:30:00', 'negative saving'),
  ('30 1 * * *', '2026-03-28 12:00+00', 'Antarctica/Troll', null, null, '2026-03-29 01:00:00', 'two hours'),
  ('@at 2026-03-29 02:30', '2026-01-01 00:00+00', 'Europe/Berlin', null, null, '2026-03-29 01:00:00', 'in a gap'),
  ('@at 2026-03-29 02:30', '2026-01-01 00:00+00', 'Europe/Berlin', 'skip', null, null, 'in a gap, skip'),
  ('@at 2026-10-25 02:30', '2026-10-25 00:30+00', 'Europe/Berlin', null, 'twice', null, 'in a fold, once all the same')
) as cases (schedule, after, zone, gap, fold, expected, what);

-- @every: from its anchor, without drift.
select is(
  (select string_agg(pg_temp.utc(run), ' ') from rowcron.next_runs(schedule, 3, after, zone, anchor) as run),
  expected, format('"%s": %s', schedule, what)
) from (values
  ('@every 90 seconds', timestamptz '2036-01-01 00:00:10+00', 'UTC', timestamptz '2026-01-01 00:00:07+00',
    '2036-01-01 00:01:37 2036-01-01 00:03:07 2036-01-01 00:04:37', 'ten years on'),
  ('@every 1 month', '2026-01-31 12:00+00', 'UTC', '2026-01-31 12:00+00',
    '2026-02-28 12:00:00 2026-03-31 12:00:00 2026-04-30 12:00:00', 'from the 31st'),
  ('@every 1 day', '2026-03-28 02:00+00', 'Europe/Berlin', '2026-03-27 01:30+00',
    '2026-03-29 01:00:00 2026-03-30 00:30:00 2026-03-31 00:30:00', 'days by the calendar, over a gap'),
  ('@every 24 hours', '2026-03-28 02:00+00', 'Europe/Berlin', '2026-03-27 01:30+00',
    '2026-03-29 01:30:00 2026-03-30 01:30:00 2026-03-31 01:30:00', 'hours by elapsed time'),
  ('@every 1 hour', '2026-01-01 00:00+00', 'UTC', '2026-06-01 00:00+00',
    '2026-06-01 00:00:00 2026-06-01 01:00:00 2026-06-01 02:00:00', 'not before its anchor'),
  ('@every 1 day 1 hour', '2026-01-01 00:00+00', 'UTC', '2026-01-01 00:00+00',
    '2026-01-02 01:00:00 2026-01-03 02:00:00 2026-01-04 03:00:00', 'mixed')
) as cases (schedule, after, zone, anchor, expected, what);

-- Of a doubled hour both passes are counted from; hours and less are elapsed time.
select is(pg_temp.utc(rowcron.next_run(schedule, after, 'Europe/Berlin')), expected, format('"%s" from %s is at %s', schedule, pg_temp.utc(after), expected))
from (values
  ('@after 5 minutes', timestamptz '2026-10-25 00:30+00', '2026-10-25 00:35:00'),
  ('@after 5 minutes', '2026-10-25 00:58+00', '2026-10-25 01:03:00'),
  ('@after 5 minutes', '2026-10-25 01:30+00', '2026-10-25 01:35:00'),
  ('@after 1 hour', '2026-03-29 00:30+00', '2026-03-29 01:30:00'),
  ('@after 1 day', '2026-10-25 01:30+00', '2026-10-26 01:30:00'),
  ('@after 1 day', '2026-10-24 00:30+00', '2026-10-25 00:30:00')
) as cases (schedule, after, expected);

-- How many, and the last one.
select is(
  rowcron._count(rowcron._parse(schedule), after, upto, zone), expected::bigint,
  format('"%s" in %s has %s', schedule, zone, expected)
) from (values
  ('* * * * * *', timestamptz '2026-01-01+00', timestamptz '2027-01-01+00', 'UTC', 31536000),
  ('* * * * * *', '2026-01-01+00', '2027-01-01+00', 'Europe/Berlin', 31536000),
  ('* * * * *', '2026-01-01+00', '2027-01-01+00', 'America/New_York', 525600),
  ('30 2 * * *', '2026-01-01+00', '2027-01-01+00', 'Europe/Berlin', 365),
  ('0 30 2 * * *', '2026-01-01+00', '2027-01-01+00', 'Europe/Berlin', 365),
  ('0 30 2 * 3 *', '2026-01-01+00', '2027-01-01+00', 'Europe/Berlin', 30),
  ('0 30 2 * 10 *', '2026-01-01+00', '2027-01-01+00', 'Europe/Berlin', 32),
  ('0 0 * * mon-fri', '2026-01-01+00', '2027-01-01+00', 'UTC', 261),
  ('0 0 13 * fri', '2026-01-01+00', '2027-01-01+00', 'UTC', 62),
  ('*/5 * * * *', '2026-01-01+00', '2026-01-01+00', 'UTC', 0),
  ('@at 2026-12-24 18:00', '2026-01-01+00', '2027-01-01+00', 'UTC', 1),
  ('@reboot', '2026-01-01+00', '2027-01-01+00', 'UTC', 0)
) as cases (schedule, after, upto, zone, expected);
select is(
  rowcron._count(rowcron._parse('@every 90 seconds'), '2026-01-01+00', '2026-01-02+00', 'UTC', '2025-01-01+00'),
  960::bigint, '@every is counted without visiting'
);
select is(
  pg_temp.utc(rowcron._previous(rowcron._parse(schedule), upto, zone)), expected,
  format('"%s" in %s last ran at %s', schedule, zone, expected)
) from (values
  ('*/5 * * * *', timestamptz '2026-01-01 00:05+00', 'UTC', '2026-01-01 00:05:00'),
  ('*/5 * * * *', '2026-01-01 00:04:59+00', 'UTC', '2026-01-01 00:00:00'),
  ('30 2 * * *', '2026-03-29 12:00+00', 'Europe/Berlin', '2026-03-29 01:00:00'),
  ('30 2 * * *', '2026-10-25 12:00+00', 'Europe/Berlin', '2026-10-25 00:30:00'),
  ('0 30 2 * * *', '2026-10-25 12:00+00', 'Europe/Berlin', '2026-10-25 01:30:00'),
  ('0 0 29 2 *', '2103-01-01 00:00+00', 'UTC', '2096-02-29 00:00:00'),
  ('@reboot', '2026-01-01+00', 'UTC', null)
) as cases (schedule, upto, zone, expected);

-- Results do not depend on the session; nor on its zone's abbreviations, which 18 looks up first.
create temporary table moments as
select timestamptz '2026-03-28 12:34:56+00' as after, timestamptz '2026-01-01+00' as anchor, timestamptz '2026-11-01+00' as upto;
create function pg_temp.answers() returns table (schedule text, zone text, instants timestamptz[], told text) language sql as $$
  select
    schedule, zone,
    array(select run from rowcron.next_runs(schedule, 3, after, zone, anchor) as run)
      || rowcron._previous(rowcron._parse(schedule), after, zone, anchor)
      || array(select e.runs_at from unnest(rowcron._transitions(zone, after, upto)) as t, rowcron._dst_effects(rowcron._parse(schedule), schedule, zone, anchor, null, 'twice', t) as e),
    concat_ws(' ', rowcron.explain(schedule, zone), rowcron._local_text(after, zone),
      rowcron._count(rowcron._parse(schedule), after, upto, zone, anchor),
      (select jsonb_object_agg(p.part, p.n order by p.part) from rowcron._count_parts(rowcron._parse(schedule), after, 3600000000, after, after + interval '24:00:00', zone, anchor, null, null) as p))
  from moments, (values
    ('*/5 * * * *'), ('30 2 * * *'), ('0 0 L * *'), ('@every 1 day'), ('@every 1 month 3 hours'),
    ('@every 90 seconds'), ('@at 2026-12-24 18:00'), ('@at 2026-12-24 18:00Z'), ('@after 2 days'), ('0 30 2 29 3 *')
  ) as schedules (schedule), (values ('UTC'), ('GMT'), ('Etc/UTC'), ('PRC'), ('Europe/Berlin'), ('Pacific/Apia')) as zones (zone)
$$;
create temporary table before as select * from pg_temp.answers();
set local datestyle to 'German, DMY';
set local intervalstyle to 'sql_standard';
set local lc_time to 'C';
create function pg_temp.differing(session text) returns bigint language plpgsql as $$
begin
  perform set_config('timezone', session, true);
  return (select count(*) from pg_temp.answers() as a full join before as b using (schedule, zone) where (a.instants, a.told) is distinct from (b.instants, b.told));
end
$$;
select is(pg_temp.differing(session), 0::bigint, format('a session in %s changes no result', session))
from unnest('{UTC,America/New_York,UTC+3,GMT+3,CET+5,PRC+8,<ETC/UTC>+3,<EUROPE/BERLIN>+3}'::text[]) as session;
set local timezone to 'UTC';

-- Zones.
select lives_ok(format('select rowcron._check_timezone(%L)', zone), format('"%s" is a zone', zone))
from (values
  ('UTC'), ('Europe/Berlin'), ('America/Port-au-Prince'), ('America/Argentina/Buenos_Aires'),
  ('Etc/GMT+3'), ('Etc/UTC'), ('GMT')
) as zones (zone);
select throws_ok(
  format('select rowcron._check_timezone(%L)', zone), 'RCTZN', null, format('"%s" is not', zone)
) from (values
  ('UTC+3'), ('CEST'), ('CET'), ('EST'), ('europe/berlin'), ('Europe/berlin'), ('America/Port-Au-Prince'),
  ('Etc/Utc'), (''), ('localtime'), ('posixrules'), ('Europe/Berlin2'), ('Foo/Bar'), ('+03:00'),
  ('Posix/Europe/Berlin'), ('<+03>-3'), ('Europe/Berlin '), (null)
) as zones (zone);
create function pg_temp.hint(zone text) returns text language plpgsql as $$
declare
  hint text;
begin
  perform rowcron._check_timezone(zone);
  return null;
exception
  when sqlstate 'RCTZN' then
    get stacked diagnostics hint = pg_exception_hint;
    return hint;
end;
$$;
select is(pg_temp.hint(zone), hint, format('"%s": %s', zone, hint))
from (values
  ('europe/berlin', 'write: ''Europe/Berlin'''),
  ('Berlin', 'write: ''Europe/Berlin'''),
  ('CEST', 'write: ''Europe/Berlin'' or ''Europe/Paris'''),
  ('UTC+3', 'write: ''Etc/GMT-3'''),
  ('utc', 'write: ''UTC''')
) as hints (zone, hint);
select throws_ok(
  $$select rowcron.next_run('0 3 * * *', on_gap => 'jump')$$, 'RCSCH', 'on_gap "jump" is not a policy'
);
select throws_ok(
  $$select rowcron.next_run('0 3 * * *', on_fold => 'thrice')$$, 'RCSCH', 'on_fold "thrice" is not a policy'
);

-- what names nothing but gaps is not looked for until the end of time
select is(rowcron.next_run('0 30 2 * 3 sunL', '2026-11-28', 'Europe/Berlin'), null, 'the last Sunday of March at 02:30 is a gap each year');
select is(rowcron.next_run('30 2 * 3 sun#2', '2026-11-28', 'America/New_York', on_gap => 'skip'), null, 'so is the second in New York');
select is(rowcron.next_run('30 2 * 3 sun#2', '2026-11-28', 'America/New_York'), '2027-03-14 07:00Z', 'which is moved behind it by default');
select is(rowcron.next_run('@at 2027-10-31 02:30', '2027-10-31 00:30Z', 'Europe/Berlin', on_fold => 'twice'), null, '@at is one instant, whatever on_fold says');

-- Where time ends.
select throws_ok(format('select rowcron.next_run(%s)', asked), 'RCLIM', message, format('%s: %s', asked, message))
from (values
  ($$'0 0 29 2 *', '294276-12-31'$$, 'after "31.12.294276 00:00:00 UTC" is out of range'),
  ($$'* * * * *', '20000-01-01'$$, 'after "01.01.20000 00:00:00 UTC" is out of range'),
  ($$'0 0 29 2 *', '4714-11-24 00:00 BC'$$, 'after "24.11.4714 00:00:00 UTC BC" is out of range'),
  ($$'* * * * *', '1600-12-31 23:59:59'$$, 'after "31.12.1600 23:59:59 UTC" is out of range'),
  ($$'* * * * *', '-infinity'$$, 'after "-infinity" is out of range'),
  ($$'@every 1 second', now(), 'UTC', '-infinity'$$, 'anchor "-infinity" is out of range'),
  ($$'@every 1 second', now(), 'UTC', 'infinity'$$, 'anchor "infinity" is out of range'),
  ($$'@every 1 day', now(), 'UTC', '4714-11-24 00:00 BC'$$, 'anchor "24.11.4714 00:00:00 UTC BC" is out of range')
) as refused (asked, message);
select throws_ok($$select rowcron.next_runs('@every 1 second', 2, now(), 'UTC', '-infinity')$$, 'RCLIM', null, 'several runs neither');
create function pg_temp.hint_of(query text) returns text language plpgsql as $$
declare
  detail text;
  hint text;
begin
  execute query;
  return null;
exception
  when sqlstate 'RCLIM' then
    get stacked diagnostics hint = pg_exception_hint, detail = pg_exception_detail;
    return detail || ' ' || hint;
end;
$$;
select is(pg_temp.hint_of($$select rowcron.next_run('@hourly', '-infinity')$$), 'Allowed: an instant of the years 1601 to 19999. write: after => now()', 'it is told what is allowed');
select is(rowcron.next_run('0 0 * * 5#1', '1601-01-01'), '1601-01-05', 'the first week that can be asked for has its weekdays');
select is(rowcron.next_run('0 0 29 2 *', '19999-12-31 23:59:59.9'), '20000-02-29', 'the last instant that can be asked after has a next run');
select is(rowcron.next_run('@every 1 day', '2026-11-28 12:00', anchor => '0001-01-01'), '2026-11-29', 'an interval may have begun in the year 1');
select is(rowcron.next_run('* * * * *', 'infinity'), null, 'after the end of time there is nothing');
select is((select count(*) from rowcron.next_runs('@daily', null)), 10::bigint, 'how many is left open: ten');
select is((select count(*) || ' ' || max(at) from rowcron.next_runs('@every 100 years', 10000, '2026-01-01', anchor => '2000-01-01') as at), '179 01.01.19900 00:00:00 UTC', 'several runs end where the calendar does');

select * from finish();
rollback;
