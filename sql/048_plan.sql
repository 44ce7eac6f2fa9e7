-- What becomes of a job's occurrences that are due: which of them run, which are missed and why, and
-- what follows, by on_missed, missed_grace, max_missed and max_runs. Nothing is written here. A year of
-- downtime of a job each second is counted, not walked through.

set role rowcron_owner;

do $$
begin
  if to_regtype('rowcron._plan') is null then
    create type rowcron._plan as (
      following timestamptz,
      high_water timestamptz,
      runs timestamptz[],
      missed_first timestamptz[],
      missed_last timestamptz[],
      missed_count bigint[],
      missed_why text[]
    );
  end if;
end
$$;
comment on type rowcron._plan is
  'What becomes of a job''s occurrences that are due: those to run, in order; ranges that are '
    'missed, with reasons; what follows.';

create or replace function rowcron._plan_due(job rowcron.job, entry rowcron.agenda, at timestamptz)
returns rowcron._plan
language plpgsql stable
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'  -- missed_grace may have days
as $$
declare
  plan rowcron._plan;
  first timestamptz := entry.next_run_at;
  anchor timestamptz := coalesce(job.starts_at, job.created_at);
  upto timestamptz := least(at, job.ends_at - interval '1 microsecond');
  due bigint := 1;
  wanted bigint;
  old bigint := 0;
begin
  plan.high_water := first;
  if (entry.parsed).form not in ('after', 'at') then
    plan.following := rowcron._next_in_window(job, entry.parsed, first, entry.runs_fired);
    if plan.following <= at then
      due := 1 + rowcron._count(entry.parsed, first, upto, job.timezone, anchor, job.on_gap,
        job.on_fold);
      plan.high_water := rowcron._previous(entry.parsed, upto, job.timezone, anchor, job.on_gap,
        job.on_fold);
      plan.following := rowcron._next_in_window(job, entry.parsed, plan.high_water,
        entry.runs_fired);
    end if;
  end if;

  if job.on_missed = 'skip' then
    -- those older than the grace are one entry; of the rest the last runs
    if plan.high_water < at - job.missed_grace then
      old := due;
    elsif due > 1 then
      old := due - rowcron._count(
        entry.parsed, greatest(first, at - job.missed_grace) - interval '1 microsecond', upto,
        job.timezone, anchor, job.on_gap, job.on_fold);
    end if;
    if old > 0 then
      plan.missed_first := array[first];
      plan.missed_last := array[case when old = 1 then first when old = due then plan.high_water
        else rowcron._previous(entry.parsed, at - job.missed_grace - interval '1 microsecond',
          job.timezone, anchor, job.on_gap, job.on_fold) end];
      plan.missed_count := array[old];
      plan.missed_why := array['older than missed_grace when found'];
    end if;
  end if;

  wanted := case when old = due then 0 when job.on_missed = 'all' then least(due, job.max_missed)
    else 1 end;
  wanted := least(wanted, job.max_runs - entry.runs_fired);
  if wanted = 0 and (entry.parsed).form = 'after' then
    -- no run will end from which to count
    plan.following := rowcron._next_in_window(job, entry.parsed, at, entry.runs_fired);
  end if;
  if wanted > 0 then
    plan.runs := array[plan.high_water];
    for i in 2..wanted loop
      plan.runs := rowcron._previous(entry.parsed, plan.runs[1] - interval '1 microsecond',
        job.timezone, anchor, job.on_gap, job.on_fold) || plan.runs;
    end loop;
  end if;
  if due - old > wanted then
    plan.missed_first := plan.missed_first || case when old = 0 then first else rowcron._next(
      entry.parsed, plan.missed_last[1], job.timezone, anchor, job.on_gap, job.on_fold) end;
    plan.missed_last := plan.missed_last || rowcron._previous(
      entry.parsed, plan.runs[1] - interval '1 microsecond', job.timezone, anchor, job.on_gap,
        job.on_fold);
    plan.missed_count := plan.missed_count || (due - old - wanted);
    plan.missed_why := plan.missed_why || case when job.on_missed <> 'all'
      then 'only the latest of several that were due runs'
      when wanted = job.max_missed then 'more than max_missed were due'
        else 'more than max_runs were due' end;
  end if;
  if plan.following <= plan.high_water then
    -- the agenda would refuse it, and with it the jobs that are fired in the same statement
    raise exception 'what follows % is not after it', plan.high_water;
  end if;
  return plan;
exception when others then
  plan := null;
  plan.high_water := first;
  plan.missed_first := array[first];
  plan.missed_last := array[first];
  plan.missed_count := array[1];
  plan.missed_why := array['schedule cannot be computed: ' || sqlerrm];
  return plan;
end
$$;
comment on function rowcron._plan_due(rowcron.job, rowcron.agenda, timestamptz) is
  'Decides by on_missed, missed_grace, max_missed and max_runs what becomes of a job''s '
    'occurrences due by an instant.';

reset role;
