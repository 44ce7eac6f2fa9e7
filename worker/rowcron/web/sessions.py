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
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from rowcron.web.actor import Login

IDLE = 12 * 3600.0
LONGEST = 7 * 86400.0
MOST = 500  # of one role
CODE_LIVES = 24 * 3600.0
FORGOTTEN = 600.0  # seconds after which failures count no more
Key = tuple[str, str, str]  # a sort, an address, a role


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
        """Return a new session and its cookie; of too many of its role the idlest ends."""
        self._forget()
        own = sorted((s for s in self._all.values() if _is_role(s, login)), key=lambda s: s.seen)
        for session in own[: max(len(own) - MOST + 1, 0)]:
            self.end(session)
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
        self._all = {key: session for key, session in self._all.items() if session.alive}


def _is_role(session: Session, login: Login) -> bool:
    return session.login.role == login.role


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


@dataclass(frozen=True)
class Patience:
    """How many failures are free, and for how long a further try waits at most: seconds."""

    free: int
    longest: float


class Throttle:
    """After some failures each further try waits longer: of a role from an address, of each alone.

    A role's tries from everywhere wait only briefly, so that a stranger with many addresses guesses
    slowly and yet locks nobody out; not at all from where the role has signed in before.
    """

    LIMITS: ClassVar[dict[str, Patience]] = {
        "both": Patience(5, 300.0),
        "address": Patience(30, 300.0),  # which many may share
        "role": Patience(30, 10.0),
    }
    MOST = 10_000  # keys that are kept

    def __init__(self) -> None:
        self._failures: dict[Key, tuple[int, float]] = {}
        self._known: dict[Key, None] = {}  # the last ones that were right

    def keys(self, role: str, address: str) -> list[Key]:
        """Return what a try counts for."""
        both: Key = ("both", address, role)
        keys: list[Key] = [both, ("address", address, "")]
        return keys if both in self._known else [*keys, ("role", "", role)]

    def wait(self, keys: Sequence[Key]) -> float:
        """Return for how many seconds none of these may try."""
        now = time.monotonic()
        return max([self._until(key) - now for key in keys] + [0.0])

    def failed(self, keys: Sequence[Key]) -> None:
        """Count a failure."""
        now = time.monotonic()
        if len(self._failures) > self.MOST:
            fresh = {k: v for k, v in self._failures.items() if now - v[1] < FORGOTTEN / 2}
            self._failures = fresh if len(fresh) <= self.MOST else {}
        for key in keys:
            count, since = self._failures.get(key, (0, now))
            count = 0 if now - since > FORGOTTEN else count
            self._failures[key] = (count + 1, now)

    def forgive(self, keys: Sequence[Key]) -> None:
        """Take the last failure back: nothing was judged."""
        for key in keys:
            count, since = self._failures.get(key, (0, 0.0))
            self._failures[key] = (max(count - 1, 0), since)

    def succeeded(self, keys: Sequence[Key]) -> None:
        """Forget the failures; remember that this role is known at this address."""
        for key in keys:
            self._failures.pop(key, None)
        self._known.pop(keys[0], None)
        self._known[keys[0]] = None
        if len(self._known) > self.MOST:
            del self._known[next(iter(self._known))]

    def _until(self, key: Key) -> float:
        count, since = self._failures.get(key, (0, 0.0))
        patience = self.LIMITS[key[0]]
        if count < patience.free:
            return 0.0
        return since + min(2.0 ** min(count - patience.free, 20), patience.longest)
