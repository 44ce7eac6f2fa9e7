-- Who changed which job, and what it was called before: the first trigger runs with the caller's rights and says who that is;
-- nothing of the caller's can run between it and the second (see chapter 032).

set role rowcron_owner;

create or replace function rowcron._name_actor() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform set_config('rowcron.actor', current_user, true);
  return null;
end
$$;
comment on function rowcron._name_actor() is 'Trigger: tells the next trigger who is changing the '
  'job.';

create or replace function rowcron._columns_given(job rowcron.job) returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  -- not jsonb_strip_nulls: nulls in args mean what they say
  select jsonb_object_agg(c.key, c.value) from jsonb_each(to_jsonb(job)) as c where c.value <> 'null'
$$;
comment on function rowcron._columns_given(rowcron.job) is 'A job without its columns that are null.';

create or replace function rowcron._record_change() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  job rowcron.job := coalesce(new, old);
  before jsonb;
  after jsonb;
begin
  if tg_op = 'UPDATE' then
    select jsonb_object_agg(o.key, o.value), jsonb_object_agg(o.key, n.value) into before, after
    from jsonb_each(to_jsonb(old)) as o
    join jsonb_each(to_jsonb(new)) as n on n.key = o.key
    where n.value <> o.value and o.key <> 'updated_at';
    if before is null then
      return null;
    end if;
  elsif tg_op = 'INSERT' then
    after := rowcron._columns_given(new);
  else
    before := rowcron._columns_given(old);
  end if;
  insert into rowcron.change (changed_by, action, job_id, job, owner, old_values, new_values)
  values (
    -- the update of a hand-over is done by the schema's owner, for whoever asked for it
    case when tg_op = 'UPDATE' and old.owner <> new.owner
      then current_setting('rowcron.handed_over_by') else current_setting('rowcron.actor') end,
    lower(tg_op collate "C"), job.id, job.name, job.owner, before,
    after);
  return null;
end
$$;
comment on function rowcron._record_change() is 'Trigger: writes into rowcron.change who changed a '
  'job, and what.';

create or replace function rowcron._paused_for_want(job_id bigint) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce((
    -- only _pause_orphans gives a reason; what another owner did in between may be hidden, the
    -- return from it is not
    select c.changed_by = 'rowcron' and c.new_values ? 'reason'
    from rowcron.change as c
    where c.job_id = _paused_for_want.job_id and c.action = 'update'
      and c.new_values ?| '{enabled,owner}'
    order by c.id desc
    limit 1
  ), false)
$$;
comment on function rowcron._paused_for_want(bigint) is
  'Whether a paused job was paused by the database, for want of an owner or its executor, and by '
    'nobody since; as far as the caller may see.';

create or replace function rowcron._record_pause() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if rowcron._paused_for_want(new.id) then
    insert into rowcron.change (changed_by, action, job_id, job, owner, new_values)
    values (current_setting('rowcron.actor'), 'update', new.id, new.name, new.owner,
      '{"enabled": false}');
  end if;
  return null;
end
$$;
comment on function rowcron._record_pause() is
  'Trigger: somebody pauses what the database has paused, so that enrol() leaves it so.';

drop trigger if exists d10_name_actor on rowcron.job;
create trigger d10_name_actor after insert or update or delete on rowcron.job
for each row execute function rowcron._name_actor();
drop trigger if exists d20_record_change on rowcron.job;
create trigger d20_record_change after insert or update or delete on rowcron.job
for each row execute function rowcron._record_change();
-- only where the statement itself names the column
drop trigger if exists d30_record_pause on rowcron.job;
create trigger d30_record_pause after update of enabled on rowcron.job
for each row when (not old.enabled and not new.enabled) execute function rowcron._record_pause();

-- No pinned path: its text is parsed here and now, not when it is called, and only so is it planned
-- as a part of what asks.
create or replace function rowcron._names_borne(whose bigint, name text) returns setof text
language sql stable rows 2
begin atomic
  select name
  union
  select c.old_values ->> 'name'
  from rowcron.change as c
  where c.job_id = whose and c.action = 'update' and c.old_values ? 'name';
end;
comment on function rowcron._names_borne(bigint, text) is
  'The name of a job and those that it had before, under each of which the ledger may know it.';

reset role;
