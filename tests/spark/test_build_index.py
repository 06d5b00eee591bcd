"""The build through Spark, its files read back by FAISS and Arrow alone."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import DataFrame, SparkSession
from rich.console import Console
from tests.spark.rows import with_model

from lookalike import schemas
from lookalike.config import IndexSettings, Settings
from lookalike.kernels.index.shards import open_shard, open_shards
from lookalike.spark.catalog.build_index import Build, attach_formers, build_shards, plan_builds
from lookalike.spark.run import Run

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
    plans = plan_builds([(category, "v1", images) for category, images in sizes.items()], DIM, SETTINGS)
    return Build(str(root), "run1", "model", SETTINGS, {p.category: p for p in plans})


@pytest.fixture(scope="module")
def catalog(spark_session: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]], int]:
    root = tmp_path_factory.mktemp("catalog")
    counted = spark_session.sparkContext.accumulator(0)
    built = build_shards(gallery(spark_session, SIZES), build_of(root, SIZES), counted.add).shards
    return root, built.to_pylist(), counted.value


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
        assert (row["nprobe"] == 0) == (row["factory"] in ("IDMap,Flat", "SQfp16"))
        assert (row["path"] is None) == (row["factory"] == "SQfp16") == (row["category"] in ("one", "exact"))
        assert (row["trained_version"] == "v1") == (row["trained_error"] is not None) == (row["nprobe"] > 0)
        assert row["knn_recall@10"] is None if row["category"] == "one" else row["knn_recall@10"] >= 0.95


def test_files_hold_every_image_once_and_each_product_in_one_shard(catalog: Any) -> None:
    root, rows, _ = catalog
    images: dict[str, np.ndarray] = {}
    product_shards: dict[str, set[tuple[str, int]]] = {}
    for row in rows:
        with pa.ipc.open_file(root / row["vectors_path"]) as file:
            batch = file.get_batch(0).slice(row["first_row"], row["ntotal"])
            assert file.get_batch(0).num_rows == row["vectors_rows"]
        halves = np.array(batch["vector"].to_pylist(), np.float32)
        assert batch.num_rows == row["ntotal"]
        if row["path"] is not None:
            index: Any = faiss.read_index(str(root / row["path"]))
            everywhere = faiss.SearchParametersIVF(nprobe=index.nlist)  # type: ignore[call-arg]
            _, ids = index.search(halves, 1, params=everywhere)
            assert index.ntotal == row["ntotal"]
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
    assert found == {row[name] for row in rows for name in ("path", "vectors_path")} - {None}


def test_building_again_gives_the_same_names_and_rows(spark: SparkSession, tmp_path: Path) -> None:
    sizes = {"exact": 40, "sq8": 400}
    first, second = (
        build_shards(gallery(spark, sizes), build_of(tmp_path, sizes), lambda _: None).shards.to_pylist()
        for _ in range(2)
    )
    assert [(r["category"], r["shard"], r["vectors_sha256"]) for r in first] == [
        (r["category"], r["shard"], r["vectors_sha256"]) for r in second
    ]
    assert len(list(tmp_path.rglob("*.faiss"))) == 1


def test_many_small_categories_take_few_jobs(spark: SparkSession, tmp_path: Path) -> None:
    sizes = {f"c{number}": 4 for number in range(60)}
    spark.sparkContext.setJobGroup("many", "")
    rows = build_shards(gallery(spark, sizes), build_of(tmp_path, sizes), lambda _: None).shards.to_pylist()
    jobs = spark.sparkContext.statusTracker().getJobIdsForGroup("many")
    spark.sparkContext.setJobGroup("", "")
    assert {row["category"] for row in rows} == set(sizes)
    assert len(jobs) < 20
    assert {row["vectors_path"] for row in rows} == {"shards/packs/run1/00000.arrow"}
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


def test_one_changed_category_of_a_pack_is_written_alone(spark: SparkSession, tmp_path: Path) -> None:
    sizes = {"a": 5, "b": 9, "c": 7, "sq8": 400}
    first = build_shards(gallery(spark, sizes), build_of(tmp_path, sizes), lambda _: None).shards.to_pylist()
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    build = replace(build_of(tmp_path, {"b": 8}), run_id="run2")
    (row,) = build_shards(gallery(spark, {"b": 8}), build, lambda _: None).shards.to_pylist()
    assert (row["vectors_path"], row["ntotal"], row["vectors_rows"]) == ("shards/packs/run2/00000.arrow", 8, 8)
    assert {path: path.read_bytes() for path in files} == files
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == len(files) + 1
    mixed = [r for r in first if r["category"] in ("a", "c")] + [row]
    opened = open_shards(str(tmp_path), mixed, tmp_path / "cache")
    for shard, (category, n) in zip(opened, {"a": 5, "c": 7, "b": 8}.items(), strict=True):
        assert sorted(shard.image_ids.to_pylist()) == sorted(f"{category}{i}" for i in range(n))
        order = [int(image[1:]) for image in shard.image_ids.to_pylist()]
        assert np.allclose(shard.vectors, vectors(n)[order], atol=1e-3)


def rows_of(spark: SparkSession, category: str, points: np.ndarray) -> DataFrame:
    rows = [
        (category, "v2", f"p{i}", f"i{i}", vector_id(f"i{i}"), True, vector.tolist()) for i, vector in enumerate(points)
    ]
    columns = "category string, version string, product_id string, image_id string, vector_id long, available boolean"
    return spark.createDataFrame(rows, f"{columns}, embedding array<float>")


@pytest.mark.parametrize(
    ("points", "settings", "verdict"),
    [
        (vectors(1_500)[:1_450], {}, "reused"),
        (vectors(1_500)[:, ::-1].copy(), {}, "retrained"),
        # So alike that old codes can't tell them apart, though the error is small.
        (vectors(1)[0] + 0.03 * vectors(1_500), {"retrain_error_growth": 100.0}, "retrained"),
    ],
    ids=["alike", "error grew", "recall fell"],
)
def test_a_quantizer_is_kept_until_it_no_longer_fits(
    spark: SparkSession, tmp_path: Path, points: np.ndarray, settings: dict[str, float], verdict: str
) -> None:
    known = SETTINGS.model_copy(update={"shard_images": 5_000, **settings})
    (planned,) = plan_builds([("pq", "v1", 1_500)], DIM, known)
    first = build_shards(
        gallery(spark, {"pq": 1_500}), Build(str(tmp_path), "r1", "m", known, {"pq": planned}), lambda _: None
    )
    assert first.decisions["pq"].startswith("trained: no earlier index")
    run = with_model(Run(spark, Settings(root=f"file://{tmp_path}"), "r2", Console(quiet=True)), "m")
    run.tables.append_new_rows("shards", first.shards, schemas.VERSION_KEY)
    (old,) = first.shards.to_pylist()
    assert old["trained_recall"] == old["knn_recall@10"] and old["trained_nprobe"] == old["nprobe"]

    (planned,) = attach_formers(run.tables, "m", plan_builds([("pq", "v2", len(points))], DIM, known))
    assert planned.former is not None
    points = points / np.linalg.norm(points, axis=1, keepdims=True)
    build = Build(f"file://{tmp_path}", "r2", "m", known, {"pq": planned})
    second = build_shards(rows_of(spark, "pq", points.astype(np.float32)), build, lambda _: None)
    (new,) = second.shards.to_pylist()
    assert second.decisions["pq"].startswith(f"{verdict}: quantization error"), second.decisions
    training = ("trained_version", "trained_error", "trained_nprobe", "trained_candidates", "trained_recall")
    assert ([new[name] for name in training] == [old[name] for name in training]) == (verdict == "reused")
    assert new["trained_version"] == ("v1" if verdict == "reused" else "v2")
    shards = [open_shard(str(tmp_path), row, tmp_path / "cache") for row in (old, new)]
    centroids = [faiss.downcast_index(shard.index.quantizer).reconstruct_n() for shard in shards]
    assert np.array_equal(*centroids) == (verdict == "reused")
    assert shards[1].images == len(points)


def test_an_index_of_another_kind_or_model_is_not_kept(spark: SparkSession, tmp_path: Path) -> None:
    run = Run(spark, Settings(root=f"file://{tmp_path}"), "r2", Console(quiet=True))
    built = build_shards(gallery(spark, {"sq8": 400}), build_of(tmp_path, {"sq8": 400}), print)
    run.tables.append_new_rows("shards", built.shards, schemas.VERSION_KEY)

    def former(images: int, model_id: str = "model") -> Any:
        return attach_formers(run.tables, model_id, plan_builds([("sq8", "v2", images)], DIM, SETTINGS))[0].former

    assert former(420).row["version"] == "v1"
    assert [former(800), former(100), former(420, "another")] == [None] * 3
