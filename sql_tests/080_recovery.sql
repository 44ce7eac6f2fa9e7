-- Lost claims.

begin;
select plan(22);
set local timezone to 'UTC';
set local client_min_messages to error;

create role tap_ann;
grant rowcron_user to tap_ann;
delete from rowcron.worker;
create function public.tap_id(n integer) returns uuid language sql as $$
  select ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid
$$;
create table public.tap_held (name text, run_id bigint, token uuid);
create function public.tap_claim(n integer, job_name text) returns bigint language sql as $$
  with held as (
    insert into public.tap_held (name, run_id, token)
    select c.job, c.run_id, c.token from rowcron.claim(public.tap_id(n), 9, array[job_name], '{sql}', lease => '10 s') as c
    returning 1
  )
  select count(*) from held
$$;
create function public.tap_run(job_name text) returns text language sql as $$
  select coalesce(string_agg(format('%s attempt %s failures %s losses %s', coalesce(r.waits_for, r.state), r.attempt, r.failures, r.losses), '; '), 'none')
  from rowcron.run as r where r.job = job_name
$$;
create function public.tap_entries(job_name text) returns text language sql as $$
  select coalesce(string_agg(concat_ws(' ', l.attempt, l.outcome, case when l.final then 'final' end, l.reason), '; ' order by l.attempt), 'none')
  from rowcron.ledger as l where l.job = job_name
$$;

set local role tap_ann;
insert into rowcron.job (name, queue, command, on_lost, max_lost) values
  ('retry', 'retry', 'select 1', 'retry', 3), ('fail', 'fail', 'select 1', 'fail', 3), ('limit', 'limit', 'select 1', 'retry', 2),
  ('asked', 'asked', 'select 1', 'retry', 3), ('deleted', 'deleted', 'select 1', 'retry', 3), ('safe', 'safe', 'select 1', 'retry', 3);
select rowcron.enqueue(j.name) from rowcron.job as j;
reset role;
select public.tap_claim(1, j.name) from rowcron.job as j where j.owner = 'tap_ann'::regrole and j.name <> 'safe' order by j.name;
select public.tap_claim(2, 'safe');
set local role tap_ann;
select rowcron.cancel(a.run_id) from rowcron.active as a where a.job = 'asked';
select rowcron.unschedule('deleted');
reset role;
create temporary table ends as select w.expires_at from rowcron.worker as w where w.id = public.tap_id(1);
update rowcron.worker set expires_at = (select e.expires_at from ends as e) + interval '1 second' where id = public.tap_id(2);

select is(rowcron._rescue((select e.expires_at from ends as e) - interval '1 microsecond'), 0, 'within its lease a worker is left alone');
select is(rowcron._rescue((select e.expires_at from ends as e)), 5, 'when it has run out its runs are settled');
select is((select array_agg(w.lost_at = e.expires_at order by w.id) from rowcron.worker as w cross join ends as e), '{t,null}', 'and it is declared lost, it alone');
select is(public.tap_run('retry'), 'ready attempt 2 failures 0 losses 1', 'on_lost = retry: ready again at once');
select is(public.tap_entries('retry'), '1 lost its worker was silent for longer than its lease', 'the lost attempt stands in the ledger');
select is(public.tap_run('fail'), 'none', 'on_lost = fail: it has ended');
select is(public.tap_entries('fail'), '1 lost final its worker was silent for longer than its lease; on_lost = fail', 'as lost');
select is(public.tap_entries('asked'), '1 cancelled final its worker was silent for longer than its lease; cancelled by tap_ann', 'a run that was to be cancelled is cancelled');
select is(public.tap_entries('deleted'), '1 lost final its worker was silent for longer than its lease; job deleted', 'a run whose job is gone is lost');
select is(public.tap_run('safe'), 'running attempt 1 failures 0 losses 0', 'another worker''s run is left alone');
select is(rowcron._rescue((select e.expires_at from ends as e)), 0, 'rescuing again finds nothing');

select throws_ok(format('select rowcron.finish(%s, %L)', h.run_id, h.token), 'RCCLM', null, 'the lost worker''s report is refused')
from public.tap_held as h where h.name = 'retry';
select is(
  (select f.accepted from public.tap_held as h, rowcron.finish(public.tap_id(1), array[h.run_id], array[h.token], '{succeeded}') as f where h.name = 'retry'),
  false, 'also in a batch');
select throws_ok($$select rowcron.heartbeat(public.tap_id(1))$$, 'RCWRK', null, 'its heartbeat too');
select throws_ok($$select rowcron.claim(public.tap_id(1))$$, 'RCWRK', null, 'and its claim');

-- by whoever comes
select is(public.tap_claim(3, 'limit'), 1::bigint, 'another worker gets the run');
update rowcron.worker set expires_at = clock_timestamp() where id = public.tap_id(3);
select rowcron.claim(public.tap_id(4), 0);
select is(public.tap_entries('limit'), '1 lost its worker was silent for longer than its lease; 2 lost final its worker was silent for longer than its lease; lost 2 times',
  'a claim rescues; max_lost ends it');
select is(public.tap_claim(5, 'retry'), 1::bigint, 'a third worker');
update rowcron.worker set expires_at = clock_timestamp() where id = public.tap_id(5);
select rowcron.heartbeat(public.tap_id(4));
select is(public.tap_run('retry'), 'ready attempt 3 failures 0 losses 2', 'a heartbeat rescues too');

-- a claim that came in while its worker was declared lost
select public.tap_claim(6, 'retry');
update rowcron.worker set lost_at = clock_timestamp(), expires_at = clock_timestamp() where id = public.tap_id(6);
select is(rowcron._rescue(clock_timestamp()), 1, 'a worker declared lost that still holds a run is looked at again');

-- given back
select rowcron.heartbeat(public.tap_id(2), stopping => true);
select is(public.tap_run('safe'), 'ready attempt 1 failures 0 losses 0', 'a worker that stops gives back what it holds');
select is(public.tap_entries('safe'), 'none', 'which is not recorded');

select * from finish();
rollback;
