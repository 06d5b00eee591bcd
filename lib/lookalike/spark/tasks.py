"""Work spread over tasks: each as much as is worth a task, whatever the catalog's categories are like."""

import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from lookalike.spark.tables import to_spark_schema

T = TypeVar("T")

TASK_IMAGES = 20_000


def group_by_size(items: Iterable[T], size: Callable[[T], int], enough: int) -> Iterator[list[T]]:
    """`items` in their order, put together until their sizes are `enough`."""
    held: list[T] = []
    total = 0
    for item in items:
        held.append(item)
        total += size(item)
        if total >= enough:
            yield held
            held, total = [], 0
    if held:
        yield held


def assign_tasks(images: Mapping[T, int]) -> tuple[dict[T, int], int]:
    """The task of each item, given its images, and how many tasks there are: neighbours share one of TASK_IMAGES."""
    tasks = list(group_by_size(images, images.__getitem__, TASK_IMAGES))
    return {item: number for number, items in enumerate(tasks) for item in items}, len(tasks)


def place_in_parts(counts: Mapping[T, int], enough: int) -> tuple[list[tuple[T, int, int]], int]:
    """(item, its first part, in how many parts its rows are) of each item by its rows, and how many parts there are.

    A part has about `enough` rows: an item of many rows has parts of its own, neighbours of few share one.
    """
    places: list[tuple[T, int, int]] = []
    part = 0
    for items in group_by_size(sorted(counts), counts.__getitem__, enough):  # type: ignore[type-var]
        # Only the last of them can be large.
        parts = -(-sum(counts[item] for item in items) // enough)
        places += [(item, part, 1) for item in items[:-1]]
        places.append((items[-1], part, parts))
        part += parts
    return places, part


def run_tasks(
    spark: SparkSession, tasks: Sequence[T], work: Callable[[T], Iterable[pa.RecordBatch]], schema: pa.Schema
) -> DataFrame:
    """The rows of `schema` that `work` gives for `tasks`, each of which is a Spark task of its own."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for task in batch["task"]:
                yield from work(pickle.loads(task.as_py()))

    # As data, since what a function refers to would go to every task.
    pickled = spark.sparkContext.parallelize([(pickle.dumps(task),) for task in tasks], max(1, len(tasks)))
    return spark.createDataFrame(pickled, "task binary").mapInArrow(run, to_spark_schema(schema))
