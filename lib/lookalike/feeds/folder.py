"""A folder of images, with a folder a category."""

import posixpath
from collections import Counter
from collections.abc import Iterator
from typing import Any

from lookalike import files
from lookalike.errors import ManifestInvalid
from lookalike.feeds.addresses import SUFFIXES
from lookalike.feeds.rows import Row, read_modification_time
from lookalike.kernels.pictures.images import has_signature_of_picture

# What NAS systems, macOS and Windows put beside pictures, in small letters; names that begin with a dot are hidden.
_OF_SYSTEMS = frozenset(
    {"@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "__macosx", "$recycle.bin"}
    | {"system volume information", "lost+found", "thumbs.db", "desktop.ini"}
)
_HEAD_BYTES = 64


class Folder:
    """The images below `uri`, a path or URI. While `read` goes on, it counts what it leaves out.

    Raises ManifestInvalid if there is no such folder.
    """

    def __init__(self, uri: str) -> None:
        self._uri = files.absolute(uri)
        self._fs, self._root = files.filesystem(self._uri)
        if not self._fs.isdir(self._root):
            raise ManifestInvalid(f"{uri}: no such folder; give one that has a folder of images for each category")
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, str] = {}

    def read(self) -> Iterator[Row]:
        """A row an image, by path. The product_id is the file's name without suffix, the image_id its path."""
        for path in sorted(posixpath.relpath(path, self._root) for path in self._fs.find(self._root)):
            if any(name.startswith(".") or name.lower() in _OF_SYSTEMS for name in path.split("/")):
                self._tell("files that are hidden, or of a NAS or an operating system, were left out", path)
            elif not self._is_image(path):
                self._tell("files that are no pictures were left out", path)
            else:
                if "/" not in path:
                    self._tell("pictures are in no folder, so have no category and will be rejected", path)
                yield self._to_row(path)

    def notes(self) -> Iterator[str]:
        """What was left out, or will be rejected."""
        for cause, count in self._counts.items():
            yield f"{count:,} {cause}, such as {self._examples[cause]}"

    def _tell(self, cause: str, path: str) -> None:
        self._counts[cause] += 1
        self._examples.setdefault(cause, path)

    def _is_image(self, path: str) -> bool:
        """By suffix, else by content: a name may have no suffix, or a rare one."""
        if _suffix(path) in SUFFIXES:
            return True
        with self._fs.open(posixpath.join(self._root, path), "rb") as file:
            head: Any = file.read(_HEAD_BYTES)
        return has_signature_of_picture(head)

    def _to_row(self, path: str) -> Row:
        folder, _, name = path.rpartition("/")
        product_id = name.rpartition(".")[0] if _suffix(path) in SUFFIXES else name
        uri = files.join(self._uri, path)
        return Row(path, product_id, folder, uri, updated_at=read_modification_time(uri))


def _suffix(path: str) -> str:
    return posixpath.splitext(path)[1].removeprefix(".").lower()
