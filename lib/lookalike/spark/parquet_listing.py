"""Which Parquet files an address names: a file, all files of a folder, or those of a glob.

By the rules of Spark and Hadoop, but for a file that is named itself: that one is taken, whatever its name.
"""

import posixpath
import re
from typing import Any

from lookalike import files

_GLOB = re.compile(r"[*?\[{]")
_BRACES = re.compile(r"\{([^{}]*)\}")


class InputUnusable(Exception):
    """An input that can't be read; the message says where and why."""


def list_parquet_files(uri: str) -> list[str]:
    """Uris of the files, sorted. Raises InputUnusable where there are none."""
    fs, path = files.filesystem(uri)
    if fs.isfile(path):
        return [uri]
    if fs.isdir(path):
        _refuse_other_tables(fs, path)
        return _of_folder(fs, path, uri) or _refuse(uri, "the folder holds no file; give one with Parquet files")
    if not _GLOB.search(uri):
        _refuse(uri, "no such file or folder; give a Parquet file, a folder or a glob")
    return _of_glob(uri) or _refuse(uri, "no file is like this pattern; give a Parquet file, a folder or a glob")


def is_delta_table(uri: str) -> bool:
    fs, path = files.filesystem(uri)
    return bool(fs.isdir(posixpath.join(path, "_delta_log")))


def _refuse(uri: str, message: str) -> Any:
    raise InputUnusable(f"{uri}: {message}")


def _refuse_other_tables(fs: Any, folder: str) -> None:
    if fs.isdir(posixpath.join(folder, ".hoodie")):
        _refuse(folder, "is a Hudi table, whose files are not all its rows; export it as Parquet or as a Delta table")
    metadata = posixpath.join(folder, "metadata")
    if fs.isdir(metadata) and any(name.endswith(".metadata.json") for name in fs.ls(metadata, detail=False)):
        _refuse(
            folder, "is an Iceberg table, whose files are not all its rows; export it as Parquet or as a Delta table"
        )


def _of_folder(fs: Any, folder: str, uri: str) -> list[str]:
    names = sorted(posixpath.relpath(path, folder) for path in fs.find(folder))
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
        for path in fs.glob(files.filesystem(pattern)[1]):
            there = posixpath.join(fixed, posixpath.relpath(path, base))
            if fs.isdir(path):
                _refuse_other_tables(fs, path)
                if is_delta_table(there):
                    _refuse(there, "is a Delta table; give its own address")
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
