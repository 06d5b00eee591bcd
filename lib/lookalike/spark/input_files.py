"""The files of an input, as they were when a run began to read it."""

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from pyspark.sql import DataFrame

from lookalike import files

_READ_THREADS = 16
# By these names fsspec's file systems tell one state of a file from another.
_MARKS = ("ETag", "ino", "mtime", "modification_time", "LastModified", "last_modified")


@dataclass(frozen=True)
class InputFile:
    """A Parquet file: `mark` is its ETag, or its time and the like; `footer` the sha256 of its Parquet footer, hex.

    The footer has every column chunk's place, size and statistics, so other rows mean another footer.
    """

    uri: str
    size_bytes: int
    mark: str
    footer: str


@dataclass(frozen=True)
class InputFiles:
    """Files in order of their uris."""

    files: tuple[InputFile, ...]

    @property
    def checksum(self) -> str:
        """sha256 over each file's name, size and footer, hex: the same for a copy at another place, or another time."""
        digest = hashlib.sha256()
        for file in self.files:
            name = file.uri.rpartition("/")[2]
            digest.update(f"{name}\n{file.size_bytes}\n".encode() + bytes.fromhex(file.footer))
        return digest.hexdigest()

    def changed_file(self) -> str | None:
        """The uri of a file that is not as it was, if there is one. A file that was only touched is as it was."""
        with ThreadPoolExecutor(_READ_THREADS) as pool:
            changed = pool.map(_has_changed, self.files)
            return next((file.uri for file, is_other in zip(self.files, changed, strict=True) if is_other), None)


def inspect_files(rows: DataFrame) -> InputFiles:
    """The Parquet files that `rows` are read from. Only a few kB of each are read."""
    uris = sorted(unquote(uri) for uri in rows.inputFiles())
    with ThreadPoolExecutor(_READ_THREADS) as pool:
        return InputFiles(tuple(pool.map(_inspect, uris)))


def _inspect(uri: str) -> InputFile:
    fs, path = files.filesystem(uri)
    info = fs.info(path)
    return InputFile(uri, int(info["size"]), _mark(info), _footer(fs, path, int(info["size"])))


def _has_changed(file: InputFile) -> bool:
    fs, path = files.filesystem(file.uri)
    try:
        info = fs.info(path)
        if int(info["size"]) != file.size_bytes:
            return True
        return _mark(info) != file.mark and _footer(fs, path, file.size_bytes) != file.footer
    except FileNotFoundError:
        return True


def _mark(info: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={info[name]}" for name in _MARKS if info.get(name) is not None)


def _footer(fs: Any, path: str, size_bytes: int) -> str:
    """Hash of the footer, whose length stands in front of the last four bytes."""
    with fs.open(path, "rb") as file:
        file.seek(size_bytes - 8)
        length = int.from_bytes(file.read(4), "little")
        file.seek(max(0, size_bytes - 8 - length))
        return hashlib.sha256(file.read(length)).hexdigest()
