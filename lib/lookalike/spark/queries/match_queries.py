"""Match queries: a Parquet of query photos in, a Delta table of their matches among what is live out.

Queries go the way of the catalog's images: the same reading, limits, decoding and model; content that the catalog has
embedded is not embedded again, and nothing of a query is stored but its matches. Each is searched in its category, or
in the few that it most probably is of. The (query, category) pairs of a category are searched together: a task opens
few shards. One commit replaces the whole table, so a rerun with the same inputs leaves the same rows.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial, reduce
from operator import add
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from lookalike import delta_log, files, reasons, schemas
from lookalike.config import IngestSettings, Settings
from lookalike.errors import ConfigInvalid, ManifestInvalid, ModelMismatch, NotPredictable
from lookalike.formats import reason_counts
from lookalike.kernels.categories.predictor import Predictor, count_most_probable, open_predictor, predict_among
from lookalike.spark.catalog.audit import read_live
from lookalike.spark.catalog.category_predictors import read_latest_predictor
from lookalike.spark.catalog.gallery import select_live
from lookalike.spark.catalog.model_id import read_live_model_id
from lookalike.spark.contents.given_embeddings import hash_embeddings
from lookalike.spark.contents.read_pictures import carried_reason
from lookalike.spark.parquet_input import ParquetInput, read_input
from lookalike.spark.queries.category_search import matrix, search_categories
from lookalike.spark.queries.query_photos import embed_given, embed_photos, uncounted
from lookalike.spark.run import Run, console
from lookalike.spark.tables import Tables, conform, make_local_frame, select_versions, to_spark_schema, version_key_of

File = tuple[tuple[str, Any], ...]
"""What `open_predictor` needs of a row of `category_predictors`, hashable."""

_PROBE = ("uri", "content", "embedding")
_QUERIES = ParquetInput(
    name="query manifest",
    required=schemas.MATCH_QUERY_REQUIRED,
    optional=schemas.MATCH_QUERY_OPTIONAL,
    one_of=((_PROBE, "uri, content, embedding: all missing; a query needs one of them"),),
    a_row="a row for each query",
    not_parquet="no Parquet file, or a damaged one; write the queries as Parquet",
    invalid=ManifestInvalid,
)
_PATHS = pa.schema({"path": pa.string(), "live_category": pa.string()})
_PREDICTED = pa.schema(
    [
        pa.field("key", pa.string()),
        schemas.MATCHES.field("category"),
        schemas.MATCHES.field("category_probability"),
    ]
)


@dataclass(frozen=True)
class Live:
    """What is searched: the live versions of one model, by category their rows of `shards`."""

    model_id: str
    dim: int
    versions: DataFrame  # (category, version)
    shards: DataFrame
    images: Mapping[str, int]  # by category


def match_queries(run: Run, uri: str, out: str) -> None:
    """Match the queries at `uri` and make the result all that the Delta table `out` holds.

    Raises ManifestInvalid, NotPublished, NotPredictable, ModelMismatch, and ConfigInvalid where `out` is another thing.
    """
    with run.stage("match_queries") as figures, ExitStack() as held:
        check_replaceable(out)
        here = _live(run)

        def kept(rows: DataFrame) -> DataFrame:
            rows = rows.persist(StorageLevel.DISK_ONLY)
            held.callback(rows.unpersist)
            return rows

        queries = clean(read_input(run.spark, uri, _QUERIES))
        total = queries.count()
        figures.images = total
        tasks = run.spark.sparkContext.defaultParallelism
        checked = kept(check(queries, here, run.settings.ingest).repartition(tasks, "query_id"))
        embedded = kept(held.enter_context(_embedded(run, queries, checked.where("reason IS NULL"), here)))
        rows = kept(attach_outcomes(checked, embedded))
        vectors = embedded.where("embedding IS NOT NULL").select("key", "embedding")
        pairs = kept(_pairs(run, rows, vectors, here))
        matches = search_categories(run.spark, pairs, here.shards, run.settings.root, run.settings.match.k)
        matched = kept(rank_products(run, matches, rows, pairs, here))
        _write(conform(account_for_all(rows, matched, here.model_id), schemas.MATCHES), out)
        written = run.spark.read.format("delta").load(out)
        figures.counts = _counts(written)
    said = ", ".join(f"{count:,} {name}" for name, count in figures.counts.items())
    console().print(f"{total:,} queries: {said}", highlight=False)
    if reasons := _reasons(written):
        console().print(f"rejected: {reasons}", highlight=False, markup=False, soft_wrap=True)


def check_replaceable(out: str) -> None:
    """Raises ConfigInvalid unless there is nothing at `out`, or what an earlier run left there; RootUnusable."""
    files.check_path(out)
    if not files.list_files(out):
        return
    if delta_log.list_commits(out):
        fields = delta_log.open_table(out).schema().fields
        if [field.name for field in fields] == schemas.MATCHES.names:
            return
    raise ConfigInvalid(f"--out {out}: something else is there, and would be replaced; give a new place")


def _live(run: Run) -> Live:
    model_id = read_live_model_id(run)
    versions = read_live(run.tables).select("category", "version").localCheckpoint()
    keys = [version_key_of(row) for row in versions.collect()]
    shards = select_versions(run.tables.read("shards"), keys).localCheckpoint()
    sizes = shards.groupBy("category", "dim").agg(F.sum("ntotal").alias("images")).collect()
    return Live(model_id, sizes[0]["dim"], versions, shards, {row["category"]: row["images"] for row in sizes})


def clean(queries: DataFrame) -> DataFrame:
    """`queries` with keys and texts as they are used from here on, and the `key` of each one's probe.

    Two rows have the same key where both query_id and probe are the same.
    """
    blank = {name: F.nullif(F.trim(name), F.lit("")) for name in ("query_id", "uri", "category")}
    queries = queries.withColumns(blank).withColumn("category", F.regexp_replace("category", "/+$", ""))
    probe = F.coalesce(F.sha2("content", 256), F.xxhash64("embedding").cast("string"), "uri")
    return queries.withColumn("key", F.concat_ws("\n", "query_id", probe))


def check(queries: DataFrame, here: Live, settings: IngestSettings) -> DataFrame:
    """(query_id, key, occurrence, uri, category, content_hash, is_given, reason) of each query, without its bytes.

    `content_hash` is null where the uri is still to be read for it; `is_given`: whether the query brings its embedding.
    """
    probes = reduce(add, (F.col(name).isNotNull().cast("int") for name in _PROBE))
    brought = here.model_id.startswith("given-")
    slim = queries.select(
        "query_id", "key", "uri", "category", "embedding",
        F.sha2("content", 256).alias("of_content"),
        F.col("embedding").isNotNull().alias("is_given"),
        F.when(probes == 0, reasons.NO_PROBE.text)
        .when(probes > 1, reasons.SEVERAL_PROBES.text)
        .when(F.lit(brought) & F.col("embedding").isNull(), reasons.EMBEDDING_NEEDED.text)
        .otherwise(carried_reason(settings))
        .alias("wrong"),
    )  # fmt: skip
    hashed = hash_embeddings(slim, here.dim, uncounted)
    reason = F.coalesce("wrong", F.when(F.col("is_given"), F.col("reason")))
    content_hash = F.coalesce("of_content", F.when(F.col("is_given"), F.col("content_hash")))
    rows = hashed.withColumn("reason", reason).withColumn("content_hash", content_hash).drop("of_content", "wrong")
    same_id = Window.partitionBy("query_id").orderBy("content_hash", "uri", "category")
    rows = rows.withColumn("occurrence", F.row_number().over(same_id) - 1)
    known = F.broadcast(_paths(here).select(F.col("path").alias("known")).distinct())
    rows = rows.join(known, rows["category"] == known["known"], "left")
    reason = (
        F.when(F.col("query_id").isNull(), reasons.NO_QUERY_ID.text)
        .when(F.col("occurrence") > 0, reasons.DUPLICATE_QUERY_ID.text)
        .when(F.col("category").isNotNull() & F.col("known").isNull(), reasons.CATEGORY_NOT_PUBLISHED.text)
        .otherwise(F.col("reason"))
    )
    return rows.withColumn("reason", reason).drop("known")


def _paths(here: Live) -> DataFrame:
    """(path, live_category): each live category under its own path and under every path above it."""
    paths = [
        ("/".join(parts[: depth + 1]), category)
        for category in sorted(here.images)
        for parts in [category.split("/")]
        for depth in range(len(parts))
    ]
    return make_local_frame(here.versions.sparkSession, paths, _PATHS)


@contextmanager
def _embedded(run: Run, queries: DataFrame, accepted: DataFrame, here: Live) -> Iterator[DataFrame]:
    """EMBEDDED_QUERIES of each of the `accepted` queries, for as long as the block runs."""
    given = queries.where("embedding IS NOT NULL").select("key", "embedding")
    brought = embed_given(given, accepted.where("is_given").select("key", "content_hash"), here.dim, here.model_id)
    photos = accepted.where("NOT is_given").select("key", "uri", "content_hash")
    if photos.isEmpty():
        yield brought
        return
    _check_model(run.settings, here)
    carried = queries.where("content IS NOT NULL").select("key", "content")
    with embed_photos(run, photos, carried, here.model_id) as rows:
        yield rows.unionByName(brought)


def _check_model(settings: Settings, here: Live) -> None:
    # Here, as torch takes ten seconds to import.
    from lookalike.kernels.models.load import load_model

    ours = load_model(settings.model).model_id
    if ours != here.model_id:
        raise ModelMismatch(
            f"what is live has embeddings of model {here.model_id}, the settings' model is {ours}: give the model "
            "settings of the pipeline"
        )


def attach_outcomes(checked: DataFrame, embedded: DataFrame) -> DataFrame:
    """`checked` with the content_hash that was read, and the reasons of queries that could not be embedded."""
    outcomes = embedded.select("key", F.col("content_hash").alias("read_hash"), F.col("reason").alias("refused"))
    rows = checked.join(outcomes, "key", "left")
    rows = rows.withColumn("reason", F.coalesce("reason", "refused"))
    return rows.withColumn("content_hash", F.coalesce("content_hash", "read_hash")).drop("refused", "read_hash")


def _pairs(run: Run, rows: DataFrame, vectors: DataFrame, here: Live) -> DataFrame:
    """(query_id, category, category_given, category_probability, embedding) of what is to be searched where.

    `vectors` (key, embedding).
    """
    accepted = rows.where("reason IS NULL").select("query_id", "key", "category")
    named = accepted.where("category IS NOT NULL").withColumnRenamed("category", "path")
    given = named.join(F.broadcast(_paths(here)), "path").select(
        "query_id",
        "key",
        F.col("live_category").alias("category"),
        F.lit(True).alias("category_given"),
        F.lit(None).cast("double").alias("category_probability"),
    )
    unnamed = accepted.where("category IS NULL").drop("category")
    if not unnamed.isEmpty():
        row = read_latest_predictor(run.tables, here.model_id)
        file = tuple((name, row[name]) for name in ("path", "sha256", "size_bytes", "format_version"))
        predict = partial(_predict, run.settings.root, file, frozenset(here.images), run.settings.match.category_share)
        asked = vectors.join(unnamed.select("key"), "key", "left_semi")
        predicted = asked.mapInArrow(predict, to_spark_schema(_PREDICTED))
        predicted = unnamed.join(predicted, "key").withColumn("category_given", F.lit(False))
        given = given.unionByName(predicted)
    return given.join(vectors, "key").drop("key")


def _predict(
    root: str, file: File, live_categories: frozenset[str], share: float, batches: Iterable[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """The most probable categories of each query, until their probabilities sum to `share`."""
    for batch in batches:
        if not batch.num_rows:
            continue
        embeddings = matrix(batch["embedding"])
        names, probabilities = predict_among(_predictor(root, file), embeddings, live_categories)
        order = np.argsort(-probabilities, axis=1, kind="stable")
        taken = [count_most_probable(line, share) for line in probabilities]
        query = np.repeat(np.arange(len(order)), taken)
        place = np.concatenate([line[:most] for line, most in zip(order, taken, strict=True)])
        columns = [
            batch["key"].take(pa.array(query)),
            pa.array(names).take(pa.array(place)),
            pa.array(probabilities[query, place]),
        ]
        yield pa.RecordBatch.from_arrays(columns, schema=_PREDICTED)


@lru_cache(maxsize=1)
def _predictor(root: str, file: File) -> Predictor:
    """Kept open from task to task of a Python worker."""
    return open_predictor(root, dict(file))


def rank_products(run: Run, matches: DataFrame, rows: DataFrame, pairs: DataFrame, here: Live) -> DataFrame:
    """The best `match.k` products of each query over all its categories."""
    per_product = Window.partitionBy("query_id", "product_id").orderBy(F.desc("score"), "category")
    per_query = Window.partitionBy("query_id").orderBy(F.desc("score"), "product_id")
    best = matches.withColumn("place", F.row_number().over(per_product)).where("place = 1").drop("place")
    best = best.withColumn("rank", F.row_number().over(per_query)).where(F.col("rank") <= run.settings.match.k)
    why = pairs.select("query_id", "category", "category_given", "category_probability")
    equal = _equal_content(run.tables, rows, here).withColumn("equal", F.lit(True))
    probability = _exact_probability(run.tables, here)
    exact = F.col("equal").isNotNull() | F.coalesce(probability >= run.settings.match.exact_probability, F.lit(False))
    return (
        best.join(why, ["query_id", "category"])
        .join(equal, ["query_id", "product_id"], "left")
        .withColumn("exact_probability", probability)
        .withColumn("exact", exact)
        .drop("equal")
    )


def _equal_content(tables: Tables, rows: DataFrame, here: Live) -> DataFrame:
    """(query_id, product_id) of queries whose very content is an image of the product."""
    accepted = rows.where("reason IS NULL").select("query_id", "content_hash")
    images = select_live(tables.read("images"), here.model_id).select("content_hash", "product_id")
    return images.join(accepted, "content_hash").select("query_id", "product_id").distinct()


def _exact_probability(tables: Tables, here: Live) -> Column:
    """By `score`; null where nothing was fitted, or nothing could be learnt."""
    try:
        row = read_latest_predictor(tables, here.model_id)
    except NotPredictable:
        return F.lit(None).cast("double")
    if row["same_product_slope"] is None:
        return F.lit(None).cast("double")
    return 1 / (1 + F.exp(-(F.lit(row["same_product_slope"]) * F.col("score") + row["same_product_intercept"])))


def account_for_all(rows: DataFrame, matched: DataFrame, model_id: str) -> DataFrame:
    """`matched`, and one row with rank 0 for each query that is not in it."""
    names = ["query_id", "occurrence", "reason"]
    first = matched.withColumn("occurrence", F.lit(0)).withColumn("status", F.lit("matched"))
    left = rows.select(*names).join(
        matched.select(F.col("query_id").alias("found_id")).distinct(),
        (F.col("query_id") == F.col("found_id")) & (F.col("occurrence") == 0),
        "left_anti",
    )
    status = F.when(F.col("reason").isNull(), "unmatched").otherwise("rejected")
    others = left.withColumn("rank", F.lit(0)).withColumn("status", status)
    return first.unionByName(others, allowMissingColumns=True).withColumn("model_id", F.lit(model_id))


def _write(rows: DataFrame, out: str) -> None:
    """Replace all that the table holds by `rows`, in one commit."""
    empty = rows.sparkSession.createDataFrame([], to_spark_schema(schemas.MATCHES))
    empty.write.format("delta").mode("ignore").save(out)  # so that the comments stand
    rows.write.format("delta").mode("overwrite").save(out)


def _counts(written: DataFrame) -> dict[str, int]:
    """Queries by status, of the table as it stands, and how many rows they have."""
    counts = {"matched": 0, "unmatched": 0, "rejected": 0}
    for row in written.where("rank <= 1").groupBy("status").count().collect():
        counts[row["status"]] = row["count"]
    exact = written.where("exact").select("query_id").distinct().count()
    return {**counts, "with an exact match": exact, "rows": written.count()}


def _reasons(written: DataFrame) -> str:
    """Why how many queries were rejected, the most frequent reason first."""
    counts = written.where("status = 'rejected'").groupBy("reason").count().orderBy(F.desc("count"), "reason").collect()
    return reason_counts((row["reason"], row["count"]) for row in counts)
