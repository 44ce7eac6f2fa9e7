"""Connections for http jobs, to addresses that passed the gate only.

A name is resolved here, each answer judged, and the connection made to an address that passed, not
to the name: so an answer that changes between the judgement and the connection is of no use. A
connection that is kept serves further requests for the same name and port.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable, Sequence
from typing import Any

import httpcore

from rowcron.addresses import Address, Gate


class Blocked(Exception):
    """An address that http jobs may not reach; the text says what to do about it."""


async def resolve(host: str, port: int) -> list[Address]:
    """Return a host's addresses, in the system's order. Raises OSError."""
    try:
        return [ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))]
    except ValueError:
        pass
    loop = asyncio.get_running_loop()
    answers = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(
        dict.fromkeys(ipaddress.ip_address(str(a[4][0]).partition("%")[0]) for a in answers)
    )


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Connects only to addresses that the gate lets pass."""

    def __init__(self, gate: Gate, inner: httpcore.AsyncNetworkBackend | None = None) -> None:
        self.gate = gate
        self.inner = inner or httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address that passes and answers. Raises `Blocked`, ConnectError."""
        try:
            async with asyncio.timeout(timeout):
                addresses = await resolve(host, port)
        except TimeoutError:
            raise httpcore.ConnectTimeout("the name was not resolved in time") from None
        except (OSError, UnicodeError, ValueError) as error:
            raise httpcore.ConnectError(str(error)) from error
        passing = addresses
        if not self.gate.names(host, port):
            passing = [a for a in addresses if self.gate.why_not(a, port) is None]
        if addresses and not passing:
            raise Blocked(self.blocked(host, port, addresses))
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in passing:
            try:
                return await self.inner.connect_tcp(
                    str(address), port, timeout, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    def blocked(self, host: str, port: int, addresses: Sequence[Address]) -> str:
        """Return what to tell; a name's address is not told, it may be nobody's to know."""
        what = self.gate.why_not(addresses[0], port)
        return (
            f"{host} is not reached from here: its address is {what}; an administrator may allow it"
            f" where the worker is started: --http-allow {host}"
        )

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.AsyncNetworkStream:
        """Refuse: nothing here is reached through a socket file."""
        raise Blocked("http jobs do not reach socket files")

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)
