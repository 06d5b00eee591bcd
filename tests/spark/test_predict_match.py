"""Fitting what predicts categories, and matching queries, on a catalog made by hand: truth by brute force."""

import hashlib
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pytest
from tests import catalogs
from tests.spark import versions
from tests.spark.rows import manifest_file
from tests.spark.versions import run_at

from lookalike import reader
from lookalike.config import CategoriesSettings
from lookalike.errors import ConfigInvalid, ManifestInvalid, NotPredictable
from lookalike.kernels.index import shards
from lookalike.spark.operations.cleanup import cleanup
from lookalike.spark.queries import category_search
from lookalike.spark.queries.match_queries import match_queries
from lookalike.spark.run import Run
from lookalike.spark.training.fit_categories import fit_categories, limit_per_category

DIM = 8
MODEL = f"given-{DIM}"
CATEGORIES = {"men/shirts": 12, "men/shirts/plain": 10, "women": 11, "rare": 2}  # products
VIEWS = 3


class Shop:
    """Categories in directions of their own, products within them, views within those; by category."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.images: dict[str, list[tuple[str, str, np.ndarray]]] = {}
        for place, (category, products) in enumerate(CATEGORIES.items()):
            self.images[category] = []
            for number in range(products):
                middle = 1.5 * np.eye(DIM)[place] + 0.35 * rng.normal(size=DIM)
                for view in range(VIEWS):
                    vector = middle + 0.12 * rng.normal(size=DIM)
                    product = f"{category}-{number}"
                    unit = (vector / np.linalg.norm(vector)).astype(np.float32)
                    self.images[category].append((product, f"{product}-{view}", unit))

    def write(self, run: Run) -> None:
        shard_rows, ledger, embeddings = [], [], []
        for category, images in self.images.items():
            products, ids, vectors = (list(column) for column in zip(*images, strict=True))
            vector_ids = np.array([int(hashlib.sha256(i.encode()).hexdigest()[:15], 16) for i in ids])
            index = faiss.index_factory(DIM, "IDMap,Flat", faiss.METRIC_INNER_PRODUCT)
            index.add_with_ids(np.stack(vectors), vector_ids)
            rows = shards.ShardRows(
                vector_ids, pa.array(products), pa.array(ids), np.ones(len(ids), bool), np.stack(vectors).astype("f2")
            )
            described = shards.write_shard(run.settings.root, category, "v", run.run_id, 0, index, rows, MODEL)
            own = {"category": category, "version": "v", "shard": 0, "factory": "IDMap,Flat", "nprobe": 0}
            shard_rows.append({**described, **own, "candidates": 50, "run_id": run.run_id})
            for product, image, vector in images:
                content_hash = hashlib.sha256(vector.tobytes()).hexdigest()
                row = versions.image_row(category, "embedded") | {"image_id": image, "product_id": product}
                ledger.append(row | {"content_hash": content_hash, "model_id": MODEL})
                embeddings.append({"content_hash": content_hash, "model_id": MODEL, "embedding": vector, "run_id": "r"})
        for table, table_rows in (("shards", shard_rows), ("images", ledger), ("embeddings", embeddings)):
            versions.append(run, table, table_rows)
        now = {"version": "v", "model_id": MODEL, "format_version": 1, "run_id": "r", "action": "publish"}
        now |= {"shards_table_version": 0, "similar_items_table_version": 0, "published_at": 0}
        versions.append(run, "publications", [now | {"category": category} for category in self.images])

    def nearest(self, query: np.ndarray, k: int, categories: set[str]) -> list[tuple[str, float]]:
        best: dict[str, float] = {}
        unit = query / np.linalg.norm(query)
        for category in categories:
            for product, _, vector in self.images[category]:
                best[product] = max(best.get(product, -1), float(vector.astype("f2").astype("f8") @ unit))
        return sorted(best.items(), key=lambda item: -item[1])[:k]


@pytest.fixture(scope="module")
def root(spark_session: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A live catalog, with what predicts its categories."""
    root = tmp_path_factory.mktemp("shop")
    run = run_at(spark_session, root)
    Shop().write(run)
    fit_categories(run)
    return root


def files_and_rows(root: Path) -> tuple[list[str], list[Any]]:
    rows = catalogs.table(root, "category_predictors")
    return sorted(path.name for path in root.glob("categories/*")), rows


def test_what_is_fitted_serves_until_the_catalog_changes(
    spark: Any, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (name,), (row,) = files_and_rows(root)
    assert (row["path"], row["model_id"], row["categories"], row["voted_only"]) == (f"categories/{name}", MODEL, 4, 1)
    assert row["images"] == VIEWS * sum(CATEGORIES.values())
    figures = {figure["metric"]: figure for figure in row["figures"]}
    assert figures["fused_accuracy@1"]["value"] > 0.9
    assert figures["fused_accuracy@1"]["n"] == figures["vote_accuracy@3"]["n"] >= 3 * VIEWS
    assert row["same_product_slope"] > 0
    catalog = reader.open(str(root), cache=root / "cache")
    found = [catalog.predict_category(2 * np.eye(DIM)[place], 1)[0].category for place in range(4)]
    assert found == list(CATEGORIES)

    fit_categories(run_at(spark, root))
    assert files_and_rows(root) == ([name], [row])
    assert "nothing changed since this was fitted" in capsys.readouterr().out
    (root / "categories" / name).write_bytes(b"damaged")
    fit_categories(run_at(spark, root))
    names, rows = files_and_rows(root)
    assert (len(names), len(rows)) == (2, 2)
    assert reader.open(str(root), cache=root / "cache").predict_category(np.eye(DIM)[2], 1)[0].category == "women"

    # Another one took its place only now, so it stays for the retention, which is over with none.
    assert cleanup(run_at(spark, root), 7.0).predictors == frozenset()
    gone = cleanup(run_at(spark, root), 0.0, delete=True)
    assert gone.predictors == {row["path"]} == set(gone.files)
    assert files_and_rows(root)[0] == [other for other in names if other != name]
    assert reader.open(str(root), cache=root / "other").predict_category(np.eye(DIM)[2], 1)[0].category == "women"


def queries_of(shop: Shop) -> list[dict[str, Any]]:
    rng = np.random.default_rng(1)
    rows: list[dict[str, Any]] = []
    for number in range(12):
        vector = np.eye(DIM)[number % 3] + 0.1 * rng.normal(size=DIM)
        given = (None, "men", "men/shirts/", "women")[number // 3]
        rows.append({"query_id": f"q{number}", "embedding": 3 * vector.astype(np.float32), "category": given})
    rows.append({"query_id": "equal", "embedding": shop.images["women"][7][2], "category": None})
    rows.append({"query_id": "spaced ", "embedding": shop.images["women"][7][2], "category": "women"})
    return rows


BAD: list[dict[str, Any]] = [
    {"query_id": " "},
    {"query_id": "nothing"},
    {"query_id": "both", "uri": "/x.jpg", "embedding": [1.0] * DIM},
    {"query_id": "short", "embedding": [1.0]},
    {"query_id": "zero", "embedding": [0.0] * DIM},
    {"query_id": "picture", "uri": "/x.jpg"},
    {"query_id": "where", "embedding": [1.0] * DIM, "category": "men/sh"},
    {"query_id": "q0", "embedding": [1.0] * DIM},
]


def test_every_query_is_matched_or_said_why_not(
    spark: Any, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(category_search, "TASK_PAIRS", 4)  # so that categories share tasks, and one is cut
    shop = Shop()
    asked = queries_of(shop)
    source, out = manifest_file(tmp_path / "q.parquet", asked + BAD), f"file://{tmp_path}/matches"
    run = run_at(spark, root, match={"k": 5, "category_share": 1.0})
    match_queries(run, source, out)
    rows = sorted(
        (row.asDict() for row in spark.read.format("delta").load(out).collect()),
        key=lambda row: (row["query_id"] or "", row["occurrence"], row["rank"]),
    )
    printed = capsys.readouterr().out
    assert "22 queries: 14 matched, 0 unmatched, 8 rejected" in printed
    assert "1 category is not published; 1 duplicate query_id" in printed

    below = {None: set(CATEGORIES), "men": {"men/shirts", "men/shirts/plain"}, "women": {"women"}}
    below["men/shirts/"] = below["men"]
    for query in asked:
        mine = [row for row in rows if (row["query_id"], row["occurrence"]) == (query["query_id"].strip(), 0)]
        truth = shop.nearest(np.asarray(query["embedding"], float), 5, below[query["category"]])
        if query["query_id"] != "q0":
            assert [row["product_id"] for row in mine] == [product for product, _ in truth]
            assert [row["score"] for row in mine] == pytest.approx([score for _, score in truth], abs=1e-5)
        assert [row["rank"] for row in mine] == [1, 2, 3, 4, 5]
        for row in mine:
            assert row["product_id"].startswith(f"{row['category']}-")
            assert (row["status"], row["version"], row["model_id"]) == ("matched", "v", MODEL)
            assert row["category_given"] == (query["category"] is not None) == (row["category_probability"] is None)
            equal = query["query_id"] in ("equal", "spaced ") and row["rank"] == 1
            assert row["exact"] == (equal or row["exact_probability"] >= 0.5)
        odds = [row["exact_probability"] for row in mine]
        assert odds == sorted(odds, reverse=True)
    reasons = {(row["query_id"], row["occurrence"]): row["reason"] for row in rows if row["status"] == "rejected"}
    assert reasons == {
        (None, 0): "no query_id",
        ("nothing", 0): "none of uri, content and embedding",
        ("both", 0): "more than one of uri, content and embedding",
        ("short", 0): f"embedding has 1 values, most others {DIM}",
        ("zero", 0): "embedding is zero or not finite",
        ("picture", 0): "no embedding, and the catalog's were brought",
        ("where", 0): "category is not published",
        ("q0", 1): "duplicate query_id",
    }
    assert all(row["rank"] == 0 and row["product_id"] is None for row in rows if row["status"] == "rejected")

    match_queries(run_at(spark, root, match={"k": 5, "category_share": 1.0}), source, out)
    again = [row.asDict() for row in spark.read.format("delta").load(out).collect()]
    assert sorted(again, key=lambda row: (row["query_id"] or "", row["occurrence"], row["rank"])) == rows


def test_a_share_of_the_probability_searches_few_categories(spark: Any, root: Path, tmp_path: Path) -> None:
    query = {"query_id": "q", "embedding": (2 * np.eye(DIM)[2]).astype(np.float32)}
    source, out = manifest_file(tmp_path / "q.parquet", [query]), f"file://{tmp_path}/matches"
    match_queries(run_at(spark, root, match={"category_share": 0.5}), source, out)
    rows = spark.read.format("delta").load(out).collect()
    assert {row["category"] for row in rows} == {"women"}
    assert len(rows) == CATEGORIES["women"]
    assert rows[0]["category_probability"] > 0.5


def test_what_cannot_be_matched_is_one_clear_error(spark: Any, root: Path, tmp_path: Path) -> None:
    query = manifest_file(tmp_path / "q.parquet", [{"query_id": "q", "embedding": [1.0] * DIM}])
    with pytest.raises(ConfigInvalid, match="something else is there"):
        match_queries(run_at(spark, root), query, f"file://{root}/tables/images")
    nameless = manifest_file(tmp_path / "nameless.parquet", [{"uri": "/x.jpg", "id": "q"}])
    with pytest.raises(ManifestInvalid, match="query_id: missing"):
        match_queries(run_at(spark, root), nameless, f"file://{tmp_path}/matches")
    unfitted = tmp_path / "unfitted"
    Shop().write(run_at(spark, unfitted))
    with pytest.raises(NotPredictable, match="run fit_categories, or name them"):
        match_queries(run_at(spark, unfitted), query, f"file://{tmp_path}/matches")


def test_the_sample_is_bounded_by_category_and_in_all() -> None:
    settings = CategoriesSettings(images=100, images_per_category=40)
    assert limit_per_category([10, 20], settings) == 40
    assert limit_per_category([10, 20, 1_000, 1_000], settings) == 35
    assert limit_per_category([2] * 1_000, settings) == 1
