-- Lost claims.

begin;
select plan(75);
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
update rowcron.worker set seen_at = e.expires_at - interval '3 seconds', expires_at = e.expires_at + interval '1 second' from ends as e where id = public.tap_id(2);

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

-- noted while the clock was ahead
update rowcron.worker set seen_at = e.expires_at + interval '400 days', expires_at = e.expires_at + interval '400 days' from ends as e where id = public.tap_id(2);
select is(rowcron._rescue((select e.expires_at from ends as e)), 0, 'of a lease from a clock that was ahead nothing is taken at once');
select is((select w.expires_at - e.expires_at from rowcron.worker as w cross join ends as e where w.id = public.tap_id(2)), interval '10 s', 'it ends a lease from now');
select is((select w.seen_at = e.expires_at from rowcron.worker as w cross join ends as e where w.id = public.tap_id(2)), true, 'and nobody was heard of in the future');
update rowcron.worker set expires_at = e.expires_at + interval '69 s' from ends as e where id = public.tap_id(2);
select rowcron._rescue((select e.expires_at from ends as e));
select is((select w.expires_at - e.expires_at from rowcron.worker as w cross join ends as e where w.id = public.tap_id(2)), interval '69 s', 'what a slow statement sees a little ahead stays');
update rowcron.worker set lost_at = e.expires_at + interval '400 days', expires_at = e.expires_at + interval '400 days' from ends as e where id = public.tap_id(1);
select rowcron._rescue((select e.expires_at from ends as e));
select is((select w.lost_at = e.expires_at from rowcron.worker as w cross join ends as e where w.id = public.tap_id(1)), true, 'who was lost in the future is lost now');
update rowcron.worker set expires_at = e.expires_at + interval '1 second' from ends as e where id = public.tap_id(2);

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

-- its last word, about what it had begun and could not report
create temporary table parts as select n, rowcron.enqueue('safe', owner => 'tap_ann') as id from generate_series(1, 2) as n;
select public.tap_claim(10, 'safe');
select rowcron.heartbeat(public.tap_id(10), stopping => true, holding => array[(select p.id from parts as p where p.n = 1)]);
select results_eq($$select p.n, r.state, r.attempt, r.losses from parts as p join rowcron.run as r on r.id = p.id order by 1$$,
  $$values (1, 'ready', 2, 0), (2, 'ready', 1, 0)$$, 'what had begun is a lost attempt, the rest is given back');
select is(public.tap_entries('safe'), '1 lost its worker was stopped', 'and recorded as such, that alone');
delete from rowcron.ledger as l using parts as p where l.run_id = p.id;
delete from rowcron.run as r using parts as p where r.id = p.id;

-- given back what the worker does not know of: its claim was not answered
select public.tap_claim(7, 'safe');
select rowcron.heartbeat(public.tap_id(7), holding => (select array_agg(r.id) from rowcron.run as r where r.job = 'safe'));
select is(public.tap_run('safe'), 'running attempt 1 failures 0 losses 0', 'a worker that knows what it holds gives nothing back');
select lives_ok($$select rowcron.heartbeat(public.tap_id(7), holding => '{}')$$, 'what it does not know of is given back');
select is(public.tap_run('safe'), 'ready attempt 1 failures 0 losses 0', 'and ready at once, the attempt not counted');
select lives_ok($$select rowcron.heartbeat(public.tap_id(7))$$, 'while the worker goes on');

-- a session that ends
set local role tap_ann;
select rowcron.enqueue('safe');
reset role;
delete from rowcron.worker;
delete from rowcron.run where job <> 'safe' or state = 'running';
select public.tap_claim(7, 'safe') > 0;
create function public.tap_lease() returns interval language sql as $$
  select w.expires_at - w.seen_at from rowcron.worker as w where w.id = public.tap_id(7)
$$;
create temporary table seen as select w.seen_at from rowcron.worker as w where w.id = public.tap_id(7);
select rowcron._look_for_ended((select s.seen_at from seen as s));
select is(public.tap_lease(), interval '10 s', 'a worker that has shown no session keeps its lease');
select rowcron._keep_session(public.tap_id(7), true);
select is((select s.pid from rowcron.session as s where s.worker_id = public.tap_id(7)), pg_backend_pid(), 'a heartbeat tells whose session it is');
select rowcron._look_for_ended((select s.seen_at from seen as s));
select is(public.tap_lease(), interval '10 s', 'a session that is there costs nothing');
update rowcron.session set pid = 0, server = server - interval '1 hour';
select rowcron._look_for_ended((select s.seen_at from seen as s));
select is(public.tap_lease(), interval '10 s', 'sessions of a server that has ended tell nothing');
update rowcron.session set server = pg_postmaster_start_time();
select is(rowcron._look_after(public.tap_id(8), (select s.seen_at from seen as s)), interval '0.75 s', 'who sleeps looks often while another holds runs');
update rowcron.worker set expires_at = seen_at + interval '15 s' where id = public.tap_id(7);
select rowcron._look_for_ended((select s.seen_at from seen as s));
select is(public.tap_lease(), interval '15 s', 'whose end was put off after a silence of all keeps that, though its session has ended');
update rowcron.worker set expires_at = seen_at + interval '10 s' where id = public.tap_id(7);
select rowcron._look_for_ended((select s.seen_at from seen as s));
select is(public.tap_lease(), interval '2 s', 'when it has ended two seconds are left of the lease');
select is((select count(*) from rowcron.session), 0::bigint, 'once');
select is(rowcron._look_after(public.tap_id(8), (select s.seen_at from seen as s)), interval '2 s', 'and who sleeps looks when they are over');
select is(rowcron._rescue((select s.seen_at from seen as s) + interval '2 s') > 0, true, 'then its runs are free');
select is((select distinct l.reason from rowcron.ledger as l where l.job = 'safe' and l.outcome = 'lost'), 'its worker''s session ended', 'and the ledger says why');

-- a claim that is committed when its worker has been forgotten
select rowcron.heartbeat(public.tap_id(7), stopping => true);
select public.tap_claim(8, 'safe');
delete from rowcron.worker where id = public.tap_id(8);
update rowcron.setting set value = '"1970-01-01T00:00:00Z"' where name = 'maintained_at';
select rowcron._maintain(clock_timestamp());
select is((select w.lost_at is not null from rowcron.worker as w where w.id = public.tap_id(8)), true, 'the holder of a run is known again, as lost');
select rowcron._rescue(clock_timestamp());
select is((select count(*) from rowcron.run as r where r.worker_id = public.tap_id(8)), 0::bigint, 'and its run is rescued');


-- a run that cannot be settled
create function public.tap_refuse() returns trigger language plpgsql as $$
begin
  raise exception 'no room for %', new.job;
end
$$;
create trigger tap_refuse before insert on rowcron.ledger for each row when (new.job = 'full') execute function public.tap_refuse();
set local role tap_ann;
insert into rowcron.job (name, queue, command) values ('full', 'full', 'select 1'), ('beside', 'beside', 'select 1');
select rowcron.enqueue(n) from unnest('{full,beside}'::text[]) as n;
reset role;
select public.tap_claim(10, n) from unnest('{full,beside}'::text[]) as n;
update rowcron.worker set expires_at = clock_timestamp() where id = public.tap_id(10);
select lives_ok($$select rowcron.claim(public.tap_id(11), 0)$$, 'a run that cannot be settled stops no claim');
select is(public.tap_run('beside'), 'ready attempt 2 failures 0 losses 1', 'the others of its worker are');
select is(public.tap_run('full'), 'running attempt 1 failures 0 losses 0', 'it alone is left');
drop trigger tap_refuse on rowcron.ledger;
select rowcron.claim(public.tap_id(11), 0);
select is(public.tap_run('full'), 'ready attempt 2 failures 0 losses 1', 'until it can be');

-- a claim that is committed after its worker's last word
select rowcron.heartbeat(public.tap_id(9));
select rowcron.heartbeat(public.tap_id(9), stopping => true);
update rowcron.run set state = 'running', worker_id = public.tap_id(9), seal = gen_random_uuid(), started_at = clock_timestamp() where job = 'safe' and state = 'ready';
create temporary table lost_before as select count(*) as entries from rowcron.ledger as l where l.outcome = 'lost';
select rowcron._rescue(clock_timestamp());
select results_eq($$select r.state, r.worker_id from rowcron.run as r where r.worker_id = public.tap_id(9) or r.job = 'safe' group by 1, 2$$, $$values ('ready', null::uuid)$$, 'is given back');
select is((select count(*) from rowcron.ledger as l where l.outcome = 'lost'), (select b.entries from lost_before as b), 'not lost');
grant rowcron_python to tap_ann;
set local role tap_ann;
insert into rowcron.job (name, kind, command, on_lost) values ('outside', 'python', 'x', 'retry'), ('outside once', 'python', 'x', 'fail');
select rowcron.enqueue(j.name) from rowcron.job as j where j.kind = 'python';
reset role;
update rowcron.run set state = 'running', worker_id = public.tap_id(9), seal = gen_random_uuid(), started_at = clock_timestamp() where kind = 'python';
select rowcron._rescue(clock_timestamp());
select is(public.tap_run('outside') || ', ' || public.tap_entries('outside'), 'ready attempt 2 failures 0 losses 0, 1 lost its worker was stopped', 'but what is not rolled back may have begun');
select is(public.tap_entries('outside once'), '1 lost final its worker was stopped; on_lost = fail', 'and is not run twice where a loss is final');


-- silence of all: the database was not there to hear anybody
delete from rowcron.worker;
create function public.tap_at(seconds numeric) returns timestamptz language sql as $$
  select timestamptz '2040-01-01 00:00+00' + seconds * interval '1 second'
$$;
create function public.tap_spoke(n integer, seconds numeric, lease interval default '10 s') returns void language sql as $$
  delete from rowcron.worker as w where w.id = public.tap_id(n);
  select rowcron._register(public.tap_id(n), null, '{sql}', null, 1, lease, '5 s', null, null, null, public.tap_at(seconds))
$$;
create function public.tap_ends() returns text language sql as $$
  select string_agg(round(extract(epoch from w.expires_at - public.tap_at(0)), 3)::real::text, ' ' order by w.id) from rowcron.worker as w where w.lost_at is null
$$;
create function public.tap_breaks(seconds numeric, breaker integer default 9) returns numeric language sql as $$
  select extract(epoch from rowcron._put_off(public.tap_id(breaker), public.tap_at(seconds)) - public.tap_at(0))
$$;
select public.tap_spoke(1, 0), public.tap_spoke(2, -2), public.tap_spoke(3, -50);
select is(public.tap_breaks(5.9), 5.9, 'who speaks is heard');
select is(public.tap_ends(), '10 8 -40', 'while somebody is every few seconds no lease is put off');
select is(rowcron._rescue(public.tap_at(5.9)), 0, 'and who was silent for too long');
select is(public.tap_ends(), '10 8', 'is lost');
select is(rowcron._rescue(public.tap_at(14)), 0, 'when nobody was heard for longer than any who lives is silent');
select is(public.tap_ends(), '10 8', 'nobody is lost');
select is(public.tap_breaks(14), 14::numeric, 'then somebody speaks');
select is(public.tap_ends(), '19 19', 'and all leases are put off');
select public.tap_breaks(18);
select is(public.tap_ends(), '19 19', 'once');
select public.tap_spoke(1, 15);
select rowcron._rescue(public.tap_at(19));
select is(public.tap_ends(), '25', 'then they end, but those of the living');
select public.tap_breaks(3600);
select is(public.tap_ends(), '3605', 'and after another silence those are put off again');
select rowcron._rescue(public.tap_at(7200));
select is(public.tap_ends(), null, 'but not for ever, though nobody is ever heard');
select public.tap_spoke(1, 0), public.tap_spoke(2, 0);
select public.tap_breaks(7, 1);
select is(public.tap_ends(), '10 12', 'who speaks needs no respite');
select public.tap_spoke(1, 0, '60 s'), public.tap_spoke(2, 0, '10 s'), public.tap_spoke(3, 0, '2 s');
select public.tap_breaks(1.9);
select is(public.tap_ends(), '60 10 2', 'that nobody was heard for less than two seconds tells nothing');
select public.tap_breaks(2.5);
select is(public.tap_ends(), '60 10 7.5', 'for longer it does, by the lease');
select public.tap_spoke(1, 500000), public.tap_spoke(2, 0), public.tap_spoke(3, 0);
select public.tap_breaks(14);
select is(public.tap_ends(), '500010 19 19', 'a word from a clock that was ahead is not one that was heard');
select public.tap_spoke(1, 12), public.tap_spoke(2, 0);
update rowcron.worker set lost_at = seen_at where id <> public.tap_id(2);
select public.tap_breaks(14);
select is(public.tap_ends(), '19', 'nor is a last one');
-- a server that has just started has heard only those who spoke since
delete from rowcron.worker;
select rowcron._register(public.tap_id(1), null, '{sql}', null, 1, '1 s', '5 s', null, null, null, pg_postmaster_start_time() - interval '1 hour'),
  rowcron._register(public.tap_id(2), null, '{sql}', null, 1, '1 s', '5 s', null, null, null, pg_postmaster_start_time() + interval '1 s'),
  rowcron._register(public.tap_id(3), null, '{sql}', null, 1, '10 s', '5 s', null, null, null, pg_postmaster_start_time() + interval '1.5 s');
update rowcron.worker set expires_at = seen_at + interval '2 s' where id = public.tap_id(1);
select rowcron._rescue(pg_postmaster_start_time() + interval '2.4 s');
select results_eq($$select w.lost_at is null from rowcron.worker as w order by w.id$$, $$values (true), (false), (true)$$, 'a server that has just started declares nobody lost that it has not heard');
select rowcron._put_off(public.tap_id(9), pg_postmaster_start_time() + interval '3 s');
select is((select w.expires_at - pg_postmaster_start_time() from rowcron.worker as w where w.id = public.tap_id(1)), interval '8 s', 'it gives them a few seconds');
-- whoever comes first, with whatever
create function public.tap_first(word text) returns boolean language plpgsql as $$
declare
  left_over interval;
begin
  delete from rowcron.worker;
  perform rowcron._register(public.tap_id(1), null, '{sql}', null, 1, '10 s', '5 s', null, null, null, clock_timestamp() - interval '1 hour');
  perform rowcron._register(public.tap_id(2), null, '{sql}', null, 1, '10 s', '5 s', null, null, null, clock_timestamp() - interval '1 hour');
  execute word;
  select w.expires_at - clock_timestamp() into left_over from rowcron.worker as w where w.id = public.tap_id(1) and w.lost_at is null;
  return left_over between '4 s' and '5 s';
end
$$;
select is(public.tap_first('select rowcron.heartbeat(public.tap_id(2))'), true, 'a heartbeat that breaks the silence rescues nobody yet');
select is(public.tap_first('select rowcron.claim(public.tap_id(2))'), true, 'nor does a claim');

select * from finish();
rollback;
