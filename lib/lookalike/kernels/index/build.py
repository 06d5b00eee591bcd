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
TRAIN_ROUNDS = 6  # of k-means; ten took longer and found no more
ERROR_IMAGES = 10_000  # images of the training sample whose quantization error is measured
PACK_BYTES = 2**24  # of float16 vectors and ids in a pack, roughly: what a reader of one of its categories fetches


def empty_index(spec: IndexSpec, dim: int) -> Any:
    """A FAISS index of inner product, untrained."""
    return faiss.index_factory(dim, spec.factory, faiss.METRIC_INNER_PRODUCT)


def train(spec: IndexSpec, sample: Float32s, seed: int) -> Any:
    """An empty index, trained on a random `sample` (n, dim)."""
    index = empty_index(spec, sample.shape[1])
    index.cp.seed = seed
    index.cp.niter = TRAIN_ROUNDS
    if spec.pq_m:
        index.pq.cp.niter = TRAIN_ROUNDS
    # Its own warning counts on 39 images per centroid, whatever was asked for.
    index.cp.min_points_per_centroid = 1
    index.train(sample)
    return index


def quantization_error(index: Any, vectors: Float32s) -> float:
    """Mean squared distance of `vectors` (n, dim) from what the codes of a trained `index` keep of them."""
    some = vectors[:ERROR_IMAGES]
    kept = index.sa_decode(index.sa_encode(some))
    return float(np.square(kept - some).sum(axis=1).mean(dtype=np.float64))


def fill(index: Any, batches: Iterable[pa.RecordBatch]) -> ShardRows:
    """Add to `index` the images of `batches`, and return them as the rows of its shard.

    The columns are product_id, image_id, vector_id, available, and embedding: a list of dim float32, L2-normalised.
    """
    return shard_rows(pa.concat_tables(_add(index, block) for block in _one_ahead(_blocks(batches, ADD_IMAGES))))


def with_halves(batches: Iterable[pa.RecordBatch]) -> pa.Table:
    """The rows of `batches` with float16 vectors instead of their embeddings, which are never all in memory."""
    return pa.concat_tables(_with_halves(block, embeddings_of(block)) for block in _blocks(batches, ADD_IMAGES))


def shard_rows(table: pa.Table) -> ShardRows:
    """A table of `with_halves` as the rows of a shard."""
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


def _add(index: Any, block: pa.Table) -> pa.Table:
    """The block as `_with_halves` gives it; `index` has its embeddings now."""
    embeddings = embeddings_of(block)
    index.add_with_ids(embeddings, block["vector_id"].to_numpy())
    return _with_halves(block, embeddings)


def _with_halves(block: pa.Table, embeddings: Float32s) -> pa.Table:
    """The block with float16 vectors instead of its embeddings."""
    halves = embeddings.astype(np.float16)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(halves.ravel()), halves.shape[1])
    return block.drop_columns("embedding").append_column("vector", vectors)


def _one_ahead(blocks: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The same blocks, each of which arrives while the one before it is worked on."""
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(next, blocks, None)
        while (block := coming.result()) is not None:
            coming = reader.submit(next, blocks, None)
            yield block


def _blocks(batches: Iterable[pa.RecordBatch], images: int) -> Iterator[pa.Table]:
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(b.num_rows for b in held) >= images:
            yield pa.Table.from_batches(held)
            held = []
    if held:
        yield pa.Table.from_batches(held)


def embeddings_of(rows: pa.Table) -> Float32s:
    """(n, dim) embeddings of a table's column `embedding`."""
    lists: list[Any] = rows["embedding"].chunks
    chunks = [chunk.flatten().to_numpy() for chunk in lists]
    return np.ascontiguousarray(np.concatenate(chunks).reshape(rows.num_rows, -1))
