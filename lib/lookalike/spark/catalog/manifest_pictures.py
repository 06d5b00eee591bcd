"""Where the pictures of ledger rows are: their uri, or the bytes that the manifest carries."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lookalike.spark.secrets import is_withheld, withhold_secrets
from lookalike.spark.uri_columns import clean_uris


def with_whole_uris(rows: DataFrame, manifest: DataFrame) -> DataFrame:
    """`rows` (image_id, uri, ...) of the ledger; a uri whose secrets the ledger withholds is the manifest's.

    A row whose uri is withheld, and that the manifest has not, is left out.
    """
    withheld = F.coalesce(is_withheld(F.col("uri")), F.lit(False))
    whole = manifest.where("uri IS NOT NULL").select("image_id", F.col("uri").alias("whole"))
    same = withhold_secrets(F.col("whole")) == clean_uris(F.col("uri"))  # older releases stored what was given
    by_manifest = rows.where(withheld).join(whole, "image_id", "inner").where(same)
    by_manifest = by_manifest.withColumn("uri", F.col("whole")).select(*rows.columns)
    return rows.where(~withheld).unionByName(by_manifest)


def with_content(rows: DataFrame, manifest: DataFrame) -> DataFrame:
    """`with_whole_uris`, and `content` where the manifest carries the bytes; further rows of an image_id among them."""
    whole = with_whole_uris(rows, manifest)
    by_uri = whole.where("uri IS NOT NULL").withColumn("content", F.lit(None).cast("binary"))
    carried = manifest.where("content IS NOT NULL").select("image_id", "content")
    by_content = whole.where("uri IS NULL").join(carried, "image_id", "inner").select(*by_uri.columns)
    return by_uri.unionByName(by_content)
