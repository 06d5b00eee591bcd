"""Evaluate by query photos: how good the answers of a model are, measured by what is known to be right.

The gallery is every live image of the selection, the search exact: what is measured is the model, not the index.
What each query found goes to `query_answers`, the figures made of it to `query_evaluations`, last: a rerun with the
same queries, model and gallery finds them there and measures nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pandas as pd
from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F

from lookalike import files, reasons, schemas
from lookalike.errors import ManifestInvalid, RootUnusable
from lookalike.formats import reason_counts
from lookalike.spark.catalog.gallery import fingerprint, select_live
from lookalike.spark.category_conditions import is_selected
from lookalike.spark.progress import progress_bar
from lookalike.spark.queries import exact_search
from lookalike.spark.queries.query_figures import compute_figures, print_figures
from lookalike.spark.queries.query_manifest import Queries, embed_queries, read_queries
from lookalike.spark.run import Run, console
from lookalike.spark.tables import Tables, make_local_frame, write_and_read

_KEY = schemas.QUERY_EVALUATION_KEY


@dataclass(frozen=True)
class Evaluation:
    """What identifies an evaluation; its figures, as rows of `query_evaluations`; and what it left out.

    `skipped` counts by reason the queries without a usable photo, where it was made just now.
    """

    queries_checksum: str
    model_id: str
    gallery: str
    figures: Sequence[Mapping[str, Any]] = ()
    skipped: Mapping[str, int] = field(default_factory=dict)

    @property
    def chosen(self) -> Column:
        """Whether a row of `query_answers` or `query_evaluations` is of this evaluation."""
        same_inputs = (F.col("queries_checksum") == self.queries_checksum) & (F.col("gallery") == self.gallery)
        return same_inputs & (F.col("model_id") == self.model_id)


def evaluate_queries(run: Run, uri: str) -> None:
    """Measure the answers to the queries at `uri` on the gallery of the model, store the figures and print them.

    Raises ManifestInvalid, and RootUnusable where the gallery is empty.
    """
    with run.stage("evaluate_queries") as figures:
        queries = read_queries(run, uri)
        evaluation = load_or_measure(run, queries, gallery_images(run))
        figures.counts = {"queries": queries.count, **evaluation.skipped}
    print_figures(f"{queries.name}, model {run.model_id}, gallery {evaluation.gallery}", evaluation.figures)
    console().print(describe_counts(queries.count, evaluation), highlight=False, soft_wrap=True)


def gallery_images(run: Run) -> DataFrame:
    """Live images of the selection: (image_id, product_id, category, content_hash)."""
    return select_searchable(select_live(run.tables.read("images"), run.model_id).where(is_selected(run.selection)))


def select_searchable(images: DataFrame) -> DataFrame:
    """The columns of ledger rows that the search needs."""
    return images.select("image_id", "product_id", "category", "content_hash")


def gallery_fingerprint(images: DataFrame) -> Row:
    """(gallery, images) of `gallery_images`."""
    hashed = F.xxhash64("image_id", "product_id", "category", "content_hash")
    row = images.agg(fingerprint(hashed).alias("gallery"), F.count("*").alias("images")).head()
    assert row is not None
    return row


def load_or_measure(run: Run, queries: Queries, images: DataFrame) -> Evaluation:
    """The evaluation of `queries` on the gallery `images`, made now or before.

    Queries without a usable photo are left out and counted. Where one could not be read for a cause that may pass, the
    figures are not stored, so that a later run measures anew.
    """
    gallery = gallery_fingerprint(images)
    if not gallery["images"]:
        raise RootUnusable(
            f"{run.settings.root} holds no image of model {run.model_id} in the selected categories: "
            "run the pipeline first"
        )
    evaluation = Evaluation(queries.checksum, run.model_id, gallery["gallery"])
    known = run.tables.read("query_evaluations").where(evaluation.chosen).collect()
    if known:
        return replace(evaluation, figures=[row.asDict() for row in known])
    staging = files.join(run.settings.root, "staging", run.run_id)
    search = files.join(staging, "search", run.model_id)
    try:
        skipped = _answer(run, queries, images, gallery["images"], evaluation, search)
    finally:
        files.remove(staging)
    answers = read_answers(run.tables, evaluation)
    if answers.empty:
        raise ManifestInvalid(
            f"{queries.uri}: nothing could be measured: no image of the gallery is of the product or category of any "
            f"of the {queries.count:,} queries{_reasons(skipped)}"
        )
    rows = _figures(run, queries, answers, evaluation)
    if not set(skipped) & reasons.TRANSIENT:
        _store(run, rows)
    return replace(evaluation, figures=rows, skipped=skipped)


def _answer(
    run: Run, queries: Queries, images: DataFrame, count: int, evaluation: Evaluation, staging: str
) -> dict[str, int]:
    """Store what the queries find among `images`, about `count`; gives why how many were left out.

    Raises ManifestInvalid where all are.
    """
    ours = run.tables.read("embeddings").where(F.col("model_id") == evaluation.model_id)
    embedded = images.join(ours.select("content_hash", "embedding"), "content_hash", "inner")
    first = embedded.select(F.size("embedding").alias("dim")).head()
    assert first is not None
    with embed_queries(run, queries, first["dim"]) as photos:
        photos = photos.persist(StorageLevel.DISK_ONLY)
        rejected = photos.where("reason IS NOT NULL").groupBy("reason").count().orderBy("reason").collect()
        skipped = {row["reason"]: row["count"] for row in rejected}
        if sum(skipped.values()) == queries.count:
            raise ManifestInvalid(f"{queries.uri}: no query has a usable photo: {reason_counts(skipped.items())}")
        labels = queries.rows.select("query_id", "product_id", "category", "image_id")
        good = photos.where("reason IS NULL").drop("reason").join(labels, "query_id", "inner")
        probes = exact_search.write_queries(good, files.join(staging, "queries"))
        with progress_bar(run.console, run.spark.sparkContext, "search", count) as searched:
            ranked = write_and_read(
                exact_search.rank_gallery(embedded, count, probes, searched), files.join(staging, "ranked")
            )
        _store_answers(run, queries, ranked, evaluation)
        photos.unpersist()
    return skipped


def describe_counts(queries: int, evaluation: Evaluation) -> str:
    """What became of all queries, in words."""
    if not evaluation.skipped:
        return f"queries {queries:,}"
    return f"queries {queries:,}{_reasons(evaluation.skipped)}"


def _reasons(skipped: Mapping[str, int]) -> str:
    return f", {sum(skipped.values()):,} of which were left out: {reason_counts(skipped.items())}" if skipped else ""


def _store_answers(run: Run, queries: Queries, ranked: DataFrame, evaluation: Evaluation) -> None:
    said = queries.rows.select("query_id", "product_id", "category", "attributes")
    common = {name: F.lit(getattr(evaluation, name)) for name in _KEY} | {"run_id": F.lit(run.run_id)}
    rows = ranked.join(said, "query_id", "inner").withColumns(common)
    run.tables.insert("query_answers", rows, [*_KEY, "relevant", "query_id"])


def read_answers(tables: Tables, evaluation: Evaluation) -> pd.DataFrame:
    """What each query found, by relevance and query: at most two rows a query, without the images."""
    rows = tables.read("query_answers").where(evaluation.chosen)
    columns = ["relevant", "query_id", "product_id", "category", "attributes", "rank", "`map@r`", "`ndcg@10`"]
    answers: pd.DataFrame = (
        rows.select(*columns).orderBy("relevant", "query_id").toArrow().to_pandas(maps_as_pydicts="lossy")
    )
    return answers


def _figures(run: Run, queries: Queries, answers: pd.DataFrame, evaluation: Evaluation) -> list[dict[str, Any]]:
    """Rows of `query_evaluations`."""
    common = {
        **{name: getattr(evaluation, name) for name in _KEY},
        "queries": queries.name,
        "queries_uri": queries.uri,
        "model": run.settings.model.name,
        "run_id": run.run_id,
        "measured_at": datetime.now(UTC),
    }
    return [{**common, **row} for row in compute_figures(answers, run.settings.index.seed)]


def _store(run: Run, rows: Sequence[Mapping[str, Any]]) -> None:
    values = [tuple(row.get(name) for name in schemas.QUERY_EVALUATIONS.names) for row in rows]
    frame = make_local_frame(run.spark, values, schemas.QUERY_EVALUATIONS)
    run.tables.insert("query_evaluations", frame, [*_KEY, "relevant", "grouped_by", "group", "metric"])
