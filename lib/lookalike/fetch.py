"""Images by uri: only from where the settings allow, with limits on size and time. Every image uri is read here."""

import os
import re
import time
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit

from fsspec import get_filesystem_class
from fsspec.implementations.local import LocalFileSystem
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from lookalike import files, reasons, web
from lookalike.config import IngestSettings
from lookalike.throttle import Deadline
from lookalike.unreadable import NotAsked, Refused, reason_of
from lookalike.uris import clean_uri

_TRIES = 3
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 8.0
_CHUNK_BYTES = 4 * 2**20
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(?://|/)")


def read_image(uri: str, settings: IngestSettings) -> bytes:
    """The image's bytes. A failure that may pass is tried again, a few times.

    Raises Refused, TimeoutError, and what the uri's file system raises; `unreadable.reason_of` gives the reason.
    """
    deadline = Deadline(time.monotonic() + settings.image_timeout_s)

    def worthwhile(error: BaseException) -> bool:
        may_pass = reason_of(error) in reasons.TRANSIENT and not isinstance(error, NotAsked)
        return may_pass and deadline.left_s() > _FIRST_WAIT_S

    retrying = Retrying(
        stop=stop_after_attempt(_TRIES),
        wait=wait_exponential_jitter(multiplier=_FIRST_WAIT_S, max=_LONGEST_WAIT_S),
        retry=retry_if_exception(worthwhile),
        reraise=True,
    )
    return retrying(_read, clean_uri(uri), settings, deadline)


def _read(uri: str, settings: IngestSettings, deadline: Deadline) -> bytes:
    match = _SCHEME.match(uri)
    scheme = match[1].lower() if match else "file"
    if scheme in web.SCHEMES:

        def check(scheme: str, *hosts: str) -> None:
            if scheme not in web.SCHEMES:
                raise Refused(reasons.SCHEME_NOT_ALLOWED)
            _check(settings, scheme, *hosts)

        return web.read(uri, check, settings, deadline)
    _check(settings, scheme, "" if scheme == "file" else urlsplit(uri).hostname or "")
    if scheme != "file" and "::" in uri:  # where fsspec would go on to another file system
        raise Refused(reasons.CHAINED_URI)
    with _open_local(uri, settings) if scheme == "file" else _open_remote(uri, scheme) as file:
        return _read_limited(file, settings.max_image_bytes, deadline)


def _check(settings: IngestSettings, scheme: str, *hosts: str) -> None:
    """`hosts` are forms of one. Where it is empty, it is what the cluster's own settings name, or this machine."""
    if scheme not in settings.schemes:
        raise Refused(reasons.SCHEME_NOT_ALLOWED)
    allowed = [pattern.lower() for pattern in settings.hosts]
    if allowed and all(hosts) and not any(fnmatchcase(host.lower(), p) for host in hosts for p in allowed):
        raise Refused(reasons.HOST_NOT_ALLOWED)


def _open_local(uri: str, settings: IngestSettings) -> IO[bytes]:
    """The file that stands where links and dots of `uri` lead. A device or a pipe might never end."""
    folders = [Path(folder).resolve() for folder in settings.folders]
    # What is elsewhere is not looked at: a reason must not tell whether it is there.
    allowed = [path for path in _real_paths(uri) if not folders or any(path.is_relative_to(f) for f in folders)]
    if not allowed:
        raise Refused(reasons.FOLDER_NOT_ALLOWED)
    present = [path for path in allowed if path.exists()]
    if len(present) > 1:
        raise Refused(reasons.TWO_FILES)
    path = (present or allowed)[0]
    if present and not path.is_file():
        raise Refused(reasons.NOT_A_FILE)
    return path.open("rb")


def _real_paths(uri: str) -> list[Path]:
    """Where `uri` may lead: of a file's uri, %-escapes may be part of the name, as `make_manifest` writes it, or stand
    for other letters, as pathlib and browsers write it.
    """
    path = LocalFileSystem._strip_protocol(uri)
    texts = (path, unquote(path)) if uri.startswith("file:") else (path,)
    return list(dict.fromkeys(Path(os.path.realpath(text)) for text in texts))


def _open_remote(uri: str, scheme: str) -> IO[bytes]:
    try:
        get_filesystem_class(scheme)
    except (ImportError, ValueError):
        raise Refused(reasons.NO_CLIENT) from None
    fs, path = files.filesystem(uri)
    file: IO[bytes] = fs.open(path, "rb")
    return file


def _read_limited(file: IO[bytes], max_bytes: int, deadline: Deadline) -> bytes:
    content = bytearray()
    while chunk := file.read(min(_CHUNK_BYTES, max_bytes + 1 - len(content))):
        content += chunk
        if len(content) > max_bytes:
            raise Refused(reasons.TOO_LARGE)
        if deadline.left_s() < 0:
            raise TimeoutError
    return bytes(content)
