"""Triplets of a click log: a query, a product that was clicked, and one that was seen beside it and was not.

What shoppers leave is noisy, and cleaned as Zhang et al. do, "Visual Search at Alibaba", KDD 2018: a click counts where
the product is near the query; a product that was not clicked is wrong only where it is far from the query and from each
clicked one, by several signals together, or else the same thing of another seller would be trained away. Which products
a shopper saw is as Joachims has it, "Optimizing Search Engines using Clickthrough Data", KDD 2002: those above the last
click, and few below.

Every row of the log is accounted for: part of a triplet, or skipped for a reason.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add, or_
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame, SparkSession, Window, WindowSpec
from pyspark.sql import functions as F
from pyspark.sql.types import FloatType

from lookalike import files, reasons, schemas
from lookalike.config import FineTuneSettings, Settings
from lookalike.errors import ClicksInvalid, TrainingImpossible
from lookalike.formats import reason_counts
from lookalike.reasons import Reason
from lookalike.spark.contents.embed_pictures import EmbedJob, Pictures, embed_apart, task_count
from lookalike.spark.parquet_input import ParquetInput, read_input
from lookalike.spark.progress import progress_bar, progress_bars
from lookalike.spark.run import Run
from lookalike.spark.tables import conform, to_spark_schema, write_and_read
from lookalike.spark.training.stored_pictures import store_pictures

if TYPE_CHECKING:  # its module loads torch, of which the driver has no need
    from lookalike.kernels.models.networks import Preprocessing

_CLICKS = ParquetInput(
    name="click log",
    required=schemas.CLICKS_REQUIRED,
    optional=schemas.CLICKS_OPTIONAL,
    one_of=(
        (("uri", "content", "query_image_id"), "uri, content, query_image_id: all missing; a query needs one of them"),
    ),
    a_row="a row for each product shown",
    not_parquet="no Parquet file, or a damaged one; write the log as Parquet",
    invalid=ClicksInvalid,
)


@dataclass(frozen=True)
class ClickCounts:
    """Of `rows` in the click log `used` are part of a triplet and `skipped`, by reason, are not: together all rows."""

    rows: int
    used: int
    skipped: Mapping[str, int]
    queries: Mapping[str, int]  # by split
    triplets: Mapping[str, int]  # by split


def read_clicks(run: Run) -> DataFrame | None:
    """The log that the settings name, if any. Raises ClicksInvalid naming every problem of its schema."""
    uri = run.settings.fine_tune.clicks
    return read_input(run.spark, files.absolute(uri), _CLICKS) if uri else None


def write_triplets(
    run: Run, log: DataFrame, judged: DataFrame, preprocessing: "Preprocessing", folder: str
) -> ClickCounts:
    """Write `queries` and `triplets` of a click log to `folder`, where `pictures` stand.

    `judged` are the ledger's rows, as `training_rows.judged_images` gives them. Raises TrainingImpossible where no
    triplet is left to train with.
    """
    spec = run.settings.fine_tune
    staging = files.join(folder, "staging")

    def stored(rows: DataFrame, name: str) -> DataFrame:
        return write_and_read(rows, files.join(staging, name))

    whole = _whole(log)
    images = stored(_images(run.spark, judged, folder), "images")
    shown = stored(select_seen(whole, judged, images, spec), "shown")
    asked = stored(_asked(run.settings, whole, shown), "asked")
    brought = _brought(run, asked, preprocessing, files.join(staging, "queries"))
    vectors = _vectors(run, brought, files.join(staging, "vectors"))
    scored = stored(_scored(shown, _queries(asked, brought, images), images, vectors), "scored")
    typical = _typical(scored)
    sided = stored(_sided(scored, spec, typical), "sided")
    cleaned = stored(_cleaned(sided, _pairs(sided, vectors, typical), spec), "cleaned")
    triplets = stored(_triplets(cleaned, spec), "triplets")
    _write(triplets, brought, folder)
    return _counted(log, whole, triplets, _outcomes(cleaned, triplets))


def _images(spark: SparkSession, judged: DataFrame, folder: str) -> DataFrame:
    """(image_id, product_id, category, words, content_hash, kept_image_id, split) of every image that can be named.

    `kept_image_id`: the image of that content that stands in `pictures`.
    """
    pictures = spark.read.schema(to_spark_schema(schemas.TRAINING_PICTURES)).parquet(files.join(folder, "pictures"))
    stored = pictures.where("split IS NOT NULL").select(F.col("image_id").alias("kept_image_id"), "split")
    hashes = judged.select(F.col("image_id").alias("kept_image_id"), "content_hash")
    usable = judged.where(F.col("reason").isNull() | (F.col("reason") == reasons.COPY.text)).drop("split")
    usable = usable.withColumn("words", _words())
    return usable.join(stored.join(hashes, "kept_image_id"), "content_hash").select(
        "image_id", "product_id", "category", "words", "content_hash", "kept_image_id", "split"
    )


def _words() -> Column:
    """What the shop says of the product: the title's words, and the attributes."""
    title = F.split(F.lower(F.coalesce("title", F.lit(""))), r"[^\p{L}\p{N}]+")
    said = F.transform(F.map_entries("attributes"), lambda entry: F.concat_ws("=", entry["key"], entry["value"]))
    return F.array_remove(F.array_union(title, F.coalesce(said, F.array())), "")


def _whole(log: DataFrame) -> DataFrame:
    """Rows that say which product was shown for which query, and whether it was clicked."""
    blank = [F.trim(F.coalesce(F.col(name), F.lit(""))) == "" for name in ("query_id", "product_id")]
    return log.where(~blank[0] & ~blank[1] & F.col("clicked").isNotNull())


def select_seen(whole: DataFrame, judged: DataFrame, images: DataFrame, spec: FineTuneSettings) -> DataFrame:
    """(query_id, product_id, clicked, position, reason): each product shown for a query once, if it was seen."""
    shown = whole.groupBy("query_id", "product_id").agg(
        F.max("clicked").alias("clicked"), F.min("position").alias("position")
    )
    known = judged.select("product_id", F.lit(True).alias("known")).distinct()
    usable = images.select("product_id", F.lit(True).alias("usable")).distinct()
    shown = shown.join(known, "product_id", "left").join(usable, "product_id", "left")
    reason = F.when(F.col("known").isNull(), reasons.UNKNOWN_PRODUCT.text).when(
        F.col("usable").isNull(), reasons.NO_PICTURE.text
    )
    shown = shown.select("query_id", "product_id", "clicked", "position", reason.alias("reason"))
    last = F.max(F.when(_left() & F.col("clicked"), F.col("position"))).over(_by_query())
    shown = _skip(
        _skip_useless(shown), ~F.col("clicked") & (F.col("position") > last + spec.click_reach), reasons.UNSEEN
    )
    # So many of each at most: pairs are the square of it.
    alike = Window.partitionBy("query_id", "clicked", _left())
    place = F.row_number().over(alike.orderBy(F.col("position").asc_nulls_last(), "product_id"))
    return _skip(_skip_useless(shown), place > spec.triplets_per_query, reasons.BEYOND)


def _by_query() -> WindowSpec:
    return Window.partitionBy("query_id")


def _left() -> Column:
    return F.col("reason").isNull()


def _skip(rows: DataFrame, condition: Column, reason: Reason | Column) -> DataFrame:
    """`rows` with a reason where the condition holds and there is none yet."""
    given = F.lit(reason.text) if isinstance(reason, Reason) else reason
    return rows.withColumn("reason", F.coalesce("reason", F.when(condition, given)))


def _skip_useless(rows: DataFrame) -> DataFrame:
    """Skip what is left of queries that have no longer both: something clicked, and something not clicked."""
    left = F.when(_left(), F.col("clicked"))
    some_clicked, all_clicked = F.max(left).over(_by_query()), F.min(left).over(_by_query())
    rows = rows.withColumns({"some_clicked": some_clicked, "all_clicked": all_clicked})
    rows = _skip(_skip(rows, ~F.col("some_clicked"), reasons.NO_CLICK), F.col("all_clicked"), reasons.ONLY_CLICKS)
    return rows.drop("some_clicked", "all_clicked")


def _asked(settings: Settings, whole: DataFrame, shown: DataFrame) -> DataFrame:
    """(query_id, uri, content, query_image_id, refused): queries that have rows left, or why one can't be used."""
    names = ("uri", "content", "query_image_id")
    wanted = shown.where(_left()).select("query_id").distinct()
    given = reduce(or_, [F.col(name).isNotNull() for name in names])
    rows = whole.join(wanted, "query_id", "left_semi").withColumn("hash", F.when(given, F.xxhash64(*names)))
    rows = rows.groupBy("query_id").agg(
        *(F.max(name).alias(name) for name in names), F.min("hash").alias("least"), F.max("hash").alias("most")
    )
    refused = (
        F.when(F.col("least").isNull(), reasons.NO_QUERY.text)
        .when(F.col("least") != F.col("most"), reasons.SEVERAL_QUERIES.text)
        .when(F.length("content") > settings.ingest.max_image_bytes, f"{reasons.OF_QUERY}{reasons.TOO_LARGE.text}")
    )
    return rows.select("query_id", *names, refused.alias("refused"))


def _brought(run: Run, asked: DataFrame, preprocessing: "Preprocessing", path: str) -> DataFrame:
    """(query_id, content_hash, picture, reason) of queries whose picture the log brings, from files at `path`."""
    rows = asked.where("refused IS NULL AND query_image_id IS NULL")
    rows = rows.select("query_id", "uri", "content")
    total = rows.count()
    tasks = task_count(total, run.spark.sparkContext.defaultParallelism, run.settings.embed)
    with progress_bar(run.console, run.spark.sparkContext, "queries", total) as count:
        return write_and_read(
            store_pictures(rows.repartition(tasks, "query_id"), preprocessing, run.settings, count), path
        )


def _queries(asked: DataFrame, brought: DataFrame, images: DataFrame) -> DataFrame:
    """(query_id, query_hash, query_image_id, query_product, query_split, refused) of every query.

    Image, product and split are those of the catalog's picture that the query is, if it is one.
    """
    named = asked.where("refused IS NULL AND query_image_id IS NOT NULL").select("query_id", "query_image_id")
    of_image = images.select(F.col("image_id").alias("query_image_id"), "content_hash")
    named = named.join(of_image, "query_image_id", "left")
    named = named.withColumn("refused", F.when(F.col("content_hash").isNull(), reasons.UNKNOWN_QUERY.text))
    refused = F.concat(F.lit(reasons.OF_QUERY), "reason")
    queries = (
        brought.select("query_id", "content_hash", refused.alias("refused"))
        .unionByName(named.select("query_id", "content_hash", "refused"))
        .unionByName(asked.where("refused IS NOT NULL").select("query_id", "refused"), allowMissingColumns=True)
    )
    catalog = images.where("image_id = kept_image_id").select(
        "content_hash",
        F.col("image_id").alias("query_image_id"),
        F.col("product_id").alias("query_product"),
        F.col("split").alias("query_split"),
    )
    return queries.join(catalog, "content_hash", "left").withColumnRenamed("content_hash", "query_hash")


def _vectors(run: Run, brought: DataFrame, path: str) -> DataFrame:
    """(content_hash, embedding) by the run's model: of the catalog, and of what queries brought, by files at `path`."""
    embeddings = run.tables.read("embeddings")
    known = embeddings.where(F.col("model_id") == run.model_id).select("content_hash", "embedding")
    new = brought.where("picture IS NOT NULL").dropDuplicates(["content_hash"]).join(known, "content_hash", "left_anti")
    # Embedded as stored, so that bytes behind a uri need not be read again.
    rows = new.select(
        F.col("content_hash").alias("key"),
        F.lit(None).cast("string").alias("uri"),
        F.sha2("picture", 256).alias("content_hash"),
    )
    carried = new.select(F.col("content_hash").alias("key"), F.col("picture").alias("content"))
    total = new.count()
    with progress_bars(run.console, run.spark.sparkContext, {"read queries": 0, "embed queries": total}) as counts:
        job = EmbedJob(run.settings, run.model_id, path, *counts)
        pictures = Pictures.by_hash(rows, carried, total, run.settings.embed)
        embedded = embed_apart(pictures, embeddings, job).where("embedding IS NOT NULL")
    return known.unionByName(embedded.select(F.col("key").alias("content_hash"), "embedding"))


def _scored(shown: DataFrame, queries: DataFrame, images: DataFrame, vectors: DataFrame) -> DataFrame:
    """`shown` with its query's columns and, of each product, the image that is most like the query, and its score."""
    rows = shown.join(queries, "query_id", "left")
    rows = _skip(rows, F.col("refused").isNotNull(), F.col("refused"))
    rows = _skip(rows, F.col("product_id") == F.col("query_product"), reasons.OWN)
    pairs = rows.where(_left()).select("query_id", "product_id", "query_hash")
    pairs = pairs.join(vectors.toDF("query_hash", "query_embedding"), "query_hash")
    pairs = pairs.join(images.drop("image_id"), "product_id").join(vectors, "content_hash")
    image = F.struct("kept_image_id", "content_hash", "category", "words", "split")
    pairs = pairs.select(
        "query_id", "product_id", _cosine("query_embedding", "embedding").alias("score"), image.alias("image")
    )
    best = pairs.groupBy("query_id", "product_id").agg(
        F.max(F.struct("score", "image.kept_image_id", "image")).alias("best")
    )
    best = best.select("query_id", "product_id", "best.score", "best.image.*")
    rows = rows.join(best, ["query_id", "product_id"], "left")
    rows = _skip(rows, F.col("score").isNull(), reasons.NO_PICTURE)
    return _skip(rows, F.col("kept_image_id") == F.col("query_image_id"), reasons.OWN)


def _cosine(left: str, right: str) -> Column:
    """Cosine similarity of two columns of L2-normalised embeddings."""
    cosine: Column = F.arrow_udf(_dots, FloatType())(left, right)  # type: ignore[attr-defined]  # the stubs lack it
    return cosine


def _dots(left: pa.Array, right: pa.Array) -> pa.Array:
    n = len(left)
    both = [side.flatten().to_numpy(zero_copy_only=False).reshape(n, -1 if n else 0) for side in (left, right)]
    return pa.array(np.einsum("nd,nd->n", *both), pa.float32())


def _typical(scored: DataFrame) -> float:
    """How unlike a query the shown products are on average, as 1 - score: the unit of unlikeness, for any model."""
    mean: float | None = scored.where(_left()).agg(F.avg(1 - F.col("score"))).collect()[0][0]
    return max(mean or 0.0, 1e-6)


def _sided(scored: DataFrame, spec: FineTuneSettings, typical: float) -> DataFrame:
    """`scored` with the `side` of its query; what is on the other, and clicks that are noise, are skipped.

    A query is where its picture is, if that is the catalog's, or else where what was first clicked for it is.
    """
    rows = _skip(scored, F.col("clicked") & (1 - F.col("score") > spec.clicked_within * typical), reasons.CLICK_FAR)
    first = F.struct(F.col("position").isNull(), "position", "product_id", "split")
    same_picture = Window.partitionBy("query_hash")
    clicked = F.min(F.when(_left() & F.col("clicked"), first)).over(same_picture)["split"]
    rows = rows.withColumn("side", F.coalesce("query_split", clicked))
    return _skip_useless(_skip(rows, F.col("split") != F.col("side"), reasons.OTHER_SIDE))


def _pairs(sided: DataFrame, vectors: DataFrame, typical: float) -> DataFrame:
    """(query_id, clicked_product, unclicked_product, unlike) of what is left: the latter's unlikeness to both others.

    Of query and product only the pictures are compared; of two products the mean of what is known counts, of picture,
    category and words.
    """
    columns = ("product_id", "score", "content_hash", "category", "words")
    sides = []
    for name, clicked in (("clicked", True), ("unclicked", False)):
        rows = sided.where(_left() & (F.col("clicked") == clicked)).join(vectors, "content_hash")
        renamed = [F.col(column).alias(f"{name}_{column}") for column in (*columns, "embedding")]
        sides.append(rows.select("query_id", *renamed))
    pairs = sides[0].join(sides[1], "query_id")
    pairs = pairs.withColumn("cosine", _cosine("clicked_embedding", "unclicked_embedding"))
    words = [F.size(size("clicked_words", "unclicked_words")) for size in (F.array_intersect, F.array_union)]
    said = (F.size("clicked_words") > 0) & (F.size("unclicked_words") > 0)
    signals = [
        (1 - F.col("cosine")) / typical,
        (F.col("clicked_category") != F.col("unclicked_category")).cast("double"),
        F.when(said, 1 - words[0] / words[1]),
    ]
    total = reduce(add, [F.coalesce(signal, F.lit(0.0)) for signal in signals])
    known = reduce(add, [signal.isNotNull().cast("int") for signal in signals])
    unlike = F.least(total / known, (1 - F.col("unclicked_score")) / typical)
    return pairs.select(
        "query_id",
        F.col("clicked_product_id").alias("clicked_product"),
        F.col("unclicked_product_id").alias("unclicked_product"),
        unlike.alias("unlike"),
    )


def _cleaned(sided: DataFrame, pairs: DataFrame, spec: FineTuneSettings) -> DataFrame:
    """`sided` without those unclicked products that may be what was asked for."""
    least = pairs.groupBy("query_id", F.col("unclicked_product").alias("product_id")).agg(
        F.min("unlike").alias("unlike")
    )
    rows = sided.join(least, ["query_id", "product_id"], "left")
    return _skip_useless(_skip(rows, F.col("unlike") < spec.unclicked_beyond, reasons.UNCLICKED_NEAR))


def _triplets(cleaned: DataFrame, spec: FineTuneSettings) -> DataFrame:
    """(query_id, clicked_product, unclicked_product, ...) of each query by chance so many, and what schemas says."""
    left = cleaned.where(_left())
    image = F.col("kept_image_id")
    clicked = left.where("clicked").select(
        "query_id", "query_image_id", F.col("side").alias("split"), "product_id", image.alias("positive_image_id")
    )
    unclicked = left.where("NOT clicked").select(
        "query_id", F.col("product_id").alias("unclicked_product"), image.alias("negative_image_id")
    )
    rows = clicked.withColumnRenamed("product_id", "clicked_product").join(unclicked, "query_id")
    chance = F.xxhash64(F.lit(spec.seed), "query_id", "clicked_product", "unclicked_product")
    place = F.row_number().over(_by_query().orderBy(chance, "clicked_product", "unclicked_product"))
    return rows.withColumn("place", place).where(F.col("place") <= spec.triplets_per_query).drop("place")


def _outcomes(cleaned: DataFrame, triplets: DataFrame) -> DataFrame:
    """`cleaned` with a reason for all that is in no triplet."""
    used = triplets.select("query_id", F.explode(F.array("clicked_product", "unclicked_product")).alias("product_id"))
    used = used.distinct().withColumn("used", F.lit(True))
    return _skip(cleaned.join(used, ["query_id", "product_id"], "left"), F.col("used").isNull(), reasons.BEYOND)


def _write(triplets: DataFrame, brought: DataFrame, folder: str) -> None:
    by_log = F.when(F.col("query_image_id").isNull(), F.col("query_id"))
    rows = triplets.withColumn("query_id", by_log)
    conform(rows, schemas.TRAINING_TRIPLETS).write.parquet(files.join(folder, "triplets"))
    splits = triplets.where("query_image_id IS NULL").select("query_id", "split").distinct()
    queries = brought.select("query_id", "picture").join(splits, "query_id")
    conform(queries, schemas.TRAINING_QUERIES).write.parquet(files.join(folder, "queries"))


def _counted(log: DataFrame, whole: DataFrame, triplets: DataFrame, outcomes: DataFrame) -> ClickCounts:
    """Raises TrainingImpossible where there is no triplet to train with."""
    total, complete = log.count(), whole.count()
    skipped = {row["reason"]: row["count"] for row in outcomes.groupBy("reason").count().collect()}
    doubles = complete - sum(skipped.values())
    used = skipped.pop(None, 0)
    skipped |= {
        reason: n
        for reason, n in ((reasons.INCOMPLETE.text, total - complete), (reasons.SHOWN_TWICE.text, doubles))
        if n
    }
    query = F.coalesce("query_id", "query_image_id")
    sides = triplets.groupBy("split").agg(F.count("*").alias("triplets"), F.count_distinct(query).alias("queries"))
    by_split = {row["split"]: row for row in sides.collect()}
    counts = ClickCounts(
        rows=total,
        used=used,
        skipped=skipped,
        queries={split: row["queries"] for split, row in by_split.items()},
        triplets={split: row["triplets"] for split, row in by_split.items()},
    )
    if "train" not in by_split:
        left_out = reason_counts(sorted(skipped.items()))
        raise TrainingImpossible(
            f"the click log gives no triplet to train with; of its {total:,} rows {used:,} are in the validation, left "
            f"out are: {left_out}"
        )
    return counts
