"""Shard files: the images of one category's version, or a part of them, as two files below the root.

`shards/<slug>/<version>/<shard>.faiss` is a FAISS index whose ids are `vector_id`s. `<shard>.arrow` beside it is an
Arrow IPC file of one record batch (see `_schema`), its rows sorted by (`product_id`, `image_id`), so that a product's
images are neighbours. Both files are read by memory map: opening costs no copy of the vectors and no sort.
"""

import hashlib
import os
import re
import tempfile
import unicodedata
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lookalike import FORMAT_VERSION, files
from lookalike.errors import FormatTooNew, ShardDamaged

VECTOR_ID_BITS = 60

Float16s = npt.NDArray[np.float16]
Float32s = npt.NDArray[np.float32]
Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def _schema(dim: int, metadata: dict[bytes | str, bytes | str]) -> pa.Schema:
    fields: list[pa.Field[Any]] = [
        pa.field("vector_id", pa.int64(), False),
        pa.field("product_id", pa.string(), False),
        pa.field("image_id", pa.string(), False),
        pa.field("available", pa.bool_(), False),
        pa.field("vector", pa.list_(pa.field("item", pa.float16(), False), dim), False),
        # Two columns that save a reader the work of finding them again.
        pa.field("product", pa.int32(), False, {"comment": "number of the row's product in the shard, from 0"}),
        pa.field("id_order", pa.int32(), False, {"comment": "the rows in ascending order of vector_id"}),
    ]
    return pa.schema(fields, metadata)


@dataclass(frozen=True)
class ShardRows:
    """A shard's images as columns of n rows, in any order."""

    vector_ids: Int64s  # (n,)
    product_ids: pa.StringArray  # (n,)
    image_ids: pa.StringArray  # (n,)
    available: Bools  # (n,)
    vectors: Float16s  # (n, dim)

    def arranged(self) -> "ShardRows":
        """The same rows, sorted by (`product_id`, `image_id`)."""
        keys = pa.table({"product_id": self.product_ids, "image_id": self.image_ids})
        order = pc.sort_indices(keys, [("product_id", "ascending"), ("image_id", "ascending")])
        rows = order.to_numpy()
        return ShardRows(
            self.vector_ids[rows],
            self.product_ids.take(order),
            self.image_ids.take(order),
            self.available[rows],
            self.vectors[rows],
        )


class Shard:
    """An open shard of n images: its FAISS index, and views of its rows in the vectors file.

    A row's product is known by its number: products are numbered from 0 in order of `product_id`.
    """

    def __init__(self, number: int, index: Any, batch: Any) -> None:
        self.number = number
        self.index = index
        self.vector_ids: Int64s = batch["vector_id"].to_numpy()
        self.product_ids: pa.StringArray = batch["product_id"]
        self.image_ids: pa.StringArray = batch["image_id"]
        self.available: Bools = batch["available"].to_numpy(zero_copy_only=False)
        self.product: Int32s = batch["product"].to_numpy()
        dim = batch["vector"].type.list_size
        values = batch["vector"].values.buffers()[1]
        self.vectors: Float16s = np.frombuffer(values, np.float16, len(self.product) * dim).reshape(-1, dim)
        self.product_starts: Int64s = np.append(np.searchsorted(self.product, np.arange(self.products)), self.images)
        self._id_order: Int32s = batch["id_order"].to_numpy()
        self._sorted_ids = self.vector_ids[self._id_order]
        # vector_ids are hashes, evenly spread: their leading bits name a bucket of one or two ids.
        self._bucket_shift = np.int64(VECTOR_ID_BITS - self.images.bit_length() - 1)
        buckets = np.bincount(self._sorted_ids >> self._bucket_shift, minlength=1)
        self._bucket_starts = np.cumsum(buckets) - buckets

    @property
    def images(self) -> int:
        return len(self.product)

    @property
    def products(self) -> int:
        return int(self.product[-1]) + 1

    @property
    def dim(self) -> int:
        return int(self.vectors.shape[1])

    def rows_of(self, vector_ids: Int64s) -> Int64s:
        """Rows of `vector_ids`, of the same shape; each id must be in the shard or -1, whose row is -1."""
        ids = vector_ids.ravel()
        found = np.flatnonzero(ids >= 0)
        ids = ids[found]
        places = self._bucket_starts[ids >> self._bucket_shift]
        missed = np.flatnonzero(self._sorted_ids[places] != ids)
        while len(missed):
            places[missed] += 1
            missed = missed[self._sorted_ids[places[missed]] != ids[missed]]
        rows = np.full(vector_ids.size, -1, np.int64)
        rows[found] = self._id_order[places]
        return rows.reshape(vector_ids.shape)

    def product_number(self, product_id: str) -> int | None:
        """The product's number, by binary search; None where the shard does not have it."""
        low, high = 0, self.products
        while low < high:
            middle = (low + high) // 2
            if self._product_id(middle) < product_id:
                low = middle + 1
            else:
                high = middle
        return low if low < self.products and self._product_id(low) == product_id else None

    def _product_id(self, number: int) -> str:
        return str(self.product_ids[int(self.product_starts[number])].as_py())


def slug(category: str) -> str:
    """A readable file name part for `category`: ASCII, at most 53 characters, another one for every category."""
    ascii_text = unicodedata.normalize("NFKD", category).encode("ascii", "ignore").decode().lower()
    readable = re.sub(r"[^a-z0-9]+", "-", ascii_text)[:40].strip("-")
    return f"{readable or 'category'}-{hashlib.sha256(category.encode()).hexdigest()[:12]}"


def write(
    root: str, category: str, version: str, shard: int, index: Any, rows: ShardRows, model_id: str
) -> dict[str, Any]:
    """Write a shard's two files, each whole or not at all; the same arguments give the same names.

    `index` holds the `vector_ids` of `rows` as ids. Returns the columns of the `shards` table that describe the files.
    """
    stem = f"shards/{slug(category)}/{version}/{shard:05d}"
    path, vectors_path = f"{stem}.faiss", f"{stem}.arrow"
    with files.written_atomically(files.join(root, path)) as temporary:
        faiss.write_index(index, str(temporary))
        index_sha256, size_bytes = files.sha256(temporary), temporary.stat().st_size
    metadata: dict[bytes | str, bytes | str] = {
        "model_id": model_id,
        "category": category,
        "version": version,
        "format_version": str(FORMAT_VERSION),
    }
    with files.written_atomically(files.join(root, vectors_path)) as temporary:
        _write_rows(temporary, rows.arranged(), metadata)
        vectors_sha256, vectors_size_bytes = files.sha256(temporary), temporary.stat().st_size
    return {
        "path": path,
        "sha256": index_sha256,
        "size_bytes": size_bytes,
        "vectors_path": vectors_path,
        "vectors_sha256": vectors_sha256,
        "vectors_size_bytes": vectors_size_bytes,
        "ntotal": index.ntotal,
        "dim": index.d,
        "metric": "inner_product",
        "model_id": model_id,
        "faiss_version": faiss.__version__,
        "format_version": FORMAT_VERSION,
    }


def _write_rows(path: Path, rows: ShardRows, metadata: dict[bytes | str, bytes | str]) -> None:
    n, dim = rows.vectors.shape
    new_product = pc.not_equal(rows.product_ids[1:], rows.product_ids[:-1]).to_numpy(zero_copy_only=False)
    product = np.concatenate([[0], np.cumsum(new_product)]).astype(np.int32)
    schema = _schema(dim, metadata)
    values = pa.Array.from_buffers(pa.float16(), n * dim, [None, pa.py_buffer(np.ascontiguousarray(rows.vectors).data)])
    columns: list[pa.Array[Any]] = [
        pa.array(rows.vector_ids),
        rows.product_ids,
        rows.image_ids,
        pa.array(rows.available),
        pa.FixedSizeListArray.from_arrays(values, type=schema.field("vector").type),
        pa.array(product),
        pa.array(np.argsort(rows.vector_ids).astype(np.int32)),
    ]
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))


def open_shard(root: str, row: Mapping[str, Any], cache: Path | None = None) -> Shard:
    """Open the shard that `row` of the `shards` table describes, memory-mapped.

    A remote file is first copied to the folder `cache` (by default one below the system's temporary folder). A file's
    sha256 is checked once per machine, and again when the file changed.

    Raises ShardDamaged where a file is missing, cut short or changed; FormatTooNew where this library is too old.
    """
    if row["format_version"] > FORMAT_VERSION:
        raise FormatTooNew(
            f"{files.join(root, row['path'])} has format {row['format_version']}, this library reads up to "
            f"{FORMAT_VERSION}: upgrade lookalike"
        )
    cache = cache or Path(tempfile.gettempdir()) / f"lookalike-{os.getuid()}"
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = _verified(files.join(root, row["path"]), row["sha256"], row["size_bytes"], cache)
    vectors_path = _verified(
        files.join(root, row["vectors_path"]), row["vectors_sha256"], row["vectors_size_bytes"], cache
    )
    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        raise FormatTooNew(
            f"{path} was written by FAISS {row['faiss_version']}, which FAISS {faiss.__version__} can't read: "
            f"install the former ({error})"
        ) from error
    with pa.memory_map(str(vectors_path)) as source:
        return Shard(row["shard"], index, pa.ipc.open_file(source).get_batch(0))


def _verified(uri: str, sha256: str, size_bytes: int, cache: Path) -> Path:
    """A local path of the file at `uri`, known to have this checksum."""
    fs, path = files.filesystem(uri)
    if files.is_local(uri):
        local = Path(path)
        if not local.is_file():
            raise ShardDamaged(f"{uri} is missing: restore it, or build the category again")
        _check_once(local, uri, sha256, size_bytes, cache)
        return local
    copy = cache / f"{sha256}{Path(path).suffix}"
    if not copy.exists():
        temporary = copy.with_name(f"{copy.name}.{uuid.uuid4().hex}.tmp")
        try:
            fs.get_file(path, str(temporary))
            _check(temporary, uri, sha256, size_bytes)
            temporary.replace(copy)
        except FileNotFoundError:
            raise ShardDamaged(f"{uri} is missing: restore it, or build the category again") from None
        finally:
            temporary.unlink(missing_ok=True)
    return copy


def _check_once(path: Path, uri: str, sha256: str, size_bytes: int, cache: Path) -> None:
    """Check a local file, unless a mark says that it was checked and has not changed since."""
    mark = cache / f"{sha256}.checked"
    stat = path.stat()
    state = f"{path} {stat.st_ino} {stat.st_size} {stat.st_mtime_ns}"
    if stat.st_size == size_bytes and mark.exists() and mark.read_text(encoding="utf-8") == state:
        return
    _check(path, uri, sha256, size_bytes)
    mark.write_text(state, encoding="utf-8")


def _check(path: Path, uri: str, sha256: str, size_bytes: int) -> None:
    size = path.stat().st_size
    if size != size_bytes:
        raise ShardDamaged(f"{uri} has {size} bytes instead of {size_bytes}: restore it, or build the category again")
    if files.sha256(path) != sha256:
        raise ShardDamaged(f"{uri} differs from its sha256 {sha256}: restore it, or build the category again")
