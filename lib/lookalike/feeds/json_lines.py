"""Exports with a JSON object a line."""

import json
from collections.abc import Iterator
from typing import Any

from lookalike.errors import ManifestInvalid
from lookalike.feeds.records import Export, Record, Value
from lookalike.feeds.text import Encoding, open_text


def read_json_lines(source: str, encoding: Encoding) -> Export:
    """The columns are the keys of all lines. Raises ManifestInvalid for a line that is no object of plain values."""

    def read() -> Iterator[Record]:
        with open_text(source, encoding) as text:
            for number, line in enumerate(text, 1):
                if line.strip():
                    place = f"{source}: line {number}"
                    values = {key: _to_value(value, key, place) for key, value in _parse(line, place).items()}
                    yield Record(f"line {number}", values)

    columns = {key: None for record in read() for key in record.values}
    return Export(source, tuple(columns), read)


def _parse(line: str, place: str) -> dict[str, Any]:
    try:
        # Numbers stay as they are written: 0012.50 of a price, 12345678901234567890 of an id.
        value = json.loads(line, parse_int=str, parse_float=str, parse_constant=str, strict=False)
    except (ValueError, RecursionError) as error:
        raise ManifestInvalid(
            f"{place}: not JSON ({error}); write one object a line, as `jq -c '.[]'` makes of an array"
        ) from error
    if not isinstance(value, dict):
        raise ManifestInvalid(f"{place}: not an object; write one object a line, as `jq -c '.[]'` makes of an array")
    return value


def _to_value(value: object, key: str, place: str) -> Value:
    if isinstance(value, list):
        return [_to_text(item, key, place) for item in value]
    if isinstance(value, dict):
        return {name: _to_text(item, f"{key}.{name}", place) for name, item in value.items()}
    return _to_text(value, key, place)


def _to_text(value: object, key: str, place: str) -> str:
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case str():
            return value.encode(errors="replace").decode()  # a half of a surrogate pair is no text
        case list() if all(isinstance(item, str) for item in value):
            return "|".join(value)
    raise ManifestInvalid(f"{place}: {key} holds objects; give it as text, or as a list of texts")
