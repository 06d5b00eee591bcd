"""The query manifest: query photos with what is right for each, checked as a whole, then embedded as the catalog is."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from operator import add

from pyspark.sql import DataFrame, Row, SparkSession, Window
from pyspark.sql import functions as F

from lookalike import files, schemas
from lookalike.errors import ManifestInvalid
from lookalike.spark.contents.given_embeddings import hash_embeddings
from lookalike.spark.contents.read_pictures import carried_reason
from lookalike.spark.input_files import inspect_files
from lookalike.spark.parquet_input import ParquetInput, read_input
from lookalike.spark.queries.query_photos import embed_given, embed_photos, uncounted
from lookalike.spark.run import Run

MAX_QUERIES = 100_000
"""Each task holds all queries, so that the gallery is read once: at most this many."""

_PROBE = ("uri", "content", "embedding")
_RIGHT = ("product_id", "category")
_QUERIES = ParquetInput(
    name="query manifest",
    required=schemas.QUERY_REQUIRED,
    optional=schemas.QUERY_OPTIONAL,
    one_of=(
        (_PROBE, "uri, content, embedding: all missing; a query needs one of them"),
        (_RIGHT, "product_id, category: both missing; a query needs one of them, to say what is right"),
    ),
    a_row="a row for each query photo",
    not_parquet="no Parquet file, or a damaged one; write the queries as Parquet",
    invalid=ManifestInvalid,
)


@dataclass(frozen=True)
class Queries:
    """A checked query manifest. `uri` is without secrets."""

    name: str
    uri: str
    checksum: str
    rows: DataFrame  # the columns of `schemas.QUERY_REQUIRED` and `QUERY_OPTIONAL`
    count: int


def read_queries(run: Run, uri: str) -> Queries:
    """The queries at `uri`: a Parquet file, a folder or a glob. Raises ManifestInvalid with every problem at once."""
    rows = read_input(run.spark, uri, _QUERIES)
    rows = rows.withColumns({name: F.nullif(F.trim(name), F.lit("")) for name in ("query_id", "uri", *_RIGHT)})
    count = _check(rows, uri, needs_embedding=run.given_dim is not None)
    shown = files.redact(uri)
    return Queries(shown.rstrip("/").rpartition("/")[2], shown, inspect_files(rows).checksum, rows, count)


def _check(rows: DataFrame, uri: str, needs_embedding: bool) -> int:
    """How many queries there are."""
    probes = reduce(add, (F.col(name).isNotNull().cast("int") for name in _PROBE))
    wrong = {
        "without query_id": F.col("query_id").isNull(),
        "with not exactly one of uri, content and embedding": probes != 1,
        "with neither product_id nor category, so that nothing is right": F.coalesce(*_RIGHT).isNull(),
        "without embedding, which they need as the catalog's images bring theirs": F.lit(needs_embedding)
        & F.col("embedding").isNull(),
    }
    problems = F.array_compact(F.array(*(F.when(condition, F.lit(said)) for said, condition in wrong.items())))
    repeated = F.when(F.col("alike") > 1, F.array(F.lit("with a query_id that others have too"))).otherwise(F.array())
    problem_counts = (
        rows.select("query_id", problems.alias("problems"))  # so that no photo is shuffled
        .withColumn("alike", F.count("query_id").over(Window.partitionBy("query_id")))
        .select("query_id", F.explode(F.concat("problems", repeated)).alias("problem"))
        .groupBy("problem")
        .agg(F.count("*").alias("count"), F.min("query_id").alias("example"))
        .orderBy("problem")
        .collect()
    )
    lines = [f"  {row['count']:,} {row['problem']}, such as {row['example']}" for row in problem_counts]
    count = rows.count()
    if count > MAX_QUERIES:
        lines.append(f"  {count:,} are more than {MAX_QUERIES:,}: give a random part of them")
    if lines:
        raise ManifestInvalid("\n".join([f"{uri}: the queries are not as they must be:", *lines]))
    return count


def query_contents(spark: SparkSession, uri: str, query_ids: Sequence[str]) -> list[Row]:
    """(query_id, uri, content) of a few queries. Raises ManifestInvalid where the query manifest can't be read."""
    rows = read_input(spark, uri, _QUERIES).where(F.col("query_id").isin(*query_ids))
    return rows.select("query_id", "uri", "content").collect()


@contextmanager
def embed_queries(run: Run, queries: Queries, dim: int) -> Iterator[DataFrame]:
    """(query_id, content_hash, embedding, reason) of each query by the run's model, for as long as the block runs.

    Embeddings that the manifest brings are taken as they are, L2-normalised.
    """
    probes = queries.rows.select(F.col("query_id").alias("key"), *_PROBE)
    brought = _brought(probes.where("embedding IS NOT NULL"), run.model_id, dim)
    photos = probes.where("embedding IS NULL").drop("embedding")
    reason = carried_reason(run.settings.ingest)
    checked = photos.select("key", "uri", F.sha2("content", 256).alias("content_hash"), reason.alias("reason"))
    refused = checked.where("reason IS NOT NULL").select("key", "content_hash", "reason")
    accepted = checked.where("reason IS NULL").drop("reason")
    carried = photos.where("content IS NOT NULL").select("key", "content")
    with embed_photos(run, accepted, carried, run.model_id) as embedded:
        rows = embedded.unionByName(refused, allowMissingColumns=True).unionByName(brought)
        yield rows.withColumnRenamed("key", "query_id")


def _brought(given: DataFrame, model_id: str, dim: int) -> DataFrame:
    hashed = hash_embeddings(given.select("key", "embedding"), dim, uncounted)
    good = hashed.where("reason IS NULL").drop("reason")
    refused = hashed.where("reason IS NOT NULL")
    return embed_given(given, good, dim, model_id).unionByName(refused, allowMissingColumns=True)
