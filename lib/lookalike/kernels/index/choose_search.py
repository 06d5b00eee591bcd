"""How wide to search a version's shards: `nprobe` and candidates, chosen by knn_recall@10 on held-out gallery queries.

Queries are random gallery images, each left out of its own results. Exact search of the same images is the truth.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import faiss
import numpy as np

from lookalike.config import IndexSettings
from lookalike.kernels.evaluation.metrics import knn_recall
from lookalike.kernels.index.search import SearchSpec, find_candidates, to_float32
from lookalike.kernels.index.shards import Float32s, Int64s, Shard
from lookalike.kernels.index.spec import IndexSpec

QUERIES = 500  # random gallery images that the search is chosen by
MOST_CANDIDATES = 8  # times as many candidates as set are taken where the codes are too coarse for fewer
LEAST_GAIN = 0.001  # of recall, for which a search is made twice as wide
K = 10  # the k of knn_recall@10
BLOCK_ROWS = 65_536  # rows of a shard held as float32 at once


def choose_exact_search(images: int, products: int, settings: IndexSettings) -> tuple[SearchSpec, float | None]:
    """The search of an exact index, and its knn_recall@10. An exact index misses nothing, so nothing is measured."""
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
    recall = sample.measure(search)
    if recall is None or not spec.nlist:
        return search, recall
    most = least * MOST_CANDIDATES
    while recall < settings.knn_recall_target:
        wider = [
            SearchSpec(min(search.nprobe * 2, spec.nlist), search.candidates),
            SearchSpec(search.nprobe, min(search.candidates * 2, most)),
        ]
        best = max(wider, key=sample.measure_recall)
        if sample.measure_recall(best) < recall + LEAST_GAIN:
            return search, recall
        search, recall = best, sample.measure_recall(best)
    too_few = search.nprobe // 2
    while search.nprobe - too_few > max(1, search.nprobe // 8):
        middle = SearchSpec((too_few + search.nprobe) // 2, search.candidates)
        if sample.measure_recall(middle) < settings.knn_recall_target:
            too_few = middle.nprobe
        else:
            search, recall = middle, sample.measure_recall(middle)
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
            [to_float32(s.vectors[rows[(rows >= o) & (rows < o + s.images)] - o]) for s, o in _add_offsets(shards)]
        )
        truth = np.full((len(rows), K), -np.inf, np.float32)
        for shard, offset in _add_offsets(shards):
            for start in range(0, shard.images, BLOCK_ROWS):
                block = to_float32(shard.vectors[start : start + BLOCK_ROWS])
                scores, nearest = faiss.knn(
                    embeddings, block, min(K + 1, len(block)), metric=faiss.METRIC_INNER_PRODUCT
                )
                scores[nearest + start + offset == rows[:, None]] = -np.inf
                truth = _keep_best(np.hstack([truth, scores]))
        return cls(shards, rows, embeddings, truth)

    def measure(self, search: SearchSpec) -> float | None:
        """Mean knn_recall@10; None where no query has a neighbour."""
        return self.measure_recall(search) if np.isfinite(self.truth).any() else None

    def measure_recall(self, search: SearchSpec) -> float:
        parts = []
        for shard, offset in _add_offsets(self.shards):
            count = min(search.candidates, shard.images)
            rows, scores = find_candidates(shard, self.embeddings, count, search.nprobe)
            scores[(rows < 0) | (rows + offset == self.rows[:, None])] = -np.inf
            parts.append(scores)
        return float(knn_recall(_keep_best(np.hstack(parts)), self.truth, K).mean())


def _add_offsets(shards: Sequence[Shard]) -> Iterable[tuple[Shard, int]]:
    """Each shard with the rows of those before it."""
    offsets = np.cumsum([0] + [shard.images for shard in shards])
    return zip(shards, offsets[:-1].tolist(), strict=True)


def _keep_best(scores: Float32s) -> Float32s:
    """(q, <= K) best scores, falling."""
    return -np.sort(-scores, axis=1)[:, :K]
