"""Ingest: manifest -> `images`, the ledger. Every manifest row gets a ledger row; a bad one is rejected with a reason.

An image is read here for its `content_hash`, so that no content is ever embedded twice. It is not read where the
manifest says the hash, where its `uri` and `updated_at` are the ledger's, or where it is deleted.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql.types import StringType, StructField, StructType

from lookalike import fetch, files, schemas
from lookalike.config import IngestSettings
from lookalike.errors import ManifestInvalid
from lookalike.kernels.pictures.images import ZERO_BYTES
from lookalike.selection import Retry
from lookalike.spark.category_conditions import bucket, covered
from lookalike.spark.progress import progress_bar
from lookalike.spark.run import Run
from lookalike.spark.secrets import stored_uri
from lookalike.spark.tables import spark_schema

DELETED = "deleted"

KEY = ("image_id", "occurrence")

# What the manifest says of an image; a change in any of these is a change of the row.
_SAID = ("product_id", "category", "uri", "title", "available", "deleted", "updated_at")

# Which row of one image_id is its first.
_RANKED = ("image_id", "updated_at", "product_id", "category", "uri")

# What decides which bytes an image's are.
_WHERE = ("uri", "updated_at")

# What became of an image before.
_OUTCOME = ("content_hash", "width", "height", "model_id", "status", "reason")

_CATEGORY = r"^[^/\s\p{Cntrl}]([^/\p{Cntrl}]*[^/\s\p{Cntrl}])?(/[^/\s\p{Cntrl}]([^/\p{Cntrl}]*[^/\s\p{Cntrl}])?)*$"
_DOTS = r"(^|/)\.{1,2}(/|$)"
_MAX_CATEGORY = 512


def ingest(run: Run) -> dict[str, int]:
    """Bring the ledger up to date with the selected manifest rows, in one commit.

    Rows new to the run's model wait for embed. Returns how many rows there were of each outcome. Raises ManifestInvalid
    where nothing is in the selected categories.
    """
    model_id = run.model_id  # before any work, as a model may not load
    with run.stage("ingest") as figures:
        ledger_version = run.tables.version("images")
        ledger = run.tables.read("images")
        chosen, others = selected_rows(run, ledger)
        total = chosen.count()
        if run.selection.categories and not total and ledger.where(covered(run.selection)).isEmpty():
            named = ", ".join(run.selection.categories)
            raise ManifestInvalid(f"no manifest row and no image is in {named}: give categories as the manifest does")
        with progress_bar(run.console, run.spark.sparkContext, "ingest", total) as count:
            if dim := run.given_dim:
                digested = digest_embeddings(chosen, dim, count)
            else:
                digested = digest_contents(chosen, run.settings.ingest)
            hashed = against(check(digested, others, needs_image=not dim), ledger, run.selection.retry)
            if not dim:
                hashed = hash_uris(hashed, run.settings.ingest, count)
            found = ledger_rows(through_outages(hashed), run.run_id).withColumn("outcome", _outcome(model_id))
            # Of what is as it was only the outcome is kept.
            kept = [
                F.when(F.col("changed"), F.col(f"`{name}`")).alias(name)
                for name in (*schemas.IMAGES.names, "old_bucket")
            ]
            rows = found.select(*kept, "outcome", "changed", "new").persist(StorageLevel.DISK_ONLY)
            try:
                outcomes = rows.groupBy("outcome", "changed", "new", "bucket", "old_bucket").count().collect()
                changed = [outcome for outcome in outcomes if outcome["changed"]]
                if changed and all(outcome["new"] for outcome in changed):
                    run.tables.insert("images", rows.where("changed"), KEY, lacking_at=ledger_version)
                elif changed:
                    buckets = {o["bucket"] for o in changed} | {o["old_bucket"] for o in changed if not o["new"]}
                    run.tables.upsert("images", rows.where("changed"), KEY, partitions=known_partitions(buckets))
            finally:
                rows.unpersist()
        figures.counts = {"rows": 0, "waiting": 0, "reused": 0, "rejected": 0}
        for outcome in outcomes:
            figures.counts[outcome["outcome"]] += outcome["count"]
            figures.counts["rows"] += outcome["count"]
        figures.images = figures.counts["rows"]
    return figures.counts


def known_partitions(buckets: set[int | None]) -> set[int] | None:
    """`buckets`, unless one is missing: a ledger that an older release made has none."""
    known = {bucket for bucket in buckets if bucket is not None}
    return known if len(known) == len(buckets) else None


def _outcome(model_id: str) -> Column:
    """waiting, reused or rejected: what this run owes a row after ingest."""
    settled = F.when(F.col("status") == "rejected", "rejected").otherwise("reused")
    waits = ~F.col("deleted") & (F.col("status").isNull() | (F.col("model_id") != model_id))
    return F.when(F.coalesce(waits, F.lit(False)), "waiting").otherwise(settled)


def selected_rows(run: Run, ledger: DataFrame) -> tuple[DataFrame, DataFrame | None]:
    """Manifest rows of the selection; and, if it leaves categories out, what tells which row of an image_id is first.

    To retry, all rows of an image_id that has a rejected one are taken.
    """
    inside = covered(run.selection)
    chosen = run.manifest.where(inside)
    if run.selection.retry:
        rejected = ledger.where(_retried(run.selection.retry, F.col("status"), F.col("reason")))
        ids = rejected.select(F.col("image_id").alias("rejected_id")).distinct()
        chosen = chosen.join(ids, F.col("image_id").eqNullSafe(F.col("rejected_id")), "left_semi")
    if not run.selection.categories:
        return chosen, None
    return chosen, run.manifest.where(~F.coalesce(inside, F.lit(False))).select(*_RANKED)


def _retried(retry: Retry, status: Column, reason: Column) -> Column:
    return (status == "rejected") & (F.lit(True) if retry == "all" else _could_not_be_read(reason))


def _could_not_be_read(reason: Column) -> Column:
    return reason.startswith(files.UNREADABLE)


def digest_contents(manifest: DataFrame, settings: IngestSettings) -> DataFrame:
    """The manifest with `reason` and the carried bytes' `content_hash` in place of the bytes, which go no further.

    Without bytes, `content_hash` is what the manifest says.
    """
    size = F.length("content")
    said = F.nullif(F.lower(F.trim("content_hash")), F.lit(""))
    reason = (
        F.when(size == 0, ZERO_BYTES)
        .when(size > settings.max_image_bytes, files.TOO_LARGE)
        .when(~F.col("said").rlike("^[0-9a-f]{64}$"), "content_hash is no sha256 in hex")
        .when(F.col("carried") != F.col("said"), "content is not that of content_hash")
    )
    return (
        manifest.withColumn("carries_image", F.col("content").isNotNull())
        .withColumn("carried", F.sha2("content", 256))
        .withColumn("said", said)
        .withColumn("reason", reason)
        .withColumn("content_hash", F.coalesce("carried", "said"))
        .drop("content", "embedding", "carried", "said")
    )


def digest_embeddings(manifest: DataFrame, dim: int, count: Callable[[int], None]) -> DataFrame:
    """The manifest with `content_hash` and `reason` in place of the (dim,) embeddings that it brings."""

    def digest(embeddings: pa.Array) -> pa.Array:
        values, reasons = checked_embeddings(embeddings, dim)
        hashes = np.full(len(embeddings), None, object)
        hashes[[reason is None for reason in reasons]] = hash_rows(values)
        count(len(embeddings))
        columns = [pa.array(values, pa.string()) for values in (hashes, reasons)]
        return pa.StructArray.from_arrays(columns, _DIGEST.names)

    digested = F.arrow_udf(digest, _DIGEST)(F.col("embedding"))  # type: ignore[attr-defined]  # the stubs lack it
    return (
        manifest.withColumn("carries_image", F.col("content").isNotNull())
        .withColumn("digest", digested)
        .drop("content", "embedding", "content_hash")
        .select("*", "digest.*")
        .drop("digest")
    )


_DIGEST = StructType([StructField(name, StringType()) for name in ("content_hash", "reason")])


def checked_embeddings(embeddings: pa.Array, dim: int) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """(good, dim) values of those that can be used; and for each of all the reason why it can't be, or None."""
    sizes = pc.fill_null(pc.list_value_length(embeddings), -1).to_numpy(zero_copy_only=False)
    whole = sizes == dim
    flat = (embeddings if whole.all() else embeddings.filter(pa.array(whole))).flatten()
    values = flat.to_numpy(zero_copy_only=False).astype(np.float32, copy=False).reshape(-1, dim)
    usable = np.isfinite(values).all(axis=1) & values.any(axis=1)
    reasons = np.full(len(sizes), None, object)
    reasons[np.flatnonzero(whole)[~usable]] = "embedding is zero or not finite"
    for place in np.flatnonzero(~whole):
        size = sizes[place]
        reasons[place] = "no embedding" if size < 0 else f"embedding has {size} values, most others {dim}"
    return values if usable.all() else values[usable], reasons


def hash_rows(values: NDArray[np.float32]) -> list[str]:
    """sha256 of each row's bytes, hex."""
    if not len(values):  # of which there is no view as bytes
        return []
    data = memoryview(np.ascontiguousarray(values).data).cast("B")
    size = values.shape[1] * values.itemsize
    return [hashlib.sha256(data[start : start + size]).hexdigest() for start in range(0, len(data), size)]


def check(digested: DataFrame, others: DataFrame | None, needs_image: bool) -> DataFrame:
    """Rows with `occurrence`, `vector_id` and the `reason` for which a row can't be taken, if any.

    `others` are further rows to count occurrences with; they are not in the result.
    """
    same_id = Window.partitionBy("image_id").orderBy(
        F.col("updated_at").desc_nulls_last(), "product_id", "category", "uri", "content_hash"
    )
    rows = digested.withColumn("selected", F.lit(True))
    if others is not None:
        rows = rows.unionByName(others.withColumn("selected", F.lit(False)), allowMissingColumns=True)
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
    of_image = F.col("reason")
    if needs_image:
        of_image = (
            F.when(has_uri & F.col("carries_image"), "both uri and content")
            .when(~has_uri & ~F.col("carries_image"), "neither uri nor content")
            .otherwise(of_image)
        )
    return (
        rows.withColumn("occurrence", (F.row_number().over(same_id) - 1).cast("int"))
        .where("selected")
        .withColumn("available", F.coalesce("available", F.lit(True)))
        .withColumn("deleted", F.coalesce("deleted", F.lit(False)))
        .withColumn("vector_id", vector_id(F.coalesce("image_id", F.lit(""))))
        .withColumn("reason", F.coalesce(reason, F.when(~F.col("deleted"), of_image)))
        .drop("carries_image", "selected")
    )


def vector_id(image_id: Column) -> Column:
    """The first 60 bits of sha256(image_id): derived from data, so that it outlives every rebuild."""
    return F.conv(F.substring(F.sha2(image_id, 256), 1, 15), 16, 10).cast("bigint")


def against(checked: DataFrame, ledger: DataFrame, retry: Retry | None) -> DataFrame:
    """`checked` beside the ledger: its outcome as `old_*`, if that `holds`, if all said is the `same`, or all is `new`.

    `content_hash` and `reason` are filled in where the image need not be read: its uri and updated_at are unchanged, or
    it is deleted. The rejection of an image that could not be read does not hold. With `retry` only the rejected rows
    that it names are given, and none of them holds.
    """
    old = ledger.select([F.col(f"`{name}`").alias(f"old_{name}") for name in ledger.columns])
    same_key = F.col("image_id").eqNullSafe(F.col("old_image_id")) & (F.col("occurrence") == F.col("old_occurrence"))
    joined = checked.join(old, same_key, "left")
    status, reason = F.col("old_status"), F.col("old_reason")
    if retry:
        joined = joined.where(_retried(retry, status, reason))
    void = _retried(retry or "unreadable", status, reason)
    stands = ~F.coalesce(void, F.lit(False))
    # What ingest itself rejected has no model_id, and its content was never looked at.
    holds = stands & (status.isNull() | F.col("old_model_id").isNotNull())
    of_size = stands & F.col("old_model_id").isNull() & reason.isin(ZERO_BYTES, files.TOO_LARGE)
    stored = stored_uri(F.col("uri"))
    unchanged = (stored == F.col("old_uri")) & (F.col("updated_at") == F.col("old_updated_at"))
    known = F.when(holds, F.col("old_content_hash"))
    deleted, unread = F.col("deleted"), F.col("content_hash").isNull()
    kept = F.when(status.isNotNull(), known)  # of a deleted image
    entries = [F.array_sort(F.map_entries(name)) for name in ("attributes", "old_attributes")]
    same = F.col("old_run_id").isNotNull() & entries[0].eqNullSafe(entries[1])
    for name in _SAID:
        said = stored if name == "uri" else F.col(name)
        same = same & said.eqNullSafe(F.col(f"old_{name}"))
    filled = {
        "content_hash": F.when(deleted, kept).when(unread & unchanged, known).otherwise(F.col("content_hash")),
        "reason": F.coalesce(
            "reason",
            F.when(deleted & kept.isNull(), DELETED),
            F.when(~deleted & unread & unchanged & of_size, reason),
        ),
    }
    outcome = [F.col(f"old_{name}") for name in (*_OUTCOME, *_WHERE, "bucket")]
    columns = [filled.get(name, F.col(name)).alias(name) for name in checked.columns]
    new = F.col("old_run_id").isNull().alias("new")
    return joined.select(*columns, *outcome, F.coalesce(holds, F.lit(False)).alias("holds"), same.alias("same"), new)


def hash_uris(known: DataFrame, settings: IngestSettings, count: Callable[[int], None]) -> DataFrame:
    """`known` with each remaining row's `content_hash`, read from its uri, or the reason why there is none."""
    hash_one = partial(_hash_uri, settings)
    names = known.columns

    def batches(given: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        with ThreadPoolExecutor(settings.read_threads) as pool:
            for batch in given:
                unread = pc.and_(pc.is_null(batch["content_hash"]), pc.is_null(batch["reason"]))
                outcomes = list(pool.map(hash_one, batch["uri"].filter(unread).to_pylist()))
                found = {
                    name: pc.replace_with_mask(batch[name], unread, pa.array([o[i] for o in outcomes], pa.string()))
                    for i, name in enumerate(("content_hash", "reason"))
                }
                yield pa.RecordBatch.from_arrays([found.get(name, batch[name]) for name in names], names)
                count(batch.num_rows)

    return known.mapInArrow(batches, known.schema)


def _hash_uri(settings: IngestSettings, uri: str) -> tuple[str | None, str | None]:
    """The content_hash, or why there is none."""
    try:
        content = fetch.read_image(uri, settings)
    except Exception as error:
        # Any failure of any file system is the row's, never the job's.
        return None, files.unreadable(error)
    if not content:
        return None, ZERO_BYTES
    return hashlib.sha256(content).hexdigest(), None


def through_outages(hashed: DataFrame) -> DataFrame:
    """`hashed` with uris as tables hold them, and with what the ledger says of images that can't be read just now.

    An image that was embedded, and now is not read for a cause that may pass, stays as it was. As its former uri and
    updated_at stay too, the next run reads it again.
    """
    fails = F.coalesce(F.col("reason").isin(*files.TRANSIENT_REASONS), F.lit(False))
    stays = fails & F.col("holds") & F.col("old_status").isin("embedded", "reused")
    columns = {"uri": stored_uri(F.col("uri"))} | {name: F.col(name) for name in ("updated_at", "content_hash")}
    columns = {name: F.when(stays, F.col(f"old_{name}")).otherwise(now) for name, now in columns.items()}
    return hashed.withColumns(columns | {"reason": F.when(~F.coalesce(stays, F.lit(False)), F.col("reason"))})


def ledger_rows(hashed: DataFrame, run_id: str) -> DataFrame:
    """Rows of `images` as they must be now, and whether each is `changed` against the ledger, or `new` to it.

    `old_bucket` is where it is in the ledger. An image whose content is the ledger's keeps its status; one with new
    content waits for embed.
    """
    rejected_here = F.col("reason").isNotNull()
    same_content = F.coalesce(F.col("content_hash") == F.col("old_content_hash"), F.lit(False))
    kept = ~rejected_here & F.col("holds") & same_content
    same_rejection = rejected_here & F.col("reason").eqNullSafe(F.col("old_reason"))
    columns = {
        "width": F.when(kept, F.col("old_width")),
        "height": F.when(kept, F.col("old_height")),
        "model_id": F.when(kept, F.col("old_model_id")),
        "status": F.when(rejected_here, "rejected").when(kept, F.col("old_status")),
        "reason": F.when(kept, F.col("old_reason")).otherwise(F.col("reason")),
        "run_id": F.lit(run_id),
        "bucket": bucket(F.col("category")),
        "changed": ~(F.col("same") & (kept | same_rejection)),
    }
    # One select, so that no expression sees another's new column.
    contract = spark_schema(schemas.IMAGES).names
    return hashed.select(
        *[columns.get(n, F.col(n)).alias(n) for n in contract], columns["changed"].alias("changed"), "new", "old_bucket"
    )
