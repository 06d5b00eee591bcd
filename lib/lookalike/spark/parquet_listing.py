"""Which Parquet files an address names: a file, all files of a folder, or those of a glob.

By the rules of Spark and Hadoop, but for a file that is named itself: that one is taken, whatever its name.
"""

import posixpath
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from lookalike import files

_CHECK_THREADS = 16
_GLOB = re.compile(r"[*?\[{]")
_BRACES = re.compile(r"\{([^{}]*)\}")
_ICEBERG_METADATA = re.compile(r"\.metadata\.json(?:\.gz)?$")
_TABLE_FILES = {
    "Delta": re.compile(r"/_delta_log/"),
    "Hudi": re.compile(r"/\.hoodie/"),
    "Iceberg": re.compile(rf"/metadata/[^/]*{_ICEBERG_METADATA.pattern}"),
}
"""By the kind of a table, which files below its folder tell it."""


class InputUnusable(Exception):
    """An input that can't be read; the message says where and why."""


def list_parquet_files(uri: str) -> list[str]:
    """Uris of the files, sorted. Raises InputUnusable where there are none, and where a table's folder holds any."""
    fs, path = files.filesystem(uri)
    if fs.isfile(path):
        _refuse_tables_above(fs, [posixpath.dirname(path)], _prefix(uri, path))
        return [uri]
    if fs.isdir(path):
        if is_delta_table(uri):
            _refuse(
                uri,
                "its _delta_log holds no commit, so nobody knows which of its files are rows; write the Delta table "
                "again, or remove _delta_log if all files are",
            )
        _refuse_tables_above(fs, [path], _prefix(uri, path))
        return _of_folder(fs, path, uri) or _refuse(uri, "the folder holds no file; give one with Parquet files")
    if not _GLOB.search(uri):
        _refuse(uri, "no such file or folder; give a Parquet file, a folder or a glob")
    return _of_glob(uri) or _refuse(uri, "no file is like this pattern; give a Parquet file, a folder or a glob")


def is_delta_table(uri: str) -> bool:
    fs, path = files.filesystem(uri)
    return bool(fs.isdir(posixpath.join(path, "_delta_log")))


def _refuse(uri: str, message: str) -> Any:
    raise InputUnusable(f"{uri}: {message}")


def _prefix(uri: str, path: str) -> str:
    """What stands before `path` in `uri`, such as `s3://`; nothing before a relative path."""
    uri = uri.rstrip("/")
    return uri.removesuffix(path) if uri.endswith(path) else ""


def _refuse_tables_above(fs: Any, folders: Iterable[str], prefix: str) -> None:
    """Raises InputUnusable where one of the folders, or one above it, is a table's."""
    above = sorted({parent for folder in folders for parent in _with_parents(folder)})
    with ThreadPoolExecutor(_CHECK_THREADS) as pool:
        for folder, kind in zip(above, pool.map(lambda one: _kind_of_table(fs, one), above), strict=True):
            if kind:
                _refuse_table(kind, prefix + folder)


def _with_parents(folder: str) -> Iterable[str]:
    while folder.strip("/"):
        yield folder
        folder = posixpath.dirname(folder)


def _kind_of_table(fs: Any, folder: str) -> str | None:
    metadata = posixpath.join(folder, "metadata")
    try:
        if fs.isdir(posixpath.join(folder, "_delta_log")):
            return "Delta"
        if fs.isdir(posixpath.join(folder, ".hoodie")):
            return "Hudi"
        if fs.isdir(metadata) and any(_ICEBERG_METADATA.search(name) for name in fs.ls(metadata, detail=False)):
            return "Iceberg"
    except PermissionError:  # of a store that lets its user see only what is below
        pass
    return None


def _refuse_table(kind: str, table: str) -> None:
    mend = "give its own address" if kind == "Delta" else "export it as Parquet or as a Delta table"
    _refuse(table, f"is {'an' if kind == 'Iceberg' else 'a'} {kind} table, whose files are not all its rows; {mend}")


def _of_folder(fs: Any, folder: str, uri: str) -> list[str]:
    names = sorted(posixpath.relpath(path, folder) for path in fs.find(folder))
    for name in names:
        for kind, pattern in _TABLE_FILES.items():
            if match := pattern.search(f"/{name}"):
                _refuse_table(kind, posixpath.join(uri, name[: max(0, match.start() - 1)]).rstrip("/"))
    return [posixpath.join(uri, name) for name in names if not _is_ignored(name)]


def _is_ignored(relative: str) -> bool:
    """Of marks and unfinished files, such as `_SUCCESS`, `.part.crc` and `_temporary/`."""
    parts = relative.split("/")
    hidden = any(part.startswith(".") or (part.startswith("_") and "=" not in part) for part in parts)
    return hidden or relative.endswith("._COPYING_")


def _of_glob(uri: str) -> list[str]:
    """Files that are like the pattern, and those of folders that are."""
    listed: set[str] = set()
    for pattern in _expand_braces(uri):
        fixed = pattern[: pattern.rfind("/", 0, match.start()) + 1] if (match := _GLOB.search(pattern)) else pattern
        fs, base = files.filesystem(fixed)
        is_folder = {path: fs.isdir(path) for path in fs.glob(files.filesystem(pattern)[1])}
        folders = {path if is_folder[path] else posixpath.dirname(path) for path in is_folder}
        _refuse_tables_above(fs, folders, _prefix(fixed, base))
        for path in is_folder:
            there = posixpath.join(fixed, posixpath.relpath(path, base))
            if is_folder[path]:
                listed.update(_of_folder(fs, path, there))
            elif not _is_ignored(posixpath.basename(path)):
                listed.add(there)
    return sorted(listed)


def _expand_braces(pattern: str) -> list[str]:
    """`a{b,c}` is `ab` and `ac`, as Hadoop has it."""
    match = _BRACES.search(pattern)
    if not match:
        return [pattern]
    before, after = pattern[: match.start()], pattern[match.end() :]
    return [one for part in match[1].split(",") for one in _expand_braces(f"{before}{part}{after}")]
