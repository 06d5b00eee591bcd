"""WooCommerce's product export: a variation belongs to the product that its `Parent` names, by SKU or as `id:44`."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from lookalike.feeds.categories import split_escaped, to_path, unescape
from lookalike.feeds.layout import Item, Layout, Reading
from lookalike.feeds.records import Columns, Record, fold
from lookalike.feeds.values import parse_availability

_ID = "id:"
_PUBLISHED = "1"
_HIDDEN = "hidden"


@dataclass(frozen=True, slots=True)
class _Product:
    """What a record says of a product, and hands on to its variations."""

    product_id: str
    categories: list[str]
    title: str
    is_live: bool
    has_image: bool
    attributes: dict[str, str]


def _read_items(reading: Reading) -> Iterator[Item]:
    names = _find_attributes(reading)
    parents = _read_parents(reading, names)
    for record in reading.export.read():
        reference = reading.columns.text(record, "parent")
        if reference and _is_variation(reading.columns, record):
            yield _read_variation(reading, record, reference, parents.get(reference), names)
        else:
            yield _to_item(reading, record, _read_product(reading, record, names))


def _read_variation(
    reading: Reading, record: Record, reference: str, parent: _Product | None, names: dict[str, str]
) -> Item:
    own = _read_product(reading, record, names)
    if parent is None:
        reading.tally.add("are variations of a product that is not in the file", record, reference)
        parent = _Product(reference, [], own.title, True, False, {})
    sku = reading.columns.text(record, "sku")
    product = _Product(
        parent.product_id,
        own.categories or parent.categories,
        parent.title or own.title,
        own.is_live and parent.is_live,
        parent.has_image,
        parent.attributes | own.attributes | ({"sku": sku} if sku else {}),
    )
    return _to_item(reading, record, product)


def _to_item(reading: Reading, record: Record, product: _Product) -> Item:
    return Item(
        record,
        product.product_id,
        reading.split_images(record, "image"),
        product.categories,
        product.title,
        product.is_live and parse_availability(reading.columns.text(record, "available")) is not False,
        product.attributes,
        product.has_image,
    )


def _read_parents(reading: Reading, names: dict[str, str]) -> dict[str, _Product]:
    """Products that may have variations, by SKU and by id."""
    parents: dict[str, _Product] = {}
    columns = reading.columns
    for record in reading.export.read():
        if _is_variation(columns, record) or columns.text(record, "type").lower() not in ("", "variable"):
            continue
        product = _read_product(reading, record, names)
        keys = (columns.text(record, "sku"), f"{_ID}{columns.text(record, 'id')}")
        parents |= {key: product for key in keys if key not in ("", _ID)}
    return parents


def _read_product(reading: Reading, record: Record, names: dict[str, str]) -> _Product:
    columns = reading.columns
    own_id = columns.text(record, "id")
    return _Product(
        columns.text(record, "product_id") or (f"{_ID}{own_id}" if own_id else ""),
        [to_path(unescape(part)) for cell in columns.texts(record, "category") for part in split_escaped(cell)],
        unescape(columns.text(record, "title")),
        columns.text(record, "published") in ("", _PUBLISHED) and columns.text(record, "visibility") != _HIDDEN,
        bool(reading.split_images(record, "image")),
        _read_attributes(record, names),
    )


def _is_variation(columns: Columns, record: Record) -> bool:
    return "variation" in columns.text(record, "type").lower()


def _find_attributes(reading: Reading) -> dict[str, str]:
    """The columns of attributes' names, each with the column of its values."""
    folded = {fold(name): name for name in reading.export.columns}
    numbers = [match[1] for name in folded if (match := re.fullmatch(r"attribute_(\d+)_name", name))]
    return {
        folded[f"attribute_{number}_name"]: folded[f"attribute_{number}_value(s)"]
        for number in numbers
        if f"attribute_{number}_value(s)" in folded
    }


def _read_attributes(record: Record, names: dict[str, str]) -> dict[str, str]:
    attributes = {}
    for name_column, value_column in names.items():
        name, values = record.values.get(name_column), record.values.get(value_column)
        if isinstance(name, str) and isinstance(values, str) and name.strip() and values.strip():
            attributes[name.strip()] = "|".join(split_escaped(unescape(values)))
    return attributes


WOOCOMMERCE = Layout(
    name="woocommerce",
    known_by=(
        frozenset({"images", "categories", "type"}),
        frozenset({"images", "categories", "parent"}),
        frozenset({"images", "categories", "sku", "name"}),
    ),
    columns={
        "id": ("ID",),
        "type": ("Type",),
        "sku": ("SKU",),
        "product_id": ("SKU",),
        "parent": ("Parent",),
        "title": ("Name",),
        "category": ("Categories",),
        "image": ("Images",),
        "published": ("Published",),
        "visibility": ("Visibility in catalog",),
        "available": ("In stock?",),
    },
    read_items=_read_items,
)
