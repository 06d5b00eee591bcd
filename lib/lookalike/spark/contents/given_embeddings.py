"""Embeddings that a manifest brings: checked, hashed in place of a picture's bytes, and L2-normalised."""

import hashlib
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import StringType, StructField, StructType

from lookalike import reasons, schemas
from lookalike.spark.progress import Count
from lookalike.spark.tables import to_spark_schema

_DIGEST = StructType([StructField(name, StringType()) for name in ("content_hash", "reason")])
_UNIT = pa.schema(
    [*(schemas.EMBEDDINGS.field(n) for n in ("content_hash", "model_id")), pa.field("embedding", schemas.EMBEDDING)]
)


def hash_embeddings(rows: DataFrame, dim: int, count: Count) -> DataFrame:
    """`rows` with `content_hash` and `reason` in place of their `embedding` of (dim,): one of the two is null."""

    def digest(embeddings: pa.Array) -> pa.Array:
        values, refusals = _checked(embeddings, dim)
        hashes = np.full(len(embeddings), None, object)
        hashes[[reason is None for reason in refusals]] = _hashes(values)
        count(len(embeddings))
        columns = [pa.array(texts, pa.string()) for texts in (hashes, refusals)]
        return pa.StructArray.from_arrays(columns, _DIGEST.names)

    digested = F.arrow_udf(digest, _DIGEST)(F.col("embedding"))  # type: ignore[attr-defined]  # the stubs lack it
    return rows.withColumn("digest", digested).drop("embedding").select("*", "digest.*").drop("digest")


def unit_embeddings(given: DataFrame, wanted: DataFrame, dim: int, model_id: str, count: Count) -> DataFrame:
    """(content_hash, model_id, embedding) of each content of `wanted` (key, content_hash): L2-normalised.

    `given` (key, embedding) are what `hash_embeddings` hashed. Rows that it gave a reason are left out.
    """
    rows = given.select("key", "embedding").join(wanted.select("key"), "key", "left_semi")
    unit = rows.select("embedding").mapInArrow(partial(_unit_batches, dim, model_id, count), to_spark_schema(_UNIT))
    return unit.join(wanted, "content_hash", "left_semi").dropDuplicates(["content_hash"])


def _unit_batches(dim: int, model_id: str, count: Count, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        values, _ = _checked(batch["embedding"], dim)
        n = len(values)
        # float64, so that the squares of large values don't overflow.
        norms = np.sqrt(np.einsum("ij,ij->i", values, values, dtype=np.float64))
        unit = (values / norms[:, None]).astype(np.float32)
        columns = [
            pa.array(_hashes(values), pa.string()),
            pa.repeat(model_id, n),
            pa.ListArray.from_arrays(pa.array(np.arange(n + 1, dtype=np.int32) * dim), unit.ravel()),
        ]
        yield pa.RecordBatch.from_arrays(columns, schema=_UNIT)
        count(n)


def _checked(embeddings: pa.Array, dim: int) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """(good, dim) values of those that can be used; and for each of all the reason why it can't be, or None."""
    sizes = pc.fill_null(pc.list_value_length(embeddings), -1).to_numpy(zero_copy_only=False)
    whole = sizes == dim
    flat = (embeddings if whole.all() else embeddings.filter(pa.array(whole))).flatten()
    values = flat.to_numpy(zero_copy_only=False).astype(np.float32, copy=False).reshape(-1, dim)
    usable = np.isfinite(values).all(axis=1) & values.any(axis=1)
    refusals = np.full(len(sizes), None, object)
    refusals[np.flatnonzero(whole)[~usable]] = reasons.EMBEDDING_UNUSABLE.text
    for place in np.flatnonzero(~whole):
        size = sizes[place]
        refusals[place] = (
            reasons.NO_EMBEDDING.text if size < 0 else reasons.EMBEDDING_OF_OTHER_SIZE.filled(size=size, dim=dim)
        )
    return values if usable.all() else values[usable], refusals


def _hashes(values: NDArray[np.float32]) -> list[str]:
    """sha256 of each row's bytes, hex."""
    if not len(values):  # of which there is no view as bytes
        return []
    data = memoryview(np.ascontiguousarray(values).data).cast("B")
    size = values.shape[1] * values.itemsize
    return [hashlib.sha256(data[start : start + size]).hexdigest() for start in range(0, len(data), size)]
