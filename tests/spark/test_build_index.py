"""The build through Spark, its files read back by FAISS and Arrow alone."""

import hashlib
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import DataFrame, SparkSession

from lookalike import schemas
from lookalike.config import IndexSettings
from lookalike.kernels.shards import open_shard
from lookalike.spark.build_index import Build, built_shards, plan

SETTINGS = IndexSettings(exact_below=300, pq_above=700, shard_images=600, candidates=50, knn_recall_target=0.95)
SIZES = {"one": 1, "exact": 120, "été / sq8": 500, "pq": 1_500}
DIM = 20


def vector_id(image_id: str) -> int:
    return int(hashlib.sha256(image_id.encode()).hexdigest()[:15], 16)


def vectors(n: int) -> np.ndarray:
    rng = np.random.default_rng(n)
    points = np.sin(rng.normal(size=(n, 6)) @ rng.normal(size=(6, DIM))).astype(np.float32)
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def gallery(spark: SparkSession, sizes: dict[str, int]) -> DataFrame:
    """Two images a product, every fifth product unavailable."""
    rows = [
        (c, "v1", f"{c}{i // 2}", f"{c}{i}", vector_id(f"{c}{i}"), i // 2 % 5 != 0, vector.tolist())
        for c, n in sizes.items()
        for i, vector in enumerate(vectors(n))
    ]
    columns = "category string, version string, product_id string, image_id string, vector_id long, available boolean"
    return spark.createDataFrame(rows, f"{columns}, embedding array<float>").repartition(4)


def build_of(root: Path, sizes: dict[str, int]) -> Build:
    plans = plan([(category, "v1", images) for category, images in sizes.items()], DIM, SETTINGS)
    return Build(str(root), "run1", "model", SETTINGS, {p.category: p for p in plans})


@pytest.fixture(scope="module")
def catalog(spark_session: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]], int]:
    root = tmp_path_factory.mktemp("catalog")
    counted = spark_session.sparkContext.accumulator(0)
    built = built_shards(gallery(spark_session, SIZES), build_of(root, SIZES), counted.add)
    return root, [row.asDict() for row in built.collect()], counted.value


def test_every_category_has_the_index_and_shards_that_were_planned(catalog: Any) -> None:
    root, rows, counted = catalog
    found = {c: [r for r in rows if r["category"] == c] for c in SIZES}
    plans = build_of(root, SIZES).plans
    assert [plans[c].spec.kind for c in SIZES] == ["exact", "exact", "ivf_sq8", "ivf_pq"]
    assert {c: len(shards) for c, shards in found.items()} == {"one": 1, "exact": 1, "été / sq8": 1, "pq": 3}
    assert {c: sum(r["ntotal"] for r in shards) for c, shards in found.items()} == SIZES
    assert {r["factory"] for r in found["pq"]} == {plans["pq"].spec.factory}
    assert counted == sum(SIZES.values())
    assert set(rows[0]) == set(schemas.SHARDS.names)
    for row in rows:
        assert (row["run_id"], row["model_id"], row["dim"]) == ("run1", "model", DIM)
        assert 50 <= row["candidates"] <= 400
        assert (row["nprobe"] == 0) == (row["factory"] == "IDMap,Flat")
        assert row["knn_recall@10"] is None if row["category"] == "one" else row["knn_recall@10"] >= 0.95


def test_files_hold_every_image_once_and_each_product_in_one_shard(catalog: Any) -> None:
    root, rows, _ = catalog
    images: dict[str, np.ndarray] = {}
    product_shards: dict[str, set[tuple[str, int]]] = {}
    for row in rows:
        with pa.ipc.open_file(root / row["vectors_path"]) as file:
            batch = file.get_batch(0)
        index = faiss.read_index(str(root / row["path"]))
        halves = np.array(batch["vector"].to_pylist(), np.float32)
        _, ids = index.search(
            halves, 1, params=faiss.SearchParametersIVF(nprobe=index.nlist) if row["nprobe"] else None
        )
        assert index.ntotal == batch.num_rows == row["ntotal"]
        assert set(ids[:, 0].tolist()) <= set(batch["vector_id"].to_pylist())
        for product, image, vector in zip(
            batch["product_id"].to_pylist(), batch["image_id"].to_pylist(), halves, strict=True
        ):
            assert image not in images
            images[image] = vector
            product_shards.setdefault(product, set()).add((row["category"], row["shard"]))
    assert all(len(places) == 1 for places in product_shards.values())
    for category, n in SIZES.items():
        expected = {f"{category}{i}": v for i, v in enumerate(vectors(n))}
        for image, vector in expected.items():
            assert np.allclose(images.pop(image), vector, atol=1e-3)
    assert images == {}


def test_shards_of_a_version_share_a_coarse_quantizer(catalog: Any) -> None:
    root, rows, _ = catalog
    opened = [open_shard(str(root), row, root / "cache") for row in rows if row["category"] == "pq"]
    centroids = [faiss.downcast_index(shard.index.quantizer).reconstruct_n() for shard in opened]
    assert all(np.array_equal(centroids[0], other) for other in centroids[1:])
    assert len({row["nprobe"] for row in rows if row["category"] == "pq"}) == 1


def test_nothing_but_shard_files_stays(catalog: Any) -> None:
    root, rows, _ = catalog
    found = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and "cache" not in path.parts}
    assert found == {row[name] for row in rows for name in ("path", "vectors_path")}


def test_building_again_gives_the_same_names_and_rows(spark: SparkSession, tmp_path: Path) -> None:
    sizes = {"exact": 40, "sq8": 400}
    first, second = (
        built_shards(gallery(spark, sizes), build_of(tmp_path, sizes), lambda _: None).collect() for _ in range(2)
    )
    assert [(r["category"], r["shard"], r["vectors_sha256"]) for r in first] == [
        (r["category"], r["shard"], r["vectors_sha256"]) for r in second
    ]
    assert len(list(tmp_path.rglob("*.faiss"))) == 2


def test_a_result_read_twice_is_built_once(spark: SparkSession, tmp_path: Path) -> None:
    counted = spark.sparkContext.accumulator(0)
    built = built_shards(gallery(spark, {"exact": 10}), build_of(tmp_path, {"exact": 10}), counted.add)
    assert (built.count(), len(built.collect()), counted.value) == (1, 1, 10)


def test_many_small_categories_take_few_jobs(spark: SparkSession, tmp_path: Path) -> None:
    sizes = {f"c{number}": 4 for number in range(60)}
    spark.sparkContext.setJobGroup("many", "")
    rows = built_shards(gallery(spark, sizes), build_of(tmp_path, sizes), lambda _: None).collect()
    jobs = spark.sparkContext.statusTracker().getJobIdsForGroup("many")
    spark.sparkContext.setJobGroup("", "")
    assert {row["category"] for row in rows} == set(sizes)
    assert len(jobs) < 20
