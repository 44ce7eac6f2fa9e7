-- What a job may not know until it runs: ${secret:NAME} in the command of an http or shell job, or in
-- its args, is filled in by the worker from its own configuration. Here stands only who may name which
-- secret, never a value. A grant is looked at twice: when a job that names a secret is stored, and when
-- its run is claimed, so that what was taken back is not handed out any more.
--
-- The args of a run (enqueue, run_now) are data, often somebody else's, and are taken literally:
-- whoever fills a field of them must not be able to ask for a secret of the job's owner.

set role rowcron_owner;

create table if not exists rowcron.secret_grant (
  secret text not null,
  grantee regrole not null,
  granted_by text not null,
  granted_at timestamptz not null default clock_timestamp(),
  constraint secret_grant_pkey primary key (secret, grantee)
);
comment on table rowcron.secret_grant is 'Who may name which of the workers'' configured secrets in '
  'a job. No values stand here.';
comment on column rowcron.secret_grant.secret is 'The name in ${secret:NAME}.';
comment on column rowcron.secret_grant.grantee is 'The role that may name it, with its members.';
comment on column rowcron.secret_grant.granted_by is 'Who granted it.';
comment on column rowcron.secret_grant.granted_at is 'When.';

create or replace function rowcron._named_secrets(text text) returns text[]
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select array(
    select distinct m.name[1]
    from regexp_matches(text, E'\\$\\{secret:([A-Za-z_][A-Za-z0-9_]{0,62})\\}', 'g') as m (name)
    order by 1
  )
$$;
comment on function rowcron._named_secrets(text) is 'The names in each ${secret:NAME} of a text.';

create or replace function rowcron._may_use_secret(owner regrole, secret text) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  -- with the caller's rights: an author learns what it may use itself, not what others may
  select exists (
    select from rowcron.secret_grant as g
    where g.secret = _may_use_secret.secret
      and pg_has_role(_may_use_secret.owner, g.grantee, 'usage')
  )
$$;
comment on function rowcron._may_use_secret(regrole, text)
  is 'Whether a role''s jobs may name this secret.';

create or replace function rowcron._granted_secrets(owner regrole, text text) returns text[]
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select array(
    select n.name from unnest(rowcron._named_secrets(text)) as n (name)
    where rowcron._may_use_secret(owner, n.name)
  )
$$;
comment on function rowcron._granted_secrets(regrole, text)
  is 'Of the secrets that a text names, those granted.';

create or replace function rowcron._ungranted_secret(job rowcron.job) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select n.name
  from unnest(rowcron._named_secrets(job.command || coalesce(job.args::text, ''))) as n (name)
  where job.kind in ('http', 'shell') and not rowcron._may_use_secret(job.owner, n.name)
  limit 1
$$;
comment on function rowcron._ungranted_secret(rowcron.job) is
  'A secret that a job names and its owner was not granted; null when there is none.';

create or replace function rowcron._check_secrets(job rowcron.job) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  wanted text;
  text text := job.command || coalesce(job.args::text, '');
begin
  if job.kind not in ('http', 'shell') or strpos(text, '${secret:') = 0 then
    return;
  end if;
  -- in a shell command it may be the shell's own: ${secret:-none}
  wanted := (regexp_match(
    case when job.kind = 'http' then text else job.args::text end,
    E'\\$\\{secret:(?![A-Za-z_][A-Za-z0-9_]{0,62}\\})([^}"\\n]{0,60})'))[1];
  if wanted is not null then
    raise exception using
      errcode = 'RCSEC',
      message = format('"%s" is not a secret''s name', wanted),
      detail = 'A name has 1 to 63 letters, digits and _, and begins with no digit.',
      hint = 'For example ''${secret:API_TOKEN}''.';
  end if;
  wanted := rowcron._ungranted_secret(job);
  if wanted is not null then
    raise exception using
      errcode = 'RCSEC',
      message = format('"%s" may not use the secret "%s"', job.owner, wanted),
      detail = format('Job "%s" names it, and it is not granted.', job.name),
      hint = format('As an administrator: select rowcron.grant_secret(%L, %L);', wanted, job.owner);
  end if;
end
$$;
comment on function rowcron._check_secrets(rowcron.job) is
  'Refuses an http or shell job that names a secret which its owner was not granted. Raises RCSEC.';

create or replace function rowcron._carry_out_secret(asked rowcron.change) returns rowcron.change
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  named text := asked.new_values ->> 'secret';
  favoured regrole := rowcron._role_named(asked.new_values ->> 'grantee');
begin
  if favoured is null or coalesce(named !~ '^[A-Za-z_][A-Za-z0-9_]{0,62}$', true) then
    raise exception using
      errcode = 'RCSEC',
      message = format('secret "%s" cannot be granted to "%s"', named,
        asked.new_values ->> 'grantee'),
      detail = 'A name has 1 to 63 letters, digits and _, and begins with no digit; a role must '
        'exist.',
      hint = 'select rowcron.grant_secret(''API_TOKEN'', ''alice'');';
  end if;
  if (asked.new_values ->> 'granted')::boolean then
    insert into rowcron.secret_grant (secret, grantee, granted_by)
    values (named, favoured, asked.changed_by) on conflict do nothing;
  else
    delete from rowcron.secret_grant as g where g.secret = named and g.grantee = favoured;
  end if;
  return asked;
end
$$;
comment on function rowcron._carry_out_secret(rowcron.change)
  is 'Grants or takes back a secret, for a signer who may. Raises RCSEC.';

create or replace function rowcron.grant_secret(secret text, grantee text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into rowcron.change (action, new_values)
  values ('grant', jsonb_build_object(
    'secret', grant_secret.secret, 'grantee', grant_secret.grantee, 'granted', true));
end
$$;
comment on function rowcron.grant_secret(text, text) is
  'Lets a role''s http and shell jobs name a secret of the workers'' configuration as '
    '${secret:NAME}. For members of rowcron_owner. Raises RCOWN, RCSEC.';

create or replace function rowcron.revoke_secret(secret text, grantee text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into rowcron.change (action, new_values)
  values ('grant', jsonb_build_object(
    'secret', revoke_secret.secret, 'grantee', revoke_secret.grantee, 'granted', false));
end
$$;
comment on function rowcron.revoke_secret(text, text)
  is 'Takes back grant_secret; bites at the next claim. Raises RCOWN.';

reset role;
