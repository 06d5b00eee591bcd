"""Ingest: manifest -> `images`, the ledger. Every manifest row gets a ledger row; a bad one is rejected with a reason.

Images are read once here for their `content_hash`, so that no content is ever embedded twice. A row whose `uri` and
`updated_at` are the ledger's is not read again.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pyarrow as pa
from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql.types import StringType, StructField, StructType

from lookalike import files, schemas
from lookalike.config import IngestSettings
from lookalike.kernels.images import ZERO_BYTES
from lookalike.spark.manifest import given_dim, read_manifest
from lookalike.spark.progress import progress_bar
from lookalike.spark.run import Run
from lookalike.spark.tables import spark_schema

TOO_LARGE = "beyond the size limit"

KEY = ("image_id", "occurrence")

# What the manifest says of an image; a change in any of these is a change of the row.
_SAID = ("product_id", "category", "uri", "title", "available", "deleted", "updated_at")

_CATEGORY = r"^[^/\s\p{Cntrl}]([^/\p{Cntrl}]*[^/\s\p{Cntrl}])?(/[^/\s\p{Cntrl}]([^/\p{Cntrl}]*[^/\s\p{Cntrl}])?)*$"
_DOTS = r"(^|/)\.{1,2}(/|$)"
_MAX_CATEGORY = 512


def ingest(run: Run, model_id: str) -> None:
    """Bring the ledger up to date with the manifest, in one commit. Rows new to this model wait for embed."""
    assert run.settings.manifest is not None
    with run.stage("ingest") as figures:
        manifest = read_manifest(run.spark, run.settings.manifest)
        ledger = run.tables.read("images")
        total = manifest.count()
        with progress_bar(run.console, run.spark.sparkContext, "ingest", total) as count:
            if dim := given_dim(manifest):
                hashed = check(digest_embeddings(manifest, dim, count), needs_image=False)
            else:
                checked = known_hashes(check(digest_contents(manifest, run.settings.ingest), needs_image=True), ledger)
                hashed = hash_uris(checked, run.settings.ingest, count)
            rows = ledger_rows(hashed, ledger, run.run_id).persist(StorageLevel.DISK_ONLY)
            try:
                outcomes = rows.groupBy(_outcome(model_id).alias("outcome"), "changed").count().collect()
                if any(outcome["changed"] for outcome in outcomes):
                    run.tables.upsert("images", rows.where("changed"), KEY)
            finally:
                rows.unpersist()
        figures.counts = {"rows": total, "waiting": 0, "reused": 0, "rejected": 0}
        for outcome in outcomes:
            figures.counts[outcome["outcome"]] += outcome["count"]
        figures.images = total


def _outcome(model_id: str) -> Column:
    """waiting, reused or rejected: what this run owes a row after ingest."""
    settled = F.when(F.col("status") == "rejected", "rejected").otherwise("reused")
    waits = F.col("status").isNull() | (F.col("model_id") != model_id)
    return F.when(F.coalesce(waits, F.lit(False)), "waiting").otherwise(settled)


def digest_contents(manifest: DataFrame, settings: IngestSettings) -> DataFrame:
    """The manifest with `content_hash` and `reason` in place of the bytes, which go no further."""
    size = F.length("content")
    reason = F.when(size == 0, ZERO_BYTES).when(size > settings.max_image_bytes, TOO_LARGE)
    return (
        manifest.withColumn("carries_image", F.col("content").isNotNull())
        .withColumn("content_hash", F.sha2("content", 256))
        .withColumn("reason", reason)
        .drop("content", "embedding")
    )


def digest_embeddings(manifest: DataFrame, dim: int, count: Callable[[int], None]) -> DataFrame:
    """The manifest with `content_hash` and `reason` in place of the (dim,) embeddings that it brings."""
    rows = manifest.withColumn("carries_image", F.col("content").isNotNull()).drop("content")
    return _map_reason(rows, partial(_digest_embedding, dim), ["embedding"], ["embedding"], 1, count)


def _digest_embedding(dim: int, embedding: pa.ListScalar) -> tuple[str | None, str | None]:
    if not embedding.is_valid:
        return None, "no embedding"
    values = embedding.values.to_numpy(zero_copy_only=False)
    if len(values) != dim:
        return None, f"embedding has {len(values)} values, most others {dim}"
    if not np.isfinite(values).all() or not values.any():
        return None, "embedding is zero or not finite"
    return hashlib.sha256(values.tobytes()).hexdigest(), None


def check(digested: DataFrame, needs_image: bool) -> DataFrame:
    """Rows with `occurrence`, `vector_id` and the `reason` for which a row can't be taken, if any."""
    same_id = Window.partitionBy("image_id").orderBy(
        F.col("updated_at").desc_nulls_last(), "product_id", "category", "uri", "content_hash"
    )
    blank = [F.trim(F.coalesce(F.col(name), F.lit(""))) == "" for name in ("image_id", "product_id", "category")]
    category = F.col("category")
    malformed = ~category.rlike(_CATEGORY) | category.rlike(_DOTS) | (F.length(category) > _MAX_CATEGORY)
    has_uri = F.trim(F.coalesce(F.col("uri"), F.lit(""))) != ""
    reason = (
        F.when(blank[0], "no image_id")
        .when(F.col("occurrence") > 0, "duplicate image_id")
        .when(blank[1], "no product_id")
        .when(blank[2], "no category")
        .when(malformed, "malformed category")
    )
    if needs_image:
        reason = reason.when(has_uri & F.col("carries_image"), "both uri and content")
        reason = reason.when(~has_uri & ~F.col("carries_image"), "neither uri nor content")
    return (
        digested.withColumn("occurrence", (F.row_number().over(same_id) - 1).cast("int"))
        .withColumn("available", F.coalesce("available", F.lit(True)))
        .withColumn("deleted", F.coalesce("deleted", F.lit(False)))
        .withColumn("vector_id", vector_id(F.coalesce("image_id", F.lit(""))))
        .withColumn("reason", F.coalesce(reason, "reason"))
        .drop("carries_image")
    )


def vector_id(image_id: Column) -> Column:
    """The first 60 bits of sha256(image_id): derived from data, so that it outlives every rebuild."""
    return F.conv(F.substring(F.sha2(image_id, 256), 1, 15), 16, 10).cast("bigint")


def known_hashes(checked: DataFrame, ledger: DataFrame) -> DataFrame:
    """`checked` with the `content_hash` that the ledger has for an image whose uri and updated_at are unchanged."""
    known = ledger.where("updated_at IS NOT NULL AND uri IS NOT NULL").select(
        *KEY,
        F.col("uri").alias("known_uri"),
        F.col("updated_at").alias("known_at"),
        F.col("content_hash").alias("known"),
    )
    unchanged = (F.col("uri") == F.col("known_uri")) & (F.col("updated_at") == F.col("known_at"))
    return (
        checked.join(known, list(KEY), "left")
        .withColumn("content_hash", F.coalesce("content_hash", F.when(unchanged, F.col("known"))))
        .drop("known_uri", "known_at", "known")
    )


def hash_uris(checked: DataFrame, settings: IngestSettings, count: Callable[[int], None]) -> DataFrame:
    """`checked` with each remaining row's `content_hash`, read from its uri, or the reason why there is none."""
    hash_one = partial(_hash_uri, settings.max_image_bytes)
    return _map_reason(checked, hash_one, ["uri", "content_hash", "reason"], [], settings.read_threads, count)


def _hash_uri(
    max_bytes: int, uri: pa.StringScalar, known: pa.StringScalar, reason: pa.StringScalar
) -> tuple[str | None, str | None]:
    if reason.is_valid or known.is_valid:
        return known.as_py(), reason.as_py()
    try:
        content = files.read_bytes(uri.as_py(), max_bytes)
    except Exception as error:
        # Any failure of any file system is the row's, never the job's.
        return None, files.unreadable(error)
    if not content:
        return None, ZERO_BYTES
    return hashlib.sha256(content).hexdigest(), None


def _map_reason(
    rows: DataFrame,
    outcome: Callable[..., tuple[str | None, str | None]],
    inputs: list[str],
    dropped: list[str],
    threads: int,
    count: Callable[[int], None],
) -> DataFrame:
    """`rows` with `content_hash` and `reason` as `outcome(*inputs)` gives them row by row, in a pool of threads."""
    results = ["content_hash", "reason"]
    kept = [name for name in rows.columns if name not in (*results, *dropped)]

    def batches(given: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        with ThreadPoolExecutor(threads) as pool:
            for batch in given:
                outcomes = list(pool.map(outcome, *(batch[name] for name in inputs)))
                added = [pa.array([values[i] for values in outcomes], pa.string()) for i in range(len(results))]
                yield pa.RecordBatch.from_arrays([*(batch[name] for name in kept), *added], [*kept, *results])
                count(batch.num_rows)

    added_fields = [StructField(name, StringType()) for name in results]
    return rows.mapInArrow(batches, StructType([rows.schema[name] for name in kept] + added_fields))


def ledger_rows(hashed: DataFrame, ledger: DataFrame, run_id: str) -> DataFrame:
    """Rows of `images` as they must be now, and whether each is `changed` against the ledger.

    An image whose content is the ledger's keeps its status; one with new content waits for embed.
    """
    old = ledger.select([F.col(f"`{name}`").alias(f"old_{name}") for name in ledger.columns])
    same_key = (F.col("image_id").eqNullSafe(F.col("old_image_id"))) & (F.col("occurrence") == F.col("old_occurrence"))
    joined = hashed.join(old, same_key, "left")
    rejected_here = F.col("reason").isNotNull()
    same_content = F.col("content_hash") == F.col("old_content_hash")
    kept = ~rejected_here & F.coalesce(same_content, F.lit(False))
    entries = [F.array_sort(F.map_entries(name)) for name in ("attributes", "old_attributes")]
    same = F.col("old_run_id").isNotNull() & entries[0].eqNullSafe(entries[1])
    for name in _SAID:
        same = same & F.col(name).eqNullSafe(F.col(f"old_{name}"))
    same_rejection = rejected_here & F.col("reason").eqNullSafe(F.col("old_reason"))
    columns = {
        "width": F.when(kept, F.col("old_width")),
        "height": F.when(kept, F.col("old_height")),
        "model_id": F.when(kept, F.col("old_model_id")),
        "status": F.when(rejected_here, "rejected").when(kept, F.col("old_status")),
        "reason": F.when(kept, F.col("old_reason")).otherwise(F.col("reason")),
        "run_id": F.lit(run_id),
        "changed": ~(same & (kept | same_rejection)),
    }
    # One select, so that no expression sees another's new column.
    contract = spark_schema(schemas.IMAGES).names
    return joined.select(*[columns.get(n, F.col(n)).alias(n) for n in contract], columns["changed"].alias("changed"))
