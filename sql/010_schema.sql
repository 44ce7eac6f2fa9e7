-- rowcron: insert a row, get a job.
--
-- This folder is a short book. Each chapter is plain SQL, rests on the chapters before it, and can
-- be applied again. Together they are the scheduler: a worker is only a pair of hands that calls
-- four functions (claim, heartbeat, execute, finish); a person in psql can do the same without any
-- worker.
--
--   010 schema   roles, schemas, settings      055 limits    what is parked (056); 058 bounds
--   012 identity which database this is        060 claim     the one SKIP LOCKED query (059 pick)
--   015 zones    time zones, checked           061 ahead     claimed before the instant; 062 woken
--   020 parse    schedule text to bit masks    065 worker    heartbeat: registration; 063 sleep
--   021 next     the calendar (023-028 too)    068 outcome   retry, backoff, the end
--   022 explain  in English (029)              070 finish    what a holder reports
--   030 tables   job, agenda; 031 run, ledger  073 command   what an executor is given
--   032 workers  036 lengths, 037, 039 lanes   074 executor  one function an owner
--   038 numbers  only the database numbers     075 execute   a SQL job under its owner
--   040 jobs     a row judged (046 commands)   080 recovery  lost claims, 079 sessions
--   041 connections  granted by name           085 retention what would grow (083), 084 strays
--   042 agenda   the agenda follows the job    090 wake      who is told, when; 099 health
--   043 authors  schedule, pause; 044 enqueue  100 views     what a person asks: 101 occurrences,
--   045 asks     cancel, retry, hold, grants       102 upcoming, 103 dst_audit, 105 why
--   047 secrets  granted by name               104 parts     counted; 106 now, 107 planned
--   048 plan     due occurrences; 050, 051     108 web       tokens of the HTTP API
--       fire; 052 boot                         110 access    who may what
--   049 owners   handed over, gone, as of then
--
-- How a run lives:
--
--               schedule falls due / enqueue / run_now
--                     |                    |
--      ledger <- skipped, missed           v
--                     |                 waiting   (for its time, a limit, an earlier run, a resume)
--                     |                    | promoted
--                     +-----> ready <------+<---- failed attempt, attempts left
--                               |          ^----- claim lost, losses left, on_lost = retry
--                               | claim: FOR UPDATE SKIP LOCKED
--                               v
--                            running --> succeeded | failed | cancelled | lost --> ledger (final)
--
-- This chapter makes the roles (cluster-wide, none can log in), the two schemas and the settings.
-- It is applied by any role that may create roles and schemas; it need not be a superuser. Roles
-- made for another database of the cluster are taken as they are. Where nobody creates roles,
-- `rowcron install --single-role` applies the same chapters with one name in the place of all of
-- these: hence no role's name stands here inside a longer literal that is executed.

do $$
declare
  wanted text;
  roles text[] := array[
    'rowcron_owner', 'rowcron_gate', 'rowcron_user', 'rowcron_operator', 'rowcron_viewer',
    'rowcron_worker', 'rowcron_execute', 'rowcron_shell', 'rowcron_http', 'rowcron_python',
    'rowcron_web'
  ];
begin
  if current_setting('server_version_num')::integer < 150000 then
    raise exception using
      errcode = 'RCVER',
      message = format('PostgreSQL %s is too old for rowcron', current_setting('server_version')),
      hint = 'Use PostgreSQL 15 or newer.';
  end if;
  -- what an administrator has to run where the installer may not
  foreach wanted in array roles loop
    begin
      if not exists (select from pg_catalog.pg_roles as r where r.rolname = wanted) then
        execute format('create role %I nologin', wanted);
      end if;
    exception
      when duplicate_object or unique_violation then
        null;  -- another database's installer was faster
      when insufficient_privilege then
        raise exception using
          errcode = 'RCOWN',
          message = format('role "%s" may not create role "%s"', current_user, wanted),
          detail = 'Nothing was installed.',
          hint = format('As an administrator: %s grant %s to %I with admin option;', (
            select string_agg(format('create role %I nologin;', w), ' ' order by n)
            from unnest(roles) with ordinality as u (w, n)
            where not exists (select from pg_catalog.pg_roles as r where r.rolname = w)
          ), array_to_string(roles, ', '), current_user)
            || ' Meanwhile: rowcron install --single-role';
    end;
  end loop;
  -- The installer acts as rowcron_owner and rowcron_gate below. Since version 16 being the creator
  -- of a role is not enough for that; column set_option does not exist before.
  foreach wanted in array roles[:2] loop
    if wanted <> current_user
      and not (select r.rolsuper from pg_catalog.pg_roles as r where r.rolname = current_user)
      and not exists (
        select from pg_catalog.pg_auth_members as m
        where m.roleid = quote_ident(wanted)::regrole
          and m.member = quote_ident(current_user)::regrole
          and coalesce((to_jsonb(m) ->> 'set_option')::boolean, true)
      )
    then
      begin
        execute format('grant %I to %I', wanted, current_user);
      exception when insufficient_privilege then
        raise exception using
          errcode = 'RCOWN',
          message = format('role "%s" may not act as "%s"', current_user, wanted),
          detail = 'Nothing was installed.',
          hint = format('As an administrator or the first installer: grant %s to %I with admin option;',
            array_to_string(roles, ', '), current_user) || ' Meanwhile: rowcron install --single-role';
      end;
    end if;
  end loop;
end
$$;

create schema if not exists rowcron authorization rowcron_owner;
-- Owners' executors (chapter 074). Owners have neither USAGE nor CREATE here, but for the moment in
-- which their executor is created.
create schema if not exists rowcron_executor authorization rowcron_owner;

-- Nothing is executable by strangers unless chapter 110 says so. A single role's other functions
-- are not ours to close; there chapter 110 does it alone.
do $$
begin
  if 'rowcron_owner' <> 'rowcron_gate' then
    execute format('alter default privileges for role %I, %I revoke execute on functions from '
      'public', 'rowcron_owner', 'rowcron_gate');
  end if;
end
$$;

set role rowcron_owner;

comment on schema rowcron is
  'rowcron: jobs, what is due, and what became of everything. Start with rowcron.job and '
    'rowcron.jobs.';
comment on schema rowcron_executor is
  'One function an owner of jobs: runs a claimed SQL job with the rights of its owner. Nobody''s '
    'to touch.';
grant usage on schema rowcron_executor to rowcron_gate;

create table if not exists rowcron.setting (
  name text not null,
  value jsonb not null,
  description text not null,
  constraint setting_pkey primary key (name)
);
comment on table rowcron.setting is
  'What holds for the whole installation: versions, identity, hold, retention. Change with an '
    'update as rowcron_owner.';
comment on column rowcron.setting.name is 'The setting''s name.';
comment on column rowcron.setting.value is 'Its value as JSON; null where it is off.';
comment on column rowcron.setting.description is 'What it decides.';

insert into rowcron.setting (name, value, description) values
  ('schema_version', '"0.1.0"', 'The release whose chapters were applied last.'),
  ('oldest_worker', '"0.1.0"', 'The oldest release of a worker that this schema still serves.')
on conflict (name) do update set value = excluded.value, description = excluded.description
where setting.value is distinct from excluded.value;

insert into rowcron.setting (name, value, description) values
  ('installation', to_jsonb(gen_random_uuid()),
    'Names this installation; part of every idempotency key.'),
  ('hold', 'null', 'While not null nothing fires and nothing is claimed: {"reason", "by", "at"}.'),
  ('retention', '"30 days"', 'How long the ledger is kept; whole partitions go. Null: for good.'),
  ('change_retention', '"1 year"', 'How long changes are kept. Null: for good.'),
  ('notify', 'true', 'Whether sleeping workers are notified; false where PREPARE TRANSACTION is '
    'used.'),
  ('kinds', '["sql", "shell", "http", "python"]',
    'The kinds that a job may have; a role rowcron_KIND, where there is one, may own them.')
on conflict (name) do nothing;

create or replace function rowcron._check_setting() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  allowed text;
begin
  if new.name in ('retention', 'change_retention') then
    allowed := 'an interval from 1 day to 1000 years, as in ''"30 days"'', or ''null'' for good';
    begin
      if new.value = 'null' or jsonb_typeof(new.value) = 'string'
        and (new.value #>> '{}')::interval between '1 day' and '1000 years'
      then
        return new;
      end if;
    exception when data_exception then
      null;
    end;
  elsif new.name = 'notify' then
    allowed := '''true'' or ''false''';
    if jsonb_typeof(new.value) = 'boolean' then
      return new;
    end if;
  else
    allowed := 'an array of names, as in ''["sql", "http"]''';
    if jsonb_typeof(new.value) = 'array'
      and not jsonb_path_exists(new.value, '$[*] ? (@.type() <> "string" || @ == "")')
    then
      return new;
    end if;
  end if;
  raise exception using
    errcode = 'RCLIM',
    message = format('setting "%s" cannot be %s', new.name, new.value),
    detail = format('Allowed: %s.', allowed),
    hint = format('update rowcron.setting set value = %L where name = %L;', case new.name
      when 'retention' then '"30 days"' when 'change_retention' then '"1 year"'
      when 'notify' then 'true' else '["sql", "shell", "http", "python"]' end, new.name);
end
$$;
comment on function rowcron._check_setting() is
  'Trigger: refuses a value that means nothing, or the loss of the ledger. Raises RCLIM.';
drop trigger if exists a10_check on rowcron.setting;
create trigger a10_check before insert or update on rowcron.setting
for each row when (new.name in ('retention', 'change_retention', 'notify', 'kinds'))
execute function rowcron._check_setting();

create or replace function rowcron._read_setting(setting_name text) returns jsonb
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select s.value from rowcron.setting as s where s.name = setting_name
$$;
comment on function rowcron._read_setting(text) is 'A setting''s value, null when there is none.';

create or replace function rowcron._me() returns regrole
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  return quote_ident(current_user)::regrole;  -- a function in SQL would be planned each time
end
$$;
comment on function rowcron._me() is
  'The role that asks, as job owners are written. Never session_user: inside a job that is the '
    'worker.';

create or replace function rowcron.version() returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select s.value #>> '{}' from rowcron.setting as s where s.name = 'schema_version'
$$;
comment on function rowcron.version() is 'The release of the schema that is installed here.';

reset role;
