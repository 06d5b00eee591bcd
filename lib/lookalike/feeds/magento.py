"""Magento's product export (Adobe Commerce): paths below the media folder, and rows for further store views."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from lookalike.feeds.categories import SLASH, split_paths, to_path, unescape
from lookalike.feeds.layout import Item, Layout, Reading
from lookalike.feeds.records import Record
from lookalike.feeds.values import parse_boolean

_ROOT = "Default Category/"
_ALONE_INVISIBLE = "not visible individually"
_PAIR_END = re.compile(r"[,|](?=\"?\w+\"?=)")
_VARIANT = re.compile(r"(?:^|\|)\s*sku=([^,|]+)")


@dataclass(slots=True)
class _Links:
    """What records say of other records."""

    parents: dict[str, str] = field(default_factory=dict)  # of variants
    titles: dict[str, str] = field(default_factory=dict)  # of those parents
    categories: dict[str, list[str]] = field(default_factory=dict)  # of those parents
    products: set[str] = field(default_factory=set)  # with a record of their own, not only one of a store view
    with_image: set[str] = field(default_factory=set)  # products that have a picture in any record


def _read_items(reading: Reading) -> Iterator[Item]:
    links = _read_links(reading)
    columns = reading.columns
    for record in reading.export.read():
        sku = columns.text(record, "product_id")
        if columns.text(record, "store_view") and sku in links.products:
            reading.tally.add("are of another store view and were left out", record, sku)
        else:
            yield _read_item(reading, record, sku, links)


def _read_item(reading: Reading, record: Record, sku: str, links: _Links) -> Item:
    """A variant that has no page of its own shows its parent, if the file has that."""
    columns = reading.columns
    is_visible = _is_visible(reading, record)
    parent = None if is_visible else links.parents.get(sku)
    attributes = _read_attributes(columns.text(record, "attributes"))
    if parent:
        attributes["sku"] = sku
    elif not is_visible:
        reading.tally.add("are not visible individually and count as not available", record, sku)
    return Item(
        record,
        parent or sku,
        _read_images(reading, record),
        _read_categories(reading, record) or links.categories.get(parent or "", []),
        links.titles.get(parent or "") or unescape(columns.text(record, "title")),
        _is_in_stock(reading, record) and (is_visible or parent is not None),
        attributes,
        (parent or sku) in links.with_image,
    )


def _is_visible(reading: Reading, record: Record) -> bool:
    return reading.columns.text(record, "visibility").lower() != _ALONE_INVISIBLE


def _is_in_stock(reading: Reading, record: Record) -> bool:
    """`product_online` is 2 for a product that is disabled."""
    online = reading.columns.text(record, "online")
    in_stock = parse_boolean(reading.columns.text(record, "available"))
    return in_stock is not False and online not in ("0", "2")


def _read_links(reading: Reading) -> _Links:
    links = _Links()
    variants_with_image: set[str] = set()
    columns = reading.columns
    for record in reading.export.read():
        if columns.text(record, "store_view"):
            continue
        sku = columns.text(record, "product_id")
        links.products.add(sku)
        if _read_images(reading, record):
            (links.with_image if _is_visible(reading, record) else variants_with_image).add(sku)
        if variants := _VARIANT.findall(columns.text(record, "variants")):
            links.parents |= dict.fromkeys(variants, sku)
            links.titles[sku] = unescape(columns.text(record, "title"))
            links.categories[sku] = _read_categories(reading, record)
    links.with_image |= {links.parents.get(variant, variant) for variant in variants_with_image}
    return links


def _read_images(reading: Reading, record: Record) -> list[str]:
    hidden = set(reading.split_images(record, "hidden_images"))
    images = reading.split_images(record, "image", "more_images") or reading.split_images(record, "small_images")
    return [image for image in images if image not in hidden]


def _read_categories(reading: Reading, record: Record) -> list[str]:
    cells = reading.columns.texts(record, "category")
    return [to_path(part.removeprefix(_ROOT)) for cell in cells for part in split_paths(unescape(cell), SLASH)]


def _read_attributes(cell: str) -> dict[str, str]:
    """`color=Blue,material=Lycra|Polyester`: a separator that no name and `=` follow is part of a value."""
    pairs = (pair.partition("=") for pair in _PAIR_END.split(cell))
    return {name.strip(' "'): value.strip(' "') for name, _, value in pairs if name.strip(' "') and value.strip(' "')}


MAGENTO = Layout(
    name="magento",
    known_by=(
        frozenset({"sku", "base_image"}),
        frozenset({"sku", "additional_images"}),
        frozenset({"sku", "store_view_code"}),
    ),
    columns={
        "product_id": ("sku",),
        "store_view": ("store_view_code",),
        "category": ("categories",),
        "title": ("name",),
        "image": ("base_image",),
        "more_images": ("additional_images",),
        "small_images": ("small_image", "thumbnail_image", "thumbnail", "swatch_image"),
        "hidden_images": ("hide_from_product_page",),
        "available": ("is_in_stock",),
        "online": ("product_online",),
        "visibility": ("visibility",),
        "variants": ("configurable_variations",),
        "attributes": ("additional_attributes",),
    },
    read_items=_read_items,
)
