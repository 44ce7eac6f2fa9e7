-- The short claim of a worker that was woken: hands out what claim() would, and leaves to it what is not plain.

begin;
select plan(47);
set local timezone to 'UTC';
set local client_min_messages to error;

create role tap_ann;
grant rowcron_user, rowcron_python to tap_ann;

create function public.tap_id(n integer) returns uuid language sql immutable as $$
  select ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid
$$;
create function public.tap_live(n integer) returns void language sql as $$
  insert into rowcron.worker (id, kinds, concurrency, lease, poll, seen_at, expires_at)
  values (public.tap_id(n), '{sql}', 1, '10 s', '5 s', clock_timestamp(), clock_timestamp() + interval '10 s')
$$;
create table public.tap_claims as select c.*, 0::bigint as nth from rowcron.claim(public.tap_id(9), 0) as c;
create function public.tap_ready(n integer, capacity integer default 9, queue text default 'q', kinds text[] default '{sql,python}', handlers text[] default null)
returns text language sql as $$
  with found as materialized (
    select * from rowcron.claim_ready(public.tap_id(n), capacity, array[queue], kinds, handlers) with ordinality
  ), claimed as (
    insert into public.tap_claims select * from found where found.run_id is not null
  )
  select coalesce(string_agg(coalesce(job, case when timeout is null then 'more?' else 'none' end), ', ' order by ordinality), 'nothing') from found
$$;
create function public.tap_states(name text) returns text language sql as $$
  select coalesce(string_agg(x, ', ' order by x), 'none')
  from (select coalesce(r.waits_for, r.state) || ' ' || count(*) as x from rowcron.run as r where r.job = name group by coalesce(r.waits_for, r.state)) as s
$$;

set local role tap_ann;
insert into rowcron.job (name, queue, command, kind, args) values
  ('a', 'q', 'select 1', 'sql', '{}'), ('b', 'q', 'select 1', 'sql', '{}'), ('c', 'q', 'send', 'python', '{"of": "job"}'),
  ('d', 'other', 'select 1', 'sql', '{}'), ('many', 'many', 'select 1', 'sql', '{}'), ('held', 'held', 'select 1', 'sql', '{}'),
  ('lost', 'lost', 'select 1', 'sql', '{}'), ('new', 'new', 'select 1', 'sql', '{}'), ('wades', 'wades', 'select 1', 'sql', '{}');
select rowcron.enqueue('a', due_at => '2020-01-02');
select rowcron.enqueue('b', due_at => '2020-01-03', priority => 1);
select rowcron.enqueue('c', due_at => '2020-01-01');
select rowcron.enqueue('c', '{"of": "run"}', due_at => '2020-01-04');
select rowcron.enqueue('d', due_at => '2020-01-01');
reset role;

-- plans would be made as the session has it
select public.tap_live(1);
select is(public.tap_ready(1, 1, 'other'), 'd, more?', 'in a session that was not prepared it is the whole claim');
delete from rowcron.run where state = 'running';
delete from public.tap_claims;
select rowcron.pin_plans();
set local role tap_ann;
select rowcron.enqueue('d', due_at => '2020-01-01');
reset role;

-- the order, and who may have what
select is(public.tap_ready(1, 1), 'b, more?', 'the best is handed out first; who has no more room is told that there may be more');
select is(public.tap_ready(1, 9, 'q', '{python}', '{receive}'), 'none', 'nothing for handlers that a worker does not have');
select is(public.tap_ready(1, 9, 'q', '{http}'), 'none', 'or for kinds');
select is(public.tap_ready(1, 9, 'nowhere'), 'none', 'or in a queue that is not there');
select is(public.tap_ready(1, 9), 'c, a, c', 'then the others, in order; they are all');
select is(public.tap_ready(1), 'none', 'a run is handed out once');
select is(public.tap_ready(1, 0, 'other'), 'none', 'who has no room gets nothing');
select is(public.tap_ready(1, -1, 'other'), 'none', 'nor with less than none');
select is(public.tap_ready(1, null, 'other'), 'd, more?', 'who does not say gets one');

select is((select c.timeout from rowcron.claim_ready(public.tap_id(1), 9, '{q}', '{sql}') as c), interval '0.75 seconds', 'who finds nothing is told when to look after others');
insert into rowcron.worker (id, kinds, concurrency, lease, poll, seen_at, expires_at, asleep)
select public.tap_id(100 + i), '{sql}', 1, '10 s', '5 s', clock_timestamp(), clock_timestamp() + interval '10 s', true from generate_series(1, 20) as i;
select is((select c.timeout from rowcron.claim_ready(public.tap_id(1), 9, '{q}', '{sql}') as c), interval '2 seconds', 'of twenty each less often');
delete from rowcron.worker as w where w.asleep;

-- it is what claim() hands out
select results_eq($$select c.job, c.owner, c.queue, c.kind, c.command, c.args, c.attempt from public.tap_claims as c order by c.job, c.args$$, $$values
  ('a', 'tap_ann', 'q', 'sql', null, '{}'::jsonb, 1), ('b', 'tap_ann', 'q', 'sql', null, '{}', 1), ('c', 'tap_ann', 'q', 'python', 'send', '{"of": "job"}', 1),
  ('c', 'tap_ann', 'q', 'python', 'send', '{"of": "run"}', 1), ('d', 'tap_ann', 'other', 'sql', null, '{}', 1)$$,
  'everything about the run, a SQL job''s command excepted');
select is((select count(*) from public.tap_claims as c join rowcron.run as r on r.id = c.run_id
  where r.state = 'running' and r.worker_id = public.tap_id(1) and r.seal = md5(c.token::text)::uuid and r.started_at = c.started_at and not r.limited and r.due_at = c.due_at),
  5::bigint, 'each run is held with its token');
select is((select count(distinct c.token) from public.tap_claims as c where c.kind = 'sql'), 3::bigint, 'each SQL run has one of its own');
create table public.tap_before as select c.job, c.run_id, c.idempotency_key, c.timeout, c.args from public.tap_claims as c;
select rowcron.finish(c.run_id, c.token, 'released') from public.tap_claims as c;
select results_eq(
  $$select c.job, c.run_id, c.idempotency_key, c.timeout, c.args from rowcron.claim(public.tap_id(1), 9, null, '{sql,python}') as c order by c.run_id$$,
  $$select c.job, c.run_id, c.idempotency_key, c.timeout, c.args from public.tap_before as c order by c.run_id$$,
  'claim() says the same of them, its key and its timeout too');
select throws_ok($$select rowcron.finish(c.run_id, c.token) from public.tap_claims as c$$, 'RCCLM', null, 'whose tokens are others');

-- only a few
set local role tap_ann;
select rowcron.enqueue_many('many', array_fill('{}'::jsonb, '{25}'));
reset role;
select is((select count(*) from rowcron.claim_ready(public.tap_id(1), 20, '{many}')), 11::bigint, 'ten at most, whatever the room, and word that there may be more');
select is((select count(*) from rowcron.claim_ready(public.tap_id(1), 10, '{many}')), 11::bigint, 'then ten more');
select is((select count(*) from rowcron.claim_ready(public.tap_id(1), 10, '{many}')), 6::bigint, 'then the rest; where there were many there may be more');

-- who finds more than a little is awake
update rowcron.worker as w set asleep = true, wake_at = '2040-01-01' where w.id = public.tap_id(1);
set local role tap_ann;
select rowcron.enqueue_many('many', array_fill('{}'::jsonb, '{3}'));
reset role;
select is(public.tap_ready(1, 9, 'many'), 'many, many, many', 'after three a worker may sleep on');
select ok((select w.asleep from rowcron.worker as w where w.id = public.tap_id(1)), 'as announced');
set local role tap_ann;
select rowcron.enqueue_many('many', array_fill('{}'::jsonb, '{4}'));
reset role;
select is(public.tap_ready(1, 9, 'many'), 'many, many, many, many, more?', 'after four it has to claim');
select ok((select not w.asleep and w.wake_at is null from rowcron.worker as w where w.id = public.tap_id(1)), 'and nobody needs to notify it');

-- what is plain is handed out beside what is not
set local role tap_ann;
insert into rowcron.job (name, queue, command, max_running) values ('not plain', 'both', 'select 1', 1);
insert into rowcron.job (name, queue, command) values ('as plain', 'both', 'select 1');
select rowcron.enqueue('not plain', due_at => '2020-01-01'), rowcron.enqueue('as plain', due_at => '2020-01-02');
reset role;
select is(public.tap_ready(1, 9, 'both'), 'as plain, more?', 'what is plain is handed out, with word of the other');
select is((select c.job from rowcron.claim(public.tap_id(1), 9, '{both}', '{sql}') as c), 'not plain', 'which a claim hands out');

-- what is not plain is left to claim(), at once
set local role tap_ann;
insert into rowcron.job (name, queue, command, max_running) values ('limited', 'limited', 'select 1', 1);
insert into rowcron.job (name, queue, command) values ('paused', 'paused', 'select 1'), ('plain', 'mixed', 'select 1');
insert into rowcron.job (name, queue, command, on_lost) values ('once', 'once', 'select 1', 'fail');
select rowcron.enqueue('once');
insert into rowcron.job (name, queue, command, max_running) values ('beside', 'mixed', 'select 1', 1);
select rowcron.enqueue_many('limited', array_fill('{}'::jsonb, '{3}'));
select rowcron.enqueue('paused');
select rowcron.pause('paused');
select rowcron.enqueue('beside', due_at => '2020-01-01'), rowcron.enqueue('plain', due_at => '2020-01-02');
reset role;
update rowcron.run as r set state = 'ready', waits_for = null where r.job = 'paused';  -- as if paused a moment later
select is(public.tap_ready(1, 9, 'limited'), 'limited, more?', 'of a job with a limit no more than that');
select is(public.tap_states('limited'), 'limit 2, running 1', 'the others wait');
select is((select count(*) from rowcron.run as r where r.job = 'limited' and r.limited), 1::bigint, 'and it counts against it');
select is(public.tap_ready(1, 9, 'paused'), 'more?', 'nothing of a paused job');
select is(public.tap_states('paused'), 'resume 1', 'it waits for its resume');
select is(public.tap_ready(1, 9, 'once'), 'once, more?', 'what must not begin twice comes with that word, and begins once its claim is committed');
select is(public.tap_ready(1, 1, 'mixed'), 'beside, more?', 'what is limited has its turn before what is due later');
select is(public.tap_ready(1, 9, 'mixed'), 'plain', 'which comes next');

select rowcron.hold('tap');
set local role tap_ann;
select rowcron.enqueue('held');
reset role;
select is(public.tap_ready(1, 9, 'held'), 'more?', 'while held nothing is handed out');
select rowcron.release();
select is(public.tap_ready(1, 9, 'held'), 'held', 'afterwards it is');

set local role tap_ann;
select rowcron.enqueue('lost'), rowcron.enqueue('new');
reset role;
select public.tap_live(2);
update rowcron.worker as w set lost_at = clock_timestamp() where w.id = public.tap_id(2);
select throws_ok($$select rowcron.claim_ready(public.tap_id(2), 1, '{lost}', '{sql}')$$, 'RCWRK', null, 'who was declared lost is told so');
select is(public.tap_states('lost'), 'ready 1', 'and gets nothing');
select public.tap_live(3);
update rowcron.worker as w set expires_at = clock_timestamp() + interval '1 second' where w.id = public.tap_id(3);
select is(public.tap_ready(3, 1, 'lost'), 'lost, more?', 'who has not been heard of for a while gets it');
select cmp_ok((select w.expires_at from rowcron.worker as w where w.id = public.tap_id(3)), '>', clock_timestamp() + interval '5 seconds', 'with a sign of life');
select is(public.tap_ready(4, 1, 'new'), 'new, more?', 'who has never been heard of too');
select is((select count(*) from rowcron.worker as w where w.id = public.tap_id(4)), 1::bigint, 'and is known from then on');

-- nothing else is done
set local role tap_ann;
insert into rowcron.job (name, queue, command, schedule) values ('fires', 'fires', 'select 1', '0 0 1 1 *');
insert into rowcron.job (name, queue, command) values ('beside it', 'fires', 'select 1');
reset role;
update rowcron.agenda as a set next_run_at = clock_timestamp() from rowcron.job as j where j.id = a.job_id and j.name = 'fires';
select is(public.tap_ready(1, 9, 'fires'), 'none', 'what falls due is not fired');
set local role tap_ann;
select rowcron.enqueue('beside it');
reset role;
select is(public.tap_ready(1, 9, 'fires'), 'beside it', 'not beside what is ready either');

-- where it has to wade
select is(coalesce(current_setting('rowcron.wades', true), ''), '', 'as long as nothing lies in the way a session remembers nothing');
set local role tap_ann;
select rowcron.enqueue('wades');
reset role;
select set_config('rowcron.wades', 'yes', true);
select is(public.tap_ready(1, 9, 'wades'), 'wades, more?', 'a session that has met many dead entries leaves it to claim()');
select is(coalesce(current_setting('rowcron.wades', true), ''), '', 'until that finds none');

select finish();
rollback;
