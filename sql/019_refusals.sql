-- 019: how a schedule is refused.
--
-- Every refusal points at the character and shows a line that works. What is offered to be written
-- instead is read first, as a job's schedule would be: where it would be refused, too, there is an
-- example. That takes a subtransaction, which a parallel worker cannot begin.

set role rowcron_owner;

create or replace function rowcron._refuse_schedule(
  schedule text, place integer, fault text, fact text, advice text
) returns void
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using
    errcode = 'RCSCH',
    message = fault,
    detail = 'character ' || place || ' of the schedule: ' || fact || E'\n'
      || translate(schedule, E'\t\r\n', '   ') || E'\n' || repeat(' ', place - 1) || '^',
    hint = advice;
end;
$$;

comment on function rowcron._refuse_schedule(text, integer, text, text, text) is
  'Refuses a schedule, pointing at the character where it goes wrong.
Errors: RCSCH, always.';

create or replace function rowcron._parses(schedule text) returns boolean
language plpgsql
immutable
parallel restricted
set search_path = pg_catalog, pg_temp
as $$
begin
  perform rowcron._parse(schedule, 'owner.name');
  return true;
exception when others then
  return false;
end;
$$;

comment on function rowcron._parses(text) is 'Whether a schedule may be offered in a hint.';

create or replace function rowcron._refuse_fields(schedule text, fields text[]) returns void
language plpgsql
immutable
parallel restricted
set search_path = pg_catalog, pg_temp
as $$
declare
  -- a list or range with blanks in it; a year; the line of a crontab
  joined constant text :=
    regexp_replace(array_to_string(fields, ' '), ' ?([,/-]) ?', E'\\1', 'g');
  six constant text := array_to_string(fields[1:6], ' ');
  five constant text := array_to_string(fields[1:5], ' ');
begin
  perform rowcron._refuse_schedule(schedule, regexp_instr(schedule, E'[^ \\t\\r\\n]+', 1, 7),
    format('schedule "%s" has %s fields', schedule, cardinality(fields)),
    'at most six: second minute hour day-of-month month day-of-week; there is no year',
    case
      when joined !~ '( .*){6}' and rowcron._parses(joined) then 'write: ' || joined
      when rowcron._parses(six) then 'write: ' || six
      when fields[6] !~ '^([,-]|/$)' and rowcron._parses(five) then 'write: ' || five
      else 'for example: 0 3 * * mon-fri (at 03:00 on weekdays)'
    end);
end;
$$;

comment on function rowcron._refuse_fields(text, text[]) is
  'Refuses a schedule of more than six fields, and offers what was probably meant.
Errors: RCSCH, always.';

create or replace function rowcron._refuse_zone(schedule text) returns void
language plpgsql
immutable
parallel restricted
set search_path = pg_catalog, pg_temp
as $$
declare
  part constant text[] := regexp_match(
    schedule, E'^\\s*(\\w+\\s*=\\s*("[^"]*"|\\S*))\\s*(.*)$'
  );
begin
  perform rowcron._refuse_schedule(schedule, regexp_instr(schedule, E'\\S'),
    format('schedule names a time zone: "%s"', part[1]),
    'the time zone of a job stands in its column timezone, not in its schedule',
    case when btrim(part[2], '"''') <> '' and rowcron._parses(part[3])
      then format('write: schedule = %L, timezone = %L', part[3], btrim(part[2], '"'''))
      else 'for example: schedule = ''0 3 * * *'', timezone = ''Europe/Berlin''' end);
end;
$$;

comment on function rowcron._refuse_zone(text) is
  'Refuses a schedule that begins with TZ= or CRON_TZ=.
Errors: RCSCH, always.';

reset role;
