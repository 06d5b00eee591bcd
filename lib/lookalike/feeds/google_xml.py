"""Google Merchant feeds in XML: RSS with an `item` a product, or Atom with an `entry`."""

from collections.abc import Iterator
from xml.parsers import expat

from lookalike.errors import ManifestInvalid
from lookalike.feeds.records import Export, Record, Value
from lookalike.feeds.unpack import open_bytes

_CHUNK_BYTES = 2**16
_LONGEST_ITEM = 2**24  # characters
_ITEMS = ("item", "entry")


def read_google_xml(source: str) -> Export:
    """Raises ManifestInvalid, also while records are read, for XML that is malformed or declares entities."""

    def read() -> Iterator[Record]:
        parser = _ItemParser(source)
        with open_bytes(source) as content:
            # Blank lines before the declaration, as templates leave them, are an error to expat.
            yield from parser.parse(content.read(_CHUNK_BYTES).lstrip(b" \t\r\n"))
            for chunk in iter(lambda: content.read(_CHUNK_BYTES), b""):
                yield from parser.parse(chunk)
            yield from parser.parse(b"", is_last=True)

    columns = {name: None for record in read() for name in record.values}
    if not columns:
        raise ManifestInvalid(
            f"{source}: XML without <item> or <entry>; give a Google Merchant feed (RSS or Atom), or save it as CSV"
        )
    return Export(source, tuple(columns), read)


class _ItemParser:
    """Turns XML, chunk by chunk, into records: lists of the texts of what stands directly below the item, by name.

    Names are without prefix; texts of elements with one (`g:id`) come before others (`id` of Atom). Entities that the
    file declares are refused: they can grow without end, or name files of this machine.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._parser = expat.ParserCreate()
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._add_text
        self._parser.EntityDeclHandler = self._refuse_entity
        self._depth = 0  # below the item; 0 outside of one
        self._text: list[str] = []
        self._chars = 0
        self._values: dict[str, tuple[list[str], list[str]]] = {}  # with a prefix, without
        self._items = 0
        self._complete: list[Record] = []

    def parse(self, chunk: bytes, is_last: bool = False) -> list[Record]:
        """The records that end in `chunk`."""
        try:
            self._parser.Parse(chunk, is_last)
        except (expat.ExpatError, ValueError, LookupError) as error:  # the latter two for an encoding
            raise ManifestInvalid(
                f"{self._source}: item {self._items + 1}: {error}; see whether a & is not written as &amp;, the "
                "encoding is another than declared, or the file is cut off"
            ) from error
        complete, self._complete = self._complete, []
        return complete

    def _start(self, name: str, _attributes: dict[str, str]) -> None:
        if self._depth or _local(name) in _ITEMS:
            self._depth += 1
            self._text.clear()

    def _end(self, name: str) -> None:
        if self._depth == 2:
            has_no_prefix = ":" not in name
            self._values.setdefault(_local(name), ([], []))[has_no_prefix].append("".join(self._text))
        elif self._depth == 1:
            self._items += 1
            values: dict[str, Value] = {name: [*prefixed, *plain] for name, (prefixed, plain) in self._values.items()}
            self._complete.append(Record(f"item {self._items}", values))
            self._values, self._chars = {}, 0
        self._depth = max(self._depth - 1, 0)

    def _add_text(self, text: str) -> None:
        if self._depth == 2:
            self._text.append(text)
            self._chars += len(text)
            if self._chars > _LONGEST_ITEM:
                raise ManifestInvalid(f"{self._source}: item {self._items + 1}: longer than 16 million characters")

    def _refuse_entity(self, *_declaration: object) -> None:
        raise ManifestInvalid(f"{self._source}: declares entities, which are not read; write their text in their place")


def _local(name: str) -> str:
    return name.rpartition(":")[2].lower()
