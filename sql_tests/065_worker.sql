-- A worker's own row: registration, heartbeat, sleep.

begin;
select plan(55);
set local timezone to 'UTC';
set local client_min_messages to error;

create role tap_ann;
create role tap_worker;
grant rowcron_user to tap_ann;
grant rowcron_worker to tap_worker;
delete from rowcron.worker;
delete from rowcron.lane;
create function public.tap_id(n integer) returns uuid language sql as $$
  select ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid
$$;

-- registration
set local role tap_worker;
select results_eq(
  $$select settled, cancels, changes from rowcron.heartbeat(public.tap_id(1), '{q}', '{sql,http}', '{send_mail}', 3, '20 s', '2 s', '0.1.0', 'host', 4711)$$,
  $$values (false, '{}'::bigint[], '[]'::jsonb)$$, 'the first heartbeat answers as every other');
reset role;
select results_eq(
  $$select queues, kinds, handlers, concurrency, lease, poll, version, host, pid, stopping, asleep, expires_at - seen_at from rowcron.worker$$,
  $$values ('{q}'::text[], '{sql,http}'::text[], '{send_mail}'::text[], 3, interval '20 s', interval '2 s', '0.1.0', 'host', 4711, false, false, interval '20 s')$$,
  'and registers the worker');
set local role tap_worker;
select rowcron.heartbeat(public.tap_id(1));
reset role;
select is((select w.queues || w.kinds from rowcron.worker as w), '{q,sql,http}', 'a later one leaves the registration as it is');
set local role tap_worker;
select throws_ok($$select rowcron.heartbeat(null)$$, 'RCLIM', null, 'a worker has an id');
select throws_ok($$select rowcron.heartbeat(public.tap_id(2), lease => '0.5 s')$$, 'RCLIM', null, 'and a lease of a second at least');
select throws_ok($$select rowcron.heartbeat(public.tap_id(2), lease => '2 days')$$, 'RCLIM', null, 'and a day at most');
select throws_ok($$select rowcron.heartbeat(public.tap_id(2), poll => '1 ms')$$, 'RCLIM', null, 'and a poll of 10 ms at least');
select throws_ok($$select rowcron.heartbeat(public.tap_id(2), kinds => null)$$, 'RCLIM', null, 'and kinds');
select throws_ok($$select rowcron.heartbeat(public.tap_id(2), version => '0.0.9')$$, 'RCVER', 'worker 0.0.9 is too old for this schema', 'and a version that the schema serves');
select lives_ok($$select rowcron.heartbeat(public.tap_id(2), version => '0.10.0')$$, 'versions are compared as numbers');
select lives_ok($$select rowcron.heartbeat(public.tap_id(3), version => 'dev')$$, 'a version that is none is let through');
reset role;
delete from rowcron.worker where id <> public.tap_id(1);

-- what there is to do
select setval(pg_get_serial_sequence('rowcron.change', 'id'), 1000, true);
set local role tap_ann;
insert into rowcron.job (name, queue, command) values ('q', 'q', 'select 1'), ('r', 'r', 'select 1');
insert into rowcron.job (name, queue, schedule, command) values ('yearly', 'q', '0 0 1 1 *', 'select 1');
reset role;
create function public.tap_wake(asleep boolean default true) returns numeric language sql as $$
  select round(extract(epoch from h.wake_after)) from rowcron.heartbeat(public.tap_id(1), asleep => tap_wake.asleep) as h
$$;
select cmp_ok(abs(public.tap_wake() - round(extract(epoch from rowcron.next_run('0 0 1 1 *') - clock_timestamp()))), '<=', 1::numeric, 'wake_after ends at the next occurrence');
select is(public.tap_wake(null), null::numeric, 'not asked it is not told');
set local role tap_ann;
select rowcron.enqueue('q', due_at => clock_timestamp() + interval '100 seconds');
select rowcron.enqueue('r');
reset role;
select is(public.tap_wake(), 100::numeric, 'or at the next waiting run');
select ok(public.tap_wake(false) > 1000, 'which is of no interest to a worker without a free slot');
set local role tap_ann;
select rowcron.enqueue('q');
reset role;
select ok(public.tap_wake() <= 0, 'a ready run is to be claimed now');
update rowcron.run set state = 'waiting', waits_for = 'limit' where job = 'q' and state = 'ready';
select is(public.tap_wake(), 1::numeric, 'a run over a limit is looked after each second');
update rowcron.run set waits_for = 'resume' where job = 'q' and waits_for = 'limit';
select is(public.tap_wake(), 100::numeric, 'a run of a paused job is not');
delete from rowcron.run;
delete from rowcron.agenda where job_id = (select j.id from rowcron.job as j where j.name = 'yearly');
select is(public.tap_wake(), null::numeric, 'when nothing is known to come it is null');
insert into rowcron.worker (id, kinds, concurrency, lease, poll, seen_at, expires_at)
values (public.tap_id(9), '{sql}', 1, '10 s', '5 s', clock_timestamp(), clock_timestamp() + interval '50 seconds');
set local role tap_ann;
select rowcron.enqueue('q');
reset role;
update rowcron.run set state = 'running', worker_id = public.tap_id(9), seal = gen_random_uuid(), started_at = now();
select is(public.tap_wake(), 50::numeric, 'another worker''s lease is an alarm too, while it holds a run');
delete from rowcron.worker where id = public.tap_id(9);
delete from rowcron.run;

-- sleep
select rowcron.heartbeat(public.tap_id(1), asleep => false);
select is((select w.asleep from rowcron.worker as w), false, 'awake');
select is((select h.settled from rowcron.heartbeat(public.tap_id(1), asleep => true) as h), false, 'the announcement of a sleep is not settled by itself');
select results_eq($$select asleep, unsettled, wake_at from rowcron.worker$$,
  $$values (true, null::text[], null::timestamptz)$$, 'it stands in the row; the end of a poll is not announced');
select is((select h.settled from rowcron.heartbeat(public.tap_id(1), asleep => true) as h), true, 'the second, which finds no other writer, is');
update rowcron.worker set unsettled = '{"99/99"}';
select is((select h.settled from rowcron.heartbeat(public.tap_id(1), asleep => true) as h), true, 'writers that have ended are forgotten');
set local role tap_ann;
select rowcron.enqueue('q', due_at => clock_timestamp() + interval '50 s');
reset role;
select is((select h.settled from rowcron.heartbeat(public.tap_id(1), asleep => true) as h), true, 'something due earlier than announced leaves it settled');
select is((select w.wake_at from rowcron.worker as w), (select r.due_at from rowcron.run as r), 'and is announced');
update rowcron.run set due_at = due_at + interval '1 s';
select is((select h.settled from rowcron.heartbeat(public.tap_id(1), asleep => true) as h), false, 'a wake put off is announced like a sleep: who was writing may rely on the earlier one');
select is((select h.settled from rowcron.heartbeat(public.tap_id(1), asleep => true) as h), true, 'and settled like one');
delete from rowcron.run;
select is((select h.settled from rowcron.heartbeat(public.tap_id(1), asleep => true) as h), false, 'so is one called off');
select rowcron.heartbeat(public.tap_id(1), asleep => true);
select rowcron.heartbeat(public.tap_id(1));
select is((select w.asleep from rowcron.worker as w), true, 'a heartbeat that says nothing leaves it asleep');
select rowcron.claim(public.tap_id(1), 1, '{q}', '{sql}');
select is((select w.asleep from rowcron.worker as w), true, 'nor does a claim in vain wake it');
select is((select h.settled from rowcron.heartbeat(public.tap_id(1), asleep => true) as h), true, 'and its sleep is settled as before');
savepoint filled;
select rowcron.heartbeat(public.tap_id(1), asleep => true);
set local role tap_ann;
select rowcron.enqueue('q');
reset role;
select results_eq($$select h.settled, h.wake_after > '1 s' or h.wake_after is null from rowcron.heartbeat(public.tap_id(1), asleep => true, full_kinds => '{sql}') as h$$,
  $$values (true, true)$$, 'of a kind of which it can take no more nothing is to be claimed');
select results_eq($$select h.settled, h.wake_after <= '0 s' from rowcron.heartbeat(public.tap_id(1), asleep => true) as h$$,
  $$values (false, true)$$, 'when it can, its sleep is announced anew: nobody has told it of those');
rollback to filled;
savepoint soon;
set local role tap_ann;
select rowcron.enqueue('q', due_at => clock_timestamp() + interval '700 ms');
reset role;
update rowcron.worker set wake_at = clock_timestamp() + interval '300 ms', unsettled = '{}';
select results_eq($$select h.settled, extract(epoch from h.wake_after) between 0.1 and 0.3 from rowcron.heartbeat(public.tap_id(1), asleep => true) as h$$,
  $$values (true, true)$$, 'what is due soon after the announced instant is looked for at that instant');
update rowcron.worker set wake_at = clock_timestamp() - interval '300 ms', unsettled = '{}';
select results_eq($$select h.settled, extract(epoch from h.wake_after) > 0.4 from rowcron.heartbeat(public.tap_id(1), asleep => true) as h$$,
  $$values (false, true)$$, 'unless that has passed: then the sleep is announced anew');
select ok((select w.wake_at = r.due_at from rowcron.worker as w, rowcron.run as r), 'until then, so that who inserts meanwhile tells of it');
rollback to soon;
savepoint awake;
set local role tap_ann;
select rowcron.enqueue('q');
reset role;
select rowcron.claim(public.tap_id(1), 1, '{q}', '{sql}');
select is((select w.asleep from rowcron.worker as w), false, 'a claim that finds something does');
rollback to awake;

-- changes
set local role tap_ann;
update rowcron.job set description = 'x', command = 'select secret' where name = 'q';
reset role;
select is((select h.changes -> 0 -> 'id' from rowcron.heartbeat(public.tap_id(1), changes_since => 0) as h), (select to_jsonb(max(c.id)) from rowcron.change as c),
  'changes_since 0 only learns the newest id');
select is((select h.changes from rowcron.heartbeat(public.tap_id(1), changes_since => 1) as h), '[]', 'changes of transactions that are still open are not told');
update rowcron.change set xid = '3' where job = 'q';
select results_eq(
  $$select c ->> 'by', c ->> 'action', c ->> 'job', c ->> 'owner', c -> 'columns', c::text like '%secret%'
    from rowcron.heartbeat(public.tap_id(1), changes_since => (select min(id) from rowcron.change where job = 'q') - 1) as h, jsonb_array_elements(h.changes) as c order by (c ->> 'id')::bigint$$,
  $$values ('tap_ann', 'insert', 'q', 'tap_ann', 'null'::jsonb, false), ('tap_ann', 'update', 'q', 'tap_ann', '["command", "description"]', false)$$,
  'of those committed: who did what to which columns, and no values');

-- lost, stopping
set local role tap_ann;
select rowcron.enqueue('q');
reset role;
create temporary table held as select * from rowcron._claim(public.tap_id(1), 1, '{q}', '{sql}', null, clock_timestamp());
select rowcron.heartbeat(public.tap_id(1), stopping => true);
select results_eq($$select state, attempt, failures, losses from rowcron.run where job = 'q'$$, $$values ('ready', 1, 0, 0)$$, 'a worker that stops gives back what it holds, not counted');
select is((select count(*) from rowcron.ledger as l where l.job = 'q'), 0::bigint, 'without an entry');
select is((select w.state from rowcron.workers as w), 'stopped', 'and is shown as stopped');
select throws_ok($$select rowcron.heartbeat(public.tap_id(1))$$, 'RCWRK', null, 'after its last word it is refused');
select throws_ok($$select rowcron.claim(public.tap_id(1))$$, 'RCWRK', null, 'also when it claims');
select rowcron.heartbeat(public.tap_id(5));
update rowcron.worker set lost_at = now() where id = public.tap_id(5);
select throws_ok($$select rowcron.heartbeat(public.tap_id(5))$$, 'RCWRK', 'worker 00000000-0000-4000-8000-000000000005 was declared lost', 'a worker that was declared lost is refused');
do $$
declare hint text;
begin
  perform rowcron.heartbeat(public.tap_id(5));
exception when sqlstate 'RCWRK' then
  get stacked diagnostics hint = pg_exception_hint;
  perform set_config('tap.hint', hint, true);
end $$;
select is(current_setting('tap.hint'), 'Stop what it runs and begin anew with another id.', 'and told what to do');
select rowcron.heartbeat(public.tap_id(6));
update rowcron.worker set expires_at = clock_timestamp() - interval '1 second' where id = public.tap_id(6);
select lives_ok($$select rowcron.heartbeat(public.tap_id(6))$$, 'a worker that is late, but was not declared lost, goes on');
select ok((select w.expires_at > clock_timestamp() from rowcron.worker as w where w.id = public.tap_id(6)), 'with a new lease');
update rowcron.worker set expires_at = clock_timestamp() + interval '1 second' where id = public.tap_id(6);
select rowcron.claim(public.tap_id(6), 0);
select ok((select w.expires_at > clock_timestamp() + interval '5 seconds' from rowcron.worker as w where w.id = public.tap_id(6)), 'a claim is a sign of life too');

-- what other queues hold costs nothing
set local role tap_ann;
insert into rowcron.job (name, queue, command) values ('crowd', 'crowd', 'select 1'), ('alone', 'alone', 'select 1');
select count(*) from rowcron.enqueue_many('crowd', array_fill('{}'::jsonb, '{10000}'));
select count(*) from rowcron.enqueue_many('crowd', array_fill('{}'::jsonb, '{10000}'), due_at => '2040-01-01');
reset role;
analyze rowcron.run;
analyze rowcron.agenda;
create function public.tap_touched() returns bigint language sql as $$
  select s.seq_tup_read + s.idx_tup_fetch from pg_stat_xact_user_tables as s where s.relid = 'rowcron.run'::regclass
$$;
create function public.tap_touches(statement text) returns bigint language plpgsql as $$
declare
  before bigint := public.tap_touched();
begin
  -- often enough for plans that fit all to be made
  for i in 1..10 loop
    execute statement;
  end loop;
  return public.tap_touched() - before;
end
$$;
select rowcron.heartbeat(public.tap_id(8), '{alone}');
select cmp_ok(public.tap_touches($$select rowcron.heartbeat(public.tap_id(8), asleep => true)$$), '<', 100::bigint,
  'a heartbeat does not look at what other queues hold');
select cmp_ok(public.tap_touches($$select rowcron.claim(public.tap_id(8), 10, '{alone}')$$), '<', 100::bigint,
  'nor does a claim');
select cmp_ok(public.tap_touches($$select rowcron.claim(public.tap_id(8), 1, '{crowd}')$$), '<', 1000::bigint,
  'a claim looks at few runs however many there are');

select * from finish();
rollback;
