"""What the report says of query photos: figures by model and by group, and the photos that were answered worst."""

from collections.abc import Iterable, Mapping, Sequence

from pyspark.sql import Column, Row, Window
from pyspark.sql import functions as F

from lookalike import schemas
from lookalike.errors import ManifestInvalid
from lookalike.report import page as pages
from lookalike.report.thumbnails import make_thumbnail
from lookalike.spark.catalog.gallery import select_live
from lookalike.spark.pages.pictures import fetch_pictures, read_contents, read_images
from lookalike.spark.queries.evaluate_queries import Evaluation, gallery_fingerprint, select_searchable
from lookalike.spark.queries.exact_search import DEPTH
from lookalike.spark.queries.query_figures import ALL, METRICS, group_figures
from lookalike.spark.queries.query_manifest import query_contents
from lookalike.spark.run import Run

FAILURES = 6
_LINES = 100
_QUERY_PX, _MATCH_PX = 560, 360


def gather_query_evaluation(run: Run, model_id: str) -> pages.QueryEvaluation | None:
    """The latest evaluation of the model on the whole gallery as it is now, beside other models on the same queries."""
    known = run.tables.read("query_evaluations")
    if known.where(F.col("model_id") == model_id).isEmpty():
        return None
    gallery = gallery_fingerprint(select_searchable(select_live(run.tables.read("images"), model_id)))["gallery"]
    rows = known.where(F.col("gallery") == gallery)
    latest = rows.where(F.col("model_id") == model_id).orderBy(F.desc("measured_at")).first()
    if latest is None:
        return None
    same = rows.where(F.col("queries_checksum") == latest["queries_checksum"])
    shown = (F.col("model_id") == model_id) | (F.col("grouped_by") == ALL)
    figures = same.where(shown).orderBy("measured_at").collect()
    return pages.QueryEvaluation(
        latest["queries"],
        METRICS,
        tuple(_lines(figures, model_id)),
        DEPTH,
        _failures(run, latest),
    )


def _lines(figures: Sequence[Row], model_id: str) -> Iterable[pages.QueryFigures]:
    """All queries by model, the current one last; then the groups of the current one."""
    models = list(dict.fromkeys(row["model_id"] for row in figures))
    models.sort(key=lambda one: one == model_id)
    of_models = [group_figures([row for row in figures if row["model_id"] == one]) for one in models]
    lines = [
        (place, model, key, by_metric)
        for model, groups in enumerate(of_models)
        for place, (key, by_metric) in enumerate(groups.items())
    ]
    for _, _, (relevant, grouped_by, group), by_metric in sorted(lines, key=lambda line: line[:2])[:_LINES]:
        row = next(iter(by_metric.values()))
        yield pages.QueryFigures(
            relevant=relevant,
            group="all queries" if grouped_by == ALL else group,
            model=row["model"],
            model_id=row["model_id"],
            current=row["model_id"] == model_id,
            n=row["n"],
            estimates=tuple(_estimate(by_metric, metric) for metric in METRICS),
        )


def _estimate(by_metric: Mapping[str, Row], metric: str) -> pages.Estimate:
    return pages.Estimate(*(by_metric[metric][name] for name in ("value", "low", "high")))


def _failures(run: Run, evaluation: Row) -> tuple[pages.Failure, ...]:
    """Queries whose first right answer stands furthest down, at most one of a product; right by product, if known."""
    made = Evaluation(*(evaluation[name] for name in schemas.QUERY_EVALUATION_KEY))
    answers = run.tables.read("query_answers").where(made.chosen)
    relevant = answers.agg(F.max("relevant")).head()  # `product` comes after `category`
    assert relevant is not None
    worst: list[Column] = [F.desc_nulls_first("rank"), F.desc("gap"), F.asc("query_id")]
    of_product = Window.partitionBy(F.coalesce("product_id", "query_id")).orderBy(*worst)
    rows = (
        answers.where(F.col("relevant") == relevant[0])
        .where("NOT rank <=> 1")
        .withColumn("gap", F.col("found")[0]["score"] - F.col("right_score"))
        .withColumn("nth", F.row_number().over(of_product))
        .where("nth = 1")
        .orderBy(*worst)
        .limit(FAILURES)
        .collect()
    )
    if not rows:
        return ()
    images = read_images(
        run.tables, {m["image_id"] for row in rows for m in row["found"]} | {row["right_image_id"] for row in rows}
    )
    contents = read_contents(run, images)
    photos = _photos(run, evaluation["queries_uri"], [row["query_id"] for row in rows])
    return tuple(_failure(row, photos, images, contents, run.settings.report.similar) for row in rows)


def _photos(run: Run, uri: str, query_ids: Sequence[str]) -> dict[str, bytes]:
    """Bytes by query_id, of those that can still be read."""
    try:
        rows = query_contents(run.spark, uri, query_ids)
    except ManifestInvalid:  # it is gone since
        return {}
    carried = {row["query_id"]: bytes(row["content"]) for row in rows if row["content"] is not None}
    return carried | fetch_pictures(run.settings.ingest, {row["query_id"]: row["uri"] for row in rows if row["uri"]})


def _failure(
    row: Row, photos: Mapping[str, bytes], images: Mapping[str, Row], contents: Mapping[str, bytes], shown: int
) -> pages.Failure:
    def match(image_id: str, score: float, right: bool) -> pages.Match:
        image = images.get(image_id)
        product_id, title = (image["product_id"], image["title"]) if image else (image_id, None)
        picture = make_thumbnail(contents.get(image_id, b""), _MATCH_PX)
        return pages.Match(product_id, title, picture, score, right=right)

    wanted = match(row["right_image_id"], row["right_score"], True)
    right = row["category"] if row["product_id"] is None else wanted.title or row["product_id"]
    matches = tuple(match(m["image_id"], m["score"], m["right"]) for m in row["found"][:shown])
    picture = make_thumbnail(photos.get(row["query_id"], b""), _QUERY_PX)
    query = pages.QueryRow(row["query_id"], right, row["category"] or "", picture, matches)
    return pages.Failure(query, wanted, row["rank"])
