"""From what a layout reads to rows of the manifest."""

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from lookalike.errors import ManifestInvalid
from lookalike.feeds.addresses import is_no_address, take_file_name, to_image_id
from lookalike.feeds.categories import choose, has_list
from lookalike.feeds.layout import Item, Layout, Reading
from lookalike.feeds.records import Record
from lookalike.feeds.values import is_no_date, parse_boolean, parse_time

_NO_IMAGE = "have no image and were left out"
_NO_IMAGE_OF_ITS_OWN = "have no image of their own, as other rows of their product do"
_NO_ADDRESS = "have HTML or data: in place of an image's address, which was left out; give addresses or paths"
_NO_PRODUCT = "have no product_id and will be rejected"
_SHORTENED = (
    "have an id that a spreadsheet made of a longer number; give the column the format Text, and export it again"
)
_SHORTENED_ID = re.compile(r"\d(?:[.,]\d+)?E\+\d+")
_NO_CATEGORY = "have no category and will be rejected"
_SEVERAL = "are in several categories, of which the deepest of the first was taken; --all-categories takes all"
_LIST = "have a comma in a category, which was taken as a part of its name; write | if it parts two"
_NO_DATE = "have a date before 1970 or after 2200, which counts as unknown"


class Row(NamedTuple):
    """A row of the manifest."""

    image_id: str | None
    product_id: str | None
    category: str | None
    uri: str | None
    title: str | None = None
    attributes: Mapping[str, str] | None = None
    available: bool | None = None
    deleted: bool | None = None
    updated_at: datetime | None = None
    content_hash: str | None = None


def read_rows(reading: Reading, layout: Layout, every_category: bool) -> Iterator[Row]:
    """The manifest's rows. What is left out, or will be rejected, is told to `reading.tally`.

    Raises ManifestInvalid for a record that cannot be understood.
    """
    for item in layout.read_items(reading):
        yield from _to_rows(reading, layout, item, every_category)


def merge_images(rows: Iterable[Row]) -> Iterator[Row]:
    """One row of each picture that successive rows of a product share, as variants do.

    It is available if any of them is, and has the attributes of all: values that differ are joined by `|`.
    """
    for _, group in itertools.groupby(rows, key=lambda row: row.product_id or object()):
        merged: dict[tuple[str | None, str | None], Row] = {}
        for row in group:
            key = (row.image_id, row.uri)
            merged[key] = _merge(merged[key], row) if key in merged else row
        yield from merged.values()


def _merge(first: Row, second: Row) -> Row:
    attributes = dict(first.attributes or {})
    for name, value in (second.attributes or {}).items():
        known = attributes.get(name, "").split("|") if name in attributes else []
        attributes[name] = "|".join(dict.fromkeys([*known, *value.split("|")]))
    is_unavailable = first.available is False and second.available is False
    return first._replace(
        attributes=attributes, available=False if is_unavailable else first.available or second.available
    )


def _to_rows(reading: Reading, layout: Layout, item: Item, every_category: bool) -> Iterator[Row]:
    stated = _read_stated(reading, item)
    images = [image for image in item.images if not is_no_address(image)]
    if len(images) < len(item.images):
        reading.tally.add(_NO_ADDRESS, item.record, item.product_id)
    if not images and not (stated.deleted and stated.image_id):
        reading.tally.add(_NO_IMAGE_OF_ITS_OWN if item.has_image_elsewhere else _NO_IMAGE, item.record, item.product_id)
        return
    if not item.product_id:
        reading.tally.add(_NO_PRODUCT, item.record, item.title)
    for key in filter(_SHORTENED_ID.fullmatch, (item.product_id, stated.image_id or "")):
        reading.tally.add(_SHORTENED, item.record, key)
    categories = _choose_categories(reading, item, every_category)
    is_dated = reading.columns.has("updated_at")
    for number, address in enumerate(images or [None]):
        uri = reading.images.to_uri(address) if address else None
        image_id = _name_image(layout, stated.image_id, item.product_id, address, uri, number)
        updated_at = stated.updated_at if is_dated or not uri else read_modification_time(uri)
        for category in categories:
            row_id = image_id if category == categories[0] else f"{image_id}@{category}"
            yield stated._replace(image_id=row_id, category=category, uri=uri, updated_at=updated_at)


def _name_image(
    layout: Layout, stated: str | None, product_id: str, address: str | None, uri: str | None, number: int
) -> str | None:
    """The key of an item's picture, counted from 0: what its record states, or what its address tells."""
    if stated or not address or not uri:
        return f"{stated}/{number + 1}" if number else stated
    return to_image_id(product_id, address) if layout.merges_images else take_file_name(uri)


def _choose_categories(reading: Reading, item: Item, every: bool) -> list[str] | list[None]:
    categories = choose(item.categories, every)
    if not categories:
        reading.tally.add(_NO_CATEGORY, item.record, item.product_id)
        return [None]
    if not every and len(item.categories) > 1 and len(choose(item.categories, every=True)) > 1:
        reading.tally.add(_SEVERAL, item.record, item.product_id)
    if doubtful := next(filter(has_list, categories), None):
        reading.tally.add(_LIST, item.record, doubtful)
    return categories


def _read_stated(reading: Reading, item: Item) -> Row:
    """What is the same for all pictures of an item."""
    text, record = reading.columns.text, item.record
    deleted, time = text(record, "deleted"), text(record, "updated_at")
    return Row(
        image_id=text(record, "image_id") or None,
        product_id=item.product_id or None,
        category=None,
        uri=None,
        title=item.title or None,
        attributes=item.attributes,
        available=item.available,
        deleted=_read_deleted(deleted, reading, record) if deleted else None,
        updated_at=_read_time(time, reading, record) if time else None,
        content_hash=text(record, "content_hash") or None,
    )


def read_modification_time(uri: str) -> datetime | None:
    """When a local file was last modified; None where there is none, and for what is not local."""
    if not uri.startswith("file:"):
        return None
    try:
        time_ns = Path(uri.removeprefix("file://").removeprefix("file:")).stat().st_mtime_ns
    except (OSError, ValueError):
        return None
    return datetime.fromtimestamp(time_ns // 10**9, UTC).replace(microsecond=time_ns % 10**9 // 1000)


def _read_deleted(text: str, reading: Reading, record: Record) -> bool:
    deleted = parse_boolean(text)
    if deleted is None:
        raise ManifestInvalid(
            f"{reading.export.source}: {record.place}: deleted is {text!r}; write true, 1, yes, false, 0, no, or leave "
            "it empty"
        )
    return deleted


def _read_time(text: str, reading: Reading, record: Record) -> datetime | None:
    if is_no_date(text):
        reading.tally.add(_NO_DATE, record, text)
        return None
    try:
        return parse_time(text)
    except (ValueError, OverflowError) as error:
        raise ManifestInvalid(
            f"{reading.export.source}: {record.place}: {reading.columns.of('updated_at')[0]} is {text!r}; write it as "
            "ISO 8601, such as 2024-05-31T12:00:00Z (without a zone: UTC), or leave it empty"
        ) from error
