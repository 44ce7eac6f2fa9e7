"""Which addresses http jobs may reach: by default what everybody can reach, and nothing nearer.

The worker's `--http-allow` opens ranges and hosts. `rowcron.guarded` connects by these rules.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import NamedTuple

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# What `is_global` of some Python release lets pass, and what hands a packet on to somewhere else
REFUSED: tuple[tuple[str, str], ...] = (
    ("100.64.0.0/10", "shared (carrier NAT)"),
    ("168.63.129.16/32", "a cloud's metadata service"),
    ("192.0.0.0/24", "reserved"),
    ("192.88.99.0/24", "a 6to4 relay"),
    ("::ffff:0:0/96", "an IPv4 address in IPv6"),
    ("::/96", "an IPv4 address in IPv6"),
    ("::ffff:0:0:0/96", "an IPv4 address translated to IPv6"),
    ("64:ff9b::/96", "an IPv4 address behind NAT64"),
    ("64:ff9b:1::/48", "an IPv4 address behind NAT64"),
    ("2002::/16", "an IPv4 address behind 6to4"),
    ("2001::/32", "an IPv4 address behind Teredo"),
    ("fec0::/10", "site-local"),
)
_REFUSED = tuple((ipaddress.ip_network(network), what) for network, what in REFUSED)
_HOST = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?")


def why_refused(address: Address) -> str | None:
    """Return what an address is that is not everybody's; None when it is."""
    if address.is_unspecified:
        return "unspecified"
    if address.is_loopback:
        return "loopback"
    if address.is_link_local:
        return "link-local"
    if address.is_multicast:
        return "multicast"
    for network, what in _REFUSED:
        if address.version == network.version and address in network:
            return what
    if address.is_private:
        return "private"
    return None if address.is_global else "reserved"


class Allowed(NamedTuple):
    """One item of `--http-allow`; a port of None is any."""

    network: Network | None
    host: str
    port: int | None


def read_allowed(text: str) -> Allowed:
    """Return what `10.0.0.0/8`, `shop.internal`, `*.internal` or `[::1]:8080` allows.

    Raises ValueError.
    """
    host, port = text.strip().lower(), None
    if match := re.fullmatch(r"(\[[^\]]+\]|[^:]+):(\d{1,5})", host):
        host, port = match[1], int(match[2])
    bare = host.removeprefix("[").removesuffix("]")
    try:
        return Allowed(ipaddress.ip_network(bare, strict=False), "", port)
    except ValueError:
        pass
    if not _HOST.fullmatch(host) or "/" in host or re.fullmatch(r"[\d.]+", host):
        raise ValueError(f"{text!r} is no address, range or host such as 10.0.0.0/8, shop.internal")
    return Allowed(None, host.rstrip("."), port)


class Gate:
    """Judges addresses by what a worker's configuration allows."""

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        self.allowed = [read_allowed(text) for text in allowed]

    def names(self, host: str, port: int) -> bool:
        """Return whether a host is allowed by its name, wherever it is."""
        host = host.lower().rstrip(".")
        return any(
            (host.endswith(item.host[1:]) if item.host.startswith("*.") else host == item.host)
            and item.port in (None, port)
            for item in self.allowed
            if item.network is None
        )

    def why_not(self, address: Address, port: int) -> str | None:
        """Return why an address is refused; None when it is not."""
        for network, _, only in self.allowed:
            if (
                network is not None
                and only in (None, port)
                and address.version == network.version
                and address in network
            ):
                return None
        return why_refused(address)
