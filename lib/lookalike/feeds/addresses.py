"""Where an image is: what a cell of an export says, as uris."""

import html
import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lookalike import files
from lookalike.uris import clean_uri

SUFFIXES = ("jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff", "avif")
# In small letters, without blanks, dashes and _, and without the / with which Magento's paths begin.
_NO_IMAGE = frozenset(
    {"noselection", "notselected", "noimage", "noimageavailable", "notavailable", "none", "null", "(null)", "nil"}
    | {"nan", "n/a", "na", "#n/a", "#ref!", "#value!", "#name?", "undefined", "false", "0", ""}
)
_BETWEEN_WORDS = re.compile("[\\s_\u2010-\u2015\u2212-]+")
_LONGEST_NO_IMAGE = 20  # with blanks around it
_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]+:/"  # a single letter is a drive of Windows
_HAS_SCHEME = re.compile(_SCHEME)
_HAS_SUFFIX = re.compile(rf"\.(?:{'|'.join(SUFFIXES)}|heic|heif|svg)", re.IGNORECASE)
# WooCommerce's `a.jpg ! alt : x ! title : y`
_ABOUT_IMAGE = re.compile(rf"\s+!\s*(?:alt|title|desc|caption)\s*:.*?(?=[|\r\n]|[,;]\s*{_SCHEME}|$)")
_TAG = re.compile(r"<[a-z]+[\s/>]", re.IGNORECASE)
_TAG_SOURCE = re.compile(r"""<img\b[^>]*?\ssrc\s*=\s*(?:(["'])(.*?)\1|([^\s>]+))""", re.IGNORECASE)
_HOST = re.compile(r"^(?:[A-Za-z][A-Za-z0-9+.-]+:)?//[^/]*/?")
_SEPARATOR = re.compile(
    rf"""
    \s* (?: [\r\n] | (?<!\\) [,;|] ) [\s,;|]*   # a comma that is escaped is part of a name
    | \s+ (?= {_SCHEME} )
    """,
    re.VERBOSE,
)
# Magento files wp11.jpg as /w/p/wp11.jpg; what was exported for it to import lies in one folder.
_DISPERSED = re.compile(r"/(?P<first>\w)/(?P<second>\w)/(?P<name>(?P=first)(?P=second)[^/]*)", re.IGNORECASE)


@dataclass(frozen=True)
class ImageFolder:
    """What paths of an export are below. `uri` is absolute.

    `holds_all`: a path that begins with / and is nowhere counts as one below the folder.
    """

    uri: str
    holds_all: bool

    def split_cell(self, cell: str) -> list[str]:
        """The addresses and paths in a cell, which may be a JSON list, without those that stand for no image.

        A separator parts the cell only between two of them. It is part of a name if the whole cell is a file's, or if
        what is before it has no suffix of an image and what follows has no scheme.
        """
        if (items := _read_json_list(cell)) is not None:
            return [part for item in items for part in self.split_cell(item)]
        cell = _ABOUT_IMAGE.sub("", cell)
        if _TAG.search(cell):
            sources = [html.unescape(source[2] or source[3] or "") for source in _TAG_SOURCE.finditer(cell)]
            parts = sources if len(sources) == 1 else [cell]
        elif not _SEPARATOR.search(cell) or (not _HAS_SCHEME.match(cell) and self._find(cell)):
            parts = [cell]
        else:
            parts = list(self._split(cell))
        return [part for part in (part.strip().replace("\\,", ",") for part in parts) if not is_no_image(part)]

    def _split(self, cell: str) -> Iterator[str]:
        begin = 0
        for separator in _SEPARATOR.finditer(cell):
            before, after = cell[begin : separator.start()], cell[separator.end() :]
            if is_no_image(before) or _begins_address(after) or self._is_end(before, separator[0], after):
                yield before
                begin = separator.end()
        yield cell[begin:]

    def _is_end(self, before: str, separator: str, after: str) -> bool:
        """Whether `before` is whole, though what follows has no scheme."""
        if "\n" in separator or "\r" in separator or not after.strip():
            return True
        suffix = list(_HAS_SUFFIX.finditer(before))
        if suffix and suffix[-1].end() == len(before):
            # An address may hold `photo.jpg,medium`, but no space.
            return not _begins_address(before) or any(map(str.isspace, separator))
        return self._find(before) is not None

    def to_uri(self, address: str) -> str:
        """The absolute uri of an address, or of a path. Each uri of an export passes here."""
        address = clean_uri(address)
        if _HAS_SCHEME.match(address):
            return address
        if address.startswith("//"):
            return f"https:{address}"
        if path := self._find(address):
            return f"file://{path}"
        if address.startswith("/") and not self.holds_all:
            return f"file://{address}"
        return files.join(self.uri, address.lstrip("/"))

    @cached_property
    def _path(self) -> str | None:
        """The folder's path, if it is local."""
        return files.filesystem(self.uri)[1] if files.is_local(self.uri) else None

    def _find(self, address: str) -> str | None:
        """The file that a path means: below the folder, else where it says; other spellings of it come last."""
        if self._path is None:
            return None
        spellings = [address]
        if "\\" in address:
            spellings.append(address.replace("\\", "/"))
        if not address.isascii():  # macOS and Linux write letters with accents in different ways
            spellings += [unicodedata.normalize(form, address) for form in ("NFC", "NFD")]
        for spelling in spellings:
            for place in self._places(spelling):
                if _is_file(place):
                    return place
        return None

    def _places(self, path: str) -> Iterator[str]:
        yield f"{self._path}/{path.lstrip('/')}"
        if path.startswith("/"):
            yield path
        if dispersed := _DISPERSED.fullmatch(path):
            yield f"{self._path}/{dispersed['name']}"


def is_no_image(text: str) -> bool:
    """Whether a cell, or a part of it, says that there is no image."""
    return not text or (
        len(text) <= _LONGEST_NO_IMAGE and _BETWEEN_WORDS.sub("", text.lower()).removeprefix("/") in _NO_IMAGE
    )


def is_no_address(text: str) -> bool:
    """Whether a part of a cell is HTML, or the picture itself as `data:`."""
    return _TAG.search(text) is not None or text[:5].lower() == "data:"


def _read_json_list(cell: str) -> list[str] | None:
    """None for what is no list of texts."""
    if not cell.startswith("["):
        return None
    try:
        items = json.loads(cell)
    except (ValueError, RecursionError):
        return None
    return items if all(isinstance(item, str) for item in items) else None


def _begins_address(text: str) -> bool:
    return text.startswith("//") or _HAS_SCHEME.match(text) is not None


def _is_file(path: str) -> bool:
    try:
        return Path(path).is_file()
    except (OSError, ValueError):  # a name too long, or with a zero byte, is no file
        return False


def to_image_id(product_id: str, address: str) -> str:
    """A key of an image that stays when host, query or the product's other images change: `mug-7/products/front.jpg`.

    The query counts where the path alone names no picture, as in `image.php?id=7`.
    """
    path = _HOST.sub("", address, count=1).partition("#")[0]
    name, _, query = path.partition("?")
    if query and not any(match.end() == len(name) for match in _HAS_SUFFIX.finditer(name)):
        name = f"{name}?{query}"
    return "/".join(part for part in (product_id, name.strip("/")) if part)


def take_file_name(uri: str) -> str:
    """The last part of a uri's path. Only on the web do `?` and `#` end a path."""
    if re.match(r"https?:", uri, re.IGNORECASE):
        uri = re.split(r"[?#]", uri, maxsplit=1)[0]
    return uri.rpartition("/")[2]
