"""Whom a proxy asks for: what the one that connects says, not what its client wrote before it.

A proxy appends to X-Forwarded-For. The first address of the list is therefore anybody's to invent,
so that each try at a password would come from somewhere else; the last one is the proxy's own word.
"""

from __future__ import annotations

import ipaddress

from starlette.datastructures import Headers
from starlette.types import Scope


def seen_by_proxy(scope: Scope) -> Scope:
    """Return the request as the proxy received it: from that address, by that scheme."""
    headers = Headers(scope=scope)
    address = _address(_last(headers, "x-forwarded-for"))
    if address is not None:
        scope = {**scope, "client": (address, 0)}
    scheme = _last(headers, "x-forwarded-proto").lower()
    return {**scope, "scheme": scheme} if scheme in ("http", "https") else scope


def _last(headers: Headers, name: str) -> str:
    return ",".join(headers.getlist(name)).rpartition(",")[2].strip()


def _address(text: str) -> str | None:
    """Return an address without the port that some proxies add; None if it is none."""
    bare = text[1:].partition("]")[0] if text.startswith("[") else text
    for candidate in (bare, bare.rpartition(":")[0]):
        try:
            return str(ipaddress.ip_address(candidate))
        except ValueError:
            continue
    return None
