"""Evaluate and publish, on shards of hand-made vectors and on similar items that are right, wrong or missing."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.classic.dataframe import DataFrame as ClassicDataFrame
from tests.spark.versions import MODEL, run_at

from lookalike import schemas
from lookalike.errors import GateFailed
from lookalike.kernels.index import shards
from lookalike.spark.catalog.evaluate import evaluate
from lookalike.spark.catalog.publish import publish
from lookalike.spark.catalog.versions import Version
from lookalike.spark.tables import to_spark_schema

PRODUCTS = 30
IMAGES = 2 * PRODUCTS


class Catalog:
    """One category of 30 products with two images each, the last product unavailable, in two shards."""

    def __init__(self, spark: Any, root: Path) -> None:
        self.run = run_at(spark, root)
        rng = np.random.default_rng(5)
        vectors = rng.normal(size=(IMAGES, 8)).astype(np.float32)
        # A product's second image is a neighbour of its first for the first ten products only.
        vectors[1:20:2] = vectors[0:20:2] + 0.01
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        self.vectors = vectors.astype(np.float16)
        self.products = [f"p{i // 2:02d}" for i in range(IMAGES)]
        self.images = [f"i{i:03d}" for i in range(IMAGES)]
        self.version = Version("a/b", "v1", IMAGES, True)
        self._write_shards()
        ledger = [
            self._row(
                schemas.IMAGES, image_id=image, occurrence=0, product_id=product, category="a/b",
                available=product != "p29",
                deleted=False, vector_id=i, content_hash=image, model_id=MODEL, status="embedded", run_id="r",
            )
            for i, (image, product) in enumerate(zip(self.images, self.products, strict=True))
        ]  # fmt: skip
        self.append("images", ledger)

    @staticmethod
    def _row(schema: pa.Schema, **values: Any) -> tuple[Any, ...]:
        return tuple(values.get(field.name) for field in schema)

    def append(self, table: str, rows: list[tuple[Any, ...]]) -> None:
        self.run.tables.append(table, self.run.spark.createDataFrame(rows, to_spark_schema(schemas.TABLES[table])))

    def _write_shards(self) -> None:
        described = []
        for number in range(2):
            mine = [i for i in range(IMAGES) if (i // 2) % 2 == number]
            index = faiss.index_factory(8, "IDMap,Flat", faiss.METRIC_INNER_PRODUCT)
            index.add_with_ids(self.vectors[mine].astype(np.float32), np.array(mine))
            rows = shards.ShardRows(
                np.array(mine),
                pa.array([self.products[i] for i in mine]),
                pa.array([self.images[i] for i in mine]),
                np.array([self.products[i] != "p29" for i in mine]),
                self.vectors[mine],
            )
            row = shards.write_shard(self.run.settings.root, "a/b", "v1", self.run.run_id, number, index, rows, MODEL)
            extra = {"category": "a/b", "version": "v1", "shard": number, "factory": "IDMap,Flat", "nprobe": 0}
            described.append(self._row(schemas.SHARDS, **row, **extra, candidates=100, run_id="r"))
        self.append("shards", described)

    def exact_items(self) -> list[dict[str, Any]]:
        """The ten nearest available other products of each product, worked out pair by pair."""
        vectors = self.vectors.astype(np.float64)
        rows = []
        for query in sorted(set(self.products)):
            best: dict[str, tuple[float, int, int]] = {}
            for i in (i for i in range(IMAGES) if self.products[i] == query):
                for j in (j for j in range(IMAGES) if self.products[j] not in (query, "p29")):
                    best[self.products[j]] = max(
                        best.get(self.products[j], (-2.0, 0, 0)), (vectors[i] @ vectors[j], i, j)
                    )
            nearest = sorted(best.items(), key=lambda item: -item[1][0])[:10]
            for rank, (product, (score, i, j)) in enumerate(nearest, start=1):
                rows.append(
                    {
                        "category": "a/b", "version": "v1", "product_id": query, "rank": rank, "score": float(score),
                        "similar_product_id": product, "image_id": self.images[i], "similar_image_id": self.images[j],
                    }
                )  # fmt: skip
        return rows

    def measured(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        if items:
            self.append("similar_items", [self._row(schemas.SIMILAR_ITEMS, **item) for item in items])
        evaluate(self.run, [self.version])
        return {row["metric"]: row for row in self.run.tables.read("evaluations").collect()}


@pytest.fixture
def catalog(spark: Any, tmp_path: Path) -> Catalog:
    return Catalog(spark, tmp_path / "root")


def test_exact_items_measure_as_perfect_and_go_live(catalog: Catalog) -> None:
    figures = catalog.measured(catalog.exact_items())
    assert figures["knn_recall@10"]["value"] == 1.0
    assert figures["knn_recall@10"]["low"] < 1.0
    assert figures["coverage"]["value"] == 1.0
    assert figures["dangling"]["value"] == 0.0
    assert (figures["products"]["value"], figures["images"]["value"]) == (PRODUCTS, IMAGES)
    publish(catalog.run, [catalog.version])
    (row,) = catalog.run.tables.read("publications").collect()
    assert (row["category"], row["version"], row["replaced_version"]) == ("a/b", "v1", None)


def test_recall_counts_images_that_find_their_product(catalog: Catalog) -> None:
    figures = catalog.measured(catalog.exact_items())
    vectors = catalog.vectors.astype(np.float64)
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -2)
    for k in (1, 5, 10):
        nearest = np.argsort(-scores, axis=1)[:, :k]
        found = np.mean([(i ^ 1) in nearest[i] for i in range(IMAGES)])
        assert figures[f"recall@{k}"]["value"] == pytest.approx(found)
        assert figures[f"recall@{k}"]["n"] == IMAGES


def test_wrong_rows_vouch_for_nothing(catalog: Catalog) -> None:
    """Half of each product's rows are the product itself, a repeat, an unavailable product; scores claim to be 1."""
    items = catalog.exact_items()
    for item in items:
        item["score"] = 1.0
        if item["rank"] % 2 == 0:
            image = {2: item["image_id"], 4: "i058"}.get(item["rank"])
            repeated = next(i for i in items if i["product_id"] == item["product_id"] and i["rank"] == 1)
            item["similar_image_id"] = image or repeated["similar_image_id"]
            item["similar_product_id"] = catalog.products[catalog.images.index(item["similar_image_id"])]
    figures = catalog.measured(items)
    assert figures["knn_recall@10"]["value"] == pytest.approx(0.5, abs=0.02)


def test_ids_that_the_version_does_not_hold_fail_the_gate(catalog: Catalog) -> None:
    items = catalog.exact_items()
    items[3]["similar_image_id"] = "gone"
    items[7]["similar_product_id"] = "gone"
    figures = catalog.measured(items)
    assert figures["dangling"]["value"] == 2.0
    with pytest.raises(GateFailed, match=r"a/b: dangling is 2\.0000, must be <= 0"):
        publish(catalog.run, [catalog.version])
    assert catalog.run.tables.read("publications").count() == 0


def test_missing_rows_fail_the_gate(catalog: Catalog) -> None:
    items = [item for item in catalog.exact_items() if item["product_id"] >= "p06"]
    figures = catalog.measured(items)
    assert figures["coverage"]["value"] == pytest.approx(24 / 30)
    with pytest.raises(GateFailed) as error:
        publish(catalog.run, [catalog.version])
    assert "a/b: coverage is 0.8000, must be >= 0.9900" in str(error.value)
    assert "a/b: knn_recall@10 is 0.8000, must be >= 0.9500" in str(error.value)


def test_nothing_goes_live_unmeasured(catalog: Catalog) -> None:
    with pytest.raises(GateFailed, match="a/b was not evaluated"):
        publish(catalog.run, [catalog.version])


def test_a_second_evaluation_adds_nothing(catalog: Catalog) -> None:
    first = catalog.measured(catalog.exact_items())
    version = catalog.run.tables.delta_version("evaluations")
    evaluate(catalog.run, [catalog.version])
    assert catalog.run.tables.delta_version("evaluations") == version
    assert catalog.run.tables.read("evaluations").count() == len(first)


class Traffic:
    """The columns that were broadcast, and the columns and the number of rows of each answer to the driver."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.broadcast: list[list[str]] = []
        self.answers: list[tuple[list[str], int]] = []
        broadcast = F.broadcast

        def spy(rows: DataFrame) -> DataFrame:
            self.broadcast.append(rows.columns)
            return broadcast(rows)

        monkeypatch.setattr(F, "broadcast", spy)
        for name in ("collect", "toArrow", "toPandas", "toLocalIterator"):  # `first`, `head`, `take` collect
            monkeypatch.setattr(ClassicDataFrame, name, self._counted(getattr(ClassicDataFrame, name)))

    def _counted(self, ask: Callable[..., Any]) -> Callable[..., Any]:
        def spy(rows: DataFrame, *given: Any, **options: Any) -> Any:
            answer = ask(rows, *given, **options)
            answer = list(answer) if isinstance(answer, Iterator) else answer
            self.answers.append((rows.columns, len(answer)))
            return answer

        return spy


def test_traffic_sees_every_way_to_the_driver(spark: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    traffic = Traffic(monkeypatch)
    rows = spark.range(7)
    for ask in (rows.collect, rows.toArrow, rows.toPandas, rows.toLocalIterator, lambda: rows.take(7)):
        ask()
        assert traffic.answers.pop() == (["id"], 7)


def test_products_go_to_no_driver(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is broadcast, and what the driver is told, grows with the categories of a run, never with their products."""
    traffic = Traffic(monkeypatch)
    catalog.version = replace(catalog.version, live_version="v0")
    figures = catalog.measured(catalog.exact_items())
    assert figures["knn_recall@10"]["value"] == 1.0
    assert figures["churn"]["n"] == 0
    assert traffic.broadcast
    assert all("product_id" not in columns for columns in traffic.broadcast)
    assert any(n > 0 for _, n in traffic.answers)
    assert all("product_id" not in columns and n < PRODUCTS for columns, n in traffic.answers), traffic.answers
