"""Bytes by http and https, from listed hosts or else from public addresses, with limits on size and time.

An address is checked where its socket is made, after a name was resolved and for every redirect: no second answer of a
name server can lead elsewhere. It goes over the wire as it was given: signatures are of its text.
"""

import asyncio
import atexit
import ipaddress
import re
import socket
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from urllib.parse import quote, urlsplit, urlunsplit

import aiohttp
from fsspec.asyn import get_loop, sync
from yarl import URL

from lookalike import reasons
from lookalike.config import IngestSettings
from lookalike.throttle import CAUSES, SERVER_ERROR, Deadline, Throttle, throttle_of
from lookalike.unreadable import Answered, Refused, ServerFailed, reason_of

SCHEMES = ("http", "https")
_REDIRECTS = 5
_REDIRECT_STATUSES = frozenset({301, 302, 303, 307, 308})
_PASSING_STATUSES = frozenset({408, 425, 429})
_BUSY_STATUSES = frozenset({429, 503})
_NO_ORIGIN_STATUSES = frozenset({502, 504, *range(520, 528), 530})  # of a gateway or CDN; from 520 on Cloudflare's
# Networks of IPv6 that gateways translate to the IPv4 address in it.
_TRANSLATED = tuple(ipaddress.ip_network(network) for network in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16"))
_LEGAL = "%:/?#[]@!$&'()*+,;="  # besides letters, digits and -._~

Check = Callable[..., None]


def read(uri: str, check: Check, settings: IngestSettings, deadline: Deadline) -> bytes:
    """The body of `uri`. `check` is given scheme and host, in both its forms, of `uri` and of each redirect.

    It raises Refused. `deadline` is for all, redirects and body. Raises Refused, NotAsked, TimeoutError,
    FileNotFoundError, PermissionError, ServerFailed, Answered, ValueError for no address, and what aiohttp raises.
    """
    return bytes(sync(get_loop(), _read, to_url(uri), check, settings, deadline))


def to_url(address: str) -> URL:
    """`address`, whole or relative, as it goes over the wire: what is illegal in it is encoded, all else stands.

    Raises ValueError where it is none.
    """
    start = re.match(r"[^?#]*", address)[0]  # type: ignore[index]  # it matches anything
    parts = urlsplit(start.replace("\\", "/") + address[len(start) :])
    authority = URL(f"//{parts.netloc}").raw_authority if parts.netloc else ""
    path, query = (_encode(part) for part in (parts.path, parts.query))
    url = URL(urlunsplit((parts.scheme, authority, path, query, "")), encoded=True)
    if authority and "/." in path and not path.startswith("//"):
        # Folders named . and .. are resolved as in a relative address; many servers refuse them.
        return url.join(URL(urlunsplit(("", "", path, query, "")), encoded=True))
    return url


def _encode(part: str) -> str:
    return quote(re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", part), _LEGAL, errors="surrogateescape")


async def _read(url: URL, check: Check, settings: IngestSettings, deadline: Deadline) -> bytes:
    for _ in range(_REDIRECTS + 1):
        check(url.scheme, url.raw_host or "", url.host or "")
        if not url.raw_host:
            raise ValueError("no host")
        throttle = throttle_of(f"{url.raw_host.lower()}:{url.port}", settings)
        async with throttle.turn(deadline):
            answer = await _get(url, throttle, settings, deadline)
        if isinstance(answer, bytes):
            return answer
        url = answer
    raise Refused(reasons.TOO_MANY_REDIRECTS)


async def _get(url: URL, throttle: Throttle, settings: IngestSettings, deadline: Deadline) -> bytes | URL:
    """The body, or where a redirect leads. What came of it is noted of the host."""
    started_s = time.time()
    try:
        async with asyncio.timeout_at(deadline.at_s), _request(url, settings) as response:
            _raise_for(response)
            throttle.note_answer()
            if response.status in _REDIRECT_STATUSES:
                return url.join(to_url(response.headers["Location"].strip()))
            return await _read_body(response, settings.max_image_bytes)
    except (FileNotFoundError, PermissionError, Answered):
        throttle.note_answer()
        raise
    except ServerFailed as error:
        if error.status in _BUSY_STATUSES:
            throttle.note_failure(started_s, SERVER_ERROR, is_busy=True, retry_after_s=error.retry_after_s)
        elif error.status in _NO_ORIGIN_STATUSES:
            throttle.note_failure(started_s, SERVER_ERROR)
        raise
    except Exception as error:
        if (cause := CAUSES.get(reason_of(error))) is not None:
            throttle.note_failure(started_s, cause)
        raise


def _request(url: URL, settings: IngestSettings) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
    timeout = aiohttp.ClientTimeout(None, sock_connect=settings.connect_timeout_s, sock_read=settings.read_timeout_s)
    headers = {"User-Agent": settings.user_agent}
    session = _get_session(not settings.hosts)
    return session.get(url, allow_redirects=False, timeout=timeout, headers=headers)


async def _read_body(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    content = bytearray()
    async for chunk in response.content.iter_any():
        content += chunk
        if len(content) > max_bytes:
            raise Refused(reasons.TOO_LARGE)
    return bytes(content)


def _raise_for(response: aiohttp.ClientResponse) -> None:
    """Raise the error of a status that is neither a success nor a redirect."""
    status = response.status
    if 200 <= status < 300 or (status in _REDIRECT_STATUSES and "Location" in response.headers):
        return
    if status in (404, 410):
        raise FileNotFoundError(status)
    if status in (401, 403):
        raise PermissionError(status)
    if status >= 500 or status in _PASSING_STATUSES:
        headers = response.headers
        raise ServerFailed(status, read_retry_after(headers.get("Retry-After", ""), headers.get("Date", "")))
    raise Answered(status)


def read_retry_after(text: str, date: str) -> float | None:
    """Seconds that `Retry-After` asks to wait; None where it says nothing that can be understood.

    `date` is what the server says the time is: its clock and ours may differ.
    """
    if re.fullmatch(r"\d+(\.\d+)?", text.strip()):
        return float(text)
    until = _read_date(text)
    return max(0.0, (until - (_read_date(date) or datetime.now(UTC))).total_seconds()) if until else None


def _read_date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    return date.replace(tzinfo=UTC) if date.tzinfo is None else date


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
