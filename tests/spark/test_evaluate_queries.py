"""Evaluation by query photos: figures against brute force, queries that are gallery images, and bad input."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import functions as F
from sklearn.metrics import ndcg_score
from tests import catalogs
from tests.spark import versions
from tests.spark.pictures import model_of
from tests.spark.rows import run_of
from tests.spark.test_embed import EMBED
from tests.vectors import unit

from lookalike import schemas
from lookalike.errors import ManifestInvalid, RootUnusable
from lookalike.kernels.evaluation.bootstrap import share_intervals
from lookalike.kernels.models.load import load_model
from lookalike.spark.queries import evaluate_queries as evaluation
from lookalike.spark.queries import exact_search
from lookalike.spark.queries.evaluate_queries import (
    evaluate_queries,
    gallery_fingerprint,
    gallery_images,
    load_or_measure,
)
from lookalike.spark.queries.query_figures import METRICS
from lookalike.spark.queries.query_manifest import read_queries
from lookalike.spark.run import Run

MODEL, DIM = versions.MODEL, 8
PRODUCTS, VIEWS = 40, 3
QUERIES = pa.schema([*schemas.QUERY_REQUIRED, *schemas.QUERY_OPTIONAL])

Row = dict[str, Any]


class Gallery:
    """Products in four categories, with three images each around a centre; the last image is another's copy."""

    def __init__(self, spark: Any, root: Path) -> None:
        self.run = versions.run_at(spark, root)
        rng = np.random.default_rng(0)
        centres = np.repeat(rng.normal(size=(PRODUCTS, DIM)), VIEWS, axis=0)
        self.vectors = unit(centres + rng.normal(size=centres.shape) * 0.6)
        self.products = [f"p{i // VIEWS:02d}" for i in range(len(centres))]
        self.categories = [f"c{i // VIEWS % 4}" for i in range(len(centres))]
        self.hashes = [f"h{i}" for i in range(len(centres))]
        self.hashes[-1] = self.hashes[0]
        self.vectors[-1] = self.vectors[0]
        rows = []
        for i, (product, category) in enumerate(zip(self.products, self.categories, strict=True)):
            row = versions.image_row(category, "embedded", i)
            rows.append({**row, "image_id": f"i{i}", "product_id": product, "content_hash": self.hashes[i]})
        versions.append(self.run, "images", [*rows, {**rows[0], "image_id": "gone", "deleted": True}])
        known = dict(zip(self.hashes, self.vectors, strict=True))
        stored = [{"content_hash": h, "model_id": MODEL, "embedding": v, "run_id": "r"} for h, v in known.items()]
        versions.append(self.run, "embeddings", stored)

    def queries(self, count: int = 90) -> list[Row]:
        """Near images of the gallery: some of them themselves, by image_id, and some of no product, or of no image."""
        rng = np.random.default_rng(1)
        rows = []
        for n in range(count):
            near = int(rng.integers(len(self.products)))
            own = n % 3 == 0
            vector = self.vectors[near] if own else unit(self.vectors[near] + rng.normal(size=DIM) * 0.3)
            row = {"query_id": f"q{n:03d}", "embedding": vector, "attributes": {"view": "ab"[n % 2], "n": str(n)}}
            row |= {"category": self.categories[near], "image_id": f"i{near}" if own else None}
            row |= {"product_id": None if n % 7 == 0 else "unknown" if n % 11 == 0 else self.products[near]}
            rows.append(row)
        return rows

    def truth(self, queries: list[Row], label: str) -> dict[str, tuple[list[int], list[bool]]]:
        """query_id -> the gallery's rows in the order of a full sort, and which are right; of answerable queries."""
        found = {}
        theirs = np.array({"product_id": self.products, "category": self.categories}[label])
        for query in queries:
            own = {i for i in range(len(theirs)) if query["image_id"] == f"i{i}"}
            rows = [i for i in range(len(theirs)) if i not in own]
            scores = self.vectors[rows] @ query["embedding"]
            right = theirs[rows] == query[label]
            if right.any():
                order = np.argsort(-(scores - 1e-6 * right), kind="stable")
                found[query["query_id"]] = ([rows[i] for i in order], right[order].tolist())
        return found


@pytest.fixture
def gallery(spark: Any, tmp_path: Path) -> Gallery:
    return Gallery(spark, tmp_path / "root")


def write(path: Path, rows: list[Row]) -> str:
    present = [name for name in QUERIES.names if any(name in row for row in rows)]
    rows = [{**row, "attributes": list((row.get("attributes") or {}).items())} for row in rows]
    pq.write_table(pa.Table.from_pylist(rows, pa.schema([QUERIES.field(name) for name in present])), path)
    return str(path)


def figures(run: Run) -> dict[tuple[str, str, str, str], Row]:
    rows = run.tables.read("query_evaluations").collect()
    found = {(row["relevant"], row["grouped_by"], row["group"], row["metric"]): row.asDict() for row in rows}
    assert len(found) == len(rows)
    return found


def test_figures_are_those_of_sorting_everything_and_a_rerun_adds_nothing(
    gallery: Gallery, tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(exact_search, "_LEAST_TASK_IMAGES", 50)  # two tasks
    queries = gallery.queries()
    path = write(tmp_path / "queries.parquet", queries)
    evaluate_queries(gallery.run, path)
    found = figures(gallery.run)
    assert gallery.run.stages[-1].counts == {"queries": len(queries)}

    by_id = {query["query_id"]: query for query in queries}
    for relevant, label in exact_search.LABELS.items():
        truth = gallery.truth(queries, label)
        rights = [np.array(flags) for _, flags in truth.values()]
        values = {f"recall@{k}": [flags[:k].any() for flags in rights] for k in (1, 5, 10, 20)}
        values["ndcg@10"] = [ndcg_score([f], [-np.arange(len(f))], k=10) for f in rights]
        values["map@r"] = []
        for flags in rights:
            r = flags.sum()
            precision = np.cumsum(flags)[:r] / np.arange(1, r + 1)
            values["map@r"].append((precision * flags[:r]).sum() / r)
        clusters = np.array([by_id[q]["product_id"] or q for q in truth])
        matrix = np.array([values[metric] for metric in METRICS], float)
        low, high = share_intervals(matrix, clusters, gallery.run.settings.index.seed)
        for i, metric in enumerate(METRICS):
            row = found[relevant, "all", "all", metric]
            assert row["n"] == len(truth)
            assert row["value"] == pytest.approx(np.mean(values[metric]))
            assert (row["low"], row["high"]) == pytest.approx((low[i], high[i]), abs=0.03)  # clusters in another order
            view = [
                value for q, value in zip(truth, values[metric], strict=True) if by_id[q]["attributes"]["view"] == "a"
            ]
            assert found[relevant, "attribute", "view=a", metric]["value"] == pytest.approx(np.mean(view))
            c1 = [value for q, value in zip(truth, values[metric], strict=True) if by_id[q]["category"] == "c1"]
            assert found[relevant, "category", "c1", metric]["value"] == pytest.approx(np.mean(c1))
    assert not any(group.startswith("n=") for _, _, group, _ in found), "a value of one query has no figures"

    truth = gallery.truth(queries, "product_id")
    answers = gallery.run.tables.read("query_answers").where("relevant = 'product'").collect()
    assert {row["query_id"] for row in answers} == set(truth)
    for answer in answers:
        order, right = truth[answer["query_id"]]
        first = right.index(True)
        assert (answer["rank"] or 101) == min(first + 1, 101)
        assert answer["right_image_id"] == f"i{order[first]}"
        assert answer["right_images"] == sum(right)
        assert [match["image_id"] for match in answer["found"]] == [f"i{i}" for i in order[:10]]
        assert [match["right"] for match in answer["found"]] == right[:10]
        scores = gallery.vectors[order[:10]] @ by_id[answer["query_id"]]["embedding"]
        assert [match["score"] for match in answer["found"]] == pytest.approx(scores, abs=1e-5)

    tables = {name: gallery.run.tables.delta_version(name) for name in ("query_answers", "query_evaluations")}
    printed = capsys.readouterr().out
    assert "recall@1" in printed
    evaluate_queries(gallery.run, path)
    assert {name: gallery.run.tables.delta_version(name) for name in tables} == tables
    assert capsys.readouterr().out == printed


def test_bad_queries_are_named_all_at_once(gallery: Gallery, tmp_path: Path) -> None:
    good = gallery.queries(4)
    bad = [
        {**good[0], "query_id": "twice"},
        {**good[1], "query_id": "twice"},
        {**good[2], "query_id": " "},
        {**good[3], "query_id": "both", "uri": "a.jpg"},
        {**good[3], "query_id": "nothing", "embedding": None},
        {**good[3], "query_id": "aimless", "category": " ", "product_id": None},
    ]
    with pytest.raises(ManifestInvalid) as error:
        read_queries(gallery.run, write(tmp_path / "queries.parquet", [*good, *bad]))
    assert str(error.value).splitlines()[1:] == [
        "  2 with a query_id that others have too, such as twice",
        "  1 with neither product_id nor category, so that nothing is right, such as aimless",
        "  2 with not exactly one of uri, content and embedding, such as both",
        "  1 without query_id, such as None",
    ]
    pq.write_table(pa.table({"id": ["a"], "catgory": ["c"], "attributes": ["red"]}), tmp_path / "columns.parquet")
    with pytest.raises(ManifestInvalid) as error:
        read_queries(gallery.run, str(tmp_path / "columns.parquet"))
    for problem in (
        "query_id: missing",
        "category: absent; rename column 'catgory' to 'category'",
        "uri, content, embedding: all missing",
        "product_id, category: both missing",
        "attributes: is string in",
    ):
        assert problem in str(error.value)


def test_without_an_answer_there_are_no_figures(gallery: Gallery, tmp_path: Path, monkeypatch: Any) -> None:
    path = write(tmp_path / "queries.parquet", gallery.queries(3))
    with pytest.raises(RootUnusable, match="holds no image of model other"):
        evaluate_queries(versions.run_at(gallery.run.spark, tmp_path / "root", "other"), path)
    monkeypatch.setattr(evaluation, "_answer", lambda *_: {"zero bytes": 2})
    with pytest.raises(ManifestInvalid, match="is of the product or category of any of the 3 queries, 2 of which were"):
        evaluate_queries(gallery.run, path)


def test_photos_go_the_way_of_the_catalog(spark: Any, tmp_path: Path) -> None:
    """A photo that is a gallery image by its bytes does not find it, and bad photos are left out with a reason."""
    model = model_of(tmp_path, 0)
    model_id = load_model(model).model_id
    run = versions.run_at(spark, tmp_path / "root", model_id, model=model, embed=EMBED)
    pictures = [catalogs.picture(seed) for seed in range(6)]
    hashes = [hashlib.sha256(picture).hexdigest() for picture in pictures]
    known = {"model_id": model_id, "run_id": "r"}
    ledger = [versions.image_row("a", "embedded", i) | known for i in range(6)]
    own = [{"image_id": f"g{i}", "product_id": f"p{i % 3}", "content_hash": hashes[i]} for i in range(6)]
    versions.append(run, "images", [row | ours for row, ours in zip(ledger, own, strict=True)])
    vectors = unit(np.random.default_rng(0).normal(size=(6, 256)))
    stored = [{"content_hash": h, "embedding": v, **known} for h, v in zip(hashes, vectors, strict=True)]
    versions.append(run, "embeddings", stored)
    (tmp_path / "query.jpg").write_bytes(pictures[1])
    right = {"product_id": "p1", "category": "a"}
    photos: list[Row] = [
        {"query_id": "by bytes", "content": pictures[0], "product_id": "p0"},
        {"query_id": "by uri", "uri": str(tmp_path / "query.jpg"), **right},
        {"query_id": "new", "content": catalogs.picture(77), **right},
        {"query_id": "new again", "content": catalogs.picture(77), **right},
        {"query_id": "text", "content": b"no picture", **right},
        {"query_id": "empty", "content": b"", **right},
        {"query_id": "gone", "uri": str(tmp_path / "gone.jpg"), **right},
        {"query_id": "brought", "embedding": np.ones(3), **right},
    ]
    evaluate_queries(run, write(tmp_path / "queries.parquet", photos))
    assert run.stages[-1].counts == {
        "queries": 8,
        "embedding has 3 values, most others 256": 1,
        "not an image (JPEG, PNG, WebP, AVIF, GIF, BMP or TIFF)": 1,
        "unreadable uri: not found": 1,
        "zero bytes": 1,
    }
    assert run.tables.read("embeddings").count() == 6, "nothing of a query photo is kept"
    answers = {row["query_id"]: row for row in run.tables.read("query_answers").where("relevant = 'product'").collect()}
    assert set(answers) == {"by bytes", "by uri", "new", "new again"}
    assert {query: row["right_images"] for query, row in answers.items()} == {
        "by bytes": 1, "by uri": 1, "new": 2, "new again": 2,
    }  # fmt: skip
    assert "g0" not in [match["image_id"] for match in answers["by bytes"]["found"]]
    assert answers["by bytes"]["right_image_id"] == "g3"
    unusable = write(tmp_path / "unusable.parquet", photos[4:7])
    with pytest.raises(ManifestInvalid, match=r"no query has a usable photo: 1 not an image .*; 1 zero bytes"):
        evaluate_queries(run, unusable)
    assert not (tmp_path / "root" / "staging" / run.run_id).exists()


def test_figures_without_photos_that_a_later_run_may_read_are_not_kept(
    gallery: Gallery, tmp_path: Path, monkeypatch: Any
) -> None:
    queries = read_queries(gallery.run, write(tmp_path / "queries.parquet", gallery.queries(3)))
    answer = {"relevant": "product", "query_id": "q", "product_id": "p", "category": None, "attributes": None}
    answers = pd.DataFrame([{**answer, "rank": 2, "map@r": 0.5, "ndcg@10": 0.5}])
    monkeypatch.setattr(evaluation, "read_answers", lambda *_: answers)
    for reason, kept in (("unreadable uri: timed out", False), ("unreadable uri: not found", True)):
        monkeypatch.setattr(evaluation, "_answer", lambda *_, reason=reason: {reason: 1})
        found = load_or_measure(gallery.run, queries, gallery_images(gallery.run))
        assert found.skipped == {reason: 1}
        assert [row["value"] for row in found.figures] == [0, 1, 1, 1, 0.5, 0.5]
        assert gallery.run.tables.read("query_evaluations").isEmpty() is not kept


def test_other_images_are_another_gallery(gallery: Gallery) -> None:
    images = gallery_images(gallery.run)
    before = gallery_fingerprint(images)
    assert gallery_fingerprint(images.repartition(3)) == before
    assert before["images"] == len(gallery.products)
    assert gallery_fingerprint(images.where("image_id != 'i3'"))["gallery"] != before["gallery"]
    moved = images.withColumn("category", F.when(F.col("image_id") == "i3", "x").otherwise(F.col("category")))
    assert gallery_fingerprint(moved)["gallery"] != before["gallery"]


def test_a_catalog_of_given_embeddings_takes_no_photos(spark: Any, tmp_path: Path) -> None:
    rows = catalogs.embeddings("a", 4)
    manifest = str(catalogs.write_manifest(tmp_path / "m.parquet", rows))
    run = run_of(spark, tmp_path / "root", manifest, embed=EMBED)
    photos = write(tmp_path / "queries.parquet", [{"query_id": "q", "uri": "a.jpg", "category": "a"}])
    with pytest.raises(ManifestInvalid, match="1 without embedding, which they need as the catalog's images bring"):
        read_queries(run, photos)
