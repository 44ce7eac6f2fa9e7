-- The tables. What a row may say is said by constraints whose names are sentences; chapter 040
-- checks the same rules first, with better words. Three kinds of rows are kept apart, because they
-- live differently:
--
--   job     what its owner wrote. Only its owner writes it, and may hold a transaction open on it.
--   agenda  the database's own narrow row a job: what the schedule means and when it is next. Firing
--           locks and moves this row, so that an open edit of a command or a description delays
--           nothing (but a python job's command is what its runs ask for: those stay where they are
--           until it commits). Only an edit of when the job runs touches the agenda, and holds up
--           that one job until it commits.
--   run     what is waiting, ready or running now: small and hot. A run leaves it in the statement
--           that writes its last entry in the ledger.
--   ledger  what became of everything: append-only, partitioned by time, no foreign key into it or
--           out of it, so that a deleted job keeps its history and retention drops whole partitions.

set role rowcron_owner;

create table if not exists rowcron.job (
  id bigint generated always as identity,
  name text not null,
  owner regrole not null default (quote_ident(current_user)::regrole),
  kind text not null default 'sql',
  command text not null,
  args jsonb,
  schedule text,
  timezone text not null default 'UTC',
  starts_at timestamptz,
  ends_at timestamptz,
  max_runs bigint,
  queue text not null default 'default',
  priority integer not null default 0,
  enabled boolean not null default true,
  timeout interval not null default '1 hour',
  max_attempts integer not null default 1,
  retry_delay interval not null default '10 seconds',
  retry_backoff double precision not null default 2,
  max_retry_delay interval not null default '1 hour',
  retry_jitter double precision not null default 0.1,
  on_missed text not null default 'latest',
  missed_grace interval not null default '1 minute',
  max_missed integer not null default 100,
  on_overlap text not null default 'skip',
  max_running integer,
  on_lost text not null default 'retry',
  max_lost integer not null default 3,
  on_gap text,
  on_fold text,
  jitter interval,
  connection text,
  keep interval,
  description text,
  created_at timestamptz not null default clock_timestamp(),
  updated_at timestamptz not null default clock_timestamp(),
  constraint job_pkey primary key (id),
  constraint job_name_is_unique_per_owner unique (owner, name),
  constraint name_is_short_and_has_no_dot check (
    name <> '' and octet_length(name) <= 200 and strpos(name, '.') = 0
  ),
  constraint queue_is_short check (queue <> '' and octet_length(queue) <= 200),
  constraint kind_is_a_word check (kind ~ '^[a-z][a-z0-9_]{0,62}$'),
  constraint window_ends_after_it_starts check (ends_at > starts_at),
  constraint timeout_is_positive check (timeout > '0'),
  constraint delays_are_not_negative check (
    retry_delay >= '0' and max_retry_delay >= '0' and missed_grace >= '0' and jitter >= '0'
  ),
  constraint backoff_does_not_shrink check (retry_backoff >= 1),
  constraint retry_jitter_is_a_share check (retry_jitter between 0 and 1),
  constraint counts_are_positive check (
    max_runs > 0 and max_attempts > 0 and max_missed > 0 and max_running > 0 and max_lost > 0
  ),
  constraint on_missed_is_known check (on_missed in ('latest', 'skip', 'all')),
  constraint on_overlap_is_known check (on_overlap in ('skip', 'wait', 'allow')),
  constraint on_lost_is_known check (on_lost in ('retry', 'fail')),
  constraint on_gap_is_known check (on_gap in ('run', 'skip')),
  constraint on_fold_is_known check (on_fold in ('once', 'twice')),
  constraint keep_is_positive check (keep > '0'),
  constraint only_sql_names_a_connection check (connection is null or kind = 'sql')
);
-- those whose outputs are emptied early (chapter 085)
create index if not exists job_keep_idx on rowcron.job (id)
where keep is not null;
-- the lanes that an author sees: those of its own jobs (chapter 110)
create index if not exists job_lane_idx on rowcron.job (owner, queue, kind);
comment on table rowcron.job is
  'What to do and when: insert a row, get a job. Only name, schedule and command are needed; only '
    'the owner sees and writes it.';
comment on column rowcron.job.id is 'The job''s number; stays with it through every change.';
comment on column rowcron.job.name is 'The job''s name, unique for its owner: 1 to 200 bytes, no '
  'dot, no control characters.';
comment on column rowcron.job.owner is 'The role that inserted it and whose rights a SQL job has. '
  'Cannot be forged. A regrole: compare it as owner = ''alice''::regrole, or owner::text = '
  '''alice''; to an object mapper it is text that it reads and never writes.';
comment on column rowcron.job.kind is 'How the command is executed: sql, shell, http, python.';
comment on column rowcron.job.command is 'What to do: SQL text; a shell line; [METHOD] URL and '
  'header lines; a handler''s name. At most 1 MiB.';
comment on column rowcron.job.args is 'Arguments as a JSON object or array, handed to the command. '
  'A run''s own args replace them. JSON''s null is none.';
comment on column rowcron.job.schedule is 'When: a cron expression, @daily, @every 90 seconds, '
  '@after 5 minutes, @at 2026-12-24 18:00. Null: only on demand.';
comment on column rowcron.job.timezone is 'The IANA zone in which the schedule is read.';
comment on column rowcron.job.starts_at is 'No occurrence before this instant counts.';
comment on column rowcron.job.ends_at is 'No occurrence from this instant on counts.';
comment on column rowcron.job.max_runs is 'After so many scheduled runs the schedule is over. '
  'Null: no end.';
comment on column rowcron.job.queue is 'The label by which workers choose what they serve.';
comment on column rowcron.job.priority is 'Higher first among runs that are due.';
comment on column rowcron.job.enabled is 'False: paused. Nothing is fired, and runs that were '
  'there stand still; what is enqueued from now on runs.';
comment on column rowcron.job.timeout is 'An attempt that takes longer is stopped and has failed.';
comment on column rowcron.job.max_attempts is 'So many attempts may fail before the run has '
  'failed.';
comment on column rowcron.job.retry_delay is 'The pause before the second attempt.';
comment on column rowcron.job.retry_backoff is 'Each further pause is so many times the one '
  'before.';
comment on column rowcron.job.max_retry_delay is 'No pause is longer, jitter aside.';
comment on column rowcron.job.retry_jitter is 'The share of a pause that is random, 0 to 1.';
comment on column rowcron.job.on_missed is
  'Of several occurrences found due at once: latest runs the last, skip only if younger than '
    'missed_grace, all runs them in order.';
comment on column rowcron.job.missed_grace is 'With on_missed = skip: an occurrence that is older '
  'when found is not run.';
comment on column rowcron.job.max_missed is 'With on_missed = all: at most so many, the latest '
  'ones, are run.';
comment on column rowcron.job.on_overlap is
  'While an earlier scheduled run is live, the next is skipped, waits (one in line), or is allowed '
    'beside it.';
comment on column rowcron.job.max_running is 'So many runs of any origin may run at a time; the '
  'surplus waits. Null: no limit.';
comment on column rowcron.job.on_lost is
  'What to do when the worker of a run dies, or stops before its end: retry it, or fail it as lost. '
    'A SQL job that stops with its worker is rolled back and runs later either way.';
comment on column rowcron.job.max_lost is
  'A run that loses its worker so many times is lost; a worker that was told to stop does not count.';
comment on column rowcron.job.on_gap is 'A time that daylight saving leaves out: run at the first '
  'instant after it, or skip. Null: by the form of the schedule.';
comment on column rowcron.job.on_fold is 'A time that daylight saving doubles: once or twice. '
  'Null: by the form of the schedule.';
comment on column rowcron.job.jitter is 'Runs start up to so much after their occurrence, stable '
  'for each occurrence.';
comment on column rowcron.job.connection is
  'For what cannot run inside a function (VACUUM, procedures that COMMIT): a connection that the '
    'worker''s configuration names.';
comment on column rowcron.job.keep is 'How long outputs of this job are kept, if shorter than the '
  'ledger is. Null: as long as the ledger.';
comment on column rowcron.job.description is 'For people.';
comment on column rowcron.job.created_at is 'When it was inserted; set by the database.';
comment on column rowcron.job.updated_at is 'When it was last changed; set by the database.';

create table if not exists rowcron.agenda (
  job_id bigint not null,
  owner regrole not null,
  queue text not null,
  kind text not null,
  enabled boolean not null,
  max_running integer,
  parsed rowcron._parsed,
  next_run_at timestamptz,
  last_run_at timestamptz,
  high_water timestamptz not null,
  runs_fired bigint not null default 0,
  booted_at timestamptz,
  constraint agenda_pkey primary key (job_id),
  constraint agenda_job_fkey foreign key (job_id) references rowcron.job (id) on delete cascade,
  constraint next_run_is_above_the_high_water check (next_run_at > high_water),
  constraint a_paused_job_has_no_next_run check (enabled or next_run_at is null)
) with (fillfactor = 70);
create index if not exists agenda_due_idx on rowcron.agenda (queue, kind, next_run_at)
where next_run_at is not null;
create index if not exists agenda_boot_idx on rowcron.agenda (queue, kind, booted_at)
where booted_at is not null;
comment on table rowcron.agenda is
  'One narrow row a job, the database''s own: what its schedule means, when it is next, how far it '
    'has been accounted for.';
comment on column rowcron.agenda.job_id is 'The job.';
comment on column rowcron.agenda.owner is 'As the job''s.';
comment on column rowcron.agenda.queue is 'As the job''s.';
comment on column rowcron.agenda.kind is 'As the job''s.';
comment on column rowcron.agenda.enabled is 'As the job''s; read again under this row''s lock.';
comment on column rowcron.agenda.max_running is 'As the job''s; this row''s lock guards the count.';
comment on column rowcron.agenda.parsed is 'The schedule, parsed when it was stored. Null: only on '
  'demand.';
comment on column rowcron.agenda.next_run_at is 'The next occurrence. Null: paused, over, or only '
  'on demand.';
comment on column rowcron.agenda.last_run_at is 'The last occurrence that became a run.';
comment on column rowcron.agenda.high_water is 'Every occurrence up to here is accounted for. Only '
  'rises.';
comment on column rowcron.agenda.runs_fired is 'So many occurrences have become runs; compared '
  'with max_runs.';
comment on column rowcron.agenda.booted_at is 'For @reboot: the start of PostgreSQL that has been '
  'accounted for.';

reset role;
