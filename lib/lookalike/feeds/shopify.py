"""Shopify's product export: rows of one handle belong together, and only the first says what the product is.

A row's `Image Src` is the next picture of the product, and has nothing to do with the variant in the same row.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from lookalike.feeds.categories import to_path, unescape
from lookalike.feeds.layout import Item, Layout, Reading
from lookalike.feeds.records import Record
from lookalike.feeds.values import parse_boolean

_OPTIONS = ("1", "2", "3")
_NO_OPTION = "Default Title"
_NO_CATEGORY = "Uncategorized"


@dataclass(slots=True)
class _Product:
    """What the rows of a handle say together."""

    title: str = ""
    category: str = ""
    vendor: str = ""
    option_names: dict[str, str] = field(default_factory=dict)
    is_live: bool = True
    has_image: bool = False
    has_variants: bool = False
    can_be_bought: bool = False


def _read_items(reading: Reading) -> Iterator[Item]:
    products = _read_products(reading)
    for record, handle in _read_handles(reading):
        product = products.get(handle, _Product())
        common = {"vendor": product.vendor} if product.vendor else {}
        next_images = reading.split_images(record, "image")
        variant_images = reading.split_images(record, "variant_image")
        if next_images or not variant_images:
            yield _to_item(record, handle, product, next_images, common)
        if variant_images:
            variant = common | _read_variant(reading, record, product)
            yield _to_item(record, handle, product, variant_images, variant)


def _to_item(record: Record, handle: str, product: _Product, images: list[str], attributes: dict[str, str]) -> Item:
    available = product.is_live and (product.can_be_bought or not product.has_variants)
    categories = [product.category] if product.category else []
    return Item(record, handle, images, categories, product.title, available, attributes, product.has_image)


def _read_handles(reading: Reading) -> Iterator[tuple[Record, str]]:
    """Each record with its handle: that of the record above if it has neither handle nor title."""
    handle = ""
    for record in reading.export.read():
        own = reading.columns.text(record, "product_id")
        if own or reading.columns.text(record, "title"):
            handle = own
        yield record, handle


def _read_products(reading: Reading) -> dict[str, _Product]:
    products: dict[str, _Product] = {}
    columns = reading.columns
    for record, handle in _read_handles(reading):
        if not handle:
            continue
        product = products.setdefault(handle, _Product())
        product.title = product.title or unescape(columns.text(record, "title"))
        product.category = product.category or _read_category(reading, record)
        product.vendor = product.vendor or columns.text(record, "vendor")
        for number in _OPTIONS:
            if name := columns.text(record, f"option{number}_name"):
                product.option_names.setdefault(number, name)
        product.is_live = product.is_live and _is_live(reading, record)
        product.has_image = product.has_image or bool(reading.split_images(record, "image", "variant_image"))
        if columns.text(record, "option1_value") or columns.text(record, "sku") or columns.text(record, "price"):
            product.has_variants = True
            product.can_be_bought = product.can_be_bought or not _is_sold_out(reading, record)
    return products


def _read_category(reading: Reading, record: Record) -> str:
    """Shopify's category of the product, else the shop's own type."""
    cells = reading.columns.texts(record, "category")
    return next((to_path(unescape(cell)) for cell in cells if cell != _NO_CATEGORY), "")


def _is_live(reading: Reading, record: Record) -> bool:
    status = reading.columns.text(record, "status").lower()
    return status in ("", "active") and parse_boolean(reading.columns.text(record, "available")) is not False


def _is_sold_out(reading: Reading, record: Record) -> bool:
    """Whether stock of the variant is counted, none is left, and it is not sold without."""
    text = reading.columns.text
    policy = text(record, "inventory_policy").lower()
    if not text(record, "inventory_tracker") or policy == "continue" or parse_boolean(policy):
        return False
    try:
        return int(text(record, "inventory_quantity")) <= 0
    except ValueError:
        return False


def _read_variant(reading: Reading, record: Record, product: _Product) -> dict[str, str]:
    attributes = {}
    for number, name in product.option_names.items():
        value = reading.columns.text(record, f"option{number}_value")
        if value and value != _NO_OPTION:
            attributes[name] = value
    if sku := reading.columns.text(record, "sku"):
        attributes["sku"] = sku
    return attributes


SHOPIFY = Layout(
    name="shopify",
    known_by=(
        frozenset({"handle", "image_src"}),
        frozenset({"handle", "variant_image"}),
        frozenset({"url_handle", "product_image_url"}),
        frozenset({"url_handle", "variant_image_url"}),
    ),
    columns={
        "product_id": ("Handle", "URL handle"),
        "title": ("Title",),
        "category": ("Product Category", "Standardized Product Type", "Type", "Custom Product Type"),
        "vendor": ("Vendor",),
        "image": ("Image Src", "Product image URL"),
        "variant_image": ("Variant Image", "Variant image URL"),
        "status": ("Status",),
        "available": ("Published", "Published on online store"),
        "sku": ("Variant SKU", "SKU"),
        "price": ("Variant Price", "Price"),
        "inventory_tracker": ("Variant Inventory Tracker", "Inventory tracker"),
        "inventory_quantity": ("Variant Inventory Qty", "Inventory quantity"),
        "inventory_policy": ("Variant Inventory Policy", "Continue selling when out of stock"),
        **{f"option{n}_{part}": (f"Option{n} {part}",) for n in _OPTIONS for part in ("name", "value")},
    },
    read_items=_read_items,
)
