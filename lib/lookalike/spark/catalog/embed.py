"""Embed: images of the ledger that await it -> `embeddings`, each content once, and the ledger's statuses.

Images go chunk by chunk. A chunk's embeddings are committed first, then the ledger's rows of its images: after a crash
no content is embedded twice, and no image of an earlier chunk is read again.
"""

from collections.abc import Collection, Iterator, Mapping
from functools import reduce
from operator import or_

import pyarrow as pa
from pyspark import StorageLevel
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from lookalike import files, reasons, schemas
from lookalike.errors import ManifestChanged, ManifestInvalid, first_few
from lookalike.spark.catalog.gallery import select_embedded
from lookalike.spark.catalog.ingest import KEY, Compared, known_partitions
from lookalike.spark.category_conditions import is_among, is_in_bucket_of
from lookalike.spark.contents.embed_pictures import (
    OUTCOMES,
    EmbedJob,
    Pictures,
    embed_pictures,
    known_contents,
)
from lookalike.spark.contents.given_embeddings import unit_embeddings
from lookalike.spark.progress import Count, progress_bar, progress_bars
from lookalike.spark.run import Run, StageFigures, console
from lookalike.spark.secrets import withhold_secrets
from lookalike.spark.tables import Tables, conform, make_local_frame, to_spark_schema
from lookalike.spark.tasks import place_in_parts

_STATUSES = ("embedded", "reused", "rejected")
_CONTENT = ("content_hash", "width", "height")
_PLACES = pa.schema({"bucket": pa.int32(), "first": pa.int32(), "parts": pa.int32()})


def embed(run: Run, compared: Compared) -> dict[str, int]:
    """Give every waiting image its embedding and its status. The rows `compared` by `ingest` are let go at the end.

    Returns how many images were embedded, reused and rejected. Raises ManifestInvalid where a category would lose
    images by that, see `check_left_behind`; and ManifestChanged.
    """
    with run.stage("embed") as figures:
        figures.counts, figures.images = dict.fromkeys(_STATUSES, 0), 0
        waiting = compared.rows.where("outcome = 'waiting'").drop("outcome", "changed", "new", "old_bucket")
        try:
            if compared.counts["waiting"]:
                categories = {row["category"] for row in waiting.select("category").distinct().collect()}
                check_left_behind(run, waiting, categories)
                _embed_waiting(run, waiting, categories, figures)
            _check_counts(compared.counts["waiting"], figures)
        finally:
            compared.rows.unpersist()
    return {status: figures.counts[status] for status in _STATUSES}


def check_left_behind(run: Run, waiting: DataFrame, categories: Collection[str]) -> None:
    """Raises ManifestInvalid where the `categories` of `waiting` have images of another model that do not wait.

    The categories' next versions would be of this model, so without these images.
    """
    images = run.tables.read("images").where((F.col("model_id") != run.model_id) & is_in_bucket_of(categories))
    others = select_embedded(images)
    if others.isEmpty():  # as a rule; Delta then reads nothing
        return
    others = others.join(F.broadcast(waiting.select("category").distinct()), "category", "left_semi")
    behind = others.join(waiting.select("image_id"), "image_id", "left_anti").groupBy("category").count()
    rows = behind.orderBy(F.desc("count"), "category").collect()
    if rows:
        named = first_few([f"{row['count']:,} of {row['category']}" for row in rows])
        without = "without --retry-rejected and " if run.selection.retry else ""
        raise ManifestInvalid(
            f"another model embedded images that this run leaves out, so categories would lose them: {named}; if "
            f"model {run.model_id} is no mistake, run {without}with a manifest of all images of these categories, in "
            "which those that are gone are `deleted`"
        )


def _check_counts(waited: int, figures: StageFigures) -> None:
    """Raises ManifestChanged where other images were met than ingest found waiting."""
    if (met := sum(figures.counts[status] for status in _STATUSES)) != waited:
        raise ManifestChanged(
            f"{waited:,} images waited to be embedded, and {met:,} were met: the manifest or the ledger changed while "
            "the run was at work, so nothing was published: run this again"
        )


def _embed_waiting(run: Run, waiting: DataFrame, categories: Collection[str], figures: StageFigures) -> None:
    """Embed `waiting`, which are of these `categories`."""
    other_bytes = 0
    keyed = with_keys(waiting).persist(StorageLevel.DISK_ONLY)
    try:
        for outcomes in _outcomes(run, keyed, run.manifest.where(is_among(categories)), figures):
            run.check_manifest()
            settled = set_statuses(keyed, outcomes, run.model_id, run.run_id).persist(StorageLevel.DISK_ONLY)
            parts = settled.groupBy("counted", "changed", "bucket", "other_bytes").count().collect()
            if buckets := {part["bucket"] for part in parts if part["changed"]}:  # where the ledger has these rows
                run.tables.upsert("images", settled.where("changed"), KEY, partitions=known_partitions(buckets))
            settled.unpersist()
            for part in parts:
                figures.counts[part["counted"]] += part["count"]
                other_bytes += part["count"] if part["other_bytes"] else 0
    finally:
        keyed.unpersist()
    if other_bytes:
        figures.counts["other_bytes"] = other_bytes
        console().print(
            f"{other_bytes:,} images have other bytes than when they were last read, at the same uri; if their server "
            "encodes each answer anew, give updated_at in the manifest: then they are read only when it changes",
            highlight=False,
            soft_wrap=True,
        )


def with_keys(waiting: DataFrame) -> DataFrame:
    """`waiting` with the `key` of its picture: of rows with the same known content, the image_id of one of them.

    That one carries its bytes, if any does.
    """
    content = F.coalesce(F.when(~F.col("must_read"), F.col("content_hash")), F.col("image_id"))
    same = Window.partitionBy("stated", content)
    return waiting.withColumn("key", F.min(F.struct("given_uri", "image_id")).over(same)["image_id"])


def _outcomes(run: Run, keyed: DataFrame, manifest: DataFrame, figures: StageFigures) -> Iterator[DataFrame]:
    """OUTCOMES of every key of `keyed`, in parts. What was embedded stands in `embeddings` before its part comes."""
    seen_at = run.tables.delta_version("embeddings")
    known = known_contents(run.tables.read("embeddings"), run.model_id)
    hashed = keyed.where("NOT must_read AND content_hash IS NOT NULL").select("key", "content_hash").distinct()
    met = known.join(hashed, "content_hash", "left_semi").persist(StorageLevel.DISK_ONLY)
    reused = hashed.join(met, "content_hash").withColumns(
        {"reason": F.lit(None).cast("string"), "is_new": F.lit(False)}
    )
    reused = conform(reused, OUTCOMES)
    pictures = keyed.where("image_id = key")
    is_met = ~pictures["must_read"] & (pictures["content_hash"] == met["content_hash"])
    todo = pictures.join(met.select("content_hash"), is_met, "left_anti").persist(StorageLevel.DISK_ONLY)
    try:
        sizes = {row["bucket"]: row["count"] for row in todo.groupBy("bucket").count().collect()}
        figures.images = sum(sizes.values())
        if not sizes:
            yield reused
        elif dim := run.given_dim:
            with progress_bar(run.console, run.spark.sparkContext, "embed", figures.images) as count:
                yield reused.unionByName(_store_given(run, manifest, todo, seen_at, dim, count))
        else:
            chunks = _embed_chunks(run, manifest, todo, sizes, known, seen_at)
            yield next(chunks).unionByName(reused)
            yield from chunks
    finally:
        todo.unpersist()
        met.unpersist()


def _embed_chunks(
    run: Run, manifest: DataFrame, todo: DataFrame, sizes: Mapping[int, int], known: DataFrame, seen_at: int
) -> Iterator[DataFrame]:
    """OUTCOMES of `todo`, chunk by chunk: few buckets of the ledger in each, as their rows are then written anew.

    `sizes` are the pictures by bucket. At its version `seen_at` `embeddings` has the contents `known` and no others.
    """
    places, chunks = place_in_parts(sizes, run.settings.embed.commit_images)
    place_of = F.broadcast(make_local_frame(run.spark, places, _PLACES))
    part = F.pmod(F.xxhash64("key"), F.col("parts")).cast("int")
    rows = todo.join(place_of, "bucket").select(
        "key",
        F.col("given_uri").alias("uri"),
        F.when(F.col("stated"), F.col("content_hash")).alias("content_hash"),
        (F.col("first") + part).alias("chunk"),
    )
    carried = manifest.where("content IS NOT NULL").select(F.col("image_id").alias("key"), "content")
    pictures = Pictures(rows, carried, sum(sizes.values()), chunks)
    staging = files.join(run.settings.root, "staging", run.run_id, "embed")
    bars = {"read": pictures.total, "embed": pictures.total}
    try:
        with progress_bars(run.console, run.spark.sparkContext, bars) as (count_read, count_embedded):
            job = EmbedJob(run.settings, run.model_id, staging, count_read, count_embedded)
            for chunk in embed_pictures(pictures, known, job):
                if not chunk.embeddings.isEmpty():
                    new = chunk.embeddings.withColumn("run_id", F.lit(run.run_id))
                    seen_at = _store(run.tables, new, seen_at)
                yield chunk.outcomes
    finally:
        files.remove(files.join(run.settings.root, "staging", run.run_id))


def _store(tables: Tables, embeddings: DataFrame, seen_at: int) -> int:
    """Add `embeddings`, which the table had none of at `seen_at`. Gives the next such version, if nobody else wrote."""
    tables.insert("embeddings", embeddings, schemas.EMBEDDINGS_KEY, seen_at)
    return max(seen_at, 0) + 1  # a table that was missing is made first, by a commit of its own


def _store_given(run: Run, manifest: DataFrame, todo: DataFrame, seen_at: int, dim: int, count: Count) -> DataFrame:
    """Store the embeddings that the manifest brings, in one commit, as nothing costly could be lost; gives OUTCOMES."""
    given = manifest.select(F.col("image_id").alias("key"), "embedding")
    wanted = todo.select("key", "content_hash")
    no_size = {name: F.lit(None).cast("int") for name in ("width", "height")}
    new = unit_embeddings(given, wanted, dim, run.model_id, count).withColumns(no_size)
    alone_at = _store(run.tables, new.withColumn("run_id", F.lit(run.run_id)), seen_at)
    stored = run.tables.read("embeddings").where(F.col("model_id") == run.model_id)
    if run.tables.delta_version("embeddings") == alone_at:  # else another job may have stored some of these meanwhile
        stored = stored.where(F.col("run_id") == run.run_id)
    rows = wanted.join(stored.select(*_CONTENT), "content_hash")
    return conform(rows.withColumns({"reason": F.lit(None).cast("string"), "is_new": F.lit(True)}), OUTCOMES)


def set_statuses(keyed: DataFrame, outcomes: DataFrame, model_id: str, run_id: str) -> DataFrame:
    """Rows of `images` for those of `keyed` whose key is in `outcomes`, with their final status.

    `counted`: embedded, reused or rejected; of the rows of a new content, the one with the least image_id is embedded.
    `changed`: whether the row differs from the ledger's. `other_bytes`: whether the bytes are others although uri and
    updated_at are as before. An image that is embedded, and can't be read for a cause that may pass, stays as it was.
    """
    rows = _beside_outcomes(keyed, outcomes, model_id).withColumn("run_id", F.lit(run_id))
    refused = F.col("outcome_reason").isNotNull()
    status = F.when(refused, "rejected").when(F.col("is_first"), "embedded").otherwise("reused")
    values = {
        "uri": withhold_secrets(F.col("given_uri")),
        "updated_at": F.col("given_updated_at"),
        **{name: F.col(f"outcome_{name}") for name in (*_CONTENT, "reason")},
        "model_id": F.lit(model_id),
        "status": F.when(F.col("as_before"), F.col("status")).otherwise(status),
    }
    changed = reduce(or_, (~F.col(name).eqNullSafe(value) for name, value in values.items()))
    same_place = F.col("uri").eqNullSafe(values["uri"]) & F.col("updated_at").eqNullSafe(values["updated_at"])
    differs = F.coalesce(F.col("content_hash") != F.col("outcome_content_hash"), F.lit(False))
    return rows.select(
        *[values.get(name, F.col(name)).alias(name) for name in to_spark_schema(schemas.IMAGES).names],
        F.when(F.col("stays"), "reused").otherwise(status).alias("counted"),
        (~F.col("stays") & changed).alias("changed"),
        (same_place & ~F.col("stated") & ~refused & differs).alias("other_bytes"),
    )


def _beside_outcomes(keyed: DataFrame, outcomes: DataFrame, model_id: str) -> DataFrame:
    """`keyed` with the outcome of its key as `outcome_*`, and with what decides the status.

    `stays`: embedded before, and not readable just now; `as_before`: embedded before, and of the same content;
    `is_first`: whose content was embedded just now, and no other row of it has a lower image_id.
    """
    renamed = [F.col(name).alias(f"outcome_{name}") for name in (*_CONTENT, "reason")]
    rows = keyed.join(outcomes.select("key", *renamed, "is_new"), "key", "inner")
    content_hash = F.col("outcome_content_hash")
    ours = (F.col("model_id") == model_id) & F.col("status").isin("embedded", "reused")
    stays = ours & F.col("outcome_reason").isin(*reasons.TRANSIENT)
    as_before = ours & F.col("outcome_reason").isNull() & (content_hash == F.col("content_hash"))
    first = F.min("image_id").over(Window.partitionBy(F.coalesce(content_hash, "image_id")))
    return rows.withColumns(
        {
            "stays": F.coalesce(stays, F.lit(False)),
            "as_before": F.coalesce(as_before, F.lit(False)),
            "is_first": F.col("is_new") & (F.col("image_id") == first),
        }
    )
