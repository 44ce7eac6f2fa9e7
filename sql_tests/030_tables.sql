-- Job and agenda: the constraints hold also where the triggers of chapter 040 do not fire.

begin;
select plan(35);
set local client_min_messages to error;
set local session_replication_role to replica;

create function public.tap_job(columns text, vals text) returns text language sql as $$
  select format('insert into rowcron.job (name, command, owner%s) values (%L, ''select 1'', ''rowcron_user''%s)', ', ' || columns, gen_random_uuid(), ', ' || vals)
$$;
select lives_ok($$insert into rowcron.job (name, command) values ('tap', 'select 1')$$, 'name and command are enough');
select throws_ok(public.tap_job(v.columns, v.vals), '23514', format('new row for relation "job" violates check constraint "%s"', v.name), v.name || ': ' || v.vals)
from (values
  ('queue', '''''', 'queue_is_short'), ('queue', 'repeat(''q'', 201)', 'queue_is_short'), ('kind', '''SQL''', 'kind_is_a_word'), ('kind', '''''', 'kind_is_a_word'),
  ('starts_at, ends_at', '''2030-01-02'', ''2030-01-02''', 'window_ends_after_it_starts'), ('timeout', '''0''', 'timeout_is_positive'),
  ('retry_delay', '''-1 s''', 'delays_are_not_negative'), ('max_retry_delay', '''-1 s''', 'delays_are_not_negative'), ('missed_grace', '''-1 s''', 'delays_are_not_negative'), ('jitter', '''-1 s''', 'delays_are_not_negative'),
  ('retry_backoff', '0.5', 'backoff_does_not_shrink'), ('retry_jitter', '1.5', 'retry_jitter_is_a_share'), ('retry_jitter', '-0.5', 'retry_jitter_is_a_share'),
  ('max_runs', '0', 'counts_are_positive'), ('max_attempts', '0', 'counts_are_positive'), ('max_missed', '0', 'counts_are_positive'), ('max_running', '0', 'counts_are_positive'), ('max_lost', '0', 'counts_are_positive'),
  ('on_missed', '''x''', 'on_missed_is_known'), ('on_overlap', '''x''', 'on_overlap_is_known'), ('on_lost', '''x''', 'on_lost_is_known'), ('on_gap', '''x''', 'on_gap_is_known'), ('on_fold', '''x''', 'on_fold_is_known'),
  ('keep', '''0''', 'keep_is_positive'), ('kind, connection', '''http'', ''x''', 'only_sql_names_a_connection')
) as v (columns, vals, name);
select throws_ok(format('insert into rowcron.job (name, command) values (%L, ''select 1'')', v.name), '23514', 'new row for relation "job" violates check constraint "name_is_short_and_has_no_dot"', 'not the name ' || left(v.name, 5))
from (values (''), ('a.b'), (repeat('n', 201))) as v (name);
select throws_ok($$insert into rowcron.job (name, command) values ('tap', 'select 1')$$, '23505', 'duplicate key value violates unique constraint "job_name_is_unique_per_owner"', 'a name is unique per owner');
select lives_ok($$insert into rowcron.job (name, command, owner) values ('tap', 'select 1', 'rowcron_user')$$, 'but not across owners');

create function public.tap_agenda(vals text) returns text language sql as $$
  select format('insert into rowcron.agenda (job_id, owner, queue, kind, enabled, high_water, next_run_at) select j.id, j.owner, j.queue, j.kind, %s from rowcron.job as j where j.name = ''tap'' limit 1', vals)
$$;
select throws_ok(public.tap_agenda('true, ''2030-01-01'', ''2030-01-01'''), '23514', 'new row for relation "agenda" violates check constraint "next_run_is_above_the_high_water"', 'what is next lies above the high-water mark');
select throws_ok(public.tap_agenda('false, ''2030-01-01'', ''2030-01-02'''), '23514', 'new row for relation "agenda" violates check constraint "a_paused_job_has_no_next_run"', 'a paused job has nothing next');
select lives_ok(public.tap_agenda('true, ''2030-01-01'', ''2030-01-02'''), 'an agenda row');
select is((select array_agg(i.indexrelid::regclass::text order by i.indexrelid::regclass::text) from pg_index as i where i.indrelid in ('rowcron.job'::regclass, 'rowcron.agenda'::regclass)),
  '{rowcron.agenda_boot_idx,rowcron.agenda_due_idx,rowcron.agenda_pkey,rowcron.job_keep_idx,rowcron.job_lane_idx,rowcron.job_name_is_unique_per_owner,rowcron.job_pkey}', 'each index has its use');

select * from finish();
rollback;
