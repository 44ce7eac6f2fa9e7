-- A row of rowcron.job is judged here. Each insert and update passes _check_job, which knows every
-- rule about a job and says what is wrong, what is allowed and what to write instead; the
-- constraints of chapter 030 are the second line. Then the agenda follows (chapter 042). A
-- statement that is refused leaves nothing.

set role rowcron_owner;

create or replace function rowcron._check_owner() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if new.owner is distinct from rowcron._me() then
    raise exception using
      errcode = 'RCOWN',
      message = format('job "%s" cannot be owned by "%s"', new.name, new.owner),
      detail = format('It is inserted by "%s", and a job belongs to the role that inserts it.',
        current_user),
      hint = format('Leave out the column owner, or first: set role %s;', new.owner);
  end if;
  if 'rowcron_owner' <> 'rowcron_gate' and current_user in ('rowcron_owner', 'rowcron_gate') then
    raise exception using
      errcode = 'RCOWN',
      message = format('"%s" cannot own jobs', current_user),
      detail = 'It owns what jobs must not reach.',
      hint = 'Insert as the role whose rights the job needs: set role app;';
  end if;
  if (select r.rolsuper from pg_roles as r where r.oid = new.owner)
    and not (select r.rolsuper from pg_namespace as n join pg_roles as r on r.oid = n.nspowner
             where n.nspname = 'rowcron')
  then
    raise exception using
      errcode = 'RCOWN',
      message = format('superuser "%s" cannot own jobs', current_user),
      detail = 'Whoever may administer rowcron could then act as a superuser.',
      hint = 'Insert as the role whose rights the job needs: set role app;';
  end if;
  return new;
end
$$;
comment on function rowcron._check_owner() is
  'Trigger, before all others: a job belongs to the role that inserts it, and to no superuser. '
    'Raises RCOWN.';

create or replace function rowcron._may_own_kind(owner regrole, kind text) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- a single role is a member of none, though they may be there for another database
  return kind = 'sql' or 'rowcron_owner' = 'rowcron_gate'
    or coalesce(pg_has_role(owner, to_regrole('rowcron_' || kind), 'usage'), true);
end
$$;
comment on function rowcron._may_own_kind(regrole, text) is
  'Whether a role may own jobs of this kind: it is a member of rowcron_KIND, or there is no such '
    'role, or a single role plays all parts.';

create or replace function rowcron._has_controls(text text) returns boolean
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
  -- In UTF-8 there are more of them: C1, line ends, what reorders a line, what covers no cell. Other
  -- encodings have letters at these codes.
  select text ~ case when getdatabaseencoding() = 'UTF8'
    then E'[\\u0001-\\u001f\\u007f-\\u009f\\u200b\\u2028-\\u202e\\u2060\\u2066-\\u2069\\ufeff]'
    else E'[\\u0001-\\u001f\\u007f]' end
$$;
comment on function rowcron._has_controls(text) is
  'Whether a text holds what steers a terminal, ends or reorders a line, or cannot be seen.';

create or replace function rowcron._check_job() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  earliest constant timestamptz := '0001-01-01 00:00:00+00';
  latest constant timestamptz := '9999-12-31 00:00:00+00';
  plain constant text := ', no part of it negative';  -- chapter 036
  kinds jsonb;
  field text;
  bad text;
  allowed text;
begin
  if tg_op = 'INSERT' then
    new.created_at := clock_timestamp();
  else
    if new.id <> old.id
      or new.owner <> old.owner and current_setting('rowcron.handing_over', true) is distinct from
        format('%s %s', old.id, new.owner)
      or new.owner <> old.owner and current_user <> 'rowcron_owner'
    then
      raise exception using
        errcode = 'RCOWN',
        message = format('id and owner of job "%s" cannot be changed', old.name),
        detail = 'A job belongs to the role that inserted it, until that hands it over.',
        hint = format('select rowcron.hand_over(%L, %L);', old.name, new.owner);
    end if;
    -- whoever could change another's command could act as its owner
    if old.owner <> rowcron._me()
      and to_jsonb(new) - 'enabled' <> to_jsonb(old) - 'enabled'
      and not pg_has_role(current_user, 'rowcron_owner', 'usage')
    then
      raise exception using
        errcode = 'RCOWN',
        message = format('"%s" may only pause and resume job "%s"', current_user, old.name),
        detail = format('It belongs to "%s".', old.owner),
        hint = format('set role %s;', old.owner);
    end if;
    new.created_at := old.created_at;
  end if;
  new.updated_at := clock_timestamp();

  if new.name is null or new.name = '' or octet_length(new.name) > 200 or strpos(new.name, '.') > 0
    or rowcron._has_controls(new.name) or new.name <> btrim(new.name)
  then
    raise exception using
      errcode = 'RCNAM',
      message = case when new.name is null then 'name must be given'
        else format('name "%s" is not valid', left(new.name, 60)) end,
      detail = 'A name has 1 to 200 bytes, no dot, no control characters, no space at either end.',
      hint = 'For example ''close-the-books''.',
      column = 'name';
  end if;
  if new.queue is null or new.queue = '' or octet_length(new.queue) > 200
    or rowcron._has_controls(new.queue) then
    raise exception using
      errcode = 'RCNAM',
      message = case when new.queue is null then 'queue must be given'
        else format('queue "%s" is not valid', left(new.queue, 60)) end,
      detail = 'A queue has 1 to 200 bytes and no control characters.',
      hint = 'For example ''default'' or ''mail''.',
      column = 'queue';
  end if;

  kinds := rowcron._read_setting('kinds');
  if new.kind is null or not kinds ? new.kind then
    raise exception using
      errcode = 'RCKND',
      message = case when new.kind is null then 'kind must be given'
        else format('kind "%s" is not known', new.kind) end,
      detail = format('Kinds are %s.',
        (select string_agg(k, ', ') from jsonb_array_elements_text(kinds) as k)),
      hint = 'Leave it out for sql. A further kind is added to the setting "kinds".';
  end if;
  if (tg_op = 'INSERT' or new.kind <> old.kind)
    and not rowcron._may_own_kind(new.owner, new.kind) then
    raise exception using
      errcode = 'RCOWN',
      message = format('"%s" may not own jobs of kind "%s"', new.owner, new.kind),
      detail = format('That takes membership of the role rowcron_%s.', new.kind),
      hint = format('As an administrator: grant rowcron_%s to %s;', new.kind, new.owner),
      column = 'kind';
  end if;

  -- on update only what is changed: whoever pauses a job is not asked for its zone, its grants and
  -- its command
  if tg_op = 'INSERT' or new.timezone is distinct from old.timezone then
    perform rowcron._check_timezone(new.timezone);
  end if;

  if octet_length(new.description) > 65536 or octet_length(new.connection) > 500
    or octet_length(new.timezone) > 500
  then
    raise exception using
      errcode = 'RCLIM',
      message = format('description, connection or timezone of job "%s" is too long', new.name),
      detail = 'Allowed: a description of 64 KiB; a connection and a time zone of 500 bytes.',
      hint = 'Store large text in a table and name it.';
  end if;

  -- numbers and intervals: field, whether it is wrong, what is allowed
  select c.field, c.given, c.allowed into field, bad, allowed
  from (values
    ('priority', new.priority::text, new.priority is null, 'a whole number, 0 unless named'),
    ('max_runs', new.max_runs::text, new.max_runs <= 0, '1 or more, or null for no end'),
    ('timeout', new.timeout::text, coalesce(
      new.timeout <= '0' or new.timeout > '30 days' or not rowcron._is_plain(new.timeout), true),
      'more than 0, at most 30 days' || plain),
    ('max_attempts', new.max_attempts::text,
      coalesce(new.max_attempts not between 1 and 1000, true), '1 to 1000'),
    ('retry_delay', new.retry_delay::text,
      coalesce(new.retry_delay < '0' or new.retry_delay > '30 days'
        or not rowcron._is_plain(new.retry_delay), true), '0 to 30 days' || plain),
    ('retry_backoff', new.retry_backoff::text,
      coalesce(new.retry_backoff not between 1 and 100, true), '1 to 100'),
    ('max_retry_delay', new.max_retry_delay::text,
      coalesce(new.max_retry_delay < '0' or new.max_retry_delay > '30 days'
        or not rowcron._is_plain(new.max_retry_delay), true), '0 to 30 days' || plain),
    ('retry_jitter', new.retry_jitter::text, coalesce(new.retry_jitter not between 0 and 1, true),
      '0 to 1'),
    ('missed_grace', new.missed_grace::text, coalesce(
      new.missed_grace < '0' or new.missed_grace > '1000 years'
        or not rowcron._is_plain(new.missed_grace), true), '0 to 1000 years' || plain),
    ('max_missed', new.max_missed::text, coalesce(new.max_missed not between 1 and 10000, true),
      '1 to 10000'),
    ('max_running', new.max_running::text, new.max_running <= 0, '1 or more, or null for no limit'),
    ('max_lost', new.max_lost::text, coalesce(new.max_lost not between 1 and 1000, true),
      '1 to 1000'),
    ('jitter', new.jitter::text, new.jitter < '0' or new.jitter > '30 days'
        or not rowcron._is_plain(new.jitter), '0 to 30 days' || plain || ', or null for none'),
    ('keep', new.keep::text, new.keep <= '0' or new.keep > '1000 years'
        or not rowcron._is_plain(new.keep),
      'more than 0, at most 1000 years' || plain || ', or null for as long as the ledger'),
    ('starts_at', new.starts_at::text, not new.starts_at between earliest and latest,
      'an instant of the years 1 to 9999, or null'),
    ('ends_at', new.ends_at::text, new.ends_at <= new.starts_at or new.ends_at < earliest,
      'after starts_at and after the year 0, or null'),
    ('on_missed', new.on_missed, coalesce(new.on_missed not in ('latest', 'skip', 'all'), true),
      'latest, skip, all'),
    ('on_overlap', new.on_overlap, coalesce(new.on_overlap not in ('skip', 'wait', 'allow'), true),
      'skip, wait, allow'),
    ('on_lost', new.on_lost, coalesce(new.on_lost not in ('retry', 'fail'), true), 'retry, fail'),
    ('on_gap', new.on_gap, new.on_gap not in ('run', 'skip'),
      'run, skip, or null: by the form of the schedule'),
    ('on_fold', new.on_fold, new.on_fold not in ('once', 'twice'),
      'once, twice, or null: by the form of the schedule'),
    ('enabled', new.enabled::text, new.enabled is null, 'true or false')
  ) as c (field, given, wrong, allowed)
  where c.wrong
  limit 1;
  if field is not null then
    raise exception using
      errcode = 'RCLIM',
      message = case when bad is null then field || ' must be given'
        else format('%s "%s" is out of range', field, bad) end,
      detail = format('Allowed: %s.', allowed),
      hint = format('Leave out the column %s for its default.', field),
      column = field;
  end if;

  if tg_op = 'INSERT'
    or (new.kind, new.command, new.args, new.connection)
      is distinct from (old.kind, old.command, old.args, old.connection)
  then
    perform rowcron._check_command(new);
  end if;
  return new;
end
$$;
comment on function rowcron._check_job() is
  'Trigger: refuses a job that breaks a rule, naming the field, what is allowed and an example. '
    'Raises RCNAM, RCKND, RCTZN, RCLIM, RCCMD, RCCON, RCSEC, RCOWN.';

drop trigger if exists a05_owner on rowcron.job;
create trigger a05_owner before insert on rowcron.job
for each row execute function rowcron._check_owner();
drop trigger if exists b10_check on rowcron.job;
create trigger b10_check before insert or update on rowcron.job
for each row execute function rowcron._check_job();

reset role;
