-- What became and will become of each occurrence. The clock is fixed by a function of its
-- name that stands earlier in the search path of all functions.

begin;
select plan(30);
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
set local tap.at to '2027-06-01 11:00';

create function public.tap_seen(job text, low timestamptz, high timestamptz) returns text language sql as $$
  select coalesce(string_agg(to_char(o.scheduled_for, 'HH24:MI') || ' ' || o.state || coalesce(' ' || o.run_id, '')
    || coalesce(' (' || o.detail || ')', ''), ', ' order by o.scheduled_for), 'none')
  from rowcron.occurrences(job, low, high, 'tap_ann') as o
$$;

set local role tap_ann;
insert into rowcron.job (name, schedule, command, queue) values
  ('five', '*/5 * * * *', 'select 1', 'tap five'), ('lagging', '*/5 * * * *', 'select 1', 'tap lagging'),
  ('limited', '*/5 * * * *', 'select 1', 'tap limited'), ('asleep', '*/5 * * * *', 'select 1', 'tap asleep'),
  ('renamed', '*/5 * * * *', 'select 1', 'tap renamed'), ('edited', '*/5 * * * *', 'select 1', 'tap edited'),
  ('seconds', '* * * * * *', 'select 1', 'tap seconds'), ('demand', null, 'select 1', 'tap demand'),
  ('pause', '@after 5 minutes', 'select 1', 'tap pause'), ('ended', '*/5 * * * *', 'select 1', 'tap ended');
update rowcron.job set max_runs = 3 where name = 'limited';
update rowcron.job set ends_at = '2027-06-01 12:15' where name = 'ended';
reset role;

-- all three sources: fired at 11:31, that run lives on; then nobody until 12:00:30
set local tap.at to '2027-06-01 11:31';
select rowcron._fire_lane('tap five', 'sql', '2027-06-01 11:31', 256);
set local tap.at to '2027-06-01 12:00:30';
select is(public.tap_seen('five', '2027-06-01 11:15', '2027-06-01 12:15'),
  (select format('11:15 missed (only the latest of several that were due runs), '
    || '11:20 missed (only the latest of several that were due runs), 11:25 missed (only the latest of several that were due runs), '
    || '11:30 ready %s, 11:35 due (missed: only the latest of several that were due runs), '
    || '11:40 due (missed: only the latest of several that were due runs), 11:45 due (missed: only the latest of several that were due runs), '
    || '11:50 due (missed: only the latest of several that were due runs), 11:55 due (missed: only the latest of several that were due runs), '
    || '12:00 due (runs as soon as a worker fires it), 12:05 planned, 12:10 planned', r.id)
   from rowcron.run as r where r.job = 'five'),
  'each occurrence from the ledger, the live runs and the schedule');
select is((select count(*) from rowcron.occurrences('five', '2027-06-01 11:00', '2027-06-01 11:30', 'tap_ann') as o), 5::bigint,
  'the one at the high-water mark from the beginning is no occurrence, from is included, until not');
select is(public.tap_seen('five', '2027-06-01 11:12', '2027-06-01 11:18'), '11:15 missed (only the latest of several that were due runs)',
  'a stretch inside a coalesced entry shows its occurrences there');
select is(public.tap_seen('five', '2027-06-01 11:16', '2027-06-01 11:19'), 'none', 'a stretch between two occurrences is empty');
select is(public.tap_seen('five', '2027-06-01 12:00:01', '2027-06-01 12:05:01'), '12:05 planned', 'planned alone');
select is(
  (select count(distinct o.scheduled_for) || ' of ' || count(*) from rowcron.occurrences('five', '2027-06-01', '2027-06-08', 'tap_ann') as o),
  '1883 of 1883', 'a week: each occurrence after the beginning once');

-- what was planned comes true
select is((select string_agg(to_char(o.scheduled_for, 'HH24:MI '), '') from rowcron.occurrences('five', '2027-06-01 11:31', '2027-06-01 12:01', 'tap_ann') as o where o.detail like 'runs%'), '12:00 ', 'the forecast: 12:00 will run');
update rowcron.run set state = 'running', waits_for = null, worker_id = gen_random_uuid(), seal = gen_random_uuid(), started_at = '2027-06-01 11:31' where job = 'five';
select is((select o.state from rowcron.occurrences('five', '2027-06-01 11:30', '2027-06-01 11:31', 'tap_ann') as o), 'running', 'a running run');
select rowcron._end_run(r, 'failed', 'exit') from rowcron.run as r where r.job = 'five';
select is((select o.state || ' ' || o.detail || ' ' || (o.run_id is not null) from rowcron.occurrences('five', '2027-06-01 11:30', '2027-06-01 11:31', 'tap_ann') as o), 'failed exit true', 'and what became of it');
select rowcron._fire_lane('tap five', 'sql', '2027-06-01 12:00:30', 256);
select is((select o.state from rowcron.occurrences('five', '2027-06-01 12:00', '2027-06-01 12:01', 'tap_ann') as o), 'ready', 'what was due runs, as foretold');
select is((select string_agg(distinct o.state, ' ') from rowcron.occurrences('five', '2027-06-01 11:35', '2027-06-01 12:00', 'tap_ann') as o), 'missed', 'what was to be missed is missed');

-- limits, windows, pauses
select is(public.tap_seen('limited', '2027-06-01 11:55', '2027-06-01 13:00'),
  '11:55 due (missed: only the latest of several that were due runs), 12:00 due (runs as soon as a worker fires it), 12:05 planned, 12:10 planned',
  'max_runs counts what is due and what is planned');
select is(public.tap_seen('limited', '2027-06-01 12:10', '2027-06-01 13:00'), '12:10 planned', 'also when the stretch begins later');
select is(public.tap_seen('limited', '2027-06-01 12:15', '2027-06-01 13:00'), 'none', 'after them nothing');
select is(public.tap_seen('ended', '2027-06-01 12:05', '2027-06-01 13:00'), '12:05 planned, 12:10 planned', 'an occurrence at ends_at does not count');
set local role tap_ann;
set local tap.at to '2027-06-01 11:53';
select rowcron.pause('asleep');
set local tap.at to '2027-06-01 12:00:30';
reset role;
select is(public.tap_seen('asleep', '2027-06-01 11:00', '2027-06-01 12:10'),
  '11:05 missed (paused before a worker fired it), 11:10 missed (paused before a worker fired it), 11:15 missed (paused before a worker fired it), '
  || '11:20 missed (paused before a worker fired it), 11:25 missed (paused before a worker fired it), 11:30 missed (paused before a worker fired it), '
  || '11:35 missed (paused before a worker fired it), 11:40 missed (paused before a worker fired it), 11:45 missed (paused before a worker fired it), '
  || '11:50 missed (paused before a worker fired it), 11:55 paused (skipped, by the pause), 12:00 paused (skipped, by the pause), 12:05 paused (skipped if still paused by then)', 'a paused job');
select is(public.tap_seen('demand', '2027-06-01', '2027-06-02'), 'none', 'a job on demand has no occurrences');
select is(public.tap_seen('pause', '2027-06-01', '2027-06-02'), '11:05 due (runs as soon as a worker fires it)', 'of @after only the next is known');

-- edits and names
select rowcron._fire_lane('tap renamed', 'sql', '2027-06-01 11:08', 256);
select rowcron._end_run(r, 'succeeded', null) from rowcron.run as r where r.job = 'renamed';
select rowcron._fire_lane('tap edited', 'sql', '2027-06-01 11:21', 256);
set local role tap_ann;
update rowcron.job set name = 'anew' where name = 'renamed';
update rowcron.job set schedule = '0 0 * * *' where name = 'edited';
select is((select o.state from rowcron.occurrences('anew', '2027-06-01 11:05', '2027-06-01 11:06', 'tap_ann') as o), 'succeeded', 'a renamed job keeps what became of its occurrences');
select is(public.tap_seen('edited', '2027-06-01 11:00', '2027-06-01 11:20'),
  '11:05 missed (only the latest of several that were due runs; stands for 3 occurrences from 2027-06-01 11:05:00 UTC to 2027-06-01 11:15:00 UTC, of a schedule that has changed since), '
  || '11:15 missed (only the latest of several that were due runs; stands for 3 occurrences from 2027-06-01 11:05:00 UTC to 2027-06-01 11:15:00 UTC, of a schedule that has changed since)',
  'an entry of an earlier schedule shows its ends, and for how many it stands');

-- bounds, rights, errors
select is((select count(*) || ' ' || max(o.scheduled_for) from rowcron.occurrences('seconds', '2027-06-02', '2028-06-02') as o),
  '10000 2027-06-02 02:46:39+00', 'at most 10,000, the first ones');
select is((select count(*) from rowcron.occurrences('seconds', '2027-06-02 02:46:39.000001', '2027-06-02 02:47') as o), 20::bigint, 'from there one can go on');
select throws_ok($$select * from rowcron.occurrences('five', null, '2027-06-01')$$, 'RCLIM', null, 'a stretch without an end is refused');
select throws_ok($$select * from rowcron.occurrences('five', '-infinity', 'infinity')$$, 'RCLIM', null, 'and an endless one');
select throws_ok($$select * from rowcron.occurrences('five', '294276-01-01', '294276-12-31')$$, 'RCLIM', null, 'and one that no calendar reaches');
select is((select count(*) from rowcron.occurrences('five', '4714-11-24 00:00 BC', '2027-06-01')), (select count(*) from rowcron.occurrences('five', '2000-01-01', '2027-06-01')), 'before all time there were none');
select is((select count(*) from rowcron.occurrences('five', '4714-11-24 00:00 BC', '4714-11-25 00:00 BC')), 0::bigint, 'none at all');
select is((select count(*) from rowcron.occurrences('five', '19999-12-31 22:59:30', '294276-12-31')), 12::bigint, 'they are listed up to the year 19999');
set local role tap_bob;
select throws_ok($$select * from rowcron.occurrences('five', '2027-06-01', '2027-06-02', 'tap_ann')$$, 'RCNOJ', null, 'somebody else''s job is as none');
set local role tap_viewer;
select is((select count(*) from rowcron.occurrences('five', '2027-06-01 12:00', '2027-06-01 12:01', 'tap_ann') as o), 1::bigint, 'a viewer sees everybody''s');
reset role;

select * from finish();
rollback;
