-- A claim ahead of an instant: what it hands out, what it leaves for the instant itself.

begin;
select plan(29);
set local timezone to 'UTC';
set local client_min_messages to error;

create role tap_ann;
grant rowcron_user, rowcron_python to tap_ann;

create function public.tap_ahead(queue text, capacity integer default 9, kinds text[] default '{sql,python}', handlers text[] default null)
returns text language sql as $$
  select coalesce(string_agg(c.job || case when c.started_at = c.scheduled_for and c.started_at > clock_timestamp() then '' else ' not ahead' end, ', ' order by c.job), 'none')
  from rowcron.claim(gen_random_uuid(), capacity, array[queue], kinds, handlers, ahead => true) as c
$$;
-- next due in so many milliseconds
create function public.tap_due(name text, ms integer) returns void language sql as $$
  update rowcron.agenda as a set next_run_at = clock_timestamp() + ms * interval '1 ms'
  from rowcron.job as j where j.id = a.job_id and j.name = tap_due.name
$$;

set local role tap_ann;
insert into rowcron.job (name, queue, command, kind, schedule, on_overlap) values
  ('sql', 'q', 'select 1', 'sql', '0 0 1 1 *', 'skip'), ('python', 'q', 'send', 'python', '0 0 1 1 *', 'skip'),
  ('far', 'far', 'select 1', 'sql', '0 0 1 1 *', 'skip'),
  ('skips', 'live', 'select 1', 'sql', '0 0 1 1 *', 'skip'), ('waits', 'live', 'select 1', 'sql', '0 0 1 1 *', 'wait'),
  ('allows', 'live', 'select 1', 'sql', '0 0 1 1 *', 'allow'),
  ('timed', 'timed', 'select 1', 'sql', '0 0 1 1 *', 'skip'),
  ('ready', 'ready', 'select 1', 'sql', '0 0 1 1 *', 'skip'),
  ('held', 'held', 'select 1', 'sql', '0 0 1 1 *', 'skip');
insert into rowcron.job (name, queue, command, schedule, max_running) values ('limited', 'limited', 'select 1', '0 0 1 1 *', 1);
insert into rowcron.job (name, queue, command, schedule, jitter) values ('jittered', 'jittered', 'select 1', '0 0 1 1 *', '10 s');
reset role;

-- what is due in a moment
select is(rowcron._lead('{q}', '{sql,python}', clock_timestamp()), null, 'where nothing is to be fired nobody needs to come early');
select public.tap_due('sql', 220), public.tap_due('python', 220);
update rowcron.agenda as a set next_run_at = (select e.next_run_at from rowcron.agenda as e join rowcron.job as j on j.id = e.job_id where j.name = 'sql')
from rowcron.job as j where j.id = a.job_id and j.name = 'python';
select is(rowcron._lead('{q}', '{sql,python}', (select e.next_run_at from rowcron.agenda as e join rowcron.job as j on j.id = e.job_id where j.name = 'sql')),
  interval '20.12 ms', 'two are fired at that instant');
select is(rowcron._lead('{r}', '{sql,python}', (select e.next_run_at from rowcron.agenda as e join rowcron.job as j on j.id = e.job_id where j.name = 'sql')),
  null, 'none of another queue');
select is((select count(*) from rowcron.claim(gen_random_uuid(), 9, '{q}', '{sql,python}')), 0::bigint, 'who does not ask for it gets nothing ahead');
select is(public.tap_ahead('q', 0), 'none', 'nor who has no room');
select is(coalesce(current_setting('rowcron.claimed_for', true), ''), '', 'so there is nothing to wait for');
select is(public.tap_ahead('q', 9, '{sql,python}', '{other}'), 'sql', 'a handler that the worker lacks is not handed to it');
select is((select r.due_at from rowcron.run as r where r.job = 'python'), to_timestamp(current_setting('rowcron.claimed_for')::double precision), 'what is left for others must not be seen before its instant either');
select is((select r.state || ' ' || coalesce(r.waits_for, '-') from rowcron.run as r where r.job = 'python'), 'ready -', 'its run is ready');
select is((select current_setting('idle_in_transaction_session_timeout')), '1s', 'who falls silent with a claim ahead holds it up for a second');
select is((select a.high_water > clock_timestamp() from rowcron.agenda as a join rowcron.job as j on j.id = a.job_id where j.name = 'sql'), true, 'the high-water mark has risen to it');
select is((select r.started_at = r.scheduled_for and r.due_at = r.scheduled_for from rowcron.run as r where r.job = 'sql'), true, 'a run starts at its instant');
select is(public.tap_ahead('q'), 'python not ahead', 'what is ready goes first');

select public.tap_due('far', 600);
select is(public.tap_ahead('far'), 'none', 'what is due later than in a quarter of a second is not handed out');

-- what may change until then
set local role tap_ann;
select rowcron.enqueue('held');
reset role;
insert into rowcron.run (job_id, job, owner, queue, kind, state, waits_for, due_at, scheduled_for)
select j.id, j.name, j.owner, 'elsewhere', 'sql', 'ready', null, clock_timestamp(), clock_timestamp() from rowcron.job as j where j.name in ('skips', 'waits', 'allows');
select public.tap_due('skips', 220), public.tap_due('waits', 220), public.tap_due('allows', 220);
update rowcron.agenda as a set next_run_at = (select max(e.next_run_at) from rowcron.agenda as e join rowcron.job as j on j.id = e.job_id where j.name in ('skips', 'waits', 'allows'))
from rowcron.job as j where j.id = a.job_id and j.name in ('skips', 'waits', 'allows');
select is(public.tap_ahead('live'), 'allows', 'where an earlier run is live, only what may overlap');
select is((select count(*) from rowcron.ledger as l where l.job in ('skips', 'waits')), 0::bigint, 'nothing is skipped ahead');
select is((select count(*) from rowcron.agenda as a join rowcron.job as j on j.id = a.job_id where j.name in ('skips', 'waits') and a.next_run_at > clock_timestamp() and a.next_run_at < clock_timestamp() + interval '1 s'),
  2::bigint, 'what was left out is still to come');
select pg_sleep(0.3);
select is((select string_agg(c.job, ', ') from rowcron.claim(gen_random_uuid(), 9, '{live}', '{sql}') as c), null, 'at the instant');
select is((select array_agg(l.job || ' ' || l.outcome order by l.job) from rowcron.ledger as l where l.job in ('skips', 'waits')), '{skips skipped}', 'it is judged');
select is((select r.waits_for from rowcron.run as r where r.job = 'waits' and r.queue = 'live'), 'overlap', 'or stands in line');

select public.tap_due('limited', 220);
select is(public.tap_ahead('limited'), 'none', 'a limit is not judged ahead');
select pg_sleep(0.3);
select is((select c.job from rowcron.claim(gen_random_uuid(), 9, '{limited}', '{sql}') as c), 'limited', 'but at the instant');

select public.tap_due('jittered', 220);
select is(public.tap_ahead('jittered'), 'none', 'one that is due later by its jitter is not handed out');
select is((select r.state || ' ' || r.waits_for || ' ' || (r.due_at > r.scheduled_for) from rowcron.run as r where r.job = 'jittered'), 'waiting time true', 'it waits for its time');

set local role tap_ann;
select rowcron.enqueue('timed', due_at => clock_timestamp() + interval '100 ms');
reset role;
select public.tap_due('timed', 220);
select is(public.tap_ahead('timed'), 'none', 'where something else becomes due before, nothing is handed out ahead');
set local role tap_ann;
select rowcron.enqueue('ready');
reset role;
select public.tap_due('ready', 220);
select is(public.tap_ahead('ready'), 'ready not ahead', 'nor where something is ready');

-- a hold holds
select public.tap_due('held', 220);
select rowcron.hold('test');
select is(public.tap_ahead('held'), 'none', 'while held nothing is handed out ahead');
select rowcron.release();
select is(public.tap_ahead('held', 1), 'held not ahead', 'after it what is ready');
select is((select count(*) from rowcron.run as r where r.job = 'held'), 1::bigint, 'and no more');

select * from finish();
rollback;
