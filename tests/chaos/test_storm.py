"""A storm over four workers and their server: nothing lost, nothing twice, every extra explained.

`sql` and `handed` jobs (python with the handed connection) have their effect in the database:
exactly once. `shell`, `http` and `outside` (python without it) have it elsewhere: at least once,
at most once an attempt, and each attempt stands in the ledger.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from chaos.size import LONG, percentiles, sized, table
from chaos.world import World
from harness import wait_until
from soak.compare import compare
from soak.jobs import Job

KINDS = ("sql", "handed", "outside", "shell", "http")
EXACTLY_ONCE = ("sql", "handed")
WORKERS = 4
A_SECOND = 6 if not LONG else 8  # jobs of each kind, each due every second
OCCURRENCES = sized(300, 10_000)
ENQUEUED = sized(300, 10_000)
SECONDS = OCCURRENCES // (A_SECOND * len(KINDS))
LEASE = 2 if not LONG else 10  # seconds; 10 is the default
RESCUED_WITHIN = 15.0 if LONG else 10.0
SEED = 20261124
OVERLAPS = (("allow", "all"), ("skip", "latest"), ("wait", "latest"), ("allow", "latest"))
# one deed a pause; a crash, a frozen worker and kills in the short form, too
DEEDS = ("kill", "cut", "cut", "kill", "freeze", "cut", "kill", "crash", "cut", "kill")
PAUSE = 0.8 if not LONG else 2.0


@pytest.fixture
def world(pytestconfig: pytest.Config) -> Iterator[World]:
    named = pytestconfig.getoption("--server-bin")
    options = ("--lease", str(LEASE), "--concurrency", "16")
    world = World(Path(named) if named else None, SEED, *options)
    try:
        world.open(WORKERS)
        yield world
    finally:
        world.close()


def commands(world: World) -> dict[str, list[tuple[str, str, dict[str, Any]]]]:
    """Return by kind of effect: kind of job, command, args."""
    effect = (
        "insert into public.effect values ('sql', current_setting('rowcron.run_id')::bigint,"
        " current_setting('rowcron.attempt')::integer)"
    )
    note = f'echo "$ROWCRON_RUN_ID $ROWCRON_ATTEMPT" >> {world.file}'
    return {
        "sql": [
            ("sql", f"{effect}; select pg_sleep(random() * 0.4)", {}),
            ("sql", f"select pg_sleep(random() * 0.4); {effect}", {}),
        ],
        "handed": [
            ("python", "handed", {"pause": 0.3}),
            ("python", "handed_async", {"pause": 0.3}),
        ],
        "outside": [("python", "outside", {"pause": 0.3})],
        "shell": [("shell", f"{note}; sleep 0.3", {}), ("shell", f"sleep 0.3; {note}", {})],
        "http": [("http", f"POST {world.hook.url}/NAME", {})],
    }


def insert_jobs(world: World, begin: datetime, end: datetime) -> list[Job]:
    """Insert as alice the scheduled jobs, which are returned, and one a kind for what is asked."""
    scheduled = []
    with world.connect("alice") as alice:
        alice.execute("set client_min_messages = error")
        for kind, variants in commands(world).items():
            for number in range(A_SECOND + 1):
                job_kind, command, args = variants[number % len(variants)]
                name = f"{kind}-{number}" if number else f"{kind}-asked"
                columns: dict[str, Any] = {
                    "name": name, "kind": job_kind, "command": command.replace("NAME", name),
                    "args": Jsonb(args), "max_lost": 1000, "timeout": "1 min",
                }  # fmt: skip
                if number:
                    overlap, missed = OVERLAPS[number % len(OVERLAPS)]
                    columns |= {"on_overlap": overlap, "on_missed": missed, "max_missed": 1000}
                    columns |= {"schedule": "* * * * * *", "starts_at": begin, "ends_at": end}
                    scheduled.append(Job("alice", name, job_kind, "* * * * * *", ""))
                marks = ", ".join("%s" for _ in columns)
                statement = f"insert into rowcron.job ({', '.join(columns)}) values ({marks})"
                alice.execute(statement.encode(), list(columns.values()))
    return scheduled


class Author(threading.Thread):
    """Enqueues runs of every kind, evenly over the window.

    A run and the note that it was asked for are one transaction, so that a cut leaves no doubt.
    """

    def __init__(self, world: World, seconds: float) -> None:
        super().__init__(name="author")
        self.world = world
        self.seconds = seconds
        self.cuts = 0

    def run(self) -> None:
        """Enqueue until all are asked for; sessions are cut and made again."""
        begin = time.monotonic()
        while True:
            try:
                with self.world.connect("alice") as alice:
                    if self._enqueue(alice, begin):
                        return
            except psycopg.Error:
                self.cuts += 1
                time.sleep(0.1)

    def _enqueue(self, alice: psycopg.Connection[Any], begin: float) -> bool:
        query = "select count(*) from public.asked"
        done = alice.execute(query).fetchone()[0]  # type: ignore[index]
        while done < ENQUEUED:
            share = min((time.monotonic() - begin) / self.seconds, 1.0)
            if done >= share * ENQUEUED:
                time.sleep(0.02)
                continue
            kind = KINDS[done % len(KINDS)]
            pause = {"pause": 0.2} if kind in ("handed", "outside") else {}
            args = pause if kind != "http" else {"asked": done}
            alice.execute(
                "insert into public.asked select rowcron.enqueue(%s, %s), %s",
                (f"{kind}-asked", Jsonb(args), kind),
            )
            done += 1
        return True


def rage(world: World, until: datetime) -> None:
    """Do one thing after the other to the world until then."""
    while (now := datetime.now(UTC)) < until:
        for deed in DEEDS if not LONG else world.random.sample(DEEDS, len(DEEDS)):
            world.thaw()
            if deed == "freeze":
                world.freeze(LEASE * 1.5 + 1)
            else:
                getattr(world, deed)()
            time.sleep(PAUSE * world.random.uniform(0.5, 1.5))
            if datetime.now(UTC) >= until and (LONG or world.deeds.crashes):
                break
        assert datetime.now(UTC) > now
    wait_until(lambda: world.thaw() or not any(s.thaw_at for s in world.slots), 60, "the thaw")


def judge_ledger(world: World, jobs: list[Job], begin: datetime, end: datetime) -> list[str]:
    """Return how the ledger of the scheduled jobs differs from croniter."""
    names = ("final", "outcome", "scheduled_for", "first_scheduled_for", "occurrences")
    columns = ", ".join(f"coalesce({name}::text, '') as {name}" for name in names[1:])
    query = f"select job, left(final::text, 1) as final, {columns} from rowcron.ledger"
    entries = defaultdict(list)
    for row in world.rows(query):
        entries[row["job"]].append(row)
    differences, outcomes = [], Counter[str]()
    for job in jobs:
        compared = compare(job, entries[job.name], begin, end)
        differences += compared.differences
        outcomes += compared.outcomes
    assert outcomes.keys() <= {"succeeded", "skipped", "missed"}, outcomes
    print(f"\n  occurrences: {dict(outcomes)}")
    return differences


def judge_effects(world: World) -> tuple[dict[str, object], list[str]]:
    """Count effects against runs; returns figures and what is wrong."""
    runs: dict[int, tuple[str, int]] = {}
    attempts: dict[int, set[int]] = defaultdict(set)
    wrong = []
    query = (
        "select run_id, split_part(job, '-', 1) as kind, job, attempt, final, outcome, reason"
        " from rowcron.ledger where run_id is not null"
    )
    for row in world.rows(query):
        run = row["run_id"]
        if row["attempt"] in attempts[run]:
            wrong.append(f"attempt {row['attempt']} of run {run} ended twice")
        attempts[run].add(row["attempt"])
        if row["final"]:
            if run in runs:
                wrong.append(f"run {run} is final twice")
            runs[run] = (row["job"], row["attempt"])
            if row["outcome"] != "succeeded":
                wrong.append(f"run {run}: {row}")
        elif row["outcome"] != "lost":
            wrong.append(f"run {run}: {row}")
    wrong += [f"run {run} is not final" for run in attempts.keys() - runs.keys()]
    asked = {row["run_id"]: row["kind"] for row in world.rows("select * from public.asked")}
    wrong += [f"run {run} was asked for and is lost" for run in asked.keys() - runs.keys()]

    inside = Counter(row["run_id"] for row in world.rows("select run_id from public.effect"))
    outside = world.lines()
    by_run = Counter[int]()
    for (run, attempt), count in outside.items():
        by_run[run] += count
        if count > 1 or attempt not in attempts.get(run, ()):
            wrong.append(f"attempt {attempt} of run {run}: {count} effects, no entry explains it")
    lost = doubled = extra = 0
    for run, (job, _) in runs.items():
        kind = job.split("-")[0]
        if kind in EXACTLY_ONCE:
            lost += inside[run] == 0
            doubled += inside[run] > 1
        elif kind != "http":
            lost += by_run[run] == 0
            extra += max(by_run[run] - 1, 0)
    wrong += [f"effect of no run: {run}" for run in (inside | by_run).keys() - runs.keys()]
    more, unexplained = judge_requests(world, runs)
    wrong += unexplained
    if lost or doubled:
        wrong.append(f"{lost} effects lost, {doubled} doubled")
    figures = {
        "runs": len(runs),
        "of which enqueued": len(asked),
        "effects lost": lost,
        "effects doubled (sql, handed connection)": doubled,
        "attempts lost": sum(len(numbers) for numbers in attempts.values()) - len(runs),
        "extra effects, each explained (shell, outside)": extra,
        "extra requests, each explained (http)": more,
    }
    return figures, wrong


def judge_requests(world: World, runs: dict[int, tuple[str, int]]) -> tuple[int, list[str]]:
    """Hold the requests of each http job against its runs' attempts; a key is a run."""
    keys: dict[str, Counter[str]] = defaultdict(Counter)
    asked: dict[int, set[str]] = defaultdict(set)
    for path, key, body in world.hook.requests:
        keys[path[1:]][key] += 1
        if body and "asked" in (args := json.loads(body)):
            asked[args["asked"]].add(key)
    tries: dict[str, list[int]] = defaultdict(list)
    for job, attempt in runs.values():
        if job.startswith("http"):
            tries[job].append(attempt)
    wrong = [f"request {n} came under {len(k)} keys" for n, k in asked.items() if len(k) > 1]
    extra = 0
    for job in keys.keys() | tries.keys():
        counts, numbers = sorted(keys[job].values()), sorted(tries[job])
        extra += sum(counts) - len(counts)
        if len(counts) != len(numbers):
            wrong.append(f"{job}: {len(numbers)} runs, {len(counts)} keys")
        if any(count > number for count, number in zip(counts, numbers, strict=False)):
            wrong.append(f"{job}: requests {counts} are more than attempts {numbers}")
    return extra, wrong


def served(world: World, begin: datetime, end: datetime) -> float:
    """Return the seconds of an interval in which there was a server."""
    away = (
        max((min(up, end) - max(down, begin)).total_seconds(), 0.0)
        for down, up in world.deeds.crashes
    )
    return (end - begin).total_seconds() - sum(away)


def rescue_times(world: World) -> tuple[list[float], list[float]]:
    """Return seconds from each kill to the loss of a run's attempt, and to its next start.

    Without those in which there was no server.
    """
    lost, again = [], []
    query = """
      select worker_id::text, l.finished_at, (
        select min(n.started_at) from rowcron.ledger as n
        where n.run_id = l.run_id and n.attempt = l.attempt + 1
      ) as again_at
      from rowcron.ledger as l where l.outcome = 'lost'
    """
    for row in world.rows(query):
        for at, ids in world.deeds.kills:
            if row["worker_id"] in ids and row["finished_at"] >= at:
                lost.append(served(world, at, row["finished_at"]))
                again.append(served(world, at, row["again_at"]))
    return lost, again


def test_a_storm_loses_nothing_and_doubles_nothing(world: World) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    begin = now + timedelta(seconds=4)
    end = begin + timedelta(seconds=SECONDS)
    jobs = insert_jobs(world, begin, end)
    assert datetime.now(UTC) < begin, "too slow a machine: the window has begun"
    author = Author(world, SECONDS)
    author.start()
    began = time.monotonic()
    rage(world, end)
    author.join(60)
    assert not author.is_alive()
    world.wait_until_quiet(120)
    took = time.monotonic() - began
    exits = [slot.worker.stop() for slot in world.slots]

    deeds = world.deeds
    figures, wrong = judge_effects(world)
    lost, again = rescue_times(world)
    wrong += judge_ledger(world, jobs, begin, end)
    figures = {
        "occurrences named": SECONDS * len(jobs),
        "SIGKILLs of workers": len(deeds.kills),
        "workers stopped past their lease": deeds.freezes,
        "sessions terminated": deeds.cut,
        "immediate restarts of the server": len(deeds.crashes),
        "server away": percentiles([(up - down).total_seconds() for down, up in deeds.crashes]),
        **figures,
        "from SIGKILL to rescue": percentiles(lost),
        "from SIGKILL to the next start": percentiles(again),
        "took": f"{took:.0f} s, {figures['runs'] / took:.0f} runs/s",  # type: ignore[operator]
    }
    print(table(f"kill storm, {WORKERS} workers, lease {LEASE} s", figures))
    assert wrong == []
    assert len(world.rows("select * from public.asked")) == ENQUEUED
    assert exits == [0] * WORKERS
    assert len(deeds.kills) >= 3
    assert deeds.crashes
    assert deeds.freezes >= 1
    assert lost, "no kill hit a run: the storm proves nothing"
    assert max(lost) < RESCUED_WITHIN
    for slot in world.slots:
        assert "Traceback" not in slot.worker.console.read_text("utf-8")
        assert slot.worker.events("defect") == []
