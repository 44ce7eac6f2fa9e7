"""Three harmless jobs that show what rowcron does, for the first `rowcron up` on its own server."""

from __future__ import annotations

from rowcron.client import Client

TABLES = """
create table if not exists public.sample_reading (
  at timestamptz primary key default clock_timestamp(),
  value double precision not null
);
create table if not exists public.sample_minute (
  minute timestamptz primary key,
  readings bigint not null,
  mean double precision not null
);
"""
READING = """insert into public.sample_reading (value) values (random())
returning round(value::numeric, 3) as value"""
ROLLUP = """insert into public.sample_minute as m (minute, readings, mean)
select date_trunc('minute', r.at), count(*), avg(r.value)
from public.sample_reading as r
where r.at >= now() - interval '1 hour' and r.at < date_trunc('minute', now())
group by 1
on conflict (minute) do update set readings = excluded.readings, mean = excluded.mean
where m.readings <> excluded.readings"""
CLEANUP = "delete from public.sample_reading where at < now() - interval '7 days'"

# name, schedule, command, description
JOBS = (
    ("sample-reading", "@every 10 seconds", READING, "A sample: writes a random number."),
    ("sample-rollup", "* * * * *", ROLLUP, "A sample: sums up each minute's readings."),
    ("sample-cleanup", "0 4 * * *", CLEANUP, "A sample: forgets readings after a week."),
)


def add_samples(client: Client) -> list[str]:
    """Add the sample jobs that are not there, in one transaction; return their names."""
    with client.conn.transaction():
        client.conn.execute("set local client_min_messages = error")  # the worker comes next
        client.conn.execute(TABLES)
        mine = {row["name"] for row in client.rows("select j.name from rowcron.job as j")}
        added = [job for job in JOBS if job[0] not in mine]
        for name, schedule, command, description in added:
            call = {"name": name, "schedule": schedule, "command": command}
            client.call("schedule", call | {"description": description})
    return [job[0] for job in added]
