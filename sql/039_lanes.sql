-- Lanes come and go. A lane is a queue and kind in which there is a job or a run: claims go through
-- the lanes instead of looking for queues among the runs. It is noted with its first job, and deleted
-- when nothing is in it any more, once a minute at most (chapter 085).

set role rowcron_owner;

create or replace function rowcron._keep_lane(queue text, kind text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set lock_timeout = '5s'
as $$
begin
  loop
    insert into rowcron.lane as l (queue, kind) values (_keep_lane.queue, _keep_lane.kind)
    on conflict on constraint lane_pkey do nothing;
    -- held until this transaction ends: a lane that nothing uses is deleted
    perform from rowcron.lane as l
    where l.queue = _keep_lane.queue and l.kind = _keep_lane.kind
    for key share;
    exit when found;
  end loop;
exception when lock_not_available then
  raise exception using
    errcode = '55P03',  -- lock_not_available
    message = format('the first %s job of queue "%s" has to wait', kind, queue),
    detail = 'Another one is being stored by a transaction that is still open.',
    hint = 'Try again.';
end
$$;
comment on function rowcron._keep_lane(text, text) is 'Notes a queue and kind in which there is a '
  'job, and keeps it from being forgotten until that can be seen.';

create or replace function rowcron._forget_lanes() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  unused rowcron.lane;
begin
  for unused in
    -- in most there is something that an index finds; the rest looks through all jobs
    select l.queue, l.kind from rowcron.lane as l
    where coalesce((
      select false from rowcron.agenda as a
      where a.queue = l.queue and a.kind = l.kind and a.next_run_at is not null
      order by a.next_run_at
      limit 1
    ), (
      select false from rowcron.run as r
      where r.queue = l.queue and r.kind = l.kind and r.state = 'ready'
      order by r.rank, r.due_at, r.id
      limit 1
    ), (
      select false from rowcron.run as r
      where r.queue = l.queue and r.kind = l.kind and r.state = 'waiting' and r.waits_for = 'time'
      order by r.due_at
      limit 1
    ), not exists (select from rowcron.agenda as a where a.queue = l.queue and a.kind = l.kind))
  loop
    perform from rowcron.lane as l
    where l.queue = unused.queue and l.kind = unused.kind for update skip locked;
    continue when not found;
    -- a new statement, so that it sees the job of whoever held the lane until just now
    delete from rowcron.lane as l
    where l.queue = unused.queue and l.kind = unused.kind
      and not exists (select from rowcron.agenda as a where a.queue = l.queue and a.kind = l.kind)
      and not exists (select from rowcron.run as r where r.queue = l.queue and r.kind = l.kind);
  end loop;
end
$$;
comment on function rowcron._forget_lanes() is
  'Deletes the lanes in which there is neither a job nor a run any more.';

create or replace function rowcron._recall_lanes() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set lock_timeout = '5ms'
as $$
declare
  missing record;
begin
  -- A run that was enqueued by a transaction that did not see its job move or go (chapter 059) may
  -- have come into a lane that was forgotten meanwhile.
  for missing in
    with recursive ready as (
      (
        select r.queue, r.kind from rowcron.run as r where r.state = 'ready'
        order by r.queue, r.kind limit 1
      )
      union all
      select n.queue, n.kind
      from ready as u
      cross join lateral (
        select r.queue, r.kind from rowcron.run as r
        where r.state = 'ready' and (r.queue, r.kind) > (u.queue, u.kind)
        order by r.queue, r.kind limit 1
      ) as n
    ), waiting as (
      (
        select r.queue, r.kind from rowcron.run as r where r.state = 'waiting' and r.waits_for = 'time'
        order by r.queue, r.kind limit 1
      )
      union all
      select n.queue, n.kind
      from waiting as u
      cross join lateral (
        select r.queue, r.kind from rowcron.run as r
        where r.state = 'waiting' and r.waits_for = 'time' and (r.queue, r.kind) > (u.queue, u.kind)
        order by r.queue, r.kind limit 1
      ) as n
    )
    select u.queue, u.kind from (select * from ready union select * from waiting) as u
    where not exists (select from rowcron.lane as l where l.queue = u.queue and l.kind = u.kind)
    -- each by itself, and not always the same ones first: who is noting some of them may be at it
    -- for long
    order by random()
    limit 100
  loop
    begin
      insert into rowcron.lane (queue, kind) values (missing.queue, missing.kind)
      on conflict do nothing;
    exception when lock_not_available then
      null;
    end;
  end loop;
end
$$;
comment on function rowcron._recall_lanes() is
  'Notes again lanes that were deleted before a run in them could be seen, a hundred at a time; not '
    'those that somebody is noting just now.';

reset role;
