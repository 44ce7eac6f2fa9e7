"""The embedded server: made once, kept, private, restartable; as root and as anybody else."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from harness import fast_place, wait_until
from rowcron import embedded_auth, embedded_os
from rowcron.commands._banner import psql_line
from rowcron.embedded import EmbeddedError, EmbeddedServer
from rowcron.embedded_os import SYSTEM_DATA, default_data, is_root, passable, runs_in

pytestmark = pytest.mark.once
NOBODY = pwd.getpwnam("nobody")


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    """A data directory with everything prepared, to copy: initdb takes a second or more."""
    base = Path(tempfile.mkdtemp(prefix="rowcron-embedded-", dir=fast_place()))
    base.chmod(0o755)
    with EmbeddedServer(base / "data") as server:
        server.prepare()
    yield base / "data"
    shutil.rmtree(base)


@pytest.fixture
def ready(made: Path, data: Path) -> Path:
    """A copy of it."""
    return copy_data(made, data)


@pytest.fixture
def data() -> Iterator[Path]:
    """A new directory that PostgreSQL's own user can pass to; no server is left in it."""
    base = Path(tempfile.mkdtemp(prefix="rowcron-embedded-", dir=fast_place()))
    base.chmod(0o755)
    yield base / "data"
    for path in base.rglob("postmaster.pid"):
        pid = int(path.read_text("utf-8").splitlines()[0])
        if runs_in(pid, path.parent):
            os.kill(pid, signal.SIGKILL)
    shutil.rmtree(base)


def copy_data(made: Path, data: Path) -> Path:
    """Copy a data directory with its owners and modes."""
    subprocess.run(["cp", "-a", str(made), str(data)], check=True)
    return data


def postmaster_pid(data: Path) -> int:
    return int((data / "pgdata" / "postmaster.pid").read_text("utf-8").splitlines()[0])


def scalar(url: str, statement: str) -> object:
    with psycopg.connect(url) as conn:
        row = conn.execute(statement.encode()).fetchone()
        assert row is not None
        return row[0]


def kill_server(data: Path) -> None:
    """kill -9, and wait until the kernel has let go of the process (a zombie has no cwd)."""
    pid = postmaster_pid(data)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not runs_in(pid, data / "pgdata"))


def as_another_user(work: Callable[[], None]) -> str:
    """Run `work` in a child that is `nobody` (if we are root); what it raised, or nothing."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        said = b""
        try:
            if is_root():
                os.setgroups([])
                os.setgid(NOBODY.pw_gid)
                os.setuid(NOBODY.pw_uid)
            work()
        except BaseException:
            said = traceback.format_exc().encode()
        os.write(write, said[-4000:])
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said.decode()


def test_a_restart_keeps_the_data_and_is_quick(data: Path) -> None:
    with EmbeddedServer(data) as server:
        assert not server.joined
        assert server.prepare().changed
        with psycopg.connect(server.owner_url) as conn:
            conn.execute("create table public.kept as select 42 as answer")
    begin = time.monotonic()
    with EmbeddedServer(data) as server:
        assert not server.prepare().changed
        assert time.monotonic() - begin < 3
        assert scalar(server.owner_url, "select answer from public.kept") == 42
        pid = postmaster_pid(data)
    assert not runs_in(pid, data / "pgdata")


def test_the_roles_have_just_their_rights(ready: Path) -> None:
    with EmbeddedServer(ready) as server:
        server.prepare()
        with psycopg.connect(server.admin_url) as conn:
            supers = conn.execute("select rolname from pg_roles where rolsuper").fetchall()
            assert supers == [(embedded_auth.ADMIN,)]
            held = conn.execute(
                "select m.member::regrole::text, array_agg(m.roleid::regrole::text order by 1)"
                " from pg_auth_members as m group by 1"
            ).fetchall()
            memberships: dict[str, list[str]] = dict(held)
            assert memberships[embedded_auth.WORKER] == ["rowcron_worker"]
            person = {f"rowcron_{name}" for name in embedded_auth.PERSON_ROLES}
            assert {name.strip('"') for name in memberships[server.login]} == person
            owner = "select datdba::regrole::text from pg_database where datname = 'rowcron'"
            row = conn.execute(owner.encode()).fetchone()
            assert row == (embedded_auth.INSTALLER,)
        assert scalar(server.worker_url, "select session_user") == embedded_auth.WORKER
        may = "select has_schema_privilege('public', 'create')"
        assert scalar(server.owner_url, may) is True
        assert scalar(server.worker_url, may) is False


def test_it_listens_on_no_port_and_trusts_nobody(ready: Path) -> None:
    with EmbeddedServer(ready) as server:
        assert server._running.tcp is False
        url = server.url(embedded_auth.ADMIN, "postgres")
        assert scalar(url, "show listen_addresses") == ""
        rules = scalar(url, "select array_agg(distinct auth_method) from pg_hba_file_rules")
        assert rules == ["peer"]
        for name in ("socket", "pgdata"):
            found = (ready / name).stat()
            assert stat.S_IMODE(found.st_mode) == 0o700
            assert found.st_uid != 0
        assert stat.S_IMODE((ready / "server.log").stat().st_mode) == 0o600


def test_another_user_is_refused_even_at_an_open_door(ready: Path) -> None:
    with EmbeddedServer(ready) as server:
        url = server.url(embedded_auth.ADMIN, "postgres")
        if not is_root():  # only root can try as another; the rule that refuses is this one
            ident = (ready / "pgdata" / "pg_ident.conf").read_text("utf-8")
            assert ident.count("\nrowcron ") <= 2
            return
        assert "Permission denied" in as_another_user(lambda: psycopg.connect(url).close())
        (ready / "socket").chmod(0o755)
        (ready / "socket" / ".s.PGSQL.5432").chmod(0o777)
        assert "Peer authentication failed" in as_another_user(lambda: psycopg.connect(url).close())


def test_a_port_is_guarded_by_scram_and_a_generated_password(ready: Path) -> None:
    port = 54837
    with EmbeddedServer(ready, port=port) as server:
        server.prepare()
        assert server.tcp_url is not None
        assert scalar(server.tcp_url, "select current_user") == server.login
        assert scalar(server.tcp_url, "select host(inet_server_addr())") == "127.0.0.1"
        bare = f"postgresql://{server.login}@127.0.0.1:{port}/rowcron"
        for wrong in (f"{bare}?passfile=/dev/null", bare.replace("@", ":guess@")):
            with pytest.raises(psycopg.OperationalError, match="password"):
                psycopg.connect(wrong)
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(server.tcp_url.replace(f"{server.login}@", "postgres@"))
        rules = "select array_agg(distinct auth_method) from pg_hba_file_rules"
        assert scalar(server.admin_url, f"{rules} where type = 'host'") == ["scram-sha-256"]
        assert stat.S_IMODE(server.pgpass.stat().st_mode) == 0o600
        password = server.pgpass.read_text("utf-8").strip().rsplit(":", 1)[1]
        assert len(password) >= 24
        assert password not in (ready / "server.log").read_text("utf-8")
        with pytest.raises(EmbeddedError, match="runs already and listens on port 54837"):
            EmbeddedServer(ready, port=54838).start()
    with EmbeddedServer(ready, port=port) as server:  # the password lasts
        server.prepare()
        assert scalar(server.tcp_url or "", "select current_user") == server.login
    with EmbeddedServer(ready) as server, pytest.raises(EmbeddedError, match="listen on TCP"):
        EmbeddedServer(ready, port=port).start()


def test_a_taken_port_is_an_error_with_a_hint(ready: Path) -> None:
    with EmbeddedServer(ready, port=54839), pytest.raises(EmbeddedError) as caught:
        EmbeddedServer(ready.with_name("other"), port=54839).start()
    assert "--port" in caught.value.hint


def test_it_recovers_from_kill_9(ready: Path) -> None:
    server = EmbeddedServer(ready)
    server.start()
    url = server.url(embedded_auth.ADMIN, "postgres")
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("create table kept as select 42 as answer")
    assert server.is_alive()
    kill_server(ready)
    assert not server.is_alive()
    server.start()  # the same object brings it back, as does a new one
    assert server.is_alive()
    assert scalar(url, "select answer from kept") == 42
    kill_server(ready)
    with EmbeddedServer(ready) as again:
        assert scalar(again.url(embedded_auth.ADMIN, "postgres"), "select answer from kept") == 42
    server.stop()


def test_busy_backends_of_a_killed_postmaster_are_waited_for(ready: Path) -> None:
    server = EmbeddedServer(ready)
    server.start()
    url = server.url(embedded_auth.ADMIN, "postgres")
    # each says in the log that it ends, between the lines of those who try to start
    busy = "do $$ declare t timestamptz := clock_timestamp() + interval '{} ms';"
    busy += " begin while clock_timestamp() < t loop null; end loop; end $$"
    with ThreadPoolExecutor(8) as pool:
        for number in range(8):
            pool.submit(scalar, url, busy.format(2000 + 50 * number))
        count = "select count(*) from pg_stat_activity where query like 'do %' and state = 'active'"
        wait_until(lambda: scalar(url, count) >= 4)
        kill_server(ready)
        server.start()
        assert scalar(url, "select 1") == 1
    server.stop()


def test_a_stale_pid_file_that_names_another_process_is_no_obstacle(ready: Path) -> None:
    server = EmbeddedServer(ready)
    server.start()
    pid_file = ready / "pgdata" / "postmaster.pid"
    lines = pid_file.read_text("utf-8").splitlines()
    kill_server(ready)
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n", "utf-8")
    server.start()
    assert postmaster_pid(ready) != os.getpid()
    server.stop()


def test_who_comes_second_joins_and_who_leaves_last_stops_it(ready: Path) -> None:
    first, second = EmbeddedServer(ready), EmbeddedServer(ready)
    first.start()
    second.start()
    assert (first.joined, second.joined) == (False, True)
    assert first.url("x") == second.url("x")
    pid = postmaster_pid(ready)
    first.stop()
    first.stop()  # again does nothing
    assert runs_in(pid, ready / "pgdata")
    assert scalar(second.url(embedded_auth.ADMIN, "postgres"), "select 1") == 1
    second.stop()
    assert not runs_in(pid, ready / "pgdata")


def test_a_server_whose_starter_was_killed_is_taken_over(ready: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from rowcron.embedded import EmbeddedServer;"
        "server = EmbeddedServer(Path(sys.argv[1])); server.start();"
        "print('up', flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", program, str(ready)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        assert starter.stdout.readline() == "up\n"
        pid = postmaster_pid(ready)
        assert os.getsid(pid) != os.getsid(starter.pid)  # a terminal's Ctrl-C does not reach it
        starter.kill()
    with EmbeddedServer(ready) as server:
        assert server.joined
        assert postmaster_pid(ready) == pid
    assert not runs_in(pid, ready / "pgdata")


def test_two_first_starts_at_once_end_well(data: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from rowcron.embedded import EmbeddedServer\n"
        "with EmbeddedServer(Path(sys.argv[1])) as server: print(server.prepare().changed)"
    )
    command = [sys.executable, "-c", program, str(data)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(said) == ["False\n", "True\n"]


@pytest.mark.parametrize(
    "name", ["x" * 150, "with space", "quo\"te and 'tick", "ünï-côdé", "comma,and%20percent"]
)
def test_any_path_will_do(made: Path, data: Path, name: str) -> None:
    data.mkdir(mode=0o711)
    with EmbeddedServer(copy_data(made, data / name)) as server:
        socket = server._running.socket_dir
        server.prepare()
        assert scalar(server.owner_url, "select 1") == 1
        done = subprocess.run(
            [f"{psql_line(server.owner_url)} -XAtc 'select 7'"],
            shell=True,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.stdout, done.stderr) == ("7\n", "")
    assert not socket.exists()


def test_an_ordinary_user_needs_no_writable_home(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data.mkdir()
    if is_root():
        os.chown(data, NOBODY.pw_uid, NOBODY.pw_gid)
    data.chmod(0o700)
    bin = embedded_os.binaries(data.parent)  # a copy, where another user could not read ours
    monkeypatch.setattr("rowcron.embedded.binaries", lambda _: bin)
    monkeypatch.setenv("HOME", "/proc")
    monkeypatch.chdir("/")

    def work() -> None:
        with EmbeddedServer(data) as server:
            server.prepare()
            with psycopg.connect(server.owner_url) as conn:
                assert conn.info.user == server.login == embedded_auth.person()
            assert Path(f"/proc/{postmaster_pid(data)}").stat().st_uid == os.getuid()

    assert as_another_user(work) == ""
    if is_root():  # and root may run what another user made; its files stay that user's
        with EmbeddedServer(data) as server:
            server.prepare()
            assert Path(f"/proc/{postmaster_pid(data)}").stat().st_uid == NOBODY.pw_uid
        assert as_another_user(work) == ""


def test_half_made_data_is_made_again(data: Path) -> None:
    (data / "pgdata.part").mkdir(parents=True)
    (data / "pgdata.part" / "PG_VERSION").write_text("18\n", "ascii")
    data.chmod(0o711)
    with EmbeddedServer(data) as server:
        assert scalar(server.url(embedded_auth.ADMIN, "postgres"), "select 1") == 1
    assert not (data / "pgdata.part").exists()


def test_data_of_another_major_version_is_left_alone(ready: Path) -> None:
    with EmbeddedServer(ready):
        pass
    (ready / "pgdata" / "PG_VERSION").write_text("17\n", "ascii")
    with pytest.raises(EmbeddedError, match=r"made by PostgreSQL 17, this is 18"):
        EmbeddedServer(ready).start()


def test_a_directory_that_cannot_be_used_is_an_error_with_a_hint(data: Path) -> None:
    with pytest.raises(EmbeddedError) as caught:
        EmbeddedServer(Path("/proc/nothing")).start()
    assert "--data" in caught.value.hint
    if is_root():
        data.mkdir(mode=0o700)
        with pytest.raises(EmbeddedError, match="may not pass to") as caught:
            EmbeddedServer(data / "inner").start()
        assert str(SYSTEM_DATA) in caught.value.hint


def test_the_default_is_in_the_data_home(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data.mkdir()
    monkeypatch.setenv("XDG_DATA_HOME", str(data))
    assert default_data() == data / "rowcron"
    monkeypatch.setenv("XDG_DATA_HOME", "relative/is/ignored")
    monkeypatch.setenv("HOME", str(data))
    assert default_data() == data / ".local" / "share" / "rowcron"
    data.chmod(0o700)
    assert not passable(data)
    expected = SYSTEM_DATA if is_root() else data / ".local" / "share" / "rowcron"
    assert default_data() == expected


def test_odd_user_names_become_me(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"anna": "anna", "postgres": "me", "pg_x": "me", "rowcron": "me", "Jörg": "me"}
    names |= {"a.b": "me", "none": "me", "x" * 64: "me", "x" * 63: "x" * 63}
    for name, login in names.items():
        entry = pwd.struct_passwd((name, "", 1, 1, "", "", ""))
        monkeypatch.setattr("pwd.getpwuid", lambda _, entry=entry: entry)
        assert embedded_auth.person() == login
