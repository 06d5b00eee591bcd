"""The bytes of an export, unpacked if it is packed."""

import bz2
import gzip
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

from lookalike import files
from lookalike.errors import ManifestInvalid, first_few

_ZIP = b"PK\3\4"
_UNPACKERS: Mapping[bytes, Callable[[BinaryIO], Any]] = {
    b"\x1f\x8b": lambda raw: gzip.GzipFile(fileobj=raw),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\0": lzma.LZMAFile,
}
_REFUSED = {
    b"PAR1": "is Parquet; give it to the pipeline as its manifest, or save it as CSV",
    b"\xd0\xcf\x11\xe0": "is an Excel workbook; save the sheet as CSV UTF-8",
    b"\x28\xb5\x2f\xfd": "is packed with zstd; unpack it first",
    b"7z\xbc\xaf\x27\x1c": "is packed as 7z; unpack it first",
    b"Rar!": "is packed as rar; unpack it first",
}
_LONGEST_SIGNATURE = 6
_DAMAGED = (EOFError, gzip.BadGzipFile, lzma.LZMAError, zipfile.BadZipFile, zlib.error)


@contextmanager
def open_bytes(source: str) -> Iterator[BinaryIO]:
    """The content of the file at `source`, a path or URI; that of its only member if it is a .zip.

    Raises ManifestInvalid if there is no such file, if it is damaged, or if it is packed in a way that is not read.
    """
    fs, path = files.filesystem(files.absolute(source))
    if not fs.isfile(path):
        raise ManifestInvalid(f"{source}: no such file; give the export that lists your images")
    try:
        with fs.open(path, "rb") as raw, _unpack(raw, source) as content:
            yield content
    except NotImplementedError as error:  # zipfile's, for Deflate64 among others
        raise ManifestInvalid(f"{source}: is packed in a way that is not read ({error}); unpack it first") from error
    except _DAMAGED as error:
        raise ManifestInvalid(f"{source}: cut off or damaged ({error}); export or download it again") from error


@contextmanager
def _unpack(raw: BinaryIO, source: str) -> Iterator[BinaryIO]:
    signature = raw.read(_LONGEST_SIGNATURE)
    raw.seek(0)
    refused = next((why for begin, why in _REFUSED.items() if signature.startswith(begin)), None)
    if refused:
        raise ManifestInvalid(f"{source}: {refused}")
    unpack = next((unpack for begin, unpack in _UNPACKERS.items() if signature.startswith(begin)), None)
    if signature.startswith(_ZIP):
        with zipfile.ZipFile(raw) as archive, archive.open(_choose_member(archive, source)) as content:
            yield cast("BinaryIO", content)
    elif unpack:
        with unpack(raw) as content:
            yield content
    else:
        yield raw


def _choose_member(archive: zipfile.ZipFile, source: str) -> zipfile.ZipInfo:
    members = [member for member in archive.infolist() if _is_content(member.filename)]
    names = [member.filename for member in members]
    if "[Content_Types].xml" in names:
        raise ManifestInvalid(f"{source}: is an Excel workbook; save the sheet as CSV UTF-8")
    if len(members) != 1:
        raise ManifestInvalid(
            f"{source}: holds {len(members)} files ({first_few(names)}); unpack it, and give one of them"
        )
    if members[0].flag_bits & 1:
        raise ManifestInvalid(f"{source}: needs a password; unpack it first")
    return members[0]


def _is_content(name: str) -> bool:
    """Whether it is no folder, and not what macOS adds."""
    return not name.endswith("/") and not any(part == "__MACOSX" or part.startswith(".") for part in name.split("/"))
