"""What `rowcron web` can be told."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True)
class WebSettings:
    """The database, where to listen, and whom to believe.

    `conninfo` names the database and the process's own login, which serves tokens. `as_login`: a
    one-time URL is printed, and whoever opens it acts as that login. `trusted_hosts` are names
    under which a browser may ask, besides the bound address and, on loopback, its usual names.
    """

    conninfo: str
    host: str = "127.0.0.1"
    port: int = 8765
    as_login: bool = False
    trusted_hosts: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    behind_proxy: bool = False
    connections: int = 4  # of each role that is signed in, or asks with tokens
    requests: int = 200  # of one role at a time; further ones are answered 429
    tick: float = 1.0  # seconds between two looks at the database while a page is open
    hosts: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        names = {name.lower() for name in self.trusted_hosts}
        host = f"[{self.host}]" if ":" in self.host else self.host
        names.update(LOOPBACK if self.loopback else (host,))
        object.__setattr__(self, "hosts", frozenset(names))

    @property
    def loopback(self) -> bool:
        """Whether only this machine can ask."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def any_address(self) -> bool:
        """Whether it listens everywhere, so that it cannot know by which names it is asked."""
        return self.host in ("0.0.0.0", "::")
