-- 020: the schedule language.
--
-- A schedule is text that a person types. This chapter turns it into `rowcron._parsed`: bit masks
-- for the six fields, or an interval, or an instant. A job's schedule is parsed once, when the job
-- is stored; the value stands in the agenda, and chapter 021 moves the job on from it in
-- microseconds.
--
-- What cannot be understood is refused here, and so is what can never happen (`0 0 31 2 *`): a job
-- that is stored has a future. Every refusal names the field, what stood there and what may stand
-- there, points at the character, and shows a line that works (chapter 019).
--
-- The rule of days is Debian cron's. Two restricted day fields mean that either may hold; when one
-- of them begins with `*`, or is `?`, both must hold. So `0 0 */2 * mon` is Mondays with an odd
-- date. Ranges may wrap (`22-2`, `fri-mon`), 7 is Sunday, `5/15` goes from 5 to the end of the
-- field in steps of 15. `H` is a number that depends on the job alone: the SHA-256 of owner and
-- name, so that it is the same on every server. Nothing here looks at a clock, a time zone or a
-- session's settings.

set role rowcron_owner;

do $$
begin
  if to_regtype('rowcron._parsed') is null then
    create type rowcron._parsed as (
      form text,
      seconds bigint,
      minutes bigint,
      hours integer,
      days bigint,
      days_from_end bigint,
      days_near bigint,
      months integer,
      weekdays integer,
      nth_weekdays bigint,
      either_day boolean,
      day_rule integer,
      elapsed boolean,
      with_seconds boolean,
      first_second integer,
      step interval,
      at_local timestamp,
      at_instant timestamptz
    );
  end if;
end;
$$;

comment on type rowcron._parsed is
  'A schedule, understood. Bit n of a mask stands for the value n. nth_weekdays: bit 7*(n-1)+w is the
n-th weekday w of a month, n = 6 the last. days_from_end: bit n is n days before the last. days_near:
bit d is the working day nearest to d, bit 0 the last working day. day_rule: 0 every day, 1 the weekday
alone decides, 2 the month must be looked at. elapsed: follows elapsed time over changes of time.';

create or replace function rowcron._parse(schedule text, seed text default null)
returns rowcron._parsed
language plpgsql
immutable
parallel restricted
set search_path = pg_catalog, pg_temp
as $$
declare
  fields text[];
  extra integer;
  masks bigint[];
  parsed rowcron._parsed;
  days_star boolean;
  weekdays_star boolean;
  odd text;
begin
  if schedule is null then
    return null;
  end if;
  odd := substring(schedule from E'[^\\x20-\\x7e\\t\\r\\n]');
  if odd is not null then
    perform rowcron._refuse_schedule(schedule, strpos(schedule, odd),
      format(
        case when ascii(odd) < 128 then 'character U+%2$s is a control character'
          else 'character "%s" (U+%s) is not plain ASCII' end,
        odd, lpad(upper(to_hex(ascii(odd)) collate "C"), 4, '0')
      ),
      'a schedule has digits, letters, spaces and * , - / ? # @ ( )',
      case
        when odd ~ E'[\\u2010-\\u2015\\u2212\\ufe58\\ufe63\\uff0d]' then 'type a hyphen: -'
        when odd ~ E'[\\x0b\\x0c\\u00a0\\u2000-\\u200b\\u202f\\u205f\\u3000\\ufeff]' then 'type a space'
        else 'for example: 0 3 * * mon-fri (at 03:00 on weekdays)'
      end);
  elsif length(schedule) > 1000 then
    raise exception using
      errcode = 'RCSCH',
      message = format('schedule of %s characters is too long', length(schedule)),
      detail = 'a schedule has at most 1000 characters',
      hint = 'for example: */5 * * * * (every 5 minutes)';
  elsif schedule collate "C" ~* E'^\\s*(CRON_)?TZ\\s*=' then
    perform rowcron._refuse_zone(schedule);
  elsif schedule ~ E'^\\s*@' then
    return rowcron._parse_word(translate(schedule, E'\t\r\n', '   '), seed);
  end if;
  fields := regexp_split_to_array(btrim(schedule, E' \t\r\n'), E'[ \\t\\r\\n]+');
  if fields[1] = '' then
    raise exception using
      errcode = 'RCSCH',
      message = 'schedule "" is empty',
      detail = 'a schedule has five fields: minute hour day-of-month month day-of-week',
      hint = 'for example: 0 3 * * * (at 03:00 every day); for a job on demand leave schedule null';
  elsif cardinality(fields) < 5 then
    perform rowcron._refuse_schedule(schedule, length(schedule),
      format('schedule "%s" has %s of 5 fields', schedule, cardinality(fields)),
      'the fields are: minute hour day-of-month month day-of-week',
      case when schedule collate "C" ~* E'^\\s*(every\\s+)?\\d+\\s*[a-z]+\\s*$'
          and rowcron._parses('@every ' || substring(schedule from E'\\d.*\\S'))
        then 'for an interval write: @every ' || substring(schedule from E'\\d.*\\S')
        else 'for example: 0 3 * * * (at 03:00 every day)' end);
  elsif cardinality(fields) > 6 then
    perform rowcron._refuse_fields(schedule, fields);
  end if;
  parsed.form := 'cron';
  parsed.with_seconds := cardinality(fields) = 6;
  extra := cardinality(fields) - 5;
  parsed.seconds := 1;
  if parsed.with_seconds then
    parsed.seconds := (rowcron._parse_field(schedule, 1, 1, fields[1], seed))[1];
  end if;
  parsed.minutes := (rowcron._parse_field(schedule, 1 + extra, 2, fields[1 + extra], seed))[1];
  parsed.hours := (rowcron._parse_field(schedule, 2 + extra, 3, fields[2 + extra], seed))[1];
  masks := rowcron._parse_field(schedule, 3 + extra, 4, fields[3 + extra], seed);
  parsed.days := masks[1];
  parsed.days_from_end := masks[2];
  parsed.days_near := masks[3];
  parsed.months := (rowcron._parse_field(schedule, 4 + extra, 5, fields[4 + extra], seed))[1];
  masks := rowcron._parse_field(schedule, 5 + extra, 6, fields[5 + extra], seed);
  parsed.weekdays := masks[1];
  parsed.nth_weekdays := masks[2];
  days_star := fields[3 + extra] ~ '^[*?]';
  weekdays_star := fields[5 + extra] ~ '^[*?]';
  parsed.either_day := not (days_star or weekdays_star);
  parsed.elapsed := parsed.with_seconds or fields[1] ~ E'^\\*' or fields[2] ~ E'^\\*';
  parsed.day_rule := case
    when parsed.months <> 8190 then 2
    when parsed.either_day and (parsed.days = 4294967294 or parsed.weekdays = 127) then 0
    when parsed.either_day or parsed.days <> 4294967294 then 2
    when parsed.weekdays = 127 then 0
    when parsed.nth_weekdays <> 0 then 2
    else 1
  end;
  parsed.first_second :=
    3600 * (bit_count(((parsed.hours & -parsed.hours) - 1)::bit(32)))
    + 60 * (bit_count(((parsed.minutes & -parsed.minutes) - 1)::bit(64)))
    + bit_count(((parsed.seconds & -parsed.seconds) - 1)::bit(64));
  if parsed.day_rule = 2 and rowcron._next_day(parsed, date '2000-01-01') is null then
    perform rowcron._refuse_schedule(schedule,
      regexp_instr(schedule, E'[^ \\t\\r\\n]+', 1, 3 + extra),
      format('schedule "%s" never happens', schedule),
      format('no year has a day for day of month "%s", month "%s", day of week "%s"',
        fields[3 + extra], fields[4 + extra], fields[5 + extra]),
      'for the last day of a month write L, for example: 0 0 L 2 * (the last day of February)');
  end if;
  return parsed;
end;
$$;

comment on function rowcron._parse(text, text) is
  'A schedule as masks, interval or instant; null for null.
seed spreads H: a job passes its owner and name. Without one, H is refused.
Errors: RCSCH for what is not understood or can never happen.';

reset role;
