-- What the page Now asks: the first rows, whoever asks, and what row security lets them see.

begin;
select plan(14);
set local client_min_messages to error;

create role tap_few;
create role tap_many;
create role tap_viewer;
grant rowcron_user to tap_few, tap_many;
grant rowcron_viewer to tap_viewer;

set local role tap_few;
insert into rowcron.job (name, schedule, command, enabled) values ('few', '@hourly', 'x', true), ('paused', '@hourly', 'x', false);
select rowcron.enqueue('few'), rowcron.enqueue('few', due_at => now() + '2 min');
set local role tap_many;
insert into rowcron.job (name, command) values ('many', 'x');
select count(*) from rowcron.enqueue_many('many', array_fill(null::jsonb, '{1200}'));
select rowcron.enqueue('many', due_at => now() + '3 min');
reset role;
insert into rowcron.run (job_id, job, owner, queue, kind, state, waits_for, due_at)
select j.id, j.name, j.owner, j.queue, j.kind, 'waiting', w, now() - interval '1 h' from rowcron.job as j, unnest('{limit,overlap,resume}'::text[]) as w where j.name = 'paused';
insert into rowcron.ledger (job_id, job, owner, queue, kind, run_id, attempt, final, started_at, finished_at, outcome)
select j.id, j.name, j.owner, j.queue, j.kind, i, 1, true, now(), now() - i * interval '1 s', 'succeeded' from rowcron.job as j, generate_series(1, 20) as i where j.name in ('few', 'many');

set local role tap_few;
select ok(rowcron._has_few_runs(), 'an author with few runs is answered by its jobs');
set local role tap_many;
select ok(not rowcron._has_few_runs(), 'one with many by the lanes');
set local role tap_viewer;
select ok(not rowcron._has_few_runs(), 'and so is who sees all');

set local role tap_few;
select results_eq($$select job, state, waits_for from rowcron.waiting_page() order by due_at, run_id$$,
  $$values ('paused', 'waiting', 'limit'), ('paused', 'waiting', 'overlap'), ('paused', 'waiting', 'resume'), ('few', 'ready', null)$$, 'what waits for something else than time');
select is((select array_agg(job || ' ' || source order by due_at) from rowcron.next_page(2, now())), case when date_trunc('hour', now()) + '1 h' < now() + '2 min' then '{"few schedule","few run"}' else '{"few run","few schedule"}' end::text[], 'what is next, of jobs and runs');
select is((select array_agg(run_id order by finished_at desc) from rowcron.ended_page(3, now() - interval '1 h')), '{1,2,3}'::bigint[], 'what ended last');
select is((select count(*) from rowcron.ended_page(30, now() - interval '5500 ms')), 5::bigint, 'since then');
set local role tap_many;
select is((select count(*) from rowcron.waiting_page(2000)), 1200::bigint, 'all of its own');
select is((select array_agg(distinct job) from rowcron.waiting_page(50)), '{many}', 'and only these');
select is((select array_agg(job || ' ' || source) from rowcron.next_page(5, now())), '{"many run"}', 'as of what is next');
set local role tap_viewer;
select is((select count(*) from rowcron.waiting_page(2000) where job in ('few', 'many', 'paused')), 1204::bigint, 'a viewer sees everyone''s');
select is((select count(*) from rowcron.waiting_page(7)), 7::bigint, 'as many as asked for');
select is((select count(distinct job) from rowcron.ended_page(1000, now() - interval '1 h') where job in ('few', 'many')), 2::bigint, 'and everyone''s end');
select is((select array_agg(job) from rowcron.next_page(1000, now() + interval '150 s') where job in ('few', 'many') and source = 'run'), '{many}', 'only after the instant');

reset role;
select * from finish();
rollback;
