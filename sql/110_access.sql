-- Who may what. A stranger nothing. An author (rowcron_user) sees and writes its own jobs, sees its
-- own runs and their history, and asks for runs. An operator pauses, resumes, runs, cancels,
-- retries everyone's, holds and releases. A viewer reads. A worker executes the four verbs and
-- holds no right on any table. What is granted stands here and nowhere else; a test compares the
-- catalog with this chapter's lists.
--
-- What stays possible by design: an author holds DELETE on rowcron.job, and with it LOCK TABLE of
-- it in any mode; COPY FROM is refused by row security (copy into a table of your own, then insert
-- ... select).

set role rowcron_owner;

grant usage on schema rowcron to
  rowcron_user, rowcron_operator, rowcron_viewer, rowcron_worker, rowcron_gate, rowcron_web;

alter table rowcron.job enable row level security;
alter table rowcron.agenda enable row level security;
alter table rowcron.run enable row level security;
alter table rowcron.key enable row level security;
alter table rowcron.ledger enable row level security;
alter table rowcron.change enable row level security;
alter table rowcron.lane enable row level security;
alter table rowcron.executor enable row level security;
alter table rowcron.connection_grant enable row level security;
alter table rowcron.secret_grant enable row level security;
alter table rowcron.token enable row level security;

-- The scalar subqueries are evaluated once a statement.
drop policy if exists own on rowcron.job;
create policy own on rowcron.job to rowcron_user
using (owner = (select rowcron._me())) with check (owner = (select rowcron._me()));
drop policy if exists operate on rowcron.job;
-- An operator who is an author too holds UPDATE on every column; _check_job lets it change enabled
-- alone.
create policy operate on rowcron.job for update to rowcron_operator using (true) with check (true);
drop policy if exists view on rowcron.job;
create policy view on rowcron.job for select to rowcron_operator, rowcron_viewer using (true);

drop policy if exists own on rowcron.agenda;
create policy own
  on rowcron.agenda for select to rowcron_user using (owner = (select rowcron._me()));
drop policy if exists view on rowcron.agenda;
create policy view on rowcron.agenda for select to rowcron_operator, rowcron_viewer using (true);

drop policy if exists own on rowcron.run;
create policy own on rowcron.run for select to rowcron_user using (owner = (select rowcron._me()));
drop policy if exists view on rowcron.run;
create policy view on rowcron.run for select to rowcron_operator, rowcron_viewer using (true);
drop policy if exists enqueue on rowcron.run;
-- The job must be the author's too, not only seen by it, as by an author who is a viewer: a run of
-- somebody else's would take its keys, count against its limits and run with its owner's rights.
create policy enqueue on rowcron.run for insert to rowcron_user
with check (owner = (select rowcron._me())
  and octet_length(job) <= 200 and isfinite(due_at)
  -- Text is dear. So few bytes that are not compressed hold at most seven numbers like 1e131071,
  -- each of 131072 digits as text.
  and (args is null or pg_column_size(args) < 100 and pg_column_compression(args) is null
    or octet_length(args::text) <= 1048576)
  and exists (select from rowcron.job as j where j.id = run.job_id and j.owner = run.owner));
drop policy if exists operate on rowcron.run;
create policy operate on rowcron.run for insert to rowcron_operator
with check (isfinite(due_at) and octet_length(job) <= 200
  and (args is null or pg_column_size(args) < 100 and pg_column_compression(args) is null
    or octet_length(args::text) <= 1048576)
  and exists (select from rowcron.job as j where j.id = run.job_id and j.owner = run.owner));

drop policy if exists own on rowcron.key;
create policy own on rowcron.key for select to rowcron_user, rowcron_operator
using (exists (select from rowcron.job as j where j.id = key.job_id));

drop policy if exists own on rowcron.ledger;
create policy own
  on rowcron.ledger for select to rowcron_user using (owner = (select rowcron._me()));
drop policy if exists view on rowcron.ledger;
create policy view on rowcron.ledger for select to rowcron_operator, rowcron_viewer using (true);

drop policy if exists own on rowcron.change;
create policy own on rowcron.change for select to rowcron_user
using (owner = (select rowcron._me()) or changed_by = current_user);
drop policy if exists view on rowcron.change;
create policy view on rowcron.change for select to rowcron_operator, rowcron_viewer using (true);
drop policy if exists ask on rowcron.change;
create policy ask on rowcron.change for insert to rowcron_user,
  rowcron_operator with check (changed_by = current_user);

-- queues are names that owners choose: an author sees those of its own jobs. Not by EXISTS, for which
-- all of the author's jobs may be read to hash their lanes.
drop policy if exists own on rowcron.lane;
create policy own on rowcron.lane for select to rowcron_user
using ((
  select true from rowcron.job as j where j.queue = lane.queue and j.kind = lane.kind limit 1
));
drop policy if exists view on rowcron.lane;
create policy view on rowcron.lane for select to rowcron_operator, rowcron_viewer using (true);

drop policy if exists own on rowcron.executor;
create policy own
  on rowcron.executor for select to rowcron_user using (owner = (select rowcron._me()));
drop policy if exists view on rowcron.executor;
create policy view on rowcron.executor for select to rowcron_operator, rowcron_viewer using (true);
drop policy if exists view on rowcron.connection_grant;
create policy view on rowcron.connection_grant for select to rowcron_operator, rowcron_viewer
using (true);
drop policy if exists view on rowcron.secret_grant;
create policy view on rowcron.secret_grant for select to rowcron_operator, rowcron_viewer
using (true);
drop policy if exists own on rowcron.connection_grant;
create policy own on rowcron.connection_grant for select to rowcron_user
using (pg_has_role((select rowcron._me()), grantee, 'usage'));
drop policy if exists own on rowcron.secret_grant;
create policy own on rowcron.secret_grant for select to rowcron_user
using (pg_has_role((select rowcron._me()), grantee, 'usage'));

drop policy if exists own on rowcron.token;
create policy own on rowcron.token to rowcron_user, rowcron_operator, rowcron_viewer
using (role = (select rowcron._me())) with check (role = (select rowcron._me()));

grant select, insert, update, delete on rowcron.job to rowcron_user;
grant select, update (enabled) on rowcron.job to rowcron_operator;
grant select on rowcron.job to rowcron_viewer;
grant select on
  rowcron.agenda, rowcron.run, rowcron.ledger, rowcron.change, rowcron.worker, rowcron.lane,
    rowcron.setting,
  rowcron.jobs, rowcron.upcoming, rowcron.active, rowcron.history, rowcron.job_health,
    rowcron.workers,
  rowcron.queue_health
to rowcron_user, rowcron_operator, rowcron_viewer;
grant select on rowcron.key to rowcron_user, rowcron_operator;
grant select on rowcron.executor to rowcron_user, rowcron_operator, rowcron_viewer;
grant select on rowcron.connection_grant, rowcron.secret_grant
to rowcron_user, rowcron_operator, rowcron_viewer;
grant insert (
  job_id, job, owner, queue, kind, handler, state, waits_for, priority, due_at, through_pause, key,
    key_expires_at, args
) on rowcron.run to rowcron_user, rowcron_operator;
grant insert (action, job, owner, run_id, new_values) on rowcron.change to rowcron_user,
  rowcron_operator;

grant
  select (id, role, label, created_at, expires_at, revoked_at, used_at),
  insert (label, seal, expires_at), update (revoked_at)
on rowcron.token to rowcron_user, rowcron_operator, rowcron_viewer;
grant execute on function rowcron.create_token, rowcron.revoke_token
to rowcron_user, rowcron_operator, rowcron_viewer;
-- the web process
grant execute on function rowcron.token_role, rowcron.pulse to rowcron_web;

-- the calendar and what only reads its arguments
grant execute on function
  rowcron.next_run, rowcron.next_runs, rowcron.explain, rowcron._explain_job, rowcron.version,
  rowcron._me, rowcron._read_setting, rowcron._local_text, rowcron._may_own_kind,
    rowcron._ledger_overflows, rowcron._held, rowcron._is_overdue, rowcron._is_plain,
  rowcron._is_ahead
to rowcron_user, rowcron_operator, rowcron_viewer;

-- what authors and operators call; each judges the caller by row security or by who signs a change
grant execute on function
  rowcron.pause, rowcron.resume, rowcron.enqueue, rowcron.enqueue_many, rowcron.run_now,
    rowcron.cancel,
  rowcron.retry, rowcron.hold, rowcron.release, rowcron.grant_connection, rowcron.revoke_connection,
  rowcron.grant_secret, rowcron.revoke_secret,
  rowcron._job_named, rowcron._set_enabled, rowcron._paused_for_want, rowcron._enqueue,
  rowcron._check_asked
to rowcron_user, rowcron_operator;
grant execute on function
  rowcron._may_use_connection, rowcron._may_use_secret, rowcron._named_secrets,
  rowcron._ungranted_secret
to rowcron_user, rowcron_operator, rowcron_viewer;
grant execute on function rowcron.why_not_running, rowcron._job_named, rowcron._role_named,
  rowcron._served, rowcron._has_room, rowcron._count_before, rowcron._handler
to rowcron_user, rowcron_operator, rowcron_viewer;
grant execute on function
  rowcron.occurrences, rowcron._unfold, rowcron._outlook, rowcron.upcoming_page, rowcron.dst_audit,
  rowcron.planned, rowcron.planned_load, rowcron._outlook_parts, rowcron._check_parts,
  rowcron.waiting_page, rowcron.next_page, rowcron.ended_page, rowcron.pulse, rowcron._sees_all,
  rowcron._has_few_jobs, rowcron._has_few_runs,
  rowcron._names_borne,
  rowcron._transitions, rowcron._dst_effects, rowcron._leaves_room
to rowcron_user, rowcron_operator, rowcron_viewer;
grant execute on function
  rowcron.schedule, rowcron.unschedule, rowcron._check_command, rowcron._check_timezone,
  rowcron._check_secrets, rowcron._has_controls
to rowcron_user, rowcron_operator;

-- what an owner's executor calls, as that owner
grant execute on function rowcron._claimed_command, rowcron._apply_settings, rowcron._tick,
  rowcron._succeed
to rowcron_user;
grant execute on function rowcron.enrol, rowcron._has_executor, rowcron._latest_edition to rowcron_user;
grant execute on function rowcron.hand_over, rowcron._may_become to rowcron_user, rowcron_operator;
grant execute on function rowcron.job_as_of, rowcron._lacks_owner, rowcron._is_executor
to rowcron_user, rowcron_operator, rowcron_viewer;

-- the four verbs; claim_ready is claim in short, pin_plans readies a session for it
grant execute on function
  rowcron.claim(uuid, integer, text[], text[], text[], interval, boolean, boolean),
  rowcron.pin_plans(),
  rowcron.claim_ready(uuid, integer, text[], text[], text[], interval),
  rowcron.heartbeat(uuid, text[], text[], text[], integer, interval, interval, text, text, integer,
    boolean, boolean, bigint, boolean, bigint[], text[]),
  rowcron.finish(
    uuid, bigint[], uuid[], text[], text[], text[], text[], jsonb[], interval[], boolean
  )
to rowcron_worker;
grant execute on function rowcron.finish(bigint, uuid, text, text, text, jsonb, text, interval)
to rowcron_worker, rowcron_user, rowcron_python;
grant usage on schema rowcron to rowcron_python, rowcron_execute;
-- a single role's functions have no default rights of their own (chapter 010)
do $$
begin
  if 'rowcron_owner' = 'rowcron_gate' then
    revoke execute on all functions in schema rowcron from public;
  end if;
end
$$;
reset role;

set role rowcron_gate;
-- rowcron_execute: a login for the connections on which SQL jobs run, that may do nothing else
grant execute on function rowcron.execute(bigint, uuid) to rowcron_worker, rowcron_execute;

reset role;
