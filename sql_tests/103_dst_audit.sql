-- What changes of time do to jobs. The clock is fixed by a function of its name that stands earlier in the search
-- path of all functions.

begin;
select plan(35);
set local timezone to 'UTC';
set local client_min_messages to error;

create role tap_ann;
create role tap_bob;
create role tap_viewer;
grant rowcron_user to tap_ann, tap_bob;
grant rowcron_viewer to tap_viewer;
create schema tap_clock;
create function tap_clock.clock_timestamp() returns timestamptz language sql stable as $$
  select current_setting('tap.at')::timestamptz
$$;
grant usage on schema tap_clock to public;
do $$
declare
  f regprocedure;
begin
  for f in select p.oid from pg_proc as p where p.pronamespace = 'rowcron'::regnamespace and p.provolatile <> 'i' loop
    execute format('alter function %s set search_path to tap_clock, pg_catalog, pg_temp', f);
  end loop;
end
$$;
set local tap.at to '2027-01-01';
set local role tap_ann;
insert into rowcron.job (name, schedule, timezone, command, on_gap, on_fold, starts_at) values
  ('fixed', '30 2 * * *', 'Europe/Berlin', 'select 1', null, null, null),
  ('policies', '30 2 * * *', 'Europe/Berlin', 'select 1', 'skip', 'twice', null),
  ('star', '*/20 * * * *', 'Europe/Berlin', 'select 1', null, null, null),
  ('six', '0 30 2 * * *', 'Europe/Berlin', 'select 1', null, null, null),
  ('outside', '30 4 * * *', 'Europe/Berlin', 'select 1', null, null, null),
  ('several', '0,30 2 * * *', 'Europe/Berlin', 'select 1', null, null, null),
  ('weekday', '30 2 * * mon-fri', 'Europe/Berlin', 'select 1', null, null, null),
  ('half', '15 2 * * *', 'Australia/Lord_Howe', 'select 1', null, null, null),
  ('half past', '45 1 * * *', 'Australia/Lord_Howe', 'select 1', null, null, null),
  ('midnight', '@daily', 'America/Santiago', 'select 1', null, null, null),
  ('utc', '30 2 * * *', 'UTC', 'select 1', null, null, null),
  ('days', '@every 1 day', 'Europe/Berlin', 'select 1', null, null, '2027-01-01 01:30+00'),
  ('hours', '@every 1 hour', 'Europe/Berlin', 'select 1', null, null, '2027-01-01 01:30+00'),
  ('once', '@at 2027-10-31 02:10', 'Europe/Berlin', 'select 1', null, null, null);
create function pg_temp.tap_audit(job text) returns text language sql as $$
  select coalesce(string_agg(concat_ws(' ', to_char(d.changes_at, 'MM-DD HH24:MI'), d.change, to_char(d.first_local, 'HH24:MI'),
    to_char(d.last_local, 'HH24:MI'), d.occurrences, d.effect, to_char(d.runs_at, 'HH24:MI')), ', ' order by d.changes_at), 'none')
  from rowcron.dst_audit('2028-01-01') as d where d.job = tap_audit.job
$$;
select is(pg_temp.tap_audit(c.job), c.said, 'dst_audit: ' || c.job)
from (values
  ('fixed', '03-28 01:00 gap 02:30 02:30 1 moved 01:00, 10-31 01:00 fold 02:30 02:30 1 once 00:30'),
  ('policies', '03-28 01:00 gap 02:30 02:30 1 skipped, 10-31 01:00 fold 02:30 02:30 1 doubled 00:30'),
  ('star', '03-28 01:00 gap 02:00 02:40 3 skipped, 10-31 01:00 fold 02:00 02:40 3 doubled 00:00'),
  ('six', '03-28 01:00 gap 02:30 02:30 1 skipped, 10-31 01:00 fold 02:30 02:30 1 doubled 00:30'),
  ('outside', 'none'),
  ('several', '03-28 01:00 gap 02:00 02:30 2 moved 01:00, 10-31 01:00 fold 02:00 02:30 2 once 00:00'),
  ('weekday', 'none'),
  ('half', '10-02 15:30 gap 02:15 02:15 1 moved 15:30'),
  ('half past', '04-03 15:00 fold 01:45 01:45 1 once 14:45'),
  ('midnight', '09-05 04:00 gap 00:00 00:00 1 moved 04:00'),
  ('utc', 'none'),
  ('days', '03-28 01:00 gap 02:30 02:30 1 moved 01:00, 10-31 01:00 fold 02:30 02:30 1 once 00:30'),
  ('hours', 'none'),
  ('once', '10-31 01:00 fold 02:10 02:10 1 once 00:10')
) as c (job, said);
select is(
  (select array_agg(d.detail order by d.changes_at) from rowcron.dst_audit('2028-01-01') as d where d.job = 'six'),
  array['the clock does not show it that day (six fields follow elapsed time; without the seconds it would be moved)',
    'runs in the first pass and again in the second (six fields follow elapsed time; without the seconds it would be run once)'],
  'it says that the field of seconds changes the rule');
select is(
  (select d.detail from rowcron.dst_audit('2028-01-01') as d where d.job = 'several' and d.change = 'gap'),
  'run together, once, at the first instant after the gap, 03:00:00 (minute and hour are fixed; with a field of seconds it would be skipped)',
  'and that several times of one gap run once');
-- the calendar agrees with the audit
select is(
  (select array_agg(d.job || ' ' || d.runs_at order by d.job, d.runs_at) from rowcron.dst_audit('2028-01-01') as d
   where d.runs_at is not null and d.runs_at is distinct from rowcron.next_run(
     (select j.schedule from rowcron.job as j where j.name = d.job), d.runs_at - interval '1 microsecond', d.timezone, timestamptz '2027-01-01 01:30+00',
     on_gap => (select j.on_gap from rowcron.job as j where j.name = d.job), on_fold => (select j.on_fold from rowcron.job as j where j.name = d.job))),
  null, 'where the audit says that it runs, the calendar runs it');
reset role;
select is((select count(*) from rowcron.dst_audit() as d where d.job = 'fixed'), 2::bigint, 'without an argument it looks a year ahead');
-- changes that max_runs does not reach
set local role tap_ann;
insert into rowcron.job (name, schedule, timezone, command, max_runs, on_gap)
select concat_ws(' ', 'limited', on_gap, n), '30 2 * * *', 'Europe/Berlin', 'select 1', n, on_gap
from unnest('{1,86,87,88,303,304}'::bigint[]) as n, unnest('{null,skip}'::text[]) as on_gap;
reset role;
update rowcron.agenda as a set next_run_at = '2026-12-01 01:30+00', high_water = '2026-11-30' from rowcron.job as j where j.id = a.job_id and j.name in ('limited skip 87', 'limited skip 88');
set local role tap_ann;
select is(pg_temp.tap_audit(c.job), c.said, 'dst_audit: ' || c.job)
from (values
  ('limited 1', 'none'),
  ('limited 86', 'none'),
  ('limited 87', '03-28 01:00 gap 02:30 02:30 1 moved 01:00'),
  ('limited 303', '03-28 01:00 gap 02:30 02:30 1 moved 01:00'),
  ('limited 304', '03-28 01:00 gap 02:30 02:30 1 moved 01:00, 10-31 01:00 fold 02:30 02:30 1 once 00:30'),
  ('limited skip 86', 'none'),
  ('limited skip 304', '03-28 01:00 gap 02:30 02:30 1 skipped, 10-31 01:00 fold 02:30 02:30 1 once 00:30'),
  -- of a month of downtime one is run
  ('limited skip 87', 'none'),
  ('limited skip 88', '03-28 01:00 gap 02:30 02:30 1 skipped')
) as c (job, said);
-- passes of a fold that the window or max_runs cuts off
insert into rowcron.job (name, schedule, timezone, command, starts_at, ends_at, max_runs) values
  ('cut', '0 30 2 * * *', 'Europe/Berlin', 'select 1', '2027-06-01', '2027-10-31 01:00+00', null),
  ('begun', '0 30 2 * * *', 'Europe/Berlin', 'select 1', '2027-10-31 01:00+00', null, null),
  ('used up', '0 30 2 * * *', 'Europe/Berlin', 'select 1', '2027-10-30 12:00+00', null, 1),
  ('not used up', '0 30 2 * * *', 'Europe/Berlin', 'select 1', '2027-10-30 12:00+00', null, 2),
  ('ended', '0 30 2 * * *', 'Europe/Berlin', 'select 1', '2027-06-01', '2027-10-31 00:30+00', null);
select is(pg_temp.tap_audit(c.job), c.said, 'dst_audit: ' || c.job)
from (values
  ('cut', '10-31 01:00 fold 02:30 02:30 1 once 00:30'),
  ('begun', '10-31 01:00 fold 02:30 02:30 1 once 01:30'),
  ('used up', '10-31 01:00 fold 02:30 02:30 1 once 00:30'),
  ('not used up', '10-31 01:00 fold 02:30 02:30 1 doubled 00:30'),
  ('ended', 'none')
) as c (job, said);
set local role tap_bob;
select is((select count(*) from rowcron.dst_audit('2028-01-01')), 0::bigint, 'somebody else''s jobs are not audited');
set local role tap_viewer;
select ok((select count(*) from rowcron.dst_audit('2028-01-01')) > 10, 'a viewer audits all');
reset role;

-- where time ends
select is((select count(*) from rowcron.dst_audit('-infinity')), 0::bigint, 'up to an instant that has been there is nothing');

select * from finish();
rollback;
