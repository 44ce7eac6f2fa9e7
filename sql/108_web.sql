-- Who asks over HTTP. `rowcron web` signs people in by connecting to PostgreSQL as their role with
-- their password, so this chapter says nothing about people. A program has no password to hand
-- over; it has a token. The role itself makes it (create_token), sees it once, and PostgreSQL keeps
-- a hash: whoever reads this table cannot act as anybody.
--
-- The web process logs in as a member of rowcron_web, which may do one thing, ask whose token a hash
-- belongs to. To act for that role it must be a member of it (grant alice to web_login;), so a
-- role decides over its tokens and an administrator decides over whom the web process may act for.
-- A token stands for the role's logging in: NOLOGIN and VALID UNTIL shut it out at once.
-- Row security lets a role see and revoke its own tokens; a revoked one stays revoked.
--
-- pulse() is what all open pages together ask once a second: whether anything has changed.

set role rowcron_owner;

create table if not exists rowcron.token (
  id bigint generated always as identity,
  role regrole not null default (quote_ident(current_user)::regrole),
  label text not null,
  seal bytea not null,
  created_at timestamptz not null default clock_timestamp(),
  expires_at timestamptz not null,
  revoked_at timestamptz,
  used_at timestamptz,
  constraint token_pkey primary key (id),
  constraint token_seal_is_unique unique (seal),
  constraint token_seal_is_a_sha256 check (octet_length(seal) = 32),
  constraint token_label_is_short check (label <> '' and octet_length(label) <= 200),
  constraint token_expires_within_a_year check (
    expires_at > created_at and expires_at <= created_at + interval '366 days'
  )
);
comment on table rowcron.token is
  'Bearer tokens of the HTTP API, hashed; each acts as the role that made it. Made by '
    'rowcron.create_token().';
comment on column rowcron.token.id is 'Its number, to revoke it by.';
comment on column rowcron.token.role is 'The role that made it, as which it acts.';
comment on column rowcron.token.label is 'What it is for: 1 to 200 bytes.';
comment on column rowcron.token.seal is 'The SHA-256 of the token; the token itself is nowhere.';
comment on column rowcron.token.created_at is 'When it was made, by the database''s clock.';
comment on column rowcron.token.expires_at is 'From then on it is refused; within a year.';
comment on column rowcron.token.revoked_at is 'When it was revoked, for good. Null: it was not.';
comment on column rowcron.token.used_at is 'When it was last used, to the minute. Null: never.';

create or replace function rowcron._stamp_revoked() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  new.revoked_at := coalesce(old.revoked_at, clock_timestamp());
  return new;
end
$$;
comment on function rowcron._stamp_revoked() is
  'Trigger: whatever a role writes there, a token is revoked now and stays so.';

drop trigger if exists b10_stamp_revoked on rowcron.token;
create trigger b10_stamp_revoked before update of revoked_at on rowcron.token
for each row execute function rowcron._stamp_revoked();

create or replace function rowcron.create_token(
  label text, expires_after interval default '90 days'
) returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  token constant text := 'rowcron_'
    || replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', '');
  at constant timestamptz := clock_timestamp();
begin
  if label is null or label = '' or octet_length(label) > 200 then
    raise exception using
      errcode = 'RCNAM',
      message = case when label is null then 'a token''s label must be given'
        else format('label "%s" is not valid', left(label, 60)) end,
      detail = 'A label says what the token is for, in 1 to 200 bytes.',
      hint = 'For example ''deploy script''.',
      column = 'label';
  end if;
  if (at + expires_after > at and at + expires_after <= at + interval '365 days') is not true then
    raise exception using
      errcode = 'RCLIM',
      message = case when expires_after is null then 'expires_after must be given'
        else format('expires_after "%s" is out of range', expires_after) end,
      detail = 'Allowed: more than 0, at most 365 days.',
      hint = 'Leave it out for 90 days.',
      column = 'expires_after';
  end if;
  if not exists (
    select from pg_roles as r
    where r.rolname = current_user and r.rolcanlogin
      and (r.rolvaliduntil is null or r.rolvaliduntil > at)
  ) then
    raise exception using
      errcode = 'RCOWN',
      message = format('"%s" may not log in, and so has no tokens', current_user),
      detail = 'A token counts for as long as its role has LOGIN and its VALID UNTIL is ahead.',
      hint = format('As an administrator: alter role %I login valid until ''infinity''; without a '
        'password nobody logs in where one is asked for.', current_user);
  end if;
  insert into rowcron.token (label, seal, expires_at)
  values (label, sha256(convert_to(token, 'UTF8')), at + expires_after);
  return token;
end
$$;
comment on function rowcron.create_token(text, interval) is
  'A bearer token of the HTTP API that acts as the role that calls this; shown now and never again. '
    'It counts for as long as that role may log in. Raises RCNAM, RCLIM, RCOWN.';

create or replace function rowcron.revoke_token(token bigint) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  revoked bigint;
begin
  update rowcron.token as t set revoked_at = clock_timestamp()
  where t.id = token
  returning t.id into revoked;
  if revoked is null then
    raise exception using
      errcode = 'RCTOK',
      message = case when token is null then 'a token must be named'
        else format('there is no token %s', token) end,
      detail = format('"%s" has none of that number.', current_user),
      hint = 'select id, label, expires_at from rowcron.token; shows yours.';
  end if;
  return revoked;
end
$$;
comment on function rowcron.revoke_token(bigint) is
  'Revokes a token of one''s own, for good; returns its number. Raises RCTOK.';

create or replace function rowcron.token_role(seal bytea) returns text
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  at constant timestamptz := clock_timestamp();
  found_id bigint;
  stale boolean;
  answer text;
begin
  select t.id, t.used_at is null or t.used_at < at - interval '1 minute', r.rolname
  into found_id, stale, answer
  from rowcron.token as t
  join pg_roles as r on r.oid = t.role
  where t.seal = token_role.seal and t.revoked_at is null and t.expires_at > at
    and r.rolcanlogin and (r.rolvaliduntil is null or r.rolvaliduntil > at);
  -- one write a minute, and never a wait for it
  if stale then
    update rowcron.token as t set used_at = at
    where t.id in (
      select u.id from rowcron.token as u where u.id = found_id for no key update skip locked
    );
  end if;
  return answer;
end
$$;
comment on function rowcron.token_role(bytea) is
  'The name of the role as which the token with this SHA-256 acts; null when there is none, it is '
    'revoked or has expired, or the role may not log in. For the web process, which commits before '
    'it acts, so that used_at stays whatever becomes of the request.';

create or replace function rowcron.pulse() returns table (jobs text, work text)
language sql stable security definer
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
rows 1
as $$
  -- each in the order of an index, so that this one is taken
  select
    concat_ws(',',
      (select max(c.id) from rowcron.change as c),
      (select md5(s.value::text) from rowcron.setting as s where s.name = 'hold')
    ),
    md5(concat_ws(',',
      (select max(r.id) from rowcron.run as r),
      (
        select concat(count(*), '/', sum(hashint8(r.id) + r.attempt
          + hashtext(coalesce(r.cancel_asked_by, ''))::bigint))
        from (
          select x.id, x.attempt, x.cancel_asked_by
          from rowcron.run as x where x.state = 'running' order by x.worker_id limit 5000
        ) as r
      ),
      (
        select concat(count(*), '/', sum(hashint8(r.id)::bigint))
        from (
          select x.id from rowcron.run as x where x.state = 'ready'
          order by x.queue, x.kind, x.rank, x.due_at, x.id
          limit 200
        ) as r
      ),
      (
        select concat(count(*), '/', sum(hashint8(r.id)::bigint))
        from (
          select x.id from rowcron.run as x
          where x.state = 'waiting' and x.waits_for in ('limit', 'overlap')
          order by x.queue, x.kind, x.job_id, x.due_at
          limit 200
        ) as r
      ),
      -- an entry that commits late is seen among the last ones, whatever its place
      (
        select concat(sum(hashint8(l.run_id)::bigint), '/', sum(hashint8(l.job_id)::bigint), '/',
          sum(extract(epoch from l.finished_at)))
        from (
          select e.run_id, e.job_id, e.finished_at
          from rowcron.ledger as e order by e.finished_at desc limit 50
        ) as l
      ),
      (
        select count(*) from rowcron.worker as w
        where w.lost_at is null and not w.stopping and w.expires_at > clock_timestamp()
      )
    ))
$$;
comment on function rowcron.pulse()
  is 'Two words that are others once a job, or a run or the ledger, has changed since: whether to '
    'look again. It tells nothing else, and costs the same however much lies there.';

reset role;
