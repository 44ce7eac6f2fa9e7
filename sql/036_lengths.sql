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
begin
  if not exists (
    select from pg_catalog.pg_constraint as c
    where c.conrelid = 'rowcron.job'::regclass and c.conname = 'no_part_of_a_length_is_negative'
  ) then
    -- what an older release let be stored
    update rowcron.job as j
    set
      timeout = case when rowcron._is_plain(j.timeout) then j.timeout else '1 hour' end,
      retry_delay = case when rowcron._is_plain(j.retry_delay) then j.retry_delay else '10 s' end,
      max_retry_delay = case when rowcron._is_plain(j.max_retry_delay) then j.max_retry_delay
        else '1 hour' end,
      missed_grace = case when rowcron._is_plain(j.missed_grace) then j.missed_grace
        else '1 minute' end,
      jitter = case when rowcron._is_plain(j.jitter) then j.jitter end,
      keep = case when rowcron._is_plain(j.keep) then j.keep end
    where not (
      rowcron._is_plain(j.timeout) and rowcron._is_plain(j.retry_delay)
      and rowcron._is_plain(j.max_retry_delay) and rowcron._is_plain(j.missed_grace)
      and rowcron._is_plain(j.jitter) and rowcron._is_plain(j.keep)
    );
    alter table rowcron.job add constraint no_part_of_a_length_is_negative check (
      rowcron._is_plain(timeout) and rowcron._is_plain(retry_delay)
      and rowcron._is_plain(max_retry_delay) and rowcron._is_plain(missed_grace)
      and rowcron._is_plain(jitter) and rowcron._is_plain(keep)
    );
  end if;
end
$$;

reset role;
