"""Embed: images of the ledger that await it -> `embeddings`, each content once, and the ledger's statuses.

`mapInArrow` carries the rows: as fast as the other ways (tests/bench), without pandas. The model is loaded once per
Python worker.
Embeddings are committed in chunks, then the ledger once. A crash costs at most one chunk.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from lookalike import files, schemas
from lookalike.config import EmbedSettings, IngestSettings, Settings
from lookalike.errors import ManifestInvalid, first_few
from lookalike.spark.catalog.gallery import embedded_images
from lookalike.spark.catalog.ingest import KEY, checked_embeddings, hash_rows, known_partitions
from lookalike.spark.category_conditions import among, covered, in_buckets_of
from lookalike.spark.contents.sources import sources, task_share
from lookalike.spark.progress import Count, progress_bar
from lookalike.spark.run import Run, StageFigures
from lookalike.spark.secrets import is_withheld, stored_uri
from lookalike.spark.tables import conform, local_frame, spark_schema, written

if TYPE_CHECKING:
    from lookalike.kernels.models.embedder import Outcome

_OUTCOMES = pa.schema(
    [*(schemas.EMBEDDINGS.field(n) for n in ("content_hash", "model_id")), pa.field("embedding", schemas.EMBEDDING)]
    + [schemas.EMBEDDINGS.field(n) for n in ("width", "height")]
    + [pa.field("reason", pa.string())]
)
_BATCH = 256


def embed(run: Run) -> dict[str, int]:
    """Give every waiting image of the selection and the manifest its embedding and its status.

    Returns how many there were of each status. Raises ManifestInvalid where a category would lose images by that, see
    `check_left_behind`.
    """
    with run.stage("embed") as figures:
        figures.counts, figures.images = {"embedded": 0, "reused": 0, "rejected": 0}, 0
        waiting = waiting_images(run).persist(StorageLevel.DISK_ONLY)
        try:
            # Once these are read Spark knows how few they are, and needs not shuffle the large tables to meet them.
            categories = {row["category"] for row in waiting.select("category").distinct().collect()}
            if categories:
                check_left_behind(run, waiting, categories)
                _embed_waiting(run, waiting, categories, figures)
        finally:
            waiting.unpersist()
    return figures.counts


def _embed_waiting(run: Run, waiting: DataFrame, categories: Collection[str], figures: StageFigures) -> None:
    staging = files.join(run.settings.root, "staging", run.run_id)
    manifest = run.manifest.where(among(categories))
    lacking_at = run.tables.version("embeddings")
    known = known_contents(waiting, run.tables.read("embeddings"), run.model_id).persist(StorageLevel.DISK_ONLY)
    todo = unknown_contents(waiting, known).persist(StorageLevel.DISK_ONLY)
    try:
        figures.images = todo.count()
        with progress_bar(run.console, run.spark.sparkContext, "embed", figures.images) as count:
            if run.given_dim and figures.images:
                outcomes = _take_given(run, manifest, todo, lacking_at, run.given_dim, count)
            else:
                outcomes = embed_contents(run, manifest, todo, figures.images, staging, count)
        settled = settle(waiting, known, outcomes, run.model_id, run.run_id).persist(StorageLevel.DISK_ONLY)
        rows = settled.groupBy("status", "bucket").count().collect()
        if rows:
            buckets = {row["bucket"] for row in rows}  # where the ledger has these rows already
            run.tables.upsert("images", settled, KEY, partitions=known_partitions(buckets))
        settled.unpersist()
        for row in rows:
            figures.counts[row["status"]] += row["count"]
    finally:
        files.remove(staging)
        todo.unpersist()
        known.unpersist()


def waiting_images(run: Run) -> DataFrame:
    """Ledger rows of the selection and the manifest that ingest accepted and this model has not yet seen.

    An image that the manifest has in another category waits for ingest. What ingest rejected has no model_id. A run
    that retries leaves alone what waits only because the model is another.
    """
    waits = F.col("status").isNull()
    if not run.selection.retry:
        waits |= F.col("model_id") != run.model_id
    rows = run.tables.read("images").where(waits & ~F.col("deleted") & covered(run.selection))
    return rows.join(run.manifest.select("image_id", "category"), ["image_id", "category"], "left_semi")


def check_left_behind(run: Run, waiting: DataFrame, categories: Collection[str]) -> None:
    """Raises ManifestInvalid where the `categories` of `waiting` have images of another model that do not wait.

    The categories' next versions would be of this model, so without these images.
    """
    images = run.tables.read("images").where((F.col("model_id") != run.model_id) & in_buckets_of(categories))
    others = embedded_images(images)
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


def known_contents(waiting: DataFrame, embeddings: DataFrame, model_id: str) -> DataFrame:
    """(content_hash, width, height) of each content of `waiting` that has an embedding of this model."""
    ours = embeddings.where(F.col("model_id") == model_id).select("content_hash", "width", "height")
    return ours.join(waiting.select("content_hash"), "content_hash", "left_semi")


def unknown_contents(waiting: DataFrame, known: DataFrame) -> DataFrame:
    """(content_hash, uri, image_id) of each distinct content that is not `known`."""
    one = F.max(F.struct("uri", "image_id")).alias("one")
    distinct = waiting.groupBy("content_hash").agg(one).select("content_hash", "one.uri", "one.image_id")
    return distinct.join(known, "content_hash", "left_anti")


def embed_contents(
    run: Run, manifest: DataFrame, todo: DataFrame, contents: int, staging: str, count: Count
) -> DataFrame:
    """Store the embeddings of `todo`, as `unknown_contents` gives it; gives all outcomes, see `image_outcomes`.

    `manifest` (image_id, uri, content) has what `todo` lacks: carried bytes, and uris with their secrets.
    """
    if not contents:
        return local_frame(run.spark, [], _OUTCOMES)
    chunks = -(-contents // run.settings.embed.commit_images)
    tasks = task_count(-(-contents // chunks), run.spark.sparkContext.defaultParallelism, run.settings.embed)
    images = with_content(manifest, todo.withColumn("chunk", _chunk(chunks)))
    if chunks > 1:
        images = _staged(images, files.join(staging, "images"))
    outcomes = files.join(staging, "outcomes")
    for chunk in range(chunks):
        part = images.where(F.col("chunk") == chunk).repartition(tasks, "content_hash")
        # Written before they are used, so that nothing is computed again when an executor is lost.
        found = written(image_outcomes(part, run.settings, run.model_id, count), files.join(outcomes, f"chunk={chunk}"))
        embedded = found.where("embedding IS NOT NULL")
        if not embedded.isEmpty():
            run.tables.insert("embeddings", embedded.withColumn("run_id", F.lit(run.run_id)), schemas.EMBEDDINGS_KEY)
    return run.spark.read.schema(spark_schema(_OUTCOMES)).parquet(outcomes)


def task_count(contents: int, cores: int, settings: EmbedSettings) -> int:
    """Tasks for a chunk: of `task_images` at most, and several per core as long as each fills a batch.

    Hashing makes tasks unequal, and cores unequally fast; the last ones even that out.
    """
    return max(1, -(-contents // settings.task_images), min(4 * cores, contents // settings.batch_images))


def with_content(manifest: DataFrame, todo: DataFrame) -> DataFrame:
    """`todo`, content_hash, uri and image_id among its columns, with `content` where the manifest carries the bytes.

    Of several manifest rows of one image_id all are given; that bytes are those of content_hash is for the reader.
    A uri whose secrets the ledger withholds is the manifest's.
    """
    columns = (*todo.columns, "content")
    carried = manifest.where(F.col("content").isNotNull()).select("image_id", "content")
    by_content = todo.where("uri IS NULL").join(carried, "image_id", "inner").select(*columns)
    withheld = is_withheld(F.col("uri"))
    whole = manifest.where("uri IS NOT NULL").select("image_id", F.col("uri").alias("whole"))
    by_manifest = (
        todo.where(withheld).join(whole, "image_id", "inner").where(stored_uri(F.col("whole")) == F.col("uri"))
    )
    uris = (
        todo.where("uri IS NOT NULL")
        .where(~withheld)
        .unionByName(by_manifest.withColumn("uri", F.col("whole")).drop("whole"))
    )
    by_uri = uris.withColumn("content", F.lit(None).cast("binary")).select(*columns)
    return by_uri.unionByName(by_content)


def _chunk(chunks: int) -> Column:
    return F.pmod(F.xxhash64("content_hash"), F.lit(chunks)).cast("int")


def _staged(images: DataFrame, path: str) -> DataFrame:
    """`images` (content_hash, uri, chunk, content) from a file a chunk, so that no chunk reads the manifest again."""
    images.write.partitionBy("chunk").option("compression", "none").parquet(path)
    return images.sparkSession.read.schema(images.schema).parquet(path)


def image_outcomes(images: DataFrame, settings: Settings, model_id: str, count: Count) -> DataFrame:
    """(content_hash, model_id, embedding, width, height, reason) of each image: an embedding, or a reason for none."""
    return images.mapInArrow(partial(_embed_batches, settings, model_id, count), spark_schema(_OUTCOMES))


def _embed_batches(
    settings: Settings, model_id: str, count: Count, batches: Iterable[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    batches = iter(batches)
    first = next(batches, None)
    if first is None:  # an empty task, for which no model need be loaded
        return
    # Here, as torch takes ten seconds to import, and given embeddings need none of it.
    from lookalike.kernels.models.embedder import embedder

    threads, device = task_share()
    worker = embedder(settings.model, settings.embed, threads, device, model_id)
    outcomes: list[Outcome] = []
    for outcome in worker.embed(_distinct(chain([first], batches), settings.ingest)):
        outcomes.append(outcome)
        if len(outcomes) == _BATCH:
            yield _outcome_batch(outcomes, model_id)
            count(len(outcomes))
            outcomes = []
    if outcomes:
        yield _outcome_batch(outcomes, model_id)
        count(len(outcomes))


def _distinct(
    batches: Iterable[pa.RecordBatch], settings: IngestSettings
) -> Iterator[tuple[str, bytes | Callable[[], bytes]]]:
    """(content_hash, bytes or how to read them), once per content: equal contents are in one task."""
    seen: set[str] = set()
    for batch in batches:
        for _, key, source in sources(batch, settings):
            if key not in seen:
                seen.add(key)
                yield key, source


def _outcome_batch(outcomes: list["Outcome"], model_id: str) -> pa.RecordBatch:
    columns = [
        [outcome.key for outcome in outcomes],
        [model_id] * len(outcomes),
        [outcome.embedding for outcome in outcomes],
        [outcome.width for outcome in outcomes],
        [outcome.height for outcome in outcomes],
        [outcome.reason for outcome in outcomes],
    ]
    arrays = [pa.array(values, field.type) for values, field in zip(columns, _OUTCOMES, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=_OUTCOMES)


def _take_given(run: Run, manifest: DataFrame, todo: DataFrame, lacking_at: int, dim: int, count: Count) -> DataFrame:
    """Store the embeddings that the manifest brings, in one commit, as nothing costly could be lost; gives outcomes.

    `lacking_at`: see `Tables.insert`.
    """
    found = given_outcomes(manifest, todo, dim, run.model_id, count).withColumn("run_id", F.lit(run.run_id))
    run.tables.insert("embeddings", found, schemas.EMBEDDINGS_KEY, lacking_at)
    stored = run.tables.read("embeddings").where(F.col("model_id") == run.model_id)
    if run.tables.version("embeddings") == lacking_at + 1:  # else another job may have stored some of these meanwhile
        stored = stored.where(F.col("run_id") == run.run_id)
    return stored.join(todo, "content_hash", "left_semi").withColumn("reason", F.lit(None).cast("string"))


def given_outcomes(manifest: DataFrame, todo: DataFrame, dim: int, model_id: str, count: Count) -> DataFrame:
    """Outcomes for embeddings that the manifest brings: the same, L2-normalised."""
    wanted = todo.select("content_hash", "image_id")
    rows = manifest.select("image_id", "embedding").join(wanted.select("image_id"), "image_id", "left_semi")
    unit = rows.select("embedding").mapInArrow(partial(_unit_batches, dim, model_id, count), spark_schema(_OUTCOMES))
    return unit.join(wanted, "content_hash", "left_semi").dropDuplicates(["content_hash"])


def _unit_batches(dim: int, model_id: str, count: Count, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        values, _ = checked_embeddings(batch["embedding"], dim)
        n = len(values)
        # float64, so that the squares of large values don't overflow.
        norms = np.sqrt(np.einsum("ij,ij->i", values, values, dtype=np.float64))
        unit = (values / norms[:, None]).astype(np.float32)
        columns = {
            "content_hash": pa.array(hash_rows(values), pa.string()),
            "model_id": pa.repeat(model_id, n),
            "embedding": pa.ListArray.from_arrays(pa.array(np.arange(n + 1, dtype=np.int32) * dim), unit.ravel()),
        }
        arrays = [columns.get(f.name, pa.nulls(n, f.type)) for f in _OUTCOMES]
        yield pa.RecordBatch.from_arrays(arrays, schema=_OUTCOMES)
        count(n)


def settle(waiting: DataFrame, known: DataFrame, outcomes: DataFrame, model_id: str, run_id: str) -> DataFrame:
    """Waiting ledger rows whose content has an outcome now, with their final status.

    `known` are contents that had an embedding before, `outcomes` are this run's. Of the rows of one content, the one
    with the least image_id is `embedded` if this run computed it; the others are `reused`.
    """
    size = ("content_hash", "width", "height")
    before = known.select(*size, F.lit(None).cast("string").alias("reason"), F.lit(False).alias("ours"))
    results = (
        outcomes.select(*size, "reason", F.col("reason").isNull().alias("ours"))
        .unionByName(before)
        .groupBy("content_hash")
        .agg(*(F.max(name).alias(name) for name in ("width", "height", "reason", "ours")))
    )
    first = F.min("image_id").over(Window.partitionBy("content_hash"))
    status = (
        F.when(F.col("reason").isNotNull(), "rejected")
        .when(F.col("ours") & (F.col("image_id") == F.col("first")), "embedded")
        .otherwise("reused")
    )
    rows = (
        waiting.drop("width", "height", "reason")
        .withColumn("first", first)
        .join(results, "content_hash", "inner")
        .withColumn("status", status)
        .withColumn("model_id", F.lit(model_id))
        .withColumn("run_id", F.lit(run_id))
    )
    return conform(rows, schemas.IMAGES)
