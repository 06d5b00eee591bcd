"""How fast a service answers: `similar`, `search` and `open` over 200,000 clustered 256-d vectors, on one core.

Run `PYTHONPATH=lib python tests/bench/reader.py`; it prints Markdown.
"""

import argparse
import datetime
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before FAISS starts its threads
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import numpy as np
import pyarrow as pa
from deltalake import write_deltalake
from numpy.typing import NDArray

from lookalike import FORMAT_VERSION, config, reader, schemas
from lookalike.kernels.evaluation import metrics
from lookalike.kernels.index import shards
from lookalike.kernels.index.build import train_index
from lookalike.kernels.index.choose_search import choose_search
from lookalike.kernels.index.spec import choose_index

DIM = 256
IMAGES_PER_PRODUCT = 2
K = 10
SETTINGS = config.load().index
FRESH = """
import sys, time
started = time.perf_counter()
from lookalike import reader
imported = time.perf_counter()
reader.open(sys.argv[1], "all", cache=sys.argv[2])
print(imported - started, time.perf_counter() - imported)
"""


def clustered(n: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """L2-normalised vectors (n, DIM) in 2,000 clusters of intrinsic dimension 10, as hard as real ones.

    The smooth map from few to many dimensions is that of `faiss.contrib.datasets.SyntheticDataset`.
    """
    inner = 10
    points = rng.standard_normal((2000, inner))[rng.integers(0, 2000, n)] + 0.3 * rng.standard_normal((n, inner))
    x = points @ rng.random((inner, DIM)) * (rng.random(DIM) * 4 + 0.1)
    x = np.sin(x).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def publish(root: Path, vectors: NDArray[np.float32]) -> tuple[list[str], str]:
    """Publish `vectors` as one category of one shard, as the jobs would; gives the product of each, and the index."""
    n = len(vectors)
    spec = choose_index(n, DIM, SETTINGS)
    product_ids = [f"product-{i // IMAGES_PER_PRODUCT:07d}" for i in range(n)]
    image_ids = [f"{product}-{i % IMAGES_PER_PRODUCT}.jpg" for i, product in enumerate(product_ids)]
    vector_ids = np.array([int(hashlib.sha256(i.encode()).hexdigest()[:15], 16) for i in image_ids])
    filled = train_index(spec, vectors[np.random.default_rng(0).permutation(n)[: spec.train_images]], SETTINGS.seed)
    filled.add_with_ids(vectors, vector_ids)
    columns = shards.ShardRows(
        vector_ids, pa.array(product_ids), pa.array(image_ids), np.ones(n, dtype=bool), vectors.astype(np.float16)
    )
    row = shards.write_shard(str(root), "all", "v1", "run", 0, filled, columns, "synthetic")
    row |= {"category": "all", "version": "v1", "shard": 0, "factory": spec.factory, "run_id": "bench"}
    with tempfile.TemporaryDirectory() as cache:
        search, _ = choose_search([shards.open_shard(str(root), row, Path(cache))], spec, SETTINGS)
    row["nprobe"], row["candidates"] = search.nprobe, search.candidates
    write_deltalake(f"{root}/tables/shards", pa.Table.from_pylist([row], schema=schemas.SHARDS))
    live = {"category": "all", "version": "v1", "model_id": "synthetic", "format_version": FORMAT_VERSION}
    live |= {"shards_table_version": 0, "similar_items_table_version": 0, "run_id": "bench"}
    live["published_at"] = datetime.datetime.now(datetime.UTC)
    write_deltalake(f"{root}/tables/publications", pa.Table.from_pylist([live], schema=schemas.PUBLICATIONS))
    return product_ids, f"{spec.factory}, nprobe {row['nprobe']}, {row['candidates']} candidates"


def seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def line(what: str, times_s: Sequence[float], limit_ms: float | None = None) -> str:
    p50, p99, most = np.percentile(times_s, [50, 99, 100]) * 1000
    limit = f"{limit_ms:.0f}" if limit_ms else ""
    return f"| {what} | {len(times_s)} | {p50:.2f} | {p99:.2f} | {most:.2f} | {limit} |"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vectors", type=int, default=200_000, help="images published (default: %(default)s)")
    parser.add_argument("--calls", type=int, default=2_000, help="calls timed of each kind (default: %(default)s)")
    options = parser.parse_args(argv)
    rng = np.random.default_rng(7)
    vectors = clustered(options.vectors + options.calls, rng)
    vectors, queries = vectors[: options.vectors], vectors[options.vectors :]
    with tempfile.TemporaryDirectory() as folder:
        root, cache = Path(folder) / "root", Path(folder) / "cache"
        product_ids, index_made = publish(root, vectors)
        first = seconds(lambda: reader.open(str(root), "all", cache=cache))
        again = [seconds(lambda: reader.open(str(root), "all", cache=cache)) for _ in range(20)]
        command = [sys.executable, "-c", FRESH, str(root), str(cache)]
        fresh = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        imports, fresh_open = map(float, fresh.split())

        catalog = reader.open(str(root), "all", cache=cache)
        numbers = rng.integers(0, len(product_ids), options.calls)
        similar = [seconds(lambda i=i: catalog.similar(product_ids[i], K)) for i in numbers]  # type: ignore[misc]
        search = [seconds(lambda q=q: catalog.search(q, K)) for q in queries]  # type: ignore[misc]
        recall = knn_recall(catalog, vectors, numbers[:500])
    size = f"{options.vectors:,} x {DIM}, {IMAGES_PER_PRODUCT} images a product"
    print(f"{size}, {index_made}, one core; knn_recall@{K} {recall:.3f}\n")
    print("| | calls | p50, ms | p99, ms | most, ms | limit, ms |\n|---|---|---|---|---|---|")
    print(line("similar", similar, 10))
    print(line("search", search, 10))
    print(line("open, files checked before", again, 200))
    print(line("open in a fresh process", [fresh_open], 200))
    print(line("import of lookalike.reader", [imports]))
    print(line("first open: sha256 of all files", [first]))
    return 0


def knn_recall(catalog: reader.Catalog, vectors: NDArray[np.float32], images: NDArray[np.int64]) -> float:
    """Of `similar`, over the products of `images`."""
    products = np.arange(len(vectors)) // IMAGES_PER_PRODUCT
    queries = np.unique(products[images])
    everything = np.ones(len(vectors), dtype=bool)
    _, truth = metrics.search_exactly(vectors.astype(np.float16), products, everything, queries, K)
    found = [[match.score for match in catalog.similar(f"product-{q:07d}", K)] for q in queries]
    return float(metrics.knn_recall(np.array(found, dtype=np.float32), truth, K).mean())


if __name__ == "__main__":
    sys.exit(main())
