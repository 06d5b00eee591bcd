"""Search each query in its categories: the queries of a category together, so that a task opens few shards."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from lookalike import schemas
from lookalike.kernels.index import search
from lookalike.kernels.index.shards import Float32s
from lookalike.spark.open_galleries import keep_galleries_open
from lookalike.spark.tables import make_local_frame, to_spark_schema
from lookalike.spark.tasks import place_in_parts

TASK_PAIRS = 4_096
"""Queries of a category that a task searches for; a task holds their embeddings in memory."""

FOUND = pa.schema(
    [schemas.MATCHES.field(name) for name in ("query_id", "category", "version", "product_id", "image_id", "score")]
)


def search_categories(spark: SparkSession, pairs: DataFrame, shards: DataFrame, root: str, k: int) -> DataFrame:
    """Rows of `FOUND`: the best `k` products for each of `pairs` (query_id, category, embedding, ...).

    `shards` are the rows of `shards` of one version of each category.
    """
    counts = {row["category"]: row["count"] for row in pairs.groupBy("category").count().collect()}
    placed, tasks = place_in_parts(counts, TASK_PAIRS)
    if not placed:
        return make_local_frame(spark, [], FOUND)
    schema = pa.schema({"category": pa.string(), "first": pa.int32(), "parts": pa.int32()})
    frames = [F.broadcast(make_local_frame(spark, placed, schema)) for _ in range(2)]  # Spark can't tell two uses apart
    part = F.pmod(F.xxhash64("query_id"), F.col("parts")).cast("int")
    asked = pairs.select("query_id", "category", "embedding").join(frames[0], "category")
    asked = asked.withColumn("task", F.col("first") + part).drop("first", "parts")
    every = F.explode(F.sequence(F.col("first"), F.col("first") + F.col("parts") - 1))
    placed_shards = shards.join(frames[1], "category").withColumn("task", every).drop("first", "parts")
    groups = [rows.repartitionById(tasks, "task").groupBy("task") for rows in (asked, placed_shards)]
    find = partial(_search_task, root, k)
    return groups[0].cogroup(groups[1]).applyInArrow(find, to_spark_schema(FOUND))


def _search_task(root: str, k: int, asked: pa.Table, shards: pa.Table) -> pa.Table:
    """Rows of `FOUND` for the pairs of a task, category by category."""
    faiss.omp_set_num_threads(1)
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for row in sorted(shards.drop_columns("task").to_pylist(), key=lambda row: int(row["shard"])):
        rows.setdefault(row["category"], []).append(row)
    asked = asked.sort_by("category").combine_chunks()
    ends = pc.run_end_encode(asked["category"].combine_chunks()).run_ends.to_pylist()
    parts = [FOUND.empty_table()]
    for start, end in zip([0, *ends], ends, strict=False):
        some = asked.slice(start, end - start).combine_chunks()
        parts.append(_searched(root, k, some, rows[some["category"][0].as_py()]))
    return pa.concat_tables(parts)


def _searched(root: str, k: int, asked: pa.Table, shards: Sequence[Mapping[str, Any]]) -> pa.Table:
    category, version = shards[0]["category"], shards[0]["version"]
    (gallery,) = keep_galleries_open(root, [shards])
    nearest = search.search(gallery, matrix(asked["embedding"].chunk(0)), k)
    columns = {
        "query_id": asked["query_id"].take(pa.array(nearest.group)),
        "category": pa.repeat(category, len(nearest.row)),
        "version": pa.repeat(version, len(nearest.row)),
        "product_id": gallery.take("product_id", nearest.row),
        "image_id": gallery.take("image_id", nearest.row),
        "score": pa.array(nearest.score),
    }
    return pa.table(columns, FOUND)


def matrix(embeddings: pa.ListArray) -> Float32s:
    """(n, dim) of a column of n lists of equal length, none null."""
    return np.asarray(embeddings.flatten()).reshape(len(embeddings), -1)
