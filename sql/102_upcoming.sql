-- The next page of what is to come. The view rowcron.upcoming sorts everything, which a million
-- jobs make slow, and whatever numbers its rows must first have all of them. upcoming_page reads
-- little more than it shows: of each lane (queue and kind) the first entries of the two indexes by
-- which workers fire and promote, so that no further index has to be kept. What falls due together
-- at a page's end is read too, because priority decides among it (10,000 a lane at most, beyond
-- which it does not). Ready runs are found by priority first: of each the foremost, which tell up to
-- where the others have to be read. Parked runs are all read: they are few, except in a backlog.

set role rowcron_owner;

create or replace function rowcron.upcoming_page(count integer default 50, skip integer default 0)
returns table (
  "position" bigint,  -- noqa: RF06
  due_at timestamptz, job text, owner regrole, queue text, kind text,
  priority integer, job_id bigint, run_id bigint, scheduled_for timestamptz, source text
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
-- the size of a page decides the plan
set plan_cache_mode = force_custom_plan
set jit = off
-- as in claim(): only nested loops over indexes
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_bitmapscan = off
as $$
declare
  wanted constant integer := least(greatest(upcoming_page.count, 0), 10000)
    + least(greatest(upcoming_page.skip, 0), 100000);
begin
  return query
  -- where a page of each lane ends; materialized, because row security lets no subquery into an
  -- index condition
  with recursive edges as materialized (
    select
      l.queue, l.kind,
      coalesce((
        select e.next_run_at
        from rowcron.agenda as e
        where e.queue = l.queue and e.kind = l.kind and e.next_run_at is not null
        order by e.next_run_at
        offset wanted limit 1
      ), 'infinity') as agenda_ends_at,
      coalesce((
        select r.due_at
        from rowcron.run as r
        where r.queue = l.queue and r.kind = l.kind
          and r.state = 'waiting' and r.waits_for = 'time'
        order by r.due_at
        offset wanted limit 1
      ), 'infinity') as waiting_ends_at
    from rowcron.lane as l
  ), ranks as (
    -- each queue, kind and priority that is ready, and the foremost of it
    select l.queue, l.kind, f.rank, f.due_at
    from rowcron.lane as l
    cross join lateral (
      select r.rank, r.due_at
      from rowcron.run as r
      where r.queue = l.queue and r.kind = l.kind and r.state = 'ready'
      order by r.rank, r.due_at, r.id
      limit 1
    ) as f
    union all
    select p.queue, p.kind, f.rank, f.due_at
    from ranks as p
    cross join lateral (
      select r.rank, r.due_at
      from rowcron.run as r
      where r.queue = p.queue and r.kind = p.kind and r.state = 'ready' and r.rank > p.rank
      order by r.rank, r.due_at, r.id
      limit 1
    ) as f
  ), last_foremost as materialized (
    select coalesce((
      select p.due_at from ranks as p order by p.due_at offset wanted limit 1
    ), 'infinity') as due_at
  ), ready_edges as materialized (
    select p.queue, p.kind, p.rank, least(t.due_at, coalesce((
      select r.due_at
      from rowcron.run as r
      where r.queue = p.queue and r.kind = p.kind and r.state = 'ready' and r.rank = p.rank
        and r.due_at <= t.due_at
      order by r.due_at, r.id
      offset wanted limit 1
    ), 'infinity')) as ends_at
    from ranks as p
    cross join last_foremost as t
    where p.due_at <= t.due_at
  ), candidates as (
    select a.next_run_at as due_at, a.job_id, null::bigint as run_id
    from edges as l
    cross join lateral (
      (
        select e.next_run_at, e.job_id
        from rowcron.agenda as e
        where e.queue = l.queue and e.kind = l.kind and e.next_run_at < l.agenda_ends_at
        order by e.next_run_at
        limit wanted
      )
      union all
      (
        select e.next_run_at, e.job_id
        from rowcron.agenda as e
        where e.queue = l.queue and e.kind = l.kind and e.next_run_at = l.agenda_ends_at
        limit 10000
      )
    ) as a
    union all
    select w.due_at, w.job_id, w.id
    from edges as l
    cross join lateral (
      (
        select r.due_at, r.job_id, r.id
        from rowcron.run as r
        where r.queue = l.queue and r.kind = l.kind
          and r.state = 'waiting' and r.waits_for = 'time' and r.due_at < l.waiting_ends_at
        order by r.due_at
        limit wanted
      )
      union all
      (
        select r.due_at, r.job_id, r.id
        from rowcron.run as r
        where r.queue = l.queue and r.kind = l.kind
          and r.state = 'waiting' and r.waits_for = 'time' and r.due_at = l.waiting_ends_at
        limit 10000
      )
    ) as w
    union all
    select w.due_at, w.job_id, w.id
    from ready_edges as p
    cross join lateral (
      (
        select r.due_at, r.job_id, r.id
        from rowcron.run as r
        where r.queue = p.queue and r.kind = p.kind and r.state = 'ready' and r.rank = p.rank
          and r.due_at < p.ends_at
        order by r.due_at, r.id
        limit wanted
      )
      union all
      (
        select r.due_at, r.job_id, r.id
        from rowcron.run as r
        where r.queue = p.queue and r.kind = p.kind and r.state = 'ready' and r.rank = p.rank
          and r.due_at = p.ends_at
        order by r.due_at, r.id
        limit 10000
      )
    ) as w
    union all
    select r.due_at, r.job_id, r.id
    from rowcron.lane as l
    join rowcron.run as r on r.queue = l.queue and r.kind = l.kind
    where r.state = 'waiting' and r.waits_for in ('limit', 'overlap')
  ), nearest as materialized (
    select c.due_at, c.job_id, c.run_id
    from candidates as c
    order by c.due_at
    fetch first (wanted) rows with ties
  )
  select
    row_number() over (
      order by n.due_at, coalesce(r.priority, j.priority) desc, n.job_id, n.run_id
    ),
    n.due_at, coalesce(r.job, j.name), coalesce(r.owner, j.owner), coalesce(r.queue, j.queue),
    coalesce(r.kind, j.kind), coalesce(r.priority, j.priority), n.job_id, n.run_id,
    case when n.run_id is null then n.due_at else r.scheduled_for end,
    case when n.run_id is null then 'schedule' else 'run' end
  from nearest as n
  left join rowcron.job as j on j.id = n.job_id and n.run_id is null
  left join rowcron.run as r on r.id = n.run_id
  order by n.due_at, coalesce(r.priority, j.priority) desc, n.job_id, n.run_id
  offset greatest(upcoming_page.skip, 0)
  limit greatest(upcoming_page.count, 0);
end
$$;
comment on function rowcron.upcoming_page(integer, integer)
  is 'A page of rowcron.upcoming, in its order and with each row''s position, without sorting all '
    'that is to come. At most 10,000 rows, from 100,000 at most.';

reset role;
