"""Make a manifest of what people have: a CSV with paths or URLs, or a folder of images with one folder a category.

Both stream: a manifest of millions of rows is made in blocks, with Arrow's and numpy's vectorised operations. Where the
CSV has no `updated_at`, a local file's modification time is it, so that later runs read only the files that changed.
"""

import csv
import difflib
import io
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lookalike import files, schemas
from lookalike.errors import ManifestInvalid

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
"""What a CSV's columns may be; every other column becomes an attribute."""

# pyarrow's stubs know the type of a column only where it is made.
Column: TypeAlias = Any  # pa.Array

ATTRIBUTES = "attributes"  # a column of this name is spread: key=value;key=value

SCHEMA = pa.schema(
    [
        *schemas.MANIFEST_REQUIRED,
        *(
            schemas.MANIFEST_OPTIONAL.field(n)
            for n in ("uri", "title", ATTRIBUTES, "available", "deleted", "updated_at", "content_hash")
        ),
    ]
)

TRUE, FALSE = ("true", "1", "yes"), ("false", "0", "no")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
BLOCK_BYTES = 16 * 2**20
FOLDER_BLOCK_ROWS = 100_000


@dataclass(frozen=True)
class Counts:
    """What a manifest holds."""

    rows: int
    images: int  # distinct image_ids; fewer than rows where ids repeat
    products: int
    categories: int
    repeated: str | None = None  # an image_id that stands in several rows
    missing: int = 0  # rows whose local file is not there, where the manifest was to say when it was modified
    missing_uri: str | None = None  # one of them

    def problems(self) -> Iterator[str]:
        """Why rows will be rejected."""
        if repeated := self.rows - self.images:
            yield (
                f"{repeated:,} rows repeat an image_id, such as {self.repeated}, and will be rejected; "
                "--column image_id=image takes the paths"
            )
        if self.missing:
            yield f"{self.missing:,} rows will be rejected, as their file is not there, such as {self.missing_uri}"


def make_from_csv(source: str, out: str, images: str | None = None, columns: Mapping[str, str] | None = None) -> Counts:
    """Write the manifest of the CSV at `source` to `out`, both paths or URIs, as Parquet.

    `images` is the folder that relative paths in `image` and `uri` are below: by default `images` beside the CSV, or
    the CSV's own folder where there is none. `columns` says which of its columns is a field's: {"product_id": "sku"}.
    Raises ManifestInvalid naming all missing columns, or the first bad row; the header is row 1.
    """
    columns = columns or {}
    header = _read_header(source)
    column_of = _map_columns(source, header, columns)
    base = _find_image_folder(source, images)
    tables = (_to_rows(block, column_of, base, first, source) for first, block in _read_blocks(source, header))
    return _write(out, tables, source, dated="updated_at" in column_of)


def make_from_folder(folder: str, out: str) -> Counts:
    """Write the manifest of the images below `folder` to `out`: the folders above a file are its category's path.

    The product_id is the file's name without suffix; the image_id is its path below `folder`.
    """
    fs, root = files.filesystem(files.absolute(folder))
    if not fs.isdir(root):
        raise ManifestInvalid(f"{folder}: no such folder; give one that has a folder of images for each category")
    below = sorted(posixpath.relpath(path, root) for path in fs.find(root))
    paths = [
        path
        for path in below
        if path.lower().endswith(IMAGE_SUFFIXES) and not path.startswith(".") and "/." not in path
    ]
    blocks = (paths[start : start + FOLDER_BLOCK_ROWS] for start in range(0, len(paths), FOLDER_BLOCK_ROWS))
    tables = (_to_rows_of_paths(pa.array(block, pa.string()), files.absolute(folder)) for block in blocks)
    return _write(out, tables, folder, dated=False)


def _write(out: str, tables: Iterator[pa.Table], source: str, dated: bool) -> Counts:
    with files.write_atomically(files.absolute(out)) as path:
        with pq.ParquetWriter(path, SCHEMA) as writer:
            for table in tables:
                writer.write_table(table)
        counts = _count(path, dated)
        if not counts.rows:
            raise ManifestInvalid(
                f"{source}: no images found; give a CSV with a row per image, or a folder with images"
            )
    return counts


def _count(path: Path, dated: bool) -> Counts:
    """What is in the manifest at `path`; `dated`: its source said when the images were modified."""
    keys = ("image_id", "product_id", "category")
    distinct = [pc.count_distinct(pq.read_table(path, columns=[key])[key]).as_py() for key in keys]
    rows = pq.read_metadata(path).num_rows
    counts = Counts(rows, *distinct)
    if counts.images < rows:
        times = pc.value_counts(pq.read_table(path, columns=["image_id"])["image_id"].combine_chunks())
        most: Any = times[pc.index(times.field("counts"), pc.max(times.field("counts"))).as_py()]
        counts = replace(counts, repeated=most["values"].as_py())
    if not dated:
        here = pc.starts_with(pc.field("uri"), "file:")
        missing = pq.read_table(path, columns=["uri"], filters=here & pc.field("updated_at").is_null())["uri"]
        counts = replace(counts, missing=len(missing), missing_uri=missing[0].as_py() if len(missing) else None)
    return counts


def _to_rows_of_paths(paths: Column, base: str) -> pa.Table:
    columns = {
        "image_id": paths,
        "product_id": pc.replace_substring_regex(paths, r"^(.*/)?([^/]+)\.[^./]*$", r"\2"),
        "category": pc.replace_substring_regex(paths, r"/?[^/]*$", ""),
        "uri": _to_uris(paths, base),
    }
    columns["updated_at"] = _read_modification_times(columns["uri"])
    return pa.table({f.name: columns.get(f.name, pa.nulls(len(paths), f.type)) for f in SCHEMA}, SCHEMA)


def _read_header(source: str) -> list[str]:
    fs, path = files.filesystem(files.absolute(source))
    if not fs.isfile(path):
        raise ManifestInvalid(f"{source}: no such file; give the CSV that lists your images")
    with fs.open(path, "rb") as raw:
        # Only the header is judged here; later rows are judged, with their numbers, as they are read.
        header = next(csv.reader(io.TextIOWrapper(raw, "utf-8-sig", "surrogateescape", newline="")), [])
    for separator, name in ((";", "semicolons"), ("\t", "tabs")):
        if len(header) == 1 and separator in header[0]:
            raise ManifestInvalid(f"{source}: row 1: {name} part the columns; save the file with commas")
    if not all(name.isprintable() for name in header):  # an escaped byte isn't
        raise ManifestInvalid(f"{source}: row 1: not UTF-8, or not text; save the file as CSV in UTF-8")
    if not header:
        raise ManifestInvalid(f"{source}: the file is empty; its first row must name the columns")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise ManifestInvalid(
            f"{source}: row 1: columns that stand there twice: {', '.join(twice)}; rename one of each"
        )
    return header


def _map_columns(source: str, header: Sequence[str], columns: Mapping[str, str]) -> dict[str, str]:
    """Map each field to the CSV's column. Raises ManifestInvalid with everything that is missing or misspelt."""
    problems = [
        f"{key}={name}: no field {key}{_suggest(key, FIELDS)}" for key, name in columns.items() if key not in FIELDS
    ]
    problems += [
        f"{key}={name}: no column {name}{_suggest(name, header)}" for key, name in columns.items() if name not in header
    ]
    column_of = {field: columns.get(field, field) for field in FIELDS if columns.get(field, field) in header}
    problems += [
        f"{field}: missing{_suggest(field, header)}"
        for field in ("product_id", "category")
        if field not in column_of and field not in columns
    ]
    if not {"image", "uri"} & (set(column_of) | set(columns)):
        hint = _suggest("image", header) or _suggest("uri", header)
        problems.append(f"image, uri: both missing; one says where the image is{hint}")
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise ManifestInvalid(
            f"{source}: the columns are not as they must be:\n{lines}\n"
            f"  the file has: {', '.join(header)}; say which stands for what, such as --column product_id=NAME"
        )
    return column_of


def _suggest(name: str, present: Sequence[str]) -> str:
    folded = {column.lower().replace(" ", "_"): column for column in present}
    close = difflib.get_close_matches(name.lower(), list(folded), n=1)
    return f"; did you mean {folded[close[0]]}?" if close else ""


def _find_image_folder(source: str, images: str | None) -> str:
    beside = posixpath.dirname(files.absolute(source))
    if images is None:
        fs, path = files.filesystem(files.join(beside, "images"))
        return files.join(beside, "images") if fs.isdir(path) else beside
    fs, path = files.filesystem(files.absolute(images))
    if not fs.isdir(path):
        raise ManifestInvalid(f"{images}: no such folder; give the one that holds the images with --images")
    return files.absolute(images)


def _read_blocks(source: str, header: Sequence[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Blocks of the CSV as text, each with the number of its first row."""
    fs, path = files.filesystem(files.absolute(source))
    number = 2
    with fs.open(path, "rb") as raw:
        try:
            reader = pyarrow.csv.open_csv(
                raw,
                pyarrow.csv.ReadOptions(block_size=BLOCK_BYTES),
                pyarrow.csv.ParseOptions(newlines_in_values=True),
                # Read as bytes, so that a row that isn't UTF-8 can be named.
                pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(header, pa.binary()), strings_can_be_null=False),
            )
            for block in reader:
                yield number, _decode(block, number, source)
                number += block.num_rows
        except pa.ArrowInvalid as error:
            raise ManifestInvalid(f"{source}: {_find_ragged_row(source, len(header)) or error}") from None


def _decode(block: pa.RecordBatch, first: int, source: str) -> pa.RecordBatch:
    try:
        return block.cast(pa.schema([pa.field(name, pa.string()) for name in block.schema.names]))
    except pa.ArrowInvalid:
        for name, column in zip(block.schema.names, block.columns, strict=True):
            values: list[Any] = column.to_pylist()
            for row, value in enumerate(values):
                try:
                    value.decode()
                except UnicodeDecodeError:
                    raise ManifestInvalid(
                        f"{source}: row {first + row}: {name} is not UTF-8; save the file as UTF-8"
                    ) from None
        raise


def _find_ragged_row(source: str, width: int) -> str | None:
    """The first row that has not as many values as the header, in words."""
    fs, path = files.filesystem(files.absolute(source))
    with fs.open(path, "rb") as raw:
        rows = (row for row in csv.reader(io.TextIOWrapper(raw, "utf-8-sig", "replace", newline="")) if row)
        for number, row in enumerate(rows, 1):
            if len(row) != width:
                return f"row {number}: {len(row)} values, but the header has {width}; quote values that hold commas"
    return None


def _to_rows(block: pa.RecordBatch, column_of: Mapping[str, str], base: str, first: int, source: str) -> pa.Table:
    """The manifest rows of a block of the CSV whose first row has number `first`."""
    place = _Place(source, first)
    text = {field: pc.utf8_trim_whitespace(block[column]) for field, column in column_of.items()}
    columns = {"product_id": text["product_id"], "category": text["category"], "uri": _choose_uris(text, base)}
    columns["image_id"] = _fill_nulls(text.get("image_id"), _take_file_names(columns["uri"]))
    columns["title"] = _empty_to_null(text["title"]) if "title" in text else pa.nulls(len(block), pa.string())
    for name in ("available", "deleted"):
        columns[name] = (
            _parse_booleans(text[name], column_of[name], place) if name in text else pa.nulls(len(block), pa.bool_())
        )
    columns["updated_at"] = (
        _parse_times(text["updated_at"], column_of["updated_at"], place)
        if "updated_at" in text
        else _read_modification_times(columns["uri"])
    )
    columns["content_hash"] = (
        _empty_to_null(text["content_hash"]) if "content_hash" in text else pa.nulls(len(block), pa.string())
    )
    used = {*column_of.values(), *FIELDS, ATTRIBUTES}
    extra = {name: block[name] for name in block.schema.names if name not in used}
    spread = block[ATTRIBUTES] if ATTRIBUTES in block.schema.names and ATTRIBUTES not in column_of.values() else None
    columns[ATTRIBUTES] = _build_attributes(len(block), extra, spread, place)
    return pa.table({f.name: columns[f.name] for f in SCHEMA}, SCHEMA)


@dataclass(frozen=True)
class _Place:
    source: str
    first: int

    def raise_first(self, bad: Column, values: Column, column: str, mend: str) -> None:
        """Raise ManifestInvalid for the first row where `bad` holds, if there is one."""
        row = pc.index(bad, True).as_py()
        if row >= 0:
            raise ManifestInvalid(f"{self.source}: row {self.first + row}: {column} is {values[row].as_py()!r}; {mend}")


def _empty_to_null(text: Column) -> Column:
    """Turn empty text into null."""
    return pc.if_else(pc.equal(text, pa.scalar("")), None, text)


def _fill_nulls(text: Column | None, otherwise: Column) -> Column:
    return otherwise if text is None else pc.coalesce(_empty_to_null(text), otherwise)


def _choose_uris(text: Mapping[str, Column], base: str) -> Column:
    """Each row's uri: `uri`, or `image` where that is absent or empty; null where both are."""
    given = [_empty_to_null(text[name]) for name in ("uri", "image") if name in text]
    return _to_uris(pc.coalesce(*given), base)


def _to_uris(paths: Column, base: str) -> Column:
    """Absolute URIs of URIs, absolute paths, and paths below `base`."""
    joined = pc.if_else(
        pc.starts_with(paths, "/"),
        pc.binary_join_element_wise("file://", paths, ""),
        pc.binary_join_element_wise(base.rstrip("/"), paths, "/"),
    )
    return pc.if_else(pc.match_substring_regex(paths, r"^[A-Za-z][A-Za-z0-9+.-]*:/"), paths, joined)


def _take_file_names(uris: Column) -> Column:
    """The last part of each uri's path. Only on the web do `?` and `#` end a path."""
    web = pc.match_substring_regex(uris, r"^(?i:https?):")
    paths = pc.if_else(web, pc.replace_substring_regex(uris, r"[?#].*$", ""), uris)
    return pc.replace_substring_regex(paths, r"^.*/", "")


def _read_modification_times(uris: Column) -> Column:
    """When each local file was last modified; null where there is none, and for what is not local."""
    paths: list[str | None] = uris.to_pylist()
    times_us = [
        _read_modification_us(path.removeprefix("file:")) if path and path.startswith("file:") else None
        for path in paths
    ]
    return pa.array(times_us, pa.int64()).cast(schemas.TIMESTAMP)


def _read_modification_us(path: str) -> int | None:
    try:
        return Path(path).stat().st_mtime_ns // 1_000
    except OSError:
        return None


def _parse_booleans(text: Column, column: str, place: _Place) -> Column:
    lower = _empty_to_null(pc.utf8_lower(text))
    yes = pc.is_in(lower, pa.array(TRUE))
    bad = pc.and_(pc.is_valid(lower), pc.invert(pc.is_in(lower, pa.array(TRUE + FALSE))))
    place.raise_first(bad, text, column, f"write {' or '.join(TRUE)}, {' or '.join(FALSE)}, or leave it empty")
    return pc.if_else(pc.is_null(lower), pa.scalar(None, pa.bool_()), yes)


def _parse_times(text: Column, column: str, place: _Place) -> Column:
    values = _empty_to_null(text)
    parsed = pd.to_datetime(values.to_pandas(), utc=True, errors="coerce", format="ISO8601")
    times = pa.Array.from_pandas(parsed, type=schemas.TIMESTAMP, safe=False)
    bad = pc.and_(pc.is_valid(values), pc.is_null(times))
    place.raise_first(
        bad, text, column, "write it as ISO 8601, such as 2024-05-31T12:00:00Z (without a zone: UTC), or leave it empty"
    )
    return times


def _build_attributes(rows: int, extra: Mapping[str, Column], spread: Column | None, place: _Place) -> Column:
    """A map for each row: its non-empty extra columns, then what `spread` adds that they don't say."""
    parents: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    keys: list[Column] = [pa.array([], pa.string())]
    items: list[Column] = [pa.array([], pa.string())]
    for name, column in extra.items():
        text = pc.utf8_trim_whitespace(column)
        present: NDArray[np.int64] = np.flatnonzero(pc.not_equal(text, pa.scalar("")).to_numpy(zero_copy_only=False))
        parents.append(present)
        keys.append(pa.repeat(pa.scalar(name), len(present)))
        items.append(text.take(pa.array(present)))
    if spread is not None:
        rows_said, keys_said, items_said = _split_pairs(spread, place)
        parents.append(rows_said)
        keys.append(keys_said)
        items.append(items_said)
    parent = np.concatenate(parents)
    key: Column = pa.concat_arrays(keys)
    item: Column = pa.concat_arrays(items)
    coded = key.dictionary_encode()
    cells = parent * max(len(coded.dictionary), 1) + coded.indices.to_numpy(zero_copy_only=False)
    first = np.sort(np.unique(cells, return_index=True)[1])  # a key stands once in a map
    order = first[np.argsort(parent[first], kind="stable")]
    offsets = np.concatenate([[0], np.cumsum(np.bincount(parent[order], minlength=rows))])
    chosen: Column = pa.array(order)
    starts: Column = pa.array(offsets, pa.int32())
    return pa.MapArray.from_arrays(starts, key.take(chosen), item.take(chosen))


def _split_pairs(spread: Column, place: _Place) -> tuple[NDArray[np.int64], Column, Column]:
    """`key=value;key=value` texts as (row, key, value) arrays; pairs without a value are left out.

    A semicolon that no `key=` follows is part of the value, as in `fabric=Cool&trade;|Wool;new=No`.
    """
    marked = pc.replace_substring_regex(
        pc.replace_substring_regex(spread, r"[;\s]+$", ""), r";[;\s]*([^;=]*=)", "\x1f\\1"
    )
    lists = pc.split_pattern(marked, "\x1f")
    parent = pc.list_parent_indices(lists)
    pairs = pc.utf8_trim_whitespace(pc.list_flatten(lists))
    filled = pc.not_equal(pairs, pa.scalar(""))
    parent, pairs = parent.filter(filled), pairs.filter(filled)
    wrong = pc.invert(pc.match_substring_regex(pairs, r"^[^=]*[^=\s][^=]*="))
    bad_rows = np.isin(np.arange(len(spread)), parent.filter(wrong).to_numpy())
    place.raise_first(pa.array(bad_rows), spread, ATTRIBUTES, "write it as key=value;key=value")
    halves = pc.split_pattern(pairs, "=", max_splits=1)
    key, value = (pc.utf8_trim_whitespace(pc.list_element(halves, i)) for i in (0, 1))
    said = pc.not_equal(value, pa.scalar(""))
    return parent.filter(said).to_numpy(), key.filter(said), value.filter(said)
