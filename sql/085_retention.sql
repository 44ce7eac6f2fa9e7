-- What would grow without end is bounded here, by whichever worker comes first, once a minute at
-- most: the ledger (chapter 083), changes, keys, outputs, workers and lanes. What is deleted row by
-- row goes in batches; while there is more, the next heartbeat goes on with it.

set role rowcron_owner;

insert into rowcron.setting (name, value, description) values
  ('maintained_at', '"1970-01-01T00:00:00Z"', 'When partitions, keys and workers were last looked '
    'after.'),
  ('outputs_cleared_at', '"1970-01-01T00:00:00Z"', 'Up to when outputs past their job''s keep were '
    'emptied.')
on conflict (name) do nothing;

create or replace function rowcron._clear_outputs(at timestamptz, most integer) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  before timestamptz := (rowcron._read_setting('outputs_cleared_at') #>> '{}')::timestamptz;
  cleared integer;
begin
  -- what has come of age since the last time; once a day all, because a keep may have been
  -- shortened
  update rowcron.ledger as l
  set output = null
  from (
    select e.tableoid as part, e.ctid as place
    from rowcron.job as j
    cross join lateral rowcron._names_borne(j.id, j.name) as n (name)
    join rowcron.ledger as e on e.job = n.name and e.job_id = j.id
    where j.keep is not null and e.finished_at < at - least(j.keep, '1000 years') and e.output is not null
      and e.finished_at >= case when before::date = at::date then before - least(j.keep, '1000 years')
        else '-infinity' end
    limit most
  ) as aged
  where l.tableoid = aged.part and l.ctid = aged.place and l.output is not null;
  get diagnostics cleared = row_count;
  if cleared < most then
    update rowcron.setting as s
    set value = to_jsonb(to_char(at at time zone interval '0', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))
    where s.name = 'outputs_cleared_at';
  end if;
  return cleared < most;
end
$$;
comment on function rowcron._clear_outputs(timestamptz, integer) is
  'Empties so many outputs past their job''s keep; returns whether that were all.';

create or replace function rowcron._clean(at timestamptz, most integer) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  oldest timestamptz := at - (rowcron._read_setting('change_retention') #>> '{}')::interval;
  gone integer;
  all_done boolean;
begin
  delete from rowcron.key as k
  where (k.job_id, k.key) in (
    select e.job_id, e.key from rowcron.key as e where e.expires_at <= at
    order by e.expires_at
    limit most
    for update skip locked
  );
  get diagnostics gone = row_count;
  all_done := gone < most;
  -- numbers rise with time, give or take what was open at once and a clock that was set: no index by
  -- time is needed; an array, because joined it would be planned as a walk through all of them
  delete from rowcron.change as c
  where c.id = any (array(
    select e.id
    from (
      select n.id, n.changed_at
      from rowcron.change as n
      order by n.id
      limit most
    ) as e
    where e.changed_at < oldest
  ));
  get diagnostics gone = row_count;
  all_done := all_done and gone < most;
  perform rowcron._adopt(at);
  -- in another cluster their numbers would be somebody else's
  delete from rowcron.connection_grant as g
  where not exists (select from pg_roles as r where r.oid = g.grantee);
  delete from rowcron.secret_grant as g
  where not exists (select from pg_roles as r where r.oid = g.grantee);
  -- noted while the clock was ahead, a start would hide those that follow from @reboot
  update rowcron.agenda as a set booted_at = '-infinity'
  where a.job_id = any (array(
    select g.job_id from rowcron.agenda as g
    where g.booted_at > at + interval '1 minute' and g.booted_at <> pg_postmaster_start_time()
    for update skip locked
  ));
  delete from rowcron.worker as w
  where w.lost_at < at - interval '10 minutes'
    and not exists (select from rowcron.run as r where r.worker_id = w.id and r.state = 'running');
  delete from rowcron.session as s
  where not exists (select from rowcron.worker as w where w.id = s.worker_id and w.lost_at is null);
  perform rowcron._forget_lanes();
  perform rowcron._recall_lanes();
  return all_done;
end
$$;
comment on function rowcron._clean(timestamptz, integer) is
  'Deletes expired keys, old changes, grants of roles that are gone, workers long gone and unused '
    'lanes; of most so many at a time. Returns whether that were all.';

create or replace function rowcron._maintain(at timestamptz) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  before timestamptz := (rowcron._read_setting('maintained_at') #>> '{}')::timestamptz;
  all_done boolean := true;
  step text;
  done boolean;
begin
  -- later than now by more than that, it was noted while the clock was ahead
  if at > before - interval '1 minute' and at < before + interval '1 minute'
    -- in a restored backup nothing is thrown away before it is released
    or not rowcron._is_bound(rowcron._read_setting('identity') #>> '{}', rowcron._identity())
  then
    return;
  end if;
  perform from rowcron.setting as s where s.name = 'maintained_at' for update skip locked;
  if not found then
    return;
  end if;
  -- whatever is wrong with one must cost neither the others nor a worker its sign of life
  foreach step in array array['orphans', 'instants', 'runs', 'rows', 'outputs', 'partitions'] loop
    begin
      done := true;
      if step = 'orphans' then
        perform rowcron._pause_orphans();
      elsif step = 'instants' then
        done := rowcron._renew_agenda(at, 2000);
      elsif step = 'runs' then
        done := rowcron._reconcile(at, 5000);
      elsif step = 'rows' then
        done := rowcron._clean(at, 5000);
      elsif step = 'outputs' then
        done := rowcron._clear_outputs(at, 5000);
      else
        perform rowcron._maintain_partitions(at);
      end if;
      all_done := all_done and done;
    exception when others then
      raise warning using message = format('cleaning up %s failed: %s', step, sqlerrm);
    end;
  end loop;
  update rowcron.setting as s
  set value = to_jsonb(to_char((at - case when all_done then interval '0'
    else interval '1 minute' end) at time zone interval '0', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'))
  where s.name = 'maintained_at';
end
$$;
comment on function rowcron._maintain(timestamptz) is
  'Once a minute, by whichever worker comes first: instants follow the rules of zones, runs their '
    'jobs, what has had its time is cleaned away, partitions are made and dropped.';

reset role;
