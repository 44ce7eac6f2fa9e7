-- Who may what, compared with the catalog.

begin;
select plan(68);
set local timezone to 'UTC';
set local client_min_messages to error;

create role tap_ann;
create role tap_bob;
create role tap_operator;
create role tap_viewer;
create role tap_worker;
create role tap_handler;
create role tap_stranger;
create role tap_web;
grant rowcron_user to tap_ann, tap_bob;
grant rowcron_operator to tap_operator;
grant rowcron_viewer to tap_viewer;
grant rowcron_worker to tap_worker;
grant rowcron_python to tap_handler;
grant rowcron_web to tap_web;

-- what of the catalog is ours
create view public.tap_functions as
select p.oid, p.oid::regprocedure::text as signature, p.proname::text as name, p.proowner::regrole::text as owner, p.prosecdef, p.proconfig, p.proacl, p.prosqlbody is not null as parsed
from pg_proc as p where p.pronamespace in ('rowcron'::regnamespace, 'rowcron_executor'::regnamespace);
create view public.tap_relations as
select c.oid, c.oid::regclass::text as name, c.relkind, c.relowner::regrole::text as owner, c.reloptions, c.relrowsecurity, c.relispartition
from pg_class as c where c.relnamespace = 'rowcron'::regnamespace and c.relkind in ('r', 'p', 'v', 'S');
grant select on public.tap_functions, public.tap_relations to public;

-- functions
select is((select array_agg(f.signature) from public.tap_functions as f where has_function_privilege('tap_stranger', f.oid, 'execute')), null, 'a stranger may execute nothing');
select is((select array_agg(f.signature) from public.tap_functions as f, aclexplode(f.proacl) as a where a.grantee = 0), null, 'nothing is granted to public');
select is((select array_agg(f.signature) from public.tap_functions as f where f.proacl is null), null, 'no function has the default rights');
select is((select array_agg(f.signature order by f.signature) from public.tap_functions as f where has_function_privilege('tap_worker', f.oid, 'execute')),
  '{"rowcron.claim(uuid,integer,text[],text[],text[],interval,boolean,boolean)","rowcron.claim_ready(uuid,integer,text[],text[],text[],interval)","rowcron.execute(bigint,uuid)","rowcron.finish(bigint,uuid,text,text,text,jsonb,text,interval)","rowcron.finish(uuid,bigint[],uuid[],text[],text[],text[],text[],jsonb[],interval[],boolean)","rowcron.heartbeat(uuid,text[],text[],text[],integer,interval,interval,text,text,integer,boolean,boolean,bigint,boolean,bigint[],text[])","rowcron.pin_plans()"}',
  'a worker may execute the four verbs and nothing else');
select is((select array_agg(f.signature order by f.signature) from public.tap_functions as f where has_function_privilege('tap_handler', f.oid, 'execute')),
  '{"rowcron.finish(bigint,uuid,text,text,text,jsonb,text,interval)"}', 'a handler''s login may end the run whose token it was handed');
select is((select array_agg(f.signature order by f.signature) from public.tap_functions as f where has_function_privilege('tap_web', f.oid, 'execute')),
  '{rowcron.pulse(),rowcron.token_role(bytea)}', 'the web process may ask whose token a hash belongs to and whether anything has changed, and nothing else');
select is((select array_agg(r.name) from public.tap_relations as r where r.relkind <> 'S' and has_any_column_privilege('tap_web', r.oid, 'select,insert,update,references')), null, 'and reads no table');
select is((select array_agg(who) from unnest('{tap_ann,tap_operator,tap_viewer}'::text[]) as who where has_column_privilege(who, 'rowcron.token', 'seal', 'select')), null, 'nobody reads a token''s hash');
select is((select array_agg(distinct f.name order by f.name) from public.tap_functions as f where has_function_privilege('rowcron_gate', f.oid, 'execute') and f.owner <> 'rowcron_gate'),
  '{_begin_execute,_end_execute,_is_executor}', 'the gate may begin and end an execution, and ask whose a function is');
select is((select array_agg(distinct f.name order by f.name) from public.tap_functions as f where has_function_privilege('tap_ann', f.oid, 'execute') and f.name ~ '^_'),
  '{_apply_settings,_check_asked,_check_command,_check_parts,_check_secrets,_check_timezone,_claimed_command,_count_before,_dst_effects,_enqueue,_explain_job,_handler,_has_controls,_has_executor,_has_few_jobs,_has_few_runs,_has_room,_held,_is_ahead,_is_executor,_is_overdue,_is_plain,_job_named,_lacks_owner,_latest_edition,_leaves_room,_ledger_overflows,_local_text,_may_become,_may_own_kind,_may_use_connection,_may_use_secret,_me,_named_secrets,_names_borne,_outlook,_outlook_parts,_paused_for_want,_read_setting,_role_named,_sees_all,_served,_set_enabled,_succeed,_tick,_transitions,_unfold,_ungranted_secret}',
  'of what is private an author may execute only what public functions, triggers and its executor call');
select is((select array_agg(distinct f.name order by f.name) from public.tap_functions as f where has_function_privilege('tap_ann', f.oid, 'execute') and f.name !~ '^_'),
  '{cancel,create_token,dst_audit,ended_page,enqueue,enqueue_many,enrol,explain,finish,grant_connection,grant_secret,hand_over,hold,job_as_of,next_page,next_run,next_runs,occurrences,pause,planned,planned_load,pulse,release,resume,retry,revoke_connection,revoke_secret,revoke_token,run_now,schedule,unschedule,upcoming_page,version,waiting_page,why_not_running}',
  'and of what is public all but the worker''s verbs');
select is((select array_agg(distinct f.name order by f.name) from public.tap_functions as f where has_function_privilege('tap_viewer', f.oid, 'execute')),
  '{_check_parts,_count_before,_dst_effects,_explain_job,_handler,_has_few_jobs,_has_few_runs,_has_room,_held,_is_ahead,_is_executor,_is_overdue,_is_plain,_job_named,_lacks_owner,_leaves_room,_ledger_overflows,_local_text,_may_own_kind,_may_use_connection,_may_use_secret,_me,_named_secrets,_names_borne,_outlook,_outlook_parts,_read_setting,_role_named,_sees_all,_served,_transitions,_unfold,_ungranted_secret,create_token,dst_audit,ended_page,explain,job_as_of,next_page,next_run,next_runs,occurrences,planned,planned_load,pulse,revoke_token,upcoming_page,version,waiting_page,why_not_running}', 'a viewer only asks, and has tokens');
select is((select array_agg(f.signature) from public.tap_functions as f where f.name ~ '^_' and f.signature ~ 'timestamp'
    and f.name <> '_local_text' and (has_function_privilege('tap_ann', f.oid, 'execute') or has_function_privilege('tap_operator', f.oid, 'execute'))
    and f.name not in ('_enqueue', '_check_asked', 'job_as_of', '_transitions', '_unfold', '_outlook', '_outlook_parts', '_check_parts', '_dst_effects', '_leaves_room')),
  null, 'injectable time is granted to nobody');
-- what was parsed when it was created looks up no name when it is called
select is((select array_agg(f.signature) from public.tap_functions as f
  where not f.parsed and not exists (select from unnest(f.proconfig) as c where c ~ '^search_path=("\$user", public, pg_temp|pg_catalog, pg_temp)$')), null, 'every function pins a search_path that ends in pg_temp');
select is((select array_agg(f.signature) from public.tap_functions as f
  where not f.parsed and f.signature not like 'rowcron_executor.%' and not 'search_path=pg_catalog, pg_temp' = any (f.proconfig)), null, 'every function of ours pg_catalog alone');
select is((select array_agg(distinct f.owner order by f.owner) from public.tap_functions as f where f.signature not like 'rowcron_executor.%'), '{rowcron_gate,rowcron_owner}', 'all are the owner''s and the gate''s');
select is((select array_agg(f.name) from public.tap_functions as f where f.owner = 'rowcron_gate'), '{execute}', 'the gate owns only execute');
select is((select array_agg(f.signature) from public.tap_functions as f where obj_description(f.oid, 'pg_proc') is null and f.signature not like 'rowcron_executor.%'), null, 'every function has a comment');

-- tables
select is((select array_agg(r.name) from public.tap_relations as r where has_table_privilege('tap_worker', r.oid, 'select,insert,update,delete,truncate,references,trigger') and r.relkind <> 'S'), null, 'a worker has no right on any table');
select is((select array_agg(r.name) from public.tap_relations as r where r.relkind <> 'S' and has_any_column_privilege('tap_worker', r.oid, 'select,insert,update,references')), null, 'nor on any column');
select is((select array_agg(r.name) from public.tap_relations as r where r.relkind = 'S' and (has_sequence_privilege('tap_worker', r.oid, 'usage,select,update') or has_sequence_privilege('tap_ann', r.oid, 'usage,select,update'))), null, 'nobody but the owner has a sequence');
select is((select array_agg(r.name) from public.tap_relations as r cross join unnest('{tap_stranger,tap_handler,rowcron_gate}'::text[]) as who
  where r.relkind <> 'S' and (has_table_privilege(who, r.oid, 'select,insert,update,delete,truncate,references,trigger') or has_any_column_privilege(who, r.oid, 'select,insert,update,references'))), null,
  'nor have a stranger, a handler''s login and the gate');
select is((select array_agg(r.name order by r.name) from public.tap_relations as r where r.relkind <> 'S' and has_table_privilege('tap_ann', r.oid, 'insert,update,delete,truncate,references,trigger')), '{rowcron.job}', 'an author writes the table job');
select is((select array_agg(distinct r.name || '.' || a.attname order by r.name || '.' || a.attname) from public.tap_relations as r join pg_attribute as a on a.attrelid = r.oid and a.attnum > 0
  where r.name <> 'rowcron.job' and r.relkind <> 'S' and has_column_privilege('tap_ann', r.oid, a.attnum, 'insert,update')),
  '{rowcron.change.action,rowcron.change.job,rowcron.change.new_values,rowcron.change.owner,rowcron.change.run_id,rowcron.run.args,rowcron.run.due_at,rowcron.run.handler,rowcron.run.job,rowcron.run.job_id,rowcron.run.key,rowcron.run.key_expires_at,rowcron.run.kind,rowcron.run.owner,rowcron.run.priority,rowcron.run.queue,rowcron.run.state,rowcron.run.through_pause,rowcron.run.waits_for,rowcron.token.expires_at,rowcron.token.label,rowcron.token.revoked_at,rowcron.token.seal}',
  'else only the columns that ask for something');
select is((select array_agg(r.name) from public.tap_relations as r where r.relkind <> 'S' and has_table_privilege('tap_viewer', r.oid, 'insert,update,delete,truncate')), null, 'a viewer writes nothing');
select is((select array_agg(r.name) from public.tap_relations as r where r.relispartition and (has_table_privilege('tap_ann', r.oid, 'select') or has_table_privilege('tap_viewer', r.oid, 'select') or has_table_privilege('tap_operator', r.oid, 'select'))), null,
  'partitions of the ledger are not read around row security');
select is((select array_agg(r.name order by r.name) from public.tap_relations as r where r.relkind in ('r', 'p') and not r.relispartition and not r.relrowsecurity and has_table_privilege('tap_ann', r.oid, 'select')),
  '{rowcron.setting,rowcron.worker}', 'what an author may read without row security belongs to nobody');
select is((select array_agg(r.name) from public.tap_relations as r where r.relkind = 'v' and not 'security_invoker=true' = any (coalesce(r.reloptions, '{}'))), null, 'every view asks with the rights of who asks');
select is((select array_agg(r.name) from public.tap_relations as r where r.owner <> 'rowcron_owner'), null, 'all belongs to rowcron_owner');
select is((select array_agg(r.name) from public.tap_relations as r where r.relkind <> 'S' and obj_description(r.oid, 'pg_class') is null), null, 'every table and view has a comment');
select is((select array_agg(r.name || '.' || a.attname) from public.tap_relations as r join pg_attribute as a on a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped
  where r.relkind in ('r', 'p') and not r.relispartition and col_description(r.oid, a.attnum) is null), null, 'every column of a table has a comment');
select is((select array_agg(t.typname::text) from pg_type as t where t.typnamespace = 'rowcron'::regnamespace and t.typtype in ('c', 'd', 'e') and (t.typrelid = 0 or (select c.relkind from pg_class as c where c.oid = t.typrelid) = 'c')
  and obj_description(t.oid, 'pg_type') is null), null, 'every type has a comment');
select is((select array_agg(n.nspname::text) from pg_namespace as n where n.nspname ~ '^rowcron' and obj_description(n.oid, 'pg_namespace') is null), null, 'every schema has a comment');

-- schemas and roles
select is((select array_agg(who) from unnest('{tap_ann,tap_operator,tap_viewer,tap_worker,tap_handler,tap_stranger}'::text[]) as who where has_schema_privilege(who, 'rowcron', 'create')), null, 'nobody creates in the schema');
select is((select array_agg(who) from unnest('{tap_ann,tap_operator,tap_viewer,tap_worker,tap_handler,tap_stranger}'::text[]) as who where has_schema_privilege(who, 'rowcron_executor', 'usage,create')), null, 'nobody reaches the executors');
select is(has_schema_privilege('tap_stranger', 'rowcron', 'usage'), false, 'a stranger does not use the schema');
select is(has_schema_privilege('rowcron_gate', 'rowcron', 'create'), false, 'the gate creates nothing');
select is((select array_agg(r.rolname::text) from pg_roles as r where r.rolname ~ '^rowcron_' and (r.rolsuper or r.rolcreaterole or r.rolcreatedb or r.rolbypassrls or r.rolcanlogin or r.rolreplication)), null, 'no role of rowcron may do anything else, nor log in');

-- two owners
set local role tap_ann;
insert into rowcron.job (name, queue, schedule, command, args) values ('ann secret', 'q', '* * * * *', 'select ''ann secret''', '{"ann": "secret"}');
select rowcron.enqueue('ann secret', key => 'ann secret key');
select rowcron.run_now('ann secret', '{"ann": "secret"}');
reset role;
insert into rowcron.ledger (job_id, job, owner, queue, kind, final, scheduled_for, finished_at, outcome, reason)
select j.id, j.name, j.owner, j.queue, j.kind, true, now(), clock_timestamp(), 'missed', 'ann secret' from rowcron.job as j where j.name = 'ann secret';
insert into rowcron.connection_grant (connection, grantee, granted_by) values ('ann secret', 'tap_ann', 'x');
insert into rowcron.secret_grant (secret, grantee, granted_by) values ('ann secret', 'tap_ann', 'x');
set local role tap_bob;
insert into rowcron.job (name, queue, schedule, command) values ('bob', 'q', '* * * * *', 'select 1');
select rowcron.enqueue('bob');
create function pg_temp.readable() returns table (name text, seen bigint, leaked bigint) language plpgsql as $$
declare
  relation text;
begin
  for relation in select r.name from public.tap_relations as r where r.relkind <> 'S' and has_table_privilege(r.oid, 'select') loop
    name := relation;
    execute format('select count(*), count(*) filter (where x::text ~* ''(ann )?secret|tap_ann'') from %s as x', relation) into seen, leaked;
    return next;
  end loop;
end
$$;
select is((select array_agg(r.name) from pg_temp.readable() as r where r.leaked > 0), null, 'no table and no view tells an author of another''s job');
select is((select array_agg(r.name order by r.name) from pg_temp.readable() as r where r.seen > 0 and r.name not in ('rowcron.worker', 'rowcron.workers')),
  '{rowcron.active,rowcron.agenda,rowcron.change,rowcron.executor,rowcron.job,rowcron.job_health,rowcron.jobs,rowcron.lane,rowcron.queue_health,rowcron.run,rowcron.setting,rowcron.upcoming}', 'of its own it sees all');
select results_eq($$select ready_up_to_1000 from rowcron.queue_health where queue = 'q'$$, $$values (1::bigint)$$, 'counts count what is its own');
select is((select count(*) from rowcron.job), 1::bigint, 'nor does it write it');
select results_eq($$with u as (update rowcron.job set enabled = false where name = 'ann secret' returning 1), d as (delete from rowcron.job where name = 'ann secret' returning 1) select (select count(*) from u), (select count(*) from d)$$,
  $$values (0::bigint, 0::bigint)$$, 'an update or a delete by hand reaches nothing');
select throws_ok($$select * from rowcron.ledger_default$$, '42501', null, 'the default partition is closed');
set local role tap_ann;
select cmp_ok((select r.leaked from pg_temp.readable() as r where r.name = n), '>', 0::bigint, n || ': the owner sees it')
from unnest('{rowcron.job,rowcron.jobs,rowcron.run,rowcron.ledger,rowcron.history,rowcron.change,rowcron.key,rowcron.active,rowcron.upcoming,rowcron.agenda,rowcron.connection_grant,rowcron.secret_grant,rowcron.executor}'::text[]) as n;
set local role tap_viewer;
select is((select count(distinct j.owner) from rowcron.job as j where j.owner::text ~ 'tap_(ann|bob)'), 2::bigint, 'a viewer reads everyone''s');
select throws_ok($$select rowcron.enqueue('bob', owner => 'tap_bob')$$, '42501', null, 'but enqueues nothing');
select throws_ok($$select rowcron.hold('x')$$, '42501', null, 'and holds nothing');
select lives_ok($$select * from rowcron.why_not_running('bob', 'tap_bob')$$, 'and asks why');
set local role tap_operator;
select is((select count(distinct j.owner) from rowcron.job as j where j.owner::text ~ 'tap_(ann|bob)'), 2::bigint, 'an operator reads everyone''s');
set local role tap_stranger;
select throws_ok($$select * from rowcron.job$$, '42501', null, 'a stranger reads nothing');
select throws_ok($$select rowcron.version()$$, '42501', null, 'and calls nothing');
set local role tap_worker;
select throws_ok($$select * from rowcron.job$$, '42501', null, 'a worker reads no job');
select throws_ok($$select * from rowcron.ledger$$, '42501', null, 'nor the ledger');
select throws_ok($$select rowcron.enqueue('bob', owner => 'tap_bob')$$, '42501', null, 'nor enqueues');
select throws_ok($$select * from rowcron._claim(gen_random_uuid(), 1, null, '{sql}', null, now())$$, '42501', null, 'nor injects time');
reset role;

select * from finish();
rollback;
