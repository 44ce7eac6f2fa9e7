-- The ledger is partitioned by day (UTC). Partitions are made a week ahead and dropped when past
-- the retention, as the last thing that the transaction does, so that their locks are held for no
-- longer than it takes to commit. Each is made and dropped by itself: what is in the way of one is
-- told in a warning that names it, and harms no other.
--
-- Dropping takes the ledger itself exclusively, and while it waits for that those who write the
-- ledger wait behind it: 50 ms at most, once. A reader of the expired partition, or of the whole
-- ledger, is found without waiting; then it is tried again a minute later. Making one ahead waits
-- only for readers, and only readers wait for it.
--
-- What no partition takes goes to the default partition, from where it is moved when its partition
-- is made. A day whose entries are being written is another matter: who has chosen the default
-- partition by then would find its entry refused, and a SQL job would fail with it. So the ledger
-- itself is locked first, whoever writes chooses after that, and little may be moved meanwhile.
-- Where a day has more, it stays in the default partition until it has passed.

set role rowcron_owner;

create or replace function rowcron._has_partition(day date) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select from pg_inherits as i
    where i.inhparent = 'rowcron.ledger'::regclass
      and i.inhrelid = to_regclass('rowcron.ledger_' || to_char(day, 'YYYYMMDD'))
  )
$$;
comment on function rowcron._has_partition(date)
  is 'Whether the ledger''s partition for one day (UTC) stands.';

drop function if exists rowcron._make_partition(date);
create or replace function rowcron._make_partition(
  day date, written boolean default false, most bigint default null
) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  name text := 'ledger_' || to_char(day, 'YYYYMMDD');
  low text := to_char(day, 'YYYY-MM-DD') || ' 00:00:00+00';
  high text := to_char(day + 1, 'YYYY-MM-DD') || ' 00:00:00+00';
  columns text;
  entries bigint;
begin
  if rowcron._has_partition(day) then
    return 0;
  elsif to_regclass('rowcron.' || name) is not null then
    raise exception using
      errcode = 'duplicate_table',
      message = format('relation "%s" stands there and is not one of the ledger''s', name),
      hint = format('Rename rowcron.%I or attach it again.', name);
  end if;
  if most is not null and most < (
    select count(*)
    from (
      select from rowcron.ledger_default as l
      where l.finished_at >= low::timestamptz and l.finished_at < high::timestamptz
      limit most + 1
    ) as l
  ) then
    return 0;
  end if;
  if written then
    lock table only rowcron.ledger in access exclusive mode;
  end if;
  -- apart first, then attached: that does not wait for those who write the other partitions. The
  -- default partition is locked before it is emptied, else what is written meanwhile would refuse
  -- the attachment.
  lock table rowcron.ledger_default in access exclusive mode;
  execute format('create table rowcron.%I (like rowcron.ledger including defaults including '
    'generated including constraints including comments)', name);
  execute format('alter table rowcron.%I replica identity full', name);
  execute format('comment on table rowcron.%I is %L', name, 'The ledger of '
    || to_char(day, 'YYYY-MM-DD') || ' (UTC).');
  columns := (
    select string_agg(quote_ident(a.attname), ', ')
    from pg_attribute as a
    where a.attrelid = 'rowcron.ledger'::regclass and a.attnum > 0 and not a.attisdropped
      and a.attgenerated = ''
  );
  execute format(
    'with moved as (delete from rowcron.ledger_default where finished_at >= %1$L and finished_at < '
      '%2$L returning *) '
    'insert into rowcron.%3$I (%4$s) select %4$s from moved', low, high, name, columns);
  get diagnostics entries = row_count;
  execute format('alter table rowcron.ledger attach partition rowcron.%I for values from (%L) to '
    '(%L)', name, low, high);
  return entries;
end
$$;
comment on function rowcron._make_partition(date, boolean, bigint)
  is 'Makes the partition of the ledger for one day (UTC), if it does not stand and no more than '
    '`most` entries have to be moved (null: any); returns how many were. written: somebody may be '
    'writing entries of that day.';

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
  missing record;
  most bigint;  -- so many entries may still be moved while those who write wait; null: none waits
  moved bigint;
  expired text;
  fact text;
  advice text;
begin
  for missing in
    select d.day, d.day between ((at - interval '1 hour') at time zone interval '0')::date
      and ((at + interval '1 hour') at time zone interval '0')::date as written
    from (
      select today + a.ahead as day from generate_series(0, 7) as a (ahead)
      union
      (
        select distinct (l.finished_at at time zone interval '0')::date
        from rowcron.ledger_default as l
        order by 1
        limit 8
      )
    ) as d
    where not rowcron._has_partition(d.day)
    -- who writes locks the ledger, then the default partition: in no other order here
    order by written desc, d.day
  loop
    if missing.written then
      most := coalesce(most, 10000);  -- about 0.1 s
    end if;
    begin
      -- not in one expression: with a null in it nothing would be called
      moved := rowcron._make_partition(missing.day, missing.written, most);
      most := most - moved;
    exception
      when lock_not_available then
        exit when not missing.written;  -- a reader of all of the ledger; in a minute
      when others then
        get stacked diagnostics fact = pg_exception_detail, advice = pg_exception_hint;
        raise warning using
          message = format('partition ledger_%s of the ledger cannot be made: %s',
            to_char(missing.day, 'YYYYMMDD'), sqlerrm),
          detail = concat_ws(' ', nullif(fact, ''), 'What no partition takes is in '
            'rowcron.ledger_default; it is tried again each minute.'),
          hint = coalesce(nullif(advice, ''), 'Detach or drop what is in its way.');
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
    exception
      when lock_not_available then
        exit;  -- whoever reads the ledger stands in the way of the others too
      when others then
        get stacked diagnostics fact = pg_exception_detail;
        raise warning using
          message = format('partition %s of the ledger cannot be dropped: %s', expired, sqlerrm),
          detail = concat_ws(' ', nullif(fact, ''), 'It is past the retention; it is tried again '
            'each minute.'),
          hint = 'Drop what is in its way, or detach it.';
    end;
  end loop;
end
$$;
comment on function rowcron._maintain_partitions(timestamptz) is
  'Makes the ledger''s partitions for a week ahead and drops those past the retention, as far as '
    'nobody is in the way. Warns of each that cannot be made or dropped.';

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
