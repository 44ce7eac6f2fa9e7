"""What the two owners insert."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

CENTS = 125  # moved by each transfer, from account 1 to account 2
FAIL_EACH = 15  # occurrences at seconds that this divides fail at their first attempt

# New rows are those of transactions that had not ended when the last mark was set: pgbench's rows
# have no number in the order of commits, but each knows its transaction.
ROLLUP = """
with bounds as (
  select m.upto as since, pg_snapshot_xmin(pg_current_snapshot()) as upto from rollup_mark as m
), fresh as (
  select date_trunc('second', h.mtime) as second, count(*) as rows, sum(h.delta) as delta
  from pgbench_history as h, bounds as b
  where h.xid >= b.since and h.xid < b.upto
  group by 1
), marked as (
  update rollup_mark set upto = b.upto from bounds as b
)
insert into summary as s (second, rows, delta)
select f.second, f.rows, f.delta from fresh as f
on conflict (second) do update set rows = s.rows + excluded.rows, delta = s.delta + excluded.delta
"""

# What the first attempt did before it failed must be gone when the second one does it again.
TRANSFER = f"""
update pgbench_accounts set abalance = abalance - {CENTS} where aid = 1;
insert into transfer (run_id, attempt, cents) values (
  current_setting('rowcron.run_id')::bigint, current_setting('rowcron.attempt')::integer, {CENTS}
);
select 1 / case
  when current_setting('rowcron.attempt') = '1'
    and extract(second from current_setting('rowcron.scheduled_for')::timestamptz)::integer
      % {FAIL_EACH} = 0
  then 0 else 1 end;
update pgbench_accounts set abalance = abalance + {CENTS} where aid = 2;
"""

# Lines of packages of Debian 12 as they are installed: package, file, schedule, command.
CRONTABS = (
    ("e2fsprogs", "e2scrub_all weekly", "30 3 * * 0",
     "test -e /run/systemd/system || SERVICE_MODE=1"
     " /usr/lib/x86_64-linux-gnu/e2fsprogs/e2scrub_all_cron"),
    ("e2fsprogs", "e2scrub_all reap", "10 3 * * *",
     "test -e /run/systemd/system || SERVICE_MODE=1 /sbin/e2scrub_all -A -r"),
    ("sysstat", "sysstat", "5-55/10 * * * *",
     "command -v debian-sa1 > /dev/null && debian-sa1 1 1"),
    ("sysstat", "sysstat rotate", "59 23 * * *",
     "command -v debian-sa1 > /dev/null && debian-sa1 60 2"),
    ("certbot", "certbot", "0 */12 * * *",
     "test -x /usr/bin/certbot -a \\! -d /run/systemd/system && perl -e 'sleep int(rand(43200))'"
     " && certbot -q renew --no-random-sleep-on-renew"),
    ("php-common", "php sessionclean", "09,39 *     * * *",
     "[ -x /usr/lib/php/sessionclean ] && if [ ! -d /run/systemd/system ]; then"
     " /usr/lib/php/sessionclean; fi"),
    ("cron", "crontab hourly", "17 *\t* * *", "cd / && run-parts --report /etc/cron.hourly"),
    ("cron", "crontab daily, logrotate", "25 6\t* * *",
     "test -x /usr/sbin/anacron || { cd / && run-parts --report /etc/cron.daily; }"),
    ("cron", "crontab weekly", "47 6\t* * 7",
     "test -x /usr/sbin/anacron || { cd / && run-parts --report /etc/cron.weekly; }"),
    ("cron", "crontab monthly", "52 6\t1 * *",
     "test -x /usr/sbin/anacron || { cd / && run-parts --report /etc/cron.monthly; }"),
    ("anacron", "anacron", "30 7-23 * * *",
     "[ -x /etc/init.d/anacron ] && if [ ! -d /run/systemd/system ]; then"
     " /usr/sbin/invoke-rc.d anacron start >/dev/null; fi"),
    ("mdadm", "mdadm checkarray", "57 0 * * 0",
     "if [ -x /usr/share/mdadm/checkarray ] && [ $(date +\\%d) -le 7 ]; then"
     " /usr/share/mdadm/checkarray --cron --all --idle --quiet; fi"),
)  # fmt: skip


@dataclass(frozen=True)
class Job:
    """A job as its owner writes it."""

    owner: str
    name: str
    kind: str
    schedule: str
    command: str
    columns: dict[str, Any] = field(default_factory=dict)

    @property
    def timezone(self) -> str:
        """Where its schedule is read."""
        return str(self.columns.get("timezone", "UTC"))


def around(schedule: str, zone: str, start: datetime, end: datetime) -> str:
    """Return the schedule with the local hours and minutes of the window in place of `*`."""
    local = [
        start + timedelta(minutes=n) for n in range(int((end - start).total_seconds()) // 60 + 2)
    ]
    local = [instant.astimezone(ZoneInfo(zone)) for instant in local]
    seconds, rest = schedule.split(" ", 1)
    days = rest.split(" ", 2)[2]
    minutes, hours = ({getattr(at, part) for at in local} for part in ("minute", "hour"))
    lists = (",".join(str(n) for n in sorted(numbers)) for numbers in (minutes, hours))
    return " ".join((seconds, *lists, days))


def all_jobs(
    bin: str, directory: str, dump_url: str, hook: str, start: datetime, end: datetime
) -> list[Job]:
    """Return the jobs that run in the window."""
    retried = {"max_attempts": 3, "retry_delay": "500 ms", "retry_jitter": 0}
    file = f'{directory}/dump-"$ROWCRON_RUN_ID"'
    dump = (
        f"set -e; {bin}/pg_dump -Fc -d {shlex.quote(dump_url)} -f {file};"
        f" {bin}/pg_restore -l {file}; mv -f {file} {directory}/latest"
    )
    zone = "Australia/Lord_Howe"
    return [
        Job("alice", "rollup", "sql", "* * * * * *", ROLLUP),
        Job("alice", "transfer", "sql", "*/5 * * * * *", TRANSFER, retried),
        Job("alice", "tally", "python", "*/3 * * * * *", "tally",
            {"args": f'{{"fail_each": {FAIL_EACH}}}', **retried}),
        Job("bob", "dump", "shell", "*/10 * * * * *", dump, {"timeout": "1 min"}),
        Job("bob", "hook", "http", "*/2 * * * * *", f"POST {hook}\nX-Team: ops\nExpect-Status: 204",
            {"args": '{"from": "soak"}', **retried}),
        Job("bob", "lord howe", "sql", around("*/4 * * * * *", zone, start, end),
            "select current_setting('rowcron.scheduled_for')", {"timezone": zone}),
    ]  # fmt: skip
