"""Two executors of one core against one: embed, and similar items, on a standalone cluster.

    ./spark-submit.sh test --version    # once, to prepare
    PYTHONPATH=lib:. .venv/bin/python tests/bench/executors.py [--images DIR] [--pictures 480] [--vectors 100000]

Each of the two workers, and so its executor with its Python and decoding processes, is bound to a core of its own; the
driver is not bound. Spark is started for one executor, for two, and for one again, and so on; each time the work is
done twice, and the second time counts, with models loaded and files open. Prints Markdown with the best of each.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as spark-submit.sh sets it, before FAISS is loaded

import argparse
import multiprocessing
import tempfile
from collections import defaultdict
from functools import partial
from pathlib import Path

import numpy as np
from pyspark.sql import DataFrame, SparkSession
from tests.bench.embed import SETTINGS, check_embedded, seconds, uncounted, unembedded, write_pictures
from tests.bench.index import clustered, write_gallery
from tests.bench.operation import CHECKOUT, driver
from tests.cluster.servers import spark_cluster

from lookalike.config import IndexSettings
from lookalike.kernels.models.load import load_model
from lookalike.spark.catalog.build_index import Build, built_shards, plan
from lookalike.spark.catalog.embed import image_outcomes
from lookalike.spark.catalog.similar_items import similar_products

ROUNDS = 2
DIM = 128
K = 20


def bind_workers(folder: Path) -> None:
    """Each worker of the cluster in `folder` to a core of its own, with all that it will start."""
    workers = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            if b"deploy.worker.Worker" in command and bytes(folder) in command:
                workers.append(process)
        except OSError:
            continue
    cores = sorted(os.sched_getaffinity(0))
    for core, worker in zip(cores, workers, strict=False):
        for thread in (worker / "task").iterdir():
            os.sched_setaffinity(int(thread.name), {core})


def measured(master: str, executors: int, folder: Path, paths: list[str], told: "multiprocessing.Queue[float]") -> None:
    """Tells the seconds of embed, and of similar items."""
    spark = driver(master, executors, folder)
    spark.sparkContext.setLogLevel("ERROR")
    embedded = image_outcomes(unembedded(spark, paths), SETTINGS, load_model(SETTINGS.model).model_id, uncounted)
    check_embedded(embedded)
    found = similar(spark, folder)
    to_noop(found)
    for work in (embedded, found):
        told.put(seconds(partial(to_noop, work)))
    spark.stop()


def similar(spark: SparkSession, folder: Path) -> DataFrame:
    """Over shards that the first call builds."""
    rows = spark.read.parquet(str(folder / "gallery.parquet"))
    settings = IndexSettings()
    plans = {p.category: p for p in plan([("all", "v1", rows.count())], DIM, settings)}
    built = built_shards(rows, Build(str(folder / "root"), "run", "bench", settings, plans), uncounted)
    return similar_products(spark, spark.createDataFrame(built.shards).collect(), str(folder / "root"), K, uncounted)


def to_noop(rows: DataFrame) -> None:
    rows.write.format("noop").mode("overwrite").save()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, default=CHECKOUT.parent / "shared" / "data")
    parser.add_argument("--pictures", type=int, default=480)
    parser.add_argument("--vectors", type=int, default=100_000)
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    taken: dict[tuple[int, str], list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "pictures").mkdir()
        paths = write_pictures(options.images, folder / "pictures", options.pictures)
        write_gallery(folder / "gallery.parquet", clustered(options.vectors, DIM))
        with spark_cluster(folder, os.environ) as master:
            bind_workers(folder)
            for executors in [1, 2] * ROUNDS:
                told: multiprocessing.Queue[float] = context.Queue()
                process = context.Process(target=measured, args=(master, executors, folder, paths, told))
                process.start()
                for stage in ("embed", "similar items"):
                    taken[executors, stage].append(told.get())
                process.join()
    print(f"{options.pictures} pictures; {options.vectors:,} vectors x {DIM}; seconds, the best of {ROUNDS}\n")
    print("| | one executor | two | one against two | to reach |\n|---|---|---|---|---|")
    for stage in ("embed", "similar items"):
        one, two = (float(np.min(taken[executors, stage])) for executors in (1, 2))
        print(f"| {stage} | {one:.1f} | {two:.1f} | **{one / two:.2f}x** | 1.7x |")


if __name__ == "__main__":
    main()
