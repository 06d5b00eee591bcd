"""The gallery: embedded images of the ledger with their embeddings; and each category's candidate version."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from lookalike import FORMAT_VERSION
from lookalike.config import Settings
from lookalike.spark.audit import MOVES, actions, live
from lookalike.spark.run import Run
from lookalike.spark.selected import among, covered, in_buckets_of
from lookalike.spark.tables import VERSION, local_frame

_FEW = 50_000  # images that every task can be given, without their embeddings: some MB


@dataclass(frozen=True)
class Version:
    """A candidate version of a category, and what was live when it was found: nothing may go live in between."""

    category: str
    version: str
    images: int
    several_products: bool
    live_version: str | None = None
    live_run_id: str | None = None


def embedded_images(images: DataFrame) -> DataFrame:
    """Ledger rows that are embedded by whatever model, and not deleted."""
    return images.where(F.col("status").isin("embedded", "reused") & ~F.col("deleted"))


def live_images(images: DataFrame, model_id: str) -> DataFrame:
    """Ledger rows that belong into an index: embedded by this model, and not deleted."""
    return embedded_images(images).where(F.col("model_id") == model_id)


def fingerprint(hashed: Column, *also: Column) -> Column:
    """Aggregate of rows in no order: of their count, of the sum and exclusive or of their hashes, and of `also`."""
    parts = [F.count("*"), F.bit_xor(hashed), F.sum(hashed.cast("decimal(38,0)")), *also]
    return F.substring(F.sha2(F.concat_ws(":", *parts), 256), 1, 16)


def candidates(images: DataFrame, model_id: str, settings: Settings) -> DataFrame:
    """(category, version, images, several_products) of every category that has an image.

    `version` is a fingerprint of all that decides the published files and rows, so an unchanged category keeps it.
    """
    hashed = F.xxhash64("image_id", "product_id", "content_hash", "available")
    product = F.xxhash64("product_id")
    return (
        live_images(images, model_id)
        .groupBy("category")
        .agg(
            fingerprint(hashed, F.lit(_settings_fingerprint(model_id, settings))).alias("version"),
            F.count("*").alias("images"),
            (F.min(product) < F.max(product)).alias("several_products"),
        )
    )


def gallery(run: Run, versions: Sequence[Version], model_id: str) -> DataFrame:
    """Every image of `versions` with its embedding."""
    embeddings = run.tables.read("embeddings").where(F.col("model_id") == model_id)
    images = version_images(run, versions, model_id)
    if sum(version.images for version in versions) < _FEW:  # else all embeddings would be shuffled to meet them
        images = F.broadcast(images)
    return embeddings.select("content_hash", "embedding").join(images, "content_hash", "inner").drop("content_hash")


def version_images(run: Run, versions: Sequence[Version], model_id: str) -> DataFrame:
    """Every image of `versions`: (category, version, product_id, image_id, vector_id, available, content_hash)."""
    rows = live_images(run.tables.read("images"), model_id).where(in_buckets_of({v.category for v in versions}))
    wanted = F.broadcast(versions_frame(run.spark, versions))
    columns = ("category", "version", "product_id", "image_id", "vector_id", "available", "content_hash")
    return rows.join(wanted, "category", "inner").select(*columns)


def unpublished(run: Run, model_id: str, force: bool = False) -> list[Version]:
    """Candidate versions of the selection that are not live, by category: what the stages after embed have to work on.

    A version that was rolled back from is none, unless `force`.
    """
    rows = run.tables.read("images").where(covered(run.selection))
    found = numbered(run, candidates(rows, model_id, run.settings), ahead=int(run.selection.full))
    new = found.join(live_versions(run), "category", "left").where("NOT version <=> live_version")
    if not force:
        new = new.join(rolled_back(run), ["category", "version"], "left_anti")
    return [Version(**row.asDict()) for row in new.orderBy("category").collect()]


def numbered(run: Run, found: DataFrame, ahead: int = 0) -> DataFrame:
    """`found`, candidates, with the number of the category's full builds, and `ahead`, behind the version: `-1`.

    So a full build of what is live is another version. The number is that of the highest that ever was live and stays
    with the category: later runs find unchanged what is, and what was rolled back from is not published again.
    """
    number = F.coalesce(F.regexp_extract("version", "-([0-9]+)$", 1).try_cast("int"), F.lit(0))
    moves = actions(run).where(F.col("action").isin(*MOVES))
    built = moves.groupBy("category").agg(F.max(number).alias("number"))
    full = F.coalesce("number", F.lit(0)) + ahead
    version = F.concat("version", F.when(full > 0, F.concat(F.lit("-"), full)).otherwise(""))
    return found.join(built, "category", "left").withColumn("version", version).drop("number")


def live_versions(run: Run) -> DataFrame:
    """(category, live_version, live_run_id) of every category that is live; the latter is the run that made it so."""
    return live(run).select("category", F.col("version").alias("live_version"), F.col("run_id").alias("live_run_id"))


def rolled_back(run: Run) -> DataFrame:
    """(category, version) that were rolled back from, and not live since: they wait for a force."""
    moves = actions(run).where(F.col("action").isin(*MOVES))
    left = moves.where("action = 'rollback' AND replaced_version IS NOT NULL").select(
        "category", "replaced_version", "at", F.lit(True).alias("left")
    )
    came = moves.select("category", "version", "at", F.lit(False).alias("left"))
    last = left.union(came).toDF("category", "version", "at", "left").groupBy("category", "version")
    return last.agg(F.max_by("left", "at").alias("left")).where("left").drop("left")


def missing_from(run: Run, table: str, versions: Sequence[Version]) -> list[Version]:
    """Those of `versions` that have no row in `table`: what a stage has still to do, also after a crash."""
    rows = run.tables.read(table).where(among({v.category for v in versions}))
    done = rows.select("category", "version").distinct()
    todo = versions_frame(run.spark, versions).join(done, ["category", "version"], "left_anti").collect()
    wanted = {(row["category"], row["version"]) for row in todo}
    return [v for v in versions if (v.category, v.version) in wanted]


def versions_frame(spark: SparkSession, versions: Sequence[Version]) -> DataFrame:
    """(category, version) of `versions`."""
    return local_frame(spark, [(v.category, v.version) for v in versions], VERSION)


def _settings_fingerprint(model_id: str, settings: Settings) -> str:
    parts = [str(FORMAT_VERSION), model_id, settings.index.model_dump_json(), settings.similar_items.model_dump_json()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
