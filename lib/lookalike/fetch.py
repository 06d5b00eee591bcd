"""Images by uri: only from where the settings allow, with limits on size and time. Every image uri is read here."""

import re
import time
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from aiohttp import ClientTimeout
from fsspec.implementations.local import LocalFileSystem
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from lookalike import files, reasons, web
from lookalike.config import IngestSettings
from lookalike.unreadable import Refused, reason_of

_TRIES = 3
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 8.0
_CHUNK_BYTES = 4 * 2**20
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(?://|/)")


def read_image(uri: str, settings: IngestSettings) -> bytes:
    """The image's bytes. A failure that may pass is tried again, a few times.

    Raises Refused, TimeoutError, and what the uri's file system raises; `unreadable.reason_of` gives the reason.
    """
    ends = time.monotonic() + settings.image_timeout_s

    def worthwhile(error: BaseException) -> bool:
        return reason_of(error) in reasons.TRANSIENT and time.monotonic() + _FIRST_WAIT_S < ends

    retrying = Retrying(
        stop=stop_after_attempt(_TRIES),
        wait=wait_exponential_jitter(multiplier=_FIRST_WAIT_S, max=_LONGEST_WAIT_S),
        retry=retry_if_exception(worthwhile),
        reraise=True,
    )
    return retrying(_read, uri, settings, ends)


def _read(uri: str, settings: IngestSettings, ends: float) -> bytes:
    match = _SCHEME.match(uri)
    scheme = match[1].lower() if match else "file"
    if scheme in web.SCHEMES:

        def check(scheme: str, host: str) -> None:
            if scheme not in web.SCHEMES:
                raise Refused(reasons.SCHEME_NOT_ALLOWED)
            _check(scheme, host, settings)

        left = max(0.0, ends - time.monotonic())
        timeout = ClientTimeout(left, sock_connect=settings.connect_timeout_s, sock_read=settings.read_timeout_s)
        return web.read(uri, check, not settings.hosts, settings.max_image_bytes, timeout)
    _check(scheme, "" if scheme == "file" else urlsplit(uri).hostname or "", settings)
    if scheme != "file" and "::" in uri:  # where fsspec would go on to another file system
        raise Refused(reasons.CHAINED_URI)
    with _open_local(uri, settings) if scheme == "file" else _open_remote(uri) as file:
        return _read_limited(file, settings.max_image_bytes, ends)


def _check(scheme: str, host: str, settings: IngestSettings) -> None:
    """Where `host` is empty, it is the one that the cluster's own settings name, or this machine."""
    if scheme not in settings.schemes:
        raise Refused(reasons.SCHEME_NOT_ALLOWED)
    if settings.hosts and host and not any(fnmatchcase(host.lower(), pattern.lower()) for pattern in settings.hosts):
        raise Refused(reasons.HOST_NOT_ALLOWED)


def _open_local(uri: str, settings: IngestSettings) -> IO[bytes]:
    """The file that stands where links and dots of `uri` lead. A device or a pipe might never end."""
    path = Path(LocalFileSystem._strip_protocol(uri)).resolve()
    if settings.folders and not any(path.is_relative_to(Path(folder).resolve()) for folder in settings.folders):
        raise Refused(reasons.FOLDER_NOT_ALLOWED)
    if path.exists() and not path.is_file():
        raise Refused(reasons.NOT_A_FILE)
    return path.open("rb")


def _open_remote(uri: str) -> IO[bytes]:
    fs, path = files.filesystem(uri)
    file: IO[bytes] = fs.open(path, "rb")
    return file


def _read_limited(file: IO[bytes], max_bytes: int, ends: float) -> bytes:
    content = bytearray()
    while chunk := file.read(min(_CHUNK_BYTES, max_bytes + 1 - len(content))):
        content += chunk
        if len(content) > max_bytes:
            raise Refused(reasons.TOO_LARGE)
        if time.monotonic() > ends:
            raise TimeoutError
    return bytes(content)
