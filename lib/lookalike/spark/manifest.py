"""Read a manifest: Parquet in a file, a folder or a glob, with its schema checked before any work."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import unquote

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from lookalike import files, schemas
from lookalike.errors import ManifestInvalid
from lookalike.spark.parquet_input import ParquetInput, read_input
from lookalike.spark.tables import spark_schema

_MANIFEST = ParquetInput(
    name="manifest",
    required=spark_schema(schemas.MANIFEST_REQUIRED),
    optional=spark_schema(schemas.MANIFEST_OPTIONAL),
    one_of=((("uri", "content", "embedding"), "uri, content: both missing; an image needs one of them"),),
    a_row="a row per image",
    not_parquet="not a Parquet file; of a CSV or a folder of images, make_manifest makes a manifest",
    invalid=ManifestInvalid,
)


def read_manifest(spark: SparkSession, uri: str) -> DataFrame:
    """All manifest columns, absent ones as null. Raises ManifestInvalid naming every problem of the schema."""
    return read_input(spark, uri, _MANIFEST)


def given_dim(manifest: DataFrame) -> int | None:
    """Dimensions of most of the embeddings that the manifest brings; None where it brings none."""
    sizes = manifest.where(F.size("embedding") > 0).groupBy(F.size("embedding").alias("dim")).count()
    most = sizes.orderBy(F.desc("count"), "dim").first()
    return int(most["dim"]) if most else None


_READ_THREADS = 16


def manifest_checksum(spark: SparkSession, uri: str) -> str:
    """sha256 over each file's name, size and Parquet footer, in order of the names.

    The footer has every column chunk's place, size and statistics, so other rows mean another checksum. Only a few kB
    of each file are read, and a copy of the manifest at another place, or another time, has the same checksum.
    """
    paths = sorted(unquote(path) for path in spark.read.parquet(uri).inputFiles())
    with ThreadPoolExecutor(_READ_THREADS) as pool:
        footers = list(pool.map(_footer, paths))
    digest = hashlib.sha256()
    for path, (size, footer) in zip(paths, footers, strict=True):
        digest.update(f"{path.rpartition('/')[2]}\n{size}\n".encode() + hashlib.sha256(footer).digest())
    return digest.hexdigest()


def _footer(uri: str) -> tuple[int, bytes]:
    """Size of a Parquet file, and its footer, whose length stands in front of the last four bytes."""
    fs, path = files.filesystem(uri)
    size = int(fs.size(path))
    with fs.open(path, "rb") as file:
        file.seek(size - 8)
        length = int.from_bytes(file.read(4), "little")
        file.seek(size - 8 - length)
        return size, bytes(file.read(length))
