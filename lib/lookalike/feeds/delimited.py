"""Exports with a record a row and a separator between the cells: CSV, TSV."""

import csv
import io
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TextIO

from lookalike.errors import ManifestInvalid
from lookalike.feeds.records import Export, Record, Value
from lookalike.feeds.tab_separated import TabSeparated
from lookalike.feeds.text import Encoding, is_escaped, open_text

_SEPARATORS = (",", ";", "\t", "|")
_HEAD_CHARS = 2**22  # enough for a header of a hundred thousand columns
_COMMENT = "# "  # begins lines of explanation above the header, as in Meta's template
_LONGEST_CELL = 2**24
_TEXT_OF_EXCEL = re.compile(r'="(.*)"', re.DOTALL)  # keeps the zeros of ="00123"
_SEPARATOR_LINE = re.compile(r'"?sep=(.)\1*"?\s*', re.IGNORECASE)


def read_delimited(source: str, encoding: Encoding) -> Export:
    """The separator is what a line `sep=;` says, or what parts the header into the most columns.

    Raises ManifestInvalid, later its records do too: for a row of another width than the header, for a quote that is
    never closed, and for bytes that are not of `encoding`.
    """
    csv.field_size_limit(_LONGEST_CELL)
    separator, has_line = _detect_separator(source, encoding)
    with open_text(source, encoding) as text:
        header = next((row for _, row in _read_rows(text, separator, has_line, source)), [])
    names = [name.strip("\ufeff").strip() for name in header]
    if not any(names):
        raise ManifestInvalid(f"{source}: the file is empty; its first row must name the columns")
    if not all(name.isprintable() for name in _without_line_ends(names)):
        raise ManifestInvalid(f"{source}: row 1: not UTF-8, or not text; save the file as CSV in UTF-8")
    repeated = tuple(sorted({name for name in names if name and names.count(name) > 1}))
    gather: Callable[[Sequence[str], Sequence[str]], Mapping[str, Value]] = _gather if repeated else _pair

    def read() -> Iterator[Record]:
        with open_text(source, encoding) as text:
            rows = itertools.islice(_read_rows(text, separator, has_line, source, len(names)), 1, None)
            for number, cells in rows:
                place = f"{source}: row {number}"
                if len(cells) != len(names):
                    cells = _fit(cells, len(names), place)
                if encoding.has_errors:
                    _check_encoding(cells, names, place)
                yield Record(f"row {number}", gather(names, cells))

    return Export(source, tuple(dict.fromkeys(filter(None, names))), read, repeated)


def _without_line_ends(names: Sequence[str]) -> Iterator[str]:
    return (re.sub(r"[\r\n\t]", "", name) for name in names)


def _detect_separator(source: str, encoding: Encoding) -> tuple[str, bool]:
    """The separator, and whether the first line is there only to name it."""
    with open_text(source, encoding) as text:
        head = text.read(_HEAD_CHARS)
    line = _SEPARATOR_LINE.fullmatch(head[:20].partition("\n")[0].partition("\r")[0] + "\n")
    if line:
        return line[1], True
    widths = {separator: _count_columns(head, separator) for separator in _SEPARATORS}
    return max(_SEPARATORS, key=lambda separator: widths[separator]), False


def _count_columns(head: str, separator: str) -> int:
    try:
        rows = _split(io.StringIO(head, newline=""), separator)
        return len(next((row for row in rows if any(row)), []))
    except csv.Error:
        return 0


def _split(lines: Iterator[str], separator: str, width: int | None = None) -> Iterable[list[str]]:
    """`width`: how many columns the header has, where that is known."""
    return TabSeparated(lines, width) if separator == "\t" else csv.reader(lines, delimiter=separator)


def _read_rows(
    text: TextIO, separator: str, has_line: bool, source: str, width: int | None = None
) -> Iterator[tuple[int, list[str]]]:
    """Rows that are not blank, each with its number as a spreadsheet shows it: the header's is 1."""
    if has_line:
        text.readline()
    is_at_end = False

    def read_lines() -> Iterator[str]:
        nonlocal is_at_end
        yield from text
        is_at_end = True

    number, is_head = 0, True
    try:
        for number, row in enumerate(_split(read_lines(), separator, width), 1):
            if is_at_end and separator != "\t":  # csv asks for a line after the last one only within quotes
                raise ManifestInvalid(f"{source}: row {number}: a quote is never closed; close it, or double it")
            is_head = is_head and (not any(row) or row[0].startswith(_COMMENT))
            if any(row) and not is_head:
                yield number, [_unwrap(cell) if cell.startswith('="') else cell for cell in row]
    except csv.Error as error:
        raise ManifestInvalid(f"{source}: row {number + 1}: {error}; see whether a quote is not closed") from error


def _unwrap(cell: str) -> str:
    text = _TEXT_OF_EXCEL.fullmatch(cell)
    return text[1].replace('""', '"') if text else cell


def _fit(row: list[str], width: int, place: str) -> list[str]:
    if len(row) > width and not any(row[width:]):
        return row[:width]
    raise ManifestInvalid(
        f"{place}: {len(row)} values, but the header has {width}; quote values that hold separators or line ends"
    )


def _check_encoding(cells: Sequence[str], names: Sequence[str], place: str) -> None:
    bad = next((name for name, cell in zip(names, cells, strict=True) if is_escaped(cell)), None)
    if bad is not None:
        raise ManifestInvalid(
            f"{place}: {bad} is not UTF-8, though other rows are; mend the row, or name the encoding that all rows "
            "have, such as --encoding cp1252"
        )


def _pair(names: Sequence[str], cells: Sequence[str]) -> dict[str, str]:
    return dict(zip(names, cells, strict=True))


def _gather(names: Sequence[str], cells: Sequence[str]) -> dict[str, Value]:
    """The cells by column; all that are not blank of a column that stands there more than once."""
    values: dict[str, Value] = {}
    for name, cell in zip(names, cells, strict=True):
        known = values.get(name)
        values[name] = cell if known is None else [*(known if isinstance(known, list) else [str(known)]), cell]
    return values
