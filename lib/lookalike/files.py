"""Files by URI, local or remote, through fsspec. A path without a scheme is local.

`s3a:` is read as `s3:`, so one URI serves Spark and Python alike. S3 takes address and keys from the environment, as
Spark does; `hdfs:` needs no Hadoop here, and follows the one that `HADOOP_CONF_DIR` describes.
"""

import hashlib
import posixpath
import re
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from lookalike.errors import RootUnusable


def filesystem(uri: str) -> tuple[Any, str]:
    """The fsspec file system of `uri`, and the path of `uri` in it."""
    fs, path = url_to_fs(uri, **_options(uri))
    return fs, str(path)


def _options(uri: str) -> dict[str, Any]:
    """How to use the store of `uri`. S3: other processes write there too, and it may be gone for half a minute."""
    if not uri.startswith(("s3:", "s3a:")):
        return {}
    return {"use_listings_cache": False, "config_kwargs": {"retries": {"mode": "standard", "max_attempts": 8}}}


def is_local(uri: str) -> bool:
    return isinstance(filesystem(uri)[0], LocalFileSystem)


def absolute(uri: str) -> str:
    """`uri` with a scheme: a local path becomes an absolute `file:` URI, so that executors see the same place.

    Nothing is percent-encoded: neither Hadoop nor fsspec decodes a path.
    """
    if "://" in uri or uri.startswith(("file:", "hdfs:")):
        return uri
    return f"file://{Path(uri).expanduser().resolve()}"


_ODD = re.compile(r"%[0-9A-Fa-f]{2}|[\[\]{}*?|^\\\x00-\x1f\x7f]")


def check_path(uri: str) -> None:
    """Raises RootUnusable where not every tool would read the path of a folder as it is written.

    Spark takes `*`, `?`, brackets and braces for patterns, and so reads other folders, too. delta-rs decodes `%20`,
    takes a backslash for a slash, and crashes on others. No client of a store is made: one of HDFS would not survive
    the start of Spark.
    """
    if odd := _ODD.search(absolute(uri)):
        raise RootUnusable(
            f"{redact(uri)} can't hold tables, as Spark and delta-rs do not take {odd[0]!r} in a path as it is "
            "written: give another folder"
        )


def join(root: str, *parts: str) -> str:
    return posixpath.join(root, *parts)


def read_bytes(uri: str) -> bytes:
    """The whole file. Raises what its file system raises."""
    fs, path = filesystem(uri)
    return bytes(fs.cat_file(path))


_CONTAINER_SCHEMES = frozenset({"abfs", "abfss", "wasb", "wasbs"})
"""Schemes whose part before the `@` names a container and is no secret, unless it has a password."""

_URI = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>[^\s\"'<>]+)")
CREDENTIALS = r"(?:[^/@:?#\[]*:(?!\d{1,5}(?:[/?#]|$))[^@]*@(?:[^/@?#]*@)*|[^/@?#]*@)"
"""What may stand before a uri's host. A colon before digits and a slash is a port's; a password may hold any sign."""
_PARAMETERS = re.compile(r"[?#].*")
SECRET_WORDS = r"secret|passw\w*|pwd|token|credential|signature|authorization"
"""What the name of a secret holds, be it a setting or a parameter of a uri."""
_SECRET = rf"[\w.-]*(?:{SECRET_WORDS}|(?:access|account|api|encryption|private|shared)[._-]?key)[\w.-]*"
_NAMED = re.compile(rf"({_SECRET}[\"']?\s*(?:=|:|->)\s*)(?:\"[^\"]*\"|'[^']*'|[^\s\"',;&)}}\]]+)", flags=re.IGNORECASE)


def is_secret(name: str) -> bool:
    """Whether a setting or a field of this name is one that must not be shown."""
    return re.fullmatch(_SECRET, name, re.IGNORECASE) is not None


def redact(text: str) -> str:
    """`text` with an ellipsis for user, password, query and fragment of every URI, and for values named as secrets."""
    return _NAMED.sub(r"\1…", _URI.sub(_redact_uri, text))


def _redact_uri(uri: re.Match[str]) -> str:
    scheme, rest = uri["scheme"], uri["rest"]
    credentials = re.match(CREDENTIALS, rest)
    if credentials and (":" in credentials[0] or scheme.lower() not in _CONTAINER_SCHEMES):
        rest = f"…@{rest[credentials.end() :]}"
    return f"{scheme}://{_PARAMETERS.sub('?…', rest)}"


@contextmanager
def write_atomically(uri: str) -> Iterator[Path]:
    """Give a local path to write to. If the block ends without an error, that file becomes `uri`, as a whole.

    If it raises, nothing is written.

    Locally and on HDFS the file gets a temporary name beside `uri` and is renamed; an object store's upload is atomic.
    """
    fs, path = filesystem(uri)
    if isinstance(fs, LocalFileSystem):
        fs.makedirs(posixpath.dirname(path), exist_ok=True)
        temporary = Path(f"{path}.{uuid.uuid4().hex}.tmp")
        try:
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder) / "file"
        yield temporary
        if "s3" in fs.protocol:
            fs.put_file(str(temporary), path)
            return
        fs.makedirs(posixpath.dirname(path), exist_ok=True)
        remote = f"{path}.{uuid.uuid4().hex}.tmp"
        try:
            fs.put_file(str(temporary), remote)
            fs.mv(remote, path, overwrite=True)
        except BaseException:
            fs.rm_file(remote)
            raise


def remove(uri: str) -> None:
    """Remove a file, or a folder with all below it. If there is none, nothing happens."""
    fs, path = filesystem(uri)
    if fs.exists(path):
        fs.rm(path, recursive=True)


def sha256(path: Path) -> str:
    """Checksum of a local file, hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


class ListedFile(NamedTuple):
    """A file of a folder."""

    size_bytes: int
    modified: datetime


def list_files(uri: str, depth: int | None = None) -> dict[str, ListedFile]:
    """Files below the folder `uri`, at most `depth` folders down, by relative path; none where there is no folder."""
    fs, folder = filesystem(uri)
    if not fs.exists(folder):
        return {}
    details = fs.find(folder, maxdepth=depth, detail=True)
    return {
        posixpath.relpath(path, folder): ListedFile(info["size"], _read_modification_time(info))
        for path, info in details.items()
    }


def _read_modification_time(info: Mapping[str, Any]) -> datetime:
    """When a file was written, by the names that fsspec's file systems have for it. Unknown counts as just now."""
    if "modification_time" in info:  # of HDFS, in milliseconds
        return datetime.fromtimestamp(info["modification_time"] / 1000, timezone.utc)
    time = next((info[name] for name in ("mtime", "LastModified", "last_modified") if info.get(name)), None)
    if isinstance(time, datetime):
        return time if time.tzinfo else time.replace(tzinfo=timezone.utc)
    return datetime.fromtimestamp(time, timezone.utc) if isinstance(time, int | float) else datetime.now(timezone.utc)


def remove_empty_folders(root: str, paths: Iterable[str]) -> None:
    """Remove the folders that held these files, relative to `root`, where they are empty now. Local roots only."""
    fs, base = filesystem(root)
    folders = {posixpath.dirname(path) for path in paths} - {""}
    folders |= {posixpath.dirname(folder) for folder in folders} - {""}
    if isinstance(fs, LocalFileSystem):
        for folder in sorted(folders, key=len, reverse=True):
            with suppress(OSError):  # it is not empty
                Path(base, folder).rmdir()
