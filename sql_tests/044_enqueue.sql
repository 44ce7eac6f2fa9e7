-- Runs on demand, and keys.

begin;
select plan(54);
set local timezone to 'UTC';
set local client_min_messages to error;

create role tap_ann;
create role tap_bob;
create role tap_operator;
grant rowcron_user to tap_ann, tap_bob;
grant rowcron_operator to tap_operator;
grant rowcron_python to tap_ann;

set local role tap_ann;
insert into rowcron.job (name, command, queue, priority, args, enabled, kind) values
  ('a', 'select 1', 'q', 4, '{"of": "job"}', true, 'sql'),
  ('b', 'select 1', 'q', 0, null, true, 'sql'),
  ('paused', 'select 1', 'q', 0, null, false, 'sql'),
  ('py', 'send_mail', 'q', 0, null, true, 'python');
create temporary table ids (name text, id bigint);
insert into ids values ('plain', rowcron.enqueue('a')), ('later', rowcron.enqueue('a', '{"of": "run"}', '2040-01-01', priority => -2)),
  ('past', rowcron.enqueue('a', due_at => '2020-01-01')), ('paused', rowcron.enqueue('paused')), ('py', rowcron.enqueue('py'));
select results_eq(
  $$select i.name, r.job, r.owner::text, r.queue, r.kind, r.handler, r.state, r.waits_for, r.priority, r.args, r.through_pause, r.scheduled_for
    from ids as i join rowcron.run as r on r.id = i.id order by i.name$$,
  $$values
    ('later', 'a', 'tap_ann', 'q', 'sql', null, 'waiting', 'time', -2, '{"of": "run"}'::jsonb, false, null::timestamptz),
    ('past', 'a', 'tap_ann', 'q', 'sql', null, 'ready', null, 4, null, false, null),
    ('paused', 'paused', 'tap_ann', 'q', 'sql', null, 'ready', null, 0, null, true, null),
    ('plain', 'a', 'tap_ann', 'q', 'sql', null, 'ready', null, 4, null, false, null),
    ('py', 'py', 'tap_ann', 'q', 'python', 'send_mail', 'ready', null, 0, null, false, null)$$,
  'enqueue makes a run of its job, now or later, for which its own args, due_at and priority hold');
select is((select r.due_at from rowcron.run as r join ids as i on i.id = r.id where i.name = 'past'), '2020-01-01', 'due_at may lie in the past');
select ok((select r.due_at between now() and clock_timestamp() from rowcron.run as r join ids as i on i.id = r.id where i.name = 'plain'), 'without it the run is due now');

create temporary table many as select r.id, r.n from rowcron.enqueue_many('a', array['{"n": 1}', '{"n": 2}', null]::jsonb[]) with ordinality as r (id, n);
select results_eq($$select r.args, r.priority, r.state from many as m join rowcron.run as r on r.id = m.id order by m.n$$,
  $$values ('{"n": 1}'::jsonb, 4, 'ready'), ('{"n": 2}', 4, 'ready'), (null, 4, 'ready')$$, 'enqueue_many makes a run for each element, in order');
select is((select count(*) from rowcron.enqueue_many('a', '{}')), 0::bigint, 'of none it makes none');
select is((select count(*) from rowcron.enqueue_many('b', array['{}', '{}']::jsonb[], due_at => '2040-01-01')), 2::bigint, 'later ones are made too');
select is((select count(*) from rowcron.run as r where r.job = 'b' and r.waits_for = 'time'), 2::bigint, 'and wait for their time');
create temporary table none as select m.id from rowcron.enqueue_many('a', array['null', '[1]', null]::jsonb[]) as m (id);
insert into none values (rowcron.enqueue('a', 'null'));
select is((select array_agg(r.args order by r.id) from none as n join rowcron.run as r on r.id = n.id), array[null, '[1]', null, null]::jsonb[],
  'JSON''s null is none: the run has its job''s args');

-- refusals
create temporary table refusals (call text, state text, fact text);
insert into refusals values
  ('rowcron.enqueue(''a'', due_at => ''infinity'')', 'RCLIM', 'a run is due at some time'),
  ('rowcron.enqueue(''a'', due_at => ''-infinity'')', 'RCLIM', 'and not always'),
  ('rowcron.enqueue_many(''a'', array[''{}'']::jsonb[], due_at => ''infinity'')', 'RCLIM', 'many runs neither'),
  ('rowcron.enqueue(''a'', to_jsonb(repeat(''x'', 1048576)))', 'RCCMD', 'args have at most 1 MiB'),
  ('rowcron.enqueue_many(''a'', array[to_jsonb(repeat(''x'', 1048576))])', 'RCCMD', 'also of many'),
  ('rowcron.enqueue(''a'', ''5'')', 'RCCMD', 'args are no number'),
  ('rowcron.enqueue_many(''a'', array[''{}'', ''"text"'']::jsonb[])', 'RCCMD', 'nor text'),
  ('rowcron.enqueue_many(''a'', array[array[''1'', ''2''], array[''3'', ''4'']]::jsonb[])', 'RCLIM', 'args of many are one list'),
  ('rowcron.enqueue(''a'', key => '''')', 'RCKEY', 'a key is not empty'),
  ('rowcron.enqueue(''a'', key => repeat(''k'', 501))', 'RCKEY', 'nor longer than 500 bytes'),
  ('rowcron.enqueue(''a'', key => ''k'', key_ttl => ''0'')', 'RCKEY', 'it lives for some time'),
  ('rowcron.enqueue(''a'', key => ''k'', key_ttl => ''367 days'')', 'RCKEY', 'at most 366 days'),
  ('rowcron.enqueue(''a'', key => ''k'', key_ttl => null)', 'RCKEY', 'not for ever'),
  ('rowcron.enqueue(''nowhere'')', 'RCNOJ', 'the job must exist'),
  ('rowcron.enqueue(null)', 'RCNOJ', 'and be named');
select throws_ok('select ' || r.call, r.state, null, r.call || ': ' || r.fact) from refusals as r where length(r.call) < 200;
do $$ begin perform rowcron.enqueue('a', key => ''); exception when sqlstate 'RCKEY' then
  perform set_config('tap.message', sqlerrm, true);
end $$;
select is(current_setting('tap.message'), 'key "" or its time to live "1 day" is not valid', 'a bad key is quoted');

-- keys
insert into ids values ('first', rowcron.enqueue('a', '{"first": true}', key => 'invoice-1'));
select is(rowcron.enqueue('a', '{"second": true}', key => 'invoice-1'), (select i.id from ids as i where i.name = 'first'), 'the same key of the same job returns the run that exists');
select is((select count(*) from rowcron.run as r where r.key = 'invoice-1'), 1::bigint, 'and makes no other');
select is((select r.args from rowcron.run as r where r.key = 'invoice-1'), '{"first": true}', 'whose args stay');
select isnt(rowcron.enqueue('b', key => 'invoice-1'), (select i.id from ids as i where i.name = 'first'), 'a key is its job''s own');
select isnt(rowcron.enqueue('a', key => 'invoice-2'), (select i.id from ids as i where i.name = 'first'), 'another key is another run');
select rowcron.cancel((select i.id from ids as i where i.name = 'first'));
select is(rowcron.enqueue('a', key => 'invoice-1'), (select i.id from ids as i where i.name = 'first'), 'the key outlives its run');
select ok((select k.expires_at between clock_timestamp() + interval '23:59' and clock_timestamp() + interval '24:01' from rowcron.key as k where k.key = 'invoice-2'),
  'by default for a day');
reset role;
update rowcron.key set expires_at = clock_timestamp() where key = 'invoice-1';
set local role tap_ann;
insert into ids values ('again', rowcron.enqueue('a', key => 'invoice-1', key_ttl => '1 hour'));
select isnt((select i.id from ids as i where i.name = 'again'), (select i.id from ids as i where i.name = 'first'), 'an expired key is free again');
select is(rowcron.enqueue('a', key => 'invoice-1'), (select i.id from ids as i where i.name = 'again'), 'and then names the new run');

-- by hand: a row gains nothing
set local role tap_bob;
insert into rowcron.job (name, command) values ('mine', 'select 1');
reset role;
create table public.tap_known as select j.name, j.id from rowcron.job as j where j.owner in ('tap_ann'::regrole, 'tap_bob'::regrole);
grant select on public.tap_known to public;
create function public.tap_by_hand(job text, columns text, vals text) returns text language sql as $$
  select format('insert into rowcron.run (job_id, job, owner, queue, kind, state, due_at%s) values (%s, %L, current_user::text::regrole, ''default'', ''sql'', ''ready'', now()%s)',
    columns, (select k.id from public.tap_known as k where k.name = job), job, vals)
$$;
set local role tap_bob;
select lives_ok(public.tap_by_hand('mine', '', ''), 'an author may insert a ready run of its own job');
select throws_ok(public.tap_by_hand('a', '', ''), '42501', null, 'but none of somebody else''s');
select throws_ok(public.tap_by_hand('a', ', key, key_expires_at', ', ''invoice-9'', now() + interval ''1 day'''), 'RCNOJ', null, 'nor take its keys');
select throws_ok(replace(public.tap_by_hand('mine', '', ''), 'current_user::text::regrole', '''tap_ann'''), '42501', null, 'nor one in somebody else''s name');
select throws_ok(public.tap_by_hand('mine', ', scheduled_for', ', now()'), '42501', null, 'nor an occurrence');
select throws_ok(public.tap_by_hand('mine', ', attempt', ', 1'), '42501', null, 'nor an attempt');
select throws_ok(public.tap_by_hand('mine', ', seal', ', gen_random_uuid()'), '42501', null, 'nor a claim');
select throws_ok(public.tap_by_hand('mine', ', created_at', ', now()'), '42501', null, 'nor a birth');
select throws_ok(public.tap_by_hand('mine', ', args', ', ''5'''), 'RCCMD', 'args of a run of job "mine" are a JSON number', 'nor args that are a number');
select throws_ok(replace(public.tap_by_hand('mine', '', ''), '''ready''', '''running'''), 'RCLIM', null, 'nor one that runs');
select throws_ok($$update rowcron.run set due_at = now()$$, '42501', null, 'runs are not changed by hand');
select throws_ok($$delete from rowcron.run$$, '42501', null, 'nor deleted');
select lives_ok(replace(public.tap_by_hand('mine', '', ''), '''sql''', '''shell'''), 'a run may be written for another kind than its job''s');
select lives_ok(public.tap_by_hand('mine', ', key', ', ''by hand'''), 'a key needs no end');
select is(rowcron.enqueue('mine', key => 'by hand'), (select r.id from rowcron.run as r where r.key = 'by hand'), 'enqueue finds the run');
select is((select r.key_expires_at from rowcron.run as r where r.key = 'by hand'), (select k.expires_at from rowcron.key as k where k.key = 'by hand'
  and k.expires_at between clock_timestamp() + interval '23:59' and clock_timestamp() + interval '24:01'), 'for a day, as by default there');
select rowcron.cancel((select r.id from rowcron.run as r where r.key = 'by hand'));
reset role;
select is((select count(*) from rowcron.key as k where k.key = 'invoice-9'), 0::bigint, 'the key is free');
create temporary table claimed as select c.job, c.kind from rowcron._claim(gen_random_uuid(), 100, '{default}', '{sql,shell}', null, clock_timestamp()) as c;
insert into rowcron.lane (queue, kind) values ('default', 'shell');
insert into claimed select c.job, c.kind from rowcron._claim(gen_random_uuid(), 100, '{default}', '{sql,shell}', null, clock_timestamp()) as c;
select results_eq($$select job, kind from claimed$$, $$values ('mine', 'sql')$$, 'but it is not claimed');
select is((select array_agg(r.kind || ' ' || r.state) from rowcron.run as r where r.job = 'mine' and r.state <> 'running'), '{sql ready}', 'but goes where its job is');

-- operators
set local role tap_operator;
select lives_ok($$select rowcron.enqueue('a', owner => 'tap_ann')$$, 'an operator enqueues for everyone');
select is((select count(*) from rowcron.run as r where r.id = (select max(x.id) from rowcron.run as x) and r.owner = 'tap_ann'::regrole), 1::bigint, 'the run is its owner''s');
reset role;

select * from finish();
rollback;
