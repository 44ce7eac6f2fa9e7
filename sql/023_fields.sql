-- 023: one field of a schedule.
--
-- Chapter 020 splits a schedule; this one turns a field into masks, or refuses it with the item
-- that is wrong, the range that the field allows and an example. A field is a list of items: `*`,
-- a value, a range, each perhaps with a step; `H` and `H(a-b)`; in the day fields also `?`, `L`,
-- `L-3`, `LW`, `15W`, `5#3`, `5L`. Names are the English three letters, in any case.
--
-- A range whose end lies before its start wraps around the field's end. A step is never larger
-- than the field, because `*/90` in minutes is never what was meant. `H` alone in the day of month
-- stays below 29, so that such a job runs in each month.

set role rowcron_owner;

create or replace function rowcron._refuse_item(
  schedule text, ordinal integer, slot integer, skipped integer, item text, reason text
) returns void
language plpgsql
immutable
parallel restricted
set search_path = pg_catalog, pg_temp
as $$
declare
  field constant text := (array[
    'second', 'minute', 'hour', 'day of month', 'month', 'day of week'
  ])[slot];
  example constant text := (array[
    '30 0 3 * * * (at 03:00:30 every day)',
    '30 3 * * * (at 03:30 every day)',
    '0 3 * * * (at 03:00 every day)',
    '0 3 15 * * (at 03:00 on the 15th)',
    '0 3 1 jan,jul * (at 03:00 on 1 January and 1 July)',
    '0 3 * * mon-fri (at 03:00 on weekdays)'
  ])[slot];
  allowed constant text := (array[
    '0-59', '0-59', '0-23', '1-31, L, L-3, LW or 15W', '1-12 or jan-dec',
    '0-7 or sun-sat (0 and 7 are Sunday), 5#3, 5L'
  ])[slot];
  advice text := 'for example: ' || example;
  fault text;
begin
  fault := case reason
    when 'range' then format('%s "%s" is outside %s', field, item, split_part(allowed, ',', 1))
    when 'empty' then format('%s has an empty place in its list', field)
    when 'step' then format('step "%s" of %s is not between 1 and %s', item, field,
      (array[60, 60, 24, 31, 12, 7])[slot])
    when 'seed' then format('%s "%s" needs a job to be spread by', field, item)
    when 'nth' then format('%s "%s" asks for a week that is not 1 to 5', field, item)
    when 'end' then format('%s "%s" is not between L-1 and L-30', field, item)
    when 'spread' then format('%s "%s" runs backwards', field, item)
    else format('%s "%s" is not understood', field, item)
  end;
  advice := case
    when reason = 'seed' then
      'give a seed, as a job does with its owner and name: rowcron.next_run('
      || quote_literal(schedule) || ', seed => ''alice.report'')'
    when reason = 'step' and slot = 2 and item::numeric > 60
      and rowcron._parses('@every ' || item || ' minutes') then
      'for an interval write: @every ' || item || ' minutes'
    when reason = 'step' and slot = 3 and item::numeric > 24
      and rowcron._parses('@every ' || item || ' hours') then
      'for an interval write: @every ' || item || ' hours'
    when reason = 'step' and slot = 1 and item::numeric > 60
      and rowcron._parses('@every ' || item || ' seconds') then
      'for an interval write: @every ' || item || ' seconds'
    when reason = 'range' and slot = 3 and item = '24' then
      'midnight is hour 0, for example: 0 0 * * * (at 00:00 every day)'
    when reason = 'range' and slot in (1, 2) and item = '60' then
      'the full hour is minute 0, for example: 0 * * * * (every hour)'
    when reason = 'range' and slot in (4, 5) then
      'the order is: minute hour day-of-month month day-of-week; ' || advice
    when item collate "C" ~* '^[A-Z]{3}[A-Z]+(-|$)|-[A-Z]{4,}$' and slot in (5, 6) then
      'names have three English letters; ' || advice
    when item collate "C" ~* '^[A-Z]{3}' and slot in (5, 6) then
      'names are English: ' || case slot
        when 5 then 'jan feb mar apr may jun jul aug sep oct nov dec'
        else 'sun mon tue wed thu fri sat'
      end || '; ' || advice
    when slot = 4 and item ~ '[$]' then
      'for the last day of a month write L, for example: 0 3 L * * (at 03:00 on the last day)'
    when item ~ E'\\?' then
      '? may stand alone in day of month or day of week; elsewhere write *'
    else advice
  end;
  perform rowcron._refuse_schedule(
    schedule,
    regexp_instr(schedule, E'[^ \\t\\r\\n]+', 1, ordinal) + skipped,
    fault,
    format('%s takes %s; with * , - / and H', field, allowed),
    advice
  );
end;
$$;

comment on function rowcron._refuse_item(text, integer, integer, integer, text, text) is
  'Refuses one item of one field, with the range that the field allows and an example.
Errors: RCSCH, always.';

create or replace function rowcron._parse_special(
  item text, slot integer, names text[]
) returns bigint[]
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  part text[];
  number integer;
begin
  if slot = 4 then
    part := regexp_match(item, E'^(?:L|L-(\\d{1,2})|(LW)|(\\d{1,2})W)$');
    if part is null then
      return null;
    elsif part[2] is not null then
      return array[0, 0, 1];
    elsif part[3] is not null then
      number := part[3]::integer;
      return case when number between 1 and 31 then array[0, 0, 1::bigint << number] end;
    end if;
    number := coalesce(part[1], '0')::integer;
    return case
      when part[1] is null or number between 1 and 30 then array[0, 1::bigint << number, 0]
    end;
  end if;
  part := regexp_match(item, '^(?:(0?[0-7]|[A-Z]{3})(?:#0?([1-5])|L)|L(0?[0-7]|[A-Z]{3}))$');
  number := coalesce(
    array_position(names, coalesce(part[1], part[3])) - 1,
    case when coalesce(part[1], part[3]) ~ E'^\\d+$' then coalesce(part[1], part[3])::integer % 7 end
  );
  return array[0, 1::bigint << (7 * (coalesce(part[2], '6')::integer - 1) + number), 0];
end;
$$;

comment on function rowcron._parse_special(text, integer, text[]) is
  'Masks of L, L-3, LW and 15W in a day of month, of 5#3, 5L and L5 in a day of week; null when it is none.';

create or replace function rowcron._parse_field(
  schedule text, ordinal integer, slot integer, field text, seed text
) returns bigint[]
language plpgsql
immutable
parallel restricted
set search_path = pg_catalog, pg_temp
as $$
declare
  low constant integer := case when slot in (4, 5) then 1 else 0 end;
  high constant integer := (array[59, 59, 23, 31, 12, 7])[slot];
  span constant integer := (array[60, 60, 24, 31, 12, 7])[slot];
  names constant text[] := case slot
    when 5 then '{JAN,FEB,MAR,APR,MAY,JUN,JUL,AUG,SEP,OCT,NOV,DEC}'
    when 6 then '{SUN,MON,TUE,WED,THU,FRI,SAT}'
  end::text[];
  mask bigint := 0;
  second_mask bigint := 0;
  third_mask bigint := 0;
  special bigint[];
  written text;
  item text;
  part text[];
  skipped integer := 0;
  first integer;
  last integer;
  step integer;
  hash bigint;
begin
  foreach written in array string_to_array(field, ',') loop
    item := upper(written collate "C");
    part := regexp_match(item,
      E'^(?:(\\*)|(H)(?:\\((\\d{1,4})-(\\d{1,4})\\))?|(\\d{1,4}|[A-Z]{3})(?:-(\\d{1,4}|[A-Z]{3}))?)'
      || E'(?:/(\\d{1,9}))?$');
    if part is null then
      if item = '?' and field = '?' and slot in (4, 6) then
        part := array['*', null, null, null, null, null, null];
      elsif slot in (4, 6) then
        special := rowcron._parse_special(item, slot, names);
      end if;
      if part is null and (special is null or special[2] is null) then
        perform rowcron._refuse_item(schedule, ordinal, slot, skipped, written, case
          when item = '' then 'empty'
          when (item ~ E'^-?\\d+$' or slot = 4 and item ~ E'^\\d+W$')
            and rtrim(item, 'W')::numeric not between low and high then 'range'
          when slot = 6 and item ~ E'^(0?[0-7]|SUN|MON|TUE|WED|THU|FRI|SAT)#\\d+$' then 'nth'
          when slot = 4 and item ~ E'^L-\\d+$' then 'end'
          else 'shape'
        end);
      end if;
    end if;
    if part is null then
      mask := mask | special[1];
      second_mask := second_mask | special[2];
      third_mask := third_mask | special[3];
    else
      step := coalesce(part[7]::integer, 1);
      if step not between 1 and span then
        perform rowcron._refuse_item(
          schedule, ordinal, slot, skipped + length(item) - length(part[7]), part[7], 'step'
        );
      end if;
      if part[1] is not null then
        first := low;
        last := high;
      elsif part[2] is not null then
        if seed is null then
          perform rowcron._refuse_item(schedule, ordinal, slot, skipped, written, 'seed');
        end if;
        first := coalesce(part[3]::integer, low);
        last := coalesce(part[4]::integer, case
          when slot = 6 then 6
          when slot = 4 and part[7] is null then 28
          else high
        end);
        if least(first, last) < low or greatest(first, last) > high then
          perform rowcron._refuse_item(schedule, ordinal, slot, skipped, written, 'range');
        elsif last < first then
          perform rowcron._refuse_item(schedule, ordinal, slot, skipped, written, 'spread');
        end if;
        hash := ('x' || substr(
          encode(sha256(convert_to(seed, 'UTF8')), 'hex'), 8 * slot - 7, 8
        ))::bit(32)::bigint;
        if part[7] is null then
          first := first + (hash % (last - first + 1))::integer;
          last := first;
        else
          first := first + (hash % least(step, last - first + 1))::integer;
        end if;
      else
        first := coalesce(array_position(names, part[5]) + low - 1,
          case when part[5] ~ E'^\\d' then part[5]::integer end);
        last := case
          when part[6] is not null then coalesce(array_position(names, part[6]) + low - 1,
            case when part[6] ~ E'^\\d' then part[6]::integer end)
          when part[7] is not null then high
          else first
        end;
        if first is null or last is null then
          perform rowcron._refuse_item(schedule, ordinal, slot, skipped, written, 'shape');
        elsif first not between low and high then
          perform rowcron._refuse_item(schedule, ordinal, slot, skipped, part[5], 'range');
        elsif last not between low and high then
          perform rowcron._refuse_item(
            schedule, ordinal, slot, skipped + length(part[5]) + 1, part[6], 'range'
          );
        end if;
        if slot = 6 and first = 7 and part[6] is not null and last <> 7 then
          first := 0;
        end if;
        if last < first then
          last := last + span;
        end if;
      end if;
      if step = 1 and first = low and last >= low + span - 1 then
        mask := mask | (((1::bigint << span) - 1) << low);
      else
        while first <= last loop
          mask := mask | (1::bigint << (low + (first - low) % span));
          first := first + step;
        end loop;
      end if;
    end if;
    skipped := skipped + length(item) + 1;
  end loop;
  return array[mask, second_mask, third_mask];
end;
$$;

comment on function rowcron._parse_field(text, integer, integer, text, text) is
  'Masks of one field: its values, then what only a day field has (see rowcron._parsed).
slot is 1 second, 2 minute, 3 hour, 4 day of month, 5 month, 6 day of week; ordinal its place in the schedule.
Errors: RCSCH.';

reset role;
