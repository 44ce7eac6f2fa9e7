-- The language: what it means, and mistakes with the words that answer them.

begin;
select plan(337);
set local timezone to 'UTC';

create temporary table mistake (schedule text, place integer, message text, hint text);
insert into mistake (schedule, place, message, hint) values
  ('', null,
    'schedule "" is empty',
    'for example: 0 3 * * * (at 03:00 every day); for a job on demand leave schedule null'),
  ('   ', null,
    'schedule "" is empty',
    'for example: 0 3 * * * (at 03:00 every day); for a job on demand leave schedule null'),
  ('* * * *', 7,
    'schedule "* * * *" has 4 of 5 fields',
    'for example: 0 3 * * * (at 03:00 every day)'),
  ('0 3', 3,
    'schedule "0 3" has 2 of 5 fields',
    'for example: 0 3 * * * (at 03:00 every day)'),
  ('0 3 * * * # comment', 13,
    'schedule "0 3 * * * # comment" has 7 fields',
    'write: 0 3 * * *'),
  ('0 0 * * * root /bin/x', 16,
    'schedule "0 0 * * * root /bin/x" has 7 fields',
    'write: 0 0 * * *'),
  ('0 3 * * mon - fri', 15,
    'schedule "0 3 * * mon - fri" has 7 fields',
    'write: 0 3 * * mon-fri'),
  ('0 3 1 , 15 * *', 14,
    'schedule "0 3 1 , 15 * *" has 7 fields',
    'write: 0 3 1,15 * *'),
  ('0 3 * * mon - montag', 15,
    'schedule "0 3 * * mon - montag" has 7 fields',
    'for example: 0 3 * * mon-fri (at 03:00 on weekdays)'),
  ('a b c d e f g', 13,
    'schedule "a b c d e f g" has 7 fields',
    'for example: 0 3 * * mon-fri (at 03:00 on weekdays)'),
  ('CRON_TZ = UTC 0 3 * * *', 1,
    'schedule names a time zone: "CRON_TZ = UTC"',
    'write: schedule = ''0 3 * * *'', timezone = ''UTC'''),
  ('cron_tz="Europe/Berlin" 0 3 * * *', 1,
    'schedule names a time zone: "cron_tz="Europe/Berlin""',
    'write: schedule = ''0 3 * * *'', timezone = ''Europe/Berlin'''),
  ('TZ=''Europe/Berlin'' 0 3 * * *', 1,
    'schedule names a time zone: "TZ=''Europe/Berlin''"',
    'write: schedule = ''0 3 * * *'', timezone = ''Europe/Berlin'''),
  ('TZ=UTC 0 25 * * *', 1,
    'schedule names a time zone: "TZ=UTC"',
    'for example: schedule = ''0 3 * * *'', timezone = ''Europe/Berlin'''),
  ('TZ=', 1,
    'schedule names a time zone: "TZ="',
    'for example: schedule = ''0 3 * * *'', timezone = ''Europe/Berlin'''),
  ('00001 * * * *', 1,
    'minute "00001" is not understood',
    'for example: 30 3 * * * (at 03:30 every day)'),
  ('0 0 00015W * *', 5,
    'day of month "00015W" is not understood',
    'for example: 0 3 15 * * (at 03:00 on the 15th)'),
  (E'0 3 * * *\x0b', 10,
    'character U+000B is a control character',
    'type a space'),
  ('5 lightyears', 12,
    'schedule "5 lightyears" has 2 of 5 fields',
    'for example: 0 3 * * * (at 03:00 every day)'),
  ('@every 0', 8,
    'interval "0" has no unit',
    'for example: @every 90 seconds'),
  ('*/999999999 * * * *', 3,
    'step "999999999" of minute is not between 1 and 60',
    'for example: 30 3 * * * (at 03:30 every day)'),
  ('0 0 12 1 * ? 2026', 14,
    'schedule "0 0 12 1 * ? 2026" has 7 fields',
    'write: 0 0 12 1 * ?'),
  ('* * * * * * *', 13,
    'schedule "* * * * * * *" has 7 fields',
    'write: * * * * * *'),
  ('60 * * * *', 1,
    'minute "60" is outside 0-59',
    'the full hour is minute 0, for example: 0 * * * * (every hour)'),
  ('0 24 * * *', 3,
    'hour "24" is outside 0-23',
    'midnight is hour 0, for example: 0 0 * * * (at 00:00 every day)'),
  ('0 0 0 * *', 5,
    'day of month "0" is outside 1-31',
    'the order is: minute hour day-of-month month day-of-week; for example: 0 3 15 * * (at 03:00 on the 15th)'),
  ('0 0 32 * *', 5,
    'day of month "32" is outside 1-31',
    'the order is: minute hour day-of-month month day-of-week; for example: 0 3 15 * * (at 03:00 on the 15th)'),
  ('0 0 12 25 *', 8,
    'month "25" is outside 1-12 or jan-dec',
    'the order is: minute hour day-of-month month day-of-week; for example: 0 3 1 jan,jul * (at 03:00 on 1 January and 1 July)'),
  ('0 0 * 13 *', 7,
    'month "13" is outside 1-12 or jan-dec',
    'the order is: minute hour day-of-month month day-of-week; for example: 0 3 1 jan,jul * (at 03:00 on 1 January and 1 July)'),
  ('0 0 * * 8', 9,
    'day of week "8" is outside 0-7 or sun-sat (0 and 7 are Sunday)',
    'for example: 0 3 * * mon-fri (at 03:00 on weekdays)'),
  ('*/0 * * * *', 3,
    'step "0" of minute is not between 1 and 60',
    'for example: 30 3 * * * (at 03:30 every day)'),
  ('*/90 * * * *', 3,
    'step "90" of minute is not between 1 and 60',
    'for an interval write: @every 90 minutes'),
  ('0 */36 * * *', 5,
    'step "36" of hour is not between 1 and 24',
    'for an interval write: @every 36 hours'),
  ('5- * * * *', 1,
    'minute "5-" is not understood',
    'for example: 30 3 * * * (at 03:30 every day)'),
  ('-5 * * * *', 1,
    'minute "-5" is outside 0-59',
    'for example: 30 3 * * * (at 03:30 every day)'),
  ('1,,2 * * * *', 3,
    'minute has an empty place in its list',
    'for example: 30 3 * * * (at 03:30 every day)'),
  ('1-5-7 * * * *', 1,
    'minute "1-5-7" is not understood',
    'for example: 30 3 * * * (at 03:30 every day)'),
  (U&'0\201330 * * * *', 2,
    U&'character "\2013" (U+2013) is not plain ASCII',
    'type a hyphen: -'),
  (U&'0 3\00A0* * *', 4,
    U&'character "\00A0" (U+00A0) is not plain ASCII',
    'type a space'),
  ('0 3 * * mon-sunday', 9,
    'day of week "mon-sunday" is not understood',
    'names have three English letters; for example: 0 3 * * mon-fri (at 03:00 on weekdays)'),
  ('0 3 * * lun', 9,
    'day of week "lun" is not understood',
    'names are English: sun mon tue wed thu fri sat; for example: 0 3 * * mon-fri (at 03:00 on weekdays)'),
  (U&'0 3 * f\00E9v *', 8,
    U&'character "\00E9" (U+00E9) is not plain ASCII',
    'for example: 0 3 * * mon-fri (at 03:00 on weekdays)'),
  ('0 3 * janvier *', 7,
    'month "janvier" is not understood',
    'names have three English letters; for example: 0 3 1 jan,jul * (at 03:00 on 1 January and 1 July)'),
  ('0 3 * * 1#6', 9,
    'day of week "1#6" asks for a week that is not 1 to 5',
    'for example: 0 3 * * mon-fri (at 03:00 on weekdays)'),
  ('0 3 * * 5#0', 9,
    'day of week "5#0" asks for a week that is not 1 to 5',
    'for example: 0 3 * * mon-fri (at 03:00 on weekdays)'),
  ('0 0 31 2 *', 5,
    'schedule "0 0 31 2 *" never happens',
    'for the last day of a month write L, for example: 0 0 L 2 * (the last day of February)'),
  ('0 0 30 feb *', 5,
    'schedule "0 0 30 feb *" never happens',
    'for the last day of a month write L, for example: 0 0 L 2 * (the last day of February)'),
  ('0 0 L-31 * *', 5,
    'day of month "L-31" is not between L-1 and L-30',
    'for example: 0 3 15 * * (at 03:00 on the 15th)'),
  ('0 3 $ * *', 5,
    'day of month "$" is not understood',
    'for the last day of a month write L, for example: 0 3 L * * (at 03:00 on the last day)'),
  ('0 0 3 1,$ * *', 9,
    'day of month "$" is not understood',
    'for the last day of a month write L, for example: 0 3 L * * (at 03:00 on the last day)'),
  ('0 3 * * $', 9,
    'day of week "$" is not understood',
    'for example: 0 3 * * mon-fri (at 03:00 on weekdays)'),
  ('0 0 0W * *', 5,
    'day of month "0W" is outside 1-31',
    'the order is: minute hour day-of-month month day-of-week; for example: 0 3 15 * * (at 03:00 on the 15th)'),
  ('0 0 32W * *', 5,
    'day of month "32W" is outside 1-31',
    'the order is: minute hour day-of-month month day-of-week; for example: 0 3 15 * * (at 03:00 on the 15th)'),
  ('0 0 31W 2 *', 5,
    'schedule "0 0 31W 2 *" never happens',
    'for the last day of a month write L, for example: 0 0 L 2 * (the last day of February)'),
  ('? * * * *', 1,
    'minute "?" is not understood',
    '? may stand alone in day of month or day of week; elsewhere write *'),
  ('0 0 ?,1 * *', 5,
    'day of month "?" is not understood',
    '? may stand alone in day of month or day of week; elsewhere write *'),
  ('H * * * *', 1,
    'minute "H" needs a job to be spread by',
    'give a seed, as a job does with its owner and name: rowcron.next_run(''H * * * *'', seed => ''alice.report'')'),
  ('H(50-10) * * * *', 1,
    'minute "H(50-10)" needs a job to be spread by',
    'give a seed, as a job does with its owner and name: rowcron.next_run(''H(50-10) * * * *'', seed => ''alice.report'')'),
  ('H(0-70) * * * *', 1,
    'minute "H(0-70)" needs a job to be spread by',
    'give a seed, as a job does with its owner and name: rowcron.next_run(''H(0-70) * * * *'', seed => ''alice.report'')'),
  ('1.5 * * * *', 1,
    'minute "1.5" is not understood',
    'for example: 30 3 * * * (at 03:30 every day)'),
  ('@dayly', 1,
    'word "@dayly" is not known',
    'for example: @daily, or 0 0 * * * (at 00:00 every day)'),
  ('@every', 6,
    '@every names no interval',
    'for example: @every 90 seconds'),
  ('@every 90', 8,
    'interval "90" has no unit',
    'for example: @every 90 seconds'),
  ('@every 0 seconds', 8,
    'interval "0 seconds" is too short',
    'for example: @every 90 seconds'),
  ('@every -5 minutes', 8,
    'interval "-5 minutes" runs backwards',
    'for example: @every 90 seconds'),
  ('@every 5 fortnights', 8,
    'interval "5 fortnights" is not understood',
    'for example: @every 90 seconds'),
  ('@after 10', 8,
    'interval "10" has no unit',
    'for example: @after 10 seconds'),
  ('@at', 3,
    '@at names no instant',
    'for example: @at 2026-12-24 18:00'),
  ('@at tomorrow', 5,
    'instant "tomorrow" is not understood',
    'for example: @at 2026-12-24 18:00'),
  ('@at 24.12.2026 18:00', 5,
    'instant "24.12.2026 18:00" is not understood',
    'for example: @at 2026-12-24 18:00'),
  ('@at 2026-02-30 10:00', 5,
    'instant "2026-02-30 10:00" does not exist',
    'for example: @at 2026-12-24 18:00'),
  ('@at 2026-12-24 25:00', 5,
    'instant "2026-12-24 25:00" is not understood',
    'for example: @at 2026-12-24 18:00'),
  ('@daily 5', 8,
    '@daily is followed by "5"',
    'write: @daily'),
  ('CRON_TZ=Europe/Berlin 0 3 * * *', 1,
    'schedule names a time zone: "CRON_TZ=Europe/Berlin"',
    'write: schedule = ''0 3 * * *'', timezone = ''Europe/Berlin'''),
  ('TZ=UTC 0 3 * * *', 1,
    'schedule names a time zone: "TZ=UTC"',
    'write: schedule = ''0 3 * * *'', timezone = ''UTC'''),
  ('every 5 minutes', 15,
    'schedule "every 5 minutes" has 3 of 5 fields',
    'for an interval write: @every 5 minutes'),
  ('5 minutes', 9,
    'schedule "5 minutes" has 2 of 5 fields',
    'for an interval write: @every 5 minutes'),
  ('0 3 * * mon,', 13,
    'day of week has an empty place in its list',
    'for example: 0 3 * * mon-fri (at 03:00 on weekdays)'),
  ('*/a * * * *', 1,
    'minute "*/a" is not understood',
    'for example: 30 3 * * * (at 03:30 every day)'),
  ('* * * * * bash', 11,
    'day of week "bash" is not understood',
    'names have three English letters; for example: 0 3 * * mon-fri (at 03:00 on weekdays)'),
  ('0 0 */31 2 1#5', 5,
    'schedule "0 0 */31 2 1#5" never happens',
    'for the last day of a month write L, for example: 0 0 L 2 * (the last day of February)'),
  ('0 0 * 2/20 *', 9,
    'step "20" of month is not between 1 and 12',
    'for example: 0 3 1 jan,jul * (at 03:00 on 1 January and 1 July)'),
  ('$(date) * * * *', 1,
    'minute "$(date)" is not understood',
    'for example: 30 3 * * * (at 03:30 every day)'),
  ('5/0 * * * *', 3,
    'step "0" of minute is not between 1 and 60',
    'for example: 30 3 * * * (at 03:30 every day)'),
  ('0 0 L2 * *', 5,
    'day of month "L2" is not understood',
    'for example: 0 3 15 * * (at 03:00 on the 15th)'),
  ('3:00 * * * *', 1,
    'minute "3:00" is not understood',
    'for example: 30 3 * * * (at 03:30 every day)'),
  ('0 9 * * 1-5L', 9,
    'day of week "1-5L" is not understood',
    'for example: 0 3 * * mon-fri (at 03:00 on weekdays)');

create function pg_temp.refuse(schedule text, out state text, out message text, out place integer, out hint text)
language plpgsql as $$
declare
  detail text;
begin
  perform rowcron._parse(schedule);
  state := '00000';
exception
  when others then
    get stacked diagnostics state = returned_sqlstate, message = message_text,
      detail = pg_exception_detail, hint = pg_exception_hint;
    place := substring(detail from '^character (\d+)');
    -- the caret stands below the character that is counted
    if place is not null and strpos(split_part(detail, E'\n', 3), '^') <> place then
      place := -1;
    end if;
end;
$$;

select results_eq(
  format('select state, message, hint from pg_temp.refuse(%L)', schedule),
  format('values (''RCSCH'', %L, %L)', message, hint),
  format('"%s" is refused with the message and hint that stand in the table', schedule)
) from mistake;
select is(
  (select refused.place from pg_temp.refuse(schedule) as refused), place,
  format('"%s": the detail points at the fault', schedule)
) from mistake;
select unalike(
  message || hint, '%operator%', format('"%s" is answered by us, not by PostgreSQL', schedule)
) from mistake;

-- Two texts, one meaning.
select is(
  rowcron._parse(one)::text, rowcron._parse(other)::text, format('"%s" is "%s"', one, other)
) from (values
  ('0 0 * * 7', '0 0 * * 0'),
  ('0 0 * * SUN', '0 0 * * sun'),
  ('0 0 * * fri-mon', '0 0 * * 0,1,5,6'),
  ('0 0 * * 5-7', '0 0 * * 0,5,6'),
  ('0 0 * * 7-2', '0 0 * * 0-2'),
  ('0 0 * * mon-sun', '0 0 * * 0-7'),
  ('0 0 * * sat-7', '0 0 * * 0,6'),
  ('0 22-2 * * *', '0 0,1,2,22,23 * * *'),
  ('0 22-2/2 * * *', '0 0,2,22 * * *'),
  ('50-10/10 0 * * *', '0,10,50 0 * * *'),
  ('0 0 28-3 * *', '0 0 1,2,3,28,29,30,31 * *'),
  ('0 0 1 nov-feb *', '0 0 1 1,2,11,12 *'),
  ('5/15 0 * * *', '5,20,35,50 0 * * *'),
  ('1-20/3 0 * * *', '1,4,7,10,13,16,19 0 * * *'),
  ('*/7 * * * *', '*/7 */1 * * *'),
  ('0 0 * * 5/2', '0 0 * * 5,7'),
  ('0 0 * * 5L', '0 0 * * L5'),
  ('0 0 * * friL', '0 0 * * 5l'),
  ('0 0 * * fri#1', '0 0 * * 5#1'),
  ('0 0 * * 7#2', '0 0 * * 0#2'),
  ('0 0 lw * *', '0 0 LW * *'),
  ('0 0 1,L * *', '0 0 L,1 * *'),
  ('0 0 ? * mon', '0 0 * * mon'),
  ('0 0 15 * ?', '0 0 15 * *'),
  ('00 03 * * *', '0 3 * * *'),
  (E'  0\t3  * * *\n', '0 3 * * *'),
  (E'@every 5\tminutes', '@every 5 minutes'),
  (E'@at\t2026-12-24\t18:00\n', '@at 2026-12-24 18:00'),
  ('@yearly', '0 0 1 1 *'),
  ('@annually', '0 0 1 1 *'),
  ('@monthly', '0 0 1 * *'),
  ('@weekly', '0 0 * * 0'),
  ('@daily', '0 0 * * *'),
  ('@midnight', '0 0 * * *'),
  ('@Hourly ', '0 * * * *'),
  ('@every 90 seconds', '@every 1 minute 30 seconds'),
  ('@every 1h30m', '@every 90 minutes'),
  ('@every PT5M', '@EVERY 00:05'),
  ('@at 2026-12-24 18:00', '@at 2026-12-24T18:00:00'),
  ('@at 2026-12-24 18:00Z', '@at 2026-12-24 18:00:00+00:00')
) as pairs (one, other);

-- What it means.
select is(
  (rowcron._parse(schedule)).elapsed, elapsed,
  format('"%s" %s', schedule, case when elapsed then 'follows elapsed time' else 'has fixed times' end)
) from (values
  ('0 3 * * *', false), ('0,30 3-5 * * *', false), ('@daily', false), ('0 3 */2 * *', false),
  ('*/5 3 * * *', true), ('0 * * * *', true), ('@hourly', true), ('0 0 3 * * *', true),
  ('0 */2 * * *', true), ('@every 24 hours', true), ('@every 1 day', false)
) as forms (schedule, elapsed);
select is(
  (rowcron._parse(schedule)).either_day, either_day,
  format('"%s": %s', schedule, case when either_day then 'either day' else 'both days' end)
) from (values
  ('0 0 13 * fri', true), ('0 0 * * fri', false), ('0 0 13 * *', false), ('0 0 */2 * fri', false),
  ('0 0 13 * */2', false), ('0 0 ? * fri', false), ('0 0 13 * ?', false), ('0 0 1-31 * fri', true),
  ('0 0 L * fri#1', true), ('0 0 15W * mon', true), ('0 0 2-30/2 * mon', true)
) as rules (schedule, either_day);

-- H
select is(
  (rowcron._parse('H H(0-7) H H H', 'alice.report'))::text,
  (rowcron._parse('H H(0-7) H H H', 'alice.report'))::text,
  'the same job has the same H'
);
select is(
  rowcron.next_run('H H * * *', '2026-01-01 00:00+00', seed => 'alice.report'),
  timestamptz '2026-01-01 06:23:00+00',
  'H is the same on every server: SHA-256 decides'
);
select cmp_ok(
  (select count(distinct (rowcron._parse('H * * * *', 'job ' || n)).minutes) from generate_series(1, 1000) as n),
  '=', 60::bigint, 'a thousand jobs use every minute'
);
select cmp_ok(
  (select max(jobs) from (
    select count(*) as jobs from generate_series(1, 6000) as n
    group by (rowcron._parse('H * * * *', 'job ' || n)).minutes
  ) as counts), '<', 140::bigint, 'no minute has much more than its share of 6000 jobs'
);
select is(
  (select bool_and((rowcron._parse('H/15 * * * *', 'job ' || n)).minutes
    in (35185445863425, 70370891726850, 140741783453700, 281483566907400, 562967133814800)
    or bit_count((rowcron._parse('H/15 * * * *', 'job ' || n)).minutes::bit(64)) = 4)
  from generate_series(1, 100) as n), true, 'H/15 is four times an hour'
);
select is(
  (select max((rowcron._parse('0 0 H * *', 'job ' || n)).days) < 1::bigint << 29
  from generate_series(1, 300) as n), true, 'H in the day of month is a day that every month has'
);
select is(
  (select max((rowcron._parse('0 H(0-7) * * *', 'job ' || n)).hours) < 256
  from generate_series(1, 300) as n), true, 'H(0-7) stays in its range'
);
select throws_ok(
  $$select rowcron._parse('H(50-10) * * * *', 'a.b')$$, 'RCSCH', 'minute "H(50-10)" runs backwards'
);

-- seven is Sunday, and a range from a value to itself that value
select is(rowcron.explain('0 0 * * 7-7'), 'at 00:00 on Sundays, UTC', 'from seven to seven is Sunday');
select is(rowcron.explain('0 0 * * 5-7'), 'at 00:00 on Fridays, Saturdays and Sundays, UTC', 'to seven is to Sunday');
select is(rowcron.explain('0 0 * * 7-2'), rowcron.explain('0 0 * * 0-2'), 'from seven is from Sunday');
select throws_ok($$select rowcron.explain('@at 2026-12-24-18:00')$$, 'RCSCH', 'instant "2026-12-24-18:00" is not understood', 'a hyphen for a space makes no offset of a time of day');
select throws_ok($$select rowcron.explain('@at 2026-12-24 18:00+99:00')$$, 'RCSCH', 'instant "2026-12-24 18:00+99:00" is not understood', 'nor is there such an offset');
select throws_ok($$select rowcron.explain('0 0 * * lun#2')$$, 'RCSCH', 'day of week "lun#2" is not understood', 'the name is at fault, not the week');

select * from finish();
rollback;
