"""Embed: images of the ledger that await it -> `embeddings`, each content once, and the ledger's statuses.

`mapInArrow` carries the rows: as fast as the other ways (tests/bench), without pandas. The model is loaded once per
Python worker.
Work is committed in chunks, each in two steps: embeddings, then the ledger. A crash costs at most one chunk.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain

import numpy as np
import pyarrow as pa
from pyspark import StorageLevel, TaskContext
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lookalike import files, schemas
from lookalike.config import EmbedSettings, Settings
from lookalike.errors import ModelMismatch
from lookalike.kernels.embedder import Outcome, embedder
from lookalike.spark.ingest import KEY, digest_embeddings
from lookalike.spark.manifest import given_dim, read_manifest
from lookalike.spark.progress import progress_bar
from lookalike.spark.run import Run
from lookalike.spark.tables import conform, spark_schema

_OUTCOMES = pa.schema(
    [*(schemas.EMBEDDINGS.field(n) for n in ("content_hash", "model_id")), pa.field("embedding", schemas.EMBEDDING)]
    + [schemas.EMBEDDINGS.field(n) for n in ("width", "height")]
    + [pa.field("reason", pa.string())]
)
_BATCH = 256

Count = Callable[[int], None]


def embed(run: Run, model_id: str) -> None:
    """Give every waiting image of the ledger its embedding and its status."""
    assert run.settings.manifest is not None
    with run.stage("embed") as figures:
        manifest = read_manifest(run.spark, run.settings.manifest)
        waiting = waiting_images(run.tables.read("images"), model_id)
        todo = unknown_contents(waiting, run.tables.read("embeddings"), model_id).persist(StorageLevel.DISK_ONLY)
        figures.counts = {"embedded": 0, "reused": 0, "rejected": 0}
        try:
            contents = todo.count()
            chunks = -(-waiting.count() // run.settings.embed.commit_images)
            dim = given_dim(manifest) if contents else None
            cores = run.spark.sparkContext.defaultParallelism
            with progress_bar(run.console, run.spark.sparkContext, "embed", contents) as count:
                for chunk in range(chunks):
                    in_chunk = F.pmod(F.xxhash64("content_hash"), F.lit(chunks)) == chunk
                    part = todo.where(in_chunk)
                    if dim:
                        outcomes = given_outcomes(manifest, part, dim, model_id, count)
                    else:
                        tasks = task_count(-(-contents // chunks), cores, run.settings.embed)
                        images = with_content(manifest, part, tasks)
                        outcomes = image_outcomes(images, run.settings, model_id, count)
                    for status, rows in _commit(run, outcomes, in_chunk, model_id).items():
                        figures.counts[status] += rows
        finally:
            todo.unpersist()
        figures.images = contents


def waiting_images(images: DataFrame, model_id: str) -> DataFrame:
    """Ledger rows that ingest accepted and that this model has not yet seen. What ingest rejected has no model_id."""
    return images.where(F.col("status").isNull() | (F.col("model_id") != model_id))


def unknown_contents(waiting: DataFrame, embeddings: DataFrame, model_id: str) -> DataFrame:
    """(content_hash, uri, image_id) of each distinct content that has no embedding of this model."""
    known = embeddings.where(F.col("model_id") == model_id).select("content_hash")
    distinct = waiting.groupBy("content_hash").agg(F.max("uri").alias("uri"), F.min("image_id").alias("image_id"))
    return distinct.join(known, "content_hash", "left_anti")


def task_count(contents: int, cores: int, settings: EmbedSettings) -> int:
    """Tasks for a chunk: of `task_images` at most, and several per core as long as each fills a batch.

    Hashing makes tasks unequal, and cores unequally fast; the last ones even that out.
    """
    return max(1, -(-contents // settings.task_images), min(4 * cores, contents // settings.batch_images))


def with_content(manifest: DataFrame, todo: DataFrame, tasks: int) -> DataFrame:
    """(content_hash, uri, content) of `todo`, spread over `tasks`; `content` where the manifest carries the bytes."""
    carried = (
        manifest.where(F.col("content").isNotNull())
        .select("image_id", F.sha2("content", 256).alias("content_hash"), "content")
        .join(todo.where("uri IS NULL").select("image_id", "content_hash"), ["image_id", "content_hash"], "left_semi")
        .select("content_hash", F.lit(None).cast("string").alias("uri"), "content")
    )
    by_uri = todo.where("uri IS NOT NULL").select("content_hash", "uri", F.lit(None).cast("binary").alias("content"))
    return by_uri.unionByName(carried).repartition(tasks, "content_hash")


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
    threads, device = _task_share()
    worker = embedder(settings.model, settings.embed, threads, device)
    if worker.model_id != model_id:
        raise ModelMismatch(
            f"this worker's model is {worker.model_id}, the run's is {model_id}: give all machines the same model file"
        )
    outcomes: list[Outcome] = []
    for outcome in worker.embed(_distinct(chain([first], batches), settings.ingest.max_image_bytes)):
        outcomes.append(outcome)
        if len(outcomes) == _BATCH:
            yield _outcome_batch(outcomes, model_id)
            count(len(outcomes))
            outcomes = []
    if outcomes:
        yield _outcome_batch(outcomes, model_id)
        count(len(outcomes))


def _task_share() -> tuple[int, str]:
    """CPU threads of this task, and the device that Spark assigned to it."""
    task = TaskContext.get()
    assert task is not None
    gpu = task.resources().get("gpu")
    return max(1, task.cpus()), f"cuda:{gpu.addresses[0]}" if gpu else "cpu"


def _distinct(batches: Iterable[pa.RecordBatch], max_bytes: int) -> Iterator[tuple[str, bytes | Callable[[], bytes]]]:
    """(content_hash, bytes or how to read them), once per content: equal contents are in one task."""
    seen: set[str] = set()
    for batch in batches:
        for content_hash, uri, content in zip(
            *(batch[name] for name in ("content_hash", "uri", "content")), strict=True
        ):
            key = content_hash.as_py()
            if key not in seen:
                seen.add(key)
                yield key, content.as_py() if content.is_valid else partial(files.read_bytes, uri.as_py(), max_bytes)


def _outcome_batch(outcomes: list[Outcome], model_id: str) -> pa.RecordBatch:
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


def given_outcomes(manifest: DataFrame, todo: DataFrame, dim: int, model_id: str, count: Count) -> DataFrame:
    """Outcomes for embeddings that the manifest brings: the same, L2-normalised."""
    keyed = digest_embeddings(manifest.withColumn("given", F.col("embedding")), dim, count)
    wanted = keyed.join(todo.select("image_id", "content_hash"), ["image_id", "content_hash"], "left_semi")
    rows = wanted.select("content_hash", F.col("given").alias("embedding")).dropDuplicates(["content_hash"])
    return rows.mapInArrow(partial(_normalise_batches, model_id), spark_schema(_OUTCOMES))


def _normalise_batches(model_id: str, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        n = batch.num_rows
        values = batch["embedding"].flatten().to_numpy().reshape(n, -1)
        # float64, so that the squares of large values don't overflow.
        norms = np.linalg.norm(values.astype(np.float64), axis=1, keepdims=True)
        unit = (values / norms).astype(np.float32)
        offsets = pa.array(np.arange(n + 1, dtype=np.int32) * unit.shape[1] if n else np.zeros(1, np.int32))
        columns = {
            "content_hash": batch["content_hash"],
            "model_id": pa.array([model_id] * n),
            "embedding": pa.ListArray.from_arrays(offsets, unit.ravel()),
        }
        arrays = [columns.get(f.name, pa.nulls(n, f.type)) for f in _OUTCOMES]
        yield pa.RecordBatch.from_arrays(arrays, schema=_OUTCOMES)


def _commit(run: Run, outcomes: DataFrame, in_chunk: Column, model_id: str) -> dict[str, int]:
    """Store the embeddings of a chunk, then its rows of the ledger; gives the number of rows by status."""
    outcomes = outcomes.persist(StorageLevel.DISK_ONLY)
    try:
        found = outcomes.where("embedding IS NOT NULL").withColumn("run_id", F.lit(run.run_id))
        if found.count():  # isEmpty would compute one task alone, and leave the other cores idle
            run.tables.append("embeddings", found)
        waiting = waiting_images(run.tables.read("images"), model_id).where(in_chunk)
        embeddings = run.tables.read("embeddings").where((F.col("model_id") == model_id) & in_chunk)
        settled = settle(waiting, outcomes, embeddings, model_id, run.run_id).persist(StorageLevel.DISK_ONLY)
        counts = {row["status"]: row["count"] for row in settled.groupBy("status").count().collect()}
        if counts:
            run.tables.upsert("images", settled, KEY)
        settled.unpersist()
        return counts
    finally:
        outcomes.unpersist()


def settle(waiting: DataFrame, outcomes: DataFrame, embeddings: DataFrame, model_id: str, run_id: str) -> DataFrame:
    """Waiting ledger rows whose content has an outcome now, with their final status.

    Of the rows of one content, the one with the least image_id is `embedded` if this run computed it; the others are
    `reused`.
    """
    rejected = outcomes.where("reason IS NOT NULL").select("content_hash", "width", "height", "reason")
    computed = outcomes.where("embedding IS NOT NULL").groupBy("content_hash").agg(F.lit(True).alias("computed"))
    accepted = embeddings.select("content_hash", "width", "height", F.lit(None).cast("string").alias("reason"))
    results = accepted.unionByName(rejected).dropDuplicates(["content_hash"]).join(computed, "content_hash", "left")
    first = waiting.groupBy("content_hash").agg(F.min("image_id").alias("first"))
    status = (
        F.when(F.col("reason").isNotNull(), "rejected")
        .when(F.col("computed") & (F.col("image_id") == F.col("first")), "embedded")
        .otherwise("reused")
    )
    rows = (
        waiting.drop("width", "height", "reason")
        .join(results, "content_hash", "inner")
        .join(first, "content_hash", "inner")
        .withColumn("status", status)
        .withColumn("model_id", F.lit(model_id))
        .withColumn("run_id", F.lit(run_id))
    )
    return conform(rows, schemas.IMAGES)
