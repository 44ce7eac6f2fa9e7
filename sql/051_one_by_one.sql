-- When firing many jobs in one statement fails, and fails again where each schedule is computed with
-- care (chapter 050), they are fired one by one, and a job that cannot be fired is taken off the
-- agenda, with an entry that says why: whatever it is that is wrong with one job, no other waits for
-- it. Slow, but for once. What is not about one job (no memory, no room on the disk, a lock, a
-- shutdown) is raised, and all stay due.

set role rowcron_owner;

create or replace function rowcron._take_off(job_id bigint, why text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  with locked as materialized (
    select a.job_id, a.next_run_at from rowcron.agenda as a
    where a.job_id = _take_off.job_id and a.next_run_at is not null
    for update skip locked
  ), off as (
    update rowcron.agenda as a set next_run_at = null, high_water = l.next_run_at
    from locked as l
    where a.job_id = l.job_id
  )
  insert into rowcron.ledger (
    job_id, job, owner, queue, kind, final, scheduled_for, first_scheduled_for, due_at,
    finished_at, outcome, reason
  )
  select
    j.id, j.name, j.owner, j.queue, j.kind, true, l.next_run_at, l.next_run_at, l.next_run_at,
    clock_timestamp(), 'missed', 'cannot be fired: ' || left(why, 900)
  from locked as l
  join rowcron.job as j on j.id = l.job_id;
end
$$;
comment on function rowcron._take_off(bigint, text) is
  'Takes a job off the agenda until it is edited or resumed; its occurrence is missed for this reason.';

create or replace function rowcron._fire_one_by_one(
  queue text, kind text, at timestamptz, chunk integer, since timestamptz, room integer,
  worker_id uuid, seal uuid, handlers text[], ahead boolean,
  out fired integer, out started bigint[], out readied integer
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  job_ids bigint[] := array(
    select a.job_id
    from rowcron.agenda as a
    where a.queue = _fire_one_by_one.queue and a.kind = _fire_one_by_one.kind
      and a.next_run_at <= _fire_one_by_one.at and a.next_run_at >= coalesce(since, '-infinity')
    order by a.next_run_at
    limit chunk
  );
  due tid[];
  lot record;
begin
  fired := cardinality(job_ids);
  started := '{}';
  readied := 0;
  for nth in 1..fired loop
    begin
      due := array(
        select a.ctid from rowcron.agenda as a
        where a.job_id = job_ids[nth] and a.next_run_at <= _fire_one_by_one.at
        for update skip locked
      );
      continue when due = '{}';
      select f.started, f.readied into lot
      from rowcron._fire_due(due, at, true, room - cardinality(started), worker_id, seal, handlers,
        ahead) as f;
      started := started || lot.started;
      readied := readied + lot.readied;
    exception when others then
      if left(sqlstate, 2) in ('25', '40', '53', '55', '57', '58', 'XX') then
        raise;
      end if;
      perform rowcron._take_off(job_ids[nth], sqlerrm);
    end;
  end loop;
end
$$;
comment on function rowcron._fire_one_by_one(
  text, text, timestamptz, integer, timestamptz, integer, uuid, uuid, text[], boolean
) is
  'As _fire_lane, but each job in a subtransaction of its own; those that cannot be fired are taken '
    'off the agenda.';

reset role;
