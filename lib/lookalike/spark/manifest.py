"""Read a manifest: Parquet in a file, a folder or a glob, with its schema checked before any work."""

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from lookalike import schemas
from lookalike.errors import ManifestInvalid
from lookalike.spark.parquet_input import ParquetInput, read_input

_MANIFEST = ParquetInput(
    name="manifest",
    required=schemas.MANIFEST_REQUIRED,
    optional=schemas.MANIFEST_OPTIONAL,
    one_of=((("uri", "content", "embedding"), "uri, content: both missing; an image needs one of them"),),
    a_row="a row per image",
    not_parquet="no Parquet file, or a damaged one; of a CSV or a folder of images, make_manifest makes a manifest",
    invalid=ManifestInvalid,
)


def read_manifest(spark: SparkSession, uri: str) -> DataFrame:
    """All manifest columns, absent ones as null. Raises ManifestInvalid naming every problem of the schema."""
    return read_input(spark, uri, _MANIFEST)


def read_given_dim(manifest: DataFrame) -> int | None:
    """Dimensions of most of the embeddings that the manifest brings; None where it brings none."""
    sizes = manifest.where(F.size("embedding") > 0).groupBy(F.size("embedding").alias("dim")).count()
    most = sizes.orderBy(F.desc("count"), "dim").first()
    return int(most["dim"]) if most else None
