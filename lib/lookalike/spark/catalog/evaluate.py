"""Evaluate: measure each new version against brute force and known truth, before anything goes live.

Measured are a version's files and `similar_items` rows as they stand. Scores are worked out anew from the vectors, so a
wrong row can't vouch for itself. Small categories share a task; only a sample of queries is compared.
"""

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark import StorageLevel
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from lookalike import schemas
from lookalike.kernels.evaluation import metrics
from lookalike.kernels.index.search import Gallery, open_galleries
from lookalike.spark.catalog.gallery import select_live, select_version_images
from lookalike.spark.catalog.measure_churn import CHURN_KEY, find_uncompared, measure_churn
from lookalike.spark.catalog.placeholders import leave_out
from lookalike.spark.catalog.versions import Version, find_missing
from lookalike.spark.progress import Count, progress_bar
from lookalike.spark.run import Run
from lookalike.spark.tables import VersionKey, make_local_frame, select_versions, to_spark_schema
from lookalike.spark.tasks import assign_tasks

KNN_K = 10
RECALL_KS = (1, 5, 10)

_TASKS = pa.schema({"category": pa.string(), "task": pa.int32()})

ShardRow = Mapping[str, Any]


@dataclass(frozen=True)
class EvaluationSpec:
    """How one category is measured: random `queries` at most, drawn with `seed`."""

    root: str
    run_id: str
    queries: int
    seed: int


def evaluate(run: Run, versions: Sequence[Version]) -> None:
    """Measure `versions`, each for itself and against what is live, and store the figures."""
    with run.stage("evaluate") as figures:
        lacking = {v.key for v in find_missing(run.tables, "evaluations", versions)}
        shard_rows = run.tables.rows_of("shards", lacking)
        sizes: dict[str, int] = {}
        for row in sorted(shard_rows, key=lambda row: row["category"]):
            sizes[row["category"]] = sizes.get(row["category"], 0) + row["ntotal"]
        todo = {key for key in lacking if key[0] in sizes}
        compared = find_uncompared(run.tables, [v for v in versions if v.key not in lacking or v.key in todo])
        spec = EvaluationSpec(run.settings.root, run.run_id, run.settings.evaluate.queries, run.settings.index.seed)
        ledger = select_live(run.tables.read("images"), run.model_id)
        images = leave_out(run, select_version_images(ledger, {*todo, *(v.key for v in compared)}))
        products = sample_products(images, spec.queries).persist(StorageLevel.DISK_ONLY)
        total = sum(sizes.values())
        try:
            with progress_bar(run.console, run.spark.sparkContext, "evaluate", total) as count:
                if todo:
                    similar_items = select_versions(run.tables.read("similar_items"), todo)
                    answers = attach_similar_items(select_versions(products, todo), similar_items)
                    rows = measure_versions(spec, answers, shard_rows, sizes, count)
                    run.tables.append_new_rows("evaluations", rows, schemas.VERSION_KEY)
            if compared:
                churn = measure_churn(compared, run.tables.read("similar_items"), products, run.run_id)
                run.tables.append_new_rows("evaluations", churn, CHURN_KEY)
        finally:
            products.unpersist()
        figures.counts = {"versions": len(sizes), "images": total}
        figures.images = total


def measure_versions(
    spec: EvaluationSpec, answers: DataFrame, shard_rows: Sequence[ShardRow], sizes: Mapping[str, int], count: Count
) -> pa.Table:
    """Rows of `evaluations` of versions, one a category, of these `sizes`.

    `answers` are their queries as `attach_similar_items` gives them, `shard_rows` their rows of `shards`.
    """
    spark = answers.sparkSession
    task_of, tasks = assign_tasks(sizes)
    places = make_local_frame(spark, list(task_of.items()), _TASKS)
    placed = [{**row, "task": task_of[row["category"]]} for row in shard_rows]

    def measure(queries: pa.Table, shard_rows: pa.Table) -> pa.Table:
        return _measure_categories(spec, count, queries, shard_rows)

    queries, shards = (
        frame.repartitionById(tasks, "task").groupBy("task")
        for frame in (
            answers.join(F.broadcast(places), "category"),
            spark.createDataFrame(pa.Table.from_pylist(placed, schemas.SHARDS.append(_TASKS.field("task")))),
        )
    )
    return queries.cogroup(shards).applyInArrow(measure, to_spark_schema(schemas.EVALUATIONS)).toArrow()


def sample_products(images: DataFrame, queries: int) -> DataFrame:
    """(category, version, product_id): a random `queries` products of each category, the same ones every time."""
    products = images.select("category", "version", "product_id").distinct()
    by_hash = Window.partitionBy("category").orderBy(F.xxhash64("product_id"), "product_id")
    return products.withColumn("place", F.row_number().over(by_hash)).where(F.col("place") <= queries).drop("place")


def attach_similar_items(queries: DataFrame, similar_items: DataFrame) -> DataFrame:
    """`queries` with lists of `image_ids`, `similar_image_ids` and `similar_product_ids`, by rank; null for none."""
    key = ["category", "version", "product_id"]
    by_rank = F.array_sort(F.collect_list(F.struct("rank", "image_id", "similar_image_id", "similar_product_id")))
    lists = similar_items.join(queries, key, "left_semi").groupBy(*key).agg(by_rank.alias("lists"))
    columns = [
        F.col(f"lists.{name}").alias(f"{name}s") for name in ("image_id", "similar_image_id", "similar_product_id")
    ]
    return queries.join(lists, key, "left").select(*key, *columns)


def _measure_categories(spec: EvaluationSpec, count: Count, queries: pa.Table, shard_rows: pa.Table) -> pa.Table:
    """Rows of `evaluations` of the categories of a task, whose sampled queries and rows of `shards` these are."""
    rows = shard_rows.drop_columns("task").to_pylist()
    galleries = _galleries(spec.root, rows)
    versions = {row["category"]: row["version"] for row in rows}
    queries = queries.sort_by("category").combine_chunks()
    ends = pc.run_end_encode(queries["category"].combine_chunks())
    slices = zip(ends.values.to_pylist(), [0, *ends.run_ends.to_pylist()], ends.run_ends.to_pylist(), strict=False)
    by_category = {category: queries.slice(start, end - start) for category, start, end in slices}
    none = queries.slice(0, 0)  # of a category whose products are all left out
    return pa.concat_tables(
        _measure_category(spec, key, galleries[key[0]], count, by_category.get(key[0], none))
        for key in sorted(versions.items())
    )


def _measure_category(
    spec: EvaluationSpec, key: VersionKey, gallery: Gallery, count: Count, table: pa.Table
) -> pa.Table:
    """Rows of `evaluations` of one category's version, whose sampled queries and their similar items `table` holds."""
    category, version = key
    measured = Measured.of(gallery, table, spec)
    rows = [
        {"category": category, "version": version, "run_id": spec.run_id, **row}
        for row in [
            _share(f"knn_recall@{KNN_K}", measured.knn_recall),
            *(_share(f"recall@{k}", flags) for k, flags in measured.recall.items()),
            _share("coverage", measured.covered),
            _count("dangling", measured.dangling, measured.checked_ids),
            _count("products", int(gallery.product_offsets[-1]), int(gallery.product_offsets[-1])),
            _count("images", int(gallery.row_offsets[-1]), int(gallery.row_offsets[-1])),
        ]
    ]
    count(int(gallery.row_offsets[-1]))
    return pa.Table.from_pylist(rows, schemas.EVALUATIONS)


def _galleries(root: str, rows: Sequence[ShardRow]) -> dict[str, Gallery]:
    """By category, what `rows` of `shards` describe: one version each."""
    versions: dict[str, list[ShardRow]] = {}
    for row in sorted(rows, key=lambda row: (row["category"], row["shard"])):
        versions.setdefault(row["category"], []).append(row)
    return dict(zip(versions, open_galleries(root, list(versions.values())), strict=True))


def _share(metric: str, values: Any) -> dict[str, Any]:
    """A mean of per-query shares with its interval; null where there was no query."""
    if not len(values):
        return {"metric": metric, "n": 0}
    low, high = metrics.confidence_interval(values)
    return {"metric": metric, "value": float(np.mean(values)), "low": low, "high": high, "n": len(values)}


def _count(metric: str, value: int, n: int) -> dict[str, Any]:
    return {"metric": metric, "value": float(value), "n": n}


@dataclass(frozen=True)
class Measured:
    """Outcomes per query of one version; see `metrics` for each."""

    knn_recall: Any  # (q,) shares, of queries that have a true neighbour
    covered: Any  # (q,) flags, of queries that have a true neighbour
    recall: Mapping[int, Any]  # k -> flags, of images whose product has another image
    dangling: int  # ids in the rows that the version does not hold
    checked_ids: int

    @classmethod
    def of(cls, gallery: Gallery, table: pa.Table, spec: EvaluationSpec) -> "Measured":
        vectors = _all_vectors(gallery)
        products = np.concatenate(
            [s.product + o for s, o in zip(gallery.shards, gallery.product_offsets, strict=False)]
        )
        available = np.concatenate([shard.available for shard in gallery.shards])
        names = pa.concat_arrays([shard.product_ids for shard in gallery.shards])
        image_ids = pa.concat_arrays([shard.image_ids for shard in gallery.shards])
        query_rows = pc.index_in(table["product_id"].combine_chunks(), names).to_numpy()
        _, truth = metrics.search_exactly(vectors, products, available, products[query_rows], KNN_K)

        lengths = pc.fill_null(pc.list_value_length(table["image_ids"]), 0).to_numpy()
        query = np.repeat(np.arange(len(lengths)), lengths)
        left, right = (_places(table[name], image_ids) for name in ("image_ids", "similar_image_ids"))
        named = _places(table["similar_product_ids"], names)
        dangling = (left < 0) | (right < 0) | (named < 0)
        wrong = dangling | ~available[right] | (products[right] == products[query_rows[query]])
        wrong |= products[right] != products[named]
        scores = np.einsum("nd,nd->n", vectors[left].astype(np.float32), vectors[right].astype(np.float32))
        scores[wrong | _repeated(query, products[right])] = -np.inf

        width = max(KNN_K, int(lengths.max(initial=0)))
        nearest = np.full((len(lengths), width), -np.inf, np.float32)
        nearest[np.arange(width) < lengths[:, None]] = scores
        nearest = -np.sort(-nearest, axis=1)
        answerable = np.isfinite(truth[:, 0])
        rows = np.random.default_rng(spec.seed).permutation(_rows_with_company(products))[: spec.queries]
        return cls(
            knn_recall=metrics.knn_recall(nearest, truth, KNN_K),
            covered=np.isfinite(nearest[answerable, 0]),
            recall=metrics.recall_at_k(vectors, products, RECALL_KS, np.sort(rows)),
            dangling=int(dangling.sum()),
            checked_ids=len(dangling),
        )


def _places(lists: pa.ChunkedArray, values: pa.StringArray) -> Any:
    """Place in `values` of each string of a column of lists, flattened; -1 where it is not there."""
    return pc.fill_null(pc.index_in(pc.list_flatten(lists).combine_chunks(), values), -1).to_numpy()


def _repeated(query: Any, product: Any) -> Any:
    """(n,) whether the query has the product further up already."""
    order = np.lexsort((product, query))
    same = (np.diff(query[order]) == 0) & (np.diff(product[order]) == 0)
    repeated = np.zeros(len(query), bool)
    repeated[order[1:]] = same
    return repeated


def _all_vectors(gallery: Gallery) -> Any:
    """(n, dim) float16 of all shards: a memory map, be it of the only shard's file or of a temporary one."""
    if len(gallery.shards) == 1:
        return gallery.shards[0].vectors
    n, dim = int(gallery.row_offsets[-1]), gallery.shards[0].dim
    with tempfile.TemporaryFile() as file:
        # Taken at once, as a full disk would otherwise end the process when a page is first written.
        os.posix_fallocate(file.fileno(), 0, n * dim * np.dtype(np.float16).itemsize)
        vectors = np.memmap(file, np.float16, "r+", shape=(n, dim))
    for shard, start in zip(gallery.shards, gallery.row_offsets, strict=False):
        vectors[start : start + shard.images] = shard.vectors
    return vectors


def _rows_with_company(products: Any) -> Any:
    """Rows whose product has another image."""
    return np.flatnonzero(np.bincount(products)[products] > 1)
