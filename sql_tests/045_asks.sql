-- What is asked for by a change: cancel, retry, run_now, hold, release; signed, judged, recorded.

begin;
select plan(59);
set local timezone to 'UTC';
set local client_min_messages to error;

create role tap_ann;
create role tap_bob;
create role tap_operator;
create role tap_viewer;
create role tap_worker;
grant rowcron_user to tap_ann, tap_bob;
grant rowcron_operator to tap_operator;
grant rowcron_viewer to tap_viewer;
grant rowcron_worker to tap_worker;

set local role tap_ann;
insert into rowcron.job (name, command, queue, args, enabled) values
  ('a', 'select 1', 'q', '{"of": "job"}', true), ('paused', 'select 1', 'q', null, false), ('gone', 'select 1', 'q', null, true);
reset role;
create table public.tap_ids (name text, id bigint);
grant all on public.tap_ids to public;

-- run_now
set local role tap_ann;
insert into public.tap_ids values ('now', rowcron.run_now('a')), ('args', rowcron.run_now('a', '{"x": 1}')), ('paused', rowcron.run_now('paused')), ('gone', rowcron.run_now('gone'));
select results_eq(
  $$select i.name, r.job, r.state, r.args, r.through_pause, r.priority, r.queue from public.tap_ids as i join rowcron.run as r on r.id = i.id order by i.name$$,
  $$values ('args', 'a', 'ready', '{"x": 1}'::jsonb, false, 0, 'q'), ('gone', 'gone', 'ready', null, false, 0, 'q'), ('now', 'a', 'ready', null, false, 0, 'q'), ('paused', 'paused', 'ready', null, true, 0, 'q')$$,
  'run_now makes a ready run, also of a paused job');
select results_eq($$select changed_by, action, job, owner::text, new_values from rowcron.change where run_id = (select i.id from public.tap_ids as i where i.name = 'args')$$,
  $$values ('tap_ann', 'run', 'a', 'tap_ann', '{"x": 1}'::jsonb)$$, 'and is recorded with who asked');
set local role tap_operator;
select lives_ok($$insert into public.tap_ids values ('operator', rowcron.run_now('a', owner => 'tap_ann'))$$, 'an operator runs everyone''s');
select is((select c.changed_by from rowcron.change as c where c.run_id = (select i.id from public.tap_ids as i where i.name = 'operator')), 'tap_operator', 'in its own name');
set local role tap_viewer;
select throws_ok($$select rowcron.run_now('a', owner => 'tap_ann')$$, '42501', null, 'a viewer runs nothing');

-- cancel
set local role tap_bob;
select throws_ok(format('select rowcron.cancel(%s)', (select i.id from public.tap_ids as i where i.name = 'now')), 'RCNOR', null, 'somebody else''s run is as if it were not');
select throws_ok('select rowcron.cancel(-1)', 'RCNOR', 'run -1 is not live', 'as one that never was');
select throws_ok('select rowcron.cancel(null)', 'RCNOR', 'a run must be named', 'a run must be named');
set local role tap_ann;
select is(rowcron.cancel((select i.id from public.tap_ids as i where i.name = 'now')), 'cancelled', 'a ready run is cancelled at once');
select results_eq($$select outcome, reason, final, attempt, started_at from rowcron.ledger where run_id = (select i.id from public.tap_ids as i where i.name = 'now')$$,
  $$values ('cancelled', 'cancelled by tap_ann', true, 1, null::timestamptz)$$, 'the ledger says by whom');
select throws_ok(format('select rowcron.cancel(%s)', (select i.id from public.tap_ids as i where i.name = 'now')), 'RCNOR', null, 'a run that has ended cannot be cancelled');
insert into public.tap_ids values ('later', rowcron.enqueue('a', due_at => '2040-01-01'));
set local role tap_operator;
select is(rowcron.cancel((select i.id from public.tap_ids as i where i.name = 'later')), 'cancelled', 'an operator cancels everyone''s, also what waits');
reset role;
create temporary table held as select * from rowcron._claim('00000000-0000-4000-8000-000000000001', 2, '{q}', '{sql}', null, clock_timestamp());
set local role tap_ann;
select is(rowcron.cancel((select i.id from public.tap_ids as i where i.name = 'args')), 'asked', 'of a running one its worker is told');
select is((select r.cancel_asked_by from rowcron.run as r join public.tap_ids as i on i.id = r.id where i.name = 'args'), 'tap_ann', 'and the row says who asked');
reset role;
select is(
  (select h.cancels from rowcron.heartbeat('00000000-0000-4000-8000-000000000001') as h),
  (select array_agg(i.id) from public.tap_ids as i where i.name = 'args'), 'the worker''s heartbeat learns of it');
select results_eq(
  $$select f.accepted, f.final from held as h join public.tap_ids as i on i.id = h.run_id and i.name = 'args',
    rowcron.finish('00000000-0000-4000-8000-000000000001', array[h.run_id], array[h.token], '{failed}', '{signal}') as f$$,
  $$values (true, true)$$, 'an attempt that then fails is final');

-- retry
set local role tap_bob;
select throws_ok(format('select rowcron.retry(%s)', (select i.id from public.tap_ids as i where i.name = 'now')), 'RCNOR', null, 'somebody else''s run cannot be repeated');
set local role tap_ann;
insert into public.tap_ids values ('again', rowcron.retry((select i.id from public.tap_ids as i where i.name = 'args')));
select results_eq(
  $$select r.job, r.state, r.args, r.attempt, r.retry_of = (select i.id from public.tap_ids as i where i.name = 'args')
    from rowcron.run as r where r.id = (select i.id from public.tap_ids as i where i.name = 'again')$$,
  $$values ('a', 'ready', '{"x": 1}'::jsonb, 1, true)$$, 'retry makes a new run with the same args, that names the old');
select throws_ok(format('select rowcron.retry(%s)', (select i.id from public.tap_ids as i where i.name = 'again')), 'RCNOR', null, 'a live run cannot be repeated');
select throws_ok('select rowcron.retry(null)', 'RCNOR', 'a run must be named', 'a run must be named to be repeated');
select rowcron.cancel((select i.id from public.tap_ids as i where i.name = 'gone')) where exists (select from rowcron.run as r join public.tap_ids as i on i.id = r.id where i.name = 'gone' and r.state = 'ready');
reset role;
update rowcron.run as r set state = 'ready', waits_for = null, worker_id = null, seal = null, started_at = null from public.tap_ids as i where i.id = r.id and i.name = 'gone';
set local role tap_ann;
select rowcron.cancel(r.id) from rowcron.run as r join public.tap_ids as i on i.id = r.id where i.name = 'gone';
select rowcron.unschedule('gone');
select throws_ok(format('select rowcron.retry(%s)', (select i.id from public.tap_ids as i where i.name = 'gone')), 'RCNOJ', 'there is no job "gone"', 'nor a run whose job is gone');
select is((select c.changed_by || ' ' || c.action from rowcron.change as c where c.run_id = (select i.id from public.tap_ids as i where i.name = 'again')), 'tap_ann retry', 'a retry is recorded');

-- a run that repeats another is for its occurrence, and takes nobody's place
set local role tap_ann;
insert into rowcron.job (name, command, queue, schedule) values ('night', 'select 1', 'n', '0 3 * * *'), ('after', 'select 1', 'after', '@after 1 hour');
reset role;
create function public.tap_night(nth integer) returns bigint language sql as $$
  select i.id from public.tap_ids as i where i.name = 'night ' || nth
$$;
select rowcron.pin_plans();
create table public.tap_nights as select null::integer as nth, c.* from rowcron._claim(gen_random_uuid(), 0, '{n}', '{sql}', null, clock_timestamp()) as c;
create function public.tap_fail(nth integer, brief boolean) returns timestamptz language plpgsql as $$
begin
  if brief then
    insert into public.tap_nights
    select tap_fail.nth, c.* from rowcron.claim_ready('00000000-0000-4000-8000-000000000001', 1, '{n}', '{sql}') as c where c.run_id is not null;
  else
    insert into public.tap_nights
    select tap_fail.nth, c.* from rowcron._claim('00000000-0000-4000-8000-000000000001', 1, '{n}', '{sql}', null, clock_timestamp()) as c;
  end if;
  perform from public.tap_nights as t, rowcron.finish(t.run_id, t.token, 'failed') where t.nth = tap_fail.nth;
  return (select t.scheduled_for from public.tap_nights as t where t.nth = tap_fail.nth);
end
$$;
with night as (
  insert into rowcron.run (job_id, job, owner, queue, kind, state, due_at, scheduled_for)
  select j.id, j.name, j.owner, j.queue, j.kind, 'ready', '2030-01-01 03:00', '2030-01-01 03:00' from rowcron.job as j where j.name = 'night'
  returning id
)
insert into public.tap_ids select 'night 0', n.id from night as n;
select is(public.tap_fail(0, false), '2030-01-01 03:00', 'a run is for its occurrence');
set local role tap_ann;
insert into public.tap_ids values ('night 1', rowcron.retry(public.tap_night(0)));
reset role;
select results_eq($$select scheduled_for, retry_for, retry_of = public.tap_night(0) from rowcron.run where id = public.tap_night(1)$$,
  $$values (null::timestamptz, '2030-01-01 03:00'::timestamptz, true)$$, 'one that repeats it is on demand');
select is(public.tap_fail(1, false), '2030-01-01 03:00', 'and told the same occurrence');
select is((select count(distinct t.idempotency_key) from public.tap_nights as t where t.nth in (0, 1)), 2::bigint, 'with a key of its own');
delete from rowcron.ledger where run_id = public.tap_night(0);
set local role tap_ann;
insert into public.tap_ids values ('night 2', rowcron.retry(public.tap_night(1)));
reset role;
select is(public.tap_fail(2, true), '2030-01-01 03:00', 'a repetition of a repetition, too, by a short claim and when the ledger has forgotten the first');
select results_eq($$select run_id, scheduled_for, retry_for from rowcron.ledger where job = 'night' order by run_id$$,
  $$select n.id, null::timestamptz, '2030-01-01 03:00'::timestamptz from unnest(array[public.tap_night(1), public.tap_night(2)]) as n (id) order by 1$$, 'the ledger tells both');
set local role tap_ann;
select is((select count(*) from rowcron.occurrences('night', '2030-01-01', '2030-01-02') as o where o.run_id is not null), 0::bigint, 'which are no entries of the occurrence');
create temporary view bulk as  -- as the README has it
select rowcron.retry(h.run_id) from rowcron.history as h
where h.outcome in ('failed', 'lost') and h.finished_at > now() - interval '1 day' and h.job = 'night'
  and not exists (select from rowcron.active as a where a.retry_of = h.run_id)
  and not exists (select from rowcron.history as r where r.retry_of = h.run_id);
select is((select count(retry) from bulk), 1::bigint, 'of a chain its end is repeated');
select is((select count(retry) from bulk), 0::bigint, 'and nothing that was repeated already');
select lives_ok($$insert into public.tap_ids values ('night 3', rowcron.retry(public.tap_night(2))), ('night 4', rowcron.retry(public.tap_night(2)))$$, 'who asks twice gets two runs');
select is((select count(*) from rowcron.active as a where a.retry_of = public.tap_night(2) and a.retry_for = '2030-01-01 03:00'), 3::bigint, 'for the same occurrence');
reset role;
delete from rowcron.run where queue = 'n';
-- the end of a repetition is not what @after counts from
insert into rowcron.run (job_id, job, owner, queue, kind, state, due_at, retry_for)
select j.id, j.name, j.owner, 'n', j.kind, 'ready', now(), '2030-01-01 03:00' from rowcron.job as j where j.name = 'after';
create temporary table counted as select a.next_run_at from rowcron.agenda as a join rowcron.job as j on j.id = a.job_id where j.name = 'after';
update rowcron.job set queue = 'n' where name = 'after';
select is(public.tap_fail(4, false), '2030-01-01 03:00', 'it may be that of a job that counts from the end of its runs');
select is((select a.next_run_at from rowcron.agenda as a join rowcron.job as j on j.id = a.job_id where j.name = 'after'), (select c.next_run_at from counted as c), 'which it does not move');
delete from rowcron.job where name = 'after';

-- hold and release
set local role tap_ann;
select throws_ok($$select rowcron.hold('mine')$$, 'RCOWN', '"tap_ann" may not hold or release', 'an author holds nothing');
select throws_ok($$select rowcron.release()$$, 'RCOWN', null, 'nor releases');
set local role tap_operator;
select rowcron.hold('upgrade');
select results_eq($$select value ->> 'reason', value ->> 'by', (value ->> 'at')::timestamptz > now() - interval '1 minute' from rowcron.setting where name = 'hold'$$,
  $$values ('upgrade', 'tap_operator', true)$$, 'hold says why, who and since when');
reset role;
update rowcron.agenda as a set high_water = '2020-01-01', next_run_at = '2020-01-02' from rowcron.job as j where j.id = a.job_id and j.name = 'a';
set local role tap_worker;
select is((select count(*) from rowcron.claim(capacity => 10)), 0::bigint, 'while held nothing is claimed');
select is((select h.wake_after from rowcron.heartbeat('00000000-0000-4000-8000-000000000001', asleep => true) as h), null::interval, 'nor is there anything to wake for');
reset role;
select is((select a.next_run_at from rowcron.agenda as a join rowcron.job as j on j.id = a.job_id where j.name = 'a'), '2020-01-02', 'and nothing is fired');
set local role tap_ann;
select lives_ok($$insert into public.tap_ids values ('held', rowcron.run_now('a'))$$, 'what is asked for while held waits');
set local role tap_operator;
select rowcron.release();
select is((select s.value from rowcron.setting as s where s.name = 'hold'), 'null', 'release ends it');
reset role;
update rowcron.agenda as a set next_run_at = null from rowcron.job as j where j.id = a.job_id and j.name = 'a';
set local role tap_worker;
select cmp_ok((select count(*) from rowcron.claim(capacity => 10)), '>', 0::bigint, 'after which runs are claimed again');
reset role;
select results_eq($$select action, changed_by, new_values ->> 'reason', old_values ->> 'reason' from rowcron.change where action in ('hold', 'release') order by id$$,
  $$values ('hold', 'tap_operator', 'upgrade', null), ('release', 'tap_operator', null, 'upgrade')$$, 'both are recorded');

-- a change cannot be forged
set local role tap_ann;
select throws_ok($$insert into rowcron.change (action, job) values ('delete', 'a')$$, 'RCOWN', 'changes of jobs are recorded by the database', 'a change of a job cannot be written by hand');
select throws_ok($$insert into rowcron.change (action, changed_by) values ('hold', 'tap_operator')$$, '42501', null, 'nor the name of who did it');
select throws_ok($$insert into rowcron.change (action, changed_at) values ('run', '2020-01-01')$$, '42501', null, 'nor the time');
select throws_ok($$update rowcron.change set changed_by = 'tap_bob'$$, '42501', null, 'nor be changed');
select throws_ok($$delete from rowcron.change$$, '42501', null, 'nor deleted');
select throws_ok($$insert into rowcron.change (action, job, owner) values ('run', 'a', 'tap_bob')$$, 'RCNOJ', null, 'a run asked for by hand is judged as any');
select throws_ok($$insert into rowcron.change (action) values ('dance')$$, '23514', null, 'an unknown action is refused');
set local role tap_operator;
select throws_ok($$insert into rowcron.change (action, job) values ('update', 'a')$$, 'RCOWN', null, 'an operator forges none either');
set local role tap_bob;
select throws_ok($$insert into rowcron.change (action, job, owner) values ('run', 'a', 'tap_ann')$$, 'RCNOJ', null, 'nor does anyone run somebody else''s job so');
select is((select count(*) from rowcron.change as c where c.job = 'a'), 0::bigint, 'nobody sees who changed somebody else''s job');
reset role;
select is((select count(*) from rowcron.change as c where c.action in ('run', 'retry', 'cancel') and (c.job is null or c.owner is null or c.run_id is null or c.job_id is null)), 0::bigint,
  'each names job, owner and run');

-- args
set local role tap_ann;
insert into rowcron.job (name, command) values ('args', 'select 1');
create temporary table none as select rowcron.run_now('args', 'null') as id;
select ok((select r.args is null from rowcron.run as r join none as n on n.id = r.id), 'JSON''s null is none');
select throws_ok($$select rowcron.run_now('args', '5')$$, 'RCCMD', 'args of a run of job "args" are a JSON number', 'a number is refused');
create temporary table old as select rowcron.run_now('args', '{}') as id;
select rowcron.cancel(o.id) from old as o;
reset role;
update rowcron.ledger set args = '5' where run_id = (select o.id from old as o);
set local role tap_ann;
create temporary table again as select rowcron.retry(o.id) as id from old as o;
select is((select r.args from rowcron.run as r join again as a on a.id = r.id), '5', 'a retry has what was accepted once');
reset role;

select * from finish();
rollback;
