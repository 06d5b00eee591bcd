"""Similar items: every product's nearest other products, from the shards by path.

A task is a list of blocks, each some rows of one shard; the products that begin in them are the queries. Nothing but
its own file names goes to a task, and nothing but matches comes back. Blocks of small categories are put together, so
that a task is about as much work whatever the catalog.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import faiss
import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, Row, SparkSession

from lookalike import schemas
from lookalike.kernels.index import search
from lookalike.kernels.index.search import Gallery
from lookalike.spark.catalog.placeholders import leave_out
from lookalike.spark.catalog.versions import Version, find_missing
from lookalike.spark.open_galleries import keep_galleries_open
from lookalike.spark.progress import Count, progress_bar
from lookalike.spark.run import Run
from lookalike.spark.tasks import TASK_IMAGES, group_by_size, run_tasks

BATCH_PRODUCTS = 2_048  # products whose matches are in hand at once


@dataclass(frozen=True)
class Block:
    """Queries: the products of a version that begin in rows `start` to `stop` of one of its shards."""

    shards: tuple[Row, ...]  # the version's rows of `shards`
    place: int  # of the query shard in `shards`
    start: int
    stop: int


def similar_items(run: Run, versions: Sequence[Version]) -> None:
    """Find and store the similar items of `versions`, whose shards are registered."""
    with run.stage("similar_items") as figures:
        run.tables.create("similar_items")  # services read it, also where no product has a similar one
        lacking_at = run.tables.delta_version("similar_items")
        # A lone product has no similar items: its version would be missing for ever.
        todo = [v.key for v in find_missing(run.tables, "similar_items", versions) if v.several_products]
        rows = [Row(**row) for row in run.tables.rows_of("shards", todo)]
        figures.images = sum(row["ntotal"] for row in rows)
        with progress_bar(run.console, run.spark.sparkContext, "similar_items", figures.images) as count:
            items = find_similar_products(run.spark, rows, run.settings.root, run.settings.similar_items.k, count)
            if rows:
                run.tables.append_new("similar_items", leave_out(run, items), schemas.VERSION_KEY, lacking_at)
        figures.counts = {"images": figures.images}


def find_similar_products(spark: SparkSession, shard_rows: Sequence[Row], root: str, k: int, count: Count) -> DataFrame:
    """Rows of `similar_items` for every product of the versions that `shard_rows` (of `shards`) describe.

    `count` is told the images whose products are done.
    """
    tasks = list(group_by_size(_blocks(shard_rows), lambda block: block.stop - block.start, TASK_IMAGES))

    def find(blocks: Sequence[Block]) -> Iterator[pa.RecordBatch]:
        faiss.omp_set_num_threads(1)
        return _join_batches(_search_blocks(root, blocks, k, count))

    return run_tasks(spark, tasks, find, schemas.SIMILAR_ITEMS)


def _blocks(shard_rows: Sequence[Row]) -> Iterator[Block]:
    versions: dict[tuple[str, str], list[Row]] = {}
    for row in sorted(shard_rows, key=lambda row: (row["category"], row["version"], row["shard"])):
        versions.setdefault((row["category"], row["version"]), []).append(row)
    for shards in versions.values():
        for place, row in enumerate(shards):
            for start in range(0, row["ntotal"], TASK_IMAGES):
                yield Block(tuple(shards), place, start, min(start + TASK_IMAGES, row["ntotal"]))


def _search_blocks(root: str, blocks: Sequence[Block], k: int, count: Count) -> Iterator[pa.RecordBatch]:
    versions = list(dict.fromkeys(block.shards for block in blocks))
    opened = keep_galleries_open(root, [[row.asDict() for row in shards] for shards in versions])
    galleries = dict(zip(versions, opened, strict=True))
    for block in blocks:
        yield from _matches(galleries[block.shards], block, k)
        count(block.stop - block.start)


def _join_batches(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows in batches worth their way to Spark."""
    for some in group_by_size(batches, lambda batch: batch.num_rows, BATCH_PRODUCTS):
        yield from pa.Table.from_batches(some).combine_chunks().to_batches()


def _matches(gallery: Gallery, block: Block, k: int) -> Iterator[pa.RecordBatch]:
    shard, row = gallery.shards[block.place], block.shards[block.place]
    first, last = np.searchsorted(shard.product_starts[:-1], [block.start, block.stop]).tolist()
    for start in range(first, last, BATCH_PRODUCTS):
        products = range(start, min(start + BATCH_PRODUCTS, last))
        nearest = search.search_similar(gallery, block.place, products, k)
        first_row = shard.product_starts[start]
        columns = {
            "category": pa.repeat(row["category"], len(nearest.row)),
            "version": pa.repeat(row["version"], len(nearest.row)),
            "product_id": shard.product_ids.take(shard.product_starts[nearest.group + start]),
            "rank": pa.array(nearest.rank.astype(np.int32)),
            "similar_product_id": gallery.take("product_id", nearest.row),
            "image_id": shard.image_ids.take(nearest.query + first_row),
            "similar_image_id": gallery.take("image_id", nearest.row),
            "score": pa.array(nearest.score),
        }
        yield pa.RecordBatch.from_pydict(columns, schema=schemas.SIMILAR_ITEMS)
