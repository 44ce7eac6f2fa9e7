-- Workers, the lanes they serve, the record of changes, and whose executor is which.
--
-- A change is also how something is asked for. A SECURITY DEFINER function cannot know who called
-- it, and session_user is the worker inside a job; but an INSERT runs its triggers one after the
-- other with nothing of the caller's in between: the first, with the caller's rights, writes down
-- who that is, the second, with the schema owner's, may trust it. So cancel, retry, run_now, hold
-- and release are rows inserted here, each carried out and recorded by one statement (chapter 045).

set role rowcron_owner;

create table if not exists rowcron.worker (
  id uuid not null,
  login text not null default session_user,
  host text,
  pid integer,
  version text,
  queues text[],
  kinds text[] not null,
  handlers text[],
  concurrency integer not null,
  lease interval not null,
  poll interval not null,
  started_at timestamptz not null default clock_timestamp(),
  seen_at timestamptz not null,
  expires_at timestamptz not null,
  stopping boolean not null default false,
  lost_at timestamptz,
  asleep boolean not null default false,
  wake_at timestamptz,
  unsettled text[],
  constraint worker_pkey primary key (id),
  constraint lease_is_sensible check (lease between '1 second' and '1 day'),
  constraint poll_is_sensible check (poll between '10 milliseconds' and '1 hour'),
  constraint concurrency_is_not_negative check (concurrency >= 0)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200);
alter table rowcron.worker drop column if exists backend_pid;
comment on table rowcron.worker is 'The processes that claim and execute; a row a worker, gone '
  'when it stops or is found dead and empty.';
comment on column rowcron.worker.id is 'Random, chosen by the worker; never a host name or a pid.';
comment on column rowcron.worker.login is 'The role that it logged in as.';
comment on column rowcron.worker.host is 'Its machine, as it says.';
comment on column rowcron.worker.pid is 'Its process, as it says.';
comment on column rowcron.worker.version is 'Its release.';
comment on column rowcron.worker.queues is 'The queues that it serves. Null: all.';
comment on column rowcron.worker.kinds is 'The kinds that it executes.';
comment on column rowcron.worker.handlers is 'The Python handlers that it has, and as '
  '"connection NAME" the connections that it has for SQL jobs. Null: any.';
comment on column rowcron.worker.concurrency is 'How many runs it takes at a time.';
comment on column rowcron.worker.lease is 'How long it may be silent before its claims are lost.';
comment on column rowcron.worker.poll is 'The longest that it sleeps.';
comment on column rowcron.worker.started_at is 'When it registered.';
comment on column rowcron.worker.seen_at is 'Its last heartbeat.';
comment on column rowcron.worker.expires_at is 'When its claims are lost unless it is heard of '
  'before.';
comment on column rowcron.worker.stopping is 'It takes no more runs.';
comment on column rowcron.worker.lost_at is 'It was silent for too long; its claims are handed out '
  'again.';
comment on column rowcron.worker.asleep is 'It waits for a notification or wake_at: whoever makes '
  'something due earlier notifies.';
comment on column rowcron.worker.wake_at is 'When it has something to do, and wakes at the latest. '
  'Null: it knows of nothing.';
alter table rowcron.worker add column if not exists full_kinds text[];
comment on column rowcron.worker.full_kinds is 'Of these it cannot take more while it sleeps, so '
  'that it need not be told of their runs. Null: none.';
comment on column rowcron.worker.unsettled is
  'Transactions that were writing when it announced its sleep and may not see the announcement '
    '(virtual ids). Null: not looked yet.';

create table if not exists rowcron.lane (
  queue text not null,
  kind text not null,
  constraint lane_pkey primary key (queue, kind)
);
comment on table rowcron.lane is 'Each queue and kind that has had a job, so that a worker of all '
  'queues need not look for them among the runs.';
comment on column rowcron.lane.queue is 'The queue.';
comment on column rowcron.lane.kind is 'The kind.';

create table if not exists rowcron.executor (
  owner regrole not null,
  name text not null,
  constraint executor_pkey primary key (owner),
  constraint executor_name_is_unique unique (name)
);
comment on table rowcron.executor is 'Which function of schema rowcron_executor runs the SQL jobs '
  'of an owner.';
comment on column rowcron.executor.owner is 'The owner of jobs, who also owns the function.';
comment on column rowcron.executor.name is 'The function''s name; random.';

create table if not exists rowcron.change (
  id bigint generated always as identity,
  changed_at timestamptz not null default clock_timestamp(),
  changed_by text not null,
  action text not null,
  job_id bigint,
  job text,
  owner regrole,
  run_id bigint,
  old_values jsonb,
  new_values jsonb,
  xid xid8 not null default pg_current_xact_id(),
  constraint change_pkey primary key (id),
  constraint action_is_known check (
    action in (
      'insert', 'update', 'delete', 'cancel', 'retry', 'run', 'hold', 'release', 'grant',
      'hand_over', 'enrol'
    )
  )
);
do $$
begin
  if (select pg_get_constraintdef(c.oid) !~ 'enrol' from pg_catalog.pg_constraint as c
      where c.conrelid = 'rowcron.change'::regclass and c.conname = 'action_is_known') then
    alter table rowcron.change drop constraint action_is_known;
    alter table rowcron.change add constraint action_is_known check (
      action in (
        'insert', 'update', 'delete', 'cancel', 'retry', 'run', 'hold', 'release', 'grant',
        'hand_over', 'enrol'
      )
    );
  end if;
end
$$;
create index if not exists change_job_idx on rowcron.change (job, owner, id);
-- the ledger is found by the names that a job has borne
create index if not exists change_rename_idx on rowcron.change (job_id)
where action = 'update' and old_values ? 'name';
-- who has paused a job last is asked of each that pause() or enrol() finds paused
create index if not exists change_pause_idx on rowcron.change (job_id, id)
where action = 'update' and new_values ?| '{enabled,owner}';
-- whose runs a job may still have that did not see it handed over (chapter 049)
create index if not exists change_hand_over_idx on rowcron.change (job_id, owner)
where action = 'hand_over';
comment on table rowcron.change is
  'Who changed which job, cancelled, repeated or started which run, held or released the whole. '
    'Append-only for everybody.';
comment on column rowcron.change.id is 'Its number.';
comment on column rowcron.change.changed_at is 'When, by the database''s clock.';
comment on column rowcron.change.changed_by is 'The role that did it (current_user, not who logged '
  'in).';
comment on column rowcron.change.action is 'insert, update, delete, hand_over (of a job), cancel, '
  'retry, run (of a run), hold, release, grant, enrol.';
comment on column rowcron.change.job_id is 'The job.';
comment on column rowcron.change.job is 'Its name.';
comment on column rowcron.change.owner is 'Its owner.';
comment on column rowcron.change.run_id is 'The run.';
comment on column rowcron.change.old_values is 'What was: of an update the changed columns, of a '
  'delete the whole job.';
comment on column rowcron.change.new_values is 'What is: of an update the changed columns, of an '
  'insert the whole job; what was asked for otherwise.';
comment on column rowcron.change.xid is 'The transaction, so that a reader can tell which changes '
  'it may not have seen yet.';

reset role;
