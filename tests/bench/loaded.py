"""A database that has been in use for a long time: what `flat` compares with an empty one.

At scale 1: a million jobs due in the future, 10,000 paused ones, a million runs of the same queue
for the future at mixed priorities, a million ready runs of fifty other queues, 20 million ledger
rows in 30 partitions. Written set-wise by a superuser with triggers off, over two connections; the
rows are those that inserts by their owner leave, the record of changes included.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from bench.server import Server
from bench.tools import ROWCRON

DAYS = 30
# A thousand schedules, each due once, in half a year: nothing of it falls due while it is measured.
JOBS = """
insert into rowcron.job (id, name, owner, kind, command, schedule, enabled)
overriding system value
select 1000000 + i, 'load-' || i, 'bench_user'::regrole, 'python', 'bench_async',
  format('%s %s %s %s *', i % 60, i / 60 % 24, 1 + i % 25,
    extract(month from now() + interval '6 months')),
  i > {paused}
from generate_series(1, {jobs} + {paused}) as i
"""
AGENDA = """
insert into rowcron.agenda (job_id, owner, queue, kind, enabled, parsed, next_run_at, high_water)
select j.id, j.owner, j.queue, j.kind, j.enabled, s.parsed, case when j.enabled then s.next end,
  now()
from rowcron.job as j
join (
  select d.schedule, p.parsed, rowcron.next_run(d.schedule) as next
  from (select distinct schedule from rowcron.job where id > 1000000) as d,
    lateral (select rowcron._parse(d.schedule) as parsed offset 0) as p
  offset 0
) as s on s.schedule = j.schedule
where j.id > 1000000
"""
CHANGES = """
insert into rowcron.change (changed_by, action, job_id, job, owner, new_values)
select 'bench_user', 'insert', j.id, j.name, j.owner, to_jsonb(j)
from rowcron.job as j where j.id > 1000000
"""
RUNS = """
insert into rowcron.run (job_id, job, owner, queue, kind, handler, state, waits_for, priority,
  due_at, args)
select j.id, j.name, j.owner, {queue}, 'python', 'bench_async', {state}, {waits}, i % 10,
  now() + {due}, '{{"i": 1}}'
from generate_series(1, {runs}) as i, rowcron.job as j where j.name = 'async'
"""
FUTURE = ("'default'", "'waiting'", "'time'", "interval '1 day' + i * interval '1 ms'")
OTHERS = ("'other-' || i % 50", "'ready'", "null", "- i * interval '1 us'")
# Into a table of its own, then attached: its indexes are built at once, not row by row.
PARTITION = """
create table rowcron.{name} (like rowcron.ledger including defaults including constraints);
insert into rowcron.{name} (job_id, job, owner, queue, kind, run_id, attempt, final, scheduled_for,
  due_at, started_at, finished_at, outcome, worker_id)
select 1000000 + i % {jobs}, 'load-' || i % {jobs}, 'bench_user'::regrole, 'default', 'python',
  -i - {number} * {rows}, 1, true, d.at, d.at, d.at, d.at + interval '1 ms', 'succeeded',
  '00000000-0000-0000-0000-000000000001'
from generate_series(1, {rows}) as i,
  lateral (select timestamptz '{date} 00:00+00' + i * (interval '23 hours' / {rows}) as at) as d;
alter table rowcron.ledger attach partition rowcron.{name}
  for values from ('{date} 00:00:00+00') to ('{end} 00:00:00+00');
vacuum (analyze, freeze) rowcron.{name};
"""


def load(server: Server, scale: float) -> str:
    """Make such a database; returns its name."""
    database = ROWCRON.fresh(server)
    million = int(1_000_000 * scale)
    rows = int(20_000_000 * scale / DAYS)
    today = datetime.now(UTC).date()
    texts = [_jobs(million)]
    with server.admin(database) as conn:
        for number in range(1, DAYS + 1):
            day = today - timedelta(days=number)
            name = f"ledger_{day:%Y%m%d}"
            conn.execute(f"drop table if exists rowcron.{name}".encode())
            texts.append(
                PARTITION.format(
                    name=name, date=day, end=day + timedelta(days=1), number=number, rows=rows,
                    jobs=million,
                )
            )  # fmt: skip
    with ThreadPoolExecutor(2) as two:
        for done in [two.submit(_run, server, database, text) for text in texts]:
            done.result()
    hot = "rowcron.job, rowcron.agenda, rowcron.run, rowcron.change, rowcron.lane"
    _run(server, database, f"vacuum (analyze, freeze) {hot};\nanalyze rowcron.ledger;\ncheckpoint")
    return database


def _jobs(million: int) -> str:
    return ";\n".join(
        [
            JOBS.format(jobs=million, paused=million // 100), "analyze rowcron.job",
            AGENDA, CHANGES,
            *(
                RUNS.format(queue=queue, state=state, waits=waits, due=due, runs=million)
                for queue, state, waits, due in (FUTURE, OTHERS)
            ),
            "insert into rowcron.lane (queue, kind) select 'other-' || i, 'python'"
            " from generate_series(0, 49) as i",
        ]
    )  # fmt: skip


def _run(server: Server, database: str, text: str) -> None:
    with server.admin(database) as conn:
        conn.execute("set session_replication_role = replica")
        conn.execute("set synchronous_commit = off")
        for statement in text.split(";\n"):
            if statement.strip():
                conn.execute(statement.encode())
