"""Connections that cannot be led into the private network.

A public name may resolve to 127.0.0.1 or 169.254.169.254 (a cloud's credentials), at once or on the second look-up, and
any site may redirect there. So the address is resolved here, checked, and the checked address is the one connected to.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable
from typing import Any

import httpcore


class Refused(Exception):
    """The host resolves to an address that a crawl has no business at."""


class NoSuchHost(Exception):
    """The name does not exist."""


def is_public(address: str) -> bool:
    """True for an address on the public internet, looking through IPv6 wrappings of IPv4."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None) or _nat64(ip)
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast


def _nat64(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in ipaddress.ip_network("64:ff9b::/96") else None


def names_private(host: str) -> bool:
    """True where a person who types `host` can only mean a machine of their own: a literal address, `localhost`."""
    bare = host.strip("[]")
    if bare == "localhost" or bare.endswith(".localhost"):
        return True
    try:
        return not is_public(bare)
    except ValueError:
        return False


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """httpcore's network with the look-up done here.

    `allowed` holds `host:port` and `host` names that may be private. `routes` maps `host:port` to the (address, port)
    to connect to in its place, as curl's --connect-to does; such a route is trusted.
    """

    def __init__(self, allowed: Iterable[str] = (), routes: dict[str, tuple[str, int]] | None = None) -> None:
        self._allowed, self._routes = set(allowed), routes or {}
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Resolve, check, connect. Raises Refused, NoSuchHost, or httpcore's errors."""
        route = self._routes.get(f"{host}:{port}")
        if route:
            return await self._inner.connect_tcp(route[0], route[1], timeout, local_address, socket_options)
        error: Exception | None = None
        for address in await self._resolve(host, port, timeout):
            try:
                return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as e:
                error = e
        assert error is not None, "a look-up that succeeds gives an address"
        raise error

    async def sleep(self, seconds: float) -> None:
        """For httpcore's own retries, which are not used."""
        await asyncio.sleep(seconds)

    async def _resolve(self, host: str, port: int, timeout: float | None) -> list[str]:
        loop = asyncio.get_running_loop()
        try:
            found = await asyncio.wait_for(loop.getaddrinfo(host, port, type=socket.SOCK_STREAM), timeout)
        except asyncio.TimeoutError as e:
            raise httpcore.ConnectTimeout("the name look-up took too long") from e
        except (socket.gaierror, UnicodeError) as e:
            if isinstance(e, socket.gaierror) and e.errno == socket.EAI_AGAIN:
                raise httpcore.ConnectError("the name look-up failed") from e
            raise NoSuchHost(host) from e
        addresses = list(dict.fromkeys(str(info[4][0]) for info in found))
        if not {host, f"{host}:{port}"} & self._allowed:
            for address in addresses:
                if not is_public(address):
                    raise Refused(address)
        return addresses
