-- How long a length of time is. PostgreSQL compares intervals at 30 days a month, but adds them by the
-- calendar: -5000000 years 1800000001 days is a day to every limit, and carries what it is added to
-- out of the range of instants. So a length in which one part takes back what another gives is no
-- length here. Without negative parts what a comparison says and what an addition does agree to within
-- a few days a year.

set role rowcron_owner;

create or replace function rowcron._is_plain(length interval) returns boolean
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  -- years and months have one sign, and so have hours, minutes and seconds; least() passes over nulls
  return coalesce(least(date_part('year', length), date_part('month', length),
    date_part('day', length), date_part('hour', length), date_part('minute', length),
    date_part('second', length)) >= 0, true);
end
$$;
comment on function rowcron._is_plain(interval) is
  'Whether no part of an interval is negative. True for null.';

do $$
declare
  mended record;
begin
  if not exists (
    select from pg_catalog.pg_constraint as c
    where c.conrelid = 'rowcron.job'::regclass and c.conname = 'no_part_of_a_length_is_negative'
  ) then
    -- What an older release let be stored: as long as it is in all, or if that is out of range the
    -- default. All of a job at once, because what is written is judged.
    for mended in
      update rowcron.job as j
      set
        timeout = coalesce(m.lengths[1], '1 hour'), retry_delay = coalesce(m.lengths[2], '10 s'),
        max_retry_delay = coalesce(m.lengths[3], '1 hour'),
        missed_grace = coalesce(m.lengths[4], '1 minute'), jitter = m.lengths[5],
        keep = m.lengths[6]
      from (
        select o.id, array_agg(case
          when rowcron._is_plain(l.length) then l.length
          when extract(epoch from l.length) between 0.001 and extract(epoch from l.most)
            then make_interval(secs => extract(epoch from l.length)::double precision)
          end order by l.place) as lengths
        from rowcron.job as o
        cross join lateral (values
          (1, o.timeout, interval '30 days'), (2, o.retry_delay, '30 days'),
          (3, o.max_retry_delay, '30 days'), (4, o.missed_grace, '1000 years'),
          (5, o.jitter, '30 days'), (6, o.keep, '1000 years')
        ) as l (place, length, most)
        group by o.id
        having not bool_and(rowcron._is_plain(l.length))
      ) as m
      where m.id = j.id
      returning j.id, j.name
    loop
      raise warning 'job % ("%") had lengths with negative parts: rowcron.change says what they are now',
        mended.id, mended.name;
    end loop;
    alter table rowcron.job add constraint no_part_of_a_length_is_negative check (
      rowcron._is_plain(timeout) and rowcron._is_plain(retry_delay)
      and rowcron._is_plain(max_retry_delay) and rowcron._is_plain(missed_grace)
      and rowcron._is_plain(jitter) and rowcron._is_plain(keep)
    );
  end if;
end
$$;

reset role;
