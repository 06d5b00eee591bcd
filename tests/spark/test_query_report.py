"""What the report says of query photos, from rows made by hand."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tests import catalogs
from tests.spark import versions
from tests.spark.versions import MODEL, PRODUCTS, product

from lookalike.report.thumbnails import make_thumbnail
from lookalike.spark.pages.query_report import gather_query_evaluation
from lookalike.spark.pages.report import RunSummary, update_report
from lookalike.spark.queries.evaluate_queries import gallery_fingerprint, gallery_images
from lookalike.spark.queries.query_figures import METRICS
from lookalike.spark.run import Run

Row = dict[str, Any]


def evaluation(gallery: str, model_id: str, minute: int, uri: str, **said: Any) -> list[Row]:
    at = datetime(2026, 1, 1, 0, minute, tzinfo=UTC)
    key = {"queries_checksum": "c", "model_id": model_id, "gallery": gallery, "run_id": "r", "measured_at": at}
    names = {"queries": "photos.parquet", "queries_uri": uri, "model": f"timm/{model_id}"}
    figures = {"relevant": "product", "n": 4, "value": 0.5, "low": 0.25, "high": 0.75}
    groups = [("all", "all"), ("category", "a")]
    return [
        {**key, **names, **figures, "grouped_by": by, "group": group, "metric": metric, **said}
        for by, group in groups
        for metric in METRICS
    ]


def answer(gallery: str, query_id: str, product_id: str, rank: int | None, right_score: float) -> Row:
    found = [{"image_id": product(n), "score": 0.9 - n / 10, "right": n + 1 == rank} for n in range(3)]
    row: Row = {"queries_checksum": "c", "model_id": MODEL, "gallery": gallery, "relevant": "product", "run_id": "r"}
    row |= {"query_id": query_id, "product_id": product_id, "category": "a", "right_images": 1, "rank": rank}
    row |= {"map@r": 0.0, "ndcg@10": 0.0, "found": found, "right_image_id": product(5), "right_score": right_score}
    return row


def with_images(run: Run, folder: Path) -> str:
    """A live version of a category with its images; gives the gallery's fingerprint."""
    versions.build(run, ("a", "v1", None))
    versions.went_live(run, a=["v1"])
    rows = []
    for n in range(PRODUCTS):
        (folder / f"{n}.jpg").write_bytes(catalogs.picture(n))
        row = versions.image_row("a", "embedded", n) | {"image_id": product(n), "uri": str(folder / f"{n}.jpg")}
        rows.append(row | {"product_id": product(n), "title": f"Title {n}"})
    versions.append(run, "images", rows)
    return str(gallery_fingerprint(gallery_images(run))["gallery"])


def test_the_page_shows_figures_by_model_and_the_worst_answers(spark: Any, tmp_path: Path) -> None:
    run = versions.run_at(spark, tmp_path / "root")
    gallery = with_images(run, tmp_path)
    assert gather_query_evaluation(run, MODEL) is None
    photos = {"query_id": ["near", "far", "twin"], "content": [catalogs.picture(s) for s in (50, 51, 52)]}
    uri = str(tmp_path / "photos.parquet")
    pq.write_table(pa.table({**photos, "category": ["a"] * 3}), uri)
    rows = evaluation(gallery, MODEL, 1, uri) + evaluation(gallery, "other", 2, uri, value=0.25)
    rows += evaluation("another gallery", MODEL, 3, uri, value=0.75)
    rows += evaluation(gallery, "newer photos", 4, uri, queries_checksum="d")
    versions.append(run, "query_evaluations", rows)
    answers = [answer(gallery, "near", "p1", 2, 0.8), answer(gallery, "first", "p2", 1, 0.9)]
    answers += [answer(gallery, "far", "p3", None, 0.1), answer(gallery, "twin", "p3", None, 0.2)]
    versions.append(run, "query_answers", [*answers, {**answers[2], "model_id": "other"}])

    shown = gather_query_evaluation(run, MODEL)
    assert shown
    assert shown.queries == "photos.parquet"
    lines = [(line.group, line.model_id, line.current, line.estimates[0].value) for line in shown.lines]
    assert lines == [("all queries", "other", False, 0.25), ("all queries", MODEL, True, 0.5), ("a", MODEL, True, 0.5)]
    assert (shown.lines[1].estimates[5].low, shown.lines[1].estimates[5].high) == (0.25, 0.75)
    far, near = shown.failures
    assert (far.query.product_id, far.place, near.query.product_id, near.place) == ("far", None, "near", 2)
    assert far.query.picture == make_thumbnail(catalogs.picture(51), 560)
    assert (far.wanted.product_id, far.wanted.title) == (product(5), "Title 5")
    assert far.wanted.picture == make_thumbnail(catalogs.picture(5), 360)
    assert [(match.product_id, match.right) for match in near.query.matches] == [
        (product(0), False), (product(1), True), (product(2), False),
    ]  # fmt: skip

    Path(uri).unlink()  # the page is written without the photos that are gone
    update_report(run, RunSummary("live"))
    page = (tmp_path / "root" / "report.html").read_text()
    assert "This run only measured it." in page
    assert "Answered worst" in page
    assert f">{PRODUCTS + 1} embedded<" in page, "rows of the ledger, as this run took in none"
    update_report(run, RunSummary("unchanged", rows={"embedded": 2, "reused": 1_234, "rejected": 0}))
    page = (tmp_path / "root" / "report.html").read_text()
    assert "Same inputs as what is live" in page
    assert ">1,234 reused<" in page
    assert "Manifest rows" in page
