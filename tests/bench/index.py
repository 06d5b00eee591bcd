"""Build + similar items of one category, through Spark, against exact search over the same vectors on the same cores.

    python tests/bench/index.py [images]

200,000 vectors of 256 dimensions in clusters of low intrinsic dimension, after faiss.contrib.datasets.SyntheticDataset,
each a product of its own. Exact search is FAISS's (`IndexFlatIP`) with as many threads as Spark has cores. It is timed
for a tenth of the queries, half before ours and half after, and the time multiplied by ten: exact search takes as long
for one query as for the next. Spark and its Python workers are warm, as after embed in a pipeline: a small category was
built before. Prints Markdown.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as spark-submit.sh sets it, before FAISS is loaded

import shutil
import sys
import tempfile
import time
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import Row, SparkSession

from lookalike.config import IndexSettings
from lookalike.kernels.evaluation.metrics import knn_recall
from lookalike.spark.catalog.build_index import Build, build_shards, plan_builds
from lookalike.spark.catalog.similar_items import find_similar_products

DIM = 256
CORES = 2
K = 10
RECALL_QUERIES = 5_000


def clustered(n: int, dim: int, intrinsic: int = 10, clusters: int = 2_000) -> np.ndarray:
    """(n, dim) float32, L2-normalised: points around random centres in few dimensions, bent into many."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(clusters, intrinsic))[rng.integers(clusters, size=n)]
    points += 0.3 * rng.normal(size=(n, intrinsic))
    bent = np.sin(points @ rng.random((intrinsic, dim)) * (4 * rng.random(dim) + 0.1)).astype(np.float32)
    return bent / np.linalg.norm(bent, axis=1, keepdims=True)


def write_gallery(path: Path, vectors: np.ndarray) -> None:
    n, dim = vectors.shape
    names = np.char.mod("p%07d", np.arange(n))
    table = pa.table(
        {
            "category": pa.repeat("all", n),
            "version": pa.repeat("v1", n),
            "product_id": names,
            "image_id": names,
            "vector_id": np.random.default_rng(1).permutation(n).astype(np.int64) * (2**60 // n),
            "available": np.ones(n, bool),
            "embedding": pa.ListArray.from_arrays(np.arange(n + 1, dtype=np.int32) * dim, vectors.ravel()),
        }
    )
    path.mkdir(parents=True)
    for number, start in enumerate(range(0, n, 25_000)):
        pq.write_table(table.slice(start, 25_000), path / f"{number}.parquet", compression="none")


def exact(vectors: np.ndarray, queries: slice) -> tuple[float, np.ndarray]:
    """Seconds of exact search for `queries`, and their scores (q, K), themselves left out."""
    faiss.omp_set_num_threads(CORES)
    flat = faiss.IndexFlatIP(vectors.shape[1])
    flat.add(vectors)
    start = time.monotonic()
    scores, _ = flat.search(vectors[queries], K + 1)
    return time.monotonic() - start, scores[:, 1:]


def table_recall(path: Path, vectors: np.ndarray, truth: np.ndarray) -> float:
    """knn_recall@10 of the similar_items table, by the original float32 vectors."""
    rows = pq.read_table(path, columns=["product_id", "similar_product_id", "rank"])
    number, similar = (
        np.char.lstrip(rows[name].to_numpy().astype(str), "p").astype(int) for name in rows.column_names[:2]
    )
    used = number < len(truth)
    number, similar, rank = number[used], similar[used], rows["rank"].to_numpy()[used]
    found = np.full(truth.shape, -np.inf, np.float32)
    found[number, rank - 1] = np.einsum("nd,nd->n", vectors[number], vectors[similar])
    return float(knn_recall(found, truth, K).mean())


def run(spark: SparkSession, folder: Path, vectors: np.ndarray) -> tuple[float, float, list[Row], str]:
    """Build and search below `folder`: seconds of each, the rows of `shards`, and the index."""
    write_gallery(folder / "gallery", vectors)
    settings = IndexSettings()
    (planned,) = plan_builds([("all", "v1", len(vectors))], DIM, settings)
    build = Build(str(folder), "run", "synthetic", settings, {"all": planned})
    start = time.monotonic()
    table = build_shards(spark.read.parquet(str(folder / "gallery")), build, lambda _: None).shards
    shards = spark.createDataFrame(table).collect()
    built = time.monotonic()
    found = find_similar_products(spark, shards, str(folder), K, lambda _: None)
    found.write.parquet(str(folder / "similar_items"))
    return built - start, time.monotonic() - built, shards, planned.spec.factory


def main(images: int = 200_000) -> None:
    folder = Path(tempfile.mkdtemp(prefix="lookalike-bench-"))
    vectors = clustered(images, DIM)
    spark = (
        SparkSession.builder.master(f"local[{CORES}]")
        .config("spark.driver.memory", "4g")
        .config("spark.sql.shuffle.partitions", "8")
        .config("spark.ui.enabled", "false")
        .config("spark.local.dir", str(folder / "local"))
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("ERROR")
    run(spark, folder / "warm", clustered(25_000, DIM))
    half = images // 20
    before_s, truth = exact(vectors, slice(half))
    runs = [run(spark, folder / name, vectors) for name in ("first", "second")]
    after_s, _ = exact(vectors, slice(half, 2 * half))
    exact_s = 10 * (before_s + after_s)
    recall = table_recall(folder / "second" / "similar_items", vectors, truth[:RECALL_QUERIES])
    *_, shards, factory = runs[-1]
    print(f"{images:,} vectors x {DIM}, local[{CORES}], `{factory}`, nprobe {shards[0]['nprobe']}\n")
    print(f"Exact search takes {exact_s:.1f} s ({2 * half:,} queries x 10).\n")
    print("| | build, s | similar items, s | both, s | exact search against both |\n|---|---|---|---|---|")
    for name, (build_s, similar_s, *_) in zip(("first", "again, the JVM warm"), runs, strict=True):
        ours_s = build_s + similar_s
        print(f"| {name} | {build_s:.1f} | {similar_s:.1f} | {ours_s:.1f} | **{exact_s / ours_s:.1f}x** |")
    print(f"\nTo reach: 10x. knn_recall@10 of the table: **{recall:.4f}**, to reach 0.97.")
    spark.stop()
    shutil.rmtree(folder)


if __name__ == "__main__":
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    main(*(int(argument) for argument in sys.argv[1:]))
