"""Query photos on their way to embeddings: read, limited, decoded and embedded as the catalog's images are.

Nothing of a query photo is kept: neither its bytes nor its embedding. A job stores what it found for it, and no more.
A content that the catalog has embedded is not embedded again.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lookalike import files, schemas
from lookalike.spark.contents.embed_pictures import EmbedJob, Pictures, embed_apart
from lookalike.spark.contents.given_embeddings import unit_embeddings
from lookalike.spark.progress import progress_bars
from lookalike.spark.run import Run
from lookalike.spark.tables import make_local_frame

EMBEDDED_QUERIES = pa.schema(
    [
        pa.field("key", pa.string()),
        pa.field("content_hash", pa.string()),
        pa.field("embedding", schemas.EMBEDDING),
        pa.field("reason", pa.string()),
    ]
)
"""A query's content and embedding, or the reason for none."""


@contextmanager
def embed_photos(run: Run, photos: DataFrame, carried: DataFrame, model_id: str) -> Iterator[DataFrame]:
    """EMBEDDED_QUERIES of each of `photos` (key, uri, content_hash), for as long as the block runs.

    A photo without uri carries its bytes: `carried` (key, content) has them, and content_hash is theirs.
    """
    staging = files.join(run.settings.root, "staging", run.run_id, "queries", model_id)
    total = photos.count()
    if not total:
        yield make_local_frame(run.spark, [], EMBEDDED_QUERIES)
        return
    try:
        bars = {"read queries": total, "embed queries": total}
        with progress_bars(run.console, run.spark.sparkContext, bars) as (count_read, count_embedded):
            pictures = Pictures.by_hash(photos, carried, total, run.settings.embed)
            job = EmbedJob(run.settings, model_id, staging, count_read, count_embedded)
            rows = embed_apart(pictures, run.tables.read("embeddings"), job)
        yield rows
    finally:
        files.remove(staging)


def embed_given(given: DataFrame, wanted: DataFrame, dim: int, model_id: str) -> DataFrame:
    """EMBEDDED_QUERIES of queries that bring their embedding, L2-normalised.

    `given` (key, embedding); `wanted` (key, content_hash), as `hash_embeddings` hashed them.
    """
    unit = unit_embeddings(given, wanted, dim, model_id, uncounted).select("content_hash", "embedding")
    return wanted.join(unit, "content_hash").select(
        "key", "content_hash", "embedding", F.lit(None).cast("string").alias("reason")
    )


def uncounted(_images: int) -> None:
    """Where no progress is shown."""
