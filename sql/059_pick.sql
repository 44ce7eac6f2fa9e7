-- The pick: which of the ready runs a claim gets. One index range a queue, kind and band (chapter 058),
-- in the order priority (higher first), due_at, id; FOR UPDATE SKIP LOCKED, so that workers never
-- wait for each other. What is due later, backing off, over a limit or behind an earlier run is not
-- among the ready rows and costs a claim nothing.
--
-- Two SKIP LOCKED claims would overspend a count, so a job with max_running, and a paused job, is
-- decided under the lock of its agenda row, which also serialises with edits; a claim that does not
-- get that lock starts none of the job's runs. The surplus is parked (state waiting, for limit or
-- resume) and released by the next claim that finds room, so that no event can be forgotten.

set role rowcron_owner;

drop function if exists rowcron._pick(text[], text[], text[], integer);
drop function if exists rowcron._pick(rowcron._band[], text[], integer);
create function rowcron._pick(
  bands rowcron._band[], handlers text[], capacity integer,
  out picked tid[], out firsts bigint[], out limited bigint[], out gave_up boolean
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  ids bigint[];
  started bigint[] := '{}';
  seen bigint[] := '{}';
  more tid[];
  more_firsts bigint[];
  steps integer := 0;  -- those that brought something
  doubtful boolean;
  doubt boolean;
begin
  gave_up := false;
  -- More than one pass only when runs had to be held back: each parks a thousand of each job that it
  -- meets, so that who is foremost hides nobody for long, but no claim is busy with that alone.
  for pass in 1..16 loop
    picked := '{}';
    firsts := '{}';
    doubtful := false;
    -- a step is begun only when the ones before did not suffice
    for nth in 1..bands[cardinality(bands)].step loop
      with ready as materialized (
        select d.tid, d.id, d.job_id, d.owner, d.queue, d.kind, d.jobs_args
        from unnest(bands) as l
        cross join lateral (
          select r.ctid as tid, r.id, r.priority, r.due_at, r.job_id, r.owner, r.queue, r.kind,
            r.args is null as jobs_args
          from rowcron.run as r
          where r.queue = l.queue and r.kind = l.kind and r.state = 'ready'
            and (r.rank, r.due_at, r.id) >= (l.from_rank, l.from_due_at, l.from_id)
            and r.rank <= l.until_rank
            and (r.handler is null or handlers is null or r.handler = any (handlers))
            and (pass = 1 or r.id <> all (seen))
          order by r.rank, r.due_at, r.id
          limit capacity - cardinality(started) - cardinality(picked)
          for update skip locked
        ) as d
        where l.step = nth
        order by d.priority desc, d.due_at, d.id
        limit capacity - cardinality(started) - cardinality(picked)
      ), jobs as (
        select r.job_id, r.owner, r.queue, r.kind,
          coalesce(min(r.id) filter (where r.jobs_args), min(r.id)) as first
        from ready as r
        group by r.job_id, r.owner, r.queue, r.kind
      )
      select
        array(select r.tid from ready as r),
        array(select r.first from jobs as r),
        -- scalar subqueries: a join that was planned while there were few jobs reads all of them
        -- for each run
        exists (
          select from jobs as r
          where coalesce((
            select a.max_running is not null or not a.enabled
            from rowcron.agenda as a where a.job_id = r.job_id
          ), true) or coalesce((
            select j.connection is not null
              or (j.owner, j.kind, j.queue) is distinct from (r.owner, r.kind, r.queue)
              or not rowcron._may_own_kind(j.owner, j.kind)
            from rowcron.job as j where j.id = r.job_id
          ), true)
        )
      into more, more_firsts, doubt;
      picked := picked || more;
      firsts := firsts || more_firsts;
      steps := steps + (more <> '{}')::integer;
      doubtful := doubtful or doubt;
      exit when cardinality(started) + cardinality(picked) >= capacity;
    end loop;
    if not doubtful and pass = 1 and steps <= 1 then  -- two may each name a first of one job
      return;
    end if;
    ids := array(
      select r.id from rowcron.run as r where r.ctid = any (picked)
      order by r.priority desc, r.due_at, r.id
    );
    seen := seen || ids;
    if doubtful then
      ids := array(
        select i from unnest(rowcron._hold_back(ids, started)) as i where i = any (ids)
      );
    end if;
    started := started || ids;
    exit when not doubtful or cardinality(started) >= capacity;
    gave_up := pass = 16;
  end loop;
  picked := array(select r.ctid from rowcron.run as r where r.id = any (started));
  firsts := array(
    select coalesce(min(r.id) filter (where r.args is null), min(r.id))
    from rowcron.run as r where r.id = any (started) group by r.job_id
  );
  limited := array(
    select a.job_id from rowcron.agenda as a
    where a.job_id in (select r.job_id from rowcron.run as r where r.id = any (started))
      and a.max_running is not null
  );
end
$$;
comment on function rowcron._pick(rowcron._band[], text[], integer) is
  'Locks up to `capacity` ready runs of these bands that may start, best first, and returns where '
    'they stand; firsts: one of each job, with the job''s args if one has them; limited: the '
    'jobs whose runs count against a limit; gave_up: behind all that was held back there may be '
    'more.';

reset role;
