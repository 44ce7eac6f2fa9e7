-- The ledger is partitioned by day (UTC). Partitions are made a week ahead and dropped when past
-- the retention by whichever worker comes first, once a minute at most, with a lock_timeout of 50
-- ms: where a reader is in the way it is tried again a minute later, and neither claims nor
-- finishes wait for it. What no partition takes goes to the default partition, from where it is
-- moved when its partition is made.

set role rowcron_owner;

insert into rowcron.setting (name, value, description) values
  ('maintained_at', '"1970-01-01T00:00:00Z"', 'When partitions, keys and workers were last looked '
    'after.')
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
  today date := (at at time zone 'UTC')::date;
  oldest text := 'ledger_'
    || to_char((at - (rowcron._read_setting('retention') #>> '{}')::interval) at time zone 'UTC',
      'YYYYMMDD');
  day date;
  expired text;
begin
  for day in
    select today + a.ahead from generate_series(0, 7) as a (ahead)
    union
    (
      select distinct (l.finished_at at time zone 'UTC')::date from rowcron.ledger_default as l
      order by 1
      limit 8
    )
    order by 1
  loop
    begin
      perform rowcron._make_partition(day);
    exception when lock_not_available then
      null;  -- in a minute
    end;
  end loop;
  for expired in
    select c.relname
    from pg_inherits as i
    join pg_class as c on c.oid = i.inhrelid
    where i.inhparent = 'rowcron.ledger'::regclass and c.relname ~ '^ledger_\d{8}$'
      and c.relname < oldest
    order by c.relname
  loop
    begin
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

create or replace function rowcron._maintain(at timestamptz) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  before timestamptz := (rowcron._read_setting('maintained_at') #>> '{}')::timestamptz;
begin
  if at < before + interval '1 minute' then
    return;
  end if;
  perform from rowcron.setting as s where s.name = 'maintained_at' for update skip locked;
  if not found then
    return;
  end if;
  update rowcron.setting as s
  set value = to_jsonb(to_char(at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'))
  where s.name = 'maintained_at';
  perform rowcron._maintain_partitions(at);
  delete from rowcron.key as k
  where (k.job_id, k.key) in (
    select e.job_id, e.key from rowcron.key as e where e.expires_at <= at
      limit 10000 for update skip locked
  );
  delete from rowcron.worker as w
  where w.lost_at < at - interval '10 minutes'
    and not exists (select from rowcron.run as r where r.worker_id = w.id and r.state = 'running');
  -- what has come of age since the last time; once a day all, because a keep may have been
  -- shortened
  update rowcron.ledger as l
  set output = null
  from rowcron.job as j
  where j.keep is not null and l.job = j.name and l.job_id = j.id and l.finished_at < at - j.keep
    and l.finished_at >= case when before::date = at::date then before - j.keep else '-infinity' end
    and l.output is not null;
end
$$;
comment on function rowcron._maintain(timestamptz) is
  'Once a minute, by whichever worker comes first: partitions, expired keys, workers long gone, '
    'outputs past their job''s keep.';

do $$ begin perform rowcron._maintain_partitions(clock_timestamp()); end $$;

reset role;
