"""Ingest: manifest -> `images`, the ledger. Every manifest row gets a ledger row; a bad one is rejected with a reason.

No picture is read here. Bytes that the manifest carries, and hashes that it states, are compared with the ledger.
`embed` reads what a uri leads to. Until then an image that was embedded before stays in the ledger as it was.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame, Row, Window
from pyspark.sql import functions as F

from lookalike import files, reasons, schemas
from lookalike.config import IngestSettings
from lookalike.errors import ManifestChanged, ManifestInvalid
from lookalike.selection import Retry, Selection
from lookalike.spark.catalog.left_out import check_left_out, find_left_out
from lookalike.spark.category_conditions import is_selected, to_bucket
from lookalike.spark.contents.given_embeddings import hash_embeddings
from lookalike.spark.contents.read_pictures import carried_reason
from lookalike.spark.progress import Count, progress_bar
from lookalike.spark.run import Run
from lookalike.spark.secrets import withhold_secrets
from lookalike.spark.tables import to_spark_schema
from lookalike.spark.uri_columns import clean_uris

KEY = ("image_id", "occurrence")

# What the manifest says of an image; a change in any of these is a change of the row.
_SAID = ("product_id", "category", "uri", "title", "available", "deleted", "updated_at")

# Which row of one image_id is its first.
_RANKED = ("image_id", "updated_at", "product_id", "category", "uri")

# What the ledger knows of an image's content.
_OUTCOME = ("content_hash", "width", "height", "model_id", "status", "reason")

_CATEGORY = r"^[^/\s\p{Cntrl}]([^/\p{Cntrl}]*[^/\s\p{Cntrl}])?(/[^/\s\p{Cntrl}]([^/\p{Cntrl}]*[^/\s\p{Cntrl}])?)*$"
_DOTS = r"(^|/)\.{1,2}(/|$)"
_MAX_CATEGORY = 512

# Python and most databases know no other years. A null is neither held nor not.
_IS_HELD = "updated_at BETWEEN TIMESTAMP '0001-01-01' AND TIMESTAMP '9999-12-31 23:59:59.999999'"


@dataclass(frozen=True)
class Compared:
    """The selected manifest rows, compared with the ledger: `rows` as `compare_with_ledger` gives them, persisted.

    A row that is as it was, and waits for nothing, has only its outcome. `counts`: rows, and how many are waiting,
    reused and rejected. Of a complete manifest also `left_out`: those of the rows that stand for images which it leaves
    out. `unheld_times`, if there are any: manifest rows whose `updated_at` the ledger can't hold, so that it is null.
    """

    rows: DataFrame
    counts: dict[str, int]


def ingest(run: Run) -> Compared:
    """Bring the ledger up to date with the selected manifest rows, in one commit; gives them for `embed`.

    Raises ManifestInvalid where nothing is in the selected categories, and ManifestChanged.
    """
    with run.stage("ingest") as figures:
        figures.manifest_checksum = run.manifest_files.checksum
        ledger_version = run.tables.delta_version("images")
        total, unheld = _count_manifest(run.manifest)
        with progress_bar(run.console, run.spark.sparkContext, "ingest", total) as count:
            ledger = run.tables.read("images")
            left_out = find_left_out(run.manifest, ledger, run.selection) if run.selection.complete else None
            if left_out is not None:
                gone = check_left_out(left_out, ledger, run.selection, run.settings.ingest)
            rows = compared_rows(run, count, left_out)
            sizes = rows.groupBy("outcome", "changed", "new", "bucket", "old_bucket").count().collect()
            if not sizes and run.selection.categories:
                check_selection(ledger, run.selection)
            run.check_manifest()
            changed = [size for size in sizes if size["changed"]]
            if changed and all(size["new"] for size in changed):
                run.tables.insert("images", rows.where("changed"), KEY, lacking_at=ledger_version)
            elif changed:
                buckets = {s["bucket"] for s in changed} | {s["old_bucket"] for s in changed if not s["new"]}
                run.tables.upsert("images", rows.where("changed"), KEY, partitions=known_partitions(buckets))
            if changed:
                run.tables.mend_times("images", "updated_at")
        figures.counts = _counts(sizes)
        if unheld:
            figures.counts["unheld_times"] = unheld
        if left_out is not None:
            figures.counts["left_out"] = gone
        figures.images = figures.counts["rows"]
    return Compared(rows, figures.counts)


def compare_manifest(run: Run) -> Compared:
    """The same without any change of the ledger, for a stage that runs as a job of its own."""
    rows = compared_rows(run, lambda _: None)
    return Compared(rows, _counts(rows.groupBy("outcome").count().collect()))


def check_ingested(run: Run) -> None:
    """Raises ManifestChanged where the run's manifest is not the one that `ingest` took in last from its place.

    For a stage that runs as a job of its own. What an older release took in is not known, and passes.
    """
    uri = files.redact(run.settings.manifest or "")
    taken = run.tables.read("runs").where("stage = 'ingest'").orderBy(F.desc("started_at"))
    last = taken.where((F.col("manifest") == uri) | F.col("manifest").isNull()).first()
    if last is None:
        raise ManifestChanged(f"ingest has not taken in the manifest {uri}: run ingest with it first")
    if last["manifest_checksum"] not in (None, run.manifest_files.checksum):
        raise ManifestChanged(
            f"the manifest {uri} is not what run {last['run_id']} took in: run ingest, then the stages after it"
        )


def _count_manifest(manifest: DataFrame) -> tuple[int, int]:
    """Its rows, and those with a time that the ledger can't hold."""
    row = manifest.agg(F.count("*"), F.count_if(F.expr(f"NOT ({_IS_HELD})"))).first()
    assert row
    return row[0], row[1]


def _counts(sizes: Sequence[Row]) -> dict[str, int]:
    counts = {"rows": 0, "waiting": 0, "reused": 0, "rejected": 0}
    for size in sizes:
        counts[size["outcome"]] += size["count"]
        counts["rows"] += size["count"]
    return counts


def check_selection(ledger: DataFrame, selection: Selection) -> None:
    """Raises ManifestInvalid where the ledger has no image in the selected categories."""
    if ledger.where(is_selected(selection)).isEmpty():
        named = ", ".join(selection.categories)
        raise ManifestInvalid(f"no manifest row and no image is in {named}: give categories as the manifest does")


def compared_rows(run: Run, count: Count, left_out: DataFrame | None = None) -> DataFrame:
    """The rows of `Compared`, with those of `left_out`; `count` is told the embeddings that the manifest brings."""
    ledger = run.tables.read("images")
    manifest = run.manifest.withColumn("updated_at", F.when(F.expr(_IS_HELD), F.col("updated_at")))
    chosen, others = selected_rows(manifest, ledger, run.selection)
    if left_out is not None:
        chosen = chosen.unionByName(left_out)
    if dim := run.given_dim:
        given = chosen.withColumn("carries_image", F.col("content").isNotNull()).drop("content", "content_hash")
        digested = hash_embeddings(given, dim, count)
    else:
        digested = hash_contents(chosen, run.settings.ingest)
    checked = check_rows(digested, others, needs_image=not dim)
    rows = compare_with_ledger(checked, ledger, run.selection.retry, run.model_id, run.run_id)
    flags = ("outcome", "changed", "new")
    kept = [
        F.when(F.col("changed") | (F.col("outcome") == "waiting"), F.col(f"`{name}`")).alias(name)
        for name in rows.columns
        if name not in flags
    ]
    return rows.select(*kept, *flags).persist(StorageLevel.DISK_ONLY)


def known_partitions(buckets: set[int | None]) -> set[int] | None:
    """`buckets`, unless one is missing: a ledger that an older release made has none."""
    known = {bucket for bucket in buckets if bucket is not None}
    return known if len(known) == len(buckets) else None


def selected_rows(manifest: DataFrame, ledger: DataFrame, selection: Selection) -> tuple[DataFrame, DataFrame | None]:
    """Manifest rows of the selection; and, if it leaves categories out, what tells which row of an image_id is first.

    To retry, all rows of an image_id that has a rejected one are taken.
    """
    inside = is_selected(selection)
    chosen = manifest.where(inside)
    if selection.retry:
        rejected = ledger.where(_is_retried(selection.retry, F.col("status"), F.col("reason")))
        ids = rejected.select(F.col("image_id").alias("rejected_id")).distinct()
        chosen = chosen.join(ids, F.col("image_id").eqNullSafe(F.col("rejected_id")), "left_semi")
    if not selection.categories:
        return chosen, None
    return chosen, manifest.where(~F.coalesce(inside, F.lit(False))).select(*_RANKED)


def _is_retried(retry: Retry, status: Column, reason: Column) -> Column:
    """Whether a rejection of the ledger is tried again; false where there is none."""
    could_not_be_read = reason.startswith(reasons.UNREADABLE)
    return F.coalesce((status == "rejected") & (F.lit(True) if retry == "all" else could_not_be_read), F.lit(False))


def hash_contents(manifest: DataFrame, settings: IngestSettings) -> DataFrame:
    """The manifest with `reason` and the carried bytes' `content_hash` in place of the bytes, which go no further.

    Without bytes, `content_hash` is what the manifest states.
    """
    stated = F.nullif(F.lower(F.trim("content_hash")), F.lit(""))
    reason = (
        carried_reason(settings)
        .when(~F.col("stated").rlike("^[0-9a-f]{64}$"), reasons.NO_SHA256.text)
        .when(F.col("carried") != F.col("stated"), reasons.CONTENT_OF_OTHER_HASH.text)
    )
    return (
        manifest.withColumn("carries_image", F.col("content").isNotNull())
        .withColumn("carried", F.sha2("content", 256))
        .withColumn("stated", stated)
        .withColumn("reason", reason)
        .withColumn("content_hash", F.coalesce("carried", "stated"))
        .drop("content", "embedding", "carried", "stated")
    )


def check_rows(digested: DataFrame, others: DataFrame | None, needs_image: bool) -> DataFrame:
    """Rows with `occurrence`, `vector_id` and the `reason` for which a row can't be taken, if any.

    `others` are further rows to count occurrences with; they are not in the result.
    """
    same_id = Window.partitionBy("image_id").orderBy(
        F.col("updated_at").desc_nulls_last(), "product_id", "category", "uri", "content_hash"
    )
    rows = digested.withColumn("selected", F.lit(True))
    if others is not None:
        rows = rows.unionByName(others.withColumn("selected", F.lit(False)), allowMissingColumns=True)
    return (
        rows.withColumn("occurrence", (F.row_number().over(same_id) - 1).cast("int"))
        .where("selected")
        .withColumn("available", F.coalesce("available", F.lit(True)))
        .withColumn("deleted", F.coalesce("deleted", F.lit(False)))
        .withColumn("vector_id", vector_id(F.coalesce("image_id", F.lit(""))))
        .withColumn("reason", _reason(needs_image))
        .drop("carries_image", "selected")
    )


def _reason(needs_image: bool) -> Column:
    """Why a row can't be taken; a deleted image needs no picture."""
    blank = {name: F.trim(F.coalesce(F.col(name), F.lit(""))) == "" for name in ("image_id", "product_id", "category")}
    category = F.col("category")
    malformed = ~category.rlike(_CATEGORY) | category.rlike(_DOTS) | (F.length(category) > _MAX_CATEGORY)
    of_row = (
        F.when(blank["image_id"], reasons.NO_IMAGE_ID.text)
        .when(F.col("occurrence") > 0, reasons.DUPLICATE_IMAGE_ID.text)
        .when(blank["product_id"], reasons.NO_PRODUCT_ID.text)
        .when(blank["category"], reasons.NO_CATEGORY.text)
        .when(malformed, reasons.MALFORMED_CATEGORY.text)
    )
    of_image = F.col("reason")
    if needs_image:
        has_uri = F.trim(F.coalesce(F.col("uri"), F.lit(""))) != ""
        of_image = (
            F.when(has_uri & F.col("carries_image"), reasons.URI_AND_CONTENT.text)
            .when(~has_uri & ~F.col("carries_image"), reasons.NO_URI_NO_CONTENT.text)
            .otherwise(of_image)
        )
    return F.coalesce(of_row, F.when(~F.col("deleted"), of_image))


def vector_id(image_id: Column) -> Column:
    """The first 60 bits of sha256(image_id): derived from data, so that it outlives every rebuild."""
    return F.conv(F.substring(F.sha2(image_id, 256), 1, 15), 16, 10).cast("bigint")


def compare_with_ledger(
    checked: DataFrame, ledger: DataFrame, retry: Retry | None, model_id: str, run_id: str
) -> DataFrame:
    """Rows of `images` as they must be before `embed`, each with its `outcome`: waiting, reused or rejected.

    `changed`: whether the row differs from the ledger's; `new`: whether the ledger lacks it; `old_bucket`: where it is
    there. For `embed`: `given_uri`, `given_updated_at`, as the manifest has them; `stated`: whether the manifest states
    the content_hash, or carries its bytes; `must_read`: whether only a read can tell what the content is.

    An image is not read where its uri and updated_at are the ledger's, where the manifest states its hash, or where it
    is deleted. A rejection because it could not be read does not hold. With `retry` only the rejected rows that it
    names are given, and none of them holds.
    """
    rows = _beside_ledger(checked, ledger)
    if retry:
        rows = rows.where(_is_retried(retry, F.col("old_status"), F.col("old_reason")))
    rows = _judge(rows, retry)
    values = _ledger_values(run_id)
    same = F.col("exists") & _same_attributes()
    for name in _SAID:
        same = same & values.get(name, F.col(name)).eqNullSafe(F.col(f"old_{name}"))
    same_rejection = F.col("refusal").isNotNull() & F.col("refusal").eqNullSafe(F.col("old_reason"))
    other_model = F.coalesce(F.col("old_model_id") != model_id, F.lit(True))
    waits = F.col("accepted") & (
        F.col("must_read") | ~F.col("kept") | F.col("old_status").isNull() | other_model | F.col("void")
    )
    contract = to_spark_schema(schemas.IMAGES).names
    return rows.select(
        *[values.get(name, F.col(name)).alias(name) for name in contract],
        F.col("uri").alias("given_uri"),
        F.col("updated_at").alias("given_updated_at"),
        "stated",
        "must_read",
        "old_bucket",
        F.when(waits, "waiting").when(values["status"] == "rejected", "rejected").otherwise("reused").alias("outcome"),
        (~(same & (F.col("kept") | same_rejection))).alias("changed"),
        (~F.col("exists")).alias("new"),
    )


def _beside_ledger(checked: DataFrame, ledger: DataFrame) -> DataFrame:
    """`checked` with the ledger's row of the same key as `old_*`, and whether it `exists`."""
    old = ledger.select([F.col(f"`{name}`").alias(f"old_{name}") for name in ledger.columns])
    same_key = F.col("image_id").eqNullSafe(F.col("old_image_id")) & (F.col("occurrence") == F.col("old_occurrence"))
    return checked.join(old, same_key, "left").withColumn("exists", F.col("old_run_id").isNotNull())


def _judge(rows: DataFrame, retry: Retry | None) -> DataFrame:
    """`rows` with what decides their outcome, as columns."""
    false = F.lit(False)
    status, old_hash = F.col("old_status"), F.col("old_content_hash")
    # What ingest itself rejected has no model_id, and its content was never looked at.
    looked_at = F.col("exists") & (status.isNull() | F.col("old_model_id").isNotNull())
    old_uri = clean_uris(F.col("old_uri"))  # older releases stored what was given
    same_place = (withhold_secrets(F.col("uri")) == old_uri) & (F.col("updated_at") == F.col("old_updated_at"))
    same_content = F.when(F.col("stated"), F.col("content_hash") == old_hash).otherwise(
        same_place & (old_hash.isNotNull() | (status == "rejected"))
    )
    known = F.col("looked_at") & F.coalesce(same_content, false)
    # As it was, until it is read.
    stays = F.col("must_read") & status.isNotNull() & (F.col("looked_at") | F.col("void"))
    of_deleted = F.col("deleted") & F.col("looked_at") & ~F.col("void") & status.isNotNull()
    return (
        rows.withColumn("void", _is_retried(retry or "unreadable", status, F.col("old_reason")))
        .withColumn("looked_at", looked_at)
        .withColumn("stated", F.col("content_hash").isNotNull())
        .withColumn("accepted", F.col("reason").isNull() & ~F.col("deleted"))
        .withColumn("known", F.col("accepted") & known)
        .withColumn("must_read", F.col("accepted") & ~F.col("stated") & ~F.col("known"))
        .withColumn("stays", stays)
        .withColumn("kept", F.col("reason").isNull() & (F.col("known") | F.col("stays") | of_deleted))
        .withColumn("refusal", F.coalesce("reason", F.when(F.col("deleted") & ~F.col("kept"), reasons.DELETED.text)))
    )


def _ledger_values(run_id: str) -> dict[str, Column]:
    """Columns of `images` by name, of rows that `_judge` gave; others are as the manifest has them."""
    kept, stays = F.col("kept"), F.col("stays")
    values = {name: F.when(kept, F.col(f"old_{name}")) for name in _OUTCOME}
    return values | {
        "uri": F.when(stays, F.col("old_uri")).otherwise(withhold_secrets(F.col("uri"))),
        "updated_at": F.when(stays, F.col("old_updated_at")).otherwise(F.col("updated_at")),
        "content_hash": values["content_hash"].when(~F.col("deleted"), F.col("content_hash")),
        "status": F.when(F.col("refusal").isNotNull(), "rejected").when(kept, F.col("old_status")),
        "reason": F.coalesce("refusal", values["reason"]),
        "run_id": F.lit(run_id),
        "bucket": to_bucket(F.col("category")),
    }


def _same_attributes() -> Column:
    entries = [F.array_sort(F.map_entries(name)) for name in ("attributes", "old_attributes")]
    return entries[0].eqNullSafe(entries[1])
