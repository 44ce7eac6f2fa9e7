# ruff: noqa: E501 -- the statements read better whole
"""A job that wants all of the memory: it fails, the server and the worker go on."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from attack.conftest import Attack
from harness import TestServer, wait_until
from test_execute import Hands, add, only
from workers import Jobs, Row, Start, WorkerProcess, jobs, start

__all__ = ["jobs", "start"]

pytestmark = pytest.mark.executed
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="/proc and prlimit are Linux's")
MB = 1024 * 1024
KEPT = 65_536  # bytes of an error that are kept

TOO_LARGE = {
    "a text of 1 GB": "select repeat('x', 1073741824)",
    "a text padded to 1 GB": "select lpad('x', 1073741824)",
    "a text that is joined to be 2 GB": "select repeat(repeat('x', 40000), 40000)",
    "an array of 4 billion": "select array_fill(0, array[65536, 65536])",
    "an array of 1 GB": "select array_fill(0::bigint, array[134217727])",
    "an element far away": "do $$ declare a int[]; begin a[1] := 1; a[2000000000] := 1; end $$",
    "bits of 1 GB": "select repeat('1', 90000000)::varbit || null, b'1'::bit(83886081)",
    "a number of a billion digits": "select 10::numeric ^ 1000000000",
    "recursion": "create function r(n int) returns int language plpgsql as $$ begin return r(n + 1); end $$; select r(1)",
    "nested brackets": "do $$ begin execute 'select ' || repeat('(', 50000) || '1' || repeat(')', 50000); end $$",
    "nested JSON": "select repeat('[', 500000)::jsonb",
    "a regular expression": "select 'x' ~ '((((x{255}){255}){255}){255})'",
    "more columns than a row has": "do $$ begin execute 'select ' || repeat('1,', 2000) || '1'; end $$",
}


@pytest.mark.parametrize("what", TOO_LARGE)
def test_what_is_too_large_is_refused_before_it_is_made(
    alice: psycopg.Connection, hands: Hands, attack: Attack, what: str
) -> None:
    tried = attack(f"{what}: {TOO_LARGE[what]}")
    add(alice, "job", TOO_LARGE[what])
    answer = hands.execute(hands.claim()[0])
    assert answer["outcome"] == "failed", answer

    assert peak(hands.session.info.backend_pid) < 200
    tried.stopped(answer["error"].splitlines()[0])


def peak(pid: int) -> int:
    """The most memory that a process has had, in MB."""
    lines = Path(f"/proc/{pid}/status").read_text("utf-8").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) // 1024


GROWING = {
    "a text that doubles": "do $$ declare s text := 'x'; begin loop s := s || s; end loop; end $$",
    "an array that grows": "do $$ declare a text[] := array[repeat('x', 1000)]; begin loop a := a || a; end loop; end $$",
    "an aggregate": "select array_agg(n::text || repeat('x', 1000)) from generate_series(1, 10000000) as n",
    "a hash table with all of work_mem": "set jit = off; set work_mem = '2147483647kB'; set enable_sort = off; set enable_hashagg = on;"
    " select count(*) from (select n, repeat('x', 500) as x from generate_series(1, 10000000) as n group by 1, 2) as s",
    "JSON": "select jsonb_object_agg(n, repeat('x', 1000)) from generate_series(1, 10000000) as n",
    "an error of all that is left": "do $$ declare s text := 'x'; begin loop s := s || s; end loop;"
    " exception when out_of_memory then raise exception '%', repeat('x', 20000000); end $$",
}


@LINUX
@pytest.mark.parametrize("what", GROWING)
def test_a_session_without_memory_fails_its_job_and_records_it(
    server: TestServer, alice: psycopg.Connection, hands: Hands, attack: Attack, what: str
) -> None:
    tried = attack(f"{what}, in a session that may have 100 MB more")
    add(alice, "first", "do $$ begin perform to_jsonb(1); end $$")
    assert hands.execute(hands.claim()[0])["outcome"] == "succeeded"
    pid = hands.session.info.backend_pid
    size = int(Path(f"/proc/{pid}/statm").read_text("utf-8").split()[0]) * resource.getpagesize()
    # as the server's user: even root may lack the right to limit another's process
    limit = ["prlimit", "--pid", str(pid), f"--as={size + 100 * MB}"]
    subprocess.run(limit, check=True, **server.as_server_user())
    run = add(alice, "job", GROWING[what])
    answer = hands.execute(hands.claim()[0])
    assert answer["outcome"] == "failed", answer
    assert answer["error"][:5] in ("53200", "P0001"), answer["error"][:300]
    assert len(answer["error"]) < KEPT
    assert only(alice, "select outcome from rowcron.history where run_id = %s", run) == "failed"
    assert hands.session.info.backend_pid == pid
    add(alice, "next", "select current_user::text as who")
    assert hands.execute(hands.claim()[0])["result"] == {"who": "alice"}
    tried.stopped(f"{answer['error'].splitlines()[0][:90]}; recorded, and the next job runs")


def test_a_job_takes_what_its_owner_could_take_in_psql(attack: Attack) -> None:
    attack("memory up to what the server has").possible(
        "PostgreSQL bounds no session's memory; work_mem is everybody's to set. Bounds are the"
        " operating system's: vm.overcommit_memory = 2, or a cgroup of the server"
    )


SAID = {
    "an error of 50 MB": "do $$ begin raise exception '%', repeat('x', 50000000); end $$",
    "a detail and a hint of 30 MB": "do $$ begin raise exception 'no' using detail = repeat('x', 30000000),"
    " hint = repeat('x', 30000000); end $$",
    "a notice of 50 MB": "do $$ begin raise notice '%', repeat('x', 50000000); end $$",
    "a warning with a detail of 50 MB": "do $$ begin raise warning 'no' using detail = repeat('x', 50000000); end $$",
    "a result of 280 MB": "select repeat('x', 280000000) as x",
}


@LINUX
@pytest.mark.parametrize("what", SAID)
def test_what_a_job_says_is_cut_before_it_fills_the_worker(
    jobs: Jobs, start: Start, attack: Attack, what: str
) -> None:
    tried = attack(f"{what}: {SAID[what]}")
    worker = start("--kind", "sql", "--sql-connections", "1")
    before = memory(worker, "VmHWM")
    entry = jobs.end(jobs.run("sql", SAID[what]), 60)
    assert jobs.end(jobs.run("sql", "select 1"), 60)["outcome"] == "succeeded"
    code = {"an error": "P0001", "a detail": "P0001", "a result": "54000"}.get(
        what.partition(" of")[0].partition(" and")[0]
    )
    assert (entry["error"] or "")[:5] == (code or ""), entry["error"][:99]
    assert len(entry["error"] or "") < KEPT
    high, left = memory(worker, "VmHWM") - before, memory(worker, "VmRSS") - before
    assert left < 30, "its buffers are let go"
    assert high < (30 if code else 350), "of a notice libpq holds one, whole, while it arrives"
    worker.stop()
    assert worker.console.stat().st_size + worker.log.stat().st_size < 5 * KEPT
    tried.stopped(
        f"{entry['outcome']} {(entry['error'] or '')[:60]}; the worker's peak grows by {high} MB"
    )


def memory(worker: WorkerProcess, line: str) -> int:
    """How much memory a worker has (VmRSS) or has had at most (VmHWM), in MB."""
    lines = Path(f"/proc/{worker.process.pid}/status").read_text("utf-8").splitlines()
    return int(next(text for text in lines if text.startswith(line)).split()[1]) // 1024


LOCKS = """do $$ declare n bigint := 0; begin
  loop
    begin
      loop perform pg_advisory_lock(n); n := n + 1; end loop;
    exception when out_of_memory then exit; end;
  end loop;
  perform pg_sleep(2);
end $$"""


def test_a_job_that_takes_all_locks_of_the_server_is_waited_for(
    jobs: Jobs, start: Start, attack: Attack
) -> None:
    tried = attack("advisory locks until the server's table of locks is full")
    worker = start("--kind", "sql")
    run = jobs.run("sql", LOCKS, timeout="20 seconds", max_lost=1)

    def ended() -> Row | None:
        try:
            return next((entry for entry in jobs.entries(run) if entry["final"]), None)
        except psycopg.errors.OutOfMemory:  # we are among those who get no lock
            return None

    entry = wait_until(ended, 60, "the end of the job")
    assert worker.process.poll() is None
    assert jobs.end(jobs.run("sql", "select 1"), 60)["outcome"] == "succeeded"
    held = "select count(*) from pg_locks where locktype = 'advisory'"
    assert only(jobs.db, held) < 100, "nothing of the job's is left"
    tried.possible(
        f"{entry['outcome']} {(entry['error'] or '')[:80]}: while it lasts everybody gets 53200, as if"
        " from psql; the worker lives on, nothing is left, the next job runs"
    )
