"""A plain list: columns named as the manifest's, and any other column an attribute."""

import re
from collections.abc import Iterator, Mapping

from lookalike.errors import ManifestInvalid
from lookalike.feeds.categories import split_paths, to_path
from lookalike.feeds.layout import FIELDS, Item, Layout, Reading
from lookalike.feeds.records import Record, Value
from lookalike.feeds.values import parse_availability

_ATTRIBUTES = "attributes"  # a column of this name is spread: key=value;key=value
# A semicolon that no `key=` follows is part of the value, as in `fabric=Cool&trade;|Wool;new=No`.
_PAIR = re.compile(r";[;\s]*(?=[^;=]*=)")


def _read_items(reading: Reading) -> Iterator[Item]:
    columns = reading.columns
    used = {*FIELDS, _ATTRIBUTES, *(name for field in FIELDS for name in columns.of(field))}
    extra = [name for name in reading.export.columns if name not in used]
    for record in reading.export.read():
        place = f"{reading.export.source}: {record.place}"
        yield Item(
            record,
            columns.text(record, "product_id"),
            reading.split_images(record, "uri") or reading.split_images(record, "image"),
            [path for cell in columns.texts(record, "category") for path in _read_paths(cell)],
            columns.text(record, "title"),
            _read_availability(columns.text(record, "available"), place),
            _read_attributes(record, extra, place),
        )


def _read_paths(cell: str) -> list[str]:
    """A category without arrows is taken as it stands."""
    return [to_path(part) for part in split_paths(cell)] if " > " in cell else [cell]


def _read_availability(text: str, place: str) -> bool | None:
    available = parse_availability(text)
    if text and available is None:
        raise ManifestInvalid(
            f"{place}: available is {text!r}; "
            "write in_stock, true, 1, yes, out_of_stock, false, 0, no, or leave it empty"
        )
    return available


def _read_attributes(record: Record, extra: list[str], place: str) -> dict[str, str]:
    """Of a name that a column has and `attributes` says too, the column's value."""
    texts = ((name, _to_text(record.values.get(name, ""))) for name in extra)
    own = {name: text for name, text in texts if text}
    spread = record.values.get(_ATTRIBUTES, "")
    return {**_spread(spread, place), **own} if spread else own


def _to_text(value: Value) -> str:
    if isinstance(value, dict):
        return ";".join(f"{key}={text}" for key, text in value.items())
    return "|".join(text.strip() for text in value) if isinstance(value, list) else value.strip()


def _spread(value: Value, place: str) -> Mapping[str, str]:
    if isinstance(value, dict):
        return {key: text.strip() for key, text in value.items() if text.strip()}
    pairs = [pair for pair in _PAIR.split(_to_text(value).rstrip("; \t\r\n").lstrip("; ")) if pair.strip()]
    attributes: dict[str, str] = {}
    for pair in pairs:
        key, sign, text = (part.strip() for part in pair.partition("="))
        if not key or not sign:
            raise ManifestInvalid(f"{place}: {_ATTRIBUTES} is {value!r}; write it as key=value;key=value")
        if text:
            attributes.setdefault(key, text)
    return attributes


PLAIN = Layout(
    name="plain",
    known_by=(),
    columns={field: (field,) for field in FIELDS},
    read_items=_read_items,
    merges_images=False,
)
