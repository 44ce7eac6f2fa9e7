-- Time becomes runs: what is due, missed, overlapping, over.

begin;
select plan(131);
set local timezone to 'UTC';
set local client_min_messages to error;

create role tap_ann;
grant rowcron_user to tap_ann;

-- A job a queue of its own, accounted for up to midnight of 2030-01-01, and due after that.
create table public.tap_cases (
  name text, schedule text, on_missed text default 'latest', missed_grace interval default '1 minute',
  max_missed integer default 100, on_overlap text default 'skip', max_runs bigint, ends_at timestamptz,
  jitter interval, at text[], runs text, entries text, following text
);
create function public.tap_store(high_water timestamptz default '2030-01-01') returns void
language plpgsql as $$
begin
  set local role tap_ann;
  insert into rowcron.job (
    name, queue, schedule, command, on_missed, missed_grace, max_missed, on_overlap, max_runs,
    starts_at, ends_at, jitter
  )
  select
    c.name, c.name, c.schedule, 'select 1', c.on_missed, c.missed_grace, c.max_missed, c.on_overlap,
    c.max_runs, case when c.schedule like '@every%' then tap_store.high_water end, c.ends_at, c.jitter
  from public.tap_cases as c;
  reset role;
  update rowcron.agenda as a
  set
    high_water = tap_store.high_water,
    next_run_at = rowcron._next_in_window(j, a.parsed, tap_store.high_water, 0)
  from rowcron.job as j
  where j.id = a.job_id and j.owner = 'tap_ann'::regrole;
end
$$;
create function public.tap_time(at timestamptz) returns text language sql as $$
  select to_char(at, 'HH24:MI:SS')
$$;
create function public.tap_runs(name text) returns text language sql as $$
  select coalesce(string_agg(
    public.tap_time(r.scheduled_for) || ' ' || coalesce(r.waits_for, r.state), ', ' order by r.scheduled_for), 'none')
  from rowcron.run as r where r.job = name
$$;
create function public.tap_entries(name text) returns text language sql as $$
  select coalesce(string_agg(format('%s %s %s-%s %s', l.outcome, l.occurrences,
    public.tap_time(l.first_scheduled_for), public.tap_time(l.scheduled_for),
    regexp_replace(l.reason, '\d+', 'N')), '; ' order by l.first_scheduled_for), 'none')
  from rowcron.ledger as l where l.job = name
$$;
create function public.tap_following(name text) returns text language sql as $$
  select coalesce(to_char(a.next_run_at, 'MM-DD HH24:MI:SS'), 'none')
  from rowcron.agenda as a join rowcron.job as j on j.id = a.job_id where j.name = tap_following.name
$$;
grant select on public.tap_cases to tap_ann;

insert into public.tap_cases (name, schedule, on_missed, missed_grace, max_missed, max_runs, ends_at, at, runs, entries, following)
values
  ('on time: one run', '* * * * *', 'latest', '1 min', 100, null, null, '{00:01:00}',
    '00:01:00 ready', 'none', '01-01 00:02:00'),
  ('late, nothing passed over', '* * * * *', 'latest', '1 min', 100, null, null, '{00:01:59}',
    '00:01:00 ready', 'none', '01-01 00:02:00'),
  ('not yet due', '* * * * *', 'latest', '1 min', 100, null, null, '{00:00:59}',
    'none', 'none', '01-01 00:01:00'),
  ('latest runs the last of two, misses the first', '* * * * *', 'latest', '1 min', 100, null, null, '{00:02:30}',
    '00:02:00 ready', 'missed 1 00:01:00-00:01:00 only the latest of several that were due runs', '01-01 00:03:00'),
  ('latest runs the last of ten', '* * * * *', 'latest', '1 min', 100, null, null, '{00:10:00}',
    '00:10:00 ready', 'missed 9 00:01:00-00:09:00 only the latest of several that were due runs', '01-01 00:11:00'),
  ('latest runs even a very old one', '@yearly', 'latest', '1 min', 100, null, null, '{2031-12-31 00:00}',
    '00:00:00 ready', 'none', '01-01 00:00:00'),
  ('skip runs one within the grace', '* * * * *', 'skip', '1 min', 100, null, null, '{00:01:59}',
    '00:01:00 ready', 'none', '01-01 00:02:00'),
  ('skip runs one exactly as old as the grace', '*/5 * * * *', 'skip', '1 min', 100, null, null, '{00:06:00}',
    '00:05:00 ready', 'none', '01-01 00:10:00'),
  ('skip misses one older than the grace', '*/5 * * * *', 'skip', '1 min', 100, null, null, '{00:06:01}',
    'none', 'missed 1 00:05:00-00:05:00 older than missed_grace when found', '01-01 00:10:00'),
  ('skip misses several that are all too old', '*/5 * * * *', 'skip', '1 min', 100, null, null, '{00:18:00}',
    'none', 'missed 3 00:05:00-00:15:00 older than missed_grace when found', '01-01 00:20:00'),
  ('skip misses the old and runs the last', '*/5 * * * *', 'skip', '1 min', 100, null, null, '{00:15:30}',
    '00:15:00 ready', 'missed 2 00:05:00-00:10:00 older than missed_grace when found', '01-01 00:20:00'),
  ('skip misses the old, and the young but the last', '* * * * *', 'skip', '2 min', 100, null, null, '{00:10:30}',
    '00:10:00 ready', 'missed 8 00:01:00-00:08:00 older than missed_grace when found; '
    || 'missed 1 00:09:00-00:09:00 only the latest of several that were due runs', '01-01 00:11:00'),
  ('skip with a grace older than the mark counts from the mark', '* * * * *', 'skip', '1 day', 100, null, null, '{00:05:00}',
    '00:05:00 ready', 'missed 4 00:01:00-00:04:00 only the latest of several that were due runs', '01-01 00:06:00'),
  ('all runs them in order, one after the other', '* * * * *', 'all', '1 min', 100, null, null, '{00:04:10}',
    '00:01:00 ready, 00:02:00 overlap, 00:03:00 overlap, 00:04:00 overlap', 'none', '01-01 00:05:00'),
  ('all runs at most max_missed, the last ones', '* * * * *', 'all', '1 min', 3, null, null, '{00:10:10}',
    '00:08:00 ready, 00:09:00 overlap, 00:10:00 overlap', 'missed 7 00:01:00-00:07:00 more than max_missed were due', '01-01 00:11:00'),
  ('all of exactly max_missed misses none', '* * * * *', 'all', '1 min', 3, null, null, '{00:03:10}',
    '00:01:00 ready, 00:02:00 overlap, 00:03:00 overlap', 'none', '01-01 00:04:00'),
  ('all runs at most what max_runs leaves', '* * * * *', 'all', '1 min', 100, 2, null, '{00:03:10}',
    '00:02:00 ready, 00:03:00 overlap', 'missed 1 00:01:00-00:01:00 more than max_runs were due', 'none'),
  ('max_runs reached ends the schedule', '* * * * *', 'latest', '1 min', 100, 1, null, '{00:01:00}',
    '00:01:00 ready', 'none', 'none'),
  ('an occurrence at ends_at does not count', '* * * * *', 'latest', '1 min', 100, null, '2030-01-01 00:03', '{00:05:00}',
    '00:02:00 ready', 'missed 1 00:01:00-00:01:00 only the latest of several that were due runs', 'none'),
  ('all stops at ends_at', '* * * * *', 'all', '1 min', 100, null, '2030-01-01 00:03', '{00:05:00}',
    '00:01:00 ready, 00:02:00 overlap', 'none', 'none'),
  ('every 90 seconds from its start', '@every 90 seconds', 'latest', '1 min', 100, null, null, '{00:05:00}',
    '00:04:30 ready', 'missed 2 00:01:30-00:03:00 only the latest of several that were due runs', '01-01 00:06:00'),
  ('every 200 ms, all', '@every 200 milliseconds', 'all', '1 min', 2, null, null, '{00:00:00.9}',
    '00:00:00 ready, 00:00:00 overlap', 'missed 2 00:00:00-00:00:00 more than max_missed were due', '01-01 00:00:01'),
  ('@at runs once, however late', '@at 2030-01-01 00:10', 'latest', '1 min', 100, null, null, '{2030-01-05 00:00}',
    '00:10:00 ready', 'none', 'none'),
  ('@at with skip is missed when too late', '@at 2030-01-01 00:10', 'skip', '1 min', 100, null, null, '{2030-01-05 00:00}',
    'none', 'missed 1 00:10:00-00:10:00 older than missed_grace when found', 'none'),
  ('@after is due once, until its run has ended', '@after 5 minutes', 'latest', '1 min', 100, null, null, '{00:30:00}',
    '00:05:00 ready', 'none', 'none');
select public.tap_store();
select rowcron._fire_lane(c.name, 'sql', ('2030-01-01 ' || c.at[1])::timestamptz, 256)
from public.tap_cases as c where c.at[1] !~ '^2';
select rowcron._fire_lane(c.name, 'sql', c.at[1]::timestamptz, 256) from public.tap_cases as c where c.at[1] ~ '^2';
select is(public.tap_runs(c.name), c.runs, c.name || ': runs') from public.tap_cases as c;
select is(public.tap_entries(c.name), c.entries, c.name || ': entries') from public.tap_cases as c;
select is(public.tap_following(c.name), c.following, c.name || ': what follows') from public.tap_cases as c;

select is(
  (select count(*) from rowcron.agenda as a where a.next_run_at <= a.high_water), 0::bigint,
  'what is next is always above the high-water mark');
select is(
  (select array[l.first_scheduled_for, l.scheduled_for, l.due_at] from rowcron.ledger as l where l.job = 'latest runs the last of ten'),
  array['2030-01-01 00:01', '2030-01-01 00:09', '2030-01-01 00:01']::timestamptz[],
  'a missed entry names the first and the last of its occurrences, and was due at the first');
select ok(
  (select bool_and(l.final and l.run_id is null and l.attempt is null and l.owner = 'tap_ann'::regrole and l.queue = l.job)
   from rowcron.ledger as l where l.outcome = 'missed' and l.queue in (select c.name from public.tap_cases as c)),
  'a missed entry is final, has no run, and names owner and queue');

-- firing again
select is((rowcron._fire_lane(c.name, 'sql', '2030-01-01 00:01', 256)).fired, 0, 'once fired it is not due again')
from public.tap_cases as c where c.name = 'on time: one run';
select is((rowcron._fire_lane('late, nothing passed over', 'sql', '2029-12-31 23:00', 256)).fired, 0,
  'a clock that jumps back fires nothing again');
select is(public.tap_following('late, nothing passed over'), '01-01 00:02:00', 'nor does it move the job');

-- overlap
truncate public.tap_cases;
insert into public.tap_cases (name, schedule, on_missed, on_overlap, max_runs, at, runs, entries, following) values
  ('skip while live', '* * * * *', 'latest', 'skip', null, '{00:01,00:02,00:03}',
    '00:01:00 ready', 'skipped 1 00:02:00-00:02:00 run N is still live; skipped 1 00:03:00-00:03:00 run N is still live', '01-01 00:04:00'),
  ('wait lets one stand in line', '* * * * *', 'latest', 'wait', null, '{00:01,00:02,00:03}',
    '00:01:00 ready, 00:02:00 overlap', 'skipped 1 00:03:00-00:03:00 run N is still live', '01-01 00:04:00'),
  ('allow lets all', '* * * * *', 'latest', 'allow', null, '{00:01,00:02,00:03}',
    '00:01:00 ready, 00:02:00 ready, 00:03:00 ready', 'none', '01-01 00:04:00'),
  ('allow lets all that were missed', '* * * * *', 'all', 'allow', null, '{00:03}',
    '00:01:00 ready, 00:02:00 ready, 00:03:00 ready', 'none', '01-01 00:04:00'),
  ('a skipped occurrence is no run of max_runs', '* * * * *', 'latest', 'skip', 2, '{00:01,00:02}',
    '00:01:00 ready', 'skipped 1 00:02:00-00:02:00 run N is still live', '01-01 00:03:00'),
  ('missed and skipped at once', '* * * * *', 'latest', 'skip', null, '{00:01,00:05}',
    '00:01:00 ready', 'missed 3 00:02:00-00:04:00 only the latest of several that were due runs; '
    || 'skipped 1 00:05:00-00:05:00 run N is still live', '01-01 00:06:00');
delete from rowcron.job where owner = 'tap_ann'::regrole;
select public.tap_store();
select rowcron._fire_lane(c.name, 'sql', ('2030-01-01 ' || c.at[i])::timestamptz, 256)
from public.tap_cases as c cross join generate_series(1, 3) as i where c.at[i] is not null order by c.name, i;
select is(public.tap_runs(c.name), c.runs, c.name || ': runs') from public.tap_cases as c;
select is(public.tap_entries(c.name), c.entries, c.name || ': entries') from public.tap_cases as c;
select is(public.tap_following(c.name), c.following, c.name || ': what follows') from public.tap_cases as c;
select is(
  (select l.reason from rowcron.ledger as l where l.job = 'skip while live' and l.scheduled_for = '2030-01-01 00:02'),
  (select format('run %s is still live', r.id) from rowcron.run as r where r.job = 'skip while live'),
  'a skipped entry names the live run');
select is(
  (select array[a.runs_fired::text, public.tap_time(a.last_run_at)] from rowcron.agenda as a join rowcron.job as j on j.id = a.job_id
   where j.name = 'skip while live'),
  array['1', '00:01:00'], 'an occurrence that is skipped is not counted as a run');

update rowcron.run set state = 'waiting', waits_for = 'time', due_at = '2031-01-01', attempt = 2 where job = 'skip while live';
select rowcron._fire_lane('skip while live', 'sql', '2030-01-01 00:04', 256);
select is(public.tap_runs('skip while live'), '00:01:00 time', 'a waiting retry is live');

delete from rowcron.run where job = 'skip while live';
set local role tap_ann;
select rowcron.enqueue('skip while live');
reset role;
select rowcron._fire_lane('skip while live', 'sql', '2030-01-01 00:05', 256);
select is(
  (select count(*) from rowcron.run as r where r.job = 'skip while live' and r.scheduled_for = '2030-01-01 00:05'), 1::bigint,
  'a run on demand is no overlap');

-- jitter
truncate public.tap_cases;
insert into public.tap_cases (name, schedule, jitter)
select 'jitter ' || n, '* * * * *', '10 minutes' from generate_series(1, 50) as n;
delete from rowcron.job where owner = 'tap_ann'::regrole;
select public.tap_store();
select rowcron._fire_lane(c.name, 'sql', '2030-01-01 00:01', 256) from public.tap_cases as c;
select is(
  (select count(*) from rowcron.run as r where r.job like 'jitter %' and r.due_at >= r.scheduled_for and r.due_at < '2030-01-01 00:02'),
  50::bigint, 'jitter makes a run due later, before the next occurrence');
select cmp_ok(
  (select count(distinct r.due_at) from rowcron.run as r where r.job like 'jitter %'), '>', 40::bigint, 'jitter spreads');
select is(
  (select count(*) from rowcron.run as r where r.job like 'jitter %' and (r.waits_for = 'time') is distinct from (r.due_at > '2030-01-01 00:01')),
  0::bigint, 'a run that is due later waits');
select is(
  (select count(*) from rowcron.run as r join rowcron.job as j on j.id = r.job_id
   where r.job like 'jitter %' and rowcron._jittered(j, r.scheduled_for, '2030-01-01 00:02') <> r.due_at),
  0::bigint, 'the jitter of an occurrence is always the same');

-- the session's time zone, where a day has 23 hours
set local role tap_ann;
insert into rowcron.job (name, schedule, command, jitter) select 'of days ' || n, '@every 30 days', 'select 1', '29 days' from generate_series(1, 20) as n;
reset role;
create temp table tap_due as select array(select rowcron._jittered(j, '2030-03-30 00:00Z', '2030-04-29 00:00Z') from rowcron.job as j where j.name like 'of days%' order by j.id) as at;
set local timezone to 'Europe/Berlin';
select is(array(select rowcron._jittered(j, '2030-03-30 00:00Z', '2030-04-29 00:00Z') from rowcron.job as j where j.name like 'of days%' order by j.id),
  (select d.at from tap_due as d), 'jitter of days is the same in a session of another time zone');
delete from rowcron.job where name like 'of days%';
truncate public.tap_cases;
insert into public.tap_cases (name, schedule, on_missed, missed_grace)
values ('a grace of one day', '30 12 * * *', 'skip', '1 day'), ('a grace of one day, several', '30 */6 * * *', 'skip', '1 day');
select public.tap_store('2030-03-30 12:00Z');
select is((select f.readied from rowcron._fire_lane('a grace of one day', 'sql', '2030-03-31 12:00Z', 10) as f), 1, 'a grace of a day has 24 hours there');
select rowcron._fire_lane('a grace of one day, several', 'sql', '2030-03-31 12:00Z', 10);
select is((select array_agg(l.reason) from rowcron.ledger as l where l.job like 'a grace of one day%'), '{only the latest of several that were due runs}', 'also where several are due');
set local timezone to 'UTC';
truncate public.tap_cases;

-- a lane, a chunk
truncate public.tap_cases;
insert into public.tap_cases (name, schedule) select 'chunk ' || n, '* * * * *' from generate_series(1, 10) as n;
delete from rowcron.job where owner = 'tap_ann'::regrole;
select public.tap_store();
update rowcron.job set queue = 'chunk' where name like 'chunk %';
update rowcron.agenda as a set high_water = '2030-01-01', next_run_at = '2030-01-01 00:01'
from rowcron.job as j where j.id = a.job_id and j.name like 'chunk %';
select is((rowcron._fire_lane('chunk', 'http', '2030-01-01 00:01', 256)).fired, 0, 'another kind is not fired');
select is((rowcron._fire_lane('default', 'sql', '2030-01-01 00:01', 256)).fired, 0, 'another queue is not fired');
select is((rowcron._fire_lane('chunk', 'sql', '2030-01-01 00:01', 4)).fired, 4, 'a chunk fires no more than it may');
select is((rowcron._fire_lane('chunk', 'sql', '2030-01-01 00:01', 256)).fired, 6, 'the next chunk fires the rest');
select is((select count(*) from rowcron.run as r where r.queue = 'chunk'), 10::bigint, 'each job has its run');

-- a year of seconds
truncate public.tap_cases;
insert into public.tap_cases (name, schedule, on_missed, missed_grace) values
  ('year latest', '* * * * * *', 'latest', '1 min'),
  ('year skip', '* * * * * *', 'skip', '1 min'),
  ('year all', '* * * * * *', 'all', '1 min'),
  ('year every', '@every 1 second', 'latest', '1 min');
delete from rowcron.job where owner = 'tap_ann'::regrole;
select public.tap_store();
update rowcron.job set timezone = 'Europe/Berlin' where name = 'year skip';
update rowcron.agenda as a set high_water = '2030-01-01', next_run_at = '2030-01-01 00:00:01'
from rowcron.job as j where j.id = a.job_id and j.name = 'year skip';
create table public.tap_clock as select clock_timestamp() as began;
select rowcron._fire_lane(c.name, 'sql', '2031-01-01', 256) from public.tap_cases as c;
select cmp_ok(clock_timestamp() - (select c.began from public.tap_clock as c), '<', interval '2 seconds',
  'a year of a schedule of every second is settled without visiting each');
select is(
  (select array_agg(l.job || ' ' || l.occurrences || ' ' || l.reason order by l.job, l.occurrences desc) from rowcron.ledger as l where l.job like 'year %'),
  array[
    'year all 31535900 more than max_missed were due',
    'year every 31535999 only the latest of several that were due runs',
    'year latest 31535999 only the latest of several that were due runs',
    'year skip 31535939 older than missed_grace when found',
    'year skip 60 only the latest of several that were due runs'],
  'the entries count every second of the year');
select is(
  (select array_agg(n order by job) from (select r.job, count(*) as n from rowcron.run as r where r.job like 'year %' group by r.job) as r),
  array[100, 1, 1, 1]::bigint[], 'all runs max_missed of them, the others one');

-- a schedule that cannot be computed any more
truncate public.tap_cases;
insert into public.tap_cases (name, schedule) values ('broken zone', '* * * * *'), ('whole zone', '* * * * *');
delete from rowcron.job where owner = 'tap_ann'::regrole;
select public.tap_store();
set local session_replication_role to replica;
update rowcron.job set timezone = 'Atlantis/Capital' where name = 'broken zone';
update rowcron.job set queue = 'zones' where name in ('broken zone', 'whole zone');
update rowcron.agenda as a set queue = 'zones' from rowcron.job as j where j.id = a.job_id and j.queue = 'zones';
set local session_replication_role to origin;
select lives_ok($$select rowcron._fire_lane('zones', 'sql', '2030-01-01 00:05', 256)$$,
  'a job whose schedule cannot be computed harms no other');
select is(public.tap_runs('whole zone'), '00:05:00 ready', 'the other job runs');
select matches(public.tap_entries('broken zone'), '^missed 1 00:01:00-00:01:00 schedule cannot be computed: .*Atlantis/Capital',
  'the entry says why the schedule cannot be computed');
select is(public.tap_following('broken zone'), 'none', 'such a job is taken off the agenda');
set local role tap_ann;
select lives_ok($$update rowcron.job set timezone = 'UTC' where name = 'broken zone'$$, 'its zone can be corrected');
select isnt(public.tap_following('broken zone'), 'none', 'with which it is on the agenda again');
reset role;

-- @reboot
set local role tap_ann;
insert into rowcron.job (name, queue, schedule, command, on_overlap, max_runs, enabled) values
  ('boot', 'boot', '@reboot', 'select 1', 'skip', null, true),
  ('boot wait', 'boot', '@reboot', 'select 1', 'wait', null, true),
  ('boot twice', 'boot', '@reboot', 'select 1', 'allow', 2, true),
  ('boot paused', 'boot', '@reboot', 'select 1', 'skip', null, false);
reset role;
select is(rowcron._fire_boot('boot', 'sql', pg_postmaster_start_time(), clock_timestamp()), 0,
  'a @reboot job that is stored waits for the next start');
select is(rowcron._fire_boot('boot', 'sql', '2031-01-01', '2031-01-01 00:01'), 3, 'each start fires the @reboot jobs');
select is(rowcron._fire_boot('boot', 'sql', '2031-01-01', '2031-01-01 00:02'), 0, 'and fires them once');
select is(public.tap_entries('boot paused'), 'skipped 1 -00:00:00 paused', 'a paused one is skipped');
select rowcron._fire_boot('boot', 'sql', '2031-01-02', '2031-01-02');
select rowcron._fire_boot('boot', 'sql', '2031-01-03', '2031-01-03');
select is(
  (select array_agg(r.job || ' ' || n order by r.job) from (select r.job, count(*) as n from rowcron.run as r where r.queue = 'boot' group by r.job) as r),
  array['boot 1', 'boot twice 2', 'boot wait 3'], 'each start is judged by on_overlap and max_runs');
select is(
  (select count(*) from rowcron.ledger as l where l.job = 'boot' and l.outcome = 'skipped' and l.reason ~ '^run \d+ is still live$'), 2::bigint,
  'a start that finds the last one''s run still live is skipped');
select is(
  (select a.runs_fired from rowcron.agenda as a join rowcron.job as j on j.id = a.job_id where j.name = 'boot'), 1::bigint,
  'and is not counted as a run');

select * from finish();
rollback;
