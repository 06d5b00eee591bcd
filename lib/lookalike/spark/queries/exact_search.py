"""Exact search over the cluster: tasks open the queries by path, each ranks its part of the gallery, Spark merges.

Only the nearest images of each query leave a task. Which queries are an image of the gallery, by `image_id` or because
their bytes are the same, is seen where the two meet.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lookalike import files
from lookalike.kernels.evaluation import retrieval
from lookalike.kernels.evaluation.metrics import TIE, Codes, Floats
from lookalike.kernels.evaluation.retrieval import NO_LABEL, Block, Bools, NearestImages, Ranking
from lookalike.spark.tables import to_spark_schema
from lookalike.spark.tasks import group_by_size

DEPTH = 100  # nearest images kept of each query
SHOWN = 10  # of these, how many are named
LABELS = {"product": "product_id", "category": "category"}
"""What makes a gallery image right: that this column is the query's."""

_TASK_IMAGES = 100_000
_LEAST_TASK_IMAGES = 2_000
_BLOCK_IMAGES = 8_192
_BATCH_QUERIES = 512

_NEAREST = pa.struct([("less", pa.float32()), ("right", pa.bool_()), ("image_id", pa.string())])
_FOUND = pa.schema(
    [
        ("query_id", pa.string()),
        ("relevant", pa.string()),
        ("nearest", pa.list_(_NEAREST)),
        ("right_images", pa.int64()),
        ("right_score", pa.float32()),
        ("right_image_id", pa.string()),
    ]
)
_SHOWN = pa.struct([("image_id", pa.string()), ("score", pa.float32()), ("right", pa.bool_())])
_RANKED = pa.schema(
    [
        *(_FOUND.field(name) for name in ("query_id", "relevant", "right_images", "right_score", "right_image_id")),
        pa.field("found", pa.list_(_SHOWN)),
        pa.field("rank", pa.int32()),
        pa.field("map@r", pa.float64()),
        pa.field("ndcg@10", pa.float64()),
    ]
)


def write_queries(queries: DataFrame, uri: str) -> str:
    """Write `queries` (query_id, product_id, category, image_id, content_hash, embedding); gives their one file."""
    queries.coalesce(1).write.parquet(uri)
    (name,) = (name for name in files.list_files(uri) if name.endswith(".parquet"))
    return files.join(uri, name)


def rank_gallery(gallery: DataFrame, images: int, queries: str, count: Callable[[int], None]) -> DataFrame:
    """_RANKED of each query in the file `queries` that has a right image in the gallery, for each kind of label.

    `gallery` (image_id, product_id, category, content_hash, embedding) has about so many `images`. `count` is told
    of those that are searched.
    """
    cores = gallery.sparkSession.sparkContext.defaultParallelism
    tasks = max(-(-images // _TASK_IMAGES), min(cores, -(-images // _LEAST_TASK_IMAGES)))
    parts = gallery.repartition(tasks, "image_id").mapInArrow(partial(_search, queries, count), to_spark_schema(_FOUND))
    nearest = F.slice(F.array_sort(F.flatten(F.collect_list("nearest"))), 1, DEPTH)
    best = F.max(F.struct("right_score", "right_image_id"))
    merged = (
        parts.groupBy("query_id", "relevant")
        .agg(nearest.alias("nearest"), F.sum("right_images").alias("right_images"), best.alias("best"))
        .where("right_images > 0")
        .select("query_id", "relevant", "nearest", "right_images", "best.*")
    )
    return merged.mapInArrow(_figures, to_spark_schema(_RANKED))


@dataclass(frozen=True)
class _Queries:
    """The queries of a file. A label is the place of its text in `values`."""

    table: pa.Table
    embeddings: Floats  # (q, dim)
    values: dict[str, pa.Array]

    def labels(self, column: str) -> Codes:
        return _codes(self.table[column], self.values[column])


@lru_cache(maxsize=1)
def _opened(uri: str) -> _Queries:
    """Kept from task to task of a Python worker."""
    fs, path = files.filesystem(uri)
    with fs.open(path, "rb") as file:
        table = pq.read_table(file).combine_chunks()
    flat = pc.list_flatten(table["embedding"]).to_numpy().astype(np.float32, copy=False)
    values = {column: pc.drop_null(pc.unique(table[column])) for column in LABELS.values()}
    return _Queries(table.drop_columns("embedding"), flat.reshape(len(table), -1), values)


def _codes(texts: Any, values: pa.Array) -> Codes:
    """(n,) place in `values` of each of `texts`; NO_LABEL where it is not there."""
    places = pc.fill_null(pc.index_in(texts, value_set=values), NO_LABEL)
    return np.asarray(places.to_numpy(), np.int64)


def _search(uri: str, count: Callable[[int], None], batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    queries = _opened(uri)
    image_ids: list[pa.ChunkedArray] = []

    def blocks() -> Iterator[Block]:
        for some in group_by_size(batches, lambda batch: batch.num_rows, _BLOCK_IMAGES):
            table = pa.Table.from_batches(some)
            image_ids.append(table["image_id"])
            yield _block(queries, table)
            count(len(table))

    labels = [queries.labels(column) for column in LABELS.values()]
    nearest = retrieval.rank_gallery(queries.embeddings, labels, blocks(), DEPTH)
    if image_ids:
        names = pa.concat_arrays([chunk for ids in image_ids for chunk in ids.chunks])
        for relevant, kind in zip(LABELS, nearest, strict=True):
            yield from _rows(queries.table["query_id"], relevant, kind, names)


def _block(queries: _Queries, table: pa.Table) -> Block:
    embeddings = pc.list_flatten(table["embedding"]).to_numpy().reshape(len(table), -1)
    own = pd.concat([_same(queries.table[name], table[name]) for name in ("image_id", "content_hash")])
    own = own.drop_duplicates()
    labels = [_codes(table[column], queries.values[column]) for column in LABELS.values()]
    return Block(embeddings, labels, own["query"].to_numpy(np.int64), own["row"].to_numpy(np.int64))


def _same(queries: pa.ChunkedArray, gallery: pa.ChunkedArray) -> pd.DataFrame:
    """(query, row) wherever the two columns of text are the same."""
    left = pd.DataFrame({"text": queries.to_pandas(), "query": np.arange(len(queries))}).dropna()
    right = pd.DataFrame({"text": gallery.to_pandas(), "row": np.arange(len(gallery))})
    return left.merge(right, on="text")[["query", "row"]]


def _rows(
    query_ids: pa.ChunkedArray, relevant: str, nearest: NearestImages, names: pa.StringArray
) -> Iterator[pa.RecordBatch]:
    """_FOUND of the queries that have a label of this kind. Only the first SHOWN images are named."""
    asked = np.flatnonzero(nearest.labels != NO_LABEL)
    shown = np.arange(nearest.rows.shape[1]) < SHOWN
    for start in range(0, len(asked), _BATCH_QUERIES):
        some = asked[start : start + _BATCH_QUERIES]
        rows, filled = nearest.rows[some], nearest.rows[some] >= 0
        named = pa.array(rows[filled], mask=np.broadcast_to(~shown, rows.shape)[filled])
        columns = [
            pa.array(-nearest.scores[some][filled]),
            pa.array(nearest.relevant[some][filled]),
            names.take(named),
        ]
        offsets = pa.array(np.concatenate([[0], np.cumsum(filled.sum(axis=1))]).astype(np.int32))
        best = pa.array(nearest.best_row[some], mask=nearest.best_row[some] < 0)
        yield pa.RecordBatch.from_arrays(
            [
                query_ids.take(pa.array(some)).combine_chunks(),
                pa.repeat(relevant, len(some)),
                pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays(columns, fields=list(_NEAREST))),
                pa.array(nearest.total[some]),
                pa.array(nearest.best_score[some] + np.float32(TIE), mask=nearest.best_row[some] < 0),
                names.take(best),
            ],
            schema=_FOUND,
        )


def _figures(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """_RANKED of merged rows."""
    for batch in batches:
        if not batch.num_rows:
            continue
        nearest = batch["nearest"]
        lengths = pc.list_value_length(nearest).to_numpy()
        flat = nearest.flatten()
        places = np.arange(DEPTH) < lengths[:, None]
        relevant = np.zeros(places.shape, bool)
        relevant[places] = flat.field("right").to_numpy(zero_copy_only=False)
        ranking = Ranking(relevant, batch["right_images"].to_numpy())
        rank = retrieval.find_first_place(ranking)
        columns = {
            "found": _shown(flat, places),
            "rank": pa.array(rank, pa.int32(), mask=rank == 0),
            "map@r": pa.array(retrieval.average_precision_at_r(ranking)),
            "ndcg@10": pa.array(retrieval.ndcg_at(ranking, 10)),
        }
        arrays = [columns[name] if name in columns else batch[name] for name in _RANKED.names]
        yield pa.RecordBatch.from_arrays(arrays, schema=_RANKED)


def _shown(nearest: pa.StructArray, places: Bools) -> pa.ListArray:
    """The first SHOWN of each query, with their scores."""
    first = places & (np.arange(DEPTH) < SHOWN)
    kept = nearest.filter(pa.array(first[places]))
    right = kept.field("right")
    scores = -kept.field("less").to_numpy() + np.float32(TIE) * right.to_numpy(zero_copy_only=False)
    values = pa.StructArray.from_arrays(
        [kept.field("image_id"), pa.array(scores, pa.float32()), right], fields=list(_SHOWN)
    )
    offsets = np.concatenate([[0], np.cumsum(first.sum(axis=1))]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values)
