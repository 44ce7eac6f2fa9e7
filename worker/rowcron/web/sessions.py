"""Who is signed in. All of it is in this process's memory and ends with it.

A session is known by a random cookie, of which a hash is kept. The proof against forged requests
(CSRF) is made of the session's secret and a nonce, so that it differs from page to page and a
compressed page does not tell it.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass, field

from rowcron.web.actor import Login

IDLE = 12 * 3600.0
LONGEST = 7 * 86400.0
MOST = 5000
CODE_LIVES = 24 * 3600.0


def digest(text: str) -> bytes:
    """Return what is kept of a secret."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


@dataclass
class Session:
    """One browser in which a role is signed in."""

    login: Login
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    began: float = field(default_factory=time.monotonic)
    seen: float = field(default_factory=time.monotonic)
    ended: bool = False

    @property
    def alive(self) -> bool:
        """Whether it still counts."""
        now = time.monotonic()
        over = self.ended or self.login.refused
        return not over and now - self.seen < IDLE and now - self.began < LONGEST

    def proof(self) -> str:
        """Return a proof that a form or script was given by us to this session."""
        nonce = secrets.token_hex(8)
        return f"{nonce}.{self._mac(nonce)}"

    def proves(self, given: str) -> bool:
        """Return whether `given` is such a proof."""
        nonce, _, mac = given.partition(".")
        return hmac.compare_digest(mac.encode(), self._mac(nonce).encode())

    def _mac(self, nonce: str) -> str:
        return hmac.new(self.secret, nonce.encode(), hashlib.sha256).hexdigest()


class Sessions:
    """All sessions, by the hash of their cookie."""

    def __init__(self) -> None:
        self._all: dict[bytes, Session] = {}

    def begin(self, login: Login) -> tuple[str, Session]:
        """Return a new session and its cookie."""
        self._forget()
        cookie, session = secrets.token_urlsafe(32), Session(login)
        self._all[digest(cookie)] = session
        return cookie, session

    def find(self, cookie: str | None) -> Session | None:
        """Return the session of a cookie, which it keeps awake."""
        session = self._all.get(digest(cookie)) if cookie else None
        if session is None or not session.alive:
            return None
        session.seen = time.monotonic()
        return session

    def end(self, session: Session) -> None:
        """End one."""
        session.ended = True
        self._forget()

    def end_all_of(self, login: Login) -> None:
        """End all of a login whose password is no longer taken."""
        for session in self._all.values():
            if session.login is login:
                session.ended = True
        self._forget()

    def any_of(self, login: Login) -> bool:
        """Return whether the login is still signed in somewhere."""
        return any(s.alive and s.login is login for s in self._all.values())

    def _forget(self) -> None:
        kept = {key: session for key, session in self._all.items() if session.alive}
        while len(kept) >= MOST:
            kept.pop(min(kept, key=lambda key: kept[key].seen)).ended = True
        self._all = kept


class Codes:
    """One-time codes: whoever has seen the terminal may sign in, once."""

    def __init__(self) -> None:
        self._all: dict[bytes, float] = {}

    def make(self) -> str:
        """Return a new code."""
        code = secrets.token_urlsafe(32)
        self._all[digest(code)] = time.monotonic()
        return code

    def take(self, code: str) -> bool:
        """Return whether it is a code that nobody has used; now it is used."""
        made = self._all.pop(digest(code), None)
        return made is not None and time.monotonic() - made < CODE_LIVES


class Throttle:
    """After some failures each further try waits longer, by role and by address."""

    FREE = 5  # failures, of a role from an address
    FREE_ADDRESS = 30  # of all roles from an address, which many may share
    LONGEST = 300.0

    def __init__(self) -> None:
        self._failures: dict[str, tuple[int, float]] = {}

    def wait(self, *keys: str) -> float:
        """Return for how many seconds none of these may try."""
        now = time.monotonic()
        return max([self._until(key) - now for key in keys] + [0.0])

    def failed(self, *keys: str) -> None:
        """Count a failure."""
        now = time.monotonic()
        if len(self._failures) > 10_000:
            fresh = {k: v for k, v in self._failures.items() if now - v[1] < self.LONGEST}
            self._failures = fresh if len(fresh) <= 10_000 else {}
        for key in keys:
            count, since = self._failures.get(key, (0, now))
            count = 0 if now - since > 2 * self.LONGEST else count
            self._failures[key] = (count + 1, now)

    def forgive(self, *keys: str) -> None:
        """Take the last failure back: nothing was judged."""
        for key in keys:
            count, since = self._failures.get(key, (0, 0.0))
            self._failures[key] = (max(count - 1, 0), since)

    def succeeded(self, *keys: str) -> None:
        """Forget the failures."""
        for key in keys:
            self._failures.pop(key, None)

    def _until(self, key: str) -> float:
        count, since = self._failures.get(key, (0, 0.0))
        free = self.FREE_ADDRESS if key.startswith("address ") else self.FREE
        if count < free:
            return 0.0
        return float(since + min(2.0 ** min(count - free, 20), self.LONGEST))
