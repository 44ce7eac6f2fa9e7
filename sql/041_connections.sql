-- A SQL job that names a connection runs as whoever that connection logs in as, in whatever
-- database it leads to, so naming one is a right of its own, granted role by role. The worker's
-- configuration says where a name leads; nothing secret stands here.

set role rowcron_owner;

create table if not exists rowcron.connection_grant (
  connection text not null,
  grantee regrole not null,
  granted_by text not null,
  granted_at timestamptz not null default clock_timestamp(),
  constraint connection_grant_pkey primary key (connection, grantee)
);
comment on table rowcron.connection_grant is 'Who may name which of the workers'' configured '
  'connections in a job.';
comment on column rowcron.connection_grant.connection
  is 'The name that a job''s column connection bears.';
comment on column rowcron.connection_grant.grantee
  is 'The role that may name it, with its members.';
comment on column rowcron.connection_grant.granted_by is 'Who granted it.';
comment on column rowcron.connection_grant.granted_at is 'When.';

-- No pinned path, as in chapter 037: so it is no call, where runs are made by the thousand.
create or replace function rowcron._handler(kind text, command text, connection text) returns text
language sql immutable parallel safe
return case when kind = 'python' then command
  else 'connection ' || lower(connection collate "C") end;
comment on function rowcron._handler(text, text, text) is
  'What a worker must have for a run of such a job, as in column handler of rowcron.run; null: '
    'nothing.';

create or replace function rowcron._may_use_connection(owner regrole,
  connection text) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  -- with the caller's rights: an author learns what it may use itself, not what others may
  select exists (
    select from rowcron.connection_grant as g
    where g.connection = _may_use_connection.connection
      and pg_has_role(_may_use_connection.owner, g.grantee, 'usage')
  )
$$;
comment on function rowcron._may_use_connection(regrole, text)
  is 'Whether a role may own jobs that run over this connection.';

create or replace function rowcron.grant_connection(connection text, grantee text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into rowcron.change (action, new_values)
  values ('grant', jsonb_build_object(
    'connection', grant_connection.connection, 'grantee', grant_connection.grantee, 'granted',
      true));
end
$$;
comment on function rowcron.grant_connection(text, text) is
  'Lets a role''s jobs run over a connection of the workers'' configuration. For operators who are '
    'members of rowcron_owner. Raises RCOWN, RCCON.';

create or replace function rowcron.revoke_connection(connection text, grantee text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into rowcron.change (action, new_values)
  values ('grant', jsonb_build_object(
    'connection', revoke_connection.connection, 'grantee', revoke_connection.grantee, 'granted',
      false));
end
$$;
comment on function rowcron.revoke_connection(text, text)
  is 'Takes back grant_connection; bites at the next claim. Raises RCOWN.';

reset role;
