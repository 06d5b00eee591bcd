"""Entries of the settings that say where images may be read: one that can never match is a mistake, and refused."""

import difflib
import os
import re
import unicodedata
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import unquote

import fsspec

from lookalike.uris import clean_uri

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)(?::[/\\]*)?", re.IGNORECASE)
_SCHEME_FORM = "a scheme is a word in small letters, such as https"
# Signs in brackets stand for one of them.
_HOST = re.compile(r"(?:[\w.*?-]|\[!?[\w.-]+\])+|[0-9a-f.*?]*:[0-9a-f:.*?]*", re.IGNORECASE)
_NETWORK = re.compile(r"[0-9a-f.:]+/\d+|(?:\d+\.){3}\d+-[\d.]+", re.IGNORECASE)
_HOST_FORM = "a host is a name or an address, such as cdn.shop.example or *.shop.example"
_FOLDER_FORM = "a folder is the path of one on the executors, such as /data/pictures"


def check_schemes(schemes: tuple[str, ...]) -> tuple[str, ...]:
    """`schemes`. Raises ValueError naming each that is none, and what was probably meant."""
    _check(schemes, _read_scheme)
    return schemes


def check_hosts(hosts: tuple[str, ...]) -> tuple[str, ...]:
    """`hosts` in their usual form. Raises ValueError naming each that no host can match, and what was meant."""
    _check(hosts, _read_host)
    return tuple(_normalise_host(host) for host in hosts)


def check_folders(folders: tuple[str, ...]) -> tuple[str, ...]:
    """`folders` as absolute paths. Raises ValueError naming each below which no file can be, and what was meant."""
    _check(folders, _read_folders)
    return tuple(str(Path(_expand(folder)).absolute()) for folder in folders)


def _check(entries: tuple[str, ...], read: Callable[[str], list[str]]) -> None:
    """`read` gives what an entry means, as it can match. If that can't be known, it raises ValueError with the form."""
    problems = []
    for entry in entries:
        try:
            meant = read(entry)
        except ValueError as error:
            problems.append(f"{entry!r} can never match: {error}")
        else:
            if meant != [entry]:
                problems.append(f"{entry!r} can never match: did you mean {', '.join(meant)}?")
    if problems:
        raise ValueError("; ".join(problems))


def _read_scheme(entry: str) -> list[str]:
    match = _SCHEME.fullmatch(clean_uri(entry))
    if not match:
        raise ValueError(_SCHEME_FORM)
    scheme = match[1].lower()
    return difflib.get_close_matches(scheme, fsspec.available_protocols(), n=1, cutoff=0.75) or [scheme]


def _read_host(entry: str) -> list[str]:
    """The host of what may be a uri, or a regular expression, or have a port, a path or a user."""
    if re.match(r"\^|\.\*", entry) or r"\." in entry:
        host = re.sub(r"^\^|\\(?=\.)|\$$|\.(?=\*)", "", entry)
    else:
        rest = re.sub(r"^[A-Za-z][A-Za-z0-9+.-]*:[/\\]+|^[/\\]+", "", clean_uri(entry))
        place = "" if _NETWORK.fullmatch(rest) else re.split(r"[/\\#]", rest)[0].rpartition("@")[2]
        address = re.fullmatch(r"\[([^\[\]]*:[^\[\]]*)\](?::\d*)?", place)  # of IPv6, as uris have it
        host = address[1] if address else re.sub(r"^([^:]*):\d*$", r"\1", place).removesuffix(".")
    host = _normalise_host(f"*{host}" if re.match(r"\.\w", host) else host)
    if not _HOST.fullmatch(host) or re.search(r"^\.|\.\.", host) or (":" in host and not _is_address(host)):
        raise ValueError(_HOST_FORM)
    return [entry if host == _normalise_host(entry) else host]


def _is_address(host: str) -> bool:
    """Whether it is one of IPv6, or a pattern."""
    try:
        ip_address(host)
    except ValueError:
        return "*" in host or "?" in host
    return True


def _normalise_host(host: str) -> str:
    """As uris have it once they are parsed: an address of IPv6 short, and each letter in its plain form."""
    host = unicodedata.normalize("NFKC", host)
    try:
        return ip_address(host).compressed
    except ValueError:
        return host


def _read_folders(entry: str) -> list[str]:
    """The paths of what may be a uri of a file, a list, a pattern, or text for a shell."""
    if entry and os.path.exists(_expand(entry)):  # noqa: PTH110  # it never raises
        return [entry]
    path = clean_uri(entry)
    if re.match(r"file://[^/]|\\\\", path):
        raise ValueError(f"hosts in addresses of files are not supported; {_FOLDER_FORM}")
    if path.startswith("file:"):
        path = unquote(path.removeprefix("file://"))
    path = os.path.expandvars(path)
    # A scheme, a variable that is not set, or a user who is not known.
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:|.*\$[\w{]", path) or _expand(path).startswith("~"):
        raise ValueError(_FOLDER_FORM)
    path = path.replace("\\", "/")
    braces = re.fullmatch(r"([^{}]*)\{([^{}]*,[^{}]*)\}([^{}]*)", path)
    if braces:
        paths = [f"{braces[1]}{part}{braces[3]}" for part in braces[2].split(",")]
    else:
        paths = re.split(r"[,:;] *(?=[/~])", path)
    folders = dict.fromkeys(re.sub(r"(?:^|/)[^/]*[*?].*", "", one) for one in paths)
    if "" in folders:
        raise ValueError(_FOLDER_FORM)
    return list(folders)


def _expand(folder: str) -> str:
    return os.path.expanduser(folder)  # noqa: PTH111  # it never raises
