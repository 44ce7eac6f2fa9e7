-- Roles, schemas, settings.

begin;
select plan(24);
set local client_min_messages to error;

select is(
  (select array_agg(r.rolname::text order by r.rolname) from pg_roles as r where r.rolname ~ '^rowcron_'),
  '{rowcron_execute,rowcron_gate,rowcron_http,rowcron_operator,rowcron_owner,rowcron_python,rowcron_shell,rowcron_user,rowcron_viewer,rowcron_web,rowcron_worker}', 'the roles stand');
select is((select array_agg(n.nspname || ' ' || n.nspowner::regrole order by n.nspname) from pg_namespace as n where n.nspname ~ '^rowcron'),
  '{"rowcron rowcron_owner","rowcron_executor rowcron_owner"}', 'two schemas, which rowcron_owner owns');
select is((select array_agg(s.name order by s.name) from rowcron.setting as s
  where s.name <> 'schema_hash'),  -- which only `rowcron install` writes
  '{agenda_renewed,change_retention,executor,hold,identity,installation,kinds,maintained_at,notify,oldest_worker,outputs_cleared_at,retention,schema_version}', 'the settings are known');
select is((select array_agg(s.name) from rowcron.setting as s where s.description !~ '\.$'), null, 'each says what it decides');
select is(rowcron._read_setting('retention'), '"30 days"', 'a setting is read by name');
select is(rowcron._read_setting('no such'), null, 'one that is not there is null');
select matches(rowcron.version(), '^\d+\.\d+\.\d+$', 'the version has three numbers');
select is(rowcron.version(), rowcron._read_setting('schema_version') #>> '{}', 'it is the setting schema_version');
select lives_ok($$select (rowcron._read_setting('installation') #>> '{}')::uuid$$, 'an installation has an identity');
select is(rowcron._me()::text, quote_ident(current_user), '_me is who asks');
create role "tap Odd";
grant rowcron_user to "tap Odd";
set local role "tap Odd";
select is(rowcron._me()::text, '"tap Odd"', 'whatever its name');
select throws_ok($$update rowcron.setting set value = 'null'$$, '42501', null, 'a user changes no setting');
select results_eq($$select rowcron.version()$$, $$select value #>> '{}' from rowcron.setting where name = 'schema_version'$$, 'but reads them');
reset role;
set local role rowcron_owner;
create function rowcron.tap_new() returns integer language sql as 'select 1';
reset role;
select is(has_function_privilege('tap Odd', 'rowcron.tap_new()', 'execute'), false, 'a new function is executable by nobody else');

-- settings that mean something
select throws_ok($$update rowcron.setting set value = '90' where name = 'retention'$$, 'RCLIM', 'setting "retention" cannot be 90', 'a number is no interval');
select throws_ok($$update rowcron.setting set value = '"90"' where name = 'retention'$$, 'RCLIM', 'setting "retention" cannot be "90"', 'nor 90 seconds a time for which to keep a ledger');
select throws_ok($$update rowcron.setting set value = '"soon"' where name = 'change_retention'$$, 'RCLIM', 'setting "change_retention" cannot be "soon"', 'nor words');
select throws_ok($$update rowcron.setting set value = '"2000 years"' where name = 'retention'$$, 'RCLIM', null, 'nor ages');
select lives_ok($$update rowcron.setting set value = '"90 days"' where name = 'retention'$$, 'an interval may be');
select lives_ok($$update rowcron.setting set value = 'null' where name in ('retention', 'change_retention')$$, 'and null is for good');
select lives_ok($$select rowcron._maintain(clock_timestamp() + interval '1 hour')$$, 'nothing is thrown away then');
select throws_ok($$update rowcron.setting set value = '"yes"' where name = 'notify'$$, 'RCLIM', null, 'what is true or false is true or false');
select throws_ok($$update rowcron.setting set value = '"sql"' where name = 'kinds'$$, 'RCLIM', null, 'kinds are an array');
select lives_ok($$update rowcron.setting set value = value || '["wasm"]' where name = 'kinds'$$, 'to which one more may be added');

select * from finish();
rollback;
