-- Who may name a connection.

begin;
select plan(16);
set local client_min_messages to error;

create role tap_ann;
create role tap_team;
create role tap_bob in role tap_team;
create role tap_operator;
create role tap_admin;
grant rowcron_user to tap_ann, tap_bob, tap_admin;
grant rowcron_operator to tap_operator;
grant rowcron_owner to tap_admin;

set local role tap_ann;
select throws_ok($$select rowcron.grant_connection('admin', 'tap_ann')$$, 'RCOWN', '"tap_ann" may not grant connections', 'an author grants itself nothing');
set local role tap_operator;
select throws_ok($$select rowcron.grant_connection('admin', 'tap_ann')$$, 'RCOWN', null, 'an operator grants no connections');
set local role tap_admin;
select throws_ok($$select rowcron.grant_connection('admin', 'tap_nobody')$$, 'RCCON', 'connection "admin" cannot be granted to "tap_nobody"', 'the role must exist');
select throws_ok($$select rowcron.grant_connection('admin', 'no such role')$$, 'RCCON', null, 'whatever its name is like');
select throws_ok($$select rowcron.grant_connection('', 'tap_ann')$$, 'RCCON', null, 'the connection has a name');
select lives_ok($$select rowcron.grant_connection('admin', 'tap_team')$$, 'a member of rowcron_owner grants a connection');
select lives_ok($$select rowcron.grant_connection('admin', 'tap_team')$$, 'also twice');

set local role tap_ann;
select is((select count(*) from rowcron.connection_grant), 0::bigint, 'others do not see the grant');
select throws_ok($$insert into rowcron.job (name, schedule, command, connection) values ('v', '@daily', 'vacuum', 'admin')$$, 'RCCON', null, 'others may not name it');
set local role tap_bob;
select is((select count(*) from rowcron.connection_grant), 1::bigint, 'a member of the grantee sees it');
select lives_ok($$insert into rowcron.job (name, schedule, command, connection) values ('v', '@daily', 'vacuum', 'admin')$$, 'and may name it');
select throws_ok($$insert into rowcron.job (name, schedule, command, connection) values ('w', '@daily', 'vacuum', 'other')$$, 'RCCON', null, 'but no other');
reset role;
grant rowcron_http to tap_bob;
set local role tap_bob;
select throws_ok($$insert into rowcron.job (name, schedule, kind, command, connection) values ('h', '@daily', 'http', 'http://x', 'admin')$$, 'RCCON',
  'job "h" of kind "http" names a connection', 'only SQL jobs name one');

-- revoked before the claim
select rowcron.run_now('v');
reset role;
set local role tap_admin;
select rowcron.revoke_connection('admin', 'tap_team');
reset role;
select is((select count(*) from rowcron._claim(gen_random_uuid(), 9, null, '{sql}', null, clock_timestamp())), 0::bigint, 'a revoked grant bites at the next claim');
select is((select l.outcome || ': ' || l.reason from rowcron.ledger as l where l.job = 'v'),
  'cancelled: connection admin is not granted to tap_bob', 'and the ledger says so');
select results_eq(
  $$select changed_by, action, new_values ->> 'connection', new_values ->> 'grantee', (new_values ->> 'granted')::boolean from rowcron.change where action = 'grant' order by id$$,
  $$values ('tap_admin', 'grant', 'admin', 'tap_team', true), ('tap_admin', 'grant', 'admin', 'tap_team', true), ('tap_admin', 'grant', 'admin', 'tap_team', false)$$,
  'grants are recorded with who made them');

select * from finish();
rollback;
