-- Tokens of the HTTP API.

begin;
select plan(36);
set local client_min_messages to error;

create role tap_ann login;
create role tap_bob;
create role tap_viewer login;
create role tap_web;
grant rowcron_user to tap_ann, tap_bob;
grant rowcron_viewer to tap_viewer;
grant rowcron_web to tap_web;
create table public.tap_token (token text);
grant all on public.tap_token to public;
create function public.tap_seal() returns bytea language sql as $$
  select sha256(convert_to(t.token, 'UTF8')) from public.tap_token as t
$$;

set local role tap_ann;
insert into public.tap_token select rowcron.create_token('deploy script');
select matches((select token from public.tap_token), '^rowcron_[0-9a-f]{64}$', 'a token is 64 random digits');
select isnt(rowcron.create_token('another'), (select token from public.tap_token), 'each is another');
select is((select t.role::text || ', ' || t.label || ', ' || (t.expires_at - t.created_at between '89 days' and '91 days') from rowcron.token as t where t.label = 'deploy script'), 'tap_ann, deploy script, true', 'it is its maker''s, for 90 days unless told otherwise');
select throws_ok($$select t.seal from rowcron.token as t$$, '42501', null, 'its hash is not read');
select throws_ok(format('select rowcron.create_token(%s)', arguments), code, null, what)
from (values
  ('null', 'RCNAM', 'a label is given'), ('''''', 'RCNAM', 'is not empty'), ('repeat(''x'', 201)', 'RCNAM', 'nor long'),
  ('''x'', null', 'RCLIM', 'there is an expiry'), ('''x'', ''0''', 'RCLIM', 'it lies ahead'),
  ('''x'', ''-1 day''', 'RCLIM', 'never behind'), ('''x'', ''2 years''', 'RCLIM', 'at most a year')
) as c (arguments, code, what);
select throws_ok($$insert into rowcron.token (label, seal, expires_at) values ('x', sha256('x'), now() + '2 years')$$, '23514', null, 'nor by hand');
select throws_ok($$insert into rowcron.token (role, label, seal, expires_at) values ('tap_bob', 'x', sha256('x'), now() + '1 day')$$, '42501', null, 'nobody names another role');
select throws_ok($$update rowcron.token set expires_at = now() + '100 days'$$, '42501', null, 'nobody prolongs it');
select throws_ok($$select rowcron.token_role(public.tap_seal())$$, '42501', null, 'only the web process asks whose it is');

set local role tap_web;
select is(rowcron.token_role(public.tap_seal()), 'tap_ann', 'the web process learns as whom to act');
select is(rowcron.token_role(sha256('x')), null, 'of an unknown hash nothing');
select is(rowcron.token_role(null), null, 'of none nothing');
select throws_ok($$select * from rowcron.token$$, '42501', null, 'and reads no token');
set local role tap_ann;
select cmp_ok((select t.used_at from rowcron.token as t where t.label = 'deploy script'), '>', now() - interval '1 minute', 'its use is noted');
select is((select count(*) from rowcron.token where used_at is null), 1::bigint, 'only its');

-- a token stands for its role's logging in
reset role;
create function public.tap_role_after(change text) returns text language plpgsql as $$
begin
  execute 'alter role tap_ann ' || change;
  return rowcron.token_role(public.tap_seal());
end
$$;
select is(public.tap_role_after(change), role, what)
from (values
  ('nologin', null, 'a role without LOGIN is out with its tokens'), ('login', 'tap_ann', 'until it has it again'),
  ('valid until ''2020-01-01''', null, 'so is one whose time is over'), ('valid until ''infinity''', 'tap_ann', 'not one whose time is ahead')
) as c (change, role, what);

set local role tap_bob;
select throws_ok($$select rowcron.create_token('x')$$, 'RCOWN', '"tap_bob" may not log in, and so has no tokens', 'who may not log in makes none');
select is((select count(*) from rowcron.token), 0::bigint, 'others see nothing of it');
reset role;
create table public.tap_id as select id from rowcron.token where label = 'deploy script';
grant select on public.tap_id to public;
set local role tap_bob;
select throws_ok($$select rowcron.revoke_token(id) from public.tap_id$$, 'RCTOK', null, 'nor revoke it');
set local role tap_viewer;
select lives_ok($$select rowcron.create_token('metrics', '1 hour')$$, 'a viewer has tokens, too');
set local role tap_ann;
select is(rowcron.revoke_token(id), id, 'its role revokes it') from public.tap_id;
update rowcron.token set revoked_at = null where id = (select id from public.tap_id);
select isnt((select revoked_at from rowcron.token where id = (select id from public.tap_id)), null, 'for good');
select throws_ok($$select rowcron.revoke_token(-1)$$, 'RCTOK', 'there is no token -1', 'another number is none');
set local role tap_web;
select is(rowcron.token_role(public.tap_seal()), null, 'then it acts as nobody');
reset role;
update rowcron.token set created_at = now() - interval '2 hours', expires_at = now() - interval '1 hour' where label = 'metrics';
select is((select array_agg(rowcron.token_role(t.seal)) from rowcron.token as t where t.label = 'metrics'), array[null::text], 'nor when it has expired');

-- whether anything has changed
create table public.tap_pulse (n integer, jobs text, work text);
grant all on public.tap_pulse to public;
create function public.tap_beat(n integer) returns void language sql as $$insert into public.tap_pulse select n, p.jobs, p.work from rowcron.pulse() as p$$;
set local role tap_web;
select public.tap_beat(1); select public.tap_beat(2);
set local role tap_ann;
insert into rowcron.job (name, schedule, command) values ('a', '@hourly', 'x');
set local role tap_web; select public.tap_beat(3); set local role tap_ann;
select rowcron.enqueue('a');
set local role tap_web; select public.tap_beat(4); reset role;
insert into rowcron.worker (id, kinds, concurrency, lease, poll, seen_at, expires_at) values ('00000000-0000-4000-8000-000000000108', '{sql}', 1, '1 min', '1 s', now(), now() + '1 min');
select public.tap_beat(5);
select count(*) from rowcron.claim('00000000-0000-4000-8000-000000000108', 1, '{default}', '{sql}');
select public.tap_beat(6);
select count(*) from rowcron.cancel((select r.id from rowcron.run as r where r.state = 'running'));
select public.tap_beat(7);
insert into rowcron.ledger (job_id, job, owner, queue, kind, final, finished_at, outcome) values (1, 'a', 'tap_ann'::regrole, 'default', 'sql', true, clock_timestamp(), 'missed'), (1, 'a', 'tap_ann'::regrole, 'default', 'sql', true, clock_timestamp() - interval '1 s', 'missed');
select public.tap_beat(8);
select rowcron.hold('tap');
select public.tap_beat(9);
select is(
  (select array_agg(format('%s%s', case when b.jobs <> a.jobs then 'jobs ' end, case when b.work <> a.work then 'work' end) order by a.n) from public.tap_pulse as a join public.tap_pulse as b on b.n = a.n + 1),
  '{"","jobs ","work","work","work","jobs work","work","jobs "}',
  'the pulse is another after a job, a run, a worker, a claim, a cancel, an entry, a hold; else the same');
select is((select count(*) from public.tap_pulse where jobs ~ 'tap' or work !~ '^[0-9a-f]{32}$'), 0::bigint, 'and tells nothing');

reset role;
select * from finish();
rollback;
