"""Write rows as a manifest, and count what it holds."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lookalike import files, schemas
from lookalike.errors import ManifestInvalid
from lookalike.feeds.rows import Row, merge_images

SCHEMA = pa.schema(
    [
        *schemas.MANIFEST_REQUIRED,
        *(
            schemas.MANIFEST_OPTIONAL.field(name)
            for name in ("uri", "title", "attributes", "available", "deleted", "updated_at", "content_hash")
        ),
    ]
)
BLOCK_VALUES = 1_000_000  # of rows and their attributes; a block is a row group
_ROW_VALUES = 10


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
                "take another key, such as --column image_id=image"
            )
        if self.missing:
            yield f"{self.missing:,} rows will be rejected, as their file is not there, such as {self.missing_uri}"


def write_manifest(out: str, rows: Iterable[Row], source: str, is_dated: bool, merges_images: bool = False) -> Counts:
    """Write `rows` to the Parquet file `out`, a path or URI. `is_dated`: the source says when images were modified.

    `merges_images`: rows of one picture become one, wherever they are. Raises ManifestInvalid, and writes nothing, if
    there are no rows.
    """
    with files.write_atomically(files.absolute(out)) as path:
        _write_blocks(path, merge_images(rows) if merges_images else rows)
        if merges_images and (repeated := _find_repeated(path)):
            _merge_distant(path, repeated)
        counts = _count(path, is_dated)
        if not counts.rows:
            raise ManifestInvalid(f"{source}: no images; give an export that says where they are, or a folder of them")
    return counts


def _write_blocks(path: Path, rows: Iterable[Row]) -> None:
    with pq.ParquetWriter(path, SCHEMA) as writer:
        for block in _split_blocks(rows):
            writer.write_table(_to_table(block))


def _count_image_ids(path: Path) -> pa.StructArray:
    """In how many rows each image_id stands, as `values` and `counts`."""
    return pc.value_counts(pq.read_table(path, columns=["image_id"])["image_id"].combine_chunks())


def _find_repeated(path: Path) -> set[str]:
    """The image_ids that stand in several rows."""
    times = _count_image_ids(path)
    repeated: Any = times.filter(pc.greater(times.field("counts"), 1)).field("values").drop_null()
    return set(repeated.to_pylist())


def _merge_distant(path: Path, repeated: set[str]) -> None:
    """Write the manifest at `path` anew, with rows of one picture merged at its end. Only those are held in memory."""
    distant: list[Row] = []

    def read_others() -> Iterator[Row]:
        for row in _read(path):
            if row.image_id in repeated:
                distant.append(row)
            else:
                yield row
        yield from merge_images(sorted(distant, key=lambda row: row.product_id or ""))

    merged = path.with_name(f"{path.name}.merged")
    try:
        _write_blocks(merged, read_others())
        merged.replace(path)
    finally:
        merged.unlink(missing_ok=True)


def _read(path: Path) -> Iterator[Row]:
    for batch in pq.ParquetFile(path).iter_batches():
        for row in batch.to_pylist():
            yield Row(**row | {"attributes": dict(row["attributes"])})


def _split_blocks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    block: list[Row] = []
    values = 0
    for row in rows:
        block.append(row)
        values += _ROW_VALUES + len(row.attributes or ())
        if values >= BLOCK_VALUES:
            yield block
            block, values = [], 0
    if block:
        yield block


def _to_table(block: list[Row]) -> pa.Table:
    columns: dict[str, Sequence[Any]] = dict(zip(Row._fields, zip(*block, strict=True), strict=True))
    columns["attributes"] = [list((row.attributes or {}).items()) for row in block]
    return pa.table({field.name: pa.array(columns[field.name], field.type) for field in SCHEMA}, SCHEMA)


def _count(path: Path, is_dated: bool) -> Counts:
    keys = ("image_id", "product_id", "category")
    distinct = [pc.count_distinct(pq.read_table(path, columns=[key])[key]).as_py() for key in keys]
    rows = pq.read_metadata(path).num_rows
    counts = Counts(rows, *distinct)
    if counts.images < rows:
        times = _count_image_ids(path)
        most: Any = times[pc.index(times.field("counts"), pc.max(times.field("counts"))).as_py()]
        counts = replace(counts, repeated=most["values"].as_py())
    if not is_dated:
        here = pc.starts_with(pc.field("uri"), "file:")
        missing = pq.read_table(path, columns=["uri"], filters=here & pc.field("updated_at").is_null())["uri"]
        counts = replace(counts, missing=len(missing), missing_uri=missing[0].as_py() if len(missing) else None)
    return counts
