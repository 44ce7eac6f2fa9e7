-- What is to come of many jobs, counted by the part of a stretch of time (chapter 104): for a picture
-- with a place for each part. planned() tells jobs apart; planned_load() does not, and counts jobs of
-- one schedule once for all of them.

set role rowcron_owner;

drop function if exists rowcron.planned(bigint, timestamptz);

create or replace function rowcron._outlook_parts(
  job rowcron.job, entry rowcron.agenda, "from" timestamptz, until timestamptz, parts integer
) returns table (state text, part integer, n bigint)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
rows 100
as $$
declare
  anchor constant timestamptz := coalesce(job.starts_at, job.created_at);
  step_us constant bigint := extract(epoch from until - "from") * 1000000 / parts;
  begins record;
  stretch record;
  low timestamptz;
  high timestamptz;
  middle timestamptz;
  planned bigint;
begin
  until := least(until, job.ends_at, "from" + parts * step_us * interval '1 microsecond');
  begins := rowcron._outlook_begins(job, entry, clock_timestamp());
  if begins.first is null or begins.first >= until then
    return;
  end if;
  if (entry.parsed).form not in ('cron', 'every') then
    if begins.first >= "from" then
      state := case when not entry.enabled then 'paused'
        when begins.first <= (begins.plan).high_water then 'due' else 'planned' end;
      part := (extract(epoch from begins.first - "from") * 1000000)::bigint / step_us;
      n := 1;
      return next;
    end if;
    return;
  end if;
  for stretch in
    select s.state, greatest("from", s.lower) as lower, least(until, s.upper) as upper
    from (values
      ('due', begins.first,
        coalesce((begins.plan).high_water + interval '1 microsecond', '-infinity')),
      (case when entry.enabled then 'planned' else 'paused' end,
        greatest(begins.first, (begins.plan).high_water + interval '1 microsecond'), until)
    ) as s (state, lower, upper)
    where greatest("from", s.lower) < least(until, s.upper)
  loop
    if stretch.state = 'planned' and begins.room is not null then
      planned := rowcron._count(
        entry.parsed, greatest((begins.plan).high_water, begins.first - interval '1 microsecond'),
        stretch.lower - interval '1 microsecond', job.timezone, anchor, job.on_gap, job.on_fold);
      -- the end of the last that max_runs leaves room for
      low := stretch.lower;
      high := stretch.upper;
      if planned + rowcron._count(
        entry.parsed, stretch.lower - interval '1 microsecond',
        stretch.upper - interval '1 microsecond', job.timezone, anchor, job.on_gap, job.on_fold
      ) > begins.room then
        while high - low > interval '1 microsecond' loop
          middle := low + (high - low) / 2;
          if planned + rowcron._count(
            entry.parsed, stretch.lower - interval '1 microsecond',
            middle - interval '1 microsecond', job.timezone, anchor, job.on_gap, job.on_fold
          ) > begins.room then
            high := middle;
          else
            low := middle;
          end if;
        end loop;
        stretch.upper := low;
      end if;
    end if;
    return query
    select stretch.state, c.part, c.n
    from rowcron._count_parts(
      entry.parsed, "from", step_us, stretch.lower, stretch.upper, job.timezone, anchor,
      job.on_gap, job.on_fold
    ) as c
    where c.n > 0;
  end loop;
end
$$;
comment on function rowcron._outlook_parts(
  rowcron.job, rowcron.agenda, timestamptz, timestamptz, integer
)
  is 'How many occurrences above a job''s high-water mark fall into each of so many equal parts of '
    '[from, until), all of them: due, planned or paused. A part may come in two rows.';

create or replace function rowcron._check_parts(
  "from" timestamptz, until timestamptz, parts integer
) returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if (
    -- what the calendar reaches, as in chapter 028; beyond, no difference can be computed
    "from" >= '1601-01-01 00:00:00+00' and until <= '20000-01-01 00:00:00+00'
    and "from" < until and parts between 1 and 10000
    and until - "from" <= interval '400 days' and until - "from" >= parts * interval '1 ms'
  ) is not true then
    raise exception using
      errcode = 'RCLIM',
      message = format('"%s" to "%s" is not a stretch of time in %s parts', "from", until, parts),
      detail = 'Allowed: up to 400 days of the years 1601 to 19999, in 1 to 10000 parts of a '
        || 'millisecond or more.',
      hint = 'select * from rowcron.planned_load(now(), now() + interval ''1 day'', 1440);';
  end if;
end
$$;
comment on function rowcron._check_parts(timestamptz, timestamptz, integer)
  is 'Raises RCLIM if a stretch of time cannot be cut into so many parts.';

create or replace function rowcron.planned(
  "from" timestamptz, until timestamptz, parts integer, jobs bigint[] default null
) returns table (job_id bigint, state text, part integer, n bigint)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  perform rowcron._check_parts("from", until, parts);
  return query
  select j.id, o.state, o.part, sum(o.n)::bigint
  from rowcron.job as j
  join rowcron.agenda as a on a.job_id = j.id
  cross join lateral rowcron._outlook_parts(j, a, "from", until, parts) as o
  where (jobs is null or j.id = any (jobs)) and j.schedule is not null
  group by j.id, o.state, o.part;
end
$$;
comment on function rowcron.planned(timestamptz, timestamptz, integer, bigint[])
  is 'How many occurrences to come of each job (of those named, else of all that you see) fall into '
    'each of so many equal parts of a stretch of time: due, planned or paused. All are counted. '
    'Raises RCLIM.';

create or replace function rowcron.planned_load(
  "from" timestamptz, until timestamptz, parts integer, search text default ''
) returns table (part integer, n bigint)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  perform rowcron._check_parts("from", until, parts);
  return query
  with alike as materialized (
    -- jobs of one schedule whose next run is the same one have the same ones from then on
    select min(j.id) as id, count(*) as jobs
    from rowcron.job as j
    join rowcron.agenda as a on a.job_id = j.id
    where j.enabled and j.schedule is not null
      and (search = '' or strpos(lower(j.name), lower(search)) > 0)
    group by
      a.next_run_at, j.timezone, j.on_gap, j.on_fold, (a.parsed).form, (a.parsed).seconds,
      (a.parsed).minutes, (a.parsed).hours, (a.parsed).days, (a.parsed).days_from_end,
      (a.parsed).days_near, (a.parsed).months, (a.parsed).weekdays, (a.parsed).nth_weekdays,
      (a.parsed).either_day, (a.parsed).day_rule, (a.parsed).elapsed,
      case
        when (a.parsed).form <> 'cron' or j.max_runs is not null or j.ends_at < until
          or a.next_run_at <= clock_timestamp() then j.id
      end
  )
  select o.part, sum(o.n * l.jobs)::bigint
  from alike as l
  join rowcron.job as j on j.id = l.id
  join rowcron.agenda as a on a.job_id = j.id
  cross join lateral rowcron._outlook_parts(j, a, "from", until, parts) as o
  group by o.part;
end
$$;
comment on function rowcron.planned_load(timestamptz, timestamptz, integer, text)
  is 'How many occurrences to come of all enabled jobs that you see, and whose names hold a text, '
    'fall into each of so many equal parts of a stretch of time. Raises RCLIM.';

reset role;
