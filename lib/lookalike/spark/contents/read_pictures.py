"""Read pictures: each uri once, into files of a staging folder, beside the hash of the bytes that were read.

The bytes stand in files before anything else is done with them. So a server that answers with other bytes each time is
asked once, and nothing is read again when an executor is lost.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lookalike import fetch, reasons
from lookalike.config import IngestSettings
from lookalike.spark.progress import Count
from lookalike.spark.tables import to_spark_schema, write_and_read
from lookalike.unreadable import reason_of

READ = pa.schema(
    [
        pa.field("key", pa.string()),
        pa.field("content_hash", pa.string()),
        pa.field("content", pa.binary()),
        pa.field("reason", pa.string()),
    ]
)
"""A picture that was read: its bytes and their hash, or the reason for none."""

_BATCH_BYTES = 32 * 2**20
_AHEAD = 2  # pictures under way for each thread, so that a slow one does not hold up the others

_Row = dict[str, Any]


def read_pictures(pictures: DataFrame, settings: IngestSettings, tasks: int, path: str, count: Count) -> DataFrame:
    """READ of each of `pictures` (key, uri, content_hash), from files at `path`, where they are written now.

    A picture whose bytes have another hash than its content_hash is refused; null: any bytes are taken. `count` is told
    the pictures that were read.
    """
    spread = pictures.select("key", "uri", "content_hash").repartition(tasks)
    return write_and_read(spread.mapInArrow(partial(_read_batches, settings, count), to_spark_schema(READ)), path)


def carried_reason(settings: IngestSettings) -> Column:
    """Why the bytes in the column `content` can't be taken; null where they can, or there are none."""
    size = F.length("content")
    empty = F.when(size == 0, reasons.ZERO_BYTES.text)
    return empty.when(size > settings.max_image_bytes, reasons.TOO_LARGE.text)


def _read_batches(
    settings: IngestSettings, count: Count, batches: Iterable[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    rows: Iterator[_Row] = (row for batch in batches for row in batch.to_pylist())
    held: list[_Row] = []
    held_bytes = 0
    with ThreadPoolExecutor(settings.read_threads) as pool:
        for row in _in_order(pool, partial(_read, settings), rows, _AHEAD * settings.read_threads):
            held.append(row)
            held_bytes += len(row["content"] or b"")
            if held_bytes >= _BATCH_BYTES:
                yield pa.RecordBatch.from_pylist(held, READ)
                count(len(held))
                held, held_bytes = [], 0
    if held:
        yield pa.RecordBatch.from_pylist(held, READ)
        count(len(held))


def _in_order(
    pool: ThreadPoolExecutor, work: Callable[[_Row], _Row], rows: Iterable[_Row], ahead: int
) -> Iterator[_Row]:
    """`work` of each row, in their order, while up to `ahead` more are under way."""
    waiting: deque[Future[_Row]] = deque()
    for row in rows:
        waiting.append(pool.submit(work, row))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _read(settings: IngestSettings, picture: _Row) -> _Row:
    """A row of READ."""
    key, stated = picture["key"], picture["content_hash"]
    refused = {"key": key, "content_hash": stated, "content": None}
    try:
        content = fetch.read_image(picture["uri"], settings)
    except Exception as error:  # any failure of any file system is the picture's, never the job's
        return refused | {"reason": reason_of(error)}
    if not content:
        return refused | {"reason": reasons.ZERO_BYTES.text}
    content_hash = hashlib.sha256(content).hexdigest()
    if stated not in (None, content_hash):
        return refused | {"reason": reasons.BYTES_OF_OTHER_HASH.text}
    return {"key": key, "content_hash": content_hash, "content": content, "reason": None}
