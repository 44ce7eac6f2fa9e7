-- schedule, unschedule, pause, resume: with the caller's own rights.

begin;
select plan(62);
set local timezone to 'UTC';
set local client_min_messages to error;

create role tap_ann;
create role tap_bob;
create role "tap Odd.Name";
create role tap_operator;
create role tap_viewer;
grant rowcron_user to tap_ann, tap_bob, "tap Odd.Name";
grant rowcron_operator to tap_operator;
grant rowcron_viewer to tap_viewer;

create function public.tap_try(statement text, out state text, out message text, out detail text, out hint text)
language plpgsql as $$
begin
  execute statement;
  state := '00000';
exception when others then
  get stacked diagnostics state = returned_sqlstate, message = message_text,
    detail = pg_exception_detail, hint = pg_exception_hint;
end
$$;

set local role tap_ann;
create temporary table made as select rowcron.schedule('a', '0 3 * * *', 'select 1') as id;
select is((select m.id from made as m), (select j.id from rowcron.job as j where j.name = 'a'), 'schedule creates a job and returns its id');
select is(rowcron.schedule('a', priority => 5, timezone => 'Europe/Berlin'), (select m.id from made as m), 'again it changes the job that exists');
select results_eq($$select schedule, command, priority, timezone from rowcron.job$$, $$values ('0 3 * * *', 'select 1', 5, 'Europe/Berlin')$$,
  'only the columns named');
select is(rowcron.schedule('a'), (select m.id from made as m), 'none named changes nothing');
select is((select count(*) from rowcron.change as c where c.job = 'a' and c.action = 'update'), 1::bigint, 'and records nothing');
select is((select a.next_run_at from rowcron.jobs as a where a.name = 'a'), rowcron.next_run('0 3 * * *', timezone => 'Europe/Berlin'), 'the agenda follows');
select lives_ok($$select rowcron.schedule(
  'all columns', schedule => '0 3 * * *', command => 'select 1', kind => 'sql', args => '{"a": [1, null]}', timezone => 'Asia/Tokyo',
  starts_at => '2030-01-01', ends_at => '2031-01-01', max_runs => 7, queue => 'q', priority => -1, enabled => false, timeout => '2 h',
  max_attempts => 3, retry_delay => '1 min', retry_backoff => 1.5, max_retry_delay => '2 h', retry_jitter => 0.2, on_missed => 'all',
  missed_grace => '3 min', max_missed => 9, on_overlap => 'wait', max_running => 4, on_lost => 'fail', max_lost => 2, on_gap => 'skip',
  on_fold => 'twice', jitter => '5 s', keep => '2 days', description => 'd', owner => 'tap_ann')$$, 'every column has an argument');
select results_eq(
  $$select schedule, args, timezone, starts_at, ends_at, max_runs, queue, priority, enabled, timeout, max_attempts, retry_delay,
      retry_backoff, max_retry_delay, retry_jitter, on_missed, missed_grace, max_missed, on_overlap, max_running, on_lost, max_lost,
      on_gap, on_fold, jitter, keep, description from rowcron.job where name = 'all columns'$$,
  $$values ('0 3 * * *', '{"a": [1, null]}'::jsonb, 'Asia/Tokyo', timestamptz '2030-01-01', timestamptz '2031-01-01', 7::bigint, 'q', -1, false,
      interval '2 h', 3, interval '1 min', 1.5::float8, interval '2 h', 0.2::float8, 'all', interval '3 min', 9, 'wait', 4, 'fail', 2,
      'skip', 'twice', interval '5 s', interval '2 days', 'd')$$, 'and each arrives');
select is(
  (select array_agg(c.column_name::text order by c.column_name) from information_schema.columns as c
   where c.table_schema = 'rowcron' and c.table_name = 'job' and c.column_name not in ('id', 'created_at', 'updated_at')),
  (select array_agg(n order by n) from pg_proc as p, unnest(p.proargnames) as n where p.proname = 'schedule' and p.pronamespace = 'rowcron'::regnamespace),
  'the arguments are the columns that a person fills');
select throws_ok($$select rowcron.schedule('new', schedule => '0 3 * * *')$$, 'RCCMD', null, 'a new job needs a command');
select throws_ok($$select rowcron.schedule(null, '0 3 * * *', 'select 1')$$, 'RCNAM', null, 'and a name');
select throws_ok($$select rowcron.schedule('a', '99 3 * * *')$$, 'RCSCH', null, 'a bad change is refused');
select throws_ok($$select rowcron.schedule('b', '0 3 * * *', 'select 1', owner => 'tap_bob')$$, 'RCOWN', null, 'nobody schedules for somebody else');
select throws_ok($$select rowcron.schedule('b', '0 3 * * *', 'select 1', owner => 'no such role')$$, 'RCOWN', 'there is no role "no such role"', 'nor for nobody');
select lives_ok($$select rowcron.schedule('on demand', command => 'select 1')$$, 'without schedule a job runs on demand');

-- pause, resume, unschedule
select rowcron.pause('a');
select is((select j.enabled from rowcron.job as j where j.name = 'a'), false, 'pause pauses');
select lives_ok($$select rowcron.pause('a')$$, 'pausing twice is no error');
select rowcron.resume('tap_ann.a');
select is((select j.enabled from rowcron.job as j where j.name = 'a'), true, 'resume resumes; a job can be named owner.name');
select is((select j.id from rowcron.job as j where j.name = 'on demand'), rowcron.unschedule('on demand'), 'unschedule returns the id');
select is((select count(*) from rowcron.job as j where j.name = 'on demand'), 0::bigint, 'and deletes');

-- somebody else's
set local role tap_bob;
select rowcron.schedule('a', '0 4 * * *', 'select 2');
select is((select array_agg(j.schedule) from rowcron.job as j), '{0 4 * * *}', 'two owners may use one name');
create temporary table others (call text);
insert into others values
  ('rowcron.pause(%L, %L)'), ('rowcron.resume(%L, %L)'), ('rowcron.unschedule(%L, %L)'), ('rowcron.enqueue(%L, owner => %L)'),
  ('rowcron.run_now(%L, owner => %L)'), ('rowcron.why_not_running(%L, %L)'), ('rowcron.enqueue_many(%L, array[''{}'']::jsonb[], owner => %L)');
select is((public.tap_try(format('select ' || o.call, 'a', 'tap_ann'))).state, 'RCNOJ', o.call || ': somebody else''s job is as if it were not') from others as o;
select is(
  (public.tap_try(format('select ' || o.call, 'a', 'tap_ann'))).message || (public.tap_try(format('select ' || o.call, 'a', 'tap_ann'))).hint,
  replace((public.tap_try(format('select ' || o.call, 'nowhere', 'tap_ann'))).message, 'nowhere', 'a') || (public.tap_try(format('select ' || o.call, 'nowhere', 'tap_ann'))).hint,
  o.call || ': in the same words')
from others as o;
select is((public.tap_try(format('select ' || o.call, 'a', 'no such role'))).state, 'RCNOJ', o.call || ': so is nobody''s') from others as o;
select results_eq($$select (t).message, (t).hint from public.tap_try('select rowcron.pause(''nowhere'')') as t$$,
  $$values ('there is no job "nowhere"', 'select owner, name from rowcron.job; shows the jobs that you can see.')$$, 'it says where to look');
reset role;
create role tap_app;
grant rowcron_user, tap_ann, "tap Odd.Name" to tap_app;
set local role tap_app;
select is((public.tap_try($$select rowcron.enqueue('a', owner => 'tap_ann')$$)).hint, 'set role tap_ann;', 'who may act as the owner is told to');
select is((public.tap_try($$select rowcron.enqueue('tap Odd.Name.a')$$)).hint, 'set role "tap Odd.Name";', 'in words to paste');
select is((public.tap_try($$select rowcron.enqueue('a', owner => 'tap_bob')$$)).hint, 'select owner, name from rowcron.job; shows the jobs that you can see.',
  'not if it may not');
select is((public.tap_try($$select rowcron.enqueue('a')$$)).hint, 'select owner, name from rowcron.job; shows the jobs that you can see.', 'nor about its own');
reset role;
select is((public.tap_try($$select rowcron.enqueue('nowhere', owner => 'tap_ann')$$)).hint, 'select owner, name from rowcron.job; shows the jobs that you can see.',
  'nor if it sees all');
set local role tap_bob;
select throws_ok($$select rowcron.pause(null)$$, 'RCNOJ', 'a job''s name must be given', 'a name must be given');
set local role "tap Odd.Name";
select rowcron.schedule('odd', '0 3 * * *', 'select 1');
select lives_ok($$select rowcron.pause('odd', 'tap Odd.Name')$$, 'an owner is named as it is');
select lives_ok($$select rowcron.pause('odd', '"tap Odd.Name"')$$, 'or quoted');
select lives_ok($$select rowcron.pause('tap Odd.Name.odd')$$, 'or before the last dot');

-- an operator
set local role tap_operator;
select lives_ok($$select rowcron.pause('a', 'tap_ann')$$, 'an operator pauses everyone''s');
select lives_ok($$select rowcron.resume('tap_ann.a')$$, 'and resumes');
select throws_ok($$select rowcron.unschedule('a', 'tap_ann')$$, '42501', null, 'but does not delete');
select throws_ok($$select rowcron.schedule('a', '0 5 * * *', owner => 'tap_ann')$$, '42501', null, 'nor edit');
select throws_ok($$update rowcron.job set command = 'select 3'$$, '42501', null, 'nor by hand');
select throws_ok($$insert into rowcron.job (name, command) values ('o', 'select 1')$$, '42501', null, 'nor insert');
set local role tap_viewer;
select throws_ok($$select rowcron.pause('a', 'tap_ann')$$, '42501', null, 'a viewer pauses nothing');
select throws_ok($$update rowcron.job set enabled = false$$, '42501', null, 'nor by hand');
reset role;

-- an upsert by hand
set local role tap_ann;
insert into rowcron.job (name, schedule, command) values ('a', '5 5 * * *', 'select 5'), ('c', '5 5 * * *', 'select 5')
on conflict (owner, name) do update set schedule = excluded.schedule, command = excluded.command;
select results_eq($$select name, schedule from rowcron.job where name in ('a', 'c') order by name$$, $$values ('a', '5 5 * * *'), ('c', '5 5 * * *')$$, 'an upsert changes and inserts');
reset role;

-- however the caller reads numbers
set local extra_float_digits to -10;
set local role tap_ann;
select rowcron.schedule('digits', '@daily', 'select 1', retry_backoff => 1.23456789012345);
select ok((select j.retry_backoff = 1.23456789012345 from rowcron.job as j where j.name = 'digits'), 'numbers are stored as given');
reset role;

select * from finish();
rollback;
