-- Claiming ahead: who comes a little early can have everything ready for the instant. The claim is made
-- for it, in a transaction that is not committed before it has come: until then nobody sees it, an
-- edit or a pause of a job that is in it waits, and if it does not come to that, nothing has happened.
-- What the end of an earlier run may change until then is left for a claim at the instant.

set role rowcron_owner;

create or replace function rowcron._due_soon(queues text[], kinds text[], at timestamptz)
returns timestamptz
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  lane record;
  due timestamptz;
  timed timestamptz;
begin
  for lane in
    select l.queue, l.kind from rowcron.lane as l
    where l.kind = any (_due_soon.kinds) and (_due_soon.queues is null or l.queue = any (_due_soon.queues))
  loop
    due := least(due, (
      select min(a.next_run_at) from rowcron.agenda as a
      where a.queue = lane.queue and a.kind = lane.kind
        and a.next_run_at > at and a.next_run_at <= at + interval '0.25 seconds'
    ));
    timed := least(timed, (
      select min(r.due_at) from rowcron.run as r
      where r.queue = lane.queue and r.kind = lane.kind and r.state = 'waiting'
        and r.waits_for = 'time' and r.due_at > at and r.due_at <= at + interval '0.25 seconds'
    ));
  end loop;
  -- what only waits for its time may be better than what is fired, and is not readied ahead
  return case when timed <= due then null else due end;
end
$$;
comment on function rowcron._due_soon(text[], text[], timestamptz) is
  'The next instant, at most 0.25 s ahead, for which there is something to fire and nothing else to '
    'do; null if there is none.';

create or replace function rowcron._lead(queues text[], kinds text[], due timestamptz)
returns interval
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  fires integer;
begin
  select coalesce(sum(f.n), 0) into fires
  from rowcron.lane as l
  cross join lateral (
    select count(*) as n from (
      select from rowcron.agenda as a
      where a.queue = l.queue and a.kind = l.kind and a.next_run_at = due
      limit 1000
    ) as a
  ) as f
  where l.kind = any (_lead.kinds) and (_lead.queues is null or l.queue = any (_lead.queues));
  return case when fires > 0 then
    least(interval '20 ms' + fires * interval '60 microseconds', interval '0.1 seconds') end;
end
$$;
comment on function rowcron._lead(text[], text[], timestamptz) is
  'How long before an instant a claim ahead has to begin, by what is to be fired then; null if '
    'nothing is.';

reset role;
