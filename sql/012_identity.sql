-- Which database this is. A backup that is restored elsewhere and a copy made with CREATE DATABASE
-- ... TEMPLATE have all jobs, and must not run them beside the original. So the schema is bound to
-- the server's system identifier and the database's number when it is installed; in a database that
-- bears others it stands still, as under hold(), until somebody says release(), which binds it
-- anew. A name is no part of it: renaming a database changes nothing.
--
-- A standby has its primary's identity, on purpose: after a failover the promoted one goes on by
-- itself. A copy of the server that is promoted beside the original looks the same, and nothing in
-- it can tell (docs/decisions/010).

set role rowcron_owner;

create or replace function rowcron._identity() returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  -- A session belongs to one server and one database for as long as it lives, and reading the
  -- control file takes longer than all the rest, so each session looks once.
  known text := current_setting('rowcron.identity', true);
  server text;
begin
  if known <> '' then
    return known;
  end if;
  begin
    select c.system_identifier into server from pg_control_system() as c;
  exception when others then
    null;  -- not granted, or not there: the database's number has to do
  end;
  select concat(coalesce(server, '?'), '/', d.oid) into known
  from pg_database as d where d.datname = current_database();
  perform set_config('rowcron.identity', known, false);
  return known;
end
$$;
comment on function rowcron._identity() is
  'This database: the server''s system identifier, ? where it cannot be read, and the database''s '
    'number.';

create or replace function rowcron._is_bound(identity text, here text) returns boolean
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(split_part(identity, '/', 2) = split_part(here, '/', 2)
    and (identity = here or '?' in (split_part(identity, '/', 1), split_part(here, '/', 1))), true)
$$;
comment on function rowcron._is_bound(text, text) is
  'Whether an identity is this one, as far as both are known.';

insert into rowcron.setting (name, value, description) values
  ('identity', to_jsonb(rowcron._identity()),
    'The server and database to which this installation is bound; elsewhere it is held until '
    'release().')
on conflict (name) do nothing;

create or replace function rowcron._bind() returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
  update rowcron.setting as s
  set value = case s.name when 'identity' then to_jsonb(rowcron._identity()) else 'null' end
  where s.name in ('identity', 'agenda_renewed')
$$;
comment on function rowcron._bind() is 'Binds the installation to the database in which it is now, '
  'whose zone files may be others (chapter 053).';

create or replace function rowcron._held() returns text
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  hold jsonb;
  identity text;
  here text := rowcron._identity();
begin
  select h.value, i.value #>> '{}' into hold, identity
  from rowcron.setting as h
  left join rowcron.setting as i on i.name = 'identity'
  where h.name = 'hold';
  if hold <> 'null' then
    return format('everything is held by %s: %s', hold ->> 'by', hold ->> 'reason');
  elsif identity = here or rowcron._is_bound(identity, here) then
    return null;
  end if;
  return format('everything is held: rowcron was bound to database %s and this one is %s, '
    'restored or copied from it', identity, here);
end
$$;
comment on function rowcron._held() is
  'Why nothing fires and nothing is claimed, in a sentence: hold(), or this is not the database to '
    'which the installation is bound. Null: nothing is held.';

reset role;
