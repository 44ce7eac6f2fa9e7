-- What a person asks: the views, and why a job is not running.

begin;
select plan(84);
set local timezone to 'UTC';
set local client_min_messages to error;

create role tap_ann;
create role tap_bob;
create role tap_operator;
grant rowcron_user, rowcron_python to tap_ann;
grant rowcron_user to tap_bob;
grant rowcron_operator to tap_operator;
delete from rowcron.worker;

set local role tap_ann;
insert into rowcron.job (name, schedule, command, priority, queue) values
  ('a', '@at 2040-01-01 00:00', 'select 1', 0, 'q'), ('b', '@at 2040-01-01 00:00', 'select 1', 5, 'q'), ('c', '@at 2039-01-01 00:00', 'select 1', 0, 'q'), ('d', null, 'select 1', 0, 'q');
insert into rowcron.job (name, schedule, command, timezone, enabled) values ('cron', '0 3 * * mon-fri', 'select 1', 'Europe/Berlin', true), ('paused', '0 3 * * *', 'select 1', 'UTC', false);

-- jobs
select results_eq($$select name, english, next_run_at from rowcron.jobs where name in ('cron', 'd', 'paused') order by name$$,
  $$values ('cron', rowcron.explain('0 3 * * mon-fri', 'Europe/Berlin'), rowcron.next_run('0 3 * * mon-fri', timezone => 'Europe/Berlin')), ('d', 'on demand', null), ('paused', rowcron.explain('0 3 * * *', 'UTC'), null)$$,
  'jobs tells a schedule in English, and what is next');
select results_eq($$select name, state from rowcron.jobs where name in ('a', 'd', 'paused') order by name$$,
  $$values ('a', 'scheduled'), ('d', 'on demand'), ('paused', 'paused')$$, 'jobs tells whether it will run by itself');
reset role;
insert into rowcron.ledger (job_id, job, owner, queue, kind, run_id, attempt, final, started_at, finished_at, outcome, scheduled_for, occurrences, first_scheduled_for)
select j.id, j.name, j.owner, j.queue, j.kind, v.run_id, v.attempt, v.final, clock_timestamp() - v.ago - interval '2 s', clock_timestamp() - v.ago, v.outcome, clock_timestamp() - v.ago,
  v.occurrences, clock_timestamp() - v.ago - case when v.occurrences > 1 then interval '1 hour' else '0' end
from rowcron.job as j, (values
  (-1::bigint, 1, false, interval '9 min', 'failed', 1), (-1, 2, true, '8 min', 'succeeded', 1), (-2, 1, true, '7 min', 'succeeded', 1), (null, null, true, '6 min', 'missed', 20), (null, null, true, '5 min', 'skipped', 1))
  as v (run_id, attempt, final, ago, outcome, occurrences)
where j.name = 'd';
set local role tap_ann;
select results_eq($$select last_outcome, last_finished_at < clock_timestamp() - interval '6 min' from rowcron.jobs where name = 'd'$$, $$values ('succeeded', true)$$, 'the last outcome is that of the last run, not of a non-run');
select results_eq($$select runs, succeeded, failed, skipped, missed::bigint, last_outcome, date_trunc('second', median_duration), verdict from rowcron.job_health where name = 'd'$$,
  $$values (2::bigint, 2::bigint, 0::bigint, 1::bigint, 20::bigint, 'succeeded', interval '2 s', 'well')$$, 'job_health sums up the last entries');
select results_eq($$select name, verdict from rowcron.job_health where name in ('a', 'paused') order by name$$, $$values ('a', 'new'), ('paused', 'paused')$$, 'a job without entries is new, a paused one paused');
select results_eq($$select run_id, attempt, outcome, occurrences from rowcron.history where job = 'd'$$,
  $$values (null::bigint, null::integer, 'skipped', 1::bigint), (null, null, 'missed', 20), (-2, 1, 'succeeded', 1), (-1, 2, 'succeeded', 1)$$, 'history has one row a run and non-run, newest first');
reset role;
insert into rowcron.ledger (job_id, job, owner, queue, kind, run_id, attempt, final, finished_at, outcome) select j.id, j.name, j.owner, j.queue, j.kind, -3, 1, true, clock_timestamp(), 'lost' from rowcron.job as j where j.name = 'd';
insert into rowcron.ledger (job_id, job, owner, queue, kind, final, finished_at, outcome) select j.id, j.name, j.owner, j.queue, j.kind, true, clock_timestamp(), 'skipped' from rowcron.job as j, generate_series(1, 10) where j.name = 'c';
set local role tap_ann;
select results_eq($$select name, verdict from rowcron.job_health where name in ('c', 'd') order by name$$, $$values ('c', 'stuck behind one run'), ('d', 'failing')$$, 'what fails is failing, what is only skipped is stuck');

-- upcoming, active
select rowcron.enqueue('d', due_at => '2039-06-01');
select results_eq($$select job, due_at, source from rowcron.upcoming where queue = 'q'$$,
  $$values ('c', timestamptz '2039-01-01', 'schedule'), ('d', '2039-06-01', 'run'), ('b', '2040-01-01', 'schedule'), ('a', '2040-01-01', 'schedule')$$, 'upcoming is in the order due_at, priority, id');
select results_eq($$select job, state, waits_for, attempt from rowcron.active$$, $$values ('d', 'waiting', 'time', 1)$$, 'active shows what waits, is ready, or runs');
select is((select count(*) from rowcron.upcoming as u where u.job = 'paused'), 0::bigint, 'what is paused is not to come');

-- workers, queues
reset role;
insert into rowcron.worker (id, kinds, concurrency, lease, poll, seen_at, expires_at, asleep, lost_at, stopping) values
  ('00000000-0000-4000-8000-000000000001', '{sql}', 1, '10 s', '5 s', now(), clock_timestamp() + interval '1 hour', false, null, false),
  ('00000000-0000-4000-8000-000000000002', '{sql}', 2, '10 s', '5 s', now(), clock_timestamp() + interval '1 hour', true, null, false),
  ('00000000-0000-4000-8000-000000000003', '{sql}', 3, '10 s', '5 s', now(), clock_timestamp(), true, null, false),
  ('00000000-0000-4000-8000-000000000004', '{sql}', 4, '10 s', '5 s', now(), clock_timestamp(), false, now(), true);
update rowcron.run set state = 'running', waits_for = null, worker_id = '00000000-0000-4000-8000-000000000001', seal = gen_random_uuid(), started_at = now() where job = 'd';
set local role tap_ann;
select rowcron.enqueue('d', due_at => clock_timestamp() - interval '1 minute');
select results_eq($$select state, running from rowcron.workers order by id$$, $$values ('awake', 1::bigint), ('asleep', 0), ('lost', 0), ('stopped', 0)$$, 'workers tells how each is');
set local role tap_bob;
select is((select w.running from rowcron.workers as w where w.state = 'awake'), 0::bigint, 'and counts what one may see');
set local role tap_ann;
reset role;
select rowcron._maintain_partitions(now());  -- just after midnight an entry from before it has none
set local role tap_ann;
select results_eq($$select workers, ready_up_to_1000, oldest_ready_age between interval '60 s' and '70 s', next_run_at, held, ledger_overflows from rowcron.queue_health where queue = 'q'$$,
  $$values (2::bigint, 1::bigint, true, timestamptz '2039-01-01', null, false)$$, 'queue_health tells how each lane is');
reset role;
delete from rowcron.run;

-- what nobody does
set local role tap_ann;
insert into rowcron.job (name, schedule, command, queue) values
  ('late', '@hourly', 'select 1', 'late'), ('late boot', '@reboot', 'select 1', 'late'), ('late ready', null, 'select 1', 'late'), ('late waiting', null, 'select 1', 'late'),
  ('late over', '@reboot', 'select 1', 'late'), ('late and missed', '@hourly', 'select 1', 'late'), ('in time', '@hourly', 'select 1', 'late'), ('missed', '@hourly', 'select 1', 'late');
select rowcron.enqueue(n) from unnest('{late ready,late waiting,in time}'::text[]) as n;
update rowcron.job set ends_at = '2020-01-01' where name = 'late over';
reset role;
update rowcron.agenda as a set high_water = '2020-01-01', next_run_at = clock_timestamp() - interval '2 min' from rowcron.job as j where j.id = a.job_id and j.name in ('late', 'late and missed');
update rowcron.agenda as a set booted_at = '2020-01-01' from rowcron.job as j where j.id = a.job_id and j.name in ('late boot', 'late over');
update rowcron.agenda as a set high_water = '2020-01-01', next_run_at = clock_timestamp() - interval '5 s' from rowcron.job as j where j.id = a.job_id and j.name = 'in time';
update rowcron.run set due_at = clock_timestamp() - interval '3 min' where job in ('late ready', 'late waiting');
update rowcron.run set state = 'waiting', waits_for = 'time' where job = 'late waiting';
insert into rowcron.ledger (job_id, job, owner, queue, kind, final, finished_at, outcome) select j.id, j.name, j.owner, j.queue, j.kind, true, clock_timestamp(), 'missed' from rowcron.job as j where j.name in ('missed', 'late and missed');
set local role tap_ann;
select results_eq($$select name, verdict from rowcron.job_health where name ~ 'late|time$|^missed' order by name$$,
  $$values ('in time', 'new'), ('late', 'overdue'), ('late and missed', 'overdue'), ('late boot', case when pg_postmaster_start_time() < now() - interval '1 min' then 'overdue' else 'new' end), ('late over', 'new'), ('late ready', 'overdue'), ('late waiting', 'overdue'), ('missed', 'missed')$$,
  'what is due and not begun for a minute is overdue, fired or not; a job of which all was missed is not well');
select results_eq($$select name, state from rowcron.jobs where name ~ 'late (over|ready)|time$' or name = 'late' order by name$$,
  $$values ('in time', 'scheduled'), ('late', 'overdue'), ('late over', 'over'), ('late ready', 'overdue')$$, 'jobs tells it, too');
select ok((select q.overdue_for between interval '3 min' and interval '4 min' from rowcron.queue_health as q where q.queue = 'late'), 'and for how long, of the whole queue');
select is((select q.overdue_for from rowcron.queue_health as q where q.queue = 'default'), null, 'where nothing is due nothing is told');
reset role;

-- what starves, and for how many occurrences an entry stands
set local role tap_ann;
insert into rowcron.job (name, command, queue) values ('crowd', 'select 1', 'crowded'), ('starved', 'select 1', 'crowded'), ('passed over', 'select 1', 'q');
reset role;
insert into rowcron.run (job_id, job, owner, queue, kind, state, priority, due_at) select j.id, j.name, j.owner, j.queue, j.kind, 'ready', 10 + n % 3, clock_timestamp() from rowcron.job as j, generate_series(1, 3000) as n where j.name = 'crowd';
insert into rowcron.run (job_id, job, owner, queue, kind, state, priority, due_at) select j.id, j.name, j.owner, j.queue, j.kind, 'ready', 5, clock_timestamp() - interval '2 hours' from rowcron.job as j where j.name = 'starved';
insert into rowcron.run (job_id, job, owner, queue, kind, state, priority, due_at) select j.id, j.name, j.owner, j.queue, j.kind, 'ready', 0, clock_timestamp() - interval '1 hour' from rowcron.job as j where j.name = 'starved';
insert into rowcron.ledger (job_id, job, owner, queue, kind, final, finished_at, outcome, scheduled_for, first_scheduled_for, occurrences) select j.id, j.name, j.owner, j.queue, j.kind, true, clock_timestamp(), 'skipped', now(), now() - interval '1 hour', 40 from rowcron.job as j where j.name = 'passed over';
set local role tap_ann;
select results_eq($$select ready_up_to_1000, oldest_ready_age between interval '2 hours' and interval '121 min', overdue_for between interval '2 hours' and interval '121 min' from rowcron.queue_health where queue = 'crowded'$$,
  $$values (1000::bigint, true, true)$$, 'the oldest is found behind a thousand of a better priority, whatever its own');
select results_eq($$select oldest_ready_age, overdue_for from rowcron.queue_health where queue = 'default'$$, $$values (null::interval, null::interval)$$, 'where nothing is ready nothing is old');
select is((select h.skipped from rowcron.job_health as h where h.name = 'passed over'), 40::bigint, 'skipped counts occurrences, as missed does');
select is((select h.skipped from rowcron.job_health as h where h.name = 'crowd'), 0::bigint, 'and is 0 where none was');
reset role;
delete from rowcron.run where job in ('crowd', 'starved');
insert into rowcron.ledger (job_id, job, owner, queue, kind, run_id, attempt, final, started_at, finished_at, outcome) select j.id, j.name, j.owner, j.queue, j.kind, -4, 1, true, now(), clock_timestamp(), 'succeeded' from rowcron.job as j where j.name = 'missed';
select is((select h.verdict from rowcron.job_health as h where h.name = 'missed'), 'well', 'until it has run');
insert into rowcron.ledger (job_id, job, owner, queue, kind, final, finished_at, outcome) select j.id, j.name, j.owner, j.queue, j.kind, true, clock_timestamp(), 'missed' from rowcron.job as j, generate_series(1, 10) where j.name = 'missed';
select is((select h.verdict from rowcron.job_health as h where h.name = 'missed'), 'missed', 'or if ten entries since say missed');
delete from rowcron.run;

-- a job is found by the names that it has borne, and described as it is
set local role tap_ann;
update rowcron.job set name = 'e' where name = 'd';
select results_eq($$select last_outcome from rowcron.jobs where name = 'e'$$, $$values ('lost')$$, 'a renamed job keeps its last outcome');
select results_eq($$select runs, skipped, verdict from rowcron.job_health where name = 'e'$$, $$values (3::bigint, 1::bigint, 'failing')$$, 'and its health');
update rowcron.job set name = 'd' where name = 'e';
select results_eq($$select runs, skipped, verdict from rowcron.job_health where name = 'd'$$, $$values (3::bigint, 1::bigint, 'failing')$$, 'counted once when the name comes again');
insert into rowcron.job (name, schedule, command) values ('spread', 'H H * * *', 'select 1');
select is((select j.english from rowcron.jobs as j where j.name = 'spread'), (select to_char(j.next_run_at, '"at "HH24:MI" every day, UTC"') from rowcron.jobs as j where j.name = 'spread'), 'H is told as this job has it');
reset role;
-- where H is, is decided when the job is stored
create temporary table spread as select a.next_run_at from rowcron.agenda as a join rowcron.job as j on j.id = a.job_id where j.name = 'spread';
alter role tap_ann rename to "Tap-Ann";
set local role "Tap-Ann";
select is((select j.english from rowcron.jobs as j where j.name = 'spread'), (select to_char(j.next_run_at, '"at "HH24:MI" every day, UTC"') from rowcron.jobs as j where j.name = 'spread'), 'also when its owner has been renamed');
select rowcron.pause('spread');
select rowcron.resume('spread');
reset role;
select is((select a.next_run_at from rowcron.agenda as a join rowcron.job as j on j.id = a.job_id where j.name = 'spread'), (select s.next_run_at from spread as s), 'whom a pause spreads nowhere else');
set local role "Tap-Ann";
insert into rowcron.job (name, schedule, command) values ('spread too', 'H H * * *', 'select 1');
select is((select j.next_run_at from rowcron.jobs as j where j.name = 'spread too'), rowcron.next_run('H H * * *', seed => '"Tap-Ann".spread too'), 'a quoted name enters as quote_ident writes it');
reset role;
alter role "Tap-Ann" rename to tap_ann;

-- why_not_running: each gate shut in turn, and open otherwise
create function public.tap_why(job text) returns text language sql as $$
  select coalesce(string_agg(w.gate, ', '), 'none') from rowcron.why_not_running(tap_why.job) as w where w.holds
$$;
create function public.tap_detail(job text, gate text) returns text language sql as $$
  select w.detail || ' | ' || coalesce(w.hint, 'no hint') from rowcron.why_not_running(tap_detail.job) as w where w.gate = tap_detail.gate
$$;
set local role tap_ann;
select is((select array_agg(w.gate) from rowcron.why_not_running('a') as w), '{held,paused,owner,window,due,retry,overlap,limit,kind,connection,secret,worker,room}', 'every gate is told, in order');
select is((select count(*) from rowcron.why_not_running('a') as w where coalesce(w.detail, '') = '' or (w.holds and coalesce(w.hint, '') = '') or (not w.holds and w.hint is not null)), 0::bigint, 'each says what holds, and if it is shut what to do');
select is(public.tap_why('a'), 'due', 'a job that is not due is not due');
select is((select array_agg(w.detail) from rowcron.why_not_running('a') as w where w.gate in ('connection', 'secret')), '{"it names no connection","no secret is lacking"}', 'a gate that is open says why');
select is(public.tap_detail('a', 'due'), 'it is next due at 2040-01-01 00:00:00 UTC | select rowcron.run_now(''a'');', 'and says when it will be');
select is(public.tap_detail('d', 'due'), 'it has no schedule and runs on demand | select rowcron.run_now(''d'');', 'or that it runs on demand');
select rowcron.enqueue('d');
select is(public.tap_why('d'), 'none', 'a ready run that is served is held up by nothing');
select is(public.tap_detail('d', 'due'), format('run %s is ready | no hint', (select max(r.run_id) from rowcron.active as r where r.job = 'd')), 'and says that it is ready');
insert into rowcron.job (name, schedule, command, queue) values ('ahead', '0 0 1 1 *', 'select 1', 'q'), ('ahead over', '0 0 1 1 *', 'select 1', 'q');
reset role;
update rowcron.agenda as a set high_water = '2050-01-01', next_run_at = case j.name when 'ahead' then timestamptz '2051-01-01' end from rowcron.job as j where j.id = a.job_id and j.name like 'ahead%';
set local role tap_ann;
select is(public.tap_why('ahead'), 'due', 'a job that ran while the clock was ahead is not due before it has come there');
select is(public.tap_detail('ahead', 'due'), 'it is next due at 2051-01-01 00:00:00 UTC; the clock was ahead, and what is due until 2050-01-01 00:00:00 UTC was accounted for then | '
  'select rowcron.run_now(''ahead''); To have it follow its schedule before that, delete it and insert it anew: select rowcron.unschedule(''ahead'');', 'and says why, and what to do');
select matches(public.tap_detail('ahead over', 'due'), '^its schedule names no further occurrence; the clock was ahead', 'also where nothing follows');
select is((select h.verdict from rowcron.job_health as h where h.name = 'ahead'), 'ahead of the clock', 'its health says so');
select is((select h.verdict from rowcron.job_health as h where h.name = 'ahead over'), 'ahead of the clock', 'there, too');
select rowcron.pause('ahead'), rowcron.resume('ahead');
select is((select h.verdict from rowcron.job_health as h where h.name = 'ahead'), 'ahead of the clock', 'a pause does not help');
select rowcron.unschedule('ahead');
insert into rowcron.job (name, schedule, command, queue) values ('ahead', '0 0 1 1 *', 'select 1', 'q');
select is(public.tap_detail('ahead', 'due'), format('it is next due at %s-01-01 00:00:00 UTC | select rowcron.run_now(''ahead'');', to_char(now() at time zone 'UTC' + interval '1 year', 'YYYY')), 'what the hint says does');
select is((select h.verdict from rowcron.job_health as h where h.name = 'ahead'), 'new', 'and its health is a new job''s');
select rowcron.unschedule(j) from unnest('{ahead,ahead over}'::text[]) as j;
insert into rowcron.job (name, command, queue) values ('later', 'select 1', 'q');
select rowcron.enqueue('later', due_at => '2040-01-01');
select is(public.tap_why('later'), 'due', 'a run that is due later holds its gate');
select is(public.tap_detail('later', 'due'), format('run %s is due at 2040-01-01 00:00:00 UTC | select rowcron.run_now(''later'');', (select max(r.run_id) from rowcron.active as r where r.job = 'later')), 'and says when it will be');
select is(public.tap_detail('paused', 'due'), 'while it is paused it has no next occurrence | select rowcron.run_now(''paused'');', 'of a paused job the schedule is not over');
insert into rowcron.job (name, schedule, command, queue) values ('boot', '@reboot', 'select 1', 'q');
select is(public.tap_detail('boot', 'due'), 'it is next due when PostgreSQL has started again | select rowcron.run_now(''boot'');', 'nor that of @reboot');
select is((select j.state from rowcron.jobs as j where j.name = 'boot'), 'scheduled', 'which is scheduled');
update rowcron.job set ends_at = '2020-01-01' where name = 'boot';
select is((select j.state from rowcron.jobs as j where j.name = 'boot'), 'over', 'until its end');
select rowcron.pause('d');
select is(public.tap_why('d'), 'paused', 'a paused job is paused');
select is(public.tap_detail('d', 'paused'), 'the job is paused | select rowcron.resume(''d'');', 'and says how to resume it');
select rowcron.resume('d');
update rowcron.job set starts_at = '2039-01-01' where name = 'a';
select is(public.tap_why('a'), 'window, due', 'a window that is not open yet');
select is(public.tap_detail('a', 'window'), 'it starts at 2039-01-01 00:00:00 UTC | Change starts_at, ends_at or max_runs.', 'says when it opens');
update rowcron.job set starts_at = null, ends_at = '2020-01-01', schedule = '@daily' where name = 'a';
select is(public.tap_why('a'), 'window, due', 'a window that is over');
update rowcron.job set ends_at = null, max_runs = 1 where name = 'a';
reset role;
update rowcron.agenda as a set runs_fired = 1 from rowcron.job as j where j.id = a.job_id and j.name = 'a';
set local role tap_ann;
select is(public.tap_detail('a', 'window'), 'all 1 runs of max_runs were made | Change starts_at, ends_at or max_runs.', 'runs that are used up');
reset role;
update rowcron.run set state = 'waiting', waits_for = 'time', attempt = 2, due_at = '2040-01-01' where job = 'd';
set local role tap_ann;
select is(public.tap_why('d'), 'retry', 'an attempt that backs off');
reset role;
update rowcron.run set waits_for = 'overlap', scheduled_for = '2030-01-01' where job = 'd';
set local role tap_ann;
select is(public.tap_why('d'), 'overlap', 'a run in line');
reset role;
update rowcron.run set waits_for = 'time' where job = 'd';
set local role tap_ann;
update rowcron.job set on_overlap = 'skip' where name = 'd';
select is(public.tap_why('d'), 'retry, overlap', 'a scheduled run that backs off stands in the way of the next');
reset role;
update rowcron.run set state = 'running', waits_for = null, worker_id = gen_random_uuid(), seal = gen_random_uuid(), started_at = now(), scheduled_for = null where job = 'd';
set local role tap_ann;
select is(public.tap_why('d'), 'none', 'a run on demand does not');
reset role;
update rowcron.run set state = 'running', waits_for = null, worker_id = gen_random_uuid(), seal = gen_random_uuid(), started_at = now() where job = 'd';
set local role tap_ann;
update rowcron.job set max_running = 1, on_overlap = 'allow' where name = 'd';
select is(public.tap_why('d'), 'limit', 'a limit that is reached');
select is(public.tap_detail('d', 'limit'), '1 running, max_running is 1 | Raise max_running.', 'says so');
select is((select w.detail from rowcron.why_not_running('d') as w where w.gate = 'retry'), 'no attempt is backing off', 'where nothing backs off it says so');

-- room
reset role;
delete from rowcron.run;
update rowcron.worker set concurrency = 1, expires_at = case when id::text ~ '[12]$' then clock_timestamp() + interval '1 hour' else expires_at end;
insert into rowcron.run (job_id, job, owner, queue, kind, state, due_at, worker_id, seal, started_at)
select j.id, j.name, 'tap_bob'::regrole, j.queue, j.kind, 'running', now(), '00000000-0000-4000-8000-000000000001', gen_random_uuid(), now() from rowcron.job as j where j.name = 'later';
set local role tap_ann;
select rowcron.enqueue('later', due_at => clock_timestamp() - interval '90 s');
select rowcron.enqueue('later', priority => 1) from generate_series(1, 3);
select is(public.tap_why('later'), 'none', 'while one worker has room nothing is shut');
select matches(public.tap_detail('later', 'room'), '^run \d+ has been ready for 00:01:3\d, behind 3 others that you can see \| no hint$', 'and it says for how long it has been ready, and how many go before');
reset role;
update rowcron.worker set full_kinds = '{sql}';
set local role tap_ann;
select is(public.tap_why('later'), 'room', 'a worker asleep that has said that of this kind it takes no more has no room');
reset role;
update rowcron.worker set full_kinds = '{http}';
update rowcron.run set worker_id = '00000000-0000-4000-8000-000000000002', state = 'running', seal = gen_random_uuid(), started_at = now() where id = (select max(r.id) from rowcron.run as r where r.state = 'ready');
set local role tap_ann;
select is(public.tap_why('later'), 'room', 'nor one that holds as many as it can, whosever they are');
select matches(public.tap_detail('later', 'room'),
  '^each live worker that takes it is full; run \d+ has been ready for 00:01:3\d, behind 2 others that you can see \| See rowcron.workers; another one: rowcron worker --queue q --kind sql; or raise --concurrency and --sql-connections.$', 'says so');
reset role;
insert into rowcron.run (job_id, job, owner, queue, kind, state, priority, due_at)
select j.id, j.name, j.owner, j.queue, j.kind, 'ready', 1, now() from rowcron.job as j, generate_series(1, 1100) where j.name = 'c';
set local role tap_operator;
select matches((select w.detail from rowcron.why_not_running('later', 'tap_ann') as w where w.gate = 'room'), 'behind 1000 or more others$', 'counted up to a thousand, for an operator all');
reset role;
delete from rowcron.run where job <> 'later' or state = 'running';
update rowcron.run set queue = 'where it was';
update rowcron.worker set queues = '{q}', full_kinds = null;
set local role tap_ann;
select is(public.tap_why('later'), 'worker', 'a run that an edit left in its old queue is judged by that one');
select is(public.tap_detail('later', 'worker'), 'no live worker serves queue "where it was" and kind "sql" | rowcron worker --queue where it was --kind sql', 'which is named');
reset role;
delete from rowcron.run;
update rowcron.worker set queues = null;
set local role tap_ann;
select is(public.tap_detail('later', 'room'), 'no run is ready | no hint', 'where none is ready there is nothing to tell');
insert into rowcron.job (name, command, kind, queue) values ('py', 'send_mail', 'python', 'q');
select rowcron.enqueue('py');
select is(public.tap_why('py'), 'worker', 'a kind that no worker has');
select is(public.tap_detail('py', 'worker'), 'no live worker serves queue "q" and kind "python" | rowcron worker --queue q --kind python --app MODULE; with --handler-database-url, without which handlers that ask for a connection are not offered', 'says which worker to start');
reset role;
update rowcron.worker set kinds = '{sql,python}', handlers = '{send_fax}';
set local role tap_ann;
select is(public.tap_detail('py', 'worker'), 'no live worker has the handler "send_mail" | rowcron worker --queue q --kind python --app MODULE; with --handler-database-url, without which handlers that ask for a connection are not offered', 'or that the handler is missing');
reset role;
revoke rowcron_python from tap_ann;
set local role tap_ann;
select is(public.tap_why('py'), 'kind, worker', 'a kind that was revoked');
select is(public.tap_detail('py', 'kind'), 'kind python | As an administrator: grant rowcron_python to tap_ann;', 'says how to grant it');
set local role tap_operator;
select rowcron.hold('upgrade');
set local role tap_ann;
select is(public.tap_detail('d', 'held'), 'everything is held by tap_operator: upgrade | select rowcron.release();', 'a hold says by whom and why');
select is((select q.held from rowcron.queue_health as q where q.queue = 'q' and q.kind = 'sql'), 'everything is held by tap_operator: upgrade; select rowcron.release(); ends it', 'queue_health too');
set local role tap_bob;
reset role;
create role tap_gone;
grant rowcron_user to tap_gone;
set local role tap_gone;
insert into rowcron.job (name, command) values ('left', 'select 1');
reset role;
select set_config('tap.gone', 'tap_gone'::regrole::oid::text, true);
drop owned by tap_gone;
drop role tap_gone;
set local role tap_operator;
select is((select w.detail from rowcron.why_not_running('left', current_setting('tap.gone')) as w where w.gate = 'owner'), 'its owner was dropped', 'an owner that was dropped is named by its number');
select is(rowcron._role_named('4294967000'), null, 'no other number is a role');
set local role tap_bob;
select throws_ok($$select * from rowcron.why_not_running('d', 'tap_ann')$$, 'RCNOJ', null, 'nobody asks about somebody else''s job');
reset role;

select * from finish();
rollback;
