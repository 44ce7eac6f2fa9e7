-- What a page asks that changes by itself: what waits, what is next, what ended last. None of it reads
-- all that waits or all that has been: with a million of either the first rows are found through the
-- indexes by which workers work.
--
-- Row security lets nobody read a lane's first rows past other people's. An author whose runs are
-- few is therefore answered by its jobs, one after the other; whoever sees all, or has many runs of
-- its own, by the lanes.

set role rowcron_owner;

create or replace function rowcron._sees_all() returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select pg_has_role(current_user, 'rowcron_viewer', 'usage')
    or pg_has_role(current_user, 'rowcron_operator', 'usage')
$$;
comment on function rowcron._sees_all()
  is 'Whether row security hides no job and no run from this role.';

create or replace function rowcron._has_few_jobs() returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
as $$
  select not rowcron._sees_all()
    and (select count(*) from (select from rowcron.job limit 1001) as j) <= 1000
$$;
comment on function rowcron._has_few_jobs()
  is 'Whether this role sees its own jobs alone, and these are few.';

create or replace function rowcron._has_few_runs() returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
begin
  return rowcron._has_few_jobs() and (
    select coalesce(max(c.n), 0) < 1000 and coalesce(sum(c.n), 0) < 20000
    from rowcron.job as j
    cross join lateral (
      select count(*) as n
      from (select from rowcron.run as r where r.job_id = j.id and r.state <> 'running' limit 1000)
        as r
    ) as c
  );
end
$$;
comment on function rowcron._has_few_runs()
  is 'Whether this role sees its own jobs alone, and these and their runs are few.';

create or replace function rowcron.waiting_page(count integer default 100)
returns table (
  run_id bigint, job text, owner regrole, job_id bigint, attempt integer, due_at timestamptz,
  state text, waits_for text
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
set jit = off
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_bitmapscan = off
as $$
declare
  wanted constant integer := least(greatest(waiting_page.count, 0), 10000);
begin
  if rowcron._has_few_runs() then
    return query
    select r.id, r.job, r.owner, r.job_id, r.attempt, r.due_at, r.state, r.waits_for
    from rowcron.job as j
    -- a limit that is not reached: by job, whatever the planner takes for cheaper
    cross join lateral (
      select x.* from rowcron.run as x where x.job_id = j.id and x.state <> 'running' limit 1000
    ) as r
    where r.state = 'ready' or r.waits_for <> 'time'
    order by r.due_at, r.id
    limit wanted;
    return;
  end if;
  return query
  select w.id, w.job, w.owner, w.job_id, w.attempt, w.due_at, w.state, w.waits_for
  from (
    select r.*
    from rowcron.lane as l
    cross join lateral (
      select x.*
      from rowcron.run as x
      where x.queue = l.queue and x.kind = l.kind and x.state = 'ready'
      order by x.rank, x.due_at, x.id
      limit wanted
    ) as r
    union all
    select r.*
    from rowcron.lane as l
    cross join lateral (
      select x.*
      from rowcron.run as x
      where x.queue = l.queue and x.kind = l.kind
        and x.state = 'waiting' and x.waits_for in ('limit', 'overlap')
      order by x.job_id, x.due_at
      limit wanted
    ) as r
    union all
    (
      select x.*
      from rowcron.run as x
      where x.state = 'waiting' and x.waits_for = 'resume'
      order by x.job_id
      limit wanted
    )
  ) as w
  order by w.due_at, w.id
  limit wanted;
end
$$;
comment on function rowcron.waiting_page(integer)
  is 'Runs that could start but for a worker, a limit, an earlier run or a pause: of each lane the '
    'first ones, in all at most so many (10,000).';

create or replace function rowcron.next_page(count integer, after timestamptz)
returns table (
  due_at timestamptz, job text, owner regrole, priority integer, job_id bigint, run_id bigint,
  source text
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
set jit = off
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_bitmapscan = off
as $$
declare
  wanted constant integer := least(greatest(next_page.count, 0), 1000);
  few_jobs constant boolean := rowcron._has_few_jobs();
  few_runs constant boolean := rowcron._has_few_runs();
begin
  return query
  with candidates as (
    select a.next_run_at as due_at, a.job_id, null::bigint as run_id
    from rowcron.job as j
    cross join lateral (
      select e.next_run_at, e.job_id from rowcron.agenda as e where e.job_id = j.id limit 1
    ) as a
    where few_jobs and a.next_run_at > after
    union all
    select r.due_at, r.job_id, r.id
    from rowcron.job as j
    cross join lateral (
      select x.due_at, x.job_id, x.id, x.waits_for
      from rowcron.run as x where x.job_id = j.id and x.state <> 'running' limit 1000
    ) as r
    where few_runs and r.waits_for = 'time' and r.due_at > after
    union all
    select a.next_run_at, a.job_id, null
    from rowcron.lane as l
    cross join lateral (
      select e.next_run_at, e.job_id
      from rowcron.agenda as e
      where e.queue = l.queue and e.kind = l.kind and e.next_run_at > after
      order by e.next_run_at
      limit wanted
    ) as a
    where not few_jobs
    union all
    select w.due_at, w.job_id, w.id
    from rowcron.lane as l
    cross join lateral (
      select r.due_at, r.job_id, r.id
      from rowcron.run as r
      where r.queue = l.queue and r.kind = l.kind
        and r.state = 'waiting' and r.waits_for = 'time' and r.due_at > after
      order by r.due_at
      limit wanted
    ) as w
    where not few_runs
  ), nearest as materialized (
    select c.due_at, c.job_id, c.run_id
    from candidates as c
    order by c.due_at
    limit wanted
  )
  select
    n.due_at, coalesce(r.job, j.name), coalesce(r.owner, j.owner),
    coalesce(r.priority, j.priority), n.job_id, n.run_id,
    case when n.run_id is null then 'schedule' else 'run' end
  from nearest as n
  left join rowcron.job as j on j.id = n.job_id and n.run_id is null
  left join rowcron.run as r on r.id = n.run_id
  order by n.due_at, coalesce(r.priority, j.priority) desc, n.job_id, n.run_id;
end
$$;
comment on function rowcron.next_page(integer, timestamptz)
  is 'What becomes due first after an instant, in order: of what falls due together at the page''s '
    'end any, unlike rowcron.upcoming_page. At most 1,000 rows.';

create or replace function rowcron.ended_page(count integer, since timestamptz)
returns setof rowcron.ledger
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
set jit = off
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_bitmapscan = off
as $$
declare
  wanted constant integer := least(greatest(ended_page.count, 0), 1000);
begin
  if not rowcron._has_few_jobs() then
    return query
    select l.*
    from rowcron.ledger as l
    where l.final and l.finished_at > since
    order by l.finished_at desc
    limit wanted;
  else
    return query
    -- of a job whose last entry is not among the last ones of all none is
    with newest as materialized (
      select j.id, n.name, e.finished_at
      from rowcron.job as j
      cross join lateral rowcron._names_borne(j.id, j.name) as n (name)
      cross join lateral (
        select l.finished_at
        from rowcron.ledger as l
        where l.job = n.name and l.job_id = j.id and l.final and l.finished_at > since
        order by l.finished_at desc
        limit 1
      ) as e
      order by e.finished_at desc
      limit wanted
    )
    select e.*
    from newest as n
    cross join lateral (
      select l.*
      from rowcron.ledger as l
      where l.job = n.name and l.job_id = n.id and l.final and l.finished_at > since
      order by l.finished_at desc
      limit wanted
    ) as e
    order by e.finished_at desc
    limit wanted;
  end if;
end
$$;
comment on function rowcron.ended_page(integer, timestamptz)
  is 'The last entries since an instant; for an author of jobs that exist.';

reset role;
