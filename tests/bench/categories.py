"""A catalog of very many categories, most of a handful of images: the whole pipeline by stage, its files, its memory.

    ./spark-submit.sh test --version    # once, to prepare
    PYTHONPATH=lib .venv/bin/python tests/bench/categories.py [--categories 20000] [--images 300000]

Sizes follow a power law (Zipf); embeddings (64 dimensions, in clusters) are given, two images a product. A second run
has nothing to do, a third has new images in five small categories. Then a parent of very many categories is opened and
searched. Memory is the most that was resident: the JVM's, and that of all Python processes together, seen every 0.2 s.
Prints Markdown.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as spark-submit.sh sets it, before FAISS is loaded

import argparse
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from pyspark.sql import SparkSession
from rich.console import Console

from lookalike import reader, schemas
from lookalike.config import Settings
from lookalike.spark.pipeline import pipeline
from lookalike.spark.run import Run, new_run_id
from lookalike.spark.session import session

DIM = 64
CORES = 2
DEPARTMENTS = 4
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
CHECKOUT = Path(__file__).resolve().parents[2]


def sizes(categories: int, images: int) -> np.ndarray:
    """(categories,) images of each, by Zipf's law, at least one."""
    shares = 1 / np.arange(1, categories + 1)
    return np.maximum(1, (shares / shares.sum() * images)).astype(int)


def write_manifest(path: Path, counts: np.ndarray, seed: int = 0, prefix: str = "i") -> None:
    """Category `number` stands in the department that its number says, so that a parent has large and small ones."""
    rng = np.random.default_rng(seed)
    n = int(counts.sum())
    category = np.repeat(np.arange(len(counts)), counts)
    centres = rng.normal(size=(1_000, DIM)).astype(np.float32)
    vectors = centres[rng.integers(1_000, size=n)] + 0.3 * rng.normal(size=(n, DIM)).astype(np.float32)
    names = np.array([f"d{c % DEPARTMENTS}/c{c:05d}" for c in range(len(counts))])
    number = np.arange(n)
    table = pa.table(
        {
            "image_id": np.char.mod(f"{prefix}%07d", number),
            "product_id": np.char.add(np.char.mod(f"{prefix}%05d-", category), np.char.mod("%06d", number // 2)),
            "category": names[category],
            "embedding": pa.ListArray.from_arrays(np.arange(n + 1, dtype=np.int32) * DIM, vectors.ravel()),
        }
    )
    pq.write_table(table, path, row_group_size=50_000)


class Memory:
    """The most memory resident, bytes: of the JVM below this process, and of it with all other processes below it."""

    def __init__(self) -> None:
        self.jvm = self.python = 0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            resident = {"java": 0, "python": 0}
            for pid in _descendants(os.getpid()):
                try:
                    name = Path(f"/proc/{pid}/comm").read_text().strip()
                    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
                except (OSError, IndexError):
                    continue
                resident["java" if name == "java" else "python"] += pages * PAGE_BYTES
            self.jvm, self.python = max(self.jvm, resident["java"]), max(self.python, resident["python"])
            time.sleep(0.2)


def _descendants(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += map(int, children.read_text().split())
            except OSError:
                continue
    return found


def measured(spark: SparkSession, root: Path, manifest: Path, memory: Memory) -> tuple[dict[str, float], float]:
    """Seconds by stage and of the whole pipeline."""
    memory.jvm = memory.python = 0
    gate = {"min_knn_recall": 0.9, "min_coverage": 0.9}
    settings = Settings(root=f"file://{root}", manifest=str(manifest), gate=gate)
    run = Run(spark, settings, new_run_id(), Console(quiet=True))
    start = time.monotonic()
    pipeline(run)
    return {stage.stage: stage.seconds for stage in run.stages}, time.monotonic() - start


def line(name: str, stages: dict[str, float], seconds: float, memory: Memory, root: Path) -> str:
    files = [path for path in (root / "shards").rglob("*") if path.is_file()]
    parts = " | ".join(f"{stages.get(stage, 0):.1f}" for stage in STAGES)
    return (
        f"| {name} | {parts} | {seconds - sum(stages.values()):.1f} | {seconds:.1f} | {len(files)} "
        f"| {memory.jvm / 2**20:,.0f} | {memory.python / 2**20:,.0f} |"
    )


STAGES = ("ingest", "embed", "build_index", "similar_items", "evaluate", "publish")


def timed_reader(root: Path, cache: Path) -> None:
    for kind in ("first", "files checked before"):
        start = time.monotonic()
        catalog = reader.open(str(root), "d1", cache=cache)
        print(f"Opening the parent `d1`, {kind}: {time.monotonic() - start:.2f} s.", end=" ")
    queries = np.random.default_rng(3).normal(size=(100, DIM))
    catalog.search(queries[0])
    start = time.monotonic()
    for query in queries:
        catalog.search(query)
    versions = sum(row["category"].startswith("d1/") for row in _rows(root, "publications"))
    print(f"A search in its {versions:,} categories: {(time.monotonic() - start) * 10:.1f} ms.")


def _rows(root: Path, table: str) -> list[dict[str, object]]:
    assert table in schemas.TABLES
    rows: list[dict[str, object]] = DeltaTable(root / "tables" / table).to_pyarrow_table().to_pylist()
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--categories", type=int, default=20_000)
    parser.add_argument("--images", type=int, default=300_000)
    options = parser.parse_args(argv)
    folder = Path(tempfile.mkdtemp(prefix="lookalike-bench-"))
    counts = sizes(options.categories, options.images)
    manifest = folder / "manifest"
    manifest.mkdir()
    write_manifest(manifest / "0.parquet", counts)
    memory = Memory()
    SparkSession.builder.master(f"local[{CORES}]").config("spark.local.dir", str(folder / "local")).getOrCreate()
    spark = session("bench")
    spark.sparkContext.setLogLevel("ERROR")
    print(f"{counts.sum():,} images in {len(counts):,} categories, the largest {counts.max():,}, local[{CORES}]\n")
    print(f"| | {' | '.join(STAGES)} | report | all, s | files | JVM, MiB | Python, MiB |")
    print("|---|" + "---|" * (len(STAGES) + 5), flush=True)
    root = folder / "root"
    for name in ("first", "nothing changed", "5 categories changed"):
        if name.startswith("5"):
            changed = np.zeros(len(counts), int)
            changed[-5:] = 4
            write_manifest(manifest / "1.parquet", changed, seed=1, prefix="n")
        stages, seconds = measured(spark, root, manifest, memory)
        print(line(name, stages, seconds, memory, root), flush=True)
    print()
    timed_reader(root, folder / "cache")
    spark.stop()
    shutil.rmtree(folder)


if __name__ == "__main__":
    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    os.environ.setdefault("SPARK_CONF_DIR", str(CHECKOUT / "conf"))
    jars = ",".join(str(jar) for jar in sorted((CHECKOUT / ".cache" / "ivy" / "jars").glob("*.jar")))
    os.environ["PYSPARK_SUBMIT_ARGS"] = f"--conf spark.jars.packages= --jars {jars} pyspark-shell"
    main()
