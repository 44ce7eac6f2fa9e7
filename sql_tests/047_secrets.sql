-- Who may name a secret, and which are handed out.

begin;
select plan(27);
set local client_min_messages to error;

create role tap_ann;
create role tap_team;
create role tap_bob in role tap_team;
create role tap_operator;
create role tap_admin;
grant rowcron_user to tap_ann, tap_bob, tap_admin;
grant rowcron_http, rowcron_shell to tap_ann, tap_bob;
grant rowcron_operator to tap_operator;
grant rowcron_owner to tap_admin;

select is(rowcron._named_secrets('${secret:A} ${secret:b_1}${secret:A} ${secret:1} ${secret:-x} $secret:C ${secret:D'), '{A,b_1}', 'a name is a word in ${secret:...}');
select is(rowcron._named_secrets('nothing'), '{}', 'none is none');

set local role tap_ann;
select throws_ok($$select rowcron.grant_secret('TOKEN', 'tap_ann')$$, 'RCOWN', '"tap_ann" may not grant secrets', 'an author grants itself nothing');
select throws_ok($$insert into rowcron.secret_grant (secret, grantee, granted_by) values ('TOKEN', 'tap_ann', 'x')$$, '42501', null, 'nor by hand');
set local role tap_operator;
select throws_ok($$select rowcron.grant_secret('TOKEN', 'tap_ann')$$, 'RCOWN', null, 'an operator grants no secrets');
set local role tap_admin;
select throws_ok($$select rowcron.grant_secret('TOKEN', 'tap_nobody')$$, 'RCSEC', 'secret "TOKEN" cannot be granted to "tap_nobody"', 'the role must exist');
select throws_ok(format('select rowcron.grant_secret(%L, %L)', n, 'tap_ann'), 'RCSEC', null, format('%s is no name', n))
from unnest('{"",a-b,../x,1a}'::text[]) as n;
select lives_ok($$select rowcron.grant_secret('TOKEN', 'tap_team')$$, 'a member of rowcron_owner grants a secret');
select lives_ok($$select rowcron.grant_secret('TOKEN', 'tap_team')$$, 'also twice');

set local role tap_ann;
select throws_ok($$insert into rowcron.job (name, kind, command) values ('h', 'http', E'https://x.org\nAuthorization: ${secret:TOKEN}')$$, 'RCSEC', '"tap_ann" may not use the secret "TOKEN"', 'who was not granted it may not name it');
select throws_ok($$insert into rowcron.job (name, kind, command, args) values ('h', 'http', 'https://x.org', '{"a": "${secret:TOKEN}"}')$$, 'RCSEC', null, 'nor in args');
select throws_ok($$insert into rowcron.job (name, kind, command) values ('h', 'http', 'https://x.org/${secret:a-b}')$$, 'RCSEC', '"a-b" is not a secret''s name', 'a misspelt name is told');
select lives_ok($$insert into rowcron.job (name, kind, command) values ('s', 'shell', 'echo ${secret:-none}')$$, 'but in a shell that is the shell''s');
select lives_ok($$insert into rowcron.job (name, command) values ('q', 'select ''${secret:TOKEN}''')$$, 'a SQL job''s text is its own');
select lives_ok($$update rowcron.job set enabled = false where name = 's'$$, 'pausing asks for nothing');
select throws_ok($$update rowcron.job set command = 'echo ${secret:TOKEN}' where name = 's'$$, 'RCSEC', null, 'an edit is judged too');
select is((select count(*) from rowcron.secret_grant), 0::bigint, 'others do not see the grant');

set local role tap_bob;
select is((select count(*) from rowcron.secret_grant), 1::bigint, 'a member of the grantee sees it');
select lives_ok($$insert into rowcron.job (name, kind, command, args) values
  ('both', 'http', 'https://x.org/${secret:TOKEN}', '{"a": "${secret:TOKEN}"}'), ('none', 'http', 'https://x.org', '{"a": 1}'),
  ('mine', 'shell', 'echo ${secret:TOKEN} ${secret:-x}', null)$$, 'and names it');
select rowcron.run_now('both'), rowcron.run_now('none'), rowcron.run_now('mine'), rowcron.enqueue('both', '{"a": "${secret:TOKEN}"}', priority => 9);
reset role;

create temporary table claimed as
select c.* from rowcron._claim(gen_random_uuid(), 9, null, '{http,shell}', null, clock_timestamp()) as c;
select results_eq($$select c.job, c.secrets, c.args_secrets from claimed as c where c.args <> '{"a": "${secret:TOKEN}"}' or c.args_secrets is not null order by 1$$,
  $$values ('both', '{TOKEN}'::text[], '{TOKEN}'::text[]), ('mine', '{TOKEN}', null), ('none', null, null)$$, 'a claim names what was granted of what is named');
select results_eq($$select c.secrets, c.args_secrets from claimed as c where c.job = 'both' order by c.run_id$$,
  $$values ('{TOKEN}'::text[], '{TOKEN}'::text[]), ('{TOKEN}', null)$$, 'the args of a run are data and are not filled in');

set local role tap_bob;
select rowcron.run_now('both');
set local role tap_admin;
select rowcron.revoke_secret('TOKEN', 'tap_team');
reset role;
select results_eq($$select c.secrets, c.args_secrets from rowcron._claim(gen_random_uuid(), 9, null, '{http}', null, clock_timestamp()) as c$$,
  $$values ('{}'::text[], '{}'::text[])$$, 'what was taken back is not handed out');
set local role tap_bob;
select results_eq($$select w.holds, w.detail, w.hint from rowcron.why_not_running('both') as w where w.gate = 'secret'$$,
  $$values (true, 'secret TOKEN is not granted', 'As an administrator: select rowcron.grant_secret(''TOKEN'', ''tap_bob'');')$$, 'and one can ask why');
reset role;
select results_eq(
  $$select changed_by, new_values ->> 'secret', new_values ->> 'grantee', (new_values ->> 'granted')::boolean from rowcron.change where action = 'grant' order by id$$,
  $$values ('tap_admin', 'TOKEN', 'tap_team', true), ('tap_admin', 'TOKEN', 'tap_team', true), ('tap_admin', 'TOKEN', 'tap_team', false)$$,
  'grants are recorded with who made them');

select * from finish();
rollback;
