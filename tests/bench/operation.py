"""Runs of the whole pipeline over a large catalog: seconds and memory by stage, files, and what a rerun costs.

    ./spark-submit.sh test --version    # once, to prepare
    PYTHONPATH=lib:. .venv/bin/python tests/bench/operation.py [--images 1000000] [--categories 500]

Sizes follow a power law (Zipf); embeddings (64 dimensions, in clusters) are given, two images a product. A second run
has nothing to do; in a third one image has changed, which costs what any change costs; in a fourth one image in a
hundred has changed, in five categories; a fifth is given changed rows alone. Then a parent of a quarter of the
categories is opened and searched. Master and workers are processes of their own, so the driver's memory is seen apart.
Memory is the most that was resident, seen every 0.2 s. At last, two runs as a schedule would start them, each from the
command line on this machine alone. Prints Markdown.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as spark-submit.sh sets it, before FAISS is loaded

import argparse
import contextlib
import io
import multiprocessing
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from pyspark.sql import SparkSession
from rich.console import Console
from tests.cluster.servers import spark_cluster

from lookalike import reader, schemas
from lookalike.config import Settings
from lookalike.spark.pipeline import pipeline
from lookalike.spark.run import Run, new_run_id
from lookalike.spark.session import session

DIM = 64
CHANGED_SHARE = 0.01
CHANGED_CATEGORIES = 5
DEPARTMENTS = 4
RUNS = ("first", "nothing changed", "1 image changed", "1 % changed", "1 % changed, given alone")
SCHEDULED = ("1 % changed again", "nothing changed again")
GATE = {"min_knn_recall": 0.9, "min_coverage": 0.9, "max_churn": 1.0}  # as whole categories change
ROW_GROUP = 50_000
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
CHECKOUT = Path(__file__).resolve().parents[2]


def sizes(categories: int, images: int) -> np.ndarray:
    """(categories,) images of each, by Zipf's law, at least one."""
    shares = 1 / np.arange(1, categories + 1)
    return np.maximum(1, (shares / shares.sum() * images)).astype(int)


def catalog_table(counts: np.ndarray) -> pa.Table:
    """Category `number` stands in the department that its number says, so that a parent has large and small ones."""
    n = int(counts.sum())
    category = np.repeat(np.arange(len(counts)), counts)
    names = np.array([f"d{c % DEPARTMENTS}/c{c:05d}" for c in range(len(counts))])
    number = np.arange(n)
    return pa.table(
        {
            "image_id": np.char.mod("i%07d", number),
            "product_id": np.char.add(np.char.mod("p%05d-", category), np.char.mod("%06d", number // 2)),
            "category": names[category],
            "embedding": embeddings(n, seed=0),
        }
    )


def embeddings(n: int, seed: int) -> pa.Array:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(1_000, DIM)).astype(np.float32)
    vectors = centres[rng.integers(1_000, size=n)] + 0.3 * rng.normal(size=(n, DIM)).astype(np.float32)
    return pa.ListArray.from_arrays(np.arange(n + 1, dtype=np.int32) * DIM, vectors.ravel())


def changed_rows(counts: np.ndarray, seed: int) -> np.ndarray:
    """Places of CHANGED_SHARE of all images, in CHANGED_CATEGORIES of those that are just large enough for it."""
    each = int(counts.sum() * CHANGED_SHARE) // CHANGED_CATEGORIES
    last = int(np.flatnonzero(counts >= each)[-1])
    chosen = np.arange(last - CHANGED_CATEGORIES + 1, last + 1)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    rng = np.random.default_rng(seed)
    return np.sort(np.concatenate([starts[c] + rng.choice(counts[c], each, replace=False) for c in chosen]))


def with_change(table: pa.Table, places: np.ndarray, seed: int) -> pa.Table:
    """`table` with other embeddings at `places`."""
    old = table["embedding"].combine_chunks()
    flat = old.values.to_numpy().reshape(-1, DIM).copy()
    flat[places] = embeddings(len(places), seed).values.to_numpy().reshape(-1, DIM)
    return table.set_column(3, "embedding", pa.ListArray.from_arrays(old.offsets, flat.ravel()))


def manifest_path(folder: Path, run: str) -> Path:
    """Where a run's manifest is; one in which nothing changed has that of the run before."""
    same = {RUNS[1]: RUNS[0], SCHEDULED[1]: SCHEDULED[0]}
    return folder / f"{same.get(run, run)}.parquet"


def write_manifests(folder: Path, counts: np.ndarray) -> None:
    table = catalog_table(counts)
    pq.write_table(table, manifest_path(folder, RUNS[0]), row_group_size=ROW_GROUP)
    for seed, run in enumerate((*RUNS[2:], SCHEDULED[0])):
        places = changed_rows(counts, seed)
        if run == RUNS[2]:
            places = places[:1]
        table = with_change(table, places, seed + 1)
        given = table.take(places) if run == RUNS[4] else table
        pq.write_table(given, manifest_path(folder, run), row_group_size=ROW_GROUP)


class Memory:
    """What is resident, MiB: the driver's JVM and Python, the executors' JVMs, and their Python workers."""

    KINDS = ("driver JVM", "driver Python", "executor JVMs", "Python workers")

    def __init__(self) -> None:
        self._seen: list[tuple[float, list[float]]] = []
        threading.Thread(target=self._watch, daemon=True).start()

    def most(self, started_at: float, seconds: float) -> list[float]:
        """The most of each kind in that time, by the clock."""
        seen = [mib for at, mib in self._seen if started_at <= at <= started_at + seconds + 0.2]
        return np.max(seen or [[0.0] * len(self.KINDS)], axis=0).tolist()

    def _watch(self) -> None:
        while True:
            mib = [0.0] * len(self.KINDS)
            for pid in _descendants(os.getpid()):
                try:
                    command = Path(f"/proc/{pid}/cmdline").read_bytes()
                    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
                except (OSError, IndexError):
                    continue
                if pid == os.getpid():
                    kind = 1
                elif b"java" in command.partition(b"\0")[0]:
                    kind = 2 if b"CoarseGrainedExecutorBackend" in command else 0
                else:
                    kind = 3
                mib[kind] += pages * PAGE_BYTES / 2**20
            self._seen.append((time.time(), mib))
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


STAGES = ("ingest", "embed", "placeholders", "build_index", "similar_items", "evaluate", "publish")


def measure(name: str, spark: SparkSession, root: Path, manifest: Path, memory: Memory) -> tuple[str, list[str]]:
    """Run the pipeline; a line of seconds by stage, and lines of memory by stage."""
    settings = Settings(root=f"file://{root}", manifest=str(manifest), gate=GATE)
    run = Run(spark, settings, new_run_id(), Console(quiet=True))
    start = time.monotonic()
    with contextlib.redirect_stdout(io.StringIO()):  # its tables
        pipeline(run)
    seconds = time.monotonic() - start
    stages = {stage.stage: stage.seconds for stage in run.stages}
    files = sum(path.is_file() for path in (root / "shards").rglob("*"))
    parts = " | ".join(f"{stages.get(stage, 0):.1f}" for stage in STAGES)
    rest = seconds - sum(stages.values())
    lines = []
    for row in _rows(root, "runs"):
        if row["run_id"] == run.run_id:
            most = memory.most(row["started_at"].timestamp(), row["seconds"])
            lines.append(f"| {name} | {row['stage']} | {' | '.join(f'{mib:,.0f}' for mib in most)} |")
    return f"| {name} | {parts} | {rest:.1f} | {seconds:.1f} | {files} |", lines


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


def _rows(root: Path, table: str) -> list[dict[str, Any]]:
    assert table in schemas.TABLES
    rows: list[dict[str, Any]] = DeltaTable(root / "tables" / table).to_pyarrow_table().to_pylist()
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--categories", type=int, default=500)
    parser.add_argument("--executors", type=int, default=2)
    options = parser.parse_args(argv)
    folder = Path(tempfile.mkdtemp(prefix="lookalike-bench-"))
    counts = sizes(options.categories, options.images)
    print(f"{counts.sum():,} images in {len(counts):,} categories, the largest {counts.max():,}; ", end="")
    # In a process of its own, as the driver's memory is measured here.
    writing = multiprocessing.get_context("spawn").Process(target=write_manifests, args=(folder, counts))
    writing.start()
    writing.join()
    with spark_cluster(folder, os.environ) as master:
        started = time.monotonic()
        spark = driver(master, options.executors, folder)
        spark.range(10).count()
        print(f"executors: {options.executors}, of one core each; started in {time.monotonic() - started:.1f} s\n")
        runs(spark, folder)
        spark.stop()
    for name in SCHEDULED:
        print(f"\n{name}, a process of its own: {scheduled(folder, name):.1f} s")
    shutil.rmtree(folder)


def runs(spark: SparkSession, folder: Path) -> None:
    memory = Memory()
    spark.sparkContext.setLogLevel("ERROR")
    print(f"| | {' | '.join(STAGES)} | report | all, s | files |")
    print("|---|" + "---|" * (len(STAGES) + 3), flush=True)
    root, used = folder / "root", []
    for name in RUNS:
        line, lines = measure(name, spark, root, manifest_path(folder, name), memory)
        print(line, flush=True)
        used += lines
    print(f"\nMost memory resident, MiB\n\n| | stage | {' | '.join(Memory.KINDS)} |\n|---|---|{'---|' * 4}")
    print("\n".join(used))
    print()
    timed_reader(root, folder / "cache")


def scheduled(folder: Path, name: str) -> float:
    """Seconds of a run from the command line, its start included."""
    settings: dict[str, object] = {"root": folder / "root", "manifest": manifest_path(folder, name)}
    settings |= {f"gate.{limit}": value for limit, value in GATE.items()}
    options = [option for key, value in settings.items() for option in ("--set", f"{key}={value}")]
    start = time.monotonic()
    subprocess.run([CHECKOUT / "spark-submit.sh", "pipeline", *options], check=True, capture_output=True)
    return time.monotonic() - start


def driver(master: str, executors: int, folder: Path) -> SparkSession:
    """Spark with so many executors of one core, set up as spark-submit.sh sets it up."""
    jars = ",".join(str(jar) for jar in sorted((CHECKOUT / ".cache" / "ivy" / "jars").glob("*.jar")))
    settings = {
        "spark.cores.max": executors,
        "spark.driver.memory": "2g",
        "spark.executor.cores": 1,
        "spark.executor.memory": "2g",
        "spark.executorEnv.PYTHONPATH": f"{CHECKOUT / 'lib'}:{CHECKOUT}",
        "spark.jars.packages": "",
        "spark.local.dir": folder / "local",
        "spark.scheduler.minRegisteredResourcesRatio": 1,
    }
    options = [option for name, value in settings.items() for option in ("--conf", f"{name}={value}")]
    os.environ |= {
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_SUBMIT_ARGS": shlex.join(["--master", master, "--jars", jars, *options, "pyspark-shell"]),
        "SPARK_CONF_DIR": str(CHECKOUT / "conf"),
        "SPARK_LOCAL_IP": "127.0.0.1",
    }
    return session("bench")


if __name__ == "__main__":
    main()
