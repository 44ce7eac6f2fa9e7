-- The agenda follows the job, and the books are closed before an edit.

begin;
select plan(90);
set local timezone to 'UTC';
set local client_min_messages to error;

create role tap_ann;
create role tap_operator;
grant rowcron_user to tap_ann;
grant rowcron_operator to tap_operator;

create function public.tap_agenda(job_name text) returns rowcron.agenda language sql as $$
  select a from rowcron.agenda as a join rowcron.job as j on j.id = a.job_id where j.name = job_name
$$;
create function public.tap_next(job_name text) returns timestamptz language sql as $$
  select (public.tap_agenda(job_name)).next_run_at
$$;
-- the job's clock is set back: nothing has been fired for so long
create function public.tap_neglect(job_name text, since timestamptz) returns void language sql as $$
  update rowcron.agenda as a
  set high_water = since,
    next_run_at = case when a.enabled then rowcron._next_in_window(j, a.parsed, since, a.runs_fired) end
  from rowcron.job as j
  where j.id = a.job_id and j.name = job_name
$$;
create function public.tap_entries(job_name text) returns text language sql as $$
  select coalesce(string_agg(concat_ws(' ', l.outcome, l.occurrences, l.reason), '; ' order by l.first_scheduled_for), 'none')
  from rowcron.ledger as l where l.job = job_name
$$;

set local role tap_ann;
create temporary table stamps as select clock_timestamp() as began;
insert into rowcron.job (name, schedule, command, timezone, starts_at, ends_at, enabled) values
  ('daily', '0 3 * * *', 'select 1', 'UTC', null, null, true),
  ('berlin', '0 3 * * *', 'select 1', 'Europe/Berlin', null, null, true),
  ('later', '0 3 * * *', 'select 1', 'UTC', '2040-05-05 03:00', null, true),
  ('over', '0 3 * * *', 'select 1', 'UTC', '2020-01-01', '2020-02-01', true),
  ('paused', '0 3 * * *', 'select 1', 'UTC', null, null, false),
  ('demand', null, 'select 1', 'UTC', null, null, true),
  ('boot', '@reboot', 'select 1', 'UTC', null, null, true),
  ('once', '@at 2040-01-01 12:00', 'select 1', 'Europe/Berlin', null, null, true),
  ('once in the past, paused', '@at 2020-01-01 12:00', 'select 1', 'UTC', null, null, false),
  ('every', '@every 90 seconds', 'select 1', 'UTC', '2020-01-01', null, true),
  ('every from now', '@every 90 seconds', 'select 1', 'UTC', null, null, true),
  ('after', '@after 90 seconds', 'select 1', 'UTC', null, null, true);
reset role;

select is((select count(*) from rowcron.agenda as a where a.owner = 'tap_ann'::regrole), 12::bigint, 'each job has an agenda row');
select is(public.tap_next('daily'), rowcron.next_run('0 3 * * *'), 'an insert sets next_run_at');
select is(public.tap_next('berlin'), rowcron.next_run('0 3 * * *', timezone => 'Europe/Berlin'), 'in the job''s zone');
select is(public.tap_next('later'), '2040-05-05 03:00', 'starts_at itself counts');
select is(public.tap_next(n), null::timestamptz, n || ': nothing is next')
from unnest('{over,paused,demand,boot,"once in the past, paused"}'::text[]) as n;
select is(public.tap_next('once'), '2040-01-01 11:00', '@at is local');
select is(extract(epoch from public.tap_next('every'))::numeric % 90, extract(epoch from timestamptz '2020-01-01')::numeric % 90, '@every is anchored at starts_at');
select is(public.tap_next('every from now'), (select j.created_at from rowcron.job as j where j.name = 'every from now') + interval '90 s', 'or at created_at');
select ok(public.tap_next('after') between (select s.began from stamps as s) + interval '90 s' and clock_timestamp() + interval '90 s', '@after counts from the insert at first');
select ok((select bool_and(a.high_water between (select s.began from stamps as s) and clock_timestamp()) from rowcron.agenda as a where a.owner = 'tap_ann'::regrole),
  'the high-water mark begins at the insert');
select is((public.tap_agenda('boot')).booted_at, pg_postmaster_start_time(), 'the start of PostgreSQL before the insert is accounted for');
select bag_has($$select queue, kind from rowcron.lane$$, $$values ('default', 'sql')$$, 'the lane is known');

-- every kind of update
set local role tap_ann;
update rowcron.job set schedule = '30 4 * * *' where name = 'daily';
select is(public.tap_next('daily'), rowcron.next_run('30 4 * * *'), 'a new schedule sets next_run_at');
update rowcron.job set timezone = 'Asia/Tokyo' where name = 'daily';
select is(public.tap_next('daily'), rowcron.next_run('30 4 * * *', timezone => 'Asia/Tokyo'), 'a new zone sets next_run_at');
update rowcron.job set starts_at = '2040-01-01' where name = 'daily';
select is(public.tap_next('daily'), '2040-01-01 19:30', 'a new window sets next_run_at');
update rowcron.job set starts_at = null, ends_at = clock_timestamp() + interval '1 second' where name = 'daily';
update rowcron.job set ends_at = '2020-01-01' where name = 'daily';
select is(public.tap_next('daily'), null, 'a closed window ends it');
update rowcron.job set ends_at = null, timezone = 'UTC' where name = 'daily';
select is(public.tap_next('daily'), rowcron.next_run('30 4 * * *'), 'an open one begins it again');
update rowcron.job set enabled = false where name = 'daily';
select is(public.tap_next('daily'), null, 'a paused job is never due');
update rowcron.job set schedule = '0 5 * * *' where name = 'daily';
select is(public.tap_next('daily'), null, 'an edit does not resume it');
update rowcron.job set enabled = true where name = 'daily';
select is(public.tap_next('daily'), rowcron.next_run('0 5 * * *'), 'a resume sets next_run_at');
update rowcron.job set schedule = null where name = 'daily';
select is(public.tap_next('daily'), null, 'without schedule nothing is next');
update rowcron.job set schedule = '0 5 * * *' where name = 'daily';
select is(public.tap_next('daily'), rowcron.next_run('0 5 * * *'), 'with one again it is');

insert into rowcron.job (name, schedule, command, timezone) values
  ('gap', '30 2 * * *', 'select 1', 'Europe/Berlin'), ('fold', '30 2 * * *', 'select 1', 'Europe/Berlin');
update rowcron.job set starts_at = '2030-03-31 00:00 Europe/Berlin' where name = 'gap';
update rowcron.job set starts_at = '2030-10-27 02:45 Europe/Berlin'::timestamptz - interval '1 hour' where name = 'fold';
select is(public.tap_next('gap'), '2030-03-31 01:00', 'by its form it runs after the gap');
update rowcron.job set on_gap = 'skip' where name = 'gap';
select is(public.tap_next('gap'), '2030-04-01 00:30', 'on_gap sets next_run_at');
select is(public.tap_next('fold'), '2030-10-28 01:30', 'by its form it runs in the first of the doubled hours');
update rowcron.job set on_fold = 'twice' where name = 'fold';
select is(public.tap_next('fold'), '2030-10-27 01:30', 'on_fold sets next_run_at');

insert into rowcron.job (name, schedule, command) values ('hashed', 'H H * * *', 'select 1'), ('plain', '0 0 1 1 *', 'select 1');
select is(public.tap_next('hashed'), rowcron.next_run('H H * * *', seed => 'tap_ann.hashed'), 'H is spread by owner and name');
update rowcron.job set name = 'hashed anew' where name = 'hashed';
select is(public.tap_next('hashed anew'), rowcron.next_run('H H * * *', seed => 'tap_ann.hashed anew'), 'a rename spreads it anew');

update rowcron.job set schedule = '15 6 * * *' where name in ('daily', 'plain', 'hashed anew');
select is((select count(*) from rowcron.jobs as j where j.name in ('daily', 'plain', 'hashed anew') and j.next_run_at = rowcron.next_run('15 6 * * *')),
  3::bigint, 'an update of many rows sets each');
insert into rowcron.job (name, schedule, command) values ('plain', '20 6 * * *', 'select 2')
on conflict (owner, name) do update set schedule = excluded.schedule;
select is(public.tap_next('plain'), rowcron.next_run('20 6 * * *'), 'an upsert sets next_run_at');
reset role;
select is((select count(*) from rowcron.agenda as a where not exists (select from rowcron.job as j where j.id = a.job_id)), 0::bigint, 'and leaves no agenda row behind');

-- what does not touch when it runs does not touch the agenda
create temporary table before as select a.ctid as place from rowcron.agenda as a where a.job_id = (public.tap_agenda('berlin')).job_id;
set local role tap_ann;
update rowcron.job set command = 'select 2', description = 'x', priority = 3, args = '{}', timeout = '1 min', name = 'berlin 2' where name = 'berlin';
reset role;
select is((select a.ctid from rowcron.agenda as a where a.job_id = (public.tap_agenda('berlin 2')).job_id), (select b.place from before as b),
  'an edit of command, description or name does not lock the agenda row');
set local role tap_ann;
update rowcron.job set queue = 'other', max_running = 2 where name = 'berlin 2';
reset role;
select results_eq($$select (a).queue, (a).max_running from public.tap_agenda('berlin 2') as a$$, $$values ('other', 2)$$, 'queue and max_running are the job''s');
select bag_has($$select queue, kind from rowcron.lane$$, $$values ('other', 'sql')$$, 'a new queue is a lane');

-- runs that wait move with their job
set local role tap_ann;
select rowcron.enqueue('berlin 2', due_at => '2040-01-01');
update rowcron.job set queue = 'third', name = 'berlin 3' where name = 'berlin 2';
select results_eq($$select job, queue from rowcron.run where due_at = '2040-01-01'$$, $$values ('berlin 3', 'third')$$, 'waiting runs follow a new name and queue');
reset role;

-- the books: occurrences due that nobody fired
set local role tap_ann;
insert into rowcron.job (name, schedule, command) select n, '@hourly', 'select 1'
from unnest('{edited,paused late,deleted,window,zone,pause over,pause and edit,pause and delete,well,gone zone}'::text[]) as n;
insert into rowcron.job (name, schedule, command, starts_at) values ('six times', '@every 10 minutes', 'select 1', date_trunc('hour', clock_timestamp()) - interval '1 day');
reset role;
select public.tap_neglect(n, date_trunc('hour', clock_timestamp()) - interval '150 minutes')
from unnest('{edited,paused late,deleted,window,zone}'::text[]) as n;
set local role tap_ann;
update rowcron.job set schedule = '@daily' where name = 'edited';
select is(public.tap_entries('edited'), 'missed 3 schedule changed before a worker fired it', 'an edit closes the books over what was due');
update rowcron.job set timezone = 'Asia/Tokyo' where name = 'zone';
select is(public.tap_entries('zone'), 'missed 3 schedule changed before a worker fired it', 'also an edit of the zone');
select rowcron.pause('paused late');
select is(public.tap_entries('paused late'), 'missed 3 paused before a worker fired it', 'also a pause');
select rowcron.unschedule('deleted');
select is(public.tap_entries('deleted'), 'missed 3 deleted before a worker fired it', 'also a deletion');
update rowcron.job set ends_at = clock_timestamp() where name = 'window';
select is(public.tap_entries('window'), 'missed 3 schedule changed before a worker fired it', 'also an edit of the window');
select is(public.tap_entries('well'), 'none', 'where nothing was due there is no entry');
update rowcron.job set schedule = '@daily' where name = 'well';
select is(public.tap_entries('well'), 'none', 'nor after an edit');
reset role;
select ok((public.tap_agenda('edited')).high_water > clock_timestamp() - interval '1 minute', 'the high-water mark rises to the edit');
select results_eq(
  $$select first_scheduled_for, scheduled_for from rowcron.ledger where job = 'edited'$$,
  $$values (date_trunc('hour', now()) - interval '2 hours', date_trunc('hour', now()))$$, 'the entry names the first and the last');

-- what a pause passes over
set local role tap_ann;
select rowcron.pause(n) from unnest('{pause over,pause and edit,pause and delete}'::text[]) as n;
reset role;
select public.tap_neglect(n, date_trunc('hour', clock_timestamp()) - interval '150 minutes')
from unnest('{pause over,pause and edit,pause and delete}'::text[]) as n;
set local role tap_operator;
select rowcron.resume('pause over', 'tap_ann');
select is(public.tap_entries('pause over'), 'skipped 3 paused', 'what a pause passed over is one skipped entry at the resume');
set local role tap_ann;
update rowcron.job set schedule = '@daily' where name = 'pause and edit';
select is(public.tap_entries('pause and edit'), 'skipped 3 paused', 'or at an edit while paused');
select rowcron.unschedule('pause and delete');
select is(public.tap_entries('pause and delete'), 'skipped 3 paused', 'or at a deletion while paused');
select rowcron.pause('pause over');
select rowcron.resume('pause over');
select is(public.tap_entries('pause over'), 'skipped 3 paused', 'a pause that passes nothing over leaves no entry');
select is(public.tap_next('pause over'), rowcron.next_run('@hourly'), 'after a resume the next occurrence is the first after now');
insert into rowcron.job (name, schedule, command) values ('once paused', '@at 2040-01-01 12:00', 'select 1');
select rowcron.pause('once paused');
reset role;
set local session_replication_role to replica;
update rowcron.job set schedule = '@at 2020-01-01 12:00' where name = 'once paused';
update rowcron.agenda as a set parsed = rowcron._parse('@at 2020-01-01 12:00', null), high_water = '2019-01-01'
where a.job_id = (public.tap_agenda('once paused')).job_id;
set local session_replication_role to origin;
set local role tap_ann;
select lives_ok($$select rowcron.resume('once paused')$$, 'a job can be resumed whose only instant fell into the pause');
select is(public.tap_entries('once paused'), 'skipped 1 paused', 'that instant stands in the ledger');

-- @every while paused, with a limit
select rowcron.pause('six times');
reset role;
select public.tap_neglect('six times', date_trunc('hour', clock_timestamp()) - interval '2 hours');
set local role tap_ann;
select rowcron.resume('six times');
select matches(public.tap_entries('six times'), '^skipped 1[2-7] paused', 'occurrences of @every are counted too');

-- a zone that is gone does not stand in the way
reset role;
select public.tap_neglect('gone zone', date_trunc('hour', clock_timestamp()) - interval '150 minutes');
set local session_replication_role to replica;
update rowcron.job set timezone = 'Atlantis/Capital' where name = 'gone zone';
set local session_replication_role to origin;
set local role tap_ann;
select lives_ok($$select rowcron.unschedule('gone zone')$$, 'a job whose zone is gone can be deleted');
select matches(public.tap_entries('gone zone'), '^missed 1 schedule cannot be computed: ', 'its entry says what is wrong');

-- @after while its run is live
reset role;
select public.tap_neglect('after', clock_timestamp() - interval '90 s');
select rowcron._fire_lane('default', 'sql', clock_timestamp(), 256);
select is(public.tap_next('after'), null, '@after is not due while its run is live');
set local role tap_ann;
update rowcron.job set schedule = '@after 10 minutes' where name = 'after';
select is(public.tap_next('after'), null, 'also after an edit');
select rowcron.cancel((select r.run_id from rowcron.active as r where r.job = 'after'));
select ok(public.tap_next('after') between clock_timestamp() + interval '9 minutes 50 seconds' and clock_timestamp() + interval '10 minutes',
  'it counts from the end of its run, however that ended');
update rowcron.job set schedule = '@after 20 minutes' where name = 'after';
select ok(public.tap_next('after') > clock_timestamp() + interval '19 minutes', 'an edit without live run counts from the edit');

-- deletion
insert into rowcron.job (name, schedule, command) values ('doomed', '@daily', 'select 1');
create temporary table runs as select rowcron.enqueue('doomed', key => 'k') as id union all select rowcron.enqueue('doomed', due_at => '2040-01-01') union all select rowcron.run_now('doomed');
reset role;
update rowcron.run as r set state = 'running', worker_id = gen_random_uuid(), seal = gen_random_uuid(), started_at = now()
where r.id = (select max(s.id) from runs as s);
create temporary table doomed as select (public.tap_agenda('doomed')).job_id as id;
set local role tap_ann;
delete from rowcron.job where name = 'doomed';
reset role;
select is((select array_agg(l.outcome || ': ' || l.reason) from rowcron.ledger as l where l.job = 'doomed'),
  array['cancelled: job deleted', 'cancelled: job deleted'], 'a deleted job''s waiting and ready runs are cancelled');
select is((select count(*) from rowcron.run as r where r.job = 'doomed' and r.state = 'running'), 1::bigint, 'what runs is left to end');
select is((select count(*) from rowcron.key as k join doomed as d on d.id = k.job_id), 0::bigint, 'its keys are gone');
select is((select count(*) from rowcron.agenda as a join doomed as d on d.id = a.job_id), 0::bigint, 'its agenda row is gone');

-- changes: who, what
select results_eq(
  $$select changed_by, action, new_values ->> 'schedule', old_values from rowcron.change where job = 'doomed' and action = 'insert'$$,
  $$values ('tap_ann', 'insert', '@daily', null::jsonb)$$, 'an insert is recorded with the whole job');
select results_eq(
  $$select changed_by, old_values - 'id', new_values from rowcron.change where job = 'pause over' and action = 'update' order by id limit 2$$,
  $$values ('tap_ann', '{"enabled": true}'::jsonb, '{"enabled": false}'::jsonb), ('tap_operator', '{"enabled": false}', '{"enabled": true}')$$,
  'an update is recorded with the changed columns, old and new, and who did it');
select results_eq(
  $$select changed_by, old_values ->> 'command' from rowcron.change where job = 'doomed' and action = 'delete'$$,
  $$values ('tap_ann', 'select 1')$$, 'a deletion is recorded with what was');
select is((select count(*) from rowcron.change as c where c.job = 'plain' and c.action = 'insert'), 1::bigint, 'an upsert that updates is no insert');
set local role tap_ann;
select set_config('rowcron.actor', 'somebody else', false);
update rowcron.job set description = 'y' where name = 'plain';
select is((select c.changed_by from rowcron.change as c where c.job = 'plain' order by c.id desc limit 1), 'tap_ann', 'the actor cannot be set from outside');
create temporary table counted as select count(*) as n from rowcron.change;
update rowcron.job set description = 'y' where name = 'plain';
select is((select count(*) from rowcron.change), (select c.n from counted as c), 'an update that changes nothing is not recorded');
reset role;

set local role tap_ann;
select throws_ok($$insert into rowcron.job (name, schedule, timezone, command) values ('never', '0 30 2 * 3 sunL', 'Europe/Berlin', 'select 1')$$, 'RCSCH', 'schedule "0 30 2 * 3 sunL" never runs in Europe/Berlin', 'a job whose times are all in gaps is refused');
select throws_ok($$insert into rowcron.job (name, schedule, timezone, command, enabled) values ('never', '0 30 2 * 3 sunL', 'Europe/Berlin', 'select 1', false)$$, 'RCSCH', 'schedule "0 30 2 * 3 sunL" never runs in Europe/Berlin', 'a paused one, too');
select lives_ok($$insert into rowcron.job (name, schedule, timezone, command, on_gap) values ('never', '0 30 2 * 3 sunL', 'Europe/Berlin', 'select 1', 'run')$$, 'not one that is moved');
select throws_ok($$insert into rowcron.job (name, command, keep) values ('kept', 'select 1', '10000 years')$$, 'RCLIM', 'keep "10000 years" is out of range', 'nothing is kept beyond what instants can tell');
select throws_ok($$insert into rowcron.job (name, command, missed_grace) values ('kept', 'select 1', '10000 years')$$, 'RCLIM', 'missed_grace "10000 years" is out of range', 'nor missed for so long');
insert into rowcron.job (name, schedule, timezone, command)
select n, to_char(clock_timestamp() at time zone 'America/New_York' + interval '2 hours', '"@at "YYYY-MM-DD HH24:MI:SS'), 'America/New_York', 'select 1'
from unnest('{moved,asleep}'::text[]) as n;
insert into rowcron.job (name, schedule, timezone, command) values ('in a gap', '@at 2040-03-25 02:30', 'Europe/Berlin', 'select 1');
select throws_ok(format('update rowcron.job set %s where name = %L', edit, name), 'RCSCH', null, 'an edit after which an instant would never come is refused: ' || edit)
from (values
  ('moved', $$timezone = 'Asia/Tokyo'$$), ('moved', $$starts_at = clock_timestamp() + '1 day'$$), ('moved', $$ends_at = clock_timestamp() + '1 hour'$$),
  ('moved', $$timezone = 'Asia/Tokyo', enabled = false$$), ('in a gap', $$on_gap = 'skip'$$)
) as edits (name, edit);
select throws_like($$update rowcron.job set timezone = 'Asia/Tokyo' where name = 'moved'$$, 'schedule "@at %" lies in the past or outside of the window', 'with the words of an insert');
select lives_ok($$update rowcron.job set timezone = 'America/Los_Angeles' where name = 'moved'$$, 'one that puts it off is not');
update rowcron.job set enabled = false where name = 'asleep';
select throws_ok($$update rowcron.job set timezone = 'Asia/Tokyo' where name = 'asleep'$$, 'RCSCH', null, 'nor is it lost in a pause');
select lives_ok($$update rowcron.job set schedule = '@daily', timezone = 'Asia/Tokyo' where name = 'asleep'$$, 'unless another schedule is named');
insert into rowcron.job (name, command, args) values ('nulls', 'select 1', '{"x": null, "y": [1, null]}');
select is((select c.new_values from rowcron.change as c where c.job = 'nulls') -> 'args', '{"x": null, "y": [1, null]}', 'nulls in args are recorded as they are');
select rowcron.unschedule('nulls');
select is((select rowcron.job_as_of('nulls', c.changed_at + interval '1 microsecond')).args, '{"x": null, "y": [1, null]}', 'and read back')
from rowcron.change as c where c.job = 'nulls' and c.action = 'insert';
reset role;

create role tap_erin;
grant rowcron_user to tap_erin;
set local role tap_erin;
insert into rowcron.job (name, command) values ('e1', 'select 1'), ('e2', 'select 1');
delete from rowcron.job where name = 'e1';
reset role;
select set_config('tap.erin', clock_timestamp()::text, true);
set local role tap_erin;
update rowcron.job set command = 'select 2' where name = 'e2';
reset role;
alter role tap_erin rename to tap_erin2;
set local role tap_erin2;
select is((rowcron.job_as_of('e1', (select max(c.changed_at) - interval '1 microsecond' from rowcron.change as c where c.job = 'e1' and c.action = 'delete'))).command, 'select 1', 'what was is read back when its owner has been renamed, also when it is gone');
select is((rowcron.job_as_of('e2', current_setting('tap.erin')::timestamptz)).command, 'select 1', 'or has changed');
reset role;

select * from finish();
rollback;
