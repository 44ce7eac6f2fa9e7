-- Partitions ahead and behind, keys, workers, outputs.

begin;
select plan(30);
set local timezone to 'Pacific/Auckland';
set local client_min_messages to error;

create role tap_ann;
grant rowcron_user to tap_ann;
create function public.tap_partitions() returns text[] language sql as $$
  select array_agg(c.relname::text order by c.relname) from pg_inherits as i join pg_class as c on c.oid = i.inhrelid
  where i.inhparent = 'rowcron.ledger'::regclass and c.relname <> 'ledger_default'
$$;
create function public.tap_entry(at timestamptz, name text default 'x') returns void language sql as $$
  insert into rowcron.ledger (job_id, job, owner, queue, kind, final, scheduled_for, finished_at, outcome)
  values (1, name, 'tap_ann'::regrole, 'q', 'sql', true, at, at, 'missed')
$$;
create function public.tap_where(at timestamptz) returns text language sql as $$
  select string_agg(l.tableoid::regclass::text, ',') from rowcron.ledger as l where l.finished_at = at
$$;

select ok(public.tap_partitions() @> array(select 'ledger_' || to_char((clock_timestamp() at time zone 'UTC')::date + n, 'YYYYMMDD') from generate_series(0, 5) as n),
  'after an installation partitions stand for today and the days ahead');

-- a week ahead, by UTC days
set local role rowcron_owner;
select rowcron._maintain_partitions('2050-03-01 23:59:59+00');
reset role;
select is(public.tap_partitions(), array(select 'ledger_205003' || lpad(n::text, 2, '0') from generate_series(1, 8) as n), 'partitions are made a week ahead, and those past the retention dropped');
select is(
  (select array_agg(pg_get_expr(c.relpartbound, c.oid)) from pg_class as c where c.relname = 'ledger_20500302'),
  array[format('FOR VALUES FROM (''%s'') TO (''%s'')', timestamptz '2050-03-02 00:00+00', timestamptz '2050-03-03 00:00+00')], 'each holds a day of UTC, whatever the session''s zone');
select public.tap_entry('2050-03-02 00:00:00+00');
select public.tap_entry('2050-03-02 23:59:59.999999+00');
select is(public.tap_where('2050-03-02 00:00:00+00') || ' ' || public.tap_where('2050-03-02 23:59:59.999999+00'), 'rowcron.ledger_20500302 rowcron.ledger_20500302', 'entries go to their day''s');
select is((select count(*) from pg_index as i where i.indrelid = 'rowcron.ledger_20500302'::regclass), 5::bigint, 'a partition has the ledger''s indexes');
select ok((select obj_description('rowcron.ledger_20500302'::regclass) is not null and bool_and(col_description(a.attrelid, a.attnum) is not null)
  from pg_attribute as a where a.attrelid = 'rowcron.ledger_20500302'::regclass and a.attnum > 0), 'and comments');
select is((select c.relacl::text from pg_class as c where c.relname = 'ledger_20500302'), null, 'and no grants: it is not read around row security');
select is((select c.relowner::regrole::text from pg_class as c where c.relname = 'ledger_20500302'), 'rowcron_owner', 'it is rowcron_owner''s');
select lives_ok($$select rowcron._maintain_partitions('2050-03-01 23:59:59+00')$$, 'doing it again does nothing');

-- the default partition
select public.tap_entry('2050-03-20 12:00+00');
select public.tap_entry('2050-03-11 12:00+00');
select is(public.tap_where('2050-03-20 12:00+00'), 'rowcron.ledger_default', 'what no partition takes goes to the default partition');
select is(rowcron._ledger_overflows(), true, 'which is shown');
select rowcron._maintain_partitions('2050-03-20 13:00+00');
select is(public.tap_where('2050-03-20 12:00+00'), 'rowcron.ledger_20500320', 'from where it is moved when its partition is made');
select is(public.tap_where('2050-03-11 12:00+00'), 'rowcron.ledger_20500311', 'also when its day has passed');
select is(rowcron._ledger_overflows(), false, 'so that the default partition is empty');
select public.tap_entry('2049-01-01 12:00+00');
select rowcron._maintain_partitions('2050-03-20 13:00+00');
select is((select count(*) from rowcron.ledger as l where l.finished_at = '2049-01-01 12:00+00'), 0::bigint, 'what is past the retention goes, also from the default partition');

-- behind
update rowcron.setting set value = '"5 days"' where name = 'retention';
select rowcron._maintain_partitions('2050-03-20 13:00+00');
select is((public.tap_partitions())[1], 'ledger_20500320', 'a shorter retention bites at once');
select rowcron._maintain_partitions('2050-03-25 13:00+00');
select is((public.tap_partitions())[1], 'ledger_20500320', 'a day is kept until it is past the retention as a whole');
select rowcron._maintain_partitions('2050-03-26 00:00+00');
select is((public.tap_partitions())[1], 'ledger_20500321', 'then it is dropped');

-- once a minute
update rowcron.setting set value = '"2050-06-01T00:00:00Z"' where name = 'maintained_at';
select rowcron._maintain('2050-06-01 00:00:59+00');
select ok(not 'ledger_20500601' = any (public.tap_partitions()), 'maintenance is done once a minute at most');
select rowcron._maintain('2050-06-01 00:01:00+00');
select ok('ledger_20500601' = any (public.tap_partitions()), 'after a minute it is due');
select is((select s.value from rowcron.setting as s where s.name = 'maintained_at'), '"2050-06-01T00:01:00Z"', 'and notes when');

update rowcron.setting set value = '"2051-06-01T00:00:00Z"' where name = 'maintained_at';
select rowcron._maintain('2050-06-01 00:01:30+00');
select is((select s.value from rowcron.setting as s where s.name = 'maintained_at'), '"2050-06-01T00:01:30Z"', 'what was noted while the clock was ahead holds nothing up');
select rowcron._maintain('2050-06-01 00:01:29+00');
select is((select s.value from rowcron.setting as s where s.name = 'maintained_at'), '"2050-06-01T00:01:30Z"', 'nor does who began a little earlier do it again');
update rowcron.setting set value = '"2050-06-01T00:01:00Z"' where name = 'maintained_at';

-- keys, workers
insert into rowcron.key (job_id, key, run_id, expires_at) values (1, 'old', 1, '2050-06-01 00:02:00+00'), (1, 'young', 1, '2050-06-01 00:02:01+00');
insert into rowcron.worker (id, kinds, concurrency, lease, poll, seen_at, expires_at, lost_at)
select gen_random_uuid(), '{sql}', n, '10 s', '5 s', '2050-01-01', '2050-01-01', case n when 1 then timestamptz '2050-05-31 23:51:59+00' when 2 then '2050-05-31 23:52:01+00' end
from generate_series(1, 3) as n;
select rowcron._maintain('2050-06-01 00:02:00+00');
select is((select array_agg(k.key) from rowcron.key as k where k.job_id = 1), '{young}', 'expired keys go');
select is((select array_agg(w.concurrency order by w.concurrency) from rowcron.worker as w where w.seen_at = '2050-01-01'), '{2,3}', 'workers go ten minutes after they were lost');

-- a start of PostgreSQL
set local role tap_ann;
insert into rowcron.job (name, schedule, command) values ('boot', '@reboot', 'select 1'), ('boots', '@reboot', 'select 1');
reset role;
update rowcron.agenda as a set booted_at = '2051-01-01' from rowcron.job as j where j.id = a.job_id and j.name = 'boot';
select rowcron._clean('2050-06-01 00:02:00+00', 100);
select results_eq($$select j.name, a.booted_at < pg_postmaster_start_time() from rowcron.agenda as a join rowcron.job as j on j.id = a.job_id where j.name like 'boot%' order by 1$$,
  $$values ('boot', true), ('boots', false)$$, 'one noted while the clock was ahead hides none that follows');

-- outputs
set local role tap_ann;
insert into rowcron.job (name, command, keep) values ('brief', 'select 1', '2 days'), ('long', 'select 1', null);
reset role;
select rowcron._maintain_partitions('2050-06-05');
insert into rowcron.ledger (job_id, job, owner, queue, kind, run_id, attempt, final, finished_at, outcome, output)
select j.id, j.name, j.owner, 'q', 'sql', n, 1, true, timestamptz '2050-06-03 00:00+00' + n * interval '1 minute', 'succeeded', 'out'
from rowcron.job as j cross join generate_series(0, 3) as n where j.name in ('brief', 'long');
create function public.tap_outputs() returns text[] language sql as $$
  select array_agg(l.job || ' ' || l.run_id order by l.job, l.run_id) from rowcron.ledger as l where l.job in ('brief', 'long') and l.output is not null
$$;
select rowcron._maintain('2050-06-05 00:02:00+00');
select is(public.tap_outputs(), '{"brief 2","brief 3","long 0","long 1","long 2","long 3"}', 'outputs past their job''s keep are emptied');
select rowcron._maintain('2050-06-05 00:04:00+00');
select is(public.tap_outputs(), '{"long 0","long 1","long 2","long 3"}', 'as they come of age');
update rowcron.job set keep = '1 hour' where name = 'long';
select rowcron._maintain('2050-06-05 00:06:00+00');
select rowcron._maintain('2050-06-06 00:00:00+00');
select is(public.tap_outputs(), null, 'and within a day when the keep was shortened');
select is((select count(*) from rowcron.ledger as l where l.job in ('brief', 'long')), 8::bigint, 'their entries stay');

select * from finish();
rollback;
