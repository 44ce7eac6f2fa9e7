-- Workers, lanes, executors, changes.

begin;
select plan(23);
set local client_min_messages to error;

create function public.tap_worker(columns text, vals text) returns text language sql as $$
  select format('insert into rowcron.worker (id, kinds, seen_at, expires_at, %s) values (gen_random_uuid(), ''{sql}'', now(), now(), %s)', columns, vals)
$$;
select lives_ok(public.tap_worker('concurrency, lease, poll', v.vals), 'a worker may be ' || v.vals) from (values ('0, ''1 s'', ''10 ms'''), ('100, ''1 day'', ''1 hour''')) as v (vals);
select throws_ok(public.tap_worker('concurrency, lease, poll', v.vals), '23514', format('new row for relation "worker" violates check constraint "%s"', v.name), v.name || ': ' || v.vals)
from (values ('-1, ''1 s'', ''1 s''', 'concurrency_is_not_negative'), ('1, ''0.9 s'', ''1 s''', 'lease_is_sensible'), ('1, ''25 hours'', ''1 s''', 'lease_is_sensible'), ('1, ''1 s'', ''9 ms''', 'poll_is_sensible'), ('1, ''1 s'', ''61 min''', 'poll_is_sensible')) as v (vals, name);
select results_eq(
  $$insert into rowcron.worker (id, kinds, concurrency, lease, poll, seen_at, expires_at) values ('00000000-0000-4000-8000-000000000001', '{sql}', 1, '1 s', '1 s', now(), now()) returning login = session_user, asleep, stopping$$,
  $$values (true, false, false)$$, 'a worker''s row says who logged in');
insert into rowcron.lane (queue, kind) values ('tap', 'sql');
select throws_ok($$insert into rowcron.lane (queue, kind) values ('tap', 'sql')$$, '23505', null, 'a lane stands once');
insert into rowcron.executor (owner, name) values ('rowcron_user', 'tap_1');
select throws_ok($$insert into rowcron.executor (owner, name) values ('rowcron_user', 'tap_2')$$, '23505', null, 'an owner has one executor');
select throws_ok($$insert into rowcron.executor (owner, name) values ('rowcron_viewer', 'tap_1')$$, '23505', null, 'an executor one owner');
set local session_replication_role to replica;
select lives_ok(format('insert into rowcron.change (action, changed_by) values (%L, ''x'')', a), 'a change may be ' || a) from unnest('{insert,update,delete,cancel,retry,run,hold,release,grant}'::text[]) as a;
select throws_ok($$insert into rowcron.change (action, changed_by) values ('dance', 'x')$$, '23514', null, 'and nothing else');
select throws_ok($$insert into rowcron.change (action) values ('run')$$, '23502', null, 'it names who');
select is((select count(*) from rowcron.change as c where c.xid <> pg_current_xact_id() and c.changed_by = 'x'), 0::bigint, 'and its transaction');

select * from finish();
rollback;
