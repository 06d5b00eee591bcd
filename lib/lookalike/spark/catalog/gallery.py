"""The gallery: embedded images of the ledger with their embeddings; and each category's candidate version."""

from collections.abc import Collection, Mapping

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lookalike.spark.category_conditions import is_in_bucket_of
from lookalike.spark.tables import VERSION, VersionKey, make_local_frame

_FEW = 50_000  # images that every task can be given, without their embeddings: some MB


def select_embedded(images: DataFrame) -> DataFrame:
    """Ledger rows that are embedded by whatever model, and not deleted."""
    return images.where(F.col("status").isin("embedded", "reused") & ~F.col("deleted"))


def select_live(images: DataFrame, model_id: str) -> DataFrame:
    """Ledger rows that belong into an index: embedded by this model, and not deleted."""
    return select_embedded(images).where(F.col("model_id") == model_id)


def fingerprint(hashed: Column, *also: Column) -> Column:
    """Aggregate of rows in no order: of their count, of the sum and exclusive or of their hashes, and of `also`."""
    parts = [F.count("*"), F.bit_xor(hashed), F.sum(hashed.cast("decimal(38,0)")), *also]
    return F.substring(F.sha2(F.concat_ws(":", *parts), 256), 1, 16)


def select_gallery(
    images: DataFrame, embeddings: DataFrame, model_id: str, versions: Mapping[VersionKey, int]
) -> DataFrame:
    """Every image of `versions`, each with its number of images, with its embedding by the model."""
    embeddings = embeddings.where(F.col("model_id") == model_id)
    images = select_version_images(select_live(images, model_id), versions)
    if sum(versions.values()) < _FEW:  # else all embeddings would be shuffled to meet them
        images = F.broadcast(images)
    return embeddings.select("content_hash", "embedding").join(images, "content_hash", "inner").drop("content_hash")


def select_version_images(images: DataFrame, versions: Collection[VersionKey]) -> DataFrame:
    """(category, version, product_id, image_id, vector_id, available, content_hash) of each of the live `images`."""
    rows = images.where(is_in_bucket_of({category for category, _ in versions}))
    wanted = F.broadcast(make_local_frame(images.sparkSession, sorted(versions), VERSION))
    columns = ("category", "version", "product_id", "image_id", "vector_id", "available", "content_hash")
    return rows.join(wanted, "category", "inner").select(*columns)
