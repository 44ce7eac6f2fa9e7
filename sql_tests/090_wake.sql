-- Who is told, and when. A notification is not seen inside of its transaction, so rowcron._notify is
-- replaced here by one that counts; that it notifies is tested from two connections elsewhere.

begin;
select plan(38);
set local timezone to 'UTC';
set local client_min_messages to error;

create role tap_ann;
create role tap_operator;
grant rowcron_user, rowcron_shell to tap_ann;
grant rowcron_operator to tap_operator;
delete from rowcron.worker;

create sequence public.tap_notified;
grant usage on sequence public.tap_notified to public;
create or replace function rowcron._notify(what text default '') returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  perform nextval('public.tap_notified'), set_config('tap.said', what, true);
end
$$;
-- how often a statement notifies
create function public.tap_notifies(statement text) returns bigint language plpgsql as $$
declare
  before bigint := (select case when s.is_called then s.last_value else 0 end from public.tap_notified as s);
begin
  execute statement;
  return (select case when s.is_called then s.last_value else 0 end from public.tap_notified as s) - before;
end
$$;
grant select on public.tap_notified to public;
create function public.tap_sleep(wake_at timestamptz default '2040-01-01', queues text[] default null, kinds text[] default '{sql}') returns void language sql as $$
  delete from rowcron.worker;
  insert into rowcron.worker (id, queues, kinds, concurrency, lease, poll, seen_at, expires_at, asleep, wake_at)
  values (gen_random_uuid(), queues, kinds, 1, '10 s', '5 s', clock_timestamp(), clock_timestamp() + interval '1 hour', true, wake_at)
$$;

set local role tap_ann;
insert into rowcron.job (name, command) values ('a', 'select 1');
select is(public.tap_notifies($$select rowcron.enqueue('a')$$), 0::bigint, 'with nobody asleep nobody is notified');
reset role;

select public.tap_sleep();
set local role tap_ann;
select is(public.tap_notifies($$select rowcron.enqueue('a')$$), 1::bigint, 'a sleeper is told of a run that is due');
select is(current_setting('tap.said'), 'ready', 'namely that a few are ready');
select is(public.tap_notifies($$select rowcron.enqueue_many('a', array_fill('{}'::jsonb, '{100}'))$$), 1::bigint, 'once a statement, not once a row');
select is(current_setting('tap.said'), '', 'a hundred are more than a few');
select public.tap_notifies($$select rowcron.enqueue_many('a', array_fill('{}'::jsonb, '{10}'))$$);
select is(current_setting('tap.said'), 'ready', 'ten are not');
reset role;
select public.tap_notifies($$insert into rowcron.run (job_id, job, owner, queue, kind, state, waits_for, due_at)
  select j.id, j.name, j.owner, j.queue, j.kind, s.state, s.waits_for, clock_timestamp() + interval '1 s' from rowcron.job as j, (values ('ready', null), ('waiting', 'time')) as s (state, waits_for) where j.name = 'a'$$);
select is(current_setting('tap.said'), '', 'nor is it said while one of them waits for its time: whoever hears it would sleep past that');
set local role tap_ann;
select is(public.tap_notifies($$select rowcron.run_now('a')$$), 1::bigint, 'also of run_now');
reset role;
update rowcron.worker set full_kinds = '{sql}';
set local role tap_ann;
select is(public.tap_notifies($$select rowcron.run_now('a')$$), 0::bigint, 'not of a kind of which it can take no more');
reset role;
update rowcron.worker set full_kinds = '{http}';
set local role tap_ann;
select is(public.tap_notifies($$select rowcron.run_now('a')$$), 1::bigint, 'of the others it is');
select is(public.tap_notifies($$select rowcron.enqueue('a', due_at => '2039-12-31')$$), 1::bigint, 'also of one that is due before it wakes');
select is(current_setting('tap.said'), '', 'which is not ready');
select is(public.tap_notifies($$select rowcron.enqueue('a', due_at => '2040-01-01')$$), 0::bigint, 'not of one that is due when it wakes anyhow');
select is(public.tap_notifies($$insert into rowcron.job (name, schedule, command) values ('soon', '* * * * *', 'select 1')$$), 1::bigint, 'a sleeper is told of a job that is due before it wakes');
select is(public.tap_notifies($$insert into rowcron.job (name, schedule, command) values ('later', '@at 2041-01-01 00:00', 'select 1')$$), 0::bigint, 'not of one that is due later');
select is(public.tap_notifies($$insert into rowcron.job (name, schedule, command, enabled) values ('paused', '* * * * *', 'select 1', false)$$), 0::bigint, 'nor of a paused one');
select is(public.tap_notifies($$select rowcron.resume('paused')$$), 1::bigint, 'but of its resume');
select is(public.tap_notifies($$update rowcron.job set schedule = '@at 2039-01-01 00:00' where name = 'later'$$), 1::bigint, 'of an edit that makes it due earlier');
select is(public.tap_notifies($$update rowcron.job set schedule = '@at 2042-01-01 00:00' where name = 'later'$$), 0::bigint, 'not of one that makes it due later');
select is(public.tap_notifies($$insert into rowcron.job (name, command) values ('on demand', 'select 1')$$), 0::bigint, 'nor of a job on demand');
reset role;

select public.tap_sleep(queues => '{mail}');
set local role tap_ann;
select is(public.tap_notifies($$select rowcron.enqueue('a')$$), 0::bigint, 'a sleeper is not told of other queues');
reset role;
select public.tap_sleep(kinds => '{http}');
set local role tap_ann;
select is(public.tap_notifies($$select rowcron.enqueue('a')$$), 0::bigint, 'nor of other kinds');
reset role;
select public.tap_sleep(wake_at => null);
set local role tap_ann;
select is(public.tap_notifies($$select rowcron.enqueue('a', due_at => '2100-01-01')$$), 1::bigint, 'a sleeper that knows of nothing to come is told of anything');
reset role;
select public.tap_sleep();
update rowcron.worker set expires_at = clock_timestamp() - interval '1 second';
set local role tap_ann;
select is(public.tap_notifies($$select rowcron.enqueue('a')$$), 0::bigint, 'an announcement of a dead worker is ignored');
reset role;

-- a run's change of state
select public.tap_sleep();
update rowcron.worker set asleep = false;
create temporary table held as select row_number() over () as n, c.* from rowcron._claim(gen_random_uuid(), 3, '{default}', '{sql}', null, clock_timestamp()) as c;
select public.tap_sleep();
select is(public.tap_notifies(format($$select rowcron.finish(%s, %L)$$, h.run_id, h.token)), 0::bigint, 'the end of a run notifies nobody') from held as h where h.n = 1;
select is(public.tap_notifies(format($$select rowcron.finish(%s, %L, 'released')$$, h.run_id, h.token)), 0::bigint, 'nor does a run that is given back') from held as h where h.n = 2;
create temporary table running as select h.run_id from held as h where h.n = 3;
create temporary table ready as select r.id from rowcron.run as r where r.state = 'ready' limit 1;
grant select on running, ready to tap_ann;
set local role tap_ann;
select is(public.tap_notifies($$select rowcron.cancel((select r.id from ready as r))$$), 0::bigint, 'nor a cancel of a run that has not started');
select is(public.tap_notifies($$select rowcron.cancel((select r.run_id from running as r))$$), 1::bigint, 'but a cancel of a running one does');
set local role tap_operator;
select is(public.tap_notifies($$select rowcron.hold('x')$$), 1::bigint, 'so does a hold');
select is(public.tap_notifies($$select rowcron.release()$$), 1::bigint, 'and a release');
reset role;

select is(rowcron._old_snapshot(), false, 'a read committed transaction sees who has fallen asleep');

-- who is served
delete from rowcron.worker;
select is(rowcron._served('default', 'sql', null), false, 'without workers nothing is served');
select public.tap_sleep(queues => '{mail}', kinds => '{sql,python}');
update rowcron.worker set handlers = '{send_mail}';
select is(rowcron._served(v.queue, v.kind, v.handler), v.served, format('queue %s, kind %s, handler %s: served is %s', v.queue, v.kind, v.handler, v.served))
from (values ('mail', 'sql', null, true), ('default', 'sql', null, false), ('mail', 'http', null, false), ('mail', 'python', 'send_mail', true), ('mail', 'python', 'send_fax', false))
  as v (queue, kind, handler, served);
update rowcron.worker set expires_at = clock_timestamp();
select is(rowcron._served('mail', 'sql', null), false, 'a dead worker serves nothing');

select * from finish();
rollback;
