"""The postmaster of one data directory: initdb, start, find, stop."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import signal
import subprocess
import time
from pathlib import Path
from typing import IO, Any

from rowcron.embedded_os import (
    ENVIRONMENT,
    MAJOR,
    EmbeddedError,
    is_root,
    private_file,
    runs_in,
)

POLL = 0.01  # seconds between two looks at postmaster.pid or at the process
START_LIMIT = 300.0  # crash recovery may replay a lot; a server that gives up says so at once
ORPHAN_LIMIT = 20.0  # how long the backends of a killed postmaster may take to notice
STOP_LIMIT = 60.0
LOG_LIMIT = 10_000_000  # bytes; past that the log of earlier starts is set aside

SETTINGS = {
    "client_connection_check_interval": "2s",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "password_encryption": "scram-sha-256",
    "unix_socket_permissions": "0700",
}


class Detached(subprocess.Popen[bytes]):
    """A child that may outlive us: it is no mistake to let go of one that still runs."""

    def __del__(self) -> None:
        """Reap it if it has ended; where it has not, whoever leaves last stops it."""
        self.poll()


class Postmaster:
    """A server process. `port` names the socket too; `tcp` tells whether it listens on loopback."""

    def __init__(self, data: Path, bin: Path, user: pwd.struct_passwd) -> None:
        self.pgdata = data / "pgdata"
        self.log = data / "server.log"
        self.bin = bin
        self.user = user
        self.socket_dir = Path()
        self.port = 0
        self.tcp = False
        self._process: Detached | None = None
        self._pid = 0

    def init(self) -> None:
        """Make the data directory unless it is there. A half-made one is never seen."""
        if self.pgdata.is_dir():
            version = (self.pgdata / "PG_VERSION").read_text("ascii").strip()
            if version != str(MAJOR):
                raise EmbeddedError(
                    f"{self.pgdata} was made by PostgreSQL {version}, this is {MAJOR}",
                    "choose another: --data DIRECTORY; and move the jobs with pg_dump",
                )
            return
        part = self.pgdata.with_name("pgdata.part")
        if part.is_dir():  # an earlier initdb was killed
            subprocess.run(["rm", "-rf", "--", str(part)], check=True)
        part.mkdir(mode=0o700)
        os.chown(part, self.user.pw_uid, self.user.pw_gid)
        command = [str(self.bin / "initdb"), "-D", str(part), "--username=postgres"]
        command += ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin"]
        command += ["--builtin-locale=C.UTF-8", "--auth-local=peer", "--auth-host=reject"]
        with self._open_log() as log:
            if self._spawn(command, log).wait() != 0:
                raise EmbeddedError("initdb failed" + self._last_words(), f"see {self.log}")
        part.rename(self.pgdata)

    def configure(self, hba: str, ident: str) -> None:
        """Write who may connect."""
        for name, text in (("pg_hba.conf", hba), ("pg_ident.conf", ident)):
            path = self.pgdata / name
            path.write_text(text, "utf-8")
            os.chown(path, self.user.pw_uid, self.user.pw_gid)
            path.chmod(0o600)

    def find_running(self) -> bool:
        """Join the server that runs on this data directory, if one does, once it is ready."""
        deadline = time.monotonic() + START_LIMIT
        while (lines := self._pid_file()) and runs_in(int(lines[0]), self.pgdata):
            if self._adopt(lines):
                return True
            if time.monotonic() > deadline:
                raise EmbeddedError("the server neither starts nor stops", f"see {self.log}")
            time.sleep(POLL)
        return False

    def launch(self, socket_dir: Path, port: int, *, tcp: bool) -> None:
        """Start the server in its own session and wait until it is ready. None may be running."""
        lock = self._lock()
        try:
            self._launch(socket_dir, port, lock, tcp=tcp)
        finally:
            os.close(lock)  # the server has it

    def _lock(self) -> int:
        """Return a lock that the server and its sessions hold for as long as one of them lives.

        Where process numbers mean nothing, in another container, it alone tells that one runs.
        """
        lock = private_file(self.pgdata.with_name("server.lock"))
        deadline = time.monotonic() + ORPHAN_LIMIT
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return lock
            except BlockingIOError:
                if time.monotonic() > deadline:
                    os.close(lock)
                    raise EmbeddedError(
                        f"a server that is out of sight uses {self.pgdata}",
                        "stop the `rowcron up` in the other container, or choose another: --data"
                        " DIRECTORY",
                    ) from None
                time.sleep(10 * POLL)

    def _launch(self, socket_dir: Path, port: int, lock: int, *, tcp: bool) -> None:
        self._forget_stale(socket_dir)
        settings = SETTINGS | {
            "listen_addresses": "127.0.0.1,::1" if tcp else "",
            "port": str(port),
            "unix_socket_directories": '"' + str(socket_dir).replace('"', '""') + '"',
        }
        command = [str(self.bin / "postgres"), "-D", str(self.pgdata)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        if self.log.exists() and self.log.stat().st_size > LOG_LIMIT:
            self.log.replace(self.log.with_suffix(".log.1"))
        deadline = time.monotonic() + START_LIMIT
        orphans = time.monotonic() + ORPHAN_LIMIT
        with self._open_log() as log:
            while time.monotonic() < deadline:
                begin = log.seek(0, os.SEEK_END)
                self._process = self._spawn(command, log, lock)
                if self._wait_ready(deadline):
                    return
                words = self._last_words(begin)
                if "shared memory block" not in words or time.monotonic() > orphans:
                    break
                time.sleep(10 * POLL)
        hint = "choose another: --port NUMBER" if "TCP/IP" in words else f"see {self.log}"
        raise EmbeddedError("the embedded server does not start" + words, hint)

    def is_alive(self) -> bool:
        """Whether the process is there."""
        gone = self._process is not None and self._process.poll() is not None
        return not gone and runs_in(self._pid, self.pgdata)

    def stop(self) -> None:
        """Disconnect everybody and shut down; past a minute at once, as after a crash."""
        for how in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, how)
            deadline = time.monotonic() + STOP_LIMIT
            while time.monotonic() < deadline:
                if not self.is_alive():
                    with contextlib.suppress(OSError):  # one in /tmp is not left behind
                        self.socket_dir.rmdir()
                    return
                time.sleep(POLL)

    def _open_log(self) -> IO[bytes]:
        return os.fdopen(private_file(self.log, os.O_WRONLY | os.O_APPEND), "ab")

    def _spawn(self, command: list[str], log: IO[bytes], *kept: int) -> Detached:
        other: dict[str, Any] = {}
        if is_root():
            gid = self.user.pw_gid
            other = {"user": self.user.pw_uid, "group": gid, "extra_groups": []}
        environment = ENVIRONMENT | {key: os.environ[key] for key in ("TZ",) if key in os.environ}
        return Detached(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=environment,
            umask=0o077,
            start_new_session=True,
            pass_fds=kept,
            **other,
        )

    def _wait_ready(self, deadline: float) -> bool:
        assert self._process is not None
        while self._process.poll() is None:
            lines = self._pid_file()
            if lines and int(lines[0]) == self._process.pid and self._adopt(lines):
                return True
            if time.monotonic() > deadline:
                self._process.kill()
                self._process.wait()
            time.sleep(POLL)
        return False

    def _pid_file(self) -> list[str]:
        """postmaster.pid: pid, data directory, start time, port, socket, address, key, status."""
        try:
            lines = (self.pgdata / "postmaster.pid").read_text("utf-8").splitlines()
        except FileNotFoundError:
            return []
        return lines if lines and lines[0].strip().isdigit() else []

    def _adopt(self, lines: list[str]) -> bool:
        if len(lines) < 8 or lines[7].strip() != "ready":
            return False
        self._pid, self.port = int(lines[0]), int(lines[3])
        self.socket_dir, self.tcp = Path(lines[4]), bool(lines[5].strip())
        return True

    def _forget_stale(self, socket_dir: Path) -> None:
        """After a crash, another process may have the old pid; PostgreSQL would refuse to start."""
        for path in (self.pgdata / "postmaster.pid", *socket_dir.glob(".s.PGSQL.*.lock")):
            path.unlink(missing_ok=True)

    def _last_words(self, begin: int = 0) -> str:
        with self.log.open("rb") as log:
            log.seek(begin)
            lines = log.read().decode("utf-8", "replace").splitlines()
        # a killed server's sessions, which end meanwhile, write into the same log
        ours = [line for line in lines if "terminating connection" not in line]
        fatal = [line for line in ours if "FATAL" in line or "error:" in line] or ours[-1:]
        return ": " + fatal[-1].split("FATAL:")[-1].strip() if fatal else ""
