"""What a training reads: pictures with their labels, triplets, and batches balanced by class.

Pictures lie encoded in a temporary file that is mapped into memory: the system keeps of it what fits.
"""

import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import torch
from numpy.typing import NDArray
from PIL import Image

from lookalike import files, schemas

Split = Literal["train", "validation"]
Ints = NDArray[np.int64]

UNKNOWN = -1
"""The label of a picture whose class is unknown."""

_SCHEMAS = {
    "pictures": schemas.TRAINING_PICTURES,
    "queries": schemas.TRAINING_QUERIES,
    "triplets": schemas.TRAINING_TRIPLETS,
}
_BLOCK_ROWS = 256  # some MB of pictures


class TrainingData:
    """The pictures of one split below `folder`, as `lookalike.spark.training.training_set` wrote them, for one process.

    Of `world_size` processes the one of number `rank` gets whole classes of `labels[0]`, its share of the triplets, and
    the pictures that these name. Rows are numbered from 0: pictures of the catalog, then of the log's queries.

    `image_ids`, `product_ids`: (n,) strings, null for a log's query. `labels`: kind -> int64 (n,), UNKNOWN where there
    is none. `triplets`: int64 (t, 3), rows of query, clicked and unclicked picture.
    """

    def __init__(self, folder: str, split: Split, labels: Sequence[str], rank: int = 0, world_size: int = 1) -> None:
        catalog = _read_rows(folder, "pictures", split)
        queries = _read_rows(folder, "queries", split)
        triplets = _read_rows(folder, "triplets", split)
        triplets = triplets.take(np.arange(rank, len(triplets), world_size))
        named = [triplets[name] for name in ("query_image_id", "positive_image_id", "negative_image_id")]
        share = _read_codes(catalog["labels"], labels[0])
        share = np.where(share == UNKNOWN, np.arange(len(share)), share)
        ours = (share % world_size == rank) | _is_among(catalog["image_id"], named)
        asked = _is_among(queries["query_id"], [triplets["query_id"]])

        parts = [("pictures", catalog["image_id"].filter(ours)), ("queries", queries["query_id"].filter(asked))]
        (image_ids, query_ids), self._encoded = _map_pictures(folder, split, parts)
        catalog = catalog.take(pc.index_in(image_ids, catalog["image_id"]))
        nulls = pa.nulls(len(query_ids), pa.string())
        self.image_ids = pa.concat_arrays([image_ids, nulls])
        self.product_ids = pa.concat_arrays([*catalog["product_id"].chunks, nulls])
        unknown = np.full(len(query_ids), UNKNOWN)
        self.labels = {kind: np.concatenate([_read_codes(catalog["labels"], kind), unknown]) for kind in labels}
        rows = [_find_places(ids, image_ids) for ids in named]
        rows[0] = np.where(rows[0] < 0, len(image_ids) + _find_places(triplets["query_id"], query_ids), rows[0])
        self.triplets: Ints = np.stack(rows, axis=1)

    def __len__(self) -> int:
        return len(self.image_ids)

    def pictures(self, rows: Ints, pool: ThreadPoolExecutor | None = None) -> torch.Tensor:
        """uint8 (len(rows), px, px, 3) RGB, decoded by the threads of `pool`."""
        decoded = (pool.map if pool else map)(self._decode, rows.tolist())
        return torch.from_numpy(np.stack(list(decoded)))

    def _decode(self, row: int) -> NDArray[np.uint8]:
        with Image.open(BytesIO(self._encoded[row].as_buffer()), formats=("JPEG",)) as image:
            return np.asarray(image)


def draw_balanced_batches(labels: Ints, classes: int, pictures: int, batches: int, seed: int) -> Iterator[Ints]:
    """`batches` times rows of up to `classes` classes with `pictures` rows each, class after class.

    Where there are fewer classes, those that have more rows fill the batch. Only classes with two rows or more are
    drawn, each as often as the others; UNKNOWN is none. A class of fewer than `pictures` rows repeats some. Raises
    ValueError where fewer than two classes can be drawn.
    """
    rng = np.random.default_rng(seed)
    members = group_drawable(labels)
    if len(members) < 2:
        raise ValueError(f"{len(members)} classes with two pictures; a batch needs two of them")
    most = classes * pictures // min(classes, len(members))
    queue = np.empty(0, np.int64)
    for _ in range(batches):
        if len(queue) < min(classes, len(members)):  # a class stands once in a batch, so the rest is not used up
            queue = rng.permutation(len(members))
        batch, queue = queue[:classes], queue[classes:]
        yield np.concatenate([_draw(rng, members[i], pictures, most) for i in batch.tolist()])


def group_drawable(labels: Ints) -> list[Ints]:
    """The rows of each class that has two or more; UNKNOWN is none."""
    order = np.argsort(labels, kind="stable")
    codes, starts = np.unique(labels[order], return_index=True)
    groups = np.split(order, starts[1:])
    return [rows for code, rows in zip(codes, groups, strict=True) if code != UNKNOWN and len(rows) > 1]


def _draw(rng: np.random.Generator, members: Ints, least: int, most: int) -> Ints:
    """Draw up to `most` of `members`. If there are fewer than `least`, they repeat until there are `least`."""
    rows = rng.choice(members, min(most, len(members)), replace=False)
    return np.resize(rows, max(least, len(rows)))  # np.resize repeats what is there


def _open_dataset(folder: str, name: str) -> ds.Dataset:
    """The files of one name; without rows where there are none."""
    fs, path = files.filesystem(files.join(folder, name))
    if not fs.isdir(path):
        return ds.dataset(_SCHEMAS[name].empty_table())
    return ds.dataset(path, _SCHEMAS[name], format="parquet", filesystem=fs)


def _read_rows(folder: str, name: str, split: Split) -> Any:
    """All rows of a split, without pictures."""
    columns = [column for column in _SCHEMAS[name].names if column != "picture"]
    return _open_dataset(folder, name).to_table(columns, filter=ds.field("split") == split)


def _read_codes(labels: pa.ChunkedArray, kind: str) -> Ints:
    if not len(labels):  # a column without chunks has no map to look into
        return np.empty(0, np.int64)
    values = pc.map_lookup(labels, pa.scalar(kind), "first")
    codes: Ints = pc.fill_null(values, UNKNOWN).to_numpy().astype(np.int64)
    return codes


def _is_among(values: pa.ChunkedArray, named: Sequence[pa.ChunkedArray]) -> NDArray[np.bool_]:
    chunks = [chunk for column in named for chunk in column.drop_null().chunks]
    flags: NDArray[np.bool_] = pc.is_in(values, pa.chunked_array(chunks, pa.string())).to_numpy()
    return flags


def _find_places(values: pa.ChunkedArray, among: pa.Array) -> Ints:
    """The place of each value in `among`; -1 for null, and for a value that is not there."""
    places_or_null = pc.index_in(values, among)
    places: Ints = pc.if_else(pc.is_null(values), -1, pc.fill_null(places_or_null, -1)).to_numpy().astype(np.int64)
    return places


def _map_pictures(
    folder: str, split: Split, parts: Sequence[tuple[str, Any]]
) -> tuple[list[pa.Array], pa.ChunkedArray]:
    """Copy the pictures of each part (name, keys) to a temporary file. Gives each part's keys, and the pictures."""
    schema = pa.schema([("picture", pa.large_binary())])
    keys_by_part = []
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "pictures.arrow"
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            for name, keys in parts:
                keys_by_part.append([pa.array([], pa.string())])
                key = _SCHEMAS[name].names[0]
                wanted = (ds.field("split") == split) & ds.field(key).isin(keys.combine_chunks())
                for batch in _open_dataset(folder, name).to_batches([key, "picture"], wanted, batch_size=_BLOCK_ROWS):
                    keys_by_part[-1].append(batch[key])
                    writer.write_table(pa.table([batch["picture"].cast(pa.large_binary())], schema))
        # The mapping outlives the file's name, so nothing is left to remove.
        pictures = pa.ipc.open_file(pa.memory_map(str(path))).read_all()["picture"]
    return [pa.concat_arrays(keys) for keys in keys_by_part], pictures
