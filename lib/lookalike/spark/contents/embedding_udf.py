"""The pandas UDF that embeds: bytes of pictures in, embeddings out.

It takes an iterator of batches, so that the model is loaded once per Python worker, and pictures of the next batch are
decoded while one is in the forward pass.
"""

from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa
from pyspark import TaskContext
from pyspark.sql import Column
from pyspark.sql import functions as F

from lookalike import schemas
from lookalike.config import Settings
from lookalike.spark.progress import Count
from lookalike.spark.tables import to_spark_schema

if TYPE_CHECKING:
    from lookalike.kernels.models.embedder import Outcome

_BATCH = 256  # embeddings that go back to Spark together

# Without the comments of the tables' columns, by which Spark would take the two schemas for different ones.
EMBEDDED = pa.schema(
    [
        pa.field("embedding", schemas.EMBEDDING),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("reason", pa.string()),
    ]
)


def embedding_udf(settings: Settings, model_id: str, count: Count) -> Callable[[str], Column]:
    """A column of bytes -> a struct EMBEDDED: an embedding of the model `model_id`, or the reason for none.

    `count` is told the pictures that are done. A task fails with ModelMismatch where its machine has another model.
    """

    def embed(contents: Iterator[pd.Series]) -> Iterator[pd.DataFrame]:
        first = next(contents, None)
        if first is None:  # an empty task, for which no model need be loaded
            return
        # Here, as torch takes ten seconds to import, and given embeddings need none of it.
        from lookalike.kernels.models.embedder import get_embedder

        threads, device = task_share()
        worker = get_embedder(settings.model, settings.embed, threads, device, model_id)
        pictures = (content for batch in chain([first], contents) for content in batch)
        outcomes = worker.embed(enumerate(pictures))
        while some := list(islice(outcomes, _BATCH)):
            yield _frame(some)
            count(len(some))

    udf: Callable[[str], Column] = F.pandas_udf(embed, to_spark_schema(EMBEDDED))  # type: ignore[attr-defined]  # the stubs lack it
    return udf


def _frame(outcomes: list["Outcome"]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "embedding": [outcome.embedding for outcome in outcomes],
            "width": pd.array([outcome.width for outcome in outcomes], "Int32"),
            "height": pd.array([outcome.height for outcome in outcomes], "Int32"),
            "reason": [outcome.reason for outcome in outcomes],
        }
    )


def task_share() -> tuple[int, str]:
    """CPU threads of this task, and the device that Spark assigned to it."""
    task = TaskContext.get()
    assert task is not None
    gpu = task.resources().get("gpu")
    return max(1, task.cpus()), f"cuda:{gpu.addresses[0]}" if gpu else "cpu"
