"""Placeholders: a picture such as "coming soon" that is the only one of many products of different titles.

Pictures count as one by their embeddings. At most _LEADERS of them, those of most products, are compared with all, so
the work grows with the catalog and not with its square. Sellers' offers of one product share a picture too; they are
told apart by their titles.
"""

from collections.abc import Iterator

import pyarrow as pa
from pyspark import StorageLevel
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from lookalike import schemas
from lookalike.kernels.index.build import stack_embeddings
from lookalike.kernels.pictures.placeholders import (
    choose_leaders,
    count_different_titles,
    find_leaders,
    make_sign_keys,
)
from lookalike.spark.catalog.gallery import select_live
from lookalike.spark.run import Run, console
from lookalike.spark.tables import Tables, make_local_frame, to_spark_schema

_LEADERS = 1_024
_TITLES = 100  # of each picture, by hash
_GROUPS = pa.schema({"content_hash": pa.string(), "placeholder": pa.string()})

STAGE = "placeholders"


def find_placeholders(run: Run) -> None:
    """Store in `placeholders` the products whose only picture is one, unless ledger and settings are as they were."""
    with run.stage(STAGE) as figures:
        figures.decisions = {
            "model_id": run.model_id,
            "images_table_version": str(run.tables.delta_version("images")),
            "placeholder_products": str(run.settings.ingest.placeholder_products),
        }
        if figures.decisions != _read_last_inputs(run.tables):
            _store(run)
        pictures, products = count_placeholders(run.tables.read("placeholders"))
        figures.counts = {"placeholders": pictures, "products": products}
        if pictures:
            stand = "one picture stands" if pictures == 1 else f"{pictures:,} pictures stand"
            console().print(f"placeholders: {stand} for {products:,} products, see the report", highlight=False)


def count_placeholders(placeholders: DataFrame) -> tuple[int, int]:
    """The pictures, and the products for which they stand."""
    totals = placeholders.agg(F.count_distinct("placeholder"), F.count("*")).first()
    assert totals
    return totals[0], totals[1]


def mark_unavailable(run: Run, images: DataFrame) -> DataFrame:
    """Ledger rows, of which products with a placeholder are not available if the settings leave these out."""
    if not run.settings.similar_items.leave_out_placeholders:
        return images
    placeholders = run.tables.read("placeholders").select("product_id", F.lit(True).alias("is_placeholder"))
    available = F.col("available") & F.col("is_placeholder").isNull()
    return images.join(placeholders, "product_id", "left").withColumn("available", available).drop("is_placeholder")


def leave_out(run: Run, products: DataFrame) -> DataFrame:
    """Rows with a `product_id`, without products that have a placeholder if the settings leave these out."""
    if not run.settings.similar_items.leave_out_placeholders:
        return products
    return products.join(run.tables.read("placeholders"), "product_id", "left_anti")


def _read_last_inputs(tables: Tables) -> dict[str, str] | None:
    last = tables.read("runs").where(F.col("stage") == STAGE).orderBy(F.desc("started_at")).first()
    return last["decisions"] if last else None


def _store(run: Run) -> None:
    images = select_live(run.tables.read("images"), run.model_id).select("product_id", "content_hash", "title")
    least_products = run.settings.ingest.placeholder_products
    pictures = select_only_pictures(images).persist(StorageLevel.DISK_ONLY)
    products = None
    try:
        total = pictures.agg(F.sum("products")).first()
        if total is None or (total[0] or 0) < least_products:  # as a rule where products have several pictures
            run.tables.replace("placeholders", make_local_frame(run.spark, [], schemas.PLACEHOLDERS))
            return
        if run.given_dim:  # what the cosine of a shop's own embeddings says of pictures is not known
            groups = pictures.withColumn("placeholder", F.col("content_hash"))
        else:
            groups = group_pictures(pictures, run.tables.read("embeddings").where(F.col("model_id") == run.model_id))
        products = select_products(images, groups).persist(StorageLevel.DISK_ONLY)
        placeholders = select_placeholders(products, least_products)
        rows = products.join(placeholders, "placeholder", "left_semi").withColumn("run_id", F.lit(run.run_id))
        run.tables.replace("placeholders", rows)
    finally:
        pictures.unpersist()
        if products is not None:
            products.unpersist()


def select_only_pictures(images: DataFrame) -> DataFrame:
    """(content_hash, products): contents that are the only one of some products, and of how many."""
    first, last = F.min("content_hash").alias("content_hash"), F.max("content_hash").alias("last")
    by_product = images.groupBy("product_id").agg(first, last).where("content_hash = last")
    return by_product.groupBy("content_hash").agg(F.count("*").alias("products"))


def group_pictures(pictures: DataFrame, embeddings: DataFrame) -> DataFrame:
    """(content_hash, placeholder): contents nearly identical to a leading one of `pictures`, and which that is."""
    vectors = embeddings.select("content_hash", "embedding")
    keys = vectors.mapInArrow(_key_batches, "content_hash string, sign_key long")
    leading = F.max_by("content_hash", F.struct("products", "content_hash")).alias("content_hash")
    by_key = pictures.join(keys, "content_hash").groupBy("sign_key").agg(leading, F.sum("products").alias("products"))
    first = by_key.orderBy(F.desc("products"), "content_hash").limit(_LEADERS)
    rows = vectors.join(F.broadcast(first), "content_hash").orderBy(F.desc("products"), "content_hash").toArrow()
    if not rows.num_rows:
        return pictures.withColumn("placeholder", F.col("content_hash"))
    embedded = stack_embeddings(rows)
    chosen, least = choose_leaders(embedded)
    names, leaders = rows["content_hash"].combine_chunks().take(pa.array(chosen)), embedded[chosen]

    def assign(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in filter(len, batches):
            nearest = find_leaders(stack_embeddings(pa.table(batch)), leaders, least)
            contents = batch["content_hash"].filter(pa.array(nearest >= 0))
            yield pa.record_batch([contents, names.take(pa.array(nearest[nearest >= 0]))], names=_GROUPS.names)

    return vectors.mapInArrow(assign, to_spark_schema(_GROUPS))


def _key_batches(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in filter(len, batches):
        keys = make_sign_keys(stack_embeddings(pa.table(batch)))
        yield pa.record_batch([batch["content_hash"], pa.array(keys)], names=["content_hash", "sign_key"])


def select_products(images: DataFrame, groups: DataFrame) -> DataFrame:
    """(product_id, title, placeholder): products all of whose `images` are of one group of `groups`."""
    by_product = images.join(groups, "content_hash", "left").groupBy("product_id")
    first, last = F.min("placeholder").alias("placeholder"), F.max("placeholder").alias("last")
    is_known = F.bool_and(F.col("placeholder").isNotNull()).alias("is_known")
    products = by_product.agg(F.min("title").alias("title"), first, last, is_known)
    return products.where("is_known AND placeholder = last").select("product_id", "title", "placeholder")


def select_placeholders(products: DataFrame, least_products: int) -> DataFrame:
    """(placeholder): groups that are the only picture of so many products of different titles, or of more."""
    often = products.groupBy("placeholder").count().where(F.col("count") >= least_products)
    known = F.coalesce("title", "product_id").alias("known_as")
    named = products.join(often, "placeholder", "left_semi").select("placeholder", "title", known).distinct()
    by_hash = Window.partitionBy("placeholder").orderBy(F.xxhash64("known_as"), "known_as")
    sample = named.withColumn("place", F.row_number().over(by_hash)).where(F.col("place") <= _TITLES)
    titles = F.collect_list(F.coalesce("title", F.lit(""))).alias("titles")
    count_titles = F.udf(count_different_titles, "int", useArrow=False)
    by_placeholder = sample.groupBy("placeholder").agg(titles)
    return by_placeholder.where(count_titles("titles") >= least_products).select("placeholder")
