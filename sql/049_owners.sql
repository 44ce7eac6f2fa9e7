-- Owners change, and go. A job is handed over by somebody who may act as both, who could therefore
-- delete it as the one and insert it as the other; the row of rowcron.change that asks for it is
-- signed by who asks (chapter 045). A job whose owner was dropped, or whose owner's executor was
-- (DROP OWNED, REASSIGN OWNED), runs as nobody: it is paused within a minute, and why_not_running
-- tells why. And what a job was at an instant is read back from the record of its changes.

set role rowcron_owner;

create or replace function rowcron._may_become(who text, owner regrole) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  -- 'set' does not exist before version 16, where each member may
  select pg_has_role(who, owner, case
    when current_setting('server_version_num')::integer >= 160000 then 'set' else 'member' end)
$$;
comment on function rowcron._may_become(text, regrole) is 'Whether a role may SET ROLE to another.';

create or replace function rowcron._hand_over(asked rowcron.change) returns rowcron.change
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  job rowcron.job;
  heir regrole := rowcron._role_named(asked.new_values ->> 'owner');
  lack text;
  remedy text;
begin
  select j.* into job from rowcron.job as j
  where j.name = asked.job and j.owner = asked.owner
    and (rowcron._may_become(asked.changed_by, j.owner)
      -- nobody can act as one that is gone
      or pg_has_role(asked.changed_by, 'rowcron_owner', 'usage')
        and not exists (select from pg_roles as r where r.oid = j.owner))
  for update;
  if job.id is null then
    raise exception using
      errcode = 'RCNOJ',
      message = format('there is no job "%s" to hand over', asked.job),
      detail = format('"%s" cannot act as the owner of such a job.', asked.changed_by),
      hint = 'Whoever hands over is a member of both owners, or of rowcron_owner and the new one if '
        'the old was dropped.';
  end if;
  -- what it lacks, with what an administrator does about it
  select w.lack, w.remedy into lack, remedy
  from (values
    (heir is null, 'There is no such role.', 'select rolname from pg_roles; shows which there are.'),
    ((select r.rolsuper from pg_roles as r where r.oid = heir), 'It is a superuser.',
      'Name a role that is none.'),
    (not rowcron._may_become(asked.changed_by, heir),
      format('"%s" cannot SET ROLE to it.', asked.changed_by),
      format('As an administrator: grant %s to %I;', heir, asked.changed_by)),
    (not pg_has_role(heir, 'rowcron_user', 'usage'), 'It may not have jobs.',
      format('As an administrator: grant rowcron_user to %s;', heir)),
    (not rowcron._may_own_kind(heir, job.kind), format('It may not have %s jobs.', job.kind),
      format('As an administrator: grant rowcron_%s to %s;', job.kind, heir)),
    (job.connection is not null and not rowcron._may_use_connection(heir, job.connection),
      format('It may not name connection "%s".', job.connection),
      format('As an administrator: select rowcron.grant_connection(%L, %L);', job.connection, heir))
  ) as w (lacks, lack, remedy)
  where w.lacks
  limit 1;
  if lack is not null then
    raise exception using
      errcode = 'RCOWN',
      message = format('job "%s" cannot be handed over to "%s"', job.name,
        asked.new_values ->> 'owner'),
      detail = lack,
      hint = remedy;
  end if;
  if exists (select from rowcron.job as j where j.owner = heir and j.name = job.name) then
    raise exception using
      errcode = 'RCNAM',
      message = format('"%s" has a job "%s" already', heir, job.name),
      detail = 'Names are unique for each owner.',
      hint = 'Rename one of them.';
  end if;
  -- first without a lock, so that what runs is told at once, and again when nobody can claim
  for look in 1..2 loop
    if exists (select from rowcron.run as r where r.job_id = job.id and r.state = 'running') then
      raise exception using
        errcode = 'RCLIM',
        message = format('job "%s" is running', job.name),
        detail = 'It is handed over between runs, not within one.',
        hint = 'Wait for its end, or: select rowcron.cancel(run_id) from rowcron.active;';
    end if;
    exit when look = 2;
    -- whoever is firing it has ended then, and what was fired is seen
    perform from rowcron.agenda as a where a.job_id = job.id for update;
    -- Whoever claims one of them now is either before this or passes it over. Not FOR UPDATE: a SQL
    -- job that has begun since holds its run FOR KEY SHARE, and may want the agenda at its end.
    perform from rowcron.run as r
    where r.job_id = job.id and r.state <> 'running'
    order by r.id
    for no key update;
  end loop;
  asked.job_id := job.id;
  asked.old_values := rowcron._columns_given(job);
  perform
    set_config('rowcron.handing_over', format('%s %s', job.id, heir), true),
    set_config('rowcron.handed_over_by', asked.changed_by, true);
  update rowcron.job as j set owner = heir where j.id = job.id;
  perform set_config('rowcron.handing_over', '', true);
  return asked;
end
$$;
comment on function rowcron._hand_over(rowcron.change) is
  'Gives a job, its agenda and its waiting runs another owner, for somebody who may act as both, or '
    'administers the job of one that was dropped. Raises RCNOJ, RCOWN, RCNAM, RCLIM.';

create or replace function rowcron._was_owned_by(live rowcron.run) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  -- a transaction that was open beside it began within a day, as in docs/decisions/026
  select exists (
    select from rowcron.change as c
    where c.job_id = live.job_id and c.owner = live.owner and c.action = 'hand_over'
      and c.changed_at > live.created_at - interval '1 day'
  )
$$;
comment on function rowcron._was_owned_by(rowcron.run) is
  'Whether a run''s job was handed over by the run''s owner, in a change that the run may not have '
    'seen. Only then it may follow its job to the new owner, whose rights it gets.';

create or replace function rowcron.hand_over(
  job text, new_owner text, owner text default current_user
) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  wanted rowcron.job := rowcron._job_named(job, owner);
  heir regrole := rowcron._role_named(new_owner);
  before text := current_setting('role');
begin
  if heir is not null and rowcron._may_become(current_user, heir)
    and wanted.kind = 'sql' and pg_has_role(heir, 'rowcron_user', 'usage')
  then
    -- its executor can be made in its own name alone; the setting takes a name as it is, unquoted
    perform set_config('role', (select r.rolname from pg_roles as r where r.oid = heir), true);
    perform rowcron.enrol();
    perform set_config('role', before, true);
  end if;
  insert into rowcron.change (action, job, owner, new_values)
  values ('hand_over', wanted.name, wanted.owner, jsonb_build_object('owner', coalesce(heir::text, new_owner)));
  return wanted.id;
end
$$;
comment on function rowcron.hand_over(text, text, text) is
  'Gives a job another owner, whose rights it has from its next run on; its history stays with the '
    'old one. For whoever may SET ROLE to both; if the old owner was dropped, a member of '
    'rowcron_owner names it by the number that is left. Not while it runs. Raises RCNOJ, RCOWN, '
    'RCNAM, RCLIM.';

create or replace function rowcron._is_executor(name text, owner regrole) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select from pg_proc as p
    where p.proname = _is_executor.name and p.pronamespace = 'rowcron_executor'::regnamespace
      and p.proowner = _is_executor.owner and p.prosecdef
  )
$$;
comment on function rowcron._is_executor(text, regrole) is
  'Whether the function that was noted as a role''s executor stands, is still its own and has its '
    'rights.';

create or replace function rowcron._lacks_owner(job rowcron.job) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when not exists (select from pg_roles as r where r.oid = job.owner) then 'its owner was dropped'
    when job.kind = 'sql' and job.connection is null and not exists (
      select from rowcron.executor as e
      where e.owner = job.owner and rowcron._is_executor(e.name, e.owner)
    ) then 'its owner''s executor was dropped or changed hands'
  end
$$;
comment on function rowcron._lacks_owner(rowcron.job) is
  'Why a job can run as nobody; null when its owner is there, and for SQL its executor.';

create or replace function rowcron._pause_orphans() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  orphaned rowcron.job;
  -- first the owners, who are few: joined, each job there is would be looked at
  suspects regrole[] := array(
    with recursive owners as (
      (select j.owner from rowcron.job as j order by j.owner limit 1)
      union all
      select (select j.owner from rowcron.job as j where j.owner > o.owner
        order by j.owner limit 1)
      from owners as o where o.owner is not null
    )
    select o.owner from owners as o
    where o.owner is not null and not exists (
      select from rowcron.executor as e
      join pg_roles as r on r.oid = e.owner
      where e.owner = o.owner and rowcron._is_executor(e.name, e.owner)
    )
  );
begin
  if suspects = '{}' then
    return;
  end if;
  for orphaned in
    select j.*
    from rowcron.job as j
    where j.owner = any (suspects) and j.enabled and rowcron._lacks_owner(j) is not null
    for update of j skip locked
  loop
    update rowcron.job as j set enabled = false where j.id = orphaned.id;
    insert into rowcron.change (changed_by, action, job_id, job, owner, new_values)
    values ('rowcron', 'update', orphaned.id, orphaned.name, orphaned.owner,
      jsonb_build_object('enabled', false, 'reason', rowcron._lacks_owner(orphaned),
        'hint', 'As the owner, if there is one: select rowcron.enrol(); which resumes it.'));
  end loop;
end
$$;
comment on function rowcron._pause_orphans() is
  'Pauses jobs that can run as nobody any more, because their owner or its executor is gone.';

create or replace function rowcron.job_as_of(
  name text, at timestamptz, owner text default current_user
) returns rowcron.job
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  whose text := rowcron._role_named(owner)::text;
  candidate bigint;
  state jsonb;
  step record;
begin
  if whose is null then
    return null;
  end if;
  for candidate in
    select j.id from rowcron.job as j where j.owner = whose::regrole and j.name = job_as_of.name
    union
    select c.job_id from rowcron.change as c
    where c.job = job_as_of.name and c.owner = whose::regrole and c.job_id is not null
    union
    select c.job_id from rowcron.change as c
    where c.changed_at > at and c.action = 'update' and c.old_values ->> 'name' = job_as_of.name
    order by 1 desc
  loop
    state := (select to_jsonb(j) from rowcron.job as j where j.id = candidate);
    -- backwards, so that it needs no more of the record than what came after
    for step in
      select c.action, c.old_values, c.owner
      from rowcron.change as c
      where c.job_id = candidate and c.changed_at > at
        and c.action in ('insert', 'update', 'delete', 'hand_over')
      order by c.id desc
    loop
      state := case step.action
        when 'insert' then null
        when 'update' then state || coalesce(step.old_values, '{}')
        -- its owner may have been renamed since
        else step.old_values || jsonb_build_object('owner', step.owner)
      end;
    end loop;
    if state ->> 'name' = job_as_of.name and state ->> 'owner' = whose
      and (state ->> 'created_at')::timestamptz <= at
    then
      return jsonb_populate_record(null::rowcron.job, state || jsonb_build_object('updated_at',
        coalesce((
          select max(c.changed_at) from rowcron.change as c
          where c.job_id = candidate and c.changed_at <= at and c.action in ('insert', 'update')
        ), (state ->> 'created_at')::timestamptz)));
    end if;
  end loop;
  return null;
end
$$;
comment on function rowcron.job_as_of(text, timestamptz, text) is
  'The job that bore this name at an instant, as it was then, also one that is gone; null when there '
    'was none, or none that the caller may see.';

reset role;
