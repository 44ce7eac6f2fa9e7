-- What would grow without end is bounded here, by whichever worker comes first, once a minute at
-- most: the ledger, changes, keys, outputs, workers and lanes. What is deleted row by row goes in
-- batches; while there is more, the next heartbeat goes on with it.
--
-- The ledger is partitioned by day (UTC). Partitions are made a week ahead and dropped when past the
-- retention, as the last thing that the transaction does, so that their locks are held for no longer
-- than it takes to commit. Dropping takes the ledger itself exclusively, and while it waits for that
-- those who write the ledger wait behind it: 50 ms at most, once. A reader of the expired partition,
-- or of the whole ledger, is found without waiting; then it is tried again a minute later. Making one
-- waits only for readers, and only readers wait for it. What no partition takes goes to the default
-- partition, from where it is moved when its partition is made.

set role rowcron_owner;

insert into rowcron.setting (name, value, description) values
  ('maintained_at', '"1970-01-01T00:00:00Z"', 'When partitions, keys and workers were last looked '
    'after.'),
  ('outputs_cleared_at', '"1970-01-01T00:00:00Z"', 'Up to when outputs past their job''s keep were '
    'emptied.')
on conflict (name) do nothing;

create or replace function rowcron._make_partition(day date) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  name text := 'ledger_' || to_char(day, 'YYYYMMDD');
  low text := to_char(day, 'YYYY-MM-DD') || ' 00:00:00+00';
  high text := to_char(day + 1, 'YYYY-MM-DD') || ' 00:00:00+00';
begin
  if to_regclass('rowcron.' || name) is not null then
    return;
  end if;
  -- apart first, then attached: that does not wait for those who write the other partitions. The
  -- default partition is locked before it is emptied, else what is written meanwhile would refuse
  -- the attachment.
  lock table rowcron.ledger_default in access exclusive mode;
  execute format('create table rowcron.%I (like rowcron.ledger including defaults including '
    'constraints including comments)', name);
  execute format('alter table rowcron.%I replica identity full', name);
  execute format('comment on table rowcron.%I is %L', name, 'The ledger of '
    || to_char(day, 'YYYY-MM-DD') || ' (UTC).');
  execute format(
    'with moved as (delete from rowcron.ledger_default where finished_at >= %1$L and finished_at < '
      '%2$L returning *) '
    'insert into rowcron.%3$I select * from moved', low, high, name);
  execute format('alter table rowcron.ledger attach partition rowcron.%I for values from (%L) to '
    '(%L)', name, low, high);
end
$$;
comment on function rowcron._make_partition(date)
  is 'Makes the partition of the ledger for one day (UTC), if it does not stand.';

create or replace function rowcron._maintain_partitions(at timestamptz) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set lock_timeout = '50ms'
as $$
declare
  today date := (at at time zone interval '0')::date;
  oldest text := 'ledger_'
    || to_char((at - (rowcron._read_setting('retention') #>> '{}')::interval)
      at time zone interval '0', 'YYYYMMDD');
  day date;
  expired text;
begin
  for day in
    select today + a.ahead from generate_series(0, 7) as a (ahead)
    union
    (
      select distinct (l.finished_at at time zone interval '0')::date
      from rowcron.ledger_default as l
      order by 1
      limit 8
    )
    order by 1
  loop
    begin
      perform rowcron._make_partition(day);
    exception when lock_not_available then
      exit;  -- a reader of all of the ledger; in a minute
    end;
  end loop;
  for expired in
    select c.relname
    from pg_inherits as i
    join pg_class as c on c.oid = i.inhrelid
    where i.inhparent = 'rowcron.ledger'::regclass and c.relname ~ E'^ledger_\\d{8}$'
      and c.relname < oldest
    order by c.relname
  loop
    begin
      -- first the partition, which nobody writes: whoever reads it must not be waited for with the
      -- ledger locked already
      execute format('lock table rowcron.%I in access exclusive mode nowait', expired);
      execute format('drop table rowcron.%I', expired);
    exception when lock_not_available then
      exit;  -- whoever reads the ledger stands in the way of the others too
    end;
  end loop;
end
$$;
comment on function rowcron._maintain_partitions(timestamptz) is
  'Makes the ledger''s partitions for a week ahead and drops those past the retention, as far as '
    'nobody is in the way.';

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
    cross join lateral (
      select j.name
      union
      select c.old_values ->> 'name' from rowcron.change as c
      where c.job_id = j.id and c.action = 'update' and c.old_values ? 'name'
    ) as n (name)
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
  all_done boolean := true;
  step text;
  done boolean;
begin
  if at < (rowcron._read_setting('maintained_at') #>> '{}')::timestamptz + interval '1 minute'
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
  foreach step in array array['orphans', 'runs', 'rows', 'outputs', 'partitions'] loop
    begin
      done := true;
      if step = 'orphans' then
        perform rowcron._pause_orphans();
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
  'Once a minute, by whichever worker comes first: runs follow their jobs, what has had its time is '
    'cleaned away, partitions are made and dropped.';

do $$ begin perform rowcron._maintain_partitions(clock_timestamp()); end $$;

-- Else a publication for all tables refuses to have rows of theirs updated or deleted.
do $$
declare
  part text;
begin
  for part in
    select c.relname from pg_catalog.pg_class as c
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    where n.nspname = 'rowcron' and c.relkind = 'r' and c.relname like 'ledger%'
      and c.relreplident = 'd'
  loop
    execute format('alter table rowcron.%I replica identity full', part);
  end loop;
end
$$;

reset role;
