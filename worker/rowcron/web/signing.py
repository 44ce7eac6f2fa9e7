"""Signing in: PostgreSQL checks the password, by letting a connection in or not.

That is worth something only where the server asked for the password. A server that trusts the
connection anyway (`trust`, `peer`, a client certificate of this process) would let everybody be
everybody, so signing in is refused there.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from rowcron.errors import Unavailable
from rowcron.web.actor import Login, NoRoom
from rowcron.web.connections import Connection, lets_in, open_connection, reachable
from rowcron.web.pool import Pool
from rowcron.web.problems import Refusal
from rowcron.web.sessions import Session, Sessions, Throttle
from rowcron.web.settings import WebSettings

# Of the process's own address everything but who it is itself.
_OWN = ("user", "password", "passfile", "sslcert", "sslkey", "sslpassword", "options")
AT_A_TIME = 4
REFUSED = "role or password is not right"


def address_as(info: str, role: str, password: str) -> str:
    """Return the same database's address for another role and its password."""
    parts = {key: value for key, value in conninfo_to_dict(info).items() if key not in _OWN}
    return make_conninfo("", **parts, user=role, password=password, passfile="/dev/null")


class Door:
    """Lets roles in, and keeps for each the connections that it is logged in with."""

    def __init__(self, settings: WebSettings, sessions: Sessions) -> None:
        self.settings = settings
        self.sessions = sessions
        self.throttle = Throttle()
        self.logins: dict[str, tuple[str, Login]] = {}
        self._checking = asyncio.Semaphore(AT_A_TIME)

    async def sign_in(self, role: str, password: str, address: str) -> tuple[str, Session]:
        """Return a session's cookie and the session. Raises `Refusal`: 401, 403, 429, 503."""
        keys = self.throttle.keys(role, address)
        if (seconds := self.throttle.wait(keys)) > 0:
            raise Refusal(
                429,
                "too many failed attempts",
                hint=f"Wait {seconds:.0f} s.",
                headers={"Retry-After": str(int(seconds) + 1)},
            )
        self.throttle.failed(keys)  # until it is known to be right, so that none get past at once
        try:
            async with self._checking:
                login = await self._checked(role, password)
        except (NoRoom, Unavailable):
            self.throttle.forgive(keys)
            raise
        self.throttle.succeeded(keys)
        return self.sessions.begin(login)

    async def _checked(self, role: str, password: str) -> Login:
        if not role or not password or "\0" in role + password:
            raise Refusal(401, REFUSED)
        info = address_as(self.settings.conninfo, role, password)
        try:
            connection = await open_connection(info)
        except psycopg.OperationalError as error:
            connection = await self._tried_again(role, info, error)
        if not connection.pgconn.used_password:
            await connection.close()
            raise Refusal(
                403,
                "the server asked for no password",
                detail="It lets this machine in as anybody (trust, peer or the like), so that a "
                "password proves nothing.",
                hint="In pg_hba.conf, ask the connections of rowcron web for scram-sha-256.",
            )
        return await self._keep(role, info, connection)

    async def _tried_again(self, role: str, info: str, error: Exception) -> Connection:
        """Return a connection after all. Raises `Refusal` 401, 503, `NoRoom`, `Unavailable`."""
        own, known = self.settings.conninfo, self.logins.get(role)
        if not await asyncio.to_thread(reachable, own):
            raise Unavailable("the database cannot be reached") from error
        if (
            known is not None
            and hmac.compare_digest(known[0].encode(), info.encode())
            and known[1].pool.held
        ):
            # this password was right: our own connections may be all that the role may have
            await known[1].pool.close_idle()
            for _ in range(5):  # the server takes its time to see them go
                with contextlib.suppress(psycopg.OperationalError):
                    return await open_connection(info)
                await asyncio.sleep(0.1)
            raise NoRoom(role) from error
        if not await lets_in(own):  # counted as a failure: it may have been the password, too
            raise Refusal(
                503,
                "PostgreSQL lets no further connection in at the moment",
                detail="It refuses the web process's own login, too: it may be full.",
                hint="Try again in a moment.",
            ) from error
        raise Refusal(401, REFUSED) from error

    async def _keep(self, role: str, info: str, connection: Connection) -> Login:
        """Return the role's login, new if it has none or another password."""
        known = self.logins.get(role)
        if known is not None and known[0] == info and not known[1].refused:
            await known[1].pool.seed(connection)
            return known[1]
        settings = self.settings
        login = Login(role, Pool(info, settings.connections, settings.requests), settings.conninfo)
        await login.pool.seed(connection)
        self.logins[role] = (info, login)
        if known is not None:  # the old password is no longer taken, or was never the only one
            self.sessions.end_all_of(known[1])
            await known[1].pool.close()
        return login

    async def tidy(self) -> None:
        """Close what is idle; forget the passwords of roles that have signed out everywhere."""
        for _, login in list(self.logins.values()):
            await login.pool.tidy()
            if not self.sessions.any_of(login):
                await self._drop(login)

    async def _drop(self, login: Login) -> None:
        if (known := self.logins.get(login.role)) is not None and known[1] is login:
            del self.logins[login.role]
        await login.pool.close()

    async def close(self) -> None:
        """Close all connections."""
        for _, login in list(self.logins.values()):
            await self._drop(login)
