-- Runs and the ledger: states that contradict themselves cannot be stored.

begin;
select plan(25);
set local client_min_messages to error;

create function public.tap_run(columns text, vals text) returns text language sql as $$
  select format('insert into rowcron.run (job_id, job, owner, queue, kind, due_at, %s) values (-1, ''tap'', ''rowcron_user'', ''q'', ''sql'', ''2030-01-01'', %s)', columns, vals)
$$;
select lives_ok(public.tap_run(v.columns, v.vals), 'a run may be ' || v.vals)
from (values ('state', '''ready'''), ('state, waits_for', '''waiting'', ''time'''), ('state, waits_for', '''waiting'', ''limit'''), ('state, waits_for', '''waiting'', ''overlap'''), ('state, waits_for', '''waiting'', ''resume'''),
  ('state, seal, worker_id, started_at', '''running'', gen_random_uuid(), gen_random_uuid(), now()')) as v (columns, vals);
select throws_ok(public.tap_run(v.columns, v.vals), 'RCLIM', 'a run of job "tap" contradicts itself', v.name || ': ' || v.vals)
from (values
  ('state', '''done''', 'running_has_one_holder'), ('state', '''waiting''', 'waiting_says_for_what'), ('state, waits_for', '''ready'', ''time''', 'waiting_says_for_what'), ('state, waits_for', '''waiting'', ''luck''', 'waiting_says_for_what'),
  ('state', '''running''', 'running_has_one_holder'), ('state, seal', '''ready'', gen_random_uuid()', 'running_has_one_holder'), ('state, worker_id', '''ready'', gen_random_uuid()', 'running_has_one_holder'),
  ('state, seal, worker_id', '''running'', gen_random_uuid(), gen_random_uuid()', 'running_has_one_holder'), ('state, started_at', '''ready'', now()', 'running_has_one_holder'),
  ('state, attempt', '''ready'', 0', 'attempt_counts_from_one'), ('state, failures', '''ready'', -1', 'attempt_counts_from_one'), ('state, losses', '''ready'', -1', 'attempt_counts_from_one')
) as v (columns, vals, name) where v.vals <> '''done''';
select throws_ok(public.tap_run('state', '''done'''), 'RCLIM', null, 'an unknown state');
select throws_ok(public.tap_run('state, key, key_expires_at', v.vals), 'RCLIM', null, 'a key is short: ' || left(v.vals, 20))
from (values ('''ready'', '''', now()'), ('''ready'', repeat(''k'', 501), now()')) as v (vals);
select lives_ok(public.tap_run('state, scheduled_for', '''ready'', ''2030-01-01'''), 'an occurrence has a run');
select throws_ok(public.tap_run('state, scheduled_for', '''ready'', ''2030-01-01'''), '23505', 'duplicate key value violates unique constraint "run_occurrence_idx"', 'and only one that is live');
select lives_ok(public.tap_run('state', '''ready'''), 'on demand there may be many');

select is((select count(*) from pg_constraint as c where c.contype = 'f' and (c.conrelid in ('rowcron.run'::regclass, 'rowcron.ledger'::regclass) or c.confrelid in ('rowcron.run'::regclass, 'rowcron.ledger'::regclass))), 0::bigint,
  'no foreign key leads into or out of runs and ledger');
select is((select array_agg(i.indexrelid::regclass::text order by i.indexrelid::regclass::text) from pg_index as i where i.indrelid = 'rowcron.run'::regclass),
  '{rowcron.run_cancel_idx,rowcron.run_idle_job_idx,rowcron.run_limited_idx,rowcron.run_occurrence_idx,rowcron.run_parked_idx,rowcron.run_pkey,rowcron.run_ready_idx,rowcron.run_resume_idx,rowcron.run_running_idx,rowcron.run_waiting_idx}', 'each index of runs has its use');

select * from finish();
rollback;
