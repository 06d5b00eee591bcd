"""Google Merchant feeds, and those of others who take the same columns (Meta, Bing, Pinterest)."""

from collections.abc import Iterator

from lookalike.feeds.categories import split_paths, to_path, unescape
from lookalike.feeds.layout import Item, Layout, Reading
from lookalike.feeds.records import Record
from lookalike.feeds.values import parse_availability

_ATTRIBUTES = (
    *("brand", "color", "size", "gender", "age_group", "material", "pattern"),
    *("condition", "gtin", "mpn"),
)


def _read_items(reading: Reading) -> Iterator[Item]:
    columns, tally = reading.columns, reading.tally
    for record in reading.export.read():
        variant_id = columns.text(record, "id")
        product_id = columns.text(record, "product_id")
        said = columns.text(record, "available")
        available = parse_availability(said)
        if said and available is None:
            tally.add(f"say {said!r} of their availability, which is not known, and count as available", record)
        attributes = reading.take_attributes(record, _ATTRIBUTES)
        if variant_id != product_id:
            attributes["id"] = variant_id
        yield Item(
            record,
            product_id,
            reading.split_images(record, "image", "more_images"),
            _read_categories(reading, record),
            unescape(columns.text(record, "title")),
            available,
            attributes,
        )


def _read_categories(reading: Reading, record: Record) -> list[str]:
    """The shop's own categories, else Google's, unless that is only a number."""
    own = reading.columns.texts(record, "category")
    if own:
        return [to_path(part) for cell in own for part in split_paths(unescape(cell))]
    taxonomy = reading.columns.text(record, "taxonomy")
    return [] if taxonomy.isdecimal() else [to_path(unescape(taxonomy))]


GOOGLE = Layout(
    name="google",
    known_by=(
        frozenset({"id", "image_link"}),
        frozenset({"item_group_id", "image_link"}),
        frozenset({"id", "image[0].url"}),
    ),
    columns={
        "id": ("id",),
        "product_id": ("item_group_id", "id"),
        "image": ("image_link", "image[].url"),
        "more_images": ("additional_image_link", "additional_image_links", "additional_image_link[]"),
        "category": ("product_type",),
        "taxonomy": ("google_product_category",),
        "title": ("title",),
        "available": ("availability",),
        **{name: (name,) for name in _ATTRIBUTES},
    },
    read_items=_read_items,
)
