"""A full disk, a server that takes no writes, one not ready: a pause with one clear line."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from harness import wait_until
from rowcron import embedded_os
from test_worker_faults import MortalServer, connected, mortal
from workers import Jobs, Start, WorkerProcess, start

__all__ = ["mortal", "start"]


def cpu(worker: WorkerProcess) -> float:
    """Seconds of CPU that the process has used."""
    fields = Path(f"/proc/{worker.process.pid}/stat").read_text("ascii").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def pause(worker: WorkerProcess, word: str, seconds: float = 4.0) -> Iterator[None]:
    """The worker says once that it waits, does not spin, and says once that it goes on."""
    yield
    # what ails the server may do so by and by: the worker may have come and gone meanwhile
    said = wait_until(lambda: is_away(worker), what="that the worker waits")
    line = worker.events("unavailable")[-1]
    assert word in line["text"], line
    before, until = cpu(worker), time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > until)
    assert cpu(worker) - before < seconds / 8
    assert is_away(worker) == said
    assert worker.events("defect") == []
    assert worker.process.poll() is None
    assert "Traceback" not in worker.console.read_text("utf-8")


def is_away(worker: WorkerProcess) -> int:
    """How often it has said that the database is away, if it is away now; else 0."""
    away, back = len(worker.events("unavailable")), len(worker.events("reconnect"))
    assert away - back in (0, 1)
    return away if away > back else 0


def goes_on(worker: WorkerProcess, jobs: Jobs, name: str) -> None:
    """It takes runs again."""
    said = is_away(worker)
    assert jobs.end(jobs.start(name), 30)["outcome"] == "succeeded"
    wait_until(lambda: not is_away(worker), what="that the worker is back")
    assert said in (0, len(worker.events("unavailable")))
    assert worker.stop() == 0


@pytest.fixture
def small_disk(mortal: MortalServer) -> Iterator[Path]:
    """A file system of 24 MB, for a tablespace. Needs the right to mount one."""
    place = mortal.base / "small"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m,mode=0777", "tmpfs", str(place)],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        place.rmdir()
        pytest.skip(f"no file system can be mounted here: {done.stderr.decode().strip()}")
    embedded_os.private_dir(place / "space", mortal._user)
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_is_a_pause(mortal: MortalServer, small_disk: Path, start: Start) -> None:
    """The tables are on it; the log is not. A server whose tables went away is of no more use."""
    database = mortal.create_database()
    with psycopg.connect(mortal.admin_url, autocommit=True) as conn:
        conn.execute(f"create tablespace small location '{small_disk}/space'".encode())
        conn.execute(f'alter database "{database.name}" set tablespace small'.encode())
    with (
        psycopg.connect(database.url("postgres"), autocommit=True) as db,
        psycopg.connect(database.url("alice"), autocommit=True) as alice,
    ):
        jobs = Jobs(alice, db)
        name = jobs.add("sql", "select 1")
        worker = start("--kind", "sql", "--poll", "0.5", url=database.url("w_worker"))
        assert jobs.end(jobs.start(name))["outcome"] == "succeeded"
        with pause(worker, "No space left on device"):
            # until not one more page goes into any table
            db.execute("create table public.filler (t text)")
            db.execute("alter table public.filler alter t set storage plain")
            fill = "insert into public.filler select repeat('x', 7000) from generate_series(1, {})"
            for size in (1000, 1):
                until_full(db, fill.format(size))
            until_full(alice, f"select rowcron.run_now('{name}') from generate_series(1, 20)")
        remount = ["mount", "-o", "remount,size=200m", str(small_disk)]
        subprocess.run(remount, check=True)
        wait_until(
            lambda: db.execute("select count(*) from rowcron.run").fetchone() == (0,), 30, "the end"
        )
        outcomes = db.execute("select distinct outcome from rowcron.ledger where final").fetchall()
        assert outcomes == [("succeeded",)]
        goes_on(worker, jobs, name)


def until_full(conn: psycopg.Connection, statement: str) -> None:
    """Repeat a statement until it finds no room."""
    while not _fails(conn, statement):
        pass


def _fails(conn: psycopg.Connection, statement: str) -> bool:
    try:
        conn.execute(statement.encode())
    except psycopg.Error:
        return True
    return False


def test_a_server_that_takes_no_writes_is_a_pause(mortal: MortalServer, start: Start) -> None:
    database = mortal.create_database()
    with connected(database) as jobs:
        name = jobs.add("sql", "select 1")
        worker = start("--poll", "0.5", url=database.url("w_worker"))
        jobs.db.execute("set default_transaction_read_only = off")
        with pause(worker, "read-only"):
            jobs.db.execute("alter system set default_transaction_read_only = on")
            jobs.db.execute("select pg_reload_conf()")
        jobs.db.execute("alter system reset default_transaction_read_only")
        jobs.db.execute("select pg_reload_conf()")
        goes_on(worker, jobs, name)


def slow_start(mortal: MortalServer) -> Callable[[], None]:
    """Start the server so that it recovers, and does not end that; returns what ends it.

    As a standby of nobody: until it is consistent it refuses connections as a server does that
    recovers from a crash.
    """
    data = mortal.base / "data"
    signal_file = data / "standby.signal"
    signal_file.touch()
    shutil.chown(signal_file, mortal._user.pw_uid, mortal._user.pw_gid)
    directory = f"unix_socket_directories={mortal.base / 'socket'}"
    options = ["-c", directory, "-c", "listen_addresses=", "-c", "max_connections=200"]
    options += ["-c", "max_prepared_transactions=10", "-c", "hot_standby=off"]
    mortal._process = mortal._spawn("postgres", "-D", str(data), *options)

    def end() -> None:
        signal_file.unlink()
        mortal.end(signal.SIGINT)
        mortal.start_again()

    return end


def test_a_recovering_server_is_a_pause(mortal: MortalServer, start: Start) -> None:
    database = mortal.create_database()
    with psycopg.connect(database.url("postgres"), autocommit=True) as db:
        db.execute("checkpoint")
    mortal.end(signal.SIGQUIT)
    ready = slow_start(mortal)

    def refused() -> bool:
        try:
            psycopg.connect(database.url("postgres")).close()
        except psycopg.OperationalError as error:
            return "the database system is" in str(error) or "not accepting" in str(error)
        return False

    wait_until(refused, what="the refusal")
    worker = start("--poll", "0.5", wait=False, url=database.url("w_worker"))
    wait_until(lambda: worker.log.exists())
    with pause(worker, "the database system is"):
        pass
    ready()
    with connected(database) as jobs:
        worker.wait_for("worker")
        goes_on(worker, jobs, jobs.add("sql", "select 1"))
