"""The embed stage on Spark against bare Python processes, a plain batch UDF, and the other ways to call Python.

    ./spark-submit.sh test --version  # once: prepares the environment
    PYTHONPATH=lib .venv/bin/python tests/bench/embed.py [--images DIR] [--pictures 600] [--rounds 3]

Every variant embeds the same pictures with the default model on the same two cores: two bare processes, or Spark's
local[2]. Models are loaded before the clock starts, as in a long job; the first pass of embed, which loads them, has a
line of its own. Variants take turns, and a ratio is the median over rounds of the ratio within a round, as a shared
machine is never the same for long. It prints Markdown.
"""

import argparse
import multiprocessing
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from PIL import Image
from pyspark.ml.functions import predict_batch_udf
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, FloatType

from lookalike import files
from lookalike.config import Settings
from lookalike.kernels.models.embedder import Outcome, get_embedder
from lookalike.spark.contents.embed_pictures import EmbedJob, Pictures, embed_pictures, task_count
from lookalike.spark.session import session

CHECKOUT = Path(__file__).resolve().parents[2]
CORES = 2
SETTINGS = Settings()
IN_BATCH = 256


def write_pictures(source: Path, folder: Path, n: int) -> list[str]:
    """Paths of `n` JPEGs: half as they are in `source`, half scaled to a longer side of 500 to 1,500 pixels."""
    rng = random.Random(0)
    found = sorted(source.rglob("*.jpg"))
    if len(found) < n:
        sys.exit(f"{len(found)} *.jpg below {source}; give another folder with --images, or fewer --pictures")
    paths = []
    for number, path in enumerate(rng.sample(found, n)):
        paths.append(str(folder / f"{number:05d}.jpg"))
        if number % 2:
            shutil.copyfile(path, paths[-1])
            continue
        with Image.open(path) as picture:
            scale = rng.randint(500, 1500) / max(picture.size)
            size = round(picture.width * scale), round(picture.height * scale)
            picture.convert("RGB").resize(size).save(paths[-1], quality=90)
    return paths


def outcomes(paths: list[str]) -> Iterator[Outcome]:
    worker = get_embedder(SETTINGS.model, SETTINGS.embed, 1, "cpu")
    return worker.embed((path, partial(files.read_bytes, path)) for path in paths)


def bare_process(paths: list[str], calls: Connection) -> None:
    """Tells the model_id; then embeds `paths` at each call, and tells how many embeddings came out."""
    for _ in outcomes(paths[:64]):
        pass
    calls.send(get_embedder(SETTINGS.model, SETTINGS.embed, 1, "cpu").model_id)
    while calls.recv():
        calls.send(sum(outcome.embedding is not None for outcome in outcomes(paths)))


def start_bare(paths: list[str]) -> tuple[list[Connection], str]:
    context = multiprocessing.get_context("spawn")
    pipes = []
    for part in range(CORES):
        here, there = context.Pipe()
        context.Process(target=bare_process, args=(paths[part::CORES], there), daemon=True).start()
        pipes.append(here)
    model_ids = [pipe.recv() for pipe in pipes]
    return pipes, model_ids[0]


def run_bare(pipes: list[Connection]) -> None:
    for pipe in pipes:
        pipe.send(True)
    for pipe in pipes:
        pipe.recv()


def uncounted(_images: int) -> None:
    pass


def map_in_pandas(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    for found in in_batches(outcomes([uri for batch in batches for uri in batch["uri"]])):
        yield pd.DataFrame({"uri": [o.key for o in found], "embedding": [o.embedding for o in found]})


def iterator_udf(batches: Iterator[pd.Series]) -> Iterator[pd.Series]:
    for found in in_batches(outcomes([uri for batch in batches for uri in batch])):
        yield pd.Series([outcome.embedding for outcome in found])


def in_batches(found: Iterator[Outcome]) -> Iterator[list[Outcome]]:
    batch: list[Outcome] = []
    for outcome in found:
        batch.append(outcome)
        if len(batch) == IN_BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def plain_model() -> Callable[[np.ndarray], np.ndarray]:
    """What a reader of Spark's documentation would write: Pillow, torch, one batch after the other."""
    import torch

    from lookalike.kernels.models.load import load_model

    model = load_model(SETTINGS.model)
    size = (model.preprocessing.size_px, model.preprocessing.size_px)

    def predict(contents: np.ndarray) -> np.ndarray:
        pictures = [Image.open(BytesIO(content)).convert("RGB") for content in contents]
        pixels = np.stack([np.asarray(picture.resize(size, Image.Resampling.BICUBIC)) for picture in pictures])
        with torch.inference_mode():
            return np.asarray(model.module(torch.from_numpy(pixels)))

    return predict


def local_spark(scratch: str) -> SparkSession:
    """A session as spark-submit.sh makes it, without tables."""
    os.environ |= {"SPARK_CONF_DIR": str(CHECKOUT / "conf"), "SPARK_LOCAL_IP": "127.0.0.1"}
    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ["PYSPARK_SUBMIT_ARGS"] = f"--conf spark.jars.packages= --jars {delta_jars()} pyspark-shell"
    SparkSession.builder.master(f"local[{CORES}]").config("spark.local.dir", scratch).getOrCreate()
    return session("bench")


def delta_jars() -> str:
    return ",".join(str(jar) for jar in sorted((CHECKOUT / ".cache" / "ivy" / "jars").glob("*.jar")))


def embed_all(spark: SparkSession, paths: list[str], model_id: str) -> None:
    """What `embed` does with new pictures: read into files, hashed, and embedded from there; none is rejected."""
    rows = spark.createDataFrame([(path, path, None) for path in paths], "key string, uri string, content_hash string")
    carried = spark.createDataFrame([], "key string, content binary")
    known = spark.createDataFrame([], "content_hash string, width int, height int")
    with tempfile.TemporaryDirectory() as staging:
        job = EmbedJob(SETTINGS, model_id, f"file://{staging}", uncounted, uncounted)
        for chunk in embed_pictures(Pictures.by_hash(rows, carried, len(paths), SETTINGS.embed), known, job):
            assert chunk.embeddings.count() == len(paths)


def unembedded(spark: SparkSession, paths: list[str]) -> DataFrame:
    """Uris in as many tasks as the job would make of them."""
    uris = spark.createDataFrame([(path,) for path in paths], "uri string")
    return uris.repartition(task_count(len(paths), CORES, SETTINGS.embed))


def map_in_arrow(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for found in in_batches(outcomes([uri for batch in batches for uri in batch["uri"].to_pylist()])):
        columns = {"uri": [o.key for o in found], "embedding": [o.embedding for o in found]}
        yield pa.RecordBatch.from_pydict(columns, pa.schema({"uri": pa.string(), "embedding": pa.list_(pa.float32())}))


def variants(spark: SparkSession, paths: list[str], model_id: str) -> dict[str, Callable[[], None]]:
    """The whole of `embed`; and three ways in which pandas or Arrow could carry pictures that tasks read themselves."""
    images = unembedded(spark, paths)
    iterated: Any = F.pandas_udf(iterator_udf, "array<float>")  # type: ignore[attr-defined]
    plain = predict_batch_udf(plain_model, return_type=ArrayType(FloatType()), batch_size=SETTINGS.embed.batch_images)
    contents = spark.read.format("binaryFile").load(str(Path(paths[0]).parent))
    schema = "uri string, embedding array<float>"
    frames = {
        "iterator pandas UDF": images.select("uri", iterated("uri").alias("embedding")),
        "`mapInArrow`": images.mapInArrow(map_in_arrow, schema),
        "`mapInPandas`": images.mapInPandas(map_in_pandas, schema),
        "plain `predict_batch_udf`": contents.select("path", plain("content").alias("embedding")),
    }
    ways: dict[str, Callable[[], None]] = {"embed": partial(embed_all, spark, paths, model_id)}
    return ways | {name: partial(to_noop, frame) for name, frame in frames.items()}


def to_noop(rows: DataFrame) -> None:
    rows.write.format("noop").mode("overwrite").save()


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, default=CHECKOUT.parent / "shared" / "data")
    parser.add_argument("--pictures", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "pictures").mkdir()
        paths = write_pictures(options.images, Path(folder) / "pictures", options.pictures)
        pipes, model_id = start_bare(paths)
        ways = variants(local_spark(folder), paths, model_id)
        work = {"bare processes": partial(run_bare, pipes)} | ways
        embed, *_, plain = ways
        cold_s = seconds(work[embed])
        work[plain]()  # loads its model
        taken: dict[str, list[float]] = {name: [] for name in work}
        for turn in range(options.rounds):
            for name in (list(work), list(reversed(work)))[turn % 2]:
                taken[name].append(seconds(work[name]))
        for pipe in pipes:
            pipe.send(False)
        report(taken, cold_s, options.pictures, embed)


def report(taken: dict[str, list[float]], cold_s: float, pictures: int, embed: str) -> None:
    targets = {"bare processes": "at least 0.9", "plain `predict_batch_udf`": "at least 2"}
    print(f"{pictures} JPEGs, {CORES} cores, {len(taken[embed])} rounds\n")
    print("| | images/s, median | best | embed against it | target |\n|---|---|---|---|---|")
    for name, times_s in taken.items():
        ratio = statistics.median(other / ours for other, ours in zip(times_s, taken[embed], strict=True))
        middle, best = pictures / statistics.median(times_s), pictures / min(times_s)
        print(f"| {name} | {middle:.1f} | {best:.1f} | {ratio:.2f} | {targets.get(name, '')} |")
    print(f"| embed, with the start of its workers | {pictures / cold_s:.1f} | | | |")


if __name__ == "__main__":
    main()
