"""Bytes by http and https, from listed hosts or else from public addresses, with limits on size and time.

An address is checked where its socket is made, after a name was resolved and for every redirect: no second answer of a
name server can lead elsewhere.
"""

import asyncio
import atexit
import ipaddress
import socket
from collections.abc import Callable
from functools import cache

import aiohttp
from fsspec.asyn import get_loop, sync
from yarl import URL

from lookalike import reasons
from lookalike.unreadable import Refused, ServerFailed

SCHEMES = ("http", "https")
_REDIRECTS = 5
_REDIRECT_STATUSES = frozenset({301, 302, 303, 307, 308})
_BUSY_STATUSES = frozenset({408, 425, 429})
# Networks of IPv6 that gateways translate to the IPv4 address in it.
_TRANSLATED = tuple(ipaddress.ip_network(network) for network in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16"))


def read(
    uri: str, check: Callable[[str, str], None], public_only: bool, max_bytes: int, timeout: aiohttp.ClientTimeout
) -> bytes:
    """The body of `uri`. `check` is given scheme and host of `uri` and of each redirect, and raises Refused.

    `timeout.total` is for all of it, redirects and body. Raises Refused, TimeoutError, FileNotFoundError,
    PermissionError, ServerFailed, and what aiohttp raises.
    """
    return bytes(sync(get_loop(), _read, uri, check, public_only, max_bytes, timeout))


async def _read(
    uri: str, check: Callable[[str, str], None], public_only: bool, max_bytes: int, timeout: aiohttp.ClientTimeout
) -> bytes:
    session, url = _get_session(public_only), URL(uri)
    async with asyncio.timeout(timeout.total):
        for _ in range(_REDIRECTS + 1):
            check(url.scheme, url.host or "")
            async with session.get(url, allow_redirects=False, timeout=timeout) as response:
                location = response.headers.get("Location")
                if response.status in _REDIRECT_STATUSES and location:
                    url = url.join(URL(location))
                    continue
                _raise_for(response.status)
                return await _read_body(response, max_bytes)
    raise Refused(reasons.TOO_MANY_REDIRECTS)


async def _read_body(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    content = bytearray()
    async for chunk in response.content.iter_any():
        content += chunk
        if len(content) > max_bytes:
            raise Refused(reasons.TOO_LARGE)
    return bytes(content)


def _raise_for(status: int) -> None:
    if status in (404, 410):
        raise FileNotFoundError(status)
    if status in (401, 403):
        raise PermissionError(status)
    if status >= 500 or status in _BUSY_STATUSES:
        raise ServerFailed(f"status {status}")
    if status != 200:
        raise OSError(f"status {status}")


@cache
def _get_session(public_only: bool) -> aiohttp.ClientSession:
    """One of the process, so that connections are used again. Called on the event loop alone."""
    connector = aiohttp.TCPConnector(socket_factory=_create_public_socket if public_only else None)
    session = aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), headers={"Accept-Encoding": "identity"}
    )
    atexit.register(lambda: sync(get_loop(), session.close))
    return session


def _create_public_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    family, kind, protocol, _, place = address
    if not is_public(str(place[0])):
        raise Refused(reasons.PRIVATE_ADDRESS)
    return socket.socket(family, kind, protocol)


def is_public(address: str) -> bool:
    """Whether an IP address is one of the open internet: not private, loopback, link-local, multicast or reserved."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped:
            return is_public(str(ip.ipv4_mapped))
        if any(ip in network for network in _TRANSLATED):
            return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved
