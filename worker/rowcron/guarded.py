"""Connections for http jobs, to addresses that passed the gate only.

A name is resolved here, each answer judged, and the connection made to an address that passed, not
to the name: so an answer that changes between the judgement and the connection is of no use.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterable, Sequence
from typing import Any

import httpcore

from rowcron.addresses import Address, Gate
from rowcron.lookups import Lookups


class Blocked(Exception):
    """An address that http jobs may not reach; the text says what to do about it."""


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Connects, for one owner's jobs, only to addresses that the gate lets pass."""

    def __init__(
        self,
        gate: Gate,
        lookups: Lookups,
        owner: str,
        inner: httpcore.AsyncNetworkBackend | None = None,
    ) -> None:
        self.gate = gate
        self.lookups = lookups
        self.owner = owner
        self.inner = inner or httpcore.AnyIOBackend()

    async def resolve(self, host: str, port: int) -> list[Address]:
        """Return a host's addresses, in the system's order. Raises OSError, ValueError."""
        try:
            return [ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))]
        except ValueError:
            found = await self.lookups.addresses(self.owner, host, port)
            return [ipaddress.ip_address(text) for text in found]

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
                addresses = await self.resolve(host, port)
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
