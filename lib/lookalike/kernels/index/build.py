"""Build the index of a category: train it on a random sample, fill it with a shard's images.

Goes in: a random sample of embeddings, and each shard's rows. Comes out: FAISS indexes whose ids are `vector_id`s. All
shards of a version are clones of one trained index.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import faiss
import numpy as np
import pyarrow as pa

from lookalike.kernels.index.shards import Float32s, ShardRows
from lookalike.kernels.index.spec import IndexSpec

ADD_IMAGES = 32_768  # images added to an index at once
TRAIN_ROUNDS = 6  # of k-means; ten take longer, and recall stays the same
ERROR_IMAGES = 10_000  # images of the training sample whose quantization error is measured
PACK_BYTES = 2**24  # of float16 vectors and ids in a pack, roughly: what a reader of one of its categories fetches


def create_index(spec: IndexSpec, dim: int) -> Any:
    """A FAISS index of inner product, untrained."""
    return faiss.index_factory(dim, spec.factory, faiss.METRIC_INNER_PRODUCT)


def train_index(spec: IndexSpec, sample: Float32s, seed: int) -> Any:
    """An empty index, trained on a random `sample` (n, dim)."""
    index = create_index(spec, sample.shape[1])
    index.cp.seed = seed
    index.cp.niter = TRAIN_ROUNDS
    if spec.pq_m:
        index.pq.cp.niter = TRAIN_ROUNDS
    # FAISS warns of fewer than 39 images per centroid; the sample's size is a setting here.
    index.cp.min_points_per_centroid = 1
    index.train(sample)
    return index


def measure_quantization_error(index: Any, vectors: Float32s) -> float:
    """Mean squared distance of `vectors` (n, dim) from what the codes of a trained `index` decode to."""
    some = vectors[:ERROR_IMAGES]
    decoded = index.sa_decode(index.sa_encode(some))
    return float(np.square(decoded - some).sum(axis=1).mean(dtype=np.float64))


def fill_index(index: Any, batches: Iterable[pa.RecordBatch]) -> ShardRows:
    """Add to `index` the images of `batches`, and return them as the rows of its shard.

    The columns are product_id, image_id, vector_id, available, and embedding: a list of dim float32, L2-normalised.
    """
    return to_shard_rows(
        pa.concat_tables(_add_block(index, block) for block in _read_ahead(_group_batches(batches, ADD_IMAGES)))
    )


def to_halves(batches: Iterable[pa.RecordBatch]) -> pa.Table:
    """The rows of `batches` with float16 vectors instead of their embeddings, of which one block is in memory."""
    return pa.concat_tables(_to_halves(block, stack_embeddings(block)) for block in _group_batches(batches, ADD_IMAGES))


def to_shard_rows(table: pa.Table) -> ShardRows:
    """A table of `to_halves` as the rows of a shard."""
    rows = table.combine_chunks()
    columns: dict[str, Any] = {name: rows[name].chunk(0) for name in rows.column_names}
    vectors = columns["vector"].values.to_numpy().reshape(rows.num_rows, -1)
    return ShardRows(
        columns["vector_id"].to_numpy(),
        columns["product_id"],
        columns["image_id"],
        columns["available"].to_numpy(zero_copy_only=False),
        vectors,
    )


def _add_block(index: Any, block: pa.Table) -> pa.Table:
    """Add the block's embeddings to `index`, and return the block with halves instead."""
    embeddings = stack_embeddings(block)
    index.add_with_ids(embeddings, block["vector_id"].to_numpy())
    return _to_halves(block, embeddings)


def _to_halves(block: pa.Table, embeddings: Float32s) -> pa.Table:
    """The block with float16 vectors instead of its embeddings."""
    halves = embeddings.astype(np.float16)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(halves.ravel()), halves.shape[1])
    return block.drop_columns("embedding").append_column("vector", vectors)


def _read_ahead(blocks: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The same blocks, each read while the caller works on the one before it."""
    with ThreadPoolExecutor(1) as reader:
        following = reader.submit(next, blocks, None)
        while (block := following.result()) is not None:
            following = reader.submit(next, blocks, None)
            yield block


def _group_batches(batches: Iterable[pa.RecordBatch], images: int) -> Iterator[pa.Table]:
    """Tables of at least `images` rows, but for the last one."""
    group: list[pa.RecordBatch] = []
    for batch in batches:
        group.append(batch)
        if sum(b.num_rows for b in group) >= images:
            yield pa.Table.from_batches(group)
            group = []
    if group:
        yield pa.Table.from_batches(group)


def stack_embeddings(rows: pa.Table) -> Float32s:
    """(n, dim) embeddings of a table's column `embedding`."""
    lists: list[Any] = rows["embedding"].chunks
    chunks = [chunk.flatten().to_numpy() for chunk in lists]
    return np.ascontiguousarray(np.concatenate(chunks).reshape(rows.num_rows, -1))
