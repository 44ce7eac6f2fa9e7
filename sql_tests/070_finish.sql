-- What becomes of an attempt.

begin;
select plan(97);
set local timezone to 'UTC';
set local client_min_messages to error;

create role tap_ann;
create role tap_worker;
grant rowcron_user to tap_ann;
grant rowcron_worker to tap_worker;

-- a claimed run of a job
create table public.tap_held (name text, run_id bigint, token uuid);
create function public.tap_claim(job_name text) returns void language sql as $$
  insert into public.tap_held (name, run_id, token)
  select c.job, c.run_id, c.token
  from rowcron._claim('00000000-0000-4000-8000-000000000001', 1, array[job_name], '{sql}', null, clock_timestamp()) as c
$$;
create function public.tap_again(job_name text) returns void language sql as $$
  update rowcron.run set due_at = '2020-01-01' where job = job_name and waits_for = 'time';
  select public.tap_claim(job_name)
$$;
create function public.tap_last(job_name text) returns public.tap_held language sql as $$
  select h from public.tap_held as h where h.name = job_name order by h.ctid desc limit 1
$$;
create function public.tap_finish(job_name text, outcome text, reason text default null, retry_after interval default null) returns text language sql as $$
  select case when f.final then 'final' else 'again' end || ' ' || f.recorded
  from rowcron.finish((public.tap_last(job_name)).run_id, (public.tap_last(job_name)).token, outcome, reason => reason, retry_after => retry_after) as f
$$;
create function public.tap_entries(job_name text) returns text language sql as $$
  select coalesce(string_agg(concat_ws(' ', l.attempt, l.outcome, case when l.final then 'final' end, l.reason), '; ' order by l.attempt, l.finished_at), 'none')
  from rowcron.ledger as l where l.job = job_name
$$;
create function public.tap_run(job_name text) returns text language sql as $$
  select coalesce(string_agg(format('%s attempt %s failures %s losses %s', coalesce(r.waits_for, r.state), r.attempt, r.failures, r.losses), '; '), 'none')
  from rowcron.run as r where r.job = job_name
$$;

set local role tap_ann;
insert into rowcron.job (name, queue, command, max_attempts, on_lost, max_lost, retry_delay, retry_jitter)
select n, n, 'select 1', coalesce((regexp_match(n, '(\d) attempts'))[1]::integer, 1),
  case when n ~ 'on_lost fail' then 'fail' else 'retry' end, coalesce((regexp_match(n, '(\d) losses'))[1]::integer, 3), '10 s', 0
from unnest('{succeeded,failed,fatal 3 attempts,cancelled,released,failed 3 attempts,lost,lost on_lost fail,lost 2 losses,mixed 2 attempts 3 losses,after 3 attempts,asked 3 attempts,deleted 3 attempts,batch 2 attempts,renamed 2 attempts,gone,public,big,stopped,halted 1 losses,halted on_lost fail,halted asked,halted gone}'::text[]) as n;
select rowcron.enqueue(j.name, '{"x": 1}', key => 'k') from rowcron.job as j;
reset role;
select public.tap_claim(j.name) from rowcron.job as j where j.owner = 'tap_ann'::regrole;

-- outcomes
select is(public.tap_finish('succeeded', 'succeeded'), 'final succeeded', 'succeeded is final');
select is(public.tap_run('succeeded'), 'none', 'a run that has ended leaves the hot table');
select results_eq(
  $$select run_id = (public.tap_last('succeeded')).run_id, attempt, final, outcome, owner::text, queue, kind, key, args, worker_id, due_at <= started_at, started_at <= finished_at, occurrences, scheduled_for
    from rowcron.ledger where job = 'succeeded'$$,
  $$values (true, 1, true, 'succeeded', 'tap_ann', 'succeeded', 'sql', 'k', '{"x": 1}'::jsonb, '00000000-0000-4000-8000-000000000001'::uuid, true, true, 1::bigint, null::timestamptz)$$,
  'its entry says all that the run knew');
select is(public.tap_finish('failed', 'failed', 'exit'), 'final failed', 'the only attempt that fails is final');
select is(public.tap_entries('failed'), '1 failed final exit', 'with its reason');
select is(public.tap_finish('fatal 3 attempts', 'fatal', 'no use'), 'final failed', 'fatal has failed, whatever attempts are left');
select is(public.tap_entries('fatal 3 attempts'), '1 failed final no use', 'and is recorded as failed');
select is(public.tap_finish('cancelled', 'cancelled', 'cancelled'), 'final cancelled', 'cancelled is final');
update rowcron.run set cancel_asked_by = 'tap_zoe' where job = 'stopped';
select is(public.tap_finish('stopped', 'cancelled', 'cancelled') || ': ' || public.tap_entries('stopped'), 'final cancelled: 1 cancelled final cancelled by tap_zoe', 'and its entry says who asked');
select is(public.tap_finish('released', 'released'), 'again released', 'released is given back');
select is(public.tap_run('released'), 'ready attempt 1 failures 0 losses 0', 'ready at once, the attempt not counted');
select is(public.tap_entries('released'), 'none', 'and not recorded');

-- attempts
select is(public.tap_finish('failed 3 attempts', 'failed'), 'again failed', 'the first of three fails');
select is(public.tap_run('failed 3 attempts'), 'time attempt 2 failures 1 losses 0', 'the second waits');
select is((select round(extract(epoch from r.due_at - clock_timestamp())) from rowcron.run as r where r.job = 'failed 3 attempts'), 10::numeric, 'for retry_delay');
select public.tap_again('failed 3 attempts');
select is(public.tap_finish('failed 3 attempts', 'failed'), 'again failed', 'the second fails');
select is((select round(extract(epoch from r.due_at - clock_timestamp())) from rowcron.run as r where r.job = 'failed 3 attempts'), 20::numeric, 'the third waits longer by retry_backoff');
select public.tap_again('failed 3 attempts');
select is(public.tap_finish('failed 3 attempts', 'failed'), 'final failed', 'the third is the last');
select is(public.tap_entries('failed 3 attempts'), '1 failed; 2 failed; 3 failed final', 'each attempt has its entry, one is final');
select is((select count(*) from rowcron.history as h where h.job = 'failed 3 attempts'), 1::bigint, 'history shows one row a run');
select public.tap_finish('after 3 attempts', 'failed', null, '90 s');
select is((select round(extract(epoch from r.due_at - clock_timestamp())) from rowcron.run as r where r.job = 'after 3 attempts'), 90::numeric, 'retry_after replaces the pause');
select public.tap_again('after 3 attempts');
select public.tap_finish('after 3 attempts', 'failed', null, '0');
select is(public.tap_run('after 3 attempts'), 'ready attempt 3 failures 2 losses 0', 'a retry_after of nothing is at once');
select public.tap_claim('after 3 attempts');
select is(public.tap_finish('after 3 attempts', 'failed', null, '90 s'), 'final failed', 'and gives no further attempt');

-- losses
select is(public.tap_finish('lost', 'lost'), 'again lost', 'a lost attempt is followed by another');
select is(public.tap_run('lost'), 'ready attempt 2 failures 0 losses 1', 'at once, and is no failure');
select public.tap_claim('lost'); select public.tap_finish('lost', 'lost'); select public.tap_claim('lost');
select is(public.tap_finish('lost', 'lost'), 'final lost', 'until max_lost');
select is(public.tap_entries('lost'), '1 lost; 2 lost; 3 lost final lost 3 times', 'each is recorded');
select is(public.tap_finish('lost on_lost fail', 'lost'), 'final lost', 'with on_lost = fail the first is final');
select is(public.tap_entries('lost on_lost fail'), '1 lost final on_lost = fail', 'and says so');
select public.tap_finish('lost 2 losses', 'lost'); select public.tap_claim('lost 2 losses');
select is(public.tap_finish('lost 2 losses', 'succeeded'), 'final succeeded', 'a run may succeed after a loss');
select public.tap_finish('mixed 2 attempts 3 losses', 'lost'); select public.tap_claim('mixed 2 attempts 3 losses');
select public.tap_finish('mixed 2 attempts 3 losses', 'failed'); select public.tap_again('mixed 2 attempts 3 losses');
select is(public.tap_run('mixed 2 attempts 3 losses'), 'running attempt 3 failures 1 losses 1', 'losses and failures are counted apart');
select public.tap_finish('mixed 2 attempts 3 losses', 'lost'); select public.tap_claim('mixed 2 attempts 3 losses');
select is(public.tap_finish('mixed 2 attempts 3 losses', 'failed'), 'final failed', 'so that max_attempts is reached by failures alone');
select is(public.tap_entries('mixed 2 attempts 3 losses'), '1 lost; 2 failed; 3 lost; 4 failed final', 'in an order that the ledger tells');

-- broken off, because the worker is told to stop
select is(public.tap_finish('halted 1 losses', 'stopped'), 'again lost', 'an attempt that stops with its worker is lost');
select is(public.tap_run('halted 1 losses'), 'ready attempt 2 failures 0 losses 0', 'another follows, and it does not count against max_lost');
select public.tap_claim('halted 1 losses'); select public.tap_finish('halted 1 losses', 'stopped'); select public.tap_claim('halted 1 losses');
select is(public.tap_finish('halted 1 losses', 'lost'), 'final lost', 'a worker that dies does');
select is(public.tap_entries('halted 1 losses'), '1 lost its worker was stopped; 2 lost its worker was stopped; 3 lost final lost 1 times', 'each is recorded with its reason');
select is(public.tap_finish('halted on_lost fail', 'stopped'), 'final lost', 'with on_lost = fail it is final');
select is(public.tap_entries('halted on_lost fail'), '1 lost final its worker was stopped; on_lost = fail', 'and says so');
update rowcron.run set cancel_asked_by = 'tap_zoe' where job = 'halted asked';
select public.tap_finish('halted asked', 'stopped');
select is(public.tap_entries('halted asked'), '1 cancelled final its worker was stopped; cancelled by tap_zoe', 'one that was to be cancelled is cancelled');
set local role tap_ann;
select rowcron.unschedule('halted gone');
reset role;
select public.tap_finish('halted gone', 'stopped');
select is(public.tap_entries('halted gone'), '1 lost final its worker was stopped; job deleted', 'one whose job was deleted is lost');

-- cancel asked, deleted, renamed
create temporary table asked as select (public.tap_last('asked 3 attempts')).run_id as id;
grant select on asked to tap_ann;
set local role tap_ann;
select rowcron.cancel((select a.id from asked as a));
reset role;
select is(public.tap_finish('asked 3 attempts', 'failed', 'signal'), 'final failed', 'a run that was to be cancelled is not tried again');
select is(public.tap_entries('asked 3 attempts'), '1 failed final signal; cancelled by tap_ann', 'and says by whom');
set local role tap_ann;
select rowcron.unschedule('deleted 3 attempts');
update rowcron.job set name = 'new name' where name = 'renamed 2 attempts';
reset role;
select is(public.tap_finish('deleted 3 attempts', 'failed'), 'final failed', 'a run whose job was deleted is not tried again');
select is(public.tap_entries('deleted 3 attempts'), '1 failed final job deleted', 'and says so');
select public.tap_finish('renamed 2 attempts', 'failed');
select is(public.tap_run('new name'), 'time attempt 2 failures 1 losses 0', 'the second attempt of a renamed job bears its new name');
set local role tap_ann;
select rowcron.unschedule('gone');
reset role;
select is(public.tap_finish('gone', 'released'), 'final released', 'what is given back of a deleted job has ended');
select is(public.tap_entries('gone'), '1 cancelled final job deleted', 'as cancelled');

-- tokens
select throws_ok($$select public.tap_finish('succeeded', 'succeeded')$$, 'RCCLM', format('the claim of run %s is lost', (public.tap_last('succeeded')).run_id), 'what has ended cannot be reported again');
select throws_ok($$select rowcron.finish((public.tap_last('public')).run_id, gen_random_uuid())$$, 'RCCLM', null, 'another token is refused');
select throws_ok($$select rowcron.finish((public.tap_last('public')).run_id, null)$$, 'RCCLM', null, 'so is none');
select throws_ok($$select rowcron.finish((public.tap_last('public')).run_id, (select r.seal from rowcron.run as r where r.id = (public.tap_last('public')).run_id))$$, 'RCCLM', null, 'so is what the run row shows');
select throws_ok($$select rowcron.finish((public.tap_last('public')).run_id, (public.tap_last('big')).token)$$, 'RCCLM', null, 'so is another run''s');
select throws_ok($$select public.tap_finish('public', 'fine')$$, 'RCLIM', 'outcome "fine" is not known', 'an unknown outcome is refused');
select throws_ok($$select rowcron.finish((public.tap_last('public')).run_id, (public.tap_last('public')).token, null)$$, 'RCLIM', null, 'so is none at all');
select public.tap_claim('released');
select is((select count(*) from public.tap_held as h where h.name = 'released'), 2::bigint, 'a run that was given back is claimed again');
select throws_ok(format('select rowcron.finish(%s, %L)', h.run_id, h.token), 'RCCLM', null, 'after which its first holder is refused')
from public.tap_held as h where h.name = 'released' order by h.ctid limit 1;
select is(public.tap_finish('released', 'released', retry_after => '5 minutes') || ': ' || public.tap_run('released'), 'again released: time attempt 1 failures 0 losses 0', 'given back with a pause it waits for its time, and nothing is counted');
select ok(r.due_at between clock_timestamp() + '4 minutes' and clock_timestamp() + '5 minutes', 'due when the pause has passed') from rowcron.run as r where r.job = 'released';
do $$
declare hint text;
begin
  perform rowcron.finish(-1, gen_random_uuid());
exception when sqlstate 'RCCLM' then
  get stacked diagnostics hint = pg_exception_hint;
  perform set_config('tap.hint', hint, true);
end $$;
select is(current_setting('tap.hint'), 'Drop what was done for it if it can be dropped; the ledger tells what became of the run.', 'and told what to do');

-- bounds
select rowcron.finish((public.tap_last('big')).run_id, (public.tap_last('big')).token, 'failed',
  error => repeat('é', 100000), output => repeat('x', 100000) || 'end', result => to_jsonb(repeat('y', 100000)));
select results_eq($$select octet_length(error), octet_length(output), right(output, 3), result from rowcron.ledger where job = 'big'$$,
  $$values (65536, 65536, 'end', '{"bytes": 100002, "truncated": true}'::jsonb)$$, 'error and output keep their last 64 KiB, a result that is larger its size');
select is(rowcron._tail(v.value, v.bytes), v.tail, format('the tail of %s in %s bytes', v.value, v.bytes))
from (values ('abc', 3, 'abc'), ('abc', 2, 'bc'), ('éé', 3, 'é'), ('a📅', 4, '📅'), ('a📅', 3, ''), ('', 3, ''), (null, 3, null)) as v (value, bytes, tail);

-- the pause
set local role tap_ann;
insert into rowcron.job (name, queue, command, max_attempts, retry_delay, retry_backoff, max_retry_delay, retry_jitter)
values ('pause', 'x', 'select 1', 1000, '10 s', 3, '5 min', 0), ('jitter', 'x', 'select 1', 1000, '10 s', 2, '1 h', 0.5), ('wild', 'x', 'select 1', 1000, '30 days', 100, '30 days', 1);
reset role;
select is(rowcron._retry_pause(j, v.failures), v.pause, format('after %s failures the pause is %s', v.failures, v.pause))
from rowcron.job as j, (values (1, interval '10 s'), (2, '30 s'), (3, '90 s'), (4, '270 s'), (5, '5 min'), (999, '5 min')) as v (failures, pause) where j.name = 'pause';
select ok(min(p) >= interval '10 s' and min(p) < interval '12 s' and max(p) <= interval '30 s' and max(p) > interval '28 s', 'jitter is a share up and down')
from (select rowcron._retry_pause(j, 2) as p from rowcron.job as j, generate_series(1, 500) where j.name = 'jitter') as p;
select ok(min(p) >= '0' and max(p) <= interval '60 days', 'the longest pause can be computed')
from (select rowcron._retry_pause(j, 1000) as p from rowcron.job as j, generate_series(1, 100) where j.name = 'wild') as p;

-- batches, by a worker
set local role tap_ann;
select rowcron.enqueue('batch 2 attempts', jsonb_build_object('n', n)) from generate_series(2, 8) as n;
reset role;
select public.tap_claim('batch 2 attempts') from generate_series(2, 8);
create temporary table batch as select row_number() over (order by h.run_id) as n, h.* from public.tap_held as h where h.name = 'batch 2 attempts';
grant select on batch to tap_worker;
set local role tap_worker;
select results_eq(
  $$select b.n, f.accepted, f.final, f.outcome, f.next_due_at is not null
    from rowcron.finish('00000000-0000-4000-8000-000000000001',
      (select array_agg(b.run_id order by b.n) from batch as b), (select array_agg(case when b.n = 7 then gen_random_uuid() else b.token end order by b.n) from batch as b),
      '{succeeded,failed,fatal,cancelled,released,lost,succeeded,stopped}', '{r1,r2,r3,r4,r5,r6,r7,r8}', '{null,e2,e3,null,null,null,null,null}', '{o1,o2,o3,o4,o5,o6,o7,o8}',
      array['{"a": 1}', null, null, null, null, null, null, null]::jsonb[], array[null, '5 min', null, null, null, null, null, null]::interval[]) as f
    join batch as b on b.run_id = f.run_id order by b.n$$,
  $$values (1::bigint, true, true, 'succeeded', false), (2, true, false, 'failed', true), (3, true, true, 'failed', false), (4, true, true, 'cancelled', false),
    (5, true, false, 'released', true), (6, true, false, 'lost', true), (7, false, false, 'succeeded', false), (8, true, false, 'lost', true)$$,
  'a batch answers for each run');
select is((select count(*) from rowcron.finish('00000000-0000-4000-8000-000000000001'::uuid, '{}'::bigint[], '{}', '{}')), 0::bigint, 'an empty batch is none');
select throws_ok($$select rowcron.finish('00000000-0000-4000-8000-000000000001'::uuid, '{1}'::bigint[], '{}', '{succeeded}')$$, 'RCLIM', null, 'a run without token is refused');
select throws_ok($$select rowcron.finish('00000000-0000-4000-8000-000000000001', '{1}', array[gen_random_uuid()], '{fine}')$$, 'RCLIM', null, 'so is an unknown outcome');
select is((select f.accepted from rowcron.finish('00000000-0000-4000-8000-000000000001', '{-1}', array[gen_random_uuid()], '{failed}') as f), false, 'an unknown run is not accepted');
reset role;
select results_eq(
  $$select b.n, l.outcome, l.final, l.reason, l.error, l.output, l.result from rowcron.ledger as l join batch as b on b.run_id = l.run_id order by b.n$$,
  $$values (1::bigint, 'succeeded', true, 'r1', null, 'o1', '{"a": 1}'::jsonb), (2, 'failed', false, 'r2', 'e2', 'o2', null), (3, 'failed', true, 'r3', 'e3', 'o3', null),
    (4, 'cancelled', true, 'r4', null, 'o4', null), (6, 'lost', false, 'r6', null, 'o6', null), (8, 'lost', false, 'r8', null, 'o8', null)$$, 'and records each with its own');
select is((select round(extract(epoch from r.due_at - clock_timestamp())) from rowcron.run as r join batch as b on b.run_id = r.id where b.n = 2), 300::numeric, 'and its own retry_after');
select is((select r.state from rowcron.run as r join batch as b on b.run_id = r.id where b.n = 7), 'running', 'what was refused is still its holder''s');

-- @after
set local role tap_ann;
insert into rowcron.job (name, queue, schedule, command, max_runs, max_attempts) values ('chain', 'chain', '@after 10 minutes', 'select 1', 2, 2), ('chain 2', 'chain 2', '@after 10 minutes', 'select 1', null, 1);
reset role;
create function public.tap_fire(job_name text) returns void language sql as $$
  update rowcron.agenda as a set high_water = clock_timestamp() - interval '2 minutes', next_run_at = clock_timestamp() - interval '1 minute'
  from rowcron.job as j where j.id = a.job_id and j.name = job_name;
  select public.tap_claim(job_name)
$$;
create function public.tap_next(job_name text) returns numeric language sql as $$
  select round(extract(epoch from a.next_run_at - clock_timestamp())) from rowcron.agenda as a join rowcron.job as j on j.id = a.job_id where j.name = job_name
$$;
select public.tap_fire('chain');
select is(public.tap_next('chain'), null, 'while its run is live @after has no next');
select public.tap_finish('chain', 'failed');
select is(public.tap_next('chain'), null, 'also while it backs off');
select public.tap_again('chain');
select public.tap_finish('chain', 'failed');
select is(public.tap_next('chain'), 600::numeric, 'its next is counted from the end of the run');
set local role tap_ann;
select rowcron.run_now('chain');
reset role;
select public.tap_claim('chain');
select public.tap_finish('chain', 'succeeded');
select is(public.tap_next('chain'), 600::numeric, 'a run on demand does not move it');
select public.tap_fire('chain');
select public.tap_finish('chain', 'succeeded');
select is(public.tap_next('chain'), null, 'after max_runs it is over');
select public.tap_fire('chain 2');
select rowcron.finish(null::uuid, array[(public.tap_last('chain 2')).run_id], array[(public.tap_last('chain 2')).token], '{succeeded}');
select is(public.tap_next('chain 2'), 600::numeric, 'a batch counts from the end too');
update rowcron.job set schedule = '@after 1 day' where name = 'chain 2';
set local session_replication_role to replica;
update rowcron.job set timezone = 'Atlantis/Capital' where name = 'chain 2';
set local session_replication_role to origin;
select public.tap_fire('chain 2');
set local role tap_ann;
select rowcron.run_now('succeeded');
reset role;
select public.tap_claim('succeeded');
select results_eq(
  $$select f.accepted from rowcron.finish(null::uuid, array[(public.tap_last('succeeded')).run_id, (public.tap_last('chain 2')).run_id],
    array[(public.tap_last('succeeded')).token, (public.tap_last('chain 2')).token], '{succeeded,succeeded}') as f$$,
  '{t,t}'::boolean[], 'a job whose next cannot be counted keeps no report of the batch from being taken');
select is(public.tap_next('chain 2'), null, 'it is taken off the agenda');
select matches((select string_agg(l.reason, '; ') from rowcron.ledger as l where l.job = 'chain 2' and l.outcome = 'missed' and l.final and l.scheduled_for <= l.finished_at),
  '^schedule cannot be computed: .*Atlantis/Capital', 'and its entry says why');
set local role tap_ann;
select lives_ok($$update rowcron.job set timezone = 'UTC' where name = 'chain 2'$$, 'its zone can be corrected');
reset role;
select isnt(public.tap_next('chain 2'), null, 'with which it is on the agenda again');

select is((select count(*) from (select l.run_id from rowcron.ledger as l where l.run_id is not null and l.final group by l.run_id having count(*) > 1) as d), 0::bigint, 'no run has two final entries');
select is((select count(*) from rowcron.ledger as l join rowcron.run as r on r.id = l.run_id where l.final), 0::bigint, 'no run that is live has a final entry');

select * from finish();
rollback;
