-- Instants that other zone files have left in the agenda: put right when due, and by maintenance.

begin;
select plan(33);
set local timezone to 'UTC';
set local client_min_messages to error;

create role tap_ann;
grant rowcron_user to tap_ann;
create table public.tap_cases (name text, schedule text, timezone text, starts_at timestamptz, high_water timestamptz, noted timestamptz, truth timestamptz);
insert into public.tap_cases values
  -- Casablanca is at +00 then, and other files had +01
  ('a fixed time', '27 14 * * *', 'Africa/Casablanca', null, '2030-01-20 00:00Z', '2030-01-20 13:27Z', '2030-01-20 14:27Z'),
  ('one that comes earlier', '0 12 1 7 *', 'Europe/Berlin', null, '2030-01-20 00:00Z', '2030-07-01 11:00Z', '2030-07-01 10:00Z'),
  ('before its window', '0 3 * * *', 'Europe/Berlin', '2030-03-01 00:00Z', '2030-01-20 00:00Z', '2030-03-01 03:00Z', '2030-03-01 02:00Z'),
  ('a repetition by the day', '@every 1 day', 'Europe/Berlin', '2030-03-29 12:00Z', '2030-03-31 00:00Z', '2030-03-31 12:00Z', '2030-03-31 11:00Z'),
  ('an instant of the zone', '@at 2030-07-01 12:00', 'Europe/Berlin', null, '2030-01-20 00:00Z', '2030-07-01 11:00Z', '2030-07-01 10:00Z'),
  ('right', '0 3 * * *', 'Europe/Berlin', null, '2030-01-20 00:00Z', '2030-01-20 02:00Z', '2030-01-20 02:00Z'),
  ('right, elapsed', '@every 90 minutes', 'Europe/Berlin', '2030-01-20 00:00Z', '2030-01-20 00:00Z', '2030-01-20 01:30Z', '2030-01-20 01:30Z'),
  ('in UTC, moved by hand', '0 3 * * *', 'UTC', null, '2030-01-20 00:00Z', '2030-01-20 04:00Z', '2030-01-20 04:00Z'),
  ('from the end', '@after 1 day', 'Europe/Berlin', null, '2030-01-20 00:00Z', '2030-01-20 04:00Z', '2030-01-20 04:00Z');
grant select on public.tap_cases to tap_ann;
set local role tap_ann;
insert into rowcron.job (name, queue, schedule, timezone, starts_at, command)
select c.name, c.name, c.schedule, c.timezone, c.starts_at, 'select 1' from public.tap_cases as c;
reset role;
create function public.tap_reset() returns void language sql as $$
  update rowcron.agenda as a set high_water = c.high_water, next_run_at = c.noted, runs_fired = 0, last_run_at = null
  from rowcron.job as j join public.tap_cases as c using (name) where j.id = a.job_id;
  update rowcron.setting set value = 'null' where name = 'agenda_renewed'
$$;
create function public.tap_next(name text) returns timestamptz language sql as $$
  select a.next_run_at from rowcron.agenda as a join rowcron.job as j on j.id = a.job_id where j.name = tap_next.name
$$;
create function public.tap_fire(name text, at timestamptz, ahead boolean default false) returns text language sql as $$
  select format('%s fired, %s ready', f.fired, f.readied) from rowcron._fire_lane(tap_fire.name, 'sql', at, 100, ahead => tap_fire.ahead) as f
$$;
create function public.tap_renew(most integer default 100) returns boolean language plpgsql as $$
begin
  for i in 1..100 loop
    exit when rowcron._renew_agenda('2030-01-20 00:00:01Z', most);
  end loop;
  return rowcron._renew_agenda('2030-01-20 00:00:01Z', most);
end
$$;

-- maintenance
select public.tap_reset();
create temp table tap_written as select a.job_id, a.ctid as place from rowcron.agenda as a;
select ok(public.tap_renew(), 'the walk through the agenda comes to its end');
select is(public.tap_next(c.name), c.truth, 'computed anew: ' || c.name) from public.tap_cases as c order by c.name;
select is(
  (select array_agg(j.name order by j.name) from rowcron.agenda as a join rowcron.job as j on j.id = a.job_id join tap_written as w on w.job_id = a.job_id where w.place = a.ctid),
  '{"from the end","in UTC, moved by hand",right,"right, elapsed"}', 'only rows that differ are written');
select public.tap_reset();
select is((select rowcron._renew_agenda('2030-01-20 00:00:01Z', 2)), false, 'in portions it is not all at once');
select ok(public.tap_renew(2), 'but at last');
select is((select count(*) from public.tap_cases as c where public.tap_next(c.name) = c.truth), 9::bigint, 'and so are all of them');
update rowcron.agenda as a set next_run_at = c.noted from rowcron.job as j join public.tap_cases as c using (name) where j.id = a.job_id;
select ok(public.tap_renew(), 'nothing is to be done again');
select is((select count(*) from public.tap_cases as c where public.tap_next(c.name) = c.noted), 9::bigint, 'for the same start of the server');
update rowcron.setting set value = jsonb_set(value, '{server}', '"1893456000.5"') where name = 'agenda_renewed';
select public.tap_renew();
select is((select count(*) from public.tap_cases as c where public.tap_next(c.name) = c.truth), 9::bigint, 'after another start it is');
set local role rowcron_owner;
select rowcron._bind();
reset role;
select is((select value from rowcron.setting where name = 'agenda_renewed'), 'null', 'and after a release');
select public.tap_reset();
update rowcron.setting set value = '"1970-01-01T00:00:00Z"' where name = 'maintained_at';
select rowcron._maintain('2030-01-20 00:00:01Z');
select is(public.tap_next('a fixed time'), '2030-01-20 14:27Z', 'a worker''s maintenance does it');

-- what is due soonest comes first
select public.tap_reset();
update rowcron.agenda set queue = 'many', next_run_at = next_run_at + interval '1 second' where queue <> 'in UTC, moved by hand';
select rowcron._keep_lane('many', 'sql');
delete from rowcron.lane where queue <> 'many';
select is(rowcron._renew_agenda('2030-01-20 00:00:01Z', 4), false, 'of many');
select is(array(select c.name from public.tap_cases as c where public.tap_next(c.name) = c.truth and c.truth <> c.noted order by 1), '{"a fixed time"}', 'those that are due soonest are put right first');
select is(public.tap_next('right, elapsed'), '2030-01-20 01:30Z', 'in one portion');
update rowcron.agenda as a set queue = j.name from rowcron.job as j where j.id = a.job_id;

-- when due
select public.tap_reset();
select is(public.tap_fire('a fixed time', '2030-01-20 13:27Z'), '1 fired, 0 ready', 'an instant that is none today fires nothing');
select is((select (a.high_water, a.runs_fired, a.next_run_at)::text from rowcron.agenda as a where a.queue = 'a fixed time'),
  ('2030-01-20 00:00Z'::timestamptz, 0::bigint, '2030-01-20 14:27Z'::timestamptz)::text, 'and moves nothing but itself');
select is(public.tap_fire('a fixed time', '2030-01-20 14:27Z'), '1 fired, 1 ready', 'the right one does');
select is(public.tap_fire('one that comes earlier', '2030-07-01 11:00Z'), '1 fired, 1 ready', 'what the rules of today name earlier is fired late, at once');
select is(array(select r.scheduled_for from rowcron.run as r order by 1), '{2030-01-20 14:27Z,2030-07-01 10:00Z}', 'each for the instant that is named today');
select is(public.tap_fire('in UTC, moved by hand', '2030-01-20 04:00Z') || public.tap_fire('from the end', '2030-01-20 04:00Z'),
  '1 fired, 1 ready1 fired, 1 ready', 'UTC and @after are not asked for');

-- the only instant of an @at is gone
update rowcron.agenda as a set high_water = '2030-07-01 10:30Z', next_run_at = '2030-07-01 11:00Z' where a.queue = 'an instant of the zone';
select is(public.tap_fire('an instant of the zone', '2030-07-01 11:00Z'), '1 fired, 0 ready', 'an @at that has passed under the rules of today');
select is((select format('%s %s %s %s', l.outcome, l.final, l.scheduled_for, l.occurrences) from rowcron.ledger as l where l.queue = 'an instant of the zone'),
  'missed t 2030-07-01 11:00:00+00 1', 'is an entry');
select is(public.tap_next('an instant of the zone'), null, 'and over');

-- a zone that is not there any more is told as ever
set local session_replication_role to replica;
update rowcron.job set timezone = 'Atlantis/Capital' where name = 'right';
set local session_replication_role to origin;
update rowcron.setting set value = 'null' where name = 'agenda_renewed';
select ok(public.tap_renew(), 'a zone that is gone stops no walk');
select public.tap_fire('right', '2030-01-20 02:00Z');
select matches((select l.reason from rowcron.ledger as l where l.queue = 'right'), 'cannot be computed', 'and is told when it falls due');

select * from finish();
rollback;
