"""Build index: the gallery -> shard files below the root, and the rows of `shards` that describe them.

Per category: one task trains on a random sample, a task for each shard fills a clone of what was trained, one task
chooses how wide to search. Spark's groups do the spreading, so that many small categories share tasks, and the number
of Spark jobs is the same for any number of categories. Only small rows come to the driver; the trained index goes by
path.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from lookalike import files, schemas
from lookalike.config import IndexSettings
from lookalike.kernels import index, shards
from lookalike.kernels.index import IndexSpec, index_spec
from lookalike.spark.gallery import Version, gallery, missing_from, versions_frame
from lookalike.spark.progress import progress_bar
from lookalike.spark.run import Run
from lookalike.spark.tables import spark_schema

Count = Callable[[int], None]

_TRAINED = pa.schema([schemas.SHARDS.field("category")])


@dataclass(frozen=True)
class Plan:
    """What will be built for a version of a category."""

    category: str
    version: str
    images: int
    dim: int
    spec: IndexSpec


@dataclass(frozen=True)
class Build:
    """What all tasks of a build are given."""

    root: str
    run_id: str
    model_id: str
    settings: IndexSettings
    plans: dict[str, Plan]  # by category

    @property
    def staging(self) -> str:
        return files.join(self.root, "staging", self.run_id)

    def trained_path(self, category: str) -> str:
        return files.join(self.staging, f"{shards.slug(category)}.faiss")


def build_index(run: Run, versions: Sequence[Version], model_id: str) -> None:
    """Build and register the shards of those of `versions` that have none."""
    with run.stage("build_index") as figures:
        todo = missing_from(run, "shards", versions)
        planned = plans(run, todo, model_id)
        build = Build(run.settings.root, run.run_id, model_id, run.settings.index, {p.category: p for p in planned})
        figures.images = sum(p.images for p in planned)
        figures.counts = {"categories": len(planned), "shards": 0, "images": figures.images}
        with progress_bar(run.console, run.spark.sparkContext, "build_index", figures.images) as count:
            if planned:
                frame = versions_frame(run.spark, todo)
                rows = gallery(run.tables.read("images"), run.tables.read("embeddings"), frame, model_id)
                built = built_shards(rows, build, count)
                run.tables.append("shards", built)
                figures.counts["shards"] = built.count()


def plans(run: Run, versions: Sequence[Version], model_id: str) -> list[Plan]:
    """What will be built for each of `versions`."""
    ours = run.tables.read("embeddings").where(F.col("model_id") == model_id)
    first = ours.select(F.size("embedding").alias("dim")).first()
    sizes = [(version.category, version.version, version.images) for version in versions]
    return plan(sizes, first["dim"], run.settings.index) if first else []


def plan(versions: Iterable[tuple[str, str, int]], dim: int, settings: IndexSettings) -> list[Plan]:
    """What `built_shards` will build for `versions`, each a category, its version and its number of images."""
    return [
        Plan(category, version, images, dim, index_spec(images, dim, settings))
        for category, version, images in versions
    ]


def built_shards(rows: DataFrame, build: Build, count: Count) -> DataFrame:
    """Write the shard files of the gallery `rows`, and give their rows of `shards`.

    `rows` has (category, version, product_id, image_id, vector_id, available, embedding), all of categories in
    `build.plans`. The work is done when this returns: reading the result again writes nothing. `count` is told the
    images that stand in shards.
    """
    spark = rows.sparkSession
    cores = executor_cores(spark)
    try:
        _train(rows, build, cores)
        filled = _fill(rows, build, cores, count)
        return _with_search(spark.createDataFrame(filled, spark_schema(schemas.SHARDS)), build, cores)
    finally:
        files.remove(build.staging)


def executor_cores(spark: SparkSession) -> int:
    """Cores that the tasks of one executor share."""
    context = spark.sparkContext
    if str(context.master).startswith("local"):
        return context.defaultParallelism
    return int(context.getConf().get("spark.executor.cores", "1") or 1)


def _threads(cores: int, tasks: int) -> int:
    """Threads for each of so many tasks: few tasks get more, as other cores would stand idle."""
    return max(1, cores // max(1, tasks))


def _train(rows: DataFrame, build: Build, cores: int) -> None:
    """Train an index for each category that needs it, below the staging folder."""
    plans = [p for p in build.plans.values() if p.spec.train_images]
    if not plans:
        return
    threads = _threads(cores, len(plans))
    shares = rows.sparkSession.createDataFrame(
        [(p.category, p.spec.train_images / p.images) for p in plans], "category string, share double"
    )
    # By hash, not by chance: a task that runs again, and a run on other partitions, takes the same images.
    chance = F.pmod(F.xxhash64("vector_id", F.lit(build.settings.seed)), F.lit(2**30)) / 2**30
    sample = rows.join(F.broadcast(shares), "category", "inner").where(chance < F.col("share"))

    def train(key: tuple[Any, ...], batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        faiss.omp_set_num_threads(threads)
        category = key[0].as_py()
        table = pa.Table.from_batches(list(batches))
        order = np.argsort(table["vector_id"].to_numpy())
        trained = index.train(build.plans[category].spec, index.embeddings_of(table)[order], build.settings.seed)
        with files.written_atomically(build.trained_path(category)) as path:
            faiss.write_index(trained, str(path))
        yield pa.RecordBatch.from_pydict({"category": [category]}, schema=_TRAINED)

    columns = sample.select("category", "vector_id", "embedding")
    columns.groupBy("category").applyInArrow(train, spark_schema(_TRAINED)).collect()


def _fill(rows: DataFrame, build: Build, cores: int, count: Count) -> list[Row]:
    """Write every shard. The rows of `shards` still lack what `_with_search` finds out."""
    threads = _threads(cores, sum(p.spec.shards for p in build.plans.values()))
    numbers = rows.sparkSession.createDataFrame(
        [(p.category, p.spec.shards) for p in build.plans.values()], "category string, shards int"
    )
    # All images of a product share a shard.
    shard = F.pmod(F.xxhash64("product_id"), F.col("shards")).cast("int")
    placed = rows.join(F.broadcast(numbers), "category", "inner").withColumn("shard", shard).drop("shards")

    def fill(key: tuple[Any, ...], batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        faiss.omp_set_num_threads(threads)
        category, version, number = (part.as_py() for part in key)
        plan = build.plans[category]
        if plan.spec.train_images:
            trained = files.read_bytes(build.trained_path(category))
            empty = faiss.deserialize_index(np.frombuffer(trained, np.uint8))
        else:
            empty = index.empty_index(plan.spec, plan.dim)
        shard_rows = index.fill(empty, batches)
        described = shards.write(build.root, category, version, number, empty, shard_rows, build.model_id)
        count(empty.ntotal)
        yield _shards_batch(
            [
                {
                    "category": category,
                    "version": version,
                    "shard": number,
                    "factory": plan.spec.factory,
                    "nprobe": 0,
                    "candidates": build.settings.candidates,
                    "run_id": build.run_id,
                    **described,
                }
            ]
        )

    groups = placed.groupBy("category", "version", "shard")
    return groups.applyInArrow(fill, spark_schema(schemas.SHARDS)).collect()


def _with_search(rows: DataFrame, build: Build, cores: int) -> DataFrame:
    """Rows of `shards` with nprobe, candidates and knn_recall@10, which all shards of a version share."""
    threads = _threads(cores, len(build.plans))

    def choose(key: tuple[Any, ...], batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        faiss.omp_set_num_threads(threads)
        described = pa.Table.from_batches(list(batches)).to_pylist()
        opened = [shards.open_shard(build.root, row) for row in described]
        chosen, recall = index.choose_search(opened, build.plans[key[0].as_py()].spec, build.settings)
        yield _shards_batch([{**row, **asdict(chosen), "knn_recall@10": recall} for row in described])

    described = rows.groupBy("category").applyInArrow(choose, spark_schema(schemas.SHARDS)).collect()
    return rows.sparkSession.createDataFrame(described, spark_schema(schemas.SHARDS))


def _shards_batch(rows: list[dict[str, Any]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(rows, schema=schemas.SHARDS)
