-- What a command may be, kind by kind. Only its form is judged: whether it can be run at all. What a SQL
-- command does, its owner's rights decide when it runs. And what args may be, a job's and a run's.

set role rowcron_owner;

create or replace function rowcron._check_command(job rowcron.job) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  bare text;
begin
  if job.command is null or btrim(job.command, E' \t\r\n') = ''
    or octet_length(job.command) > 1048576 then
    raise exception using
      errcode = 'RCCMD',
      message = format('command of job "%s" is %s', job.name, case
        when octet_length(job.command) > 1048576 then 'longer than 1 MiB' else 'empty' end),
      detail = 'A command has 1 byte to 1 MiB.',
      hint = 'For example ''select 1''; put long code into a function and call it.';
  end if;
  if octet_length(job.args::text) > 1048576 then
    raise exception using
      errcode = 'RCCMD',
      message = format('args of job "%s" are longer than 1 MiB', job.name),
      detail = 'They are written as JSON of at most 1 MiB.',
      hint = 'Store large data in a table and hand over its key.',
      column = 'args';
  end if;
  perform rowcron._check_secrets(job);
  if job.connection is not null and job.kind <> 'sql' then
    raise exception using
      errcode = 'RCCON',
      message = format('job "%s" of kind "%s" names a connection', job.name, job.kind),
      detail = 'Only SQL jobs run over a connection.',
      hint = 'Leave out the column connection.';
  end if;
  if job.kind = 'sql' then
    -- comments and white space ahead of the first word
    bare := regexp_replace(job.command, E'^(\\s|--[^\\n]*(\\n|$)|/\\*([^*]|\\*+[^*/])*\\*+/)+', '');
    if job.connection is not null then
      if not rowcron._may_use_connection(job.owner, job.connection) then
        raise exception using
          errcode = 'RCCON',
          message = format('"%s" may not use the connection "%s"', job.owner, job.connection),
          detail = 'A job with a connection runs as whoever that connection logs in as.',
          hint = format('As an administrator: select rowcron.grant_connection(%L, %L); workers know '
            'it by ROWCRON_CONNECTION_%s=URL in their environment.',
            job.connection, job.owner, upper(job.connection collate "C"));
      end if;
    elsif bare collate "C" ~* (E'^(vacuum|create\\s+(unique\\s+)?index\\s+concurrently|drop\\s+index\\s+concurrently'
      || E'|reindex\\s+(\\([^)]*\\)\\s*)?(index|table|schema|database|system)\\s+concurrently|alter\\s+system'
      || E'|(create|drop)\\s+(database|tablespace)|begin|commit|rollback|start\\s+transaction|end)\\M')
    then
      raise exception using
        errcode = 'RCCMD',
        message = format('"%s" cannot run inside a job''s transaction',
          left(split_part(bare, E'\n', 1), 60)),
        detail = 'A SQL job is one transaction: its effect and its record commit together.',
        hint = format('Name a connection, for example connection => ''maintenance'', to run it outside '
          'of one. As an administrator: select rowcron.grant_connection(''maintenance'', %L); workers '
          'know it by ROWCRON_CONNECTION_MAINTENANCE=URL in their environment.', job.owner);
    end if;
  elsif job.kind = 'http' then
    if job.command collate "C" !~* E'^\\s*([A-Z]+\\s+)?https?://[^\\s/?#]+\\S*\\s*(\\r?\\n|$)' then
      raise exception using
        errcode = 'RCCMD',
        message = format('command "%s" is not an http request',
          left(split_part(job.command, E'\n', 1), 60)),
        detail = 'Its first line is [METHOD] URL, the URL begins with http:// or https://.',
        hint = 'For example ''POST https://example.org/hook''.';
    end if;
    if upper((regexp_match(job.command, E'^\\s*([A-Za-z]+)\\s+http'))[1] collate "C")
      not in ('GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS')
    then
      raise exception using
        errcode = 'RCCMD',
        message = format('method "%s" is not known',
          (regexp_match(job.command, E'^\\s*([A-Za-z]+)'))[1]),
        detail = 'Methods are GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS.',
        hint = 'For example ''POST https://example.org/hook''.';
    end if;
    bare := (
      select l.line
      from string_to_table(regexp_replace(job.command, E'\r', '', 'g'),
        E'\n') with ordinality as l (line, n)
      where l.n > 1 and l.line <> ''
        and (l.line !~ E'^[A-Za-z0-9!#$%&''*+.^_`|~-]+:[^\\u0001-\\u0008\\u000a-\\u001f]*$'
          or (l.line collate "C" ~* '^follow-redirects:' and l.line !~ E'^[^:]+:\\s*([0-9]|10)\\s*$')
          or (l.line collate "C" ~* '^expect-status:'
            and l.line !~
              E'^[^:]+:\\s*[1-5]\\d\\d(\\s*-\\s*[1-5]\\d\\d)?(\\s*,\\s*[1-5]\\d\\d(\\s*-\\s*[1-5]\\d\\d)?)*\\s*$'))
      order by l.n
      limit 1
    );
    if bare is not null then
      raise exception using
        errcode = 'RCCMD',
        message = format('header line "%s" is not valid', left(bare, 60)),
        detail = 'After the first line each line is Name: value; Expect-Status takes codes and '
          'ranges, Follow-Redirects 0 to 10.',
        hint = 'For example ''Expect-Status: 200-299, 404''.';
    end if;
  elsif job.kind = 'python' then
    if job.command !~ '^[A-Za-z_][A-Za-z0-9_.:-]{0,199}$' then
      raise exception using
        errcode = 'RCCMD',
        message = format('command "%s" is not a handler''s name', left(job.command, 60)),
        detail = 'A python job names a registered handler: a letter, then letters, digits, _ . : '
          '-.',
        hint = 'For example ''send_mail''.';
    end if;
  end if;
end
$$;
comment on function rowcron._check_command(rowcron.job) is
  'Refuses a command or args that its kind cannot run. Raises RCCMD, RCCON, RCSEC.';

create or replace function rowcron._check_args() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if new.args = 'null' then
    new.args := null;
  -- what was stored before this was asked is left alone
  elsif tg_op = 'INSERT' or new.args is distinct from old.args then
    raise exception using
      errcode = 'RCCMD',
      message = format('args of %s are a JSON %s',
        case tg_table_name
          when 'run' then format('a run of job "%s"', left(to_jsonb(new) ->> 'job', 200))
          else format('job "%s"', left(to_jsonb(new) ->> 'name', 200)) end, jsonb_typeof(new.args)),
      detail = 'They are a JSON object or array.',
      hint = 'Put it into one, for example ''{"n": 5}''.',
      column = 'args';
  end if;
  return new;
end
$$;
comment on function rowcron._check_args() is
  'Trigger: args are an object or an array. JSON''s null, which drivers write for what is none, is '
    'none. Raises RCCMD.';

drop trigger if exists b05_args on rowcron.job;
create trigger b05_args before insert or update of args on rowcron.job
for each row when (jsonb_typeof(new.args) not in ('object', 'array'))
execute function rowcron._check_args();
drop trigger if exists a02_args on rowcron.run;
create trigger a02_args before insert on rowcron.run
-- a retry has the args of what it repeats, whatever they are
for each row when (new.retry_of is null and jsonb_typeof(new.args) not in ('object', 'array'))
execute function rowcron._check_args();

reset role;
