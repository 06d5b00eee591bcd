"""Entries of the settings that say where images may be read: one that can never match is a mistake, and refused."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

from lookalike.uris import clean_uri

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)(?::[/\\]*)?", re.IGNORECASE)
# Signs in brackets stand for one of them.
_HOST = re.compile(r"(?:[\w.*?-]|\[!?[\w.-]+\])+|[0-9a-f.*?]*:[0-9a-f:.*?]*", re.IGNORECASE)
_NETWORK = re.compile(r"[0-9a-f.:]+/\d+", re.IGNORECASE)


def check_schemes(schemes: tuple[str, ...]) -> tuple[str, ...]:
    """`schemes`. Raises ValueError naming each that is none, and what was probably meant."""
    return _check(schemes, _read_scheme, "a scheme is a word in small letters, such as https")


def check_hosts(hosts: tuple[str, ...]) -> tuple[str, ...]:
    """`hosts`. Raises ValueError naming each that no host can match, and what was probably meant."""
    return _check(hosts, _read_host, "a host is a name or an address, such as cdn.shop.example or *.shop.example")


def check_folders(folders: tuple[str, ...]) -> tuple[str, ...]:
    """`folders` as absolute paths. Raises ValueError naming each below which no file can be, and what was meant."""
    _check(folders, _read_folder, "a folder is the path of one on the executors, such as /data/pictures")
    return tuple(str(Path(os.path.expanduser(folder)).absolute()) for folder in folders)  # noqa: PTH111  # it never raises


def _check(entries: tuple[str, ...], read: Callable[[str], str | None], form: str) -> tuple[str, ...]:
    """`read` gives what an entry means, as it can match, or None where that can't be known."""
    problems = []
    for entry in entries:
        meant = read(entry)
        if not meant or meant != entry:
            mend = f"did you mean {meant}?" if meant else form
            problems.append(f"{entry!r} can never match: {mend}")
    if problems:
        raise ValueError("; ".join(problems))
    return entries


def _read_scheme(entry: str) -> str | None:
    match = _SCHEME.fullmatch(clean_uri(entry))
    return match[1].lower() if match else None


def _read_host(entry: str) -> str | None:
    """The host of what may be a uri, or have a port, a path or a user."""
    rest = re.sub(r"^[A-Za-z][A-Za-z0-9+.-]*:[/\\]+|^[/\\]+", "", clean_uri(entry))
    place = re.split(r"[/\\#]", rest)[0].rpartition("@")[2]
    address = re.fullmatch(r"\[([^\[\]]*:[^\[\]]*)\](?::\d*)?", place)  # of IPv6, as uris have it
    host = address[1] if address else re.sub(r"^([^:]*):\d*$", r"\1", place).removesuffix(".")
    if _NETWORK.fullmatch(rest) or not _HOST.fullmatch(host):
        return None
    return f"*{host}" if host.startswith(".") else host


def _read_folder(entry: str) -> str | None:
    """The path of what may be a uri of a file, or a pattern."""
    path = clean_uri(entry)
    if path.startswith("file:"):
        path = unquote(path.removeprefix("file://"))
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", path):
        return None
    return path.partition("*")[0].rpartition("/")[0] if "*" in path else path
