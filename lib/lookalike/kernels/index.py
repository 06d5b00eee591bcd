"""The index of a category: which one by its size, training, filling, and how many lists to scan.

Goes in: sizes, a random sample of embeddings, and each shard's rows. Comes out: FAISS indexes whose ids are
`vector_id`s. All shards of a version are clones of one trained index. 4-bit product quantizers with fast scan are from
André, Kermarrec, Le Scouarnec, "Quicker ADC" (2019); the rest is FAISS's inverted file (Jégou, Douze, Schmid 2011).
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import faiss
import numpy as np
import pyarrow as pa

from lookalike.config import IndexSettings
from lookalike.kernels.metrics import knn_recall
from lookalike.kernels.search import SearchSpec, as_float32, candidates
from lookalike.kernels.shards import Float32s, Int64s, Shard, ShardRows

LEAST_IVF_IMAGES = 256  # fewer can't train a quantizer
LEAST_TRAIN_IMAGES = (
    1_024  # random sample for a small category; FAISS asks for 39 images per centroid of a sub-quantizer
)
LIST_IMAGES = 300  # images per list at least; from about 1,400,000 images on, lists grow with their number
SUBQUANTIZER_DIMS = 4  # dimensions of a 4-bit sub-quantizer at most, as long as MAX_SUBQUANTIZERS lasts
MAX_SUBQUANTIZERS = 128
SHARD_VECTOR_BYTES = 2**30  # float16 vectors in a shard at most, so that a task can hold them
ROW_BYTES = 64  # of a row's ids in the vectors file, roughly
ADD_IMAGES = 32_768  # images added to an index at once
TRAIN_ROUNDS = 6  # of k-means; ten took longer and found no more
QUERIES = 500  # random gallery images that the search is chosen by
MOST_CANDIDATES = 8  # times as many candidates as set are taken where the codes are too coarse for fewer
LEAST_GAIN = 0.001  # of recall, for which a search is made twice as wide
ERROR_IMAGES = 10_000  # images of the training sample whose quantization error is measured
PACK_BYTES = 2**24  # of float16 vectors and ids in a pack, roughly: what a reader of one of its categories fetches
PACKED = "SQfp16"  # the vectors as they stand
K = 10  # the k of knn_recall@10
BLOCK_ROWS = 65_536  # rows of a shard held as float32 at once


@dataclass(frozen=True)
class IndexSpec:
    """What will be built for a category."""

    kind: Literal["exact", "ivf_sq8", "ivf_pq"]
    packed: bool  # shares a file with other categories, which is searched as it stands
    factory: str  # FAISS index factory string; in a pack, of what a reader makes of the vectors
    nlist: int  # 0 for an exact index
    pq_m: int  # 0 without product quantizer
    shards: int
    train_images: int  # random sample that trains; 0 for an exact index
    size_bytes: int  # of all files, estimated


def index_spec(images: int, dim: int, settings: IndexSettings) -> IndexSpec:
    """The index for a category of `images` embeddings of `dim` dimensions."""
    shards = max(math.ceil(images / settings.shard_images), math.ceil(images * dim * 2 / SHARD_VECTOR_BYTES))
    vector_bytes = images * (dim * 2 + ROW_BYTES)
    if images < max(settings.exact_below, LEAST_IVF_IMAGES):
        if shards == 1 and images < settings.pack_below:
            return IndexSpec("exact", True, PACKED, 0, 0, 1, 0, vector_bytes)
        return IndexSpec("exact", False, "IDMap,Flat", 0, 0, shards, 0, images * (dim * 4 + 8) + vector_bytes)
    nlist = 2 ** round(math.log2(min(images / LIST_IMAGES, 4 * math.sqrt(images))))
    train_images = min(images, max(nlist * settings.train_images_per_list, LEAST_TRAIN_IMAGES))
    other_bytes = images * 8 + shards * nlist * dim * 4 + vector_bytes
    if images <= settings.pq_above:
        return IndexSpec(
            "ivf_sq8", False, f"IVF{nlist},SQ8", nlist, 0, shards, train_images, images * dim + other_bytes
        )
    m = subquantizers(dim)
    return IndexSpec(
        "ivf_pq", False, f"IVF{nlist},PQ{m}x4fsr", nlist, m, shards, train_images, images * m // 2 + other_bytes
    )


def subquantizers(dim: int) -> int:
    """The least divisor of `dim` that leaves each 4-bit sub-quantizer few dimensions."""
    least = min(math.ceil(dim / SUBQUANTIZER_DIMS), MAX_SUBQUANTIZERS)
    return next(m for m in range(least, dim + 1) if dim % m == 0)


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


def exact_search(images: int, products: int, settings: IndexSettings) -> tuple[SearchSpec, float | None]:
    """What `choose_search` finds for an exact index, which misses nothing, without a look at it."""
    return SearchSpec(0, settings.candidates * math.ceil(images / products)), 1.0 if images > 1 else None


def choose_search(
    shards: Sequence[Shard], spec: IndexSpec, settings: IndexSettings, sample: "Sample | None" = None
) -> tuple[SearchSpec, float | None]:
    """The narrowest search, roughly, that reaches the target of knn_recall@10, and the knn_recall@10 measured with it.

    Queries are random gallery images, each left out of its own results; neighbours are images, after the exact re-rank.
    It begins with settings.candidates for each image that a product has on average, so that they are of many products.
    Each step doubles the lists or the candidates, whichever gains more, until the target is reached or neither gains.
    Without a neighbour to find (one image), nothing is measured: None. A `sample` of these shards saves drawing it.
    """
    sample = sample or Sample.of(shards, settings.seed)
    images_per_product = math.ceil(sum(s.images for s in shards) / sum(s.products for s in shards))
    least = settings.candidates * images_per_product
    search = SearchSpec(min(1, spec.nlist), least)
    recall = sample.recall(search)
    if recall is None or not spec.nlist:
        return search, recall
    most = least * MOST_CANDIDATES
    while recall < settings.knn_recall_target:
        wider = [
            SearchSpec(min(search.nprobe * 2, spec.nlist), search.candidates),
            SearchSpec(search.nprobe, min(search.candidates * 2, most)),
        ]
        best = max(wider, key=sample.recall_of)
        if sample.recall_of(best) < recall + LEAST_GAIN:
            return search, recall
        search, recall = best, sample.recall_of(best)
    too_few = search.nprobe // 2
    while search.nprobe - too_few > max(1, search.nprobe // 8):
        middle = SearchSpec((too_few + search.nprobe) // 2, search.candidates)
        if sample.recall_of(middle) < settings.knn_recall_target:
            too_few = middle.nprobe
        else:
            search, recall = middle, sample.recall_of(middle)
    return search, recall


@dataclass(frozen=True)
class Sample:
    """Random gallery images as queries, and the truth about them."""

    shards: Sequence[Shard]
    rows: Int64s  # (q,) rows of the gallery, counted through all shards
    embeddings: Float32s  # (q, dim)
    truth: Float32s  # (q, K) scores of the nearest images by exact search, -inf where there are fewer

    @classmethod
    def of(cls, shards: Sequence[Shard], seed: int) -> "Sample":
        images = sum(shard.images for shard in shards)
        rows = np.random.default_rng(seed).choice(images, min(QUERIES, images), replace=False)
        rows.sort()
        embeddings = np.concatenate(
            [as_float32(s.vectors[rows[(rows >= o) & (rows < o + s.images)] - o]) for s, o in _with_offsets(shards)]
        )
        truth = np.full((len(rows), K), -np.inf, np.float32)
        for shard, offset in _with_offsets(shards):
            for start in range(0, shard.images, BLOCK_ROWS):
                block = as_float32(shard.vectors[start : start + BLOCK_ROWS])
                scores, found = faiss.knn(embeddings, block, min(K + 1, len(block)), metric=faiss.METRIC_INNER_PRODUCT)
                scores[found + start + offset == rows[:, None]] = -np.inf
                truth = _top(np.hstack([truth, scores]))
        return cls(shards, rows, embeddings, truth)

    def recall(self, search: SearchSpec) -> float | None:
        """Mean knn_recall@10; None where no query has a neighbour."""
        return self.recall_of(search) if np.isfinite(self.truth).any() else None

    def recall_of(self, search: SearchSpec) -> float:
        found = []
        for shard, offset in _with_offsets(self.shards):
            count = min(search.candidates, shard.images)
            rows, scores = candidates(shard, self.embeddings, count, search.nprobe)
            scores[(rows < 0) | (rows + offset == self.rows[:, None])] = -np.inf
            found.append(scores)
        return float(knn_recall(_top(np.hstack(found)), self.truth, K).mean())


def _with_offsets(shards: Sequence[Shard]) -> Iterable[tuple[Shard, int]]:
    """Each shard with the rows of those before it."""
    offsets = np.cumsum([0] + [shard.images for shard in shards])
    return zip(shards, offsets[:-1].tolist(), strict=True)


def _top(scores: Float32s) -> Float32s:
    """(q, <= K) best scores, falling."""
    return -np.sort(-scores, axis=1)[:, :K]
