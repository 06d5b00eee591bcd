"""Where a picture's bytes are, for the tasks that read them."""

import hashlib
from collections.abc import Callable, Iterator
from functools import partial

import pyarrow as pa
from pyspark import TaskContext

from lookalike import fetch
from lookalike.config import IngestSettings


def task_share() -> tuple[int, str]:
    """CPU threads of this task, and the device that Spark assigned to it."""
    task = TaskContext.get()
    assert task is not None
    gpu = task.resources().get("gpu")
    return max(1, task.cpus()), f"cuda:{gpu.addresses[0]}" if gpu else "cpu"


def sources(batch: pa.RecordBatch, settings: IngestSettings) -> Iterator[tuple[int, str, bytes | Callable[[], bytes]]]:
    """(row of the batch, content_hash, bytes or how to read them).

    Carried bytes of another content_hash, a further row of the image_id, are left out.
    """
    columns = (batch[name] for name in ("content_hash", "uri", "content"))
    for row, (content_hash, uri, content) in enumerate(zip(*columns, strict=True)):
        key = content_hash.as_py()
        if not content.is_valid:
            yield row, key, partial(fetch.read_again, uri.as_py(), key, settings)
        elif hashlib.sha256(carried := content.as_py()).hexdigest() == key:
            yield row, key, carried
