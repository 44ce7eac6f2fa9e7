-- Runs and the ledger. A run is hot: it is inserted, claimed (one update), and deleted by the
-- statement that writes its final ledger entry, so this table stays as small as what is live. Each
-- index below serves one statement: ready (claim), waiting (promote what is due), parked (what
-- waits for something else than time), resume (what a pause holds), running (rescue), cancel (what a heartbeat tells), occurrence
-- (one run an occurrence, overlap), idle job (edits), limited (how many of a job with max_running
-- run). A claim moves a row into two of them, the key and running: each further one costs a fifth.

set role rowcron_owner;

create table if not exists rowcron.run (
  id bigint generated always as identity,
  job_id bigint not null,
  job text not null,
  owner regrole not null,
  queue text not null,
  kind text not null,
  handler text,
  state text not null,
  waits_for text,
  priority integer not null default 0,
  due_at timestamptz not null,
  scheduled_for timestamptz,
  attempt integer not null default 1,
  failures integer not null default 0,
  losses integer not null default 0,
  worker_id uuid,
  seal uuid,
  started_at timestamptz,
  cancel_asked_by text,
  through_pause boolean not null default false,
  limited boolean not null default false,
  retry_of bigint,
  key text,
  key_expires_at timestamptz,
  created_at timestamptz not null default clock_timestamp(),
  args jsonb,
  rank integer not null generated always as (~priority) stored,
  constraint run_pkey primary key (id)
) with (
  fillfactor = 85,
  autovacuum_vacuum_scale_factor = 0.02,
  autovacuum_vacuum_threshold = 1000,
  autovacuum_vacuum_cost_delay = 0
);
alter table rowcron.run add column if not exists limited boolean not null default false;
alter table rowcron.run add column if not exists retry_for timestamptz;
alter table rowcron.run
add column if not exists rank integer not null generated always as (~priority) stored;
-- Its rules are asked of what is inserted (chapter 044): as constraints each update read them anew, a
-- tenth of a claim (docs/decisions/018). Nobody but our functions can change a run, and the tests'
-- databases have the rules as constraints.
alter table rowcron.run
drop constraint if exists state_is_known,
drop constraint if exists waiting_says_for_what,
drop constraint if exists running_has_one_holder,
drop constraint if exists attempt_counts_from_one,
drop constraint if exists run_key_is_short;
drop index if exists rowcron.run_job_idx;
create unique index if not exists run_occurrence_idx on rowcron.run (job_id, scheduled_for)
where scheduled_for is not null;
do $$
begin
  -- what they were before cannot be replaced
  if pg_get_indexdef(to_regclass('rowcron.run_ready_idx')) !~ 'rank' then
    drop index rowcron.run_ready_idx;
  end if;
  if pg_get_indexdef(to_regclass('rowcron.run_running_idx')) !~ 'started_at' then
    drop index rowcron.run_running_idx;
  end if;
end
$$;
create index if not exists run_ready_idx on rowcron.run (queue, kind, rank, due_at, id)
where state = 'ready';
create index if not exists run_waiting_idx on rowcron.run (queue, kind, due_at)
where state = 'waiting' and waits_for = 'time';
create index if not exists run_parked_idx on rowcron.run (queue, kind, job_id, due_at)
where state = 'waiting' and waits_for in ('limit', 'overlap');
create index if not exists run_resume_idx on rowcron.run (job_id)
where state = 'waiting' and waits_for = 'resume';
create index if not exists run_running_idx on rowcron.run (worker_id, started_at)
where state = 'running';
create index if not exists run_cancel_idx on rowcron.run (worker_id)
where cancel_asked_by is not null;
create index if not exists run_idle_job_idx on rowcron.run (job_id)
where state <> 'running';
create index if not exists run_limited_idx on rowcron.run (job_id)
where limited and state = 'running';
comment on table rowcron.run is
  'What is waiting, ready or running now. A row leaves in the statement that writes its final '
    'entry in the ledger.';
comment on column rowcron.run.id is 'The run''s number; all its attempts bear it.';
comment on column rowcron.run.job_id is 'The job, which may be deleted meanwhile.';
comment on column rowcron.run.job is 'The job''s name when the run came to be.';
comment on column rowcron.run.owner is 'The job''s owner; compared as job.owner is.';
comment on column rowcron.run.queue is 'The job''s queue.';
comment on column rowcron.run.kind is 'The job''s kind.';
comment on column rowcron.run.handler is 'What a worker must have: for kind python the handler, for a '
  'SQL job with a connection "connection NAME".';
comment on column rowcron.run.state is 'waiting, ready or running.';
comment on column rowcron.run.waits_for is
  'What a waiting run waits for: time (due later or backing off), limit (max_running, or the end of '
    'an open edit of its job), overlap (an earlier run), resume (paused).';
comment on column rowcron.run.priority is 'Higher first.';
comment on column rowcron.run.rank is
  'The priority''s complement: the best first and all ascending, so that (rank, due_at, id) is a '
    'place in the order, which one comparison finds.';
comment on column rowcron.run.due_at is 'Not to start before.';
comment on column rowcron.run.scheduled_for is 'The occurrence. Null: on demand.';
comment on column rowcron.run.attempt is 'The try that is next or under way, from 1.';
comment on column rowcron.run.failures is 'So many attempts have failed; compared with '
  'max_attempts.';
comment on column rowcron.run.losses is
  'So many attempts were lost; compared with max_lost. Those are not counted whose worker was told '
    'to stop.';
comment on column rowcron.run.worker_id is 'The worker that holds it.';
comment on column rowcron.run.seal is
  'The claim''s token, hashed: the token is random for each claim, only its holder knows it, and '
    'every word about a running run must show it.';
comment on column rowcron.run.started_at is 'When it was claimed.';
comment on column rowcron.run.cancel_asked_by is 'Who asked to cancel a run that is running.';
comment on column rowcron.run.through_pause is 'Asked for while the job was paused, so that the '
  'pause does not hold it.';
comment on column rowcron.run.limited is
  'Claimed while its job had max_running, and counted against it. Meaningful while it is running.';
comment on column rowcron.run.retry_of is 'The run that this one repeats.';
comment on column rowcron.run.retry_for is
  'The occurrence of the run that this one repeats, or of the first where that repeats another: what '
    'its command sees as scheduled_for. Itself it is on demand: it neither takes the occurrence''s '
    'place nor counts as scheduled.';
comment on column rowcron.run.key is 'The key under which it was enqueued.';
comment on column rowcron.run.key_expires_at is 'Until when the same key of the same job returns '
  'this run. Left out with a key: a day from then on.';
comment on column rowcron.run.created_at is 'When it came to be.';
comment on column rowcron.run.args is 'Arguments that replace the job''s. Null: the job''s.';

create table if not exists rowcron.key (
  job_id bigint not null,
  key text not null,
  run_id bigint not null,
  expires_at timestamptz not null,
  constraint key_pkey primary key (job_id, key)
) with (fillfactor = 90);
create index if not exists key_expiry_idx on rowcron.key (expires_at);
comment on table rowcron.key is 'Which run an idempotency key of a job names, for the key''s time '
  'to live; outlives the run.';
comment on column rowcron.key.job_id is 'The job.';
comment on column rowcron.key.key is 'The key, unique for the job.';
comment on column rowcron.key.run_id is 'The run that it names.';
comment on column rowcron.key.expires_at is 'From then on the key is free again.';

create table if not exists rowcron.ledger (
  job_id bigint not null,
  job text not null,
  owner regrole not null,
  queue text not null,
  kind text not null,
  run_id bigint,
  attempt integer,
  final boolean not null,
  scheduled_for timestamptz,
  first_scheduled_for timestamptz,
  occurrences bigint not null default 1,
  due_at timestamptz,
  started_at timestamptz,
  finished_at timestamptz not null,
  outcome text not null,
  reason text,
  error text,
  output text,
  result jsonb,
  worker_id uuid,
  retry_of bigint,
  key text,
  args jsonb
) partition by range (finished_at);
alter table rowcron.ledger add column if not exists retry_for timestamptz;
-- Its rules are the functions' that write here, and nobody else can: as constraints each statement
-- read them anew, a fifteenth of what a SQL job takes (docs/decisions/020). An outcome is one of
-- those named below; skipped and missed have neither run nor attempt, the others both; what is not
-- final has failed or was lost; several occurrences name the first, and no run. The tests look for
-- entries that break them in each database that they used.
do $$
begin
  if exists (
    select from pg_catalog.pg_constraint as c
    where c.conrelid = 'rowcron.ledger'::regclass and c.conname = 'outcome_is_known'
  ) then
    alter table rowcron.ledger
    drop constraint outcome_is_known,
    drop constraint a_non_run_has_no_attempt,
    drop constraint only_failed_and_lost_are_tried_again,
    drop constraint several_occurrences_name_the_first;
  end if;
end
$$;
do $$
begin
  -- they were descending: each entry at the left end of its range, where pages split in halves
  if pg_get_indexdef(to_regclass('rowcron.ledger_finished_idx')) ~ 'DESC' then
    drop index rowcron.ledger_job_idx, rowcron.ledger_finished_idx;
  end if;
end
$$;
create index if not exists ledger_job_idx on rowcron.ledger (job, finished_at);
create index if not exists ledger_run_idx on rowcron.ledger (run_id);
create index if not exists ledger_finished_idx on rowcron.ledger (finished_at);
-- trouble is rare, so that these two cost little: all of it, and an owner's
create index if not exists ledger_trouble_idx on rowcron.ledger (outcome, finished_at desc)
where final and outcome in ('failed', 'lost', 'missed');
create index if not exists ledger_own_trouble_idx
  on rowcron.ledger (owner, outcome, finished_at desc)
where final and outcome in ('failed', 'lost', 'missed');
create table if not exists rowcron.ledger_default partition of rowcron.ledger default;
comment on table rowcron.ledger is
  'What became of everything: a row the end of an attempt, or of occurrences that did not run. '
    'Append-only, partitioned by finished_at (UTC days).';
comment on table rowcron.ledger_default is 'Catches entries for whose day no partition stands.';
comment on column rowcron.ledger.job_id is 'The job; may be gone.';
comment on column rowcron.ledger.job is 'Its name at the time.';
comment on column rowcron.ledger.owner is 'Its owner at the time; compared as job.owner is.';
comment on column rowcron.ledger.queue is 'The queue.';
comment on column rowcron.ledger.kind is 'The kind.';
comment on column rowcron.ledger.run_id is 'The run. Null: no run came of it (skipped, missed).';
comment on column rowcron.ledger.attempt is 'Which attempt ended, from 1. Null: no run came of it.';
comment on column rowcron.ledger.final is 'Nothing follows. False: the run is tried again.';
comment on column rowcron.ledger.scheduled_for
  is 'The occurrence; of several the last. Null: on demand.';
comment on column rowcron.ledger.first_scheduled_for is 'Of several occurrences the first.';
comment on column rowcron.ledger.occurrences is 'So many occurrences stand in this one entry.';
comment on column rowcron.ledger.due_at is 'When the attempt was due.';
comment on column rowcron.ledger.started_at is 'When the attempt was claimed.';
comment on column rowcron.ledger.finished_at is 'When this was written, by the database''s clock.';
comment on column rowcron.ledger.outcome is 'succeeded, failed, cancelled, lost; skipped and '
  'missed never ran.';
comment on column rowcron.ledger.reason is 'Why, in a few words.';
comment on column rowcron.ledger.error is 'The error''s text, its end if long.';
comment on column rowcron.ledger.output is 'What the command printed, its end if long.';
comment on column rowcron.ledger.result is 'A small result: rows and first row of a SQL job, exit '
  'status, HTTP status, a handler''s return value.';
comment on column rowcron.ledger.worker_id is 'The worker that held it.';
comment on column rowcron.ledger.retry_of is 'The run that this one repeats.';
comment on column rowcron.ledger.retry_for is 'The occurrence of the run that this one repeats.';
comment on column rowcron.ledger.key is 'The key under which the run was enqueued.';
comment on column rowcron.ledger.args is 'The run''s own arguments; null where it had the job''s.';

reset role;
