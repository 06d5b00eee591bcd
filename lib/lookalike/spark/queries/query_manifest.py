"""The query manifest: query photos with what is right for each, checked as a whole, then embedded as the catalog is."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

from pyspark.sql import DataFrame, Row, Window
from pyspark.sql import functions as F

from lookalike import files, schemas
from lookalike.errors import ManifestInvalid
from lookalike.spark.catalog.embed import embed_contents, given_outcomes, known_contents, unknown_contents
from lookalike.spark.catalog.ingest import digest_contents, digest_embeddings, hash_uris
from lookalike.spark.manifest import manifest_checksum
from lookalike.spark.parquet_input import ParquetInput, read_input
from lookalike.spark.progress import progress_bar
from lookalike.spark.run import Run
from lookalike.spark.tables import spark_schema

MAX_QUERIES = 100_000
"""Each task holds all queries, so that the gallery is read once: at most this many."""

_PROBE = ("uri", "content", "embedding")
_RIGHT = ("product_id", "category")
_QUERIES = ParquetInput(
    name="query manifest",
    required=spark_schema(schemas.QUERY_REQUIRED),
    optional=spark_schema(schemas.QUERY_OPTIONAL),
    one_of=(
        (_PROBE, "uri, content, embedding: all missing; a query needs one of them"),
        (_RIGHT, "product_id, category: both missing; a query needs one of them, to say what is right"),
    ),
    a_row="a row for each query photo",
    not_parquet="not a Parquet file; write the queries as Parquet",
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
    shown = files.redacted(uri)
    return Queries(shown.rstrip("/").rpartition("/")[2], shown, manifest_checksum(run.spark, uri), rows, count)


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
    found = (
        rows.select("query_id", problems.alias("problems"))  # so that no photo is shuffled
        .withColumn("alike", F.count("query_id").over(Window.partitionBy("query_id")))
        .select("query_id", F.explode(F.concat("problems", repeated)).alias("problem"))
        .groupBy("problem")
        .agg(F.count("*").alias("count"), F.min("query_id").alias("example"))
        .orderBy("problem")
        .collect()
    )
    lines = [f"  {row['count']:,} {row['problem']}, such as {row['example']}" for row in found]
    count = rows.count()
    if count > MAX_QUERIES:
        lines.append(f"  {count:,} are more than {MAX_QUERIES:,}: give a random part of them")
    if lines:
        raise ManifestInvalid("\n".join([f"{uri}: the queries are not as they must be:", *lines]))
    return count


def query_contents(run: Run, uri: str, query_ids: Sequence[str]) -> list[Row]:
    """(query_id, uri, content) of a few queries. Raises ManifestInvalid where the query manifest can't be read."""
    rows = read_input(run.spark, uri, _QUERIES).where(F.col("query_id").isin(*query_ids))
    return rows.select("query_id", "uri", "content").collect()


def embedded_queries(run: Run, queries: Queries, dim: int) -> DataFrame:
    """(query_id, content_hash, embedding, reason) of each query: an embedding, or the reason why there is none.

    Photos go the way of the catalog's images: the same reading, limits, decoding and model; and their embeddings are
    stored beside the catalog's. Embeddings that the manifest brings are not stored, as nobody knows of what they are.
    """
    named = queries.rows.withColumnRenamed("image_id", "own_image_id").withColumnRenamed("query_id", "image_id")
    named = named.select("image_id", *_PROBE, F.lit(None).cast("string").alias("content_hash"))
    brought = _brought(named.where("embedding IS NOT NULL"), run.model_id, dim)
    photos = named.where("embedding IS NULL")
    if photos.isEmpty():
        return brought
    return _photos(run, photos).unionByName(brought)


def _photos(run: Run, photos: DataFrame) -> DataFrame:
    model_id = run.model_id
    digested = digest_contents(photos, run.settings.ingest)
    tasks = run.spark.sparkContext.defaultParallelism
    hashed = hash_uris(digested.repartition(tasks, "image_id"), run.settings.ingest, _uncounted).localCheckpoint()
    good = hashed.where("reason IS NULL")
    known = known_contents(good, run.tables.read("embeddings"), model_id)
    todo = unknown_contents(good, known).localCheckpoint()
    contents = todo.count()
    staging = files.join(run.settings.root, "staging", run.run_id, "queries", model_id)
    with progress_bar(run.console, run.spark.sparkContext, "embed queries", contents) as count:
        outcomes = embed_contents(run, photos, todo, contents, staging, count)
    embeddings = run.tables.read("embeddings").where(F.col("model_id") == model_id).select("content_hash", "embedding")
    rejected = outcomes.where("reason IS NOT NULL")
    reasons = rejected.groupBy("content_hash").agg(F.min("reason").alias("rejected"))
    return (
        hashed.join(embeddings, "content_hash", "left")
        .join(reasons, "content_hash", "left")
        .withColumn("reason", F.coalesce("reason", F.when(F.col("embedding").isNull(), F.col("rejected"))))
        .select(F.col("image_id").alias("query_id"), "content_hash", "embedding", "reason")
    )


def _brought(named: DataFrame, model_id: str, dim: int) -> DataFrame:
    digested = digest_embeddings(named, dim, _uncounted)
    good = digested.where("reason IS NULL")
    unit = given_outcomes(named, good, dim, model_id, _uncounted).select("content_hash", "embedding")
    return digested.join(unit, "content_hash", "left").select(
        F.col("image_id").alias("query_id"), "content_hash", "embedding", "reason"
    )


def _uncounted(_images: int) -> None:
    """Where no progress is shown."""
