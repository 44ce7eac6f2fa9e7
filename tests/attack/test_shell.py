"""Shell jobs against the worker that runs them."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from attack.conftest import Attack
from harness import wait_until
from workers import Jobs, Start, WorkerProcess, jobs, start

__all__ = ["jobs", "start"]

pytestmark = pytest.mark.executed
SHELL = ("--kind", "sql,shell")
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else")
HUSH = f"the-password-of-the-database-{os.getpid()}"  # other runs of this have their own


def output(jobs: Jobs, command: str, **columns: object) -> str:
    """What a command wrote."""
    entry = jobs.end(jobs.run("shell", command, **columns))
    return str(entry["output"] or "")


def unprivileged() -> list[str]:
    """What starts a worker without root's right to look into every process."""
    if os.geteuid() != 0:
        return []
    assert shutil.which("setpriv"), "apt-get install util-linux"
    few = "-all,+dac_override"  # the way to the server's socket
    return ["setpriv", "--bounding-set", few, "--inh-caps", "-all"]


@LINUX
def test_the_worker_s_environment_and_memory_are_closed(
    jobs: Jobs, start: Start, attack: Attack
) -> None:
    worker = start(*SHELL, prefix=unprivileged(), PGPASSWORD=HUSH, ROWCRON_SECRET_X=HUSH)
    own = attack("read the database's password in the job's own environment")
    seen = output(jobs, "env; cat /proc/self/environ")
    assert "ROWCRON_RUN_ID" in seen
    assert HUSH not in seen
    own.stopped("the environment is PATH, HOME, LANG and the run's own")
    for file in ("environ", "mem", "maps", "auxv"):
        tried = attack(f"read the worker's /proc/PID/{file} as the same user")
        seen = output(jobs, f"cat /proc/{worker.process.pid}/{file}; true")
        assert HUSH not in seen
        assert "ermission denied" in seen
        tried.stopped(seen)
    tried = attack("open the worker's descriptors in /proc/PID/fd")
    seen = output(jobs, f"ls -l /proc/{worker.process.pid}/fd 2>&1; true")
    assert "socket" not in seen
    tried.stopped(next(line for line in seen.splitlines() if "ermission denied" in line))
    tried = attack("read the environment of all processes that can be found")
    assert HUSH not in output(jobs, "cat /proc/[0-9]*/environ 2>&-; true")
    tried.stopped("the worker is the only one that has it, and is not dumpable")


@LINUX
def test_every_process_of_several_is_closed(jobs: Jobs, start: Start, attack: Attack) -> None:
    start(*SHELL, "--processes", "2", prefix=unprivileged(), PGPASSWORD=HUSH)
    tried = attack("read the password in the supervisor of several worker processes")
    seen = output(jobs, "ps -o ppid= -p $PPID; for p in /proc/[0-9]*; do cat $p/environ; done 2>&-")
    assert HUSH not in seen
    tried.stopped("the supervisor is closed before it forks")


@LINUX
def test_no_descriptor_is_inherited(jobs: Jobs, start: Start, attack: Attack) -> None:
    start(*SHELL)
    tried = attack("use the worker's database connection as an inherited descriptor")
    seen = output(jobs, "for f in /proc/self/fd/*; do readlink $f; done")
    kinds = [line for line in seen.splitlines() if line and "/proc/" not in line]
    assert len(kinds) == 3, seen  # input, output, errors
    assert "socket" not in seen
    tried.stopped(f"all it has: {', '.join(kinds)}")


@ROOT
def test_another_user_runs_it(jobs: Jobs, start: Start, attack: Attack, tmp_path: Path) -> None:
    secret = tmp_path / "of-root"
    secret.write_text(HUSH, "utf-8")
    secret.chmod(0o600)
    worker = start(*SHELL, "--shell-user", "nobody", PGPASSWORD=HUSH)
    seen = output(jobs, "id -un; id -G; echo $HOME; pwd; cat /dev/stdin", args={"a": 1})
    assert seen.splitlines()[0] == "nobody"
    assert "0" not in seen.splitlines()[1].split()
    assert '{"a": 1}' in seen
    long = output(jobs, f"id -un; : {'x' * 200_000}")
    assert long == "nobody\n"
    for what, command in {
        "read root's file": f"cat {secret}",
        "read the worker's environment": f"cat /proc/{worker.process.pid}/environ",
        "kill the worker": f"kill -9 {worker.process.pid}",
        "become root again": "setpriv --reuid 0 id -u",
        "write where root may": "echo x > /etc/rowcron-was-here",
    }.items():
        tried = attack(f"{what} with --shell-user nobody")
        entry = jobs.end(jobs.run("shell", command))
        assert entry["outcome"] == "failed"
        assert HUSH not in entry["output"]
        tried.stopped(entry["output"])
    assert worker.process.poll() is None


def test_a_user_that_cannot_be_stops_the_start(start: Start, attack: Attack) -> None:
    for name in ("no-such-user", "root"):
        tried = attack(f"start a worker with --shell-user {name}")
        worker = start(*SHELL, "--shell-user", name, wait=False)
        assert worker.process.wait(20) != 0
        said = worker.console.read_text("utf-8")
        assert "Error:" in said
        assert "Traceback" not in said
        tried.stopped(said.splitlines()[0])


@pytest.fixture
def limited(jobs: Jobs, start: Start) -> Iterator[WorkerProcess]:
    """A worker whose shell jobs are limited, as nobody where that is possible."""
    options = ["--shell-limit", "cpu=1 s,memory=300 MB", "--shell-limit", "files=20"]
    options += ["--shell-limit", "file-size=1 MB,processes=40"]
    if os.geteuid() == 0:
        options += ["--shell-user", "nobody"]
    worker = start(*SHELL, *options)
    yield worker
    assert worker.process.poll() is None


def test_limits_bound_what_a_job_takes(
    jobs: Jobs, limited: WorkerProcess, attack: Attack, tmp_path: Path
) -> None:
    tmp_path.chmod(0o777)
    place = Path("/tmp") / f"rowcron-attack-{os.getpid()}"
    for what, command in {
        "burn CPU for ever (cpu=1 s)": "while :; do :; done",
        "fill the memory (memory=300 MB)": "head -c 2000000000 /dev/zero | tail -n 1 | wc -c;"
        " a=$(head -c 500000000 /dev/zero | tr '\\0' x)",
        "fill the disk (file-size=1 MB)": f"trap 'rm -f {place}' EXIT; yes > {place}",
        "open all descriptors (files=20)": "bash -c '"
        'for i in {10..40}; do eval "exec $i</dev/null" || exit 1; done\'',
        "raise the limit again": "ulimit -t 100",
    }.items():
        tried = attack(what)
        begin = time.monotonic()
        entry = jobs.end(jobs.run("shell", command, timeout="30 s"), 40)
        assert entry["outcome"] == "failed", entry
        assert time.monotonic() - begin < 20
        tried.stopped(f"{entry['error']}: {(entry['output'] or '').strip()[:100]}")


@ROOT
def test_a_fork_bomb_is_bounded(jobs: Jobs, limited: WorkerProcess, attack: Attack) -> None:
    tried = attack("a fork bomb (processes=40, of the whole user)")
    run = jobs.run("shell", "f() { f & f; }; f", timeout="2 s")
    entry = jobs.end(run, 40)
    assert entry["outcome"] == "failed"
    assert output(jobs, "echo alive", max_attempts=5, retry_delay="1 s") == "alive\n"
    tried.stopped(f"{entry['error']}; the worker goes on")


def test_the_whole_group_is_killed(jobs: Jobs, start: Start, attack: Attack) -> None:
    start(*SHELL)
    tried = attack("outlive the timeout as a child that ignores TERM")
    mark = f"rowcron-survivor-{os.getpid()}"
    stubborn = f"sh -c \"trap '' TERM; sleep 300; : {mark}\""
    command = f"({stubborn}) & {stubborn}"
    entry = jobs.end(jobs.run("shell", command, timeout="500 ms"))
    assert entry["reason"] == "timeout"
    wait_until(lambda: not living(mark), what="the end of all children")
    tried.stopped("KILL to the whole process group after --kill-grace")

    tried = attack("outlive the timeout in a session of its own (setsid)")
    command = f"setsid sh -c 'sleep 20; : {mark}' & sleep 300"
    jobs.end(jobs.run("shell", command, timeout="500 ms"))
    survivors = living(mark)
    for pid in survivors:
        os.kill(pid, signal.SIGKILL)
    assert survivors
    tried.possible("whoever leaves the process group is not found; a service manager's cgroup is")


def living(mark: str) -> list[int]:
    """The processes whose command line has it."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mark.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def test_output_without_end_stays_small(jobs: Jobs, start: Start, attack: Attack) -> None:
    worker = start(*SHELL)
    jobs.end(jobs.run("shell", "true"))
    tried = attack("write output for as long as the timeout allows")
    entry = jobs.end(jobs.run("shell", "cat /dev/zero", timeout="2 s"))
    assert entry["reason"] == "timeout"
    assert len(entry["output"].encode()) <= 65_536
    lines = Path(f"/proc/{worker.process.pid}/status").read_text("utf-8").splitlines()
    peak = int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    assert peak < 150_000
    tried.stopped(f"the last 64 KiB are kept; the worker's peak is {peak // 1000} MB")


def test_a_worker_takes_no_kind_that_it_was_not_started_with(
    jobs: Jobs, start: Start, attack: Attack
) -> None:
    start("--kind", "sql")
    tried = attack("have a shell job run by a worker of kind sql")
    run = jobs.run("shell", "true")
    assert jobs.end(jobs.run("sql", "select 1"))["outcome"] == "succeeded"
    assert not jobs.entries(run)
    why = jobs.owner.execute(
        "select w.detail from rowcron.why_not_running((select r.job from rowcron.run as r"
        " where r.id = %s)) as w where w.gate = 'worker' and w.holds",
        [run],
    ).fetchone()
    assert why is not None
    tried.stopped(why[0])


def test_a_kind_taken_away_stops_the_job(jobs: Jobs, start: Start, attack: Attack) -> None:
    tried = attack("go on with a shell job after rowcron_shell was revoked")
    name = jobs.add("shell", "echo x", schedule="@every 1 second")
    run = jobs.start(name)
    jobs.db.execute("revoke rowcron_shell from alice")
    start(*SHELL)
    entry = jobs.end(run)
    assert (entry["outcome"], entry["output"]) == ("cancelled", None)
    assert entry["reason"] == "kind shell is not granted to alice"
    scheduled = "select 1 from rowcron.ledger where job = %s and scheduled_for is not null"
    scheduled += " and outcome = 'cancelled'"
    wait_until(lambda: jobs.db.execute(scheduled.encode(), [name]).fetchone(), what="an occurrence")
    why = jobs.owner.execute(
        "select w.hint from rowcron.why_not_running(%s) as w where w.gate = 'kind' and w.holds",
        [name],
    ).fetchone()
    assert why is not None
    succeeded = "select count(*) from rowcron.ledger where job = %s and outcome = 'succeeded'"
    assert jobs.db.execute(succeeded.encode(), [name]).fetchone() == (0,)
    tried.stopped(f"{entry['reason']}; each occurrence is in the ledger; {why[0]}")
    for what in ("insert", "enqueue"):
        tried = attack(f"{what} another one")
        if what == "insert":
            with pytest.raises(Exception, match="may not own jobs of kind") as caught:
                jobs.add("shell", "true")
            tried.stopped(str(caught.value).splitlines()[0])
        else:
            assert jobs.end(jobs.start(name))["outcome"] == "cancelled"
            tried.stopped("cancelled when it would be claimed")
