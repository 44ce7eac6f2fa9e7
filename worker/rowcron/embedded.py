"""A private PostgreSQL for when no database is named: made once, kept, started and stopped.

Below the data directory stand `pgdata`, the socket's private directory, `server.log`, the password
file if a port was asked for, and two locks: `start.lock` is held while the server is started or
stopped, `use.lock` is shared by all who use it, so that the last one to leave stops it. The server
is in a session of its own, so that a terminal's Ctrl-C reaches the worker first.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

import psycopg

from rowcron import embedded_auth as auth
from rowcron.embedded_os import (
    SYSTEM_DATA,
    EmbeddedError,
    binaries,
    default_data,
    is_root,
    locked,
    passable,
    private_file,
    server_user,
    socket_dir,
)
from rowcron.embedded_process import Postmaster
from rowcron.install import Installed, install

__all__ = ["EmbeddedError", "EmbeddedServer"]


class EmbeddedServer:
    """The embedded server of one data directory. Also a context manager: start, then stop.

    `data` is its directory (default: `rowcron` under the user's data home); `port` makes it listen
    on loopback too, for logins with the password in `pgpass`. `joined` tells that the server was
    running already.
    """

    def __init__(self, data: Path | None = None, port: int | None = None) -> None:
        self.data = (data or default_data()).resolve()
        self.port = port
        self.joined = False
        self.pgpass = self.data / "pgpass"
        self.login = auth.person()
        self._postmaster: Postmaster | None = None
        self._use: int | None = None

    def start(self) -> None:
        """Start the server, making its data first if need be; or join it if it runs already.

        Raises `EmbeddedError`. Recovers by itself from a crash of anything.
        """
        if self._use is not None:  # started before, killed since
            os.close(self._use)
            self._use = None
        self._make_data_dir()
        with locked(self.data / "start.lock"):
            use = private_file(self.data / "use.lock")
            try:
                fcntl.flock(use, fcntl.LOCK_SH)
                self._postmaster = self._start_locked()
            except BaseException:
                os.close(use)
                raise
            self._use = use

    def stop(self) -> None:
        """Leave the server; whoever is the last to leave stops it (its `fast` mode)."""
        if self._use is None or self._postmaster is None:
            return
        with locked(self.data / "start.lock"):
            use, self._use = self._use, None
            try:
                fcntl.flock(use, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            else:
                self._postmaster.stop()
            finally:
                os.close(use)

    def is_alive(self) -> bool:
        """Whether the server still runs; `start()` brings a killed one back."""
        return self._postmaster is not None and self._postmaster.is_alive()

    def prepare(self) -> Installed:
        """Make the database, the logins and the schema, or bring them up to date."""
        with locked(self.data / "start.lock"):  # the second of two first starts waits
            auth.create_logins(self.url(auth.ADMIN, "postgres"), self.login)
            done = install(self.installer_url)
            auth.grant_roles(self.admin_url, self.login)
            if self._running.tcp:
                with psycopg.connect(
                    self.admin_url, autocommit=True, options=auth.OWN_PATH
                ) as conn:
                    auth.give_password(conn, self.login, self.pgpass)
        return done

    def url(self, role: str, database: str = auth.DATABASE) -> str:
        """The address of `database` as `role`, through the socket."""
        server = self._running
        host = quote(str(server.socket_dir), safe="")
        return f"postgresql://{quote(role)}@/{quote(database)}?host={host}&port={server.port}"

    @property
    def owner_url(self) -> str:
        """As the person: not a superuser, owns jobs of every kind, may create in schema public."""
        return self.url(self.login)

    @property
    def worker_url(self) -> str:
        """As the worker's login, which is a member of rowcron_worker and of nothing else."""
        return self.url(auth.WORKER)

    @property
    def installer_url(self) -> str:
        """As the installer: not a superuser, may create roles, owns the database."""
        return self.url(auth.INSTALLER)

    @property
    def admin_url(self) -> str:
        """As the superuser; the worker's connection `admin`, for what no function can run."""
        return self.url(auth.ADMIN)

    @property
    def tcp_url(self) -> str | None:
        """As the person over TCP, naming the file with the password; None without a port."""
        if not self._running.tcp:
            return None
        where = f"postgresql://{self.login}@127.0.0.1:{self._running.port}/{auth.DATABASE}"
        return f"{where}?passfile={quote(str(self.pgpass), safe='')}"

    def __enter__(self) -> EmbeddedServer:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def _running(self) -> Postmaster:
        if self._postmaster is None:
            raise EmbeddedError("the embedded server was not started", "call start() first")
        return self._postmaster

    def _make_data_dir(self) -> None:
        try:
            self.data.mkdir(mode=0o711 if is_root() else 0o700, parents=True, exist_ok=True)
            os.close(private_file(self.data / "start.lock"))
        except OSError as error:
            raise EmbeddedError(
                f"the data directory {self.data} cannot be used: {error.strerror}",
                "choose another: --data DIRECTORY",
            ) from error

    def _start_locked(self) -> Postmaster:
        pgdata = self.data / "pgdata"
        user = server_user(pgdata)
        if is_root() and not passable(self.data, user.pw_uid):
            raise EmbeddedError(
                f"PostgreSQL runs as the user {user.pw_name}, who may not pass to {self.data}",
                f"choose another: --data {SYSTEM_DATA}",
            )
        server = Postmaster(self.data, binaries(self.data), user)
        if server.find_running():
            self.joined = True
            if self.port is not None and (self.port != server.port or not server.tcp):
                has = f"listens on port {server.port}" if server.tcp else "does not listen on TCP"
                raise EmbeddedError(
                    f"the embedded server runs already and {has}",
                    "stop the other `rowcron up` first, or leave out --port",
                )
            if server.tcp:
                self.port = server.port  # the same if it has to be started again
            return server
        port = self.port or 5432
        server.init()
        server.configure(auth.hba_text(tcp=self.port is not None), auth.ident_text())
        server.launch(socket_dir(self.data, user, port), port, tcp=self.port is not None)
        return server
