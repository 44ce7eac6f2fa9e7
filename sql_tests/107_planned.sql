-- How many occurrences are to come, by the part. tests/test_outlook.py compares the counts with lists.

begin;
select plan(11);
set local client_min_messages to error;

create role tap_ann;
create role tap_bob;
grant rowcron_user to tap_ann, tap_bob;

set local role tap_ann;
insert into rowcron.job (name, schedule, command, enabled) values ('on', '@hourly', 'x', true), ('off', '@hourly', 'x', false), ('on demand', null, 'x', true), ('after', '@after 30 minutes', 'x', true), ('once', '@at 2999-01-01 00:00', 'x', true);
select results_eq(
  $$select sum(p.n)::bigint from rowcron.planned(now(), now() + '1 day', 24) as p join rowcron.job as j on j.id = p.job_id where j.name = 'on'$$,
  $$select count(*) from rowcron.occurrences('on', now(), now() + '1 day')$$, 'as many as occurrences() lists');
select is((select array_agg(distinct p.n) from rowcron.planned(now(), now() + '1 day', 24, array(select id from rowcron.job where name = 'on')) as p), '{1}'::bigint[], 'one in each hour');
select is((select array_agg(distinct p.state) from rowcron.job as j cross join lateral rowcron.planned(now(), now() + '1 day', 24, array[j.id]) as p where j.name = 'off'), '{paused}', 'of a paused job, too');
select is((select array_agg(j.name order by j.name) from rowcron.job as j where exists (select from rowcron.planned(now(), now() + '1 day', 24, array[j.id]))), '{after,off,on}', 'of a job on demand, or of one whose hour lies elsewhere, none');
select is((select sum(n) from rowcron.planned_load(now(), now() + '1 day', 1440))::bigint, 25::bigint, 'a load is of what is not paused');
select is((select count(*) from rowcron.planned(now(), now() + '1 day', 24, '{-1}')), 0::bigint, 'of no job nothing');
select throws_ok(format($$select * from rowcron.planned(%s)$$, a), 'RCLIM', null, 'refused: ' || a)
from unnest(array['now(), now(), 1', 'now(), now() + interval ''2 years'', 1', '''4714-11-24 00:00 BC'', ''294276-12-31'', 10', '''294276-12-30'', ''294276-12-31'', 10']) as a;
set local role tap_bob;
select is((select count(*) from rowcron.planned(now(), now() + '1 day', 24)) + (select count(*) from rowcron.planned_load(now(), now() + '1 day', 24)), 0::bigint, 'of another''s nothing');

reset role;
select * from finish();
rollback;
