-- The claim: which runs, in which order, under which limits.

begin;
select plan(79);
set local timezone to 'UTC';
set local client_min_messages to error;

create role tap_ann;
create role tap_worker;
grant rowcron_user, rowcron_python to tap_ann;
grant rowcron_worker to tap_worker;

-- claims at an instant, as worker number n; tells names in order
create table public.tap_claims (n integer, nth bigint, run_id bigint, token uuid, job text, idempotency_key uuid, attempt integer, args jsonb,
  command text, timeout interval, connection text, started_at timestamptz, owner text, queue text, kind text);
create function public.tap_claim(
  n integer, capacity integer, queues text[] default '{q}', kinds text[] default '{sql}', handlers text[] default null, at timestamptz default clock_timestamp()
) returns text language sql as $$
  with claimed as (
    insert into public.tap_claims (n, nth, run_id, token, job, idempotency_key, attempt, args, command, timeout, connection, started_at, owner, queue, kind)
    select tap_claim.n, c.nth, c.run_id, c.token, c.job, c.idempotency_key, c.attempt, c.args, c.command, c.timeout, c.connection, c.started_at, c.owner, c.queue, c.kind
    from rowcron._claim(('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, capacity, queues, kinds, handlers, at)
      with ordinality as c (run_id, token, job_id, job, owner, queue, kind, command, args, attempt, scheduled_for, due_at, started_at, timeout, connection, idempotency_key, secrets, args_secrets, nth)
    returning job, nth
  )
  select coalesce(string_agg(job, ', ' order by nth), 'none') from claimed
$$;
create function public.tap_states(name text) returns text language sql as $$
  select coalesce(string_agg(x, ', ' order by x), 'none')
  from (select coalesce(r.waits_for, r.state) || ' ' || count(*) as x from rowcron.run as r where r.job = name group by coalesce(r.waits_for, r.state)) as s
$$;
create function public.tap_finish(name text, outcome text default 'succeeded') returns bigint language sql as $$
  select count(*) from (
    select rowcron.finish(c.run_id, c.token, outcome)
    from public.tap_claims as c join rowcron.run as r on r.id = c.run_id and r.state = 'running' and r.seal = md5(c.token::text)::uuid
    where c.job = name limit 1
  ) as f
$$;

set local role tap_ann;
insert into rowcron.job (name, queue, command, kind) values
  ('a', 'q', 'select 1', 'sql'), ('b', 'q', 'select 1', 'sql'), ('c', 'q', 'select 1', 'sql'), ('d', 'q', 'select 1', 'sql'), ('other queue', 'r', 'select 1', 'sql'),
  ('python', 'q', 'send_mail', 'python'), ('python 2', 'q', 'send_fax', 'python');

-- the order
select rowcron.enqueue('a', due_at => '2020-01-02');
select rowcron.enqueue('b', due_at => '2020-01-01');
select rowcron.enqueue('c', due_at => '2020-01-03', priority => 1);
select rowcron.enqueue('d', due_at => '2020-01-01');
select rowcron.enqueue('other queue', due_at => '2020-01-01');
select rowcron.enqueue('python', due_at => '2020-01-01');
reset role;
select is(public.tap_claim(1, 2), 'c, b', 'higher priority first, then what was due first, then the lower number');
select is(public.tap_claim(2, 10), 'd, a', 'a run is claimed once; fewer than asked means that there are no more');
select is(public.tap_claim(3, 10), 'none', 'then there is nothing');
select is(public.tap_claim(3, 10, '{r}'), 'other queue', 'a worker chooses queues');
select is(public.tap_claim(3, 10, null, '{http}'), 'none', 'and kinds');
select is(public.tap_claim(3, 0, null, '{python}'), 'none', 'with no free slot it claims nothing');
select is(public.tap_claim(3, 10, null, '{python}', '{send_fax}'), 'none', 'and handlers');
select is(public.tap_claim(3, 10, null, '{python}', '{send_mail}'), 'python', 'that it has');
select results_eq($$select owner, queue, kind, attempt, args, command, timeout, connection from public.tap_claims where job in ('a', 'python') order by job$$,
  $$values ('tap_ann', 'q', 'sql', 1, '{}'::jsonb, null, interval '1 hour', null), ('tap_ann', 'q', 'python', 1, '{}', 'send_mail', interval '1 hour', null)$$,
  'a claim carries what the worker needs; of a SQL job not the command');
select is((select count(distinct c.token) from public.tap_claims as c), 6::bigint, 'each claim has its own token');
select is((select count(*) from rowcron.run as r join public.tap_claims as c on c.run_id = r.id where r.state = 'running' and r.worker_id::text like '%' || c.n and r.started_at = c.started_at),
  6::bigint, 'the run notes its holder and when it was claimed');
select is((select count(*) from rowcron.run as r join public.tap_claims as c on c.run_id = r.id where r.seal = c.token), 0::bigint, 'but not the token itself');

-- an edit holds from the next claim on; a run's args replace the job's
set local role tap_ann;
update rowcron.job set args = '{"of": "job"}', command = 'send_letter', timeout = '2 min' where name = 'python';
select rowcron.enqueue('python', '{"of": "run"}');
select rowcron.enqueue('python');
update rowcron.job set command = 'send_parcel' where name = 'python';
reset role;
select is(public.tap_claim(4, 10, null, '{python}', '{send_parcel}'), 'python, python', 'an edited command holds for runs that wait');
select results_eq($$select command, args, timeout from public.tap_claims where n = 4 order by nth$$,
  $$values ('send_parcel', '{"of": "run"}'::jsonb, interval '2 min'), ('send_parcel', '{"of": "job"}', interval '2 min')$$, 'a run''s args replace the job''s');

-- waiting
set local role tap_ann;
select rowcron.enqueue('a', due_at => '2040-01-01');
reset role;
select is(public.tap_claim(5, 10), 'none', 'what is due later is not claimed');
select is(public.tap_claim(5, 10, at => '2039-12-31 23:59:59.999'), 'none', 'nor a moment before');
select is(public.tap_claim(5, 10, at => '2040-01-01'), 'a', 'but when it is due');

-- max_running
set local role tap_ann;
insert into rowcron.job (name, queue, command, max_running) values ('two', 'q', 'select 1', 2);
select rowcron.enqueue_many('two', array_fill('{}'::jsonb, '{5}'));
select rowcron.enqueue('b');
reset role;
select is(public.tap_claim(6, 10), 'two, two, b', 'max_running bounds what runs, and the surplus makes room for others');
select is(public.tap_states('two'), 'limit 3, running 2', 'the surplus waits');
select is(public.tap_claim(7, 10), 'none', 'another claim starts no more');
set local role tap_ann;
select rowcron.run_now('two');
reset role;
select is(public.tap_claim(7, 10), 'none', 'of any origin');
select public.tap_finish('two');
select is(public.tap_claim(7, 10), 'two', 'the end of one makes room for one');
select public.tap_finish('two', 'failed');
select is(public.tap_claim(7, 1), 'two', 'also if it failed');
set local role tap_ann;
update rowcron.job set max_running = null where name = 'two';
reset role;
select is(public.tap_claim(8, 10), 'two, two', 'without limit all start');
select is(public.tap_states('two'), 'running 4', 'so all run');
set local role tap_ann;
update rowcron.job set max_running = 1 where name = 'two';
select rowcron.run_now('two');
reset role;
select is(public.tap_claim(8, 10), 'none', 'a limit below what runs starts none');
select public.tap_finish('two'); select public.tap_finish('two'); select public.tap_finish('two');
select is(public.tap_claim(8, 10), 'none', 'until there is room');
select public.tap_finish('two');
select is(public.tap_claim(8, 10), 'two', 'then the next');
select public.tap_finish('two');

-- the best of those that wait goes first
set local role tap_ann;
insert into rowcron.job (name, queue, command, max_running) values ('one', 'q', 'select 1', 1);
select rowcron.enqueue('one', '{"n": 1}', '2020-01-01');
select rowcron.enqueue('one', '{"n": 2}', '2020-01-02');
select rowcron.enqueue('one', '{"n": 3}', '2020-01-03', priority => 1);
reset role;
create function public.tap_ns() returns text language sql as $$
  select string_agg(c.args ->> 'n', ',' order by c.run_id) from public.tap_claims as c join rowcron.run as r on r.id = c.run_id and r.state = 'running' where c.job = 'one'
$$;
select public.tap_claim(9, 10);
select is(public.tap_ns(), '3', 'of a limited job the best starts');
select public.tap_finish('one'); select public.tap_claim(9, 10);
select is(public.tap_ns(), '1', 'then the next');
select public.tap_finish('one'); select public.tap_claim(9, 10);
select is(public.tap_ns(), '2', 'then the last');
select public.tap_finish('one');

-- many of a limited job do not hide others
set local role tap_ann;
select count(*) from rowcron.enqueue_many('one', array_fill('{}'::jsonb, '{3000}'), priority => 9);
select rowcron.enqueue('b');
reset role;
select is(public.tap_claim(10, 3), 'one, b', 'thousands of runs over a limit do not hide another job''s run');
select is((select count(*) from rowcron.run as r where r.job = 'one'), 3000::bigint, 'nor do they vanish');
delete from rowcron.run where job = 'one';

-- paused
set local role tap_ann;
select rowcron.enqueue_many('d', array_fill('{}'::jsonb, '{2}'));
select rowcron.pause('d');
reset role;
select is(public.tap_claim(11, 10), 'none', 'a paused job''s ready runs do not start');
select is(public.tap_states('d'), 'resume 2, running 1', 'but wait for the resume');
set local role tap_ann;
select rowcron.run_now('d');
select rowcron.enqueue('d');
reset role;
select is(public.tap_claim(11, 10), 'd, d', 'what is asked for while it is paused starts');
set local role tap_ann;
update rowcron.job set description = 'still paused' where name = 'd';
reset role;
select is(public.tap_claim(11, 10), 'none', 'an edit does not release them');
set local role tap_ann;
select rowcron.resume('d');
reset role;
select is(public.tap_claim(11, 10), 'd, d', 'a resume does');
set local role tap_ann;
update rowcron.job set max_running = 1, enabled = false where name = 'c';
select rowcron.enqueue('c'); select rowcron.enqueue('c');
reset role;
delete from rowcron.run where job = 'c' and state = 'running';
select is(public.tap_claim(12, 10), 'c', 'a limit holds for a paused job too');
select is(public.tap_states('c'), 'limit 1, running 1', 'what goes through a pause waits for its limit, not for the resume');
select public.tap_finish('c');
select is(public.tap_claim(12, 10), 'c', 'and follows when there is room');

-- overlap: the next in line
set local role tap_ann;
insert into rowcron.job (name, queue, schedule, command, on_missed, on_overlap, max_attempts, retry_delay, retry_jitter) values
  ('line', 'line', '* * * * *', 'select 1', 'all', 'skip', 2, '1 hour', 0), ('wait', 'wait', '* * * * *', 'select 1', 'latest', 'wait', 1, '1 s', 0);
reset role;
update rowcron.agenda as a set high_water = '2030-01-01', next_run_at = '2030-01-01 00:01' from rowcron.job as j where j.id = a.job_id and j.name in ('line', 'wait');
select is(public.tap_claim(13, 10, '{line}', at => '2030-01-01 00:03'), 'line', 'of several that were missed the first starts');
select is(public.tap_claim(13, 10, '{line}', at => '2030-01-01 00:03'), 'none', 'the others stand in line');
select public.tap_finish('line', 'failed');
update rowcron.run set due_at = '2040-01-01' where job = 'line' and waits_for = 'time';
select is(public.tap_claim(13, 10, '{line}', at => '2030-01-01 00:03'), 'none', 'also while it backs off');
update rowcron.run set due_at = '2020-01-01' where job = 'line' and waits_for = 'time';
select is(public.tap_claim(13, 10, '{line}', at => '2030-01-01 00:03'), 'line', 'its second attempt comes first');
select public.tap_finish('line');
select is(public.tap_claim(13, 10, '{line}', at => '2030-01-01 00:03'), 'line', 'then the second in line');
select is((select r.scheduled_for from rowcron.run as r where r.job = 'line' and r.state = 'running'), '2030-01-01 00:02', 'in order');
select public.tap_finish('line');
select is(public.tap_claim(13, 10, '{line}', at => '2030-01-01 00:03'), 'line', 'then the third');
select public.tap_finish('line');
select is(public.tap_claim(14, 10, '{wait}', at => '2030-01-01 00:01'), 'wait', 'the first starts');
select is(public.tap_claim(14, 10, '{wait}', at => '2030-01-01 00:02'), 'none', 'the second waits');
select public.tap_finish('wait');
select is(public.tap_claim(14, 10, '{wait}', at => '2030-01-01 00:03'), 'wait', 'when the first has ended the second starts');
select is(public.tap_states('wait'), 'overlap 1, running 1', 'and leaves the line free for a third that is due in that moment');

-- firing by claiming
set local role tap_ann;
insert into rowcron.job (name, queue, schedule, command) values ('due', 'due', '* * * * *', 'select 1');
reset role;
update rowcron.agenda as a set high_water = '2030-01-01', next_run_at = '2030-01-01 00:01' from rowcron.job as j where j.id = a.job_id and j.name = 'due';
select is(public.tap_claim(15, 0, '{due}', at => '2030-01-01 00:01'), 'none', 'a worker without a free slot claims nothing');
select is(public.tap_states('due'), 'ready 1', 'but fires');
select is(public.tap_claim(15, 1, '{due}', at => '2030-01-01 00:02'), 'due', 'what was fired is claimed');

-- idempotency keys
create temporary table keys as select c.run_id, c.idempotency_key from public.tap_claims as c;
select is((select count(distinct k.idempotency_key) from keys as k), (select count(distinct k.run_id) from keys as k), 'each run has an idempotency key of its own');
select is((select count(distinct c.idempotency_key) from public.tap_claims as c where c.run_id in (select x.run_id from public.tap_claims as x group by x.run_id having count(*) > 1)),
  (select count(*) from (select x.run_id from public.tap_claims as x group by x.run_id having count(*) > 1) as x), 'that is the same for each attempt');
select cmp_ok((select count(*) from (select x.run_id from public.tap_claims as x group by x.run_id having count(*) > 1) as x), '>', 0::bigint, 'and there were second attempts');

-- what falls due is claimed as it is fired
grant rowcron_http to tap_ann;
set local role tap_ann;
insert into rowcron.job (name, queue, kind, command, schedule, priority, max_running, on_overlap) values
  ('tide low', 'due', 'http', 'https://example.org/', '* * * * *', -1, null, 'allow'),
  ('tide', 'due', 'http', 'https://example.org/', '* * * * *', 0, null, 'skip'),
  ('tide high', 'due', 'http', 'https://example.org/', '* * * * *', 1, null, 'skip'),
  ('tide limited', 'due', 'http', 'https://example.org/', '* * * * *', 2, 1, 'allow'),
  ('tide faxes', 'due', 'python', 'send_fax', '* * * * *', 9, null, 'skip'),
  ('tide ready', 'due', 'http', 'https://example.org/', null, 0, null, 'skip');
reset role;
create function public.tap_due(at timestamptz) returns void language sql as $$
  update rowcron.agenda as a set high_water = at - interval '1 minute', next_run_at = at
  from rowcron.job as j where j.id = a.job_id and j.schedule is not null and j.name like 'tide%'
$$;
select public.tap_due('2030-01-01 00:01');
select is(public.tap_claim(21, 1, '{due}', '{http}', null, '2030-01-01 00:01'), 'tide limited', 'of what falls due the best starts');
select is(public.tap_claim(21, 1, '{due}', '{http}', null, '2030-01-01 00:01'), 'tide high', 'then the next');
select is(public.tap_claim(21, 9, '{due}', '{http}', null, '2030-01-01 00:01'), 'tide, tide low', 'then the rest');
select is((select string_agg(distinct (r.worker_id, r.seal = md5(c.token::text)::uuid, r.started_at, r.attempt)::text, ' ')
  from public.tap_claims as c join rowcron.run as r on r.id = c.run_id where c.n = 21 and c.job like 'tide%'),
  '(00000000-0000-4000-8000-000000000021,t,"2030-01-01 00:01:00+00",1)', 'each is held under the token that was told');
select is((select bool_and(r.limited = (r.job = 'tide limited')) from rowcron.run as r where r.job like 'tide%'), true, 'and counted if there is a limit');
select public.tap_finish('tide'), public.tap_finish('tide high');
select public.tap_due('2030-01-01 00:02');
select is(public.tap_claim(22, 9, '{due}', '{http}', null, '2030-01-01 00:02'), 'tide high, tide, tide low', 'limits hold for what falls due');
select is(public.tap_states('tide limited'), 'limit 1, running 1', 'and what is over one waits');
select public.tap_finish('tide'), public.tap_finish('tide high');
select rowcron.enqueue('tide ready', due_at => '2030-01-01', owner => 'tap_ann');
select public.tap_due('2030-01-01 00:03');
select is(public.tap_claim(23, 1, '{due}', '{http}', null, '2030-01-01 00:03'), 'tide high', 'what falls due goes before what is ready and worse');
select is(public.tap_claim(23, 2, '{due}', '{http,python}', '{send_mail}', '2030-01-01 00:03'), 'tide ready, tide', 'and behind what is better');
select is(public.tap_states('tide faxes'), 'ready 1', 'what the worker has no handler for is ready for another one');
select is(public.tap_claim(24, 1, '{due}', '{http,python}', '{send_fax}', '2030-01-01 00:03'), 'tide faxes', 'which has it');

-- a job that is gone, a kind that was revoked
set local role tap_ann;
insert into rowcron.job (name, queue, command, kind) values ('gone', 'gone', 'select 1', 'sql'), ('no longer', 'gone', 'send', 'python');
select rowcron.enqueue('gone'); select rowcron.enqueue('no longer');
reset role;
set local session_replication_role to replica;
delete from rowcron.job where name = 'gone';
set local session_replication_role to origin;
revoke rowcron_python from tap_ann;
select is(public.tap_claim(16, 10, '{gone}', '{sql,python}'), 'none', 'runs of a job that is gone, or whose kind was revoked, are not claimed');
select results_eq($$select job, outcome, reason from rowcron.ledger where job in ('gone', 'no longer') order by job$$,
  $$values ('gone', 'cancelled', 'job deleted'), ('no longer', 'cancelled', 'kind python is not granted to tap_ann')$$, 'the ledger says why');

-- terse: of each job one row tells what belongs to the job
grant rowcron_http to tap_ann;
set local role tap_ann;
insert into rowcron.job (name, queue, command, kind, args) values ('own', 'terse', 'https://example.org/', 'http', '{"of": "job"}'), ('bare', 'terse', 'select 1', 'sql', null), ('all own', 'terse', 'https://example.org/', 'http', '{"of": "job"}');
select rowcron.enqueue('own', args => '{"n": 1}'); select rowcron.enqueue('own'); select rowcron.enqueue('own', args => '{"n": 2}'); select rowcron.enqueue('own');
select rowcron.enqueue('bare'); select rowcron.enqueue('bare'); select rowcron.enqueue('all own', args => '{"n": 3}'); select rowcron.enqueue('all own', args => '{"n": 4}');
reset role;
create temporary table terse as select * from rowcron._claim(gen_random_uuid(), 9, '{terse}', '{sql,http}', null, clock_timestamp(), true) with ordinality as c
  (run_id, token, job_id, job, owner, queue, kind, command, args, attempt, scheduled_for, due_at, started_at, timeout, connection, idempotency_key, secrets, args_secrets, nth);
select results_eq($$select t.job, t.kind, t.args, t.timeout from terse as t order by t.nth$$, $$values
  (null, null, '{"n": 1}'::jsonb, null::interval), ('own', 'http', '{"of": "job"}', '1 hour'), (null, null, '{"n": 2}', null), (null, null, null, null),
  ('bare', 'sql', '{}', '1 hour'), (null, null, null, null), ('all own', 'http', '{"n": 3}', '1 hour'), (null, null, '{"n": 4}', null)$$,
  'a terse claim tells once what belongs to a job; its args stand in a row without own ones');
select is((select count(distinct t.token) from terse as t join rowcron.job as j on j.id = t.job_id where j.kind = 'sql'), 2::bigint, 'a run of kind sql has its own token');
select is((select array_agg(t.job order by t.job) from terse as t join rowcron.job as j on j.id = t.job_id where j.kind = 'http' and t.token is not null), '{all own,own}', 'the others that of the job''s row');
select is((select count(*) from terse as t join rowcron.run as r on r.id = t.run_id
  where r.seal = md5(coalesce(t.token, (select w.token from terse as w where w.job_id = t.job_id and w.job is not null))::text)::uuid), 8::bigint, 'and with it each can be ended');
-- with bounds (chapter 058) the priorities are looked through one after the other
set local role tap_ann;
insert into rowcron.job (name, queue, command, kind, args) values ('steps', 'steps', 'https://example.org/', 'http', '{"of": "job"}');
select rowcron.enqueue('steps', priority => 9); select rowcron.enqueue('steps', priority => 9); select rowcron.enqueue('steps', args => '{"n": 1}');
reset role;
select rowcron._remember(rowcron._reach_key('{steps}', '{http}', null),
  row(clock_timestamp(), 1000, false, false, null, null, array[row(null, 'steps', 'http', -1, '-infinity', 0, null)::rowcron._band])::rowcron._reached);
select results_eq($$select c.job, c.args from rowcron._claim(gen_random_uuid(), 9, '{steps}', '{http}', null, clock_timestamp(), true) as c$$, $$values
  ('steps', '{"of": "job"}'::jsonb), (null, null), (null, '{"n": 1}')$$,
  'also then one row tells what belongs to a job, so that no run gets the args of another');

-- the public verb
set local role tap_ann;
select rowcron.enqueue('a'); select rowcron.enqueue('b');
set local role tap_worker;
select is((select count(*) from rowcron.claim(queues => '{q}', capacity => null)), 1::bigint, 'a worker that says nothing else claims one');
select throws_ok($$select rowcron.claim(kinds => null)$$, 'RCLIM', null, 'it must say which kinds');
select throws_ok($$select rowcron.claim(lease => '1 ms')$$, 'RCLIM', null, 'and a lease that can be kept');
reset role;

select * from finish();
rollback;
