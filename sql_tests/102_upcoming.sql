-- A page of what is to come: the view's rows and order, with positions.

begin;
select plan(22);
set local timezone to 'UTC';
set local client_min_messages to error;

create role tap_ann;
create role tap_bob;
grant rowcron_user to tap_ann, tap_bob;
set local role tap_ann;
insert into rowcron.job (name, schedule, command, queue, priority)
select 'tap ' || n, format('%s %s * * *', n % 7, n % 3), 'select 1', 'tap ' || n % 4, n % 5 from generate_series(1, 300) as n;
insert into rowcron.job (name, command) values ('tap demand', 'select 1');
select rowcron.enqueue('tap demand', due_at => clock_timestamp() + n * interval '1 hour', priority => n % 3)
from generate_series(-5, 30) as n;
-- a backlog in some queues, of several priorities, many due together
select rowcron.enqueue('tap ' || 1 + n % 7, due_at => date_trunc('hour', clock_timestamp()) - (n * 37 % 50) * interval '1 hour', priority => n % 6 - 3)
from generate_series(1, 400) as n;
reset role;
update rowcron.run set state = 'waiting', waits_for = 'limit'
where id in (select r.id from rowcron.run as r where r.job = 'tap demand' and r.state = 'ready' order by r.id limit 2);
create function public.tap_page(size integer, skip integer) returns text[] language sql as $$
  select array_agg(format('%s %s %s %s', p.due_at, p.job, p.run_id, p.source) order by p."position") from rowcron.upcoming_page(size, skip) as p
$$;
create function public.tap_view(size integer, skip integer) returns text[] language sql as $$
  select array_agg(format('%s %s %s %s', v.due_at, v.job, v.run_id, v.source)) from (select * from rowcron.upcoming offset skip limit size) as v
$$;
select is(public.tap_page(c.size, c.skip), public.tap_view(c.size, c.skip), format('a page of %s from %s is the view''s', c.size, c.skip))
from (values (50, 0), (1, 0), (2, 0), (7, 33), (33, 100), (100, 250), (3, 399), (50, 390), (1000, 0)) as c (size, skip);
set local role tap_ann;
select is(public.tap_page(c.size, c.skip), public.tap_view(c.size, c.skip), format('a page of %s from %s is the owner''s view''s', c.size, c.skip))
from (values (50, 0), (1, 0), (2, 0), (7, 33), (33, 100), (100, 250), (3, 399), (1000, 0)) as c (size, skip);
reset role;
select is((select array_agg(p."position") from rowcron.upcoming_page(4, 10) as p), '{11,12,13,14}', 'positions count from the first of all');
select is((select count(*) from rowcron.upcoming_page(0)), 0::bigint, 'a page of nothing is empty');
select is((select count(*) from rowcron.upcoming_page()), 50::bigint, 'a page has 50 rows');
update rowcron.run set state = 'waiting', waits_for = 'resume' where job = 'tap demand';
select is(public.tap_page(1000, 0), public.tap_view(1000, 0), 'what waits for a resume is on neither');
set local role tap_bob;
select is((select count(*) from rowcron.upcoming_page(1000) as p where p.job like 'tap %'), 0::bigint, 'it shows what row security lets one see');
reset role;

select * from finish();
rollback;
