"""Shard files: the images of one category's version, or a part of them, below the root.

`shards/<slug>/<version>/<run>-<shard>.faiss` is a FAISS index whose ids are `vector_id`s. The `.arrow` beside it is an
Arrow IPC file of one record batch (see `_build_schema`), its rows sorted by (`product_id`, `image_id`), so that a
product's images are neighbours. Both files are read by memory map: opening costs no copy of the vectors and no sort.

Small categories share a file, `shards/packs/<run>/<number>.arrow`: one record batch, in which each category's rows
follow each other. They have no FAISS file, as their search is exact: it compares with the vectors as they stand.
"""

import hashlib
import os
import re
import tempfile
import unicodedata
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lookalike import FORMAT_VERSION, files
from lookalike.errors import FormatTooNew, LookalikeError, ShardDamaged

VECTOR_ID_BITS = 60

# OpenMP's threads do not survive a fork, and a search would wait for them for ever. With one thread it needs no others.
os.register_at_fork(after_in_child=partial(faiss.omp_set_num_threads, 1))

Float16s = npt.NDArray[np.float16]
Float32s = npt.NDArray[np.float32]
Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def _build_schema(dim: int, metadata: dict[bytes | str, bytes | str]) -> pa.Schema:
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

    def sort(self, categories: "pa.StringArray | None" = None) -> "ShardRows":
        """Return the same rows, sorted by (category if given, `product_id`, `image_id`)."""
        keys = {"product_id": self.product_ids, "image_id": self.image_ids}
        if categories is not None:
            keys = {"category": categories, **keys}
        return self.take(pc.sort_indices(pa.table(keys), [(name, "ascending") for name in keys]))

    def take(self, order: "pa.UInt64Array") -> "ShardRows":
        """Return these rows, in this order."""
        rows = order.to_numpy()
        return ShardRows(
            self.vector_ids[rows],
            self.product_ids.take(order),
            self.image_ids.take(order),
            self.available[rows],
            self.vectors[rows],
        )


class Shard:
    """An open shard of n images: its FAISS index, if it has one, and views of its rows in the vectors file.

    A row's product is known by its number: products are numbered from 0 in order of `product_id`.
    """

    def __init__(self, number: int, index: Any, batch: Any) -> None:
        self.number = number
        self.index = index  # None in a pack
        self.vector_ids: Int64s = batch["vector_id"].to_numpy()
        self.product_ids: pa.StringArray = batch["product_id"]
        self.image_ids: pa.StringArray = batch["image_id"]
        self.available: Bools = batch["available"].to_numpy(zero_copy_only=False)
        self.product: Int32s = batch["product"].to_numpy()
        self.vectors: Float16s = _view_vectors(batch["vector"])
        self.product_starts: Int64s = np.append(np.searchsorted(self.product, np.arange(self.products)), self.images)
        self._id_order: Int32s = batch["id_order"].to_numpy()

    @property
    def images(self) -> int:
        return len(self.product)

    @property
    def products(self) -> int:
        return int(self.product[-1]) + 1

    @property
    def dim(self) -> int:
        return int(self.vectors.shape[1])

    @cached_property
    def nlist(self) -> int:
        """Lists of the index; 0 where the search is exact."""
        return 0 if self.index is None else getattr(faiss.downcast_index(self.index), "nlist", 0)

    def find_nearest(self, embeddings: Float32s, count: int, nprobe: int) -> Int64s:
        """Rows (q, count) that the index finds for `embeddings` (q, dim), -1 where it finds fewer."""
        if self.index is None:
            _, rows = self._exact.search(embeddings, count)
            return np.asarray(rows)
        params = faiss.SearchParametersIVF(nprobe=nprobe) if nprobe else None  # type: ignore[call-arg]
        _, ids = self.index.search(embeddings, count, params=params)
        return self.find_rows(ids)

    @cached_property
    def _exact(self) -> Any:
        """A flat index of the rows: the float16 vectors are its codes, so that it costs no more than their copy."""
        flat = faiss.IndexScalarQuantizer(self.dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
        flat.add_sa_codes(self.vectors.view(np.uint8))
        return flat

    def find_rows(self, vector_ids: Int64s) -> Int64s:
        """Rows of `vector_ids`, of the same shape; each id must be in the shard or -1, whose row is -1."""
        sorted_ids, shift, starts = self._buckets
        ids = vector_ids.ravel()
        known = np.flatnonzero(ids >= 0)
        ids = ids[known]
        places = starts[ids >> shift]  # in sorted_ids; then on through the bucket until each id is met
        missed = np.flatnonzero(sorted_ids[places] != ids)
        while len(missed):
            places[missed] += 1
            missed = missed[sorted_ids[places[missed]] != ids[missed]]
        rows = np.full(vector_ids.size, -1, np.int64)
        rows[known] = self._id_order[places]
        return rows.reshape(vector_ids.shape)

    @cached_property
    def _buckets(self) -> tuple[Int64s, np.int64, Int64s]:
        """The ids in order; how far to shift an id for its bucket's number; where each bucket starts in that order.

        `vector_id`s are hashes of VECTOR_ID_BITS bits, evenly spread. Their leading bits, one more than it takes to
        count the images, number the buckets: so most buckets hold at most one id, and a look-up costs a step or two.
        """
        sorted_ids = self.vector_ids[self._id_order]
        shift = np.int64(VECTOR_ID_BITS - self.images.bit_length() - 1)
        sizes = np.bincount(sorted_ids >> shift, minlength=1)
        return sorted_ids, shift, np.cumsum(sizes) - sizes

    def find_product(self, product_id: str) -> int | None:
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


def _view_vectors(column: Any) -> Float16s:
    """(n, dim) view of a batch's column of vectors."""
    n, dim = len(column), column.type.list_size
    return np.frombuffer(column.values.buffers()[1], np.float16, n * dim, column.offset * dim * 2).reshape(n, dim)


def slug(category: str) -> str:
    """A readable file name part for `category`: ASCII, at most 53 characters, another one for every category."""
    ascii_text = unicodedata.normalize("NFKD", category).encode("ascii", "ignore").decode().lower()
    readable = re.sub(r"[^a-z0-9]+", "-", ascii_text)[:40].strip("-")
    return f"{readable or 'category'}-{hashlib.sha256(category.encode()).hexdigest()[:12]}"


def write_shard(
    root: str, category: str, version: str, run_id: str, shard: int, index: Any, rows: ShardRows, model_id: str
) -> dict[str, Any]:
    """Write a shard's two files, each whole or not at all; the same arguments give the same names.

    The run is in their names, as what two runs build of the same version may differ. `index` holds the `vector_ids` of
    `rows` as ids. Returns the columns of the `shards` table that describe the files.
    """
    stem = f"shards/{slug(category)}/{version}/{run_id}-{shard:05d}"
    path = f"{stem}.faiss"
    with files.write_atomically(files.join(root, path)) as temporary:
        faiss.write_index(index, str(temporary))
        index_file = {"path": path, "sha256": files.sha256(temporary), "size_bytes": temporary.stat().st_size}
    batch = _build_batch(rows.sort(), [0], {**_build_metadata(model_id), "category": category, "version": version})
    return {
        **index_file,
        **_write_batch(root, f"{stem}.arrow", batch),
        **_describe_index(index.d, model_id),
        "first_row": 0,
        "ntotal": index.ntotal,
    }


def write_pack(
    root: str, path: str, categories: pa.StringArray, rows: ShardRows, model_id: str
) -> list[dict[str, Any]]:
    """Write the `rows` of many small `categories` to one file at `path`, whole or not at all.

    Returns columns of the `shards` table for each category, by category, with the number of its `products` beside them.
    """
    sizes = sorted((each["values"], each["counts"]) for each in categories.value_counts().to_pylist())
    starts = np.cumsum([0, *(images for _, images in sizes)])
    batch = _build_batch(rows.sort(categories), starts[:-1].tolist(), _build_metadata(model_id))
    shared = {"path": None, "sha256": None, "size_bytes": None, **_write_batch(root, path, batch)}
    shared |= _describe_index(rows.vectors.shape[1], model_id)
    products = batch["product"].to_numpy()[starts[1:] - 1] + 1
    return [
        {**shared, "category": category, "first_row": start, "ntotal": images, "products": count}
        for (category, images), start, count in zip(sizes, starts.tolist(), products.tolist(), strict=False)
    ]


def _build_metadata(model_id: str) -> dict[bytes | str, bytes | str]:
    return {"model_id": model_id, "format_version": str(FORMAT_VERSION)}


def _describe_index(dim: int, model_id: str) -> dict[str, Any]:
    return {
        "dim": dim,
        "metric": "inner_product",
        "model_id": model_id,
        "faiss_version": faiss.__version__,
        "format_version": FORMAT_VERSION,
    }


def _build_batch(
    rows: ShardRows, starts: Sequence[int], metadata: dict[bytes | str, bytes | str] | None = None
) -> pa.RecordBatch:
    """Sorted `rows` with the columns that save a reader work; a shard begins at each of `starts`."""
    n, dim = rows.vectors.shape
    shard = np.repeat(np.arange(len(starts)), np.diff(starts, append=n))
    first = np.asarray(starts)[shard]
    new_product = np.ones(n, bool)
    new_product[1:] = pc.not_equal(rows.product_ids[1:], rows.product_ids[:-1]).to_numpy(zero_copy_only=False)
    new_product[starts] = True
    product = np.cumsum(new_product)
    schema = _build_schema(dim, metadata or {})
    values = pa.Array.from_buffers(pa.float16(), n * dim, [None, pa.py_buffer(np.ascontiguousarray(rows.vectors).data)])
    columns: list[pa.Array[Any]] = [
        pa.array(rows.vector_ids),
        rows.product_ids,
        rows.image_ids,
        pa.array(rows.available),
        pa.FixedSizeListArray.from_arrays(values, type=schema.field("vector").type),
        pa.array((product - product[first]).astype(np.int32)),
        pa.array((np.lexsort((rows.vector_ids, shard)) - first).astype(np.int32)),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _write_batch(root: str, path: str, batch: pa.RecordBatch) -> dict[str, Any]:
    with files.write_atomically(files.join(root, path)) as temporary:
        with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)
        return {
            "vectors_path": path,
            "vectors_sha256": files.sha256(temporary),
            "vectors_size_bytes": temporary.stat().st_size,
            "vectors_rows": batch.num_rows,
        }


def open_shard(root: str, row: Mapping[str, Any], cache: Path | None = None) -> Shard:
    """Open the shard that `row` of the `shards` table describes; see `open_shards`."""
    (shard,) = open_shards(root, [row], cache)
    return shard


def open_shards(root: str, rows: Sequence[Mapping[str, Any]], cache: Path | None = None) -> list[Shard]:
    """Open the shards that `rows` of the `shards` table describe, memory-mapped, each file once.

    A remote file is first copied to the folder `cache` (by default one below the system's temporary folder). A file's
    sha256 is checked once per machine, and again when the file changed.

    Raises ShardDamaged where a file is missing, cut short or changed; FormatTooNew where this library is too old.
    """
    local, batches = _open_files(root, rows, cache)
    return [Shard(row["shard"], _open_index(local, row), _slice_rows(batches, row)) for row in rows]


def open_merged(root: str, rows: Sequence[Mapping[str, Any]], cache: Path | None = None) -> Shard:
    """The shards in packs that `rows` describe as one, in memory, in which a product of several categories is one.

    Raises as `open_shards` does.
    """
    _, batches = _open_files(root, rows, cache)
    parts = [_slice_rows(batches, row) for row in rows]
    table = pa.Table.from_batches(parts).drop_columns("vector").combine_chunks()
    columns: dict[str, Any] = {name: table[name].chunk(0) for name in table.column_names}
    merged = ShardRows(
        columns["vector_id"].to_numpy(),
        columns["product_id"],
        columns["image_id"],
        columns["available"].to_numpy(zero_copy_only=False),
        np.concatenate([_view_vectors(part["vector"]) for part in parts]),
    )
    return Shard(0, None, _build_batch(merged.sort(), [0]))


def read_trained_index(root: str, row: Mapping[str, Any], cache: Path | None = None) -> Any:
    """Read the trained index of the shard that `row` describes, without its images. Raises ShardDamaged."""
    uri = files.join(root, row["path"])
    index = faiss.read_index(str(fetch_verified(uri, row["sha256"], row["size_bytes"], make_cache_folder(cache))))
    index.reset()
    if isinstance(index, faiss.IndexIVFPQFastScan):
        # FAISS 1.15 leaves it null on reading, and sa_decode follows it.
        index.fine_quantizer = index.pq  # type: ignore[attr-defined]
    return index


def make_cache_folder(cache: Path | None) -> Path:
    """The folder `cache`, by default this user's below the system's temporary one, made where that is possible.

    Files of a local root need none: without it they are only checked each time.
    """
    folder = cache or _find_temporary_folder() / f"lookalike-{os.getuid()}"
    with suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _find_temporary_folder() -> Path:
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:  # no place at all can be written to
        return Path("/tmp")


def _open_files(
    root: str, rows: Sequence[Mapping[str, Any]], cache: Path | None
) -> tuple[dict[str, Path], dict[str, pa.RecordBatch]]:
    """A checked local path of each file that `rows` name, and the batch of each vectors file."""
    wanted: dict[str, tuple[str, int]] = {}
    for row in rows:
        if row["format_version"] > FORMAT_VERSION:
            raise FormatTooNew(
                f"{files.join(root, row['vectors_path'])} has format {row['format_version']}, this library reads up to "
                f"{FORMAT_VERSION}: upgrade lookalike"
            )
        wanted[row["vectors_path"]] = row["vectors_sha256"], row["vectors_size_bytes"]
        if row["path"] is not None:
            wanted[row["path"]] = row["sha256"], row["size_bytes"]
    folder = make_cache_folder(cache)
    with ThreadPoolExecutor() as pool:  # downloads and checksums side by side
        paths = pool.map(lambda path: fetch_verified(files.join(root, path), *wanted[path], folder), wanted)
        local = dict(zip(wanted, paths, strict=True))
    batches: dict[str, pa.RecordBatch] = {}
    for path in {row["vectors_path"] for row in rows}:
        with pa.memory_map(str(local[path])) as source:
            batches[path] = pa.ipc.open_file(source).get_batch(0)
    return local, batches


def _slice_rows(batches: Mapping[str, pa.RecordBatch], row: Mapping[str, Any]) -> pa.RecordBatch:
    first = row.get("first_row") or 0  # format 1 had no such column, and a file for each shard
    return batches[row["vectors_path"]].slice(first, row["ntotal"])


def _open_index(local: Mapping[str, Path], row: Mapping[str, Any]) -> Any:
    if row["path"] is None:
        return None
    path = local[row["path"]]
    try:
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        raise FormatTooNew(
            f"{path} was written by FAISS {row['faiss_version']}, which FAISS {faiss.__version__} can't read: "
            f"install the former ({error})"
        ) from error


def fetch_verified(
    uri: str,
    sha256: str,
    size_bytes: int,
    cache: Path,
    error: type[LookalikeError] = ShardDamaged,
    mend: str = "build the category again",
) -> Path:
    """A local path of the file at `uri`, copied to `cache` if it is remote. Raises `error` if its bytes differ."""
    fs, path = files.filesystem(uri)
    if files.is_local(uri):
        local = Path(path)
        if not local.is_file():
            raise error(f"{uri} is missing: restore it, or {mend}")
        if problem := _find_problem_once(local, sha256, size_bytes, cache):
            raise error(f"{uri} {problem}: restore it, or {mend}")
        return local
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)  # raises where `make_cache_folder` could not make it
    copy = cache / f"{sha256}{Path(path).suffix}"
    if not copy.exists():
        temporary = copy.with_name(f"{copy.name}.{uuid.uuid4().hex}.tmp")
        try:
            fs.get_file(path, str(temporary))
            if problem := _find_problem(temporary, sha256, size_bytes):
                raise error(f"{uri} {problem}: restore it, or {mend}")
            temporary.replace(copy)
        except FileNotFoundError:
            raise error(f"{uri} is missing: restore it, or {mend}") from None
        finally:
            temporary.unlink(missing_ok=True)
    return copy


def _find_problem_once(path: Path, sha256: str, size_bytes: int, cache: Path) -> str | None:
    """Say what is wrong with a local file. A mark in `cache` saves reading it again until it changes."""
    mark = cache / f"{sha256}.checked"
    stat = path.stat()
    state = f"{path} {stat.st_ino} {stat.st_size} {stat.st_mtime_ns}"
    if stat.st_size == size_bytes and _read_mark(mark) == state:
        return None
    problem = _find_problem(path, sha256, size_bytes)
    if problem is None:
        with suppress(OSError):  # nothing can be written here, or the disk is full
            mark.write_text(state, encoding="utf-8")
    return problem


def _read_mark(mark: Path) -> str | None:
    try:
        return mark.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):  # there is none, or it is no mark
        return None


def _find_problem(path: Path, sha256: str, size_bytes: int) -> str | None:
    """Say what is wrong with a file, if anything."""
    size = path.stat().st_size
    if size != size_bytes:
        return f"has {size} bytes instead of {size_bytes}"
    return None if files.sha256(path) == sha256 else f"differs from its sha256 {sha256}"
