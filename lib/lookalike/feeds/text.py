"""How the text of an export is encoded."""

import codecs
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TextIO

from lookalike.errors import ManifestInvalid
from lookalike.feeds.unpack import open_bytes

UTF_8 = "utf-8-sig"
_FALLBACK = "cp1252"
_CHUNK_BYTES = 2**20
# UTF-32 first, as its mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, UTF_8),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_ESCAPED = re.compile("[\udc80-\udcff]")
_FOREIGN = re.compile("[^\x00-\x7f\udc80-\udcff]")


@dataclass(frozen=True)
class Encoding:
    """`name`: as Python knows it. `is_guess`: nothing in the file says so. `has_errors`: some bytes are not of it."""

    name: str
    is_guess: bool = False
    has_errors: bool = False


def detect_encoding(source: str) -> Encoding:
    """Read the whole file. Text that is not Unicode counts as CP1252.

    A file that is mostly UTF-8 counts as UTF-8: then a reader meets the bytes that are not, and names their row.
    Raises ManifestInvalid if it is empty or no text.
    """
    with open_bytes(source) as content:
        head = content.read(_CHUNK_BYTES)
        if not head:
            raise ManifestInvalid(f"{source}: the file is empty; its first row must name the columns")
        marked = next((name for mark, name in _MARKS if head.startswith(mark)), None)
        if marked:
            return Encoding(marked)
        if b"\0" in head:
            return Encoding(_detect_unmarked_utf_16(head, source))
        return _detect_by_content(head, iter(lambda: content.read(_CHUNK_BYTES), b""))


def _detect_unmarked_utf_16(head: bytes, source: str) -> str:
    """Of Latin text, one byte of each pair is zero."""
    even, odd = (head[start::2].count(0) / (len(head) / 2) for start in (0, 1))
    if max(even, odd) < 0.5 or min(even, odd) > 0.1:
        raise ManifestInvalid(f"{source}: not text; save the file as CSV in UTF-8")
    return "utf-16-le" if odd > even else "utf-16-be"


def _detect_by_content(head: bytes, rest: Iterator[bytes]) -> Encoding:
    decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
    wrong = right = 0
    chunk = head
    while chunk:
        text = decode(chunk)
        if not text.isascii():
            wrong += len(_ESCAPED.findall(text))
            right += len(_FOREIGN.findall(text))
        chunk = next(rest, b"")
    wrong += len(decode(b"", final=True))
    return Encoding(_FALLBACK, is_guess=True) if wrong > right else Encoding(UTF_8, has_errors=wrong > 0)


@contextmanager
def open_text(source: str, encoding: Encoding) -> Iterator[TextIO]:
    """The export's text, line ends as they are. Bytes not of its encoding are escaped, or raise ManifestInvalid."""
    errors = "surrogateescape" if encoding.has_errors else "strict"
    try:
        with open_bytes(source) as content, io.TextIOWrapper(content, encoding.name, errors, newline="") as text:
            yield text
    except UnicodeDecodeError as error:
        raise ManifestInvalid(
            f"{source}: not {encoding.name} ({error.reason}); name the encoding that it has, such as --encoding cp1250"
        ) from error


def is_escaped(text: str) -> bool:
    """Whether `text` holds a byte that is not of its encoding."""
    return _ESCAPED.search(text) is not None
