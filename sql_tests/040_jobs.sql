-- What a job may be: each rule with what it allows and what it refuses.

begin;
select plan(215);
set local timezone to 'UTC';
set local client_min_messages to error;

create role tap_ann;
create role tap_bob;
create role "tap Odd.""Name";
grant rowcron_user to tap_ann, tap_bob, "tap Odd.""Name";
grant rowcron_http to tap_ann;

-- Runs a statement: its SQLSTATE, message, detail and hint, or 00000.
create function public.tap_try(statement text, out state text, out message text, out detail text, out hint text)
language plpgsql as $$
begin
  execute statement;
  state := '00000';
exception when others then
  get stacked diagnostics state = returned_sqlstate, message = message_text,
    detail = pg_exception_detail, hint = pg_exception_hint;
end
$$;
create function public.tap_insert(columns text, vals text) returns text language sql as $$
  select format('insert into rowcron.job (name, schedule, command%s) values (%L, ''* * * * *'', ''select 1''%s)',
    coalesce(', ' || columns, ''), 'job ' || gen_random_uuid(), coalesce(', ' || vals, ''))
$$;

set local role tap_ann;

select lives_ok($$insert into rowcron.job (name, schedule, command) values ('three', '0 3 * * *', 'select 1')$$,
  'a job needs only name, schedule and command');
select results_eq(
  $$select owner::text, kind, timezone, queue, priority, enabled, timeout, max_attempts, retry_delay, retry_backoff,
      max_retry_delay, retry_jitter, on_missed, missed_grace, max_missed, on_overlap, on_lost, max_lost
    from rowcron.job where name = 'three'$$,
  $$values ('tap_ann', 'sql', 'UTC', 'default', 0, true, interval '1 hour', 1, interval '10 s', 2::float8,
      interval '1 h', 0.1::float8, 'latest', interval '1 min', 100, 'skip', 'retry', 3)$$,
  'the defaults are those that the design names');
select is(
  (select count(*) from rowcron.job as j where j.name = 'three'
   and coalesce(j.max_runs::text, j.max_running::text, j.on_gap, j.on_fold, j.jitter::text, j.connection, j.keep::text, j.description, j.args::text, j.starts_at::text, j.ends_at::text) is null),
  1::bigint, 'everything else is null');

-- each column: allowed and refused
create temporary table cases (columns text, vals text, state text, fact text) on commit drop;
insert into cases (columns, vals, state, fact) values
  ('timeout', '''1 millisecond''', '00000', 'a short timeout is allowed'),
  ('timeout', '''30 days''', '00000', 'a timeout of 30 days is allowed'),
  ('timeout', '''0''', 'RCLIM', 'no timeout of nothing'),
  ('timeout', '''-1 second''', 'RCLIM', 'no negative timeout'),
  ('timeout', '''31 days''', 'RCLIM', 'no timeout above 30 days'),
  ('timeout', 'null', 'RCLIM', 'a timeout must be given'),
  ('max_runs', '1', '00000', 'one run is allowed'),
  ('max_runs', '0', 'RCLIM', 'no job without any run'),
  ('max_attempts', '1000', '00000', '1000 attempts are allowed'),
  ('max_attempts', '1001', 'RCLIM', '1001 attempts are not'),
  ('max_attempts', '0', 'RCLIM', 'nor none'),
  ('max_attempts', 'null', 'RCLIM', 'nor null'),
  ('retry_delay', '''0''', '00000', 'a retry may follow at once'),
  ('retry_delay', '''-1 s''', 'RCLIM', 'but not before'),
  ('retry_backoff', '1', '00000', 'pauses may stay equal'),
  ('retry_backoff', '0.9', 'RCLIM', 'but not shrink'),
  ('retry_backoff', '''NaN''', 'RCLIM', 'nor be no number'),
  ('max_retry_delay', '''-1 s''', 'RCLIM', 'no negative cap'),
  ('max_retry_delay', '''31 days''', 'RCLIM', 'no cap above 30 days'),
  ('retry_jitter', '0', '00000', 'no jitter is allowed'),
  ('retry_jitter', '1', '00000', 'full jitter is allowed'),
  ('retry_jitter', '1.01', 'RCLIM', 'more than all is not'),
  ('retry_jitter', '''NaN''', 'RCLIM', 'nor is no number'),
  ('missed_grace', '''0''', '00000', 'no grace is allowed'),
  ('missed_grace', '''-1 s''', 'RCLIM', 'a negative grace is not'),
  ('max_missed', '10000', '00000', '10000 missed ones may run'),
  ('max_missed', '10001', 'RCLIM', 'not more'),
  ('max_missed', '0', 'RCLIM', 'nor none'),
  ('max_running', '1', '00000', 'one at a time'),
  ('max_running', '0', 'RCLIM', 'not none at a time'),
  ('max_lost', '1', '00000', 'one loss is allowed'),
  ('max_lost', '0', 'RCLIM', 'none is not a limit'),
  ('jitter', '''0''', '00000', 'jitter may be nothing'),
  ('jitter', '''-1 s''', 'RCLIM', 'not negative'),
  ('jitter', '''31 days''', 'RCLIM', 'nor above 30 days'),
  ('keep', '''1 day''', '00000', 'outputs may be kept for a day'),
  ('keep', '''0''', 'RCLIM', 'not for nothing'),
  ('priority', '-2147483648', '00000', 'any priority is allowed'),
  ('priority', 'null', 'RCLIM', 'but one must be given'),
  ('enabled', 'false', '00000', 'a job may be stored paused'),
  ('enabled', 'null', 'RCLIM', 'but is one or the other'),
  ('starts_at', '''2030-01-01''', '00000', 'a start is allowed'),
  ('starts_at', '''infinity''', 'RCLIM', 'never is no start'),
  ('starts_at', '''-infinity''', 'RCLIM', 'always is no start'),
  ('starts_at, ends_at', '''2030-01-01'', ''2030-01-02''', '00000', 'a window is allowed'),
  ('starts_at, ends_at', '''2030-01-01'', ''2030-01-01''', 'RCLIM', 'an empty window is not'),
  ('starts_at, ends_at', '''2030-01-02'', ''2030-01-01''', 'RCLIM', 'nor one that ends before it starts'),
  ('on_missed', '''latest''', '00000', 'on_missed latest'),
  ('on_missed', '''skip''', '00000', 'on_missed skip'),
  ('on_missed', '''all''', '00000', 'on_missed all'),
  ('on_missed', '''some''', 'RCLIM', 'on_missed is not some'),
  ('on_missed', 'null', 'RCLIM', 'on_missed is not null'),
  ('on_overlap', '''skip''', '00000', 'on_overlap skip'),
  ('on_overlap', '''wait''', '00000', 'on_overlap wait'),
  ('on_overlap', '''allow''', '00000', 'on_overlap allow'),
  ('on_overlap', '''queue''', 'RCLIM', 'on_overlap is not queue'),
  ('on_lost', '''retry''', '00000', 'on_lost retry'),
  ('on_lost', '''fail''', '00000', 'on_lost fail'),
  ('on_lost', '''ignore''', 'RCLIM', 'on_lost is not ignore'),
  ('on_gap', '''run''', '00000', 'on_gap run'),
  ('on_gap', '''skip''', '00000', 'on_gap skip'),
  ('on_gap', 'null', '00000', 'on_gap by the form'),
  ('on_gap', '''both''', 'RCLIM', 'on_gap is not both'),
  ('on_fold', '''once''', '00000', 'on_fold once'),
  ('on_fold', '''twice''', '00000', 'on_fold twice'),
  ('on_fold', '''thrice''', 'RCLIM', 'on_fold is not thrice'),
  ('timezone', '''Australia/Lord_Howe''', '00000', 'an IANA zone is allowed'),
  ('timezone', '''Mars/Olympus''', 'RCTZN', 'a zone must exist'),
  ('timezone', '''CET+3''', 'RCTZN', 'a POSIX rule is no zone'),
  ('timezone', 'null', 'RCTZN', 'a zone must be given'),
  ('queue', '''mail''', '00000', 'a queue is a word'),
  ('queue', '''Post & Büro 📮''', '00000', 'or a few, in any script'),
  ('queue', '''''', 'RCNAM', 'but not empty'),
  ('queue', 'null', 'RCNAM', 'nor null'),
  ('queue', 'repeat(''q'', 201)', 'RCNAM', 'nor longer than 200 bytes'),
  ('queue', 'E''a\tb''', 'RCNAM', 'nor with control characters'),
  ('kind', '''perl''', 'RCKND', 'a kind must be known'),
  ('kind', 'null', 'RCKND', 'a kind must be given'),
  ('kind', '''python''', 'RCOWN', 'a kind with a role takes its membership'),
  ('args', '''{"a": 1}''', '00000', 'args are an object'),
  ('args', '''[1, 2]''', '00000', 'or an array'),
  ('args', '''null''', '00000', 'or none, as JSON too'),
  ('args', '''5''', 'RCCMD', 'no number'),
  ('args', '''"text"''', 'RCCMD', 'no text'),
  ('args', '''true''', 'RCCMD', 'and not true'),
  ('args', 'to_jsonb(repeat(''x'', 1048577))', 'RCCMD', 'of at most 1 MiB'),
  ('connection', '''admin''', 'RCCON', 'a connection must be granted'),
  ('owner', '''tap_bob''', 'RCOWN', 'nobody inserts for somebody else'),
  ('owner', '''tap_ann''', '00000', 'naming oneself is allowed');
select is((public.tap_try(public.tap_insert(c.columns, c.vals))).state, c.state, c.columns || ': ' || c.fact) from cases as c;

-- names, schedules, commands
create temporary table whole (name text, schedule text, command text, kind text, state text, fact text) on commit drop;
insert into whole (name, schedule, command, kind, state, fact) values
  ('näme 📅 "quoted" it''s', '* * * * *', 'select 1', 'sql', '00000', 'a name may hold quotes, spaces and emoji'),
  (repeat('n', 200), '* * * * *', 'select 1', 'sql', '00000', 'a name of 200 bytes is allowed'),
  (repeat('n', 201), '* * * * *', 'select 1', 'sql', 'RCNAM', 'a name of 201 bytes is not'),
  (repeat('é', 101), '* * * * *', 'select 1', 'sql', 'RCNAM', 'it is bytes that are counted'),
  ('', '* * * * *', 'select 1', 'sql', 'RCNAM', 'a name is not empty'),
  (null, '* * * * *', 'select 1', 'sql', 'RCNAM', 'a name is not null'),
  ('a.b', '* * * * *', 'select 1', 'sql', 'RCNAM', 'a name has no dot'),
  (' a', '* * * * *', 'select 1', 'sql', 'RCNAM', 'a name does not begin with a space'),
  ('a ', '* * * * *', 'select 1', 'sql', 'RCNAM', 'nor end with one'),
  (E'a\nb', '* * * * *', 'select 1', 'sql', 'RCNAM', 'nor hold a line break'),
  ('no schedule', null, 'select 1', 'sql', '00000', 'without schedule a job runs on demand'),
  ('minute', '61 * * * *', 'select 1', 'sql', 'RCSCH', 'a bad schedule is refused'),
  ('empty', '', 'select 1', 'sql', 'RCSCH', 'an empty schedule is refused'),
  ('past', '@at 2020-01-01 00:00', 'select 1', 'sql', 'RCSCH', 'an instant that has passed is refused'),
  ('three', '* * * * *', 'select 1', 'sql', '23505', 'a name is unique for its owner'),
  ('c1', '* * * * *', null, 'sql', 'RCCMD', 'a command is not null'),
  ('c2', '* * * * *', E' \n\t', 'sql', 'RCCMD', 'nor blank'),
  ('c3', '* * * * *', 'select ''' || repeat('x', 1048576 - 9) || '''', 'sql', '00000', 'a command of 1 MiB is allowed'),
  ('c4', '* * * * *', 'select ''' || repeat('x', 1048576 - 8) || '''', 'sql', 'RCCMD', 'a byte more is not'),
  ('c5', '* * * * *', 'vacuum t', 'sql', 'RCCMD', 'VACUUM cannot run in a transaction'),
  ('c6', '* * * * *', E'-- tidy\n/* * ** */  VACUUM (analyze) t', 'sql', 'RCCMD', 'comments do not hide it'),
  ('c7', '* * * * *', 'create unique index concurrently i on t (x)', 'sql', 'RCCMD', 'nor an index built concurrently'),
  ('c8', '* * * * *', 'reindex (verbose) table concurrently t', 'sql', 'RCCMD', 'nor a reindex'),
  ('c9', '* * * * *', 'begin; select 1; commit', 'sql', 'RCCMD', 'nor a transaction of its own'),
  ('c10', '* * * * *', 'alter system set work_mem = 1', 'sql', 'RCCMD', 'nor ALTER SYSTEM'),
  ('c11', '* * * * *', 'create database d', 'sql', 'RCCMD', 'nor CREATE DATABASE'),
  ('c12', '* * * * *', 'select vacuum from t', 'sql', '00000', 'the word elsewhere is allowed'),
  ('c13', '* * * * *', 'create index i on t (x)', 'sql', '00000', 'a plain index is allowed'),
  ('c14', '* * * * *', 'analyze t', 'sql', '00000', 'ANALYZE is allowed'),
  ('c15', '* * * * *', 'vacuumed()', 'sql', '00000', 'a longer word is another word'),
  ('h1', '* * * * *', 'https://example.org/', 'http', '00000', 'a URL alone is a request'),
  ('h2', '* * * * *', E'POST http://127.0.0.1:8080/x?y=1\nX-A: b\r\nExpect-Status: 200-299, 404', 'http', '00000', 'with method and header lines'),
  ('h3', '* * * * *', 'ftp://example.org/', 'http', 'RCCMD', 'only http and https'),
  ('h4', '* * * * *', 'example.org', 'http', 'RCCMD', 'a URL names its scheme'),
  ('h5', '* * * * *', 'FETCH https://example.org/', 'http', 'RCCMD', 'the method must be known'),
  ('h6', '* * * * *', E'GET https://example.org/\nno colon', 'http', 'RCCMD', 'a header line has a colon'),
  ('h7', '* * * * *', E'GET https://example.org/\nExpect-Status: fine', 'http', 'RCCMD', 'expected statuses are numbers'),
  ('h8', '* * * * *', 'GET https:///x', 'http', 'RCCMD', 'a URL names a host'),
  ('s1', '* * * * *', 'ls', 'shell', 'RCOWN', 'shell takes membership of rowcron_shell');
select is(
  (public.tap_try(format('insert into rowcron.job (name, schedule, command, kind) values (%L, %L, %L, %L)', c.name, c.schedule, c.command, c.kind))).state,
  c.state, 'name, schedule, command: ' || c.fact)
from whole as c;
reset role;
grant rowcron_python, rowcron_shell to tap_ann;
set local role tap_ann;
insert into whole (name, schedule, command, kind, state, fact) values
  ('p1', '* * * * *', 'send_mail', 'python', '00000', 'a handler''s name'),
  ('p2', '* * * * *', 'app.mail:send-it', 'python', '00000', 'with dots, colons and hyphens'),
  ('p3', '* * * * *', 'send mail', 'python', 'RCCMD', 'without spaces'),
  ('p4', '* * * * *', '1st', 'python', 'RCCMD', 'beginning with a letter'),
  ('s2', '* * * * *', 'vacuum', 'shell', '00000', 'a shell line is anything');
select is(
  (public.tap_try(format('insert into rowcron.job (name, schedule, command, kind) values (%L, %L, %L, %L)', c.name, c.schedule, c.command, c.kind))).state,
  c.state, 'command: ' || c.fact)
from whole as c where c.name ~ '^p\d|^s2';

-- nothing half-stored
select is((select count(*) from rowcron.job as j where j.name in ('minute', 'past', 'c5', 'h5')), 0::bigint, 'a job that is refused is not stored');
select is((select count(*) from rowcron.change as c where c.job in ('minute', 'past', 'c5', 'h5')), 0::bigint, 'nor is it recorded');

-- words: one test a code
create temporary table words (statement text, state text, message text, hint text) on commit drop;
insert into words (statement, state, message, hint) values
  (public.tap_insert('timeout', '''-1 s'''), 'RCLIM', 'timeout "-00:00:01" is out of range', 'Leave out the column timeout for its default.'),
  (public.tap_insert('timeout', 'null'), 'RCLIM', 'timeout must be given', 'Leave out the column timeout for its default.'),
  (public.tap_insert('kind', '''perl'''), 'RCKND', 'kind "perl" is not known', 'Leave it out for sql. A further kind is added to the setting "kinds".'),
  (public.tap_insert('kind', 'null'), 'RCKND', 'kind must be given', 'Leave it out for sql. A further kind is added to the setting "kinds".'),
  (public.tap_insert('queue', ''''''), 'RCNAM', 'queue "" is not valid', 'For example ''default'' or ''mail''.'),
  (public.tap_insert('owner', '''tap_bob'''), 'RCOWN', null, 'Leave out the column owner, or first: set role tap_bob;'),
  (public.tap_insert('connection', '''admin'''), 'RCCON', '"tap_ann" may not use the connection "admin"', 'As an administrator: select rowcron.grant_connection(''admin'', ''tap_ann''); workers know it by ROWCRON_CONNECTION_ADMIN=URL in their environment.'),
  (public.tap_insert('args', '''5'''), 'RCCMD', null, 'Put it into one, for example ''{"n": 5}''.'),
  ('insert into rowcron.job (name, schedule, command) values (''a.b'', ''* * * * *'', ''select 1'')', 'RCNAM', 'name "a.b" is not valid', 'For example ''close-the-books''.'),
  ('insert into rowcron.job (name, schedule, command) values (''v'', ''* * * * *'', ''vacuum t'')', 'RCCMD', '"vacuum t" cannot run inside a job''s transaction',
    'Name a connection, for example connection => ''maintenance'', to run it outside of one. As an administrator: select rowcron.grant_connection(''maintenance'', ''tap_ann''); workers know it by ROWCRON_CONNECTION_MAINTENANCE=URL in their environment.');
select is((t.r).state, w.state, w.message || ': SQLSTATE') from words as w, lateral (select public.tap_try(w.statement) as r) as t;
select is((t.r).message, coalesce(w.message, (t.r).message), w.state || ': message') from words as w, lateral (select public.tap_try(w.statement) as r) as t;
select is((t.r).hint, w.hint, w.state || ': hint') from words as w, lateral (select public.tap_try(w.statement) as r) as t;
select is(
  (select count(*)
   from (
     select public.tap_try(public.tap_insert(c.columns, c.vals)) as r from cases as c where c.state <> '00000'
     union all
     select public.tap_try(format('insert into rowcron.job (name, schedule, command, kind) values (%L, %L, %L, %L)', c.name, c.schedule, c.command, c.kind))
     from whole as c where c.state ~ '^RC'
   ) as t
   where (t.r).state <> '00000' and (coalesce((t.r).message, '') = '' or coalesce((t.r).detail, '') = '' or coalesce((t.r).hint, '') = ''
     or (t.r).message || (t.r).hint ~ '""' and (t.r).message !~ '^(queue|name|schedule) ""' or (t.r).message ~ '[.]$')),
  0::bigint, 'every refusal says what, why and what to do, and prints no empty value');
select is(
  (select count(*) from cases as c, lateral (select public.tap_try(public.tap_insert(c.columns, c.vals)) as r) as t
   where c.state = 'RCLIM' and (t.r).message not like split_part(c.columns, ', ', regexp_count(c.columns, ',') + 1) || '%'),
  0::bigint, 'a value out of range is named with its column');

-- updates are judged too
insert into rowcron.job (name, schedule, command) values ('edit', '0 3 * * *', 'select 1');
create temporary table edits (assignment text, state text, fact text) on commit drop;
insert into edits (assignment, state, fact) values
  ('timeout = ''-1 s''', 'RCLIM', 'an update is judged by the same limits'),
  ('schedule = ''nonsense''', 'RCSCH', 'and schedules'),
  ('timezone = ''Mars/Olympus''', 'RCTZN', 'and zones'),
  ('command = ''''', 'RCCMD', 'and commands'),
  ('kind = ''perl''', 'RCKND', 'and kinds'),
  ('name = ''a.b''', 'RCNAM', 'and names'),
  ('owner = ''tap_bob''', 'RCOWN', 'an owner cannot be changed'),
  ('id = default', 'RCOWN', 'nor an id'),
  ('schedule = ''@at 2020-01-01 00:00''', 'RCSCH', 'an instant that has passed is refused'),
  ('description = ''x''', '00000', 'a description may be changed');
select is((public.tap_try(format('update rowcron.job set %s where name = ''edit''', e.assignment))).state, e.state, e.fact) from edits as e;
select is((select j.schedule from rowcron.job as j where j.name = 'edit'), '0 3 * * *', 'a refused update changes nothing');

update rowcron.job set created_at = '2000-01-01', updated_at = '2000-01-01' where name = 'edit';
select ok((select j.created_at > '2020-01-01' and j.updated_at >= j.created_at from rowcron.job as j where j.name = 'edit'),
  'created_at and updated_at are the database''s');
insert into rowcron.job (name, schedule, command, created_at) values ('born', '0 3 * * *', 'select 1', '2000-01-01');
select ok((select j.created_at > '2020-01-01' from rowcron.job as j where j.name = 'born'), 'also on insert');

-- what was taken away does not stand in the way of a pause
reset role;
insert into rowcron.connection_grant (connection, grantee, granted_by) values ('admin', 'tap_ann', 'postgres');
set local role tap_ann;
insert into rowcron.job (name, schedule, command, connection) values ('tidy', '0 3 * * *', 'vacuum', 'admin');
select pass('with a connection that is granted VACUUM is allowed');
reset role;
delete from rowcron.connection_grant;
revoke rowcron_shell from tap_ann;
set local session_replication_role to replica;
update rowcron.job set timezone = 'Atlantis/Capital' where name = 's2';
set local session_replication_role to origin;
set local role tap_ann;
select lives_ok($$select rowcron.pause('tidy')$$, 'a job can be paused whose connection was revoked');
select lives_ok($$select rowcron.pause('s2')$$, 'a job can be paused whose kind was revoked and whose zone is gone');
select throws_ok($$update rowcron.job set command = 'vacuum full' where name = 'tidy'$$, 'RCCON', null, 'but not changed');

-- quoted owners
set local role "tap Odd.""Name";
select lives_ok($$insert into rowcron.job (name, schedule, command) values ('odd', '* * * * *', 'select 1')$$, 'an owner''s name may hold anything');
select is((select j.owner::text from rowcron.job as j), '"tap Odd.""Name"', 'and is its own');
reset role;

-- superusers
create role tap_super superuser;
set local role tap_super;
select throws_ok(public.tap_insert(null, null), 'RCOWN', 'superuser "tap_super" cannot own jobs', 'a superuser owns no jobs where the schema''s owner is none');
reset role;

set local role tap_ann;
select throws_ok($$insert into rowcron.job (name, command, ends_at) values ('old', 'select 1', '4714-11-24 00:00:00+00 BC')$$, 'RCLIM', null, 'no job has ended before the year 1');
select throws_ok($$insert into rowcron.job (name, command, starts_at) values ('old', 'select 1', '0001-12-31 00:00:00+00 BC')$$, 'RCLIM', null, 'none begins then');
select lives_ok($$insert into rowcron.job (name, command, ends_at) values ('endless', 'select 1', 'infinity')$$, 'it may never end');

-- numbers
set local role tap_bob;
insert into rowcron.job (name, command) values ('gone', 'select 1');
select set_config('tap.gone', (select j.id from rowcron.job as j where j.name = 'gone')::text, true);
delete from rowcron.job where name = 'gone';
set local role tap_ann;
insert into rowcron.job (name, command) values ('latest', 'select 1');
select set_config('tap.latest', (select j.id from rowcron.job as j where j.name = 'latest')::text, true);
select throws_ok(format($$insert into rowcron.job (id, name, command) overriding system value values (%s, 'n', 'select 1')$$, w.wanted),
  'RCOWN', format('id %s of job "n" cannot be chosen', w.wanted), format('nobody takes %s', w.what))
from (values
  (current_setting('tap.latest')::bigint + 1, 'the next number'), (current_setting('tap.latest')::bigint + 1000, 'a later one'),
  (current_setting('tap.gone')::bigint, 'that of another''s job that is gone'), (-5, 'a negative one'), (9223372036854775807, 'the last')
) as w (wanted, what);
discard sequences;
select throws_ok($$insert into rowcron.job (id, name, command) overriding system value values (7, 'n', 'select 1')$$,
  'RCOWN', null, 'nor before the session has drawn any');
select matches((public.tap_try($$insert into rowcron.job (id, name, command) overriding system value values (7, 'n', 'select 1')$$)).hint,
  '^Leave out the column id', 'and is told what to write');
select throws_ok(format($$insert into rowcron.job (name, command) values ('latest', 'select 2')
  on conflict (owner, name) do update set id = default$$), 'RCOWN', null, 'no number is changed on conflict');
select lives_ok($$insert into rowcron.job (id, name, command) values (default, 'by default', 'select 1')$$, 'DEFAULT may be written');
select lives_ok($$insert into rowcron.job overriding user value select * from rowcron.job where name = 'by default'
  on conflict (owner, name) do nothing$$, 'and OVERRIDING USER VALUE');
select lives_ok($$insert into rowcron.job (name, command) select 'many ' || i, 'select 1' from generate_series(1, 3) as i order by i desc$$,
  'many at once are numbered');
select lives_ok($$insert into rowcron.job (id, name, command) values (default, 'two', 'select 1'), (default, 'of them', 'select 1')$$, 'also as values');
select lives_ok($$merge into rowcron.job as j using (values ('merged')) as v (name) on j.name = v.name
  when not matched then insert (name, command) values (v.name, 'select 1')$$, 'and by MERGE');
select is((select count(distinct j.id) from rowcron.job as j where j.name ~ '^(many .|two|of them|merged)$'), 6::bigint, 'each has its own');
reset role;
-- args that were stored before they were judged
set local role tap_ann;
insert into rowcron.job (name, command, args) values ('args', 'select 1', 'null');
select ok((select j.args is null from rowcron.job as j where j.name = 'args'), 'JSON''s null is stored as none');
reset role;
set local session_replication_role to replica;
update rowcron.job set args = '5' where name = 'args';
set local session_replication_role to origin;
set local role tap_ann;
select lives_ok($$update rowcron.job set args = args, command = 'select 2' where name = 'args'$$, 'what is stored is not judged anew');
select throws_ok($$update rowcron.job set args = '6' where name = 'args'$$, 'RCCMD', 'args of job "args" are a JSON number', 'what is changed is');
select lives_ok($$update rowcron.job set args = 'null' where name = 'args'$$, 'JSON''s null empties them');
select ok((select j.args is null from rowcron.job as j where j.name = 'args'), 'as null does');
select is((select c.new_values from rowcron.change as c where c.job = 'args' order by c.id desc limit 1), '{"args": null}', 'and is recorded');
select lives_ok($$update rowcron.job set args = 'null' where name = 'args'$$, 'once more');
select is((select count(*) from rowcron.change as c where c.job = 'args'), 3::bigint, 'changes nothing');
reset role;

select * from finish();
rollback;
