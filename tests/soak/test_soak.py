"""A bank under load, every kind of job, two owners, two workers: nothing absent, nothing twice."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from harness import wait_until
from soak.compare import Comparison, compare, occurrences
from soak.jobs import CENTS, CRONTABS, FAIL_EACH, Job, all_jobs
from soak.world import World
from wheel import install_wheel

SECONDS = int(os.environ.get("ROWCRON_SOAK_SECONDS") or 16)
LONG = SECONDS >= 120  # then workers are killed, too
KILL_EACH = 45.0
RATE = 40  # pgbench's transactions in a second
AHEAD = timedelta(seconds=5)  # for the jobs to be inserted before the window opens
KEPT = "final, outcome, scheduled_for, first_scheduled_for, occurrences, attempt, output, error"


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a clean environment in which the wheel is installed."""
    return install_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture
def world(pytestconfig: pytest.Config, programs: Path) -> Iterator[World]:
    named = pytestconfig.getoption("--server-bin")
    world = World(Path(named) if named else None, programs)
    try:
        world.open()
        yield world
    finally:
        world.close()


def refuse_bad_schedules(world: World) -> None:
    """A bad schedule is refused by both ways in, and leaves nothing."""
    statement = (
        "insert into rowcron.job (name, schedule, command) values ('bad', '61 * * * *', 'select 1')"
    )
    told = world.psql("alice", f"\\set VERBOSITY verbose\n{statement};", code=3)
    assert "RCSCH" in told
    assert "minute" in told
    assert "0-59" in told
    assert "HINT:" in told
    told = world.cli("bob", "job", "add", "bad", "61 * * * *", "select 1", code=1)
    assert "Hint:" in told
    assert "Traceback" not in told
    for role in ("alice", "bob"):
        assert world.value(role, "select count(*) from rowcron.job where name = 'bad'") == "0"


def keep_crontabs(world: World) -> None:
    """The lines of Debian's packages, paused; what they name next is what croniter names."""
    after = datetime(2026, 1, 30, 21, 44, 30, tzinfo=UTC)
    paused = {"enabled": "false"}
    zones = ("UTC", "Asia/Kolkata")
    jobs = [
        Job("alice", name, "sql", schedule, command, {"timezone": zones[number % 2], **paused})
        for number, (_, name, schedule, command) in enumerate(CRONTABS)
    ]
    world.insert(*jobs)
    found = world.rows(
        "alice",
        "select j.name, n.at from rowcron.job as j,"
        f" rowcron.next_runs(j.schedule, 60, '{after}', j.timezone) with ordinality"
        " as n (at, number) where not j.enabled order by j.name, n.number",
    )
    for job in jobs:
        far = after + timedelta(days=1900)
        expected = occurrences(job.schedule, job.timezone, after + timedelta(seconds=1), far)
        answer = [datetime.fromisoformat(row["at"]) for row in found if row["name"] == job.name]
        assert answer == list(islice(expected, 60)), job.name
    assert world.value("alice", "select count(*) from rowcron.upcoming") == "0"


def run_window(world: World) -> tuple[list[Job], datetime, datetime, int]:
    """Insert the jobs, let their window pass under load, wait until everything has ended."""
    for _ in range(2):
        world.start_worker()
    now = world.value("alice", "select date_trunc('second', clock_timestamp())")
    start = datetime.fromisoformat(now) + AHEAD
    end = start + timedelta(seconds=SECONDS)
    jobs = all_jobs(
        str(world.server.bin),
        str(world.directory),
        world.database.url("soak_backup"),
        world.hook.url,
        start,
        end,
    )
    window = {"starts_at": start.isoformat(), "ends_at": end.isoformat()}
    world.insert(*(job for job in jobs if job.owner == "alice"), **window)
    for job in jobs:
        if job.owner == "bob":
            world.add(job, **window)
    world.start_load(SECONDS + int(AHEAD.total_seconds()), RATE)
    left = (end - datetime.now(UTC)).total_seconds()
    killed = world.kill_in_turn(time.monotonic() + left, KILL_EACH) if LONG else 0
    wait_until(lambda: not world.due(), left + 30, f"the end of the window; {world.due}")
    wait_until(lambda: not world.live(), 60, "the last run")
    world.end_load()
    assert "run " in world.cli("alice", "job", "run", "rollup")
    wait_until(lambda: not world.live(), 20, "the last rollup")
    return jobs, start, end, killed


def compare_money(world: World, ended: Counter[str]) -> list[str]:
    """Every sum that must be equal to another one, in cents; returns what to print."""
    (sums,) = world.rows(
        "postgres",
        "select (select sum(abalance) from pgbench_accounts) as accounts,"
        " (select sum(tbalance) from pgbench_tellers) as tellers,"
        " (select sum(bbalance) from pgbench_branches) as branches,"
        " (select sum(delta) from pgbench_history) as history,"
        " (select sum(delta) from summary) as summary,"
        " (select count(*) from pgbench_history) as rows,"
        " (select sum(rows) from summary) as summed,"
        " (select count(*) from transfer) as transfers,"
        " (select coalesce(sum(cents), 0) from transfer) as moved,"
        " (select abalance - (select coalesce(sum(delta), 0) from pgbench_history where aid = 1)"
        "    from pgbench_accounts where aid = 1) as out_of_1,"
        " (select abalance - (select coalesce(sum(delta), 0) from pgbench_history where aid = 2)"
        "    from pgbench_accounts where aid = 2) as into_2,"
        " (select count(*) from tally) as tallied",
    )
    number = {name: int(value) for name, value in sums.items()}
    assert number["rows"] > SECONDS * RATE // 4
    for name in ("accounts", "tellers", "branches", "summary"):
        assert number[name] == number["history"], (name, sums)
    assert number["summed"] == number["rows"]
    assert number["transfers"] == ended["transfer"]
    assert -number["out_of_1"] == number["into_2"] == number["moved"] == CENTS * ended["transfer"]
    assert number["tallied"] == ended["tally"]
    for table in ("transfer", "tally"):
        strange = (
            f"select count(*) from {table} as t where not exists (select from rowcron.history as h"
        )
        strange += f" where h.run_id = t.run_id and h.job = '{table}' and h.outcome = 'succeeded')"
        assert world.value("alice", strange) == "0"
    return [f"{name} {value}" for name, value in sums.items()]


def compare_hook(world: World, entries: list[dict[str, str]], ended: int, killed: int) -> None:
    """A key a run, as many requests under it as the run had attempts."""
    assert world.hook.unexpected == []
    requests = Counter(world.hook.keys.values())
    attempts = Counter(
        int(entry["attempt"])
        for entry in entries
        if entry["final"] == "t" and entry["outcome"] == "succeeded"
    )
    assert len(world.hook.keys) == ended
    assert attempts.keys() - {1}, "no request was refused: the retries prove nothing"
    if not killed:
        assert requests == attempts


def compare_dump(world: World, entries: list[dict[str, str]]) -> None:
    """Every dump listed the tables; the last one, restored, is a moment at which sums hold."""
    listed = [entry["output"] for entry in entries if entry["outcome"] == "succeeded"]
    for output in listed:
        for table in (
            "public pgbench_accounts alice",
            "public transfer alice",
            "rowcron job rowcron_owner",
        ):
            assert f"TABLE DATA {table}" in output
    other = world.server.create_database(template="template0")
    options = [
        f"--table={table}"
        for table in ("pgbench_accounts", "pgbench_history", "transfer", "summary")
    ]
    restore = [str(world.server.bin / "pg_restore"), "--no-owner", "--no-privileges", *options]
    world.run(*restore, "-d", other.url("postgres"), str(world.directory / "latest"))
    told = world.run(
        str(world.server.bin / "psql"), "-XqAt", "-d", other.url("postgres"), "-c",
        "select (select sum(abalance) from pgbench_accounts)"
        " = (select sum(delta) from pgbench_history) and exists (select from summary)",
    )  # fmt: skip
    assert told.strip() == "t"


def test_real_input_leaves_nothing_out_and_doubles_nothing(world: World) -> None:
    refuse_bad_schedules(world)
    keep_crontabs(world)
    jobs, start, end, killed = run_window(world)

    compared: list[Comparison] = []
    entries = {
        job.name: world.rows(
            job.owner, f"select {KEPT} from rowcron.ledger where job = '{job.name}'"
        )
        for job in jobs
    }
    for job in jobs:
        created = world.value(
            job.owner, f"select created_at from rowcron.job where name = '{job.name}'"
        )
        since = max(
            start, datetime.fromisoformat(created)
        )  # a slow machine may have inserted it late
        compared.append(compare(job, entries[job.name], since, end))
    print(f"\n{SECONDS} s from {start}, {killed} workers killed", *compared, sep="\n")
    assert [line for each in compared for line in each.differences] == []
    for job, each in zip(jobs, compared, strict=True):
        bad = [entry["error"] for entry in entries[job.name] if entry["final"] == "t"]
        assert each.outcomes.keys() <= {"succeeded", "skipped", "missed"}, (
            each,
            bad,
            world.consoles(),
        )
        assert each.outcomes["succeeded"] >= each.expected / 2, each
    ended = Counter({each.job: each.outcomes["succeeded"] for each in compared})
    for name in (
        "transfer",
        "tally",
    ):  # what was to fail at first did, and the second attempt went well
        for entry in (entry for entry in entries[name] if entry["outcome"] == "succeeded"):
            fails = datetime.fromisoformat(entry["scheduled_for"]).second % FAIL_EACH == 0
            assert killed or int(entry["attempt"]) == 1 + fails, entry

    # the schedule in Lord Howe's local time names other instants, or none, in UTC
    (lord_howe,) = (job for job in jobs if job.timezone == "Australia/Lord_Howe")
    assert start.astimezone(ZoneInfo(lord_howe.timezone)).hour != start.hour
    assert list(occurrences(lord_howe.schedule, "UTC", start, end)) == []

    print(", ".join(compare_money(world, ended)))
    compare_hook(world, entries["hook"], ended["hook"], killed)
    compare_dump(world, entries["dump"])

    assert list(world.stop_workers()) == [0, 0], world.consoles()
    assert world.value("postgres", "select count(*) from rowcron.run") == "0"
    alive = "select count(*) from rowcron.workers where state not in ('stopped', 'lost')"
    assert world.value("postgres", alive) == "0"
    assert "Traceback" not in world.consoles()
