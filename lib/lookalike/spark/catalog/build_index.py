"""Build index: the gallery -> shard files below the root, and the rows of `shards` that describe them.

Per category: one task trains on a random sample, a task for each shard fills a clone of what was trained, one task
chooses how wide to search. Small categories share a task and a file, a pack. Every task has a partition of its own, so
none waits behind another, and the number of Spark jobs is the same for any number of categories. Only small rows come
to the driver; the trained index goes by path.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from lookalike import files, schemas
from lookalike.config import IndexSettings
from lookalike.kernels.index import choose_search, shards
from lookalike.kernels.index.build import (
    PACK_BYTES,
    create_index,
    fill_index,
    stack_embeddings,
    to_halves,
    to_shard_rows,
)
from lookalike.kernels.index.spec import PACKED, IndexSpec, choose_index
from lookalike.spark.catalog.gallery import select_gallery
from lookalike.spark.catalog.placeholders import mark_unavailable
from lookalike.spark.catalog.quantizer import (
    Former,
    Outcome,
    describe_decision,
    find_formers,
    has_fallen,
    train_or_reuse,
)
from lookalike.spark.catalog.versions import Version, find_missing
from lookalike.spark.progress import Count, progress_bar
from lookalike.spark.run import Run
from lookalike.spark.tables import Tables, make_local_frame, to_spark_schema, version_key_of
from lookalike.spark.tasks import assign_tasks, group_by_size

_TRAINED = pa.schema(
    [
        schemas.SHARDS.field("category"),
        pa.field("reused", pa.bool_()),
        pa.field("error", pa.float64()),
        pa.field("former_error", pa.float64()),
        pa.field("damage", pa.string()),
    ]
)
# A row of `shards`, with the knn_recall@10 of a quantizer kept, when it is searched as it was at first.
_CHOSEN = schemas.SHARDS.append(pa.field("kept_recall", pa.float64()))
_FIRST_FILES = pa.schema({"category": pa.string(), "first": pa.int32(), "shards": pa.int32()})
_FILE_TASKS = pa.schema({"file": pa.int32(), "task": pa.int32()})


@dataclass(frozen=True)
class Plan:
    """What will be built for a version of a category."""

    category: str
    version: str
    images: int
    dim: int
    spec: IndexSpec
    former: Former | None = None  # whose trained index may be kept


@dataclass(frozen=True)
class Build:
    """What a build is given."""

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

    def only(self, plans: Iterable[Plan]) -> "Build":
        """The build of these plans alone: tasks are given no more than concerns them."""
        return replace(self, plans={p.category: p for p in plans})


@dataclass(frozen=True)
class Built:
    """Rows of `shards`, whose files stand; and by category with a trained index, whether it was reused, and why."""

    shards: pa.Table
    decisions: dict[str, str]


def build_index(run: Run, planned: Sequence[Plan]) -> None:
    """Build and register the shards of what is `planned`."""
    with run.stage("build_index") as figures:
        planned = attach_formers(run.tables, run.model_id, planned)
        build = Build(run.settings.root, run.run_id, run.model_id, run.settings.index, {p.category: p for p in planned})
        sizes = {(p.category, p.version): p.images for p in planned}
        figures.images = sum(sizes.values())
        figures.counts = {"categories": len(planned), "shards": 0, "images": figures.images}
        with progress_bar(run.console, run.spark.sparkContext, "build_index", figures.images) as count:
            if planned:
                images = mark_unavailable(run, run.tables.read("images"))
                embeddings = run.tables.read("embeddings")
                gallery = select_gallery(images, embeddings, run.model_id, sizes)
                built = build_shards(gallery, build, count)
                run.tables.append_new_rows("shards", built.shards, schemas.VERSION_KEY)
                figures.counts["shards"] = built.shards.num_rows
                figures.decisions = built.decisions


def plan_versions(run: Run, versions: Sequence[Version]) -> list[Plan]:
    """What will be built for each of `versions` that has no shards."""
    todo = find_missing(run.tables, "shards", versions)
    if not todo:
        return []
    ours = run.tables.read("embeddings").where(F.col("model_id") == run.model_id)
    first = ours.select(F.size("embedding").alias("dim")).first()
    sizes = [(version.category, version.version, version.images) for version in todo]
    return plan_builds(sizes, first["dim"], run.settings.index) if first else []


def plan_builds(versions: Iterable[tuple[str, str, int]], dim: int, settings: IndexSettings) -> list[Plan]:
    """What `build_shards` will build for `versions`, each a category, its version and its number of images."""
    return [
        Plan(category, version, images, dim, choose_index(images, dim, settings))
        for category, version, images in versions
    ]


def attach_formers(tables: Tables, model_id: str, planned: Sequence[Plan]) -> list[Plan]:
    """`planned` with the trained indexes of earlier versions that may be kept.

    Which index that is does not enter a version's fingerprint, although its files depend on it: a fingerprint names
    inputs and settings, and by the settings either index serves them well enough. Else a rerun with the same inputs
    would find another name for them, and build for ever. The files of a version are registered once, so all readers of
    it see the same ones.
    """
    wanted = {(p.category, p.spec.factory, p.dim) for p in planned if p.spec.train_images}
    if not wanted:
        return list(planned)
    live = {version_key_of(row) for row in tables.read("publications").collect()}
    formers = find_formers(tables.read("shards"), live, model_id, wanted)
    return [replace(p, former=formers.get(p.category)) for p in planned]


def build_shards(rows: DataFrame, build: Build, count: Count) -> Built:
    """Write the shard files of the gallery `rows`, and give their rows of `shards`.

    `rows` has (category, version, product_id, image_id, vector_id, available, embedding), all of categories in
    `build.plans`. `count` is told the images that stand in shards.
    """
    spark = rows.sparkSession
    cores = count_executor_cores(spark)
    settings = build.settings
    try:
        outcomes = _train(rows, build, cores)
        chosen = _with_search(spark, _fill(rows, build, outcomes, cores, count), build, cores)
        recalls = {row["category"]: row["kept_recall"] for row in chosen}
        decisions = {
            category: describe_decision(build.plans[category].former, outcome, recalls[category], settings)
            for category, outcome in outcomes.items()
        }
        # That recall fell shows only in an index that is filled.
        again = [p for p in build.plans.values() if p.former and has_fallen(p.former, recalls[p.category], settings)]
        if again:
            anew = build.only(replace(p, former=None) for p in again)
            theirs = rows.where(F.col("category").isin(*anew.plans))
            filled = _fill(theirs, anew, _train(theirs, anew, cores), cores, lambda _: None)
            chosen = [row for row in chosen if row["category"] not in anew.plans]
            chosen += _with_search(spark, filled, anew, cores)
    finally:
        files.remove(build.staging)
    return Built(pa.Table.from_pylist(chosen, schemas.SHARDS), decisions)


def count_executor_cores(spark: SparkSession) -> int:
    """Cores that the tasks of one executor share."""
    context = spark.sparkContext
    if str(context.master).startswith("local"):
        return context.defaultParallelism
    return int(context.getConf().get("spark.executor.cores", "1") or 1)


def _threads(cores: int, tasks: int) -> int:
    """Threads for each of so many tasks: few tasks get more, as other cores would stand idle."""
    return max(1, cores // max(1, tasks))


def _train(rows: DataFrame, build: Build, cores: int) -> dict[str, Outcome]:
    """Leave a trained index below the staging folder for each category that needs one."""
    build = build.only(p for p in build.plans.values() if p.spec.train_images)
    plans = list(build.plans.values())
    if not plans:
        return {}
    threads = _threads(cores, len(plans))
    shares = make_local_frame(
        rows.sparkSession,
        [(p.category, p.spec.train_images / p.images, task) for task, p in enumerate(plans)],
        pa.schema({"category": pa.string(), "share": pa.float64(), "task": pa.int32()}),
    )
    # By hash, not by chance: a task that runs again, and a run on other partitions, takes the same images.
    chance = F.pmod(F.xxhash64("vector_id", F.lit(build.settings.seed)), F.lit(2**30)) / 2**30
    sample = rows.join(F.broadcast(shares), "category", "inner").where(chance < F.col("share"))

    def train(key: tuple[Any, ...], batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        faiss.omp_set_num_threads(threads)
        plan = plans[key[0].as_py()]
        table = pa.Table.from_batches(list(batches))
        embeddings = stack_embeddings(table)[np.argsort(table["vector_id"].to_numpy())]
        trained, outcome = train_or_reuse(build.root, plan.spec, plan.former, embeddings, build.settings)
        with files.write_atomically(build.trained_path(plan.category)) as path:
            faiss.write_index(trained, str(path))
        yield pa.RecordBatch.from_pylist([{"category": plan.category, **asdict(outcome)}], schema=_TRAINED)

    columns = sample.select("task", "vector_id", "embedding").repartitionById(len(plans), "task")
    outcomes = columns.groupBy("task").applyInArrow(train, to_spark_schema(_TRAINED)).collect()
    return {row["category"]: Outcome(*row[1:]) for row in outcomes}


@dataclass(frozen=True)
class _File:
    """A file to fill, or a pair of them: a shard of a category, or a pack of many categories."""

    plans: tuple[Plan, ...]
    shard: int = 0

    @property
    def images(self) -> int:
        return sum(plan.images // plan.spec.shards for plan in self.plans)


def _files(plans: Iterable[Plan]) -> Iterator[_File]:
    """Categories that are neighbours in the tree share a pack, so that a parent's shards stand in few files."""
    in_order = sorted(plans, key=lambda p: p.category)
    packed = [p for p in in_order if p.spec.packed]
    for pack in group_by_size(packed, lambda p: p.spec.size_bytes, PACK_BYTES):
        yield _File(tuple(pack))
    for p in in_order:
        if not p.spec.packed:
            yield from (_File((p,), shard) for shard in range(p.spec.shards))


def _fill(
    rows: DataFrame, build: Build, outcomes: dict[str, Outcome], cores: int, count: Count
) -> list[dict[str, Any]]:
    """Write every file. The rows of `shards` still lack what `_with_search` finds out of those outside packs."""
    to_fill = list(_files(build.plans.values()))
    task_of, tasks = assign_tasks({number: file.images for number, file in enumerate(to_fill)})
    threads = _threads(cores, tasks)
    first_files = [(p.category, n, p.spec.shards) for n, f in enumerate(to_fill) if not f.shard for p in f.plans]
    first = make_local_frame(rows.sparkSession, first_files, _FIRST_FILES)
    file_tasks = make_local_frame(rows.sparkSession, list(task_of.items()), _FILE_TASKS)
    # All images of a product share a shard.
    number = (F.col("first") + F.pmod(F.xxhash64("product_id"), F.col("shards"))).cast("int")
    placed = (
        rows.join(F.broadcast(first), "category", "inner")
        .withColumn("file", number)
        .join(F.broadcast(file_tasks), "file", "inner")
        .drop("first", "shards")
        .repartitionById(tasks, "task")
    )
    # Of packs, whose plans are many, a task needs to know nothing.
    alone = {number: (f.plans[0], f.shard) for number, f in enumerate(to_fill) if not f.plans[0].spec.packed}
    build = build.only([])

    def fill(key: tuple[Any, ...], batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        faiss.omp_set_num_threads(threads)
        number = key[1].as_py()
        if number in alone:
            plan, shard = alone[number]
            described = [_filled_shard(build, plan, shard, outcomes.get(plan.category), batches)]
        else:
            described = _filled_pack(build, number, batches)
        count(sum(row["ntotal"] for row in described))
        yield _shards_batch(described)

    filled = placed.groupBy("task", "file").applyInArrow(fill, to_spark_schema(schemas.SHARDS)).collect()
    return [row.asDict() for row in filled]


def _filled_shard(
    build: Build, plan: Plan, shard: int, outcome: Outcome | None, batches: Iterable[pa.RecordBatch]
) -> dict[str, Any]:
    if outcome:
        trained = files.read_bytes(build.trained_path(plan.category))
        empty = faiss.deserialize_index(np.frombuffer(trained, np.uint8))
        training = (
            plan.former.training
            if plan.former and outcome.reused
            else {"trained_version": plan.version, "trained_error": outcome.error}
        )
    else:
        empty, training = create_index(plan.spec, plan.dim), {}
    rows = fill_index(empty, batches)
    described = shards.write_shard(
        build.root, plan.category, plan.version, build.run_id, shard, empty, rows, build.model_id
    )
    return {
        "category": plan.category,
        "version": plan.version,
        "shard": shard,
        "factory": plan.spec.factory,
        "nprobe": 0,
        "candidates": build.settings.candidates,
        "run_id": build.run_id,
        **training,
        **described,
    }


def _filled_pack(build: Build, number: int, batches: Iterable[pa.RecordBatch]) -> list[dict[str, Any]]:
    table = to_halves(batches)
    versions = table.group_by(["category", "version"]).aggregate([]).to_pylist()
    version_of = {row["category"]: row["version"] for row in versions}
    # Of this run alone: what another run packs, after a crash or at the same time, has other neighbours.
    path = f"shards/packs/{build.run_id}/{number:05d}.arrow"
    categories: Any = table["category"].combine_chunks()
    described = shards.write_pack(build.root, path, categories, to_shard_rows(table), build.model_id)
    rows = []
    for row in described:
        search, recall = choose_search.choose_exact_search(row["ntotal"], row.pop("products"), build.settings)
        rows.append(
            {
                "version": version_of[row["category"]],
                "shard": 0,
                "factory": PACKED,
                "knn_recall@10": recall,
                "run_id": build.run_id,
                **asdict(search),
                **row,
            }
        )
    return rows


def _with_search(
    spark: SparkSession, described: list[dict[str, Any]], build: Build, cores: int
) -> list[dict[str, Any]]:
    """Rows of `shards` with nprobe, candidates and knn_recall@10, which all shards of a version share."""
    sizes: dict[str, int] = {}
    for row in described:
        if row["path"] is not None:
            sizes[row["category"]] = sizes.get(row["category"], 0) + row["ntotal"]
    packed = [{**row, "kept_recall": None} for row in described if row["path"] is None]
    if not sizes:
        return packed
    task_of, tasks = assign_tasks(dict(sorted(sizes.items())))
    threads = _threads(cores, tasks)
    build = build.only(build.plans[category] for category in sizes)

    def choose(key: tuple[Any, ...], batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        faiss.omp_set_num_threads(threads)
        rows = pa.Table.from_batches(list(batches)).drop_columns("task").to_pylist()
        yield pa.RecordBatch.from_pylist(_chosen(build, build.plans[key[1].as_py()], rows), schema=_CHOSEN)

    values = [
        (*(row[name] for name in schemas.SHARDS.names), task_of[row["category"]])
        for row in described
        if row["category"] in sizes
    ]
    task = pa.field("task", pa.int32())
    frame = make_local_frame(spark, values, schemas.SHARDS.append(task))
    groups = frame.repartitionById(tasks, "task").groupBy("task", "category")
    return [row.asDict() for row in groups.applyInArrow(choose, to_spark_schema(_CHOSEN)).collect()] + packed


def _chosen(build: Build, plan: Plan, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The shards of one version with their search; and with the figures of its training, if it trained a quantizer."""
    opened = shards.open_shards(build.root, rows)
    sample = choose_search.Sample.of(opened, build.settings.seed)
    search, recall = choose_search.choose_search(opened, plan.spec, build.settings, sample)
    chosen = {**asdict(search), "knn_recall@10": recall, "kept_recall": None}
    if rows[0]["trained_version"] is not None and rows[0]["trained_nprobe"] is None:
        chosen |= {"trained_nprobe": search.nprobe, "trained_candidates": search.candidates, "trained_recall": recall}
    elif plan.former and rows[0]["trained_version"] is not None:
        chosen["kept_recall"] = sample.measure(plan.former.search)
    return [{**row, **chosen} for row in rows]


def _shards_batch(rows: list[dict[str, Any]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(rows, schema=schemas.SHARDS)
