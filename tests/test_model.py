"""Random lives of jobs, run through the SQL functions under a fixed clock, against a small model.

A batch is one transaction, rolled back: many jobs with policies of their own in a few queues, all
on one line of instants. At each instant attempts end, owners pause, resume, edit, ask, cancel and
delete, and workers claim, except in queues that are down; now and then the clock jumps. What is
handed out must be the same at every instant, and the ledger at the end. ROWCRON_MODEL_BATCHES says
how many batches of 250 histories; ROWCRON_MODEL_SEED which is the first.
"""

from __future__ import annotations

import os
import random
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from typing import Any

import psycopg
import pytest

import frozen
from harness import TestServer
from model import Job, Run

BATCHES = int(os.environ.get("ROWCRON_MODEL_BATCHES", "12"))
SEED = int(os.environ.get("ROWCRON_MODEL_SEED", "1"))
HISTORIES = 250
STEPS = 40
START = int(datetime(2030, 1, 7, tzinfo=UTC).timestamp())
SPAN = range(START - 3 * 3600, START + 10 * 3600)
WORKER = "00000000-0000-4000-8000-000000000001"
QUEUES = ("one", "two", "three")
COMMANDS = (("sql", "select 1"), ("http", "https://example.org/"))
RARE = ("lost", "stopped", "released", "fatal", "cancelled")
OUTCOMES = ("succeeded",) * 6 + ("failed",) * 3 + RARE


def text(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()


@cache
def named(schedule: str, anchor: int) -> list[int]:
    """Everything that a schedule names in the days of the test, read naively."""
    fields = schedule.split()
    if fields[0] == "@every":
        return list(range(anchor, SPAN.stop, int(fields[1])))
    if fields[0] == "@at":
        return [int(datetime.fromisoformat(" ".join(fields[1:]) + "+00:00").timestamp())]
    return named_by_cron(schedule)


@cache
def named_by_cron(schedule: str) -> list[int]:
    fields = schedule.split()
    second, minute = fields[:2] if len(fields) == 6 else ("0", fields[0])
    seconds = range(0, 60, int(second[2:])) if second.startswith("*/") else range(1)
    if minute.startswith("*/"):
        minutes = set(range(0, 60, int(minute[2:])))
    else:
        minutes = {int(part) for part in minute.split(",")}
    whole = (t for t in SPAN[::60] if t // 60 % 60 in minutes)
    return [t + second for t in whole for second in seconds]


def some_schedule(chance: random.Random, at: int, window: bool) -> str:
    forms = [
        f"@every {chance.choice((7, 10, 30, 45, 60, 90, 300))} seconds",
        f"*/{chance.choice((1, 2, 5, 7))} * * * *",
        f"{chance.randrange(60)},{chance.randrange(60)},{chance.randrange(60)} * * * *",
        f"*/{chance.choice((5, 15, 20))} */1 * * * *",
        f"@after {chance.choice((5, 60, 200))} seconds",
    ]
    if not window:
        forms.append("@at " + text(at + chance.randrange(1, 3000))[:19].replace("T", " "))
    return chance.choice(forms)


def some_job(chance: random.Random) -> dict[str, Any]:
    starts_at = chance.choice((None, None, START + chance.randrange(-500, 1500)))
    ends_at = chance.choice((None, None, None, START + chance.randrange(1500, 6000)))
    return {
        "schedule": some_schedule(chance, START, bool(starts_at or ends_at)),
        "queue": chance.choice(QUEUES),
        "starts_at": starts_at,
        "ends_at": ends_at,
        "max_runs": chance.choice((None, None, None, 1, 3, 10)),
        "enabled": chance.random() < 0.9,
        "max_attempts": chance.choice((1, 1, 2, 3)),
        "retry_delay": chance.choice((0, 10, 60)),
        "on_missed": chance.choice(("latest", "skip", "all")),
        "missed_grace": chance.choice((0, 10, 60, 600)),
        "max_missed": chance.choice((1, 3, 100)),
        "on_overlap": chance.choice(("skip", "wait", "allow")),
        "max_running": chance.choice((None, None, 1, 2)),
        "on_lost": chance.choice(("retry", "retry", "fail")),
        "max_lost": chance.choice((1, 2, 3)),
    }


def some_change(chance: random.Random, job: Job, at: int) -> dict[str, Any]:
    window = bool(job.starts_at or job.ends_at)
    schedule = some_schedule(chance, max(at, job.high), window or job.over)
    return chance.choice(
        (
            {"enabled": not job.enabled},
            {"enabled": not job.enabled},
            {"enabled": True},
            {"schedule": schedule},
            {"max_runs": chance.choice((None, 2, 5, 20))},
            {"on_missed": chance.choice(("latest", "skip", "all"))},
            {"on_overlap": chance.choice(("skip", "wait", "allow"))},
            {"max_running": chance.choice((None, 1, 2))},
            {"max_attempts": chance.choice((1, 2, 3))},
        )
    )


SQL_VALUE = {
    "starts_at": lambda value: value and text(value),
    "ends_at": lambda value: value and text(value),
    "retry_delay": lambda value: f"{value} seconds",
    "missed_grace": lambda value: f"{value} seconds",
}


def columns(config: dict[str, Any]) -> dict[str, Any]:
    return {key: SQL_VALUE.get(key, lambda value: value)(value) for key, value in config.items()}


class History:
    """A batch: drives the database and the models side by side."""

    def __init__(self, db: psycopg.Connection, seed: int) -> None:
        self.db = db
        self.chance = random.Random(seed)
        self.seed = seed
        self.at = START
        self.jobs: dict[str, Job] = {}
        self.logs: dict[str, list[str]] = {}
        self.named_until: dict[str, tuple[int, list[int]]] = {}
        self.held: list[tuple[int, str, str, Job, Run, int, str]] = []
        self.numbers = 0
        self.counts: Counter[str] = Counter()

    def run(self) -> None:
        self.tick(START)
        self.insert()
        down: dict[str, int] = {}
        for _ in range(STEPS):
            roll = self.chance.random()
            step = self.chance.choice((1, 5, 10, 20, 30, 60, 90))
            if roll < 0.05:
                step = self.chance.choice((3600, -3600, -3600, 7200))
            self.tick(max(min(self.at + step, SPAN.stop - 7200), SPAN.start + 3600))
            self.finish()
            self.db.execute("set local role alice")
            for name in self.jobs:
                if self.chance.random() < 0.04:
                    self.disturb(name)
            self.db.execute("reset role")
            for queue in QUEUES:
                if queue not in down and self.chance.random() < 0.1:
                    down[queue] = self.chance.randrange(1, 10)
            self.claim([queue for queue in QUEUES if queue not in down])
            down = {queue: left - 1 for queue, left in down.items() if left > 1}
        self.compare()

    def tick(self, at: int) -> None:
        self.at = at
        frozen.set_clock(self.db, text(at))

    def say(self, name: str, event: str) -> None:
        self.logs[name].append(f"{text(self.at)[11:19]} {event}")

    def wrong(self, name: str, what: str, sql: Any, model: Any) -> AssertionError:
        lines = "\n  ".join(self.logs[name])
        return AssertionError(
            f"seed {self.seed}, {name}: {what}\n  SQL:   {sql}\n  model: {model}\n  {lines}"
        )

    def insert(self) -> None:
        configs = {f"job{n}": some_job(self.chance) for n in range(HISTORIES)}
        with self.db.cursor() as cursor:
            cursor.execute("set local role alice")
            for name, config in configs.items():
                self.logs[name] = [str(config)]
                self.jobs[name] = Job(named, config, START)
                self.named_until[name] = (START, [])
                # what is no SQL job may be claimed as it is fired
                kind, command = self.chance.choice(COMMANDS)
                values = {"name": name, "kind": kind, "command": command, "retry_jitter": 0}
                values |= columns(config)
                keys = ", ".join(values)
                marks = ", ".join(["%s"] * len(values))
                cursor.execute(
                    f"insert into rowcron.job ({keys}) values ({marks})", tuple(values.values())
                )
            cursor.execute("reset role")

    def close_version(self, name: str, job: Job) -> None:
        """Keep what the schedule so far has named, up to the job's high-water mark."""
        since, sofar = self.named_until[name]
        if not job.schedule.startswith("@after"):
            sofar += job.occurrences(since, job.high)
        self.named_until[name] = (max(since, job.high), sofar)

    def ask(self, statement: str, *arguments: Any) -> None:
        self.db.execute(statement, arguments)

    def disturb(self, name: str) -> None:
        """As alice: edit, ask, cancel or delete."""
        job = self.jobs[name]
        if job.deleted:
            return
        roll = self.chance.random()
        if roll < 0.6:
            changes = some_change(self.chance, job, self.at)
            self.say(name, f"edit {changes}")
            if changes.get("schedule", job.schedule) != job.schedule:
                was = Job(named, dict(job.config), job.created)
                was.high = max(job.high, self.at)
                self.close_version(name, was)
            job.edit(changes, self.at)
            sets = ", ".join(f"{key} = %s" for key in changes)
            self.ask(
                f"update rowcron.job set {sets} where name = %s",
                *columns(changes).values(),
                name,
            )
        elif roll < 0.85:
            due = self.at if roll < 0.75 else self.at + self.chance.randrange(1, 100)
            self.numbers += 1
            self.say(name, f"enqueue {self.numbers} due {text(due)[11:19]}")
            run = Run(None, ("n", self.numbers), due, 0, through_pause=not job.enabled)
            run.ready = due <= self.at
            job.add(run)
            self.ask(
                "select rowcron.enqueue(%s, jsonb_build_object('n', %s), %s)",
                name,
                self.numbers,
                text(due),
            )
        elif roll < 0.95 and job.live:
            run = self.chance.choice(job.live)
            self.say(name, f"cancel {run.name}")
            job.cancel(run, self.at)
            self.ask(
                "select rowcron.cancel(r.id) from rowcron.run as r where r.job = %s"
                " and (r.scheduled_for = to_timestamp(%s) or r.args ->> 'n' = %s)",
                name,
                run.scheduled,
                str(run.name[1]) if run.scheduled is None else None,
            )
        elif roll >= 0.98:
            self.say(name, "delete")
            job.delete(self.at)
            self.close_version(name, job)
            self.ask("delete from rowcron.job where name = %s", name)

    def claim(self, queues: list[str]) -> None:
        rows = self.db.execute(
            "select c.job, extract(epoch from c.scheduled_for)::bigint, (c.args ->> 'n')::integer,"
            " c.attempt, c.run_id, c.token::text"
            " from rowcron._claim(%s, 10000, %s, '{sql,http}', null, %s::timestamptz) as c",
            (WORKER, queues, text(self.at)),
        ).fetchall()
        handed: dict[str, list[Any]] = {}
        for job, scheduled, number, attempt, run_id, token in rows:
            name = ("n", number) if scheduled is None else scheduled
            handed.setdefault(job, []).append((name, attempt, run_id, token))
        for name, job in self.jobs.items():
            if job.queue not in queues:
                continue
            given = job.claim(self.at)
            got = handed.pop(name, [])
            if [(run.name, run.attempt) for run in given] != [row[:2] for row in got]:
                expected = [(run.name, run.attempt) for run in given]
                self.say(name, "claim")
                raise self.wrong(name, "handed out", [row[:2] for row in got], expected)
            for run, row in zip(given, got, strict=True):
                ends = self.at + self.chance.choice((0, 1, 10, 60, 300))
                outcome = self.chance.choice(OUTCOMES)
                self.say(
                    name, f"claimed {run.name} attempt {run.attempt} until {text(ends)[11:19]}"
                )
                self.held.append((row[2], row[3], name, job, run, ends, outcome))
        assert not handed

    def finish(self) -> None:
        ended = [held for held in self.held if held[5] <= self.at]
        self.held = [held for held in self.held if held[5] > self.at]
        if not ended:
            return
        for _, _, name, job, run, _, outcome in ended:
            self.say(name, f"{run.name} {outcome}")
            job.finish(run, outcome, self.at)
        refused = self.db.execute(
            "select f.run_id from rowcron.finish(%s, %s, %s, %s) as f where not f.accepted",
            (WORKER, [e[0] for e in ended], [e[1] for e in ended], [e[6] for e in ended]),
        ).fetchall()
        assert refused == []

    def compare(self) -> None:
        ledger: dict[str, list[Any]] = {name: [] for name in self.jobs}
        for job, *entry in self.db.execute(
            "select l.job, l.outcome, l.final, extract(epoch from l.scheduled_for)::bigint,"
            " extract(epoch from l.first_scheduled_for)::bigint, l.occurrences, l.attempt"
            " from rowcron.ledger as l where l.job ~ '^job[0-9]+$'"
        ):
            ledger[job].append(tuple(entry))
        marks = {
            name: (high, following)
            for name, high, following in self.db.execute(
                "select j.name, extract(epoch from a.high_water)::bigint,"
                " extract(epoch from a.next_run_at)::bigint"
                " from rowcron.agenda as a join rowcron.job as j on j.id = a.job_id"
            )
        }
        live: dict[str, list[int]] = {}
        for name, scheduled in self.db.execute(
            "select r.job, extract(epoch from r.scheduled_for)::bigint from rowcron.run as r"
        ):
            live.setdefault(name, []).append(scheduled)
        for name, job in self.jobs.items():
            if sorted(ledger[name], key=str) != sorted(job.ledger, key=str):
                sql = sorted(Counter(ledger[name]) - Counter(job.ledger), key=str)
                model = sorted(Counter(job.ledger) - Counter(ledger[name]), key=str)
                raise self.wrong(name, "entries of one side only", sql, model)
            if not job.deleted:
                self.close_version(name, job)
                coming = [] if job.over or not job.enabled else job.occurrences(job.high, SPAN.stop)
                expected = (job.high, coming[0] if coming else None)
                if marks[name] != expected and not job.over:
                    raise self.wrong(name, "high water, next", marks[name], expected)
            self.once(name, ledger[name], live.get(name, []))
            for outcome, final, _, _, occurrences, _ in ledger[name]:
                self.counts[outcome if final else f"{outcome}, not final"] += occurrences
            self.counts["entries"] += len(ledger[name])

    def once(self, name: str, entries: list[Any], live: list[int]) -> None:
        """Each occurrence that the schedules named stands in one place, and nothing else does."""
        job = self.jobs[name]
        expected = sorted(self.named_until[name][1])
        if job.schedule.startswith("@after") or any(
            "max_runs" in line for line in self.logs[name][1:]
        ):
            return
        if job.max_runs is not None or any("@after" in line for line in self.logs[name]):
            return
        found = [scheduled for scheduled in live if scheduled is not None]
        for _, final, last, first, occurrences, _ in entries:
            if final and last is not None:
                low = bisect_left(expected, last if first is None else first)
                inside = expected[low : bisect_right(expected, last)]
                if len(inside) != occurrences:
                    raise self.wrong(name, "count", (first, last, occurrences), inside)
                found += inside
        if sorted(found) != expected:
            raise self.wrong(
                name,
                "once",
                sorted(Counter(found) - Counter(expected)),
                sorted(Counter(expected) - Counter(found)),
            )
        self.counts["accounted for"] += len(found)


@pytest.fixture(scope="module")
def still(server: TestServer) -> Iterator[psycopg.Connection]:
    """A database whose clock stands where `frozen.set_clock` puts it."""
    database = server.create_database()
    try:
        with psycopg.connect(database.url("postgres")) as db:
            frozen.freeze(db)
            db.execute("grant rowcron_http to alice")
            db.commit()
            yield db
    finally:
        server.drop_database(database)


def test_random_histories_end_as_the_model_says(still: psycopg.Connection) -> None:
    counts: Counter[str] = Counter()
    for seed in range(SEED, SEED + BATCHES):
        history = History(still, seed)
        history.run()
        still.rollback()
        counts += history.counts
    print(f"{BATCHES * HISTORIES} histories: {dict(counts)}")
    assert all(counts[outcome] for outcome in ("missed", "skipped", "lost", "failed", "cancelled"))
