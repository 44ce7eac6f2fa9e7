-- A schedule in English, from its masks.

begin;
select plan(68);
set local timezone to 'UTC';

select is(rowcron.explain(schedule, zone), english, schedule)
from (values
  ('0 3 * * mon-fri', 'Europe/Berlin', 'at 03:00 on weekdays, Europe/Berlin'),
  ('*/5 * * * *', 'UTC', 'every 5 minutes, UTC'),
  ('*/7 * * * *', 'UTC', 'at minutes 0, 7, 14, 21, 28, 35, 42, 49 and 56 of every hour, UTC'),
  ('* * * * *', 'UTC', 'every minute, UTC'),
  ('0 * * * *', 'UTC', 'every hour, UTC'),
  ('5 * * * *', 'UTC', 'every hour at minute 5, UTC'),
  ('5,35 * * * *', 'UTC', 'at minutes 5 and 35 of every hour, UTC'),
  ('*/15 9-17 * * mon-fri', 'UTC', 'every 15 minutes from 09:00 to 17:45 on weekdays, UTC'),
  ('0 */2 * * *', 'UTC', 'every 2 hours, UTC'),
  ('30 */6 * * *', 'UTC', 'at 00:30, 06:30, 12:30 and 18:30 every day, UTC'),
  ('0 0,12 * * *', 'UTC', 'at 00:00 and 12:00 every day, UTC'),
  ('0 0 1 * *', 'UTC', 'at 00:00 on the 1st of the month, UTC'),
  ('0 0 1,15 * fri', 'UTC', 'at 00:00 on the 1st and 15th of the month, and also on Fridays, UTC'),
  ('0 0 L * *', 'UTC', 'at 00:00 on the last day of the month, UTC'),
  ('0 0 LW * ?', 'UTC', 'at 00:00 on the last working day of the month, UTC'),
  ('0 0 15W * *', 'UTC', 'at 00:00 on the working day nearest the 15th of the month, UTC'),
  ('0 9 * * fri#1', 'UTC', 'at 09:00 on the first Friday of the month, UTC'),
  ('0 9 * * 5L', 'UTC', 'at 09:00 on the last Friday of the month, UTC'),
  ('0 0 29 2 *', 'UTC', 'at 00:00 on the 29th of February, UTC'),
  ('0 0 1 1 *', 'UTC', 'at 00:00 on the 1st of January, UTC'),
  ('0 0 * jun-aug *', 'UTC', 'at 00:00 every day of June to August, UTC'),
  ('* 9-17 * * *', 'UTC', 'every minute from 09:00 to 17:59, UTC'),
  ('* 9,11 * * *', 'UTC', 'every minute in hours 9 and 11, UTC'),
  ('* * * * * *', 'UTC', 'every second, UTC'),
  ('*/10 * * * * *', 'UTC', 'every 10 seconds, UTC'),
  ('*/10 9-17 * * * *', 'UTC', 'every 10 seconds of minutes 9 to 17 of every hour, UTC'),
  ('5,20 * * * * *', 'UTC', 'every minute at seconds 5 and 20, UTC'),
  ('*/10 */5 * * * *', 'UTC', 'every 10 seconds of minutes 0, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50 and 55 of every hour, UTC'),
  ('0 0 */2 * mon', 'UTC', 'at 00:00 on the 1st, 3rd, 5th, 7th, 9th, 11th, 13th, 15th, 17th, 19th, 21st, 23rd, 25th, 27th, 29th and 31st of the month, but only on Mondays, UTC'),
  ('* 0 * * sat,sun', 'UTC', 'every minute from 00:00 to 00:59 on weekends, UTC'),
  ('0 8-18 * * *', 'UTC', 'every hour from 08:00 to 18:00, UTC'),
  ('0,30 8-18 * * *', 'UTC', 'every 30 minutes from 08:00 to 18:30, UTC'),
  ('@every 90 seconds', 'UTC', 'every 1 minute 30 seconds'),
  ('@every 1 day', 'UTC', 'every day, UTC'),
  ('@after 5 minutes', 'UTC', '5 minutes after the end of the last run'),
  ('@at 2026-12-24 18:00', 'Europe/Berlin', 'once, on 24 December 2026 at 18:00, Europe/Berlin'),
  ('@at 2026-12-24 18:00Z', 'UTC', 'once, on 24 December 2026 at 18:00, UTC'),
  ('@at 2026-12-24 18:00:00.5', 'UTC', 'once, on 24 December 2026 at 18:00:00.5, UTC'),
  ('@at 2026-12-24 18:00:30', 'UTC', 'once, on 24 December 2026 at 18:00:30, UTC'),
  ('@at 2026-12-24 18:00:10.000010+01', 'UTC', 'once, on 24 December 2026 at 17:00:10.00001, UTC'),
  ('* * 9 * * *', 'UTC', 'every second from 09:00 to 09:59:59, UTC'),
  ('*/10 * 9-17 * * *', 'UTC', 'every 10 seconds from 09:00 to 17:59:50, UTC'),
  ('*/60 2 * * *', 'UTC', 'at 02:00 every day, UTC'),
  ('@reboot', 'UTC', 'at each start of the server'),
  ('@weekly', 'UTC', 'at 00:00 on Sundays, UTC'),
  ('10-20 3 * * *', 'UTC', 'at minutes 10 to 20 of hour 3 every day, UTC'),
  ('* * 13 * fri', 'UTC', 'every minute on the 13th of the month, and also on Fridays, UTC'),
  ('0 0 L-3 * *', 'UTC', 'at 00:00 on the day 3 days before the last of the month, UTC'),
  ('0 22-2 * * fri-mon', 'UTC', 'at minute 0 of hours 0 to 2, 22 and 23 on Mondays, Fridays, Saturdays and Sundays, UTC'),
  ('59 23 31 12 *', 'UTC', 'at 23:59 on the 31st of December, UTC'),
  ('15 10 ? * 6#3', 'UTC', 'at 10:15 on the third Saturday of the month, UTC'),
  ('*/20 5 3 * * *', 'UTC', 'every 20 seconds of minute 5 of hour 3, UTC'),
  ('7 5,6 3 * * *', 'UTC', 'at 03:05:07 and 03:06:07 every day, UTC'),
  ('1,2 * 3 * * *', 'UTC', 'every minute from 03:00 to 03:59 at seconds 1 and 2, UTC'),
  ('*/30 5-10 * * * *', 'UTC', 'every 30 seconds of minutes 5 to 10 of every hour, UTC'),
  ('*/5 0 * * *', 'UTC', 'every 5 minutes from 00:00 to 00:55, UTC'),
  ('*/30 */2 * * *', 'UTC', 'every 30 minutes in hours 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20 and 22, UTC')
) as sentences (schedule, zone, english);

select is(
  rowcron.explain('0 30 2 * * *', 'Europe/Berlin'),
  'at 02:30 every day, Europe/Berlin; as it has seconds it follows elapsed time: not at all where the '
  'clock is put forward over it, twice where it is put back (without the seconds it would run once)',
  'six fields with a fixed time say what a change of time does'
);
select is(rowcron.explain(schedule, 'Europe/Berlin'), english, schedule || ' is told from what has no *')
from (values
  ('0 2 * * *', 'at 02:00 every day, Europe/Berlin'),
  ('*/60 2 * * *', 'at 02:00 every day, Europe/Berlin; as minute or hour begins with * it follows elapsed time: not at '
    'all where the clock is put forward over it, twice where it is put back (without the * it would run once)'),
  ('0 */60 2 * * *', 'at 02:00 every day, Europe/Berlin; as it has seconds it follows elapsed time: not at all where '
    'the clock is put forward over it, twice where it is put back (without the seconds it would run once)')
) as sentences (schedule, english);
select is(
  (select string_agg(split_part(rowcron._explain_job(rowcron._parse('*/60 2 * * *'), '*/60 2 * * *', 'Europe/Berlin', g, f), 'Berlin', 2), E'\n')
  from (values (1, 'run', null), (2, null, 'once'), (3, 'skip', 'twice')) as p (n, g, f)),
  '; as minute or hour begins with * it follows elapsed time: twice where it is put back (without the * it would run once); on_gap = run'
  || E'\n; as minute or hour begins with * it follows elapsed time: not at all where the clock is put forward over it '
  || E'(without the * it would run once); on_fold = once\n; on_gap = skip; on_fold = twice',
  'a policy takes the place of what it overrides, and of no more'
);
select is(
  rowcron.explain('H H * * *', 'UTC', 'alice.report'),
  'at ' || to_char(rowcron.next_run('H H * * *', '2026-01-01 00:00+00', seed => 'alice.report'), 'HH24:MI')
  || ' every day, UTC', 'with a seed H is explained as the job has it'
);
select matches(
  rowcron.explain('H H * * *'), '^for example at .*; H spreads jobs by owner and name$',
  'without a seed H is explained by an example'
);
select throws_ok($$select rowcron.explain('0 25 * * *')$$, 'RCSCH', 'hour "25" is outside 0-23');
select throws_ok(
  $$select rowcron.explain('0 3 * * *', 'CEST')$$, 'RCTZN', 'time zone "CEST" is not the name of a zone'
);
select is(rowcron.explain(null), 'only on demand', 'no schedule is only on demand');
set local intervalstyle to 'iso_8601';
set local lc_time to 'C';
select is(
  rowcron.explain('@every 1 month 2 days 3.5 seconds'), 'every 1 month 2 days 3.5 seconds, UTC',
  'intervals read alike under any IntervalStyle'
);
select * from finish();
rollback;
