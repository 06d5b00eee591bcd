"""What a layout of exports is, and what it makes of a record."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from lookalike.feeds.addresses import ImageFolder
from lookalike.feeds.records import Columns, Export, Record

FIELDS = (
    "image_id",
    "product_id",
    "category",
    "image",
    "uri",
    "title",
    "available",
    "deleted",
    "updated_at",
    "content_hash",
)
"""What the columns of an export may be."""

_EXAMPLES = 3


class Tally:
    """Counts what is to be told about rows, by cause, with the first examples."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = {}
        self._last: dict[str, str] = {}

    def add(self, cause: str, record: Record, key: str = "") -> None:
        """`cause` ends a sentence that begins with rows: `have no image`. `key` says which row is meant.

        A record counts once for a cause.
        """
        if self._last.get(cause) == record.place:
            return
        self._last[cause] = record.place
        self._counts[cause] += 1
        examples = self._examples.setdefault(cause, [])
        if len(examples) < _EXAMPLES:
            examples.append(f"{key} ({record.place})" if key else record.place)

    def lines(self) -> Iterator[str]:
        for cause, count in self._counts.items():
            yield f"{count:,} rows {cause}, such as {', '.join(self._examples[cause])}"


@dataclass(frozen=True)
class Reading:
    """An export while it is read in a layout."""

    export: Export
    columns: Columns
    images: ImageFolder
    tally: Tally

    def split_images(self, record: Record, *fields: str) -> list[str]:
        """The addresses in all cells of these fields, each once."""
        addresses: list[str] = []
        for name in fields:
            for cell in self.columns.texts(record, name):
                addresses += self.images.split_cell(cell)
        return list(dict.fromkeys(addresses)) if len(addresses) > 1 else addresses

    def take_attributes(self, record: Record, names: tuple[str, ...]) -> dict[str, str]:
        """The fields of these names that are not blank."""
        texts = ((name, self.columns.text(record, name)) for name in names)
        return {name: text for name, text in texts if text}


class Item(NamedTuple):
    """What a record says of pictures of one product. `images`: addresses and paths. `categories`: paths.

    `has_image_elsewhere`: whether other records have pictures of the product.
    """

    record: Record
    product_id: str
    images: list[str]
    categories: list[str]
    title: str = ""
    available: bool | None = None
    attributes: Mapping[str, str] = MappingProxyType({})
    has_image_elsewhere: bool = False


@dataclass(frozen=True)
class Layout:
    """An export of one system. `known_by`: sets of folded columns, each of which only this layout has.

    `columns`: for each field of the layout the columns that may hold it, the preferred one first.
    """

    name: str
    known_by: tuple[frozenset[str], ...]
    columns: Mapping[str, tuple[str, ...]]
    read_items: Callable[[Reading], Iterator[Item]]
    merges_images: bool = True  # whether rows of one product may show the same picture
