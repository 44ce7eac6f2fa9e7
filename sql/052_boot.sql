-- Jobs that run when PostgreSQL has started: @reboot. They have no next instant; what has been
-- accounted for is the start itself, in the agenda's booted_at. A paused job is accounted for, too:
-- how many starts its pause has passed over nobody could tell later. Races as in chapter 050. And
-- what a claim fires: a chunk of each of its queues and kinds.

set role rowcron_owner;

create or replace function rowcron._fire_boot(queue text, kind text, started timestamptz,
  at timestamptz) returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  fired integer;
begin
  with due as materialized (
    select a.job_id, a.enabled
    from rowcron.agenda as a
    where a.queue = _fire_boot.queue and a.kind = _fire_boot.kind and a.booted_at < started
    limit 256
    for update skip locked
  ), allowed as materialized (
    select j.*, d.enabled as fires, (select min(r.id) from rowcron.run as r where r.job_id = j.id
      and r.scheduled_for is not null) as live_run_id
    from due as d
    join rowcron.job as j on j.id = d.job_id
    join rowcron.agenda as a on a.job_id = d.job_id
    where (j.max_runs is null or a.runs_fired < j.max_runs)
      and (j.starts_at is null or j.starts_at <= started)
      and (j.ends_at is null or j.ends_at > started)
  ), moved as (
    update rowcron.agenda as a
    set
      booted_at = started,
      last_run_at = case when j.runs then started else a.last_run_at end,
      runs_fired = a.runs_fired + coalesce(j.runs, false)::integer,
      high_water = greatest(a.high_water, started)
    from due as d
    left join (select w.id, w.fires and (w.live_run_id is null or w.on_overlap <> 'skip') as runs
      from allowed as w) as j on j.id = d.job_id
    where a.job_id = d.job_id
  ), runs as (
    insert into rowcron.run (
      job_id, job, owner, queue, kind, handler, state, waits_for, priority, due_at, scheduled_for
    )
    select
      j.id, j.name, j.owner, j.queue, j.kind, rowcron._handler(j.kind, j.command, j.connection),
      case when j.live_run_id is null or j.on_overlap = 'allow' then 'ready' else 'waiting' end,
      case when j.live_run_id is not null and j.on_overlap <> 'allow' then 'overlap' end,
        j.priority, at, started
    from allowed as j
    where j.fires and (j.live_run_id is null or j.on_overlap <> 'skip')
    on conflict do nothing
  ), entries as (
    insert into rowcron.ledger (
      job_id, job, owner, queue, kind, final, scheduled_for, due_at, finished_at, outcome, reason
    )
    select
      j.id, j.name, j.owner, j.queue, j.kind, true, started, started, clock_timestamp(), 'skipped',
      case when j.fires then format('run %s is still live', j.live_run_id) else 'paused' end
    from allowed as j
    where not j.fires or (j.live_run_id is not null and j.on_overlap = 'skip')
  )
  select count(*) into fired from due as d where d.enabled;
  return fired;
end
$$;
comment on function rowcron._fire_boot(text, text, timestamptz, timestamptz) is
  'Fires the @reboot jobs of one queue and kind that have not run since PostgreSQL started, and '
    'writes down those that are paused as skipped; returns how many it fired.';

drop function if exists rowcron._fire(
  text[], text[], timestamptz, timestamptz, timestamptz, integer, integer, uuid, uuid, text[]
);
create or replace function rowcron._fire(
  queues text[], kinds text[], at timestamptz, booted timestamptz, since timestamptz, chunk integer,
  room integer, worker_id uuid, seal uuid, handlers text[], ahead boolean,
  out complete boolean, out oldest timestamptz, out started bigint[], out readied integer
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  lane record;
  share integer;
  lot record;
begin
  complete := true;
  started := '{}';
  readied := 0;
  for lane in
    select l.queue, l.kind, l.oldest, l.boots, count(l.oldest) over () as how_many
    from (
      select q.queue, q.kind, a.oldest, exists (
        select from rowcron.agenda as a where a.queue = q.queue and a.kind = q.kind
          and a.booted_at < booted
      ) as boots
      from unnest(queues, kinds) as q (queue, kind)
      cross join lateral (
        select min(g.next_run_at) as oldest from rowcron.agenda as g
        where g.queue = q.queue and g.kind = q.kind
          and g.next_run_at <= at and g.next_run_at >= coalesce(since, '-infinity')
      ) as a
    ) as l
    where l.oldest is not null or l.boots
  loop
    if lane.oldest is not null then
      -- of several lanes each one has its share, and what it fires starts at once or is ready
      share := room;
      if lane.how_many > 1 then
        share := room / lane.how_many;
        if share >= 64 then
          chunk := share;
        else
          share := 0;  -- so few must be the best of all
        end if;
      end if;
      select f.fired, f.started, f.readied into lot
      from rowcron._fire_lane(lane.queue, lane.kind, at, chunk, since, share, worker_id, seal,
        handlers, ahead) as f;
      complete := complete and lot.fired < chunk;
      oldest := least(oldest, lane.oldest);
      started := started || lot.started;
      readied := readied + coalesce(lot.readied, 0);
    end if;
    if lane.boots then
      readied := readied + rowcron._fire_boot(lane.queue, lane.kind, booted, at);
    end if;
  end loop;
end
$$;
comment on function rowcron._fire(
  text[], text[], timestamptz, timestamptz, timestamptz, integer, integer, uuid, uuid, text[], boolean
) is
  'Fires at most `chunk` jobs of each of these lanes, and @reboot jobs since PostgreSQL was booted; '
    'returns whether these were all that are due, the earliest instant for which it fired, which '
    'runs it claimed with this seal, as many as there is room for, and how many others it made '
    'ready, or more.';

reset role;
