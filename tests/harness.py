"""A throw-away PostgreSQL of any version, with a template database in which rowcron is installed.

Used by conftest.py (pytest) and run.py (pg_prove). The server listens on a socket in a private
directory alone; there it trusts, because the tests are every role in turn.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import psycopg
from psycopg import sql

from rowcron import embedded_os
from rowcron.install import install

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = "rowcron_template"
INSTALLER = "t_installer"
WORKER = "w_worker"
USERS = ("alice", "bob")
SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_connections": "200",
    "max_prepared_transactions": "10",
    "listen_addresses": "",
    "log_min_messages": "warning",
    "timezone": "UTC",
}
# What holds for each entry of a ledger; chapter 031 says why these are no constraints.
LEDGER_RULES = {
    "the outcome is known": (
        "outcome in ('succeeded', 'failed', 'cancelled', 'lost', 'skipped', 'missed')"
    ),
    "what was no run has no attempt": (
        "(outcome in ('skipped', 'missed')) = (run_id is null) and (run_id is null) ="
        " (attempt is null)"
    ),
    "only what failed or was lost is tried again": "final or outcome in ('failed', 'lost')",
    "several occurrences name the first, and are no run": (
        "occurrences = 1 or (occurrences > 1 and first_scheduled_for < scheduled_for"
        " and run_id is null)"
    ),
}
# What holds for each run at any time, likewise: here they are constraints.
RUN_RULES = {
    "a run's state is known": "state in ('waiting', 'ready', 'running')",
    "a waiting run says for what": (
        "(state = 'waiting') = (waits_for is not null)"
        " and waits_for in ('time', 'limit', 'overlap', 'resume')"
    ),
    "a running run has one holder": (
        "(state = 'running') = (seal is not null) and (seal is null) = (worker_id is null)"
        " and (seal is null) = (started_at is null)"
    ),
    "attempts count from one": "attempt >= 1 and failures >= 0 and losses >= 0",
    "a run's key is short": "key <> '' and octet_length(key) <= 500",
}
T = TypeVar("T")
_numbers = itertools.count(1)
# Each test starts processes of its own: where nothing may be written down, each would compile
# all of its modules anew, half a second of CPU.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def fast_place() -> str:
    """Where throw-away servers live: in memory if there is much of it, else in /tmp.

    A test has a database of its own. On ext4, a directory in which hundreds of files were just
    removed is slow to make files in: half of the CPU that the tests used went there.
    """
    memory = Path("/dev/shm")
    try:
        found = os.statvfs(memory)
    except OSError:
        return "/tmp"
    room = found.f_bavail * found.f_frsize
    executable = not found.f_flag & os.ST_NOEXEC
    return str(memory) if room > 8 << 30 and executable else "/tmp"


def wait_until(condition: Callable[[], T], limit: float = 20.0, what: str = "") -> T:
    """The first true answer of `condition`, asked again and again; fails after `limit` seconds."""
    deadline = time.monotonic() + limit
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {limit} s in vain for {what or condition}")
        time.sleep(0.02)
    return answer


def pgtap_script() -> Path | None:
    """pgTAP's SQL file: plain SQL, so that any server can load it."""
    found = Path("/usr/share/postgresql").glob("*/extension/pgtap--?.?.?.sql")
    return next(iter(sorted(found)), None)


@dataclass(frozen=True)
class Database:
    """One database of the test server."""

    name: str
    server: TestServer

    def url(self, role: str) -> str:
        """Its address as `role`, through the socket."""
        return self.server.url(role, self.name)

    def ledger_faults(self) -> list[tuple[Any, ...]]:
        """Entries of the ledger that break a rule, each with the rule that it breaks."""
        try:
            conn = psycopg.connect(self.url("postgres"))
        except psycopg.OperationalError as error:
            if "does not exist" in str(error):  # a test has dropped or renamed it
                return []
            raise
        with conn:
            if conn.execute("select to_regclass('rowcron.ledger')").fetchone() == (None,):
                return []
            rules = ", ".join(f"({n}, {rule})" for n, rule in enumerate(LEDGER_RULES.values()))
            broken = conn.execute(
                f"select r.n, l.* from rowcron.ledger as l, lateral (values {rules})"
                " as r (n, holds) where r.holds is not true order by r.n".encode()
            )
            return [([*LEDGER_RULES][n], *row) for n, *row in broken]


class TestServer:
    """A server in a temporary directory; `bin` holds its binaries (default: the embedded ones)."""

    __test__ = False

    def __init__(
        self,
        bin: Path | None = None,
        settings: Mapping[str, str] = SETTINGS,
        place: str | None = None,
    ) -> None:
        self.settings = settings
        self.base = Path(tempfile.mkdtemp(prefix="rowcron-test-", dir=place or fast_place()))
        self.base.chmod(0o711 if embedded_os.is_root() else 0o700)
        self.bin = bin or embedded_os.binaries(self.base)
        self._user = embedded_os.server_user(self.base / "nothing-there-yet")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def admin_url(self) -> str:
        """The superuser's address of the database `postgres`."""
        return self.url("postgres", "postgres")

    def url(self, role: str, database: str) -> str:
        """The address of `database` as `role`."""
        host = quote(str(self.base / "socket"), safe="")
        return f"postgresql://{quote(role)}@/{quote(database)}?host={host}"

    def psql(self, url: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run the server's own psql, stopping at the first error; fails the test if psql fails."""
        command = [str(self.bin / "psql"), "-XqAt", "-v", "ON_ERROR_STOP=1", "-d", url, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
        assert done.returncode == 0, done.stderr
        return done

    def dump_schema(self, database: str) -> str:
        """`pg_dump --schema-only` with owners and grants; not what the tests have added to it.

        The ledger's partitions are left out: they are made by the day, and a day may end meanwhile.
        """
        command = [str(self.bin / "pg_dump"), "--schema-only", "--exclude-schema=public"]
        command += ["--exclude-table=rowcron.ledger_*", "--exclude-table=rowcron.change_*"]
        command += ["-d", self.url("postgres", database)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        rules = r"--\n-- Name: run [^;]+; Type: CHECK CONSTRAINT.*?NOT VALID;\n\n\n"
        dump = re.sub(rules, "", done.stdout, flags=re.DOTALL)
        lines = dump.splitlines()  # \restrict carries a random word a dump
        return "\n".join(
            line for line in lines if not line.startswith(("\\restrict", "\\unrestrict"))
        )

    def start(self) -> None:
        """initdb and start; returns when the server accepts connections."""
        data = self.base / "data"
        for path in (data, self.base / "socket"):
            embedded_os.private_dir(path, self._user)
        command = ["initdb", "-D", str(data), "-U", "postgres", "-N", "--auth=trust"]
        init = self._spawn(*command, "--encoding=UTF8", "--locale=C.UTF-8")
        assert init.wait() == 0, (self.base / "log").read_text("utf-8")
        settings = {**self.settings, "unix_socket_directories": str(self.base / "socket")}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self._process = self._spawn("postgres", "-D", str(data), *options)
        wait_until(self._ready, what="the test server")

    def stop(self) -> None:
        """Stop at once and remove everything."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(30)
        shutil.rmtree(self.base, ignore_errors=True)

    def make_template(self) -> None:
        """The roles of the tests and the template: installed by an ordinary role, with pgTAP."""
        with psycopg.connect(self.admin_url, autocommit=True) as conn:
            conn.execute(f"create role {INSTALLER} login createrole")
            for role in (*USERS, WORKER):
                conn.execute(f"create role {role} login")
            conn.execute(f"create database {TEMPLATE} owner {INSTALLER}")
        install(self.url(INSTALLER, TEMPLATE))
        with psycopg.connect(self.url("postgres", TEMPLATE), autocommit=True) as conn:
            for role in USERS:
                conn.execute(f"grant rowcron_user to {role}")
                conn.execute(f"grant create, usage on schema public to {role}")
            conn.execute(f"grant rowcron_worker to {WORKER}")
            for name, rule in RUN_RULES.items():
                conn.execute(
                    f'alter table rowcron.run add constraint "{name}" check ({rule})'
                    " not valid"  # so that it is a statement of its own in a dump
                )
            if script := pgtap_script():
                lines = script.read_text("utf-8").splitlines(keepends=True)
                text = "".join(line for line in lines if not line.startswith("\\"))
                conn.execute(text.encode())

    def create_database(self, template: str = TEMPLATE, owner: str = INSTALLER) -> Database:
        """A fresh database, by default with rowcron installed."""
        name = f"t{os.getpid()}_{next(_numbers)}"
        statement = sql.SQL("create database {} template {} owner {} strategy file_copy")
        with psycopg.connect(self.admin_url, autocommit=True) as conn:
            names = (sql.Identifier(part) for part in (name, template, owner))
            conn.execute(statement.format(*names))
        database = Database(name, self)
        if template == TEMPLATE:  # a copy is held until it is bound
            with psycopg.connect(database.url("postgres"), autocommit=True) as conn:
                conn.execute("select rowcron._bind()")
        return database

    def drop_database(self, database: Database) -> None:
        """Drop it, whoever is still connected."""
        with psycopg.connect(self.admin_url, autocommit=True) as conn:
            name = sql.Identifier(database.name)
            conn.execute(sql.SQL("drop database if exists {} with (force)").format(name))

    def as_server_user(self) -> dict[str, Any]:
        """Options of `subprocess` for a program that must not run as root."""
        if not embedded_os.is_root():
            return {}
        return {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}

    def _ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.base / "log").read_text("utf-8")
        try:
            psycopg.connect(self.admin_url).close()
        except psycopg.OperationalError:
            return False
        return True

    def _spawn(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.base / "log").open("ab") as log:
            return subprocess.Popen(
                [str(self.bin / program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=embedded_os.ENVIRONMENT,
                start_new_session=True,
                **self.as_server_user(),
            )
