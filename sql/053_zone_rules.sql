-- When the rules of a time zone change. The agenda holds instants, computed from local times by the
-- zone files that the server had then; after an update of them, or a move to a server with others,
-- the schedule may name other instants. So what reads a wall clock in a zone other than UTC is
-- computed anew from its high-water mark, at two moments. When it falls due, chapter 050 asks the
-- calendar once more, so that nothing runs at an instant that the schedule does not name today. And
-- after each start of the server (a session that has read a zone file does not read it again), an
-- installation and a release(), maintenance walks through the agenda: what is now to come earlier
-- would otherwise be late.
--
-- The walk takes so many rows a heartbeat, first those of each lane that are due soonest, then all by
-- their number; it writes only what differs. A row that somebody has locked is passed over and comes
-- again. Races as in chapter 050: rows are judged again under their lock.

set role rowcron_owner;

insert into rowcron.setting (name, value, description) values
  ('agenda_renewed', 'null', 'For which start of the server instants were computed anew, up to which '
    'job, and which jobs were locked then; null: begin.')
-- these chapters may compute otherwise, and whoever installs may have brought other zone files
on conflict (name) do update set value = 'null';

create or replace function rowcron._is_outdated(
  next_run_at timestamptz, parsed rowcron._parsed, after timestamptz, timezone text,
  anchor timestamptz, on_gap text, on_fold text
) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return next_run_at
    is distinct from rowcron._next(parsed, after, timezone, anchor, on_gap, on_fold);
exception when others then
  return false;  -- what cannot be computed is told when it falls due
end
$$;
comment on function rowcron._is_outdated(
  timestamptz, rowcron._parsed, timestamptz, text, timestamptz, text, text
) is
  'Whether the calendar names another next instant after an instant, its end apart.';

create or replace function rowcron._set_right(
  job_ids bigint[], at timestamptz, out due bigint[], out calls boolean
)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_hashjoin = off
set enable_mergejoin = off
as $$
begin
  with outdated as materialized (
    select
      a.job_id, a.next_run_at, n.next_at, (a.parsed).form = 'at' as once, j.name, j.owner, j.queue,
      j.kind
    from rowcron.agenda as a
    join rowcron.job as j on j.id = a.job_id
    cross join lateral rowcron._next_or_fault(j, a.parsed, a.high_water, a.runs_fired) as n
    where a.job_id = any (job_ids) and a.next_run_at is not null and n.fault is null
      and n.next_at is distinct from a.next_run_at
  ), moved as (
    update rowcron.agenda as a
    set next_run_at = o.next_at
    from outdated as o
    where a.job_id = o.job_id
  ), entries as (
    -- the only occurrence that it had
    insert into rowcron.ledger (
      job_id, job, owner, queue, kind, final, scheduled_for, first_scheduled_for, occurrences, due_at,
      finished_at, outcome, reason
    )
    select
      o.job_id, o.name, o.owner, o.queue, o.kind, true, o.next_run_at, o.next_run_at, 1,
      o.next_run_at, clock_timestamp(), 'missed',
      'the rules of its time zone changed, and under them it lies in the past or outside of the window'
    from outdated as o
    where o.once and o.next_at is null
  )
  select
    coalesce(array_agg(o.job_id) filter (where o.next_at <= at), '{}'),
    coalesce(bool_or(o.next_at < o.next_run_at and exists (
      select from rowcron.worker as w
      where w.asleep and w.expires_at > at and (w.wake_at is null or w.wake_at > o.next_at)
        and o.kind = any (w.kinds) and (w.queues is null or o.queue = any (w.queues))
    )), false)
  into due, calls
  from outdated as o;
end
$$;
comment on function rowcron._set_right(bigint[], timestamptz) is
  'Computes the next instants of these jobs, whose agenda the caller has locked, anew from their '
    'high-water marks. Returns those that are due by an instant, and whether a worker sleeps past '
    'one that comes earlier now.';

create or replace function rowcron._renew_agenda(at timestamptz, most integer) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  server constant text := extract(epoch from pg_postmaster_start_time());
  noted jsonb := rowcron._read_setting('agenda_renewed');
  begins boolean;
  after bigint;
  again bigint[];
  lot bigint[];
  outdated bigint[];
  ours bigint[];
  calls boolean;
begin
  if noted = jsonb_build_object('server', server, 'after', null, 'again', '[]'::jsonb) then
    return true;
  end if;
  noted := null;
  -- nobody waits for a release() that is not committed yet
  select s.value into noted from rowcron.setting as s where s.name = 'agenda_renewed'
  for update skip locked;
  if noted is null then
    return true;
  end if;
  begins := (noted ->> 'server' = server) is not true;
  if begins then
    noted := jsonb_build_object('after', 0, 'again', '[]'::jsonb);
  end if;
  again := array(select jsonb_array_elements(noted -> 'again')::bigint);
  if noted -> 'after' = 'null' then
    lot := again[1:most];
    again := again[most + 1:];
  else
    after := (noted ->> 'after')::bigint;
    lot := array(
      select a.job_id from rowcron.agenda as a where a.job_id > after order by a.job_id limit most
    );
    after := lot[most];
  end if;
  if begins and after is not null then
    after := 0;
    lot := array(
      select a.job_id
      from (select l.queue, l.kind, count(*) over () as lanes from rowcron.lane as l) as l
      cross join lateral (
        select g.job_id from rowcron.agenda as g
        where g.queue = l.queue and g.kind = l.kind and g.next_run_at > at
        order by g.next_run_at
        limit greatest(most / l.lanes, 1)
      ) as a
    );
  end if;
  outdated := array(
    select a.job_id
    from rowcron.agenda as a
    join rowcron.job as j on j.id = a.job_id
    where a.job_id = any (lot) and a.next_run_at > at and case
      when j.timezone <> 'UTC' and (a.parsed).form <> 'after' then rowcron._is_outdated(
        a.next_run_at, a.parsed, greatest(a.high_water, j.starts_at - interval '1 microsecond'),
        j.timezone, coalesce(j.starts_at, j.created_at), j.on_gap, j.on_fold)
    end
  );
  if outdated <> '{}' then
    ours := array(
      select a.job_id from rowcron.agenda as a where a.job_id = any (outdated)
      for update skip locked
    );
    select s.calls into calls from rowcron._set_right(ours, at) as s;
    if calls then
      perform rowcron._notify();
    end if;
    again := array(select unnest(again || outdated) except select unnest(ours));
  end if;
  update rowcron.setting as s
  set value = jsonb_build_object('server', server, 'after', after, 'again', again)
  where s.name = 'agenda_renewed';
  return after is null;  -- for those that are locked once a minute is enough
end
$$;
comment on function rowcron._renew_agenda(timestamptz, integer) is
  'After a start of the server, an installation or a release: computes the next instants of so many '
    'jobs anew by the zone files of today. Returns whether that were all.';

reset role;
