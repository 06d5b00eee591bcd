"""How good a catalog is: knn_recall@k (what ANN lost), recall@k (what shoppers see), and their confidence intervals.

In: L2-normalised vectors (n, dim), float16 or float32, in memory or memory-mapped, and the product of each row as an
integer code, equal where the product is. Out: one number per query. Everything goes through the gallery in blocks, so
memory stays below about 150 MB whatever n is, but for a few integers a row.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Codes = NDArray[np.integer[Any]]

TIE = 1e-6
"""Scores closer than this are equal: float32 sums of the same products differ by about 1e-7 with their order."""

_QUERY_ROWS = 512
_GALLERY_ROWS = 8192


def knn_recall(scores: Floats, truth: Floats, k: int) -> NDArray[np.float64]:
    """Share of each query's true k nearest neighbours that a search returned, ties counted as returned.

    `scores` (q, >= 0) of the search and `truth` (q, >= k) are best first, padded with -inf. A neighbour counts if its
    score reaches the k-th true one, as in big-ann-benchmarks: of equal neighbours, either will do. A query with fewer
    than k true neighbours is measured by those; one with none is left out, so the result is (<= q,).
    """
    truth = truth[:, :k]
    expected = np.isfinite(truth).sum(axis=1)
    counts = expected > 0
    least = truth[counts, expected[counts] - 1]
    hits = (scores[counts, :k] >= least[:, None] - TIE).sum(axis=1)
    return np.asarray(np.minimum(hits, expected[counts]) / expected[counts])


def search_exactly(
    vectors: NDArray[Any], products: Codes, available: NDArray[np.bool_], queries: Codes, k: int
) -> tuple[Codes, Floats]:
    """The k nearest available other products of each query product, by brute force: the truth for `knn_recall`.

    `vectors` (n, dim), `products` (n,), `available` (n,), `queries` (q,): codes that occur in `products`. Two products
    are as similar as their most similar pair of images. Gives products (q, k), padded with -1, and scores (q, k),
    padded with -inf, best first.
    """
    q, n = len(queries), len(products)
    by_product = np.argsort(products, kind="stable")
    gallery = by_product[np.asarray(available, dtype=bool)[by_product]]
    nearest = np.full((q, k), -1, dtype=np.int64)
    scores = np.full((q, k), -np.inf, dtype=np.float32)
    first = np.searchsorted(products, queries, side="left", sorter=by_product)
    last = np.searchsorted(products, queries, side="right", sorter=by_product)
    if np.any(first == last):
        raise ValueError(f"query products without images: {queries[first == last][:5].tolist()}, of {n} images")
    for some in _split_queries(last - first):
        rows = np.concatenate([by_product[a:b] for a, b in zip(first[some], last[some], strict=True)])
        starts = np.concatenate([[0], np.cumsum(last[some] - first[some])[:-1]])
        images = vectors[rows].astype(np.float32)
        for block, block_starts in _split_products(products, gallery):
            pairs = vectors[block].astype(np.float32) @ images.T  # (gallery images, query images)
            pairs = np.maximum.reduceat(pairs, block_starts, axis=0)  # (gallery products, query images)
            best = np.maximum.reduceat(pairs, starts, axis=1)  # (gallery products, query products)
            codes = products[block[block_starts]]
            np.minimum(best, 1, out=best)  # float16 vectors are not quite of length 1
            best[codes[:, None] == queries[None, some]] = -np.inf
            nearest[some], scores[some] = _merge_top(nearest[some], scores[some], codes, best.T)
    return nearest, scores


def recall_at_k(
    vectors: NDArray[Any], products: Codes, ks: Sequence[int], rows: Codes | None = None
) -> dict[int, NDArray[np.bool_]]:
    """Whether each query image finds another image of its product among its k nearest images, itself left out.

    `vectors` (n, dim) are the gallery and `products` (n,) its products; the queries are the gallery's `rows` (all by
    default) whose product has another image. Gives one flag per query and k; their mean is recall@k. Ties count
    against the model: an image of another product ranks above the right one of equal score, so that copies of one
    picture never look like success.
    """
    rows = np.arange(len(products)) if rows is None else rows
    rows, best = _score_same_product(vectors, products, rows)
    ahead = np.zeros(len(rows), dtype=np.int64)
    for q in range(0, len(rows), _QUERY_ROWS):
        some = slice(q, q + _QUERY_ROWS)
        images = vectors[rows[some]].astype(np.float32)
        for g in range(0, len(products), _GALLERY_ROWS):
            block = slice(g, g + _GALLERY_ROWS)
            scores = images @ vectors[block].astype(np.float32).T  # (query images, gallery images)
            others = products[rows[some], None] != products[None, block]
            ahead[some] += ((scores >= best[some, None] - TIE) & others).sum(axis=1)
    return {k: ahead < k for k in ks}


def confidence_interval(values: NDArray[Any]) -> tuple[float, float]:
    """95 % confidence interval of the mean of `values` (n,), each in [0, 1]."""
    return wilson_interval(float(np.mean(values, dtype=np.float64)) if len(values) else 0.0, len(values))


def wilson_interval(p: float, n: int) -> tuple[float, float]:
    """95 % confidence interval of a mean p of n values, each in [0, 1].

    Wilson's score interval (Wilson 1927), which stays inside [0, 1] and is wider than a point even where all values
    agree. Made for 0/1 values; for fractions it errs on the wide side, as no variable in [0, 1] with mean p has more
    variance than p (1 - p) (Bhatia and Davis 2000).
    """
    if n == 0:
        raise ValueError("no values, so there is no interval")
    z = 1.959964  # two-sided 95 % point of the normal distribution
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, round(centre - half, 12)), min(1.0, round(centre + half, 12))  # 1 and 0 are ends, and not nearly


def _split_queries(images: Codes) -> Iterator[slice]:
    """Runs of query products with about _QUERY_ROWS images together; `images` (q,) counts each one's."""
    start, held = 0, 0
    for i, count in enumerate(images.tolist()):
        if held and held + count > _QUERY_ROWS:
            yield slice(start, i)
            start, held = i, 0
        held += count
    if held:
        yield slice(start, len(images))


def _split_products(products: Codes, gallery: Codes) -> Iterator[tuple[Codes, Codes]]:
    """`gallery` rows, sorted by product, in blocks that cut no product, each with where its products start."""
    codes = products[gallery]
    starts = np.flatnonzero(np.r_[len(codes) > 0, codes[1:] != codes[:-1]])
    ends = np.r_[starts[1:], len(codes)]
    i = 0
    while i < len(starts):
        j = max(i + 1, int(np.searchsorted(ends, starts[i] + _GALLERY_ROWS, side="right")))
        yield gallery[starts[i] : ends[j - 1]], starts[i:j] - starts[i]
        i = j


def _merge_top(nearest: Codes, scores: Floats, codes: Codes, more: Floats) -> tuple[Codes, Floats]:
    """The best k of `nearest` (q, k) with `scores` and of `codes` (p,) with the scores `more` (q, p), best first."""
    k = scores.shape[1]
    scores = np.concatenate([scores, more], axis=1)
    nearest = np.concatenate([nearest, np.broadcast_to(codes, more.shape)], axis=1)
    top = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    order = np.argsort(-np.take_along_axis(scores, top, axis=1), axis=1, kind="stable")
    top = np.take_along_axis(top, order, axis=1)
    scores = np.take_along_axis(scores, top, axis=1)
    return np.where(np.isfinite(scores), np.take_along_axis(nearest, top, axis=1), -1), scores


def _score_same_product(vectors: NDArray[Any], products: Codes, rows: Codes) -> tuple[Codes, Floats]:
    """Those `rows` whose product has another image, and each one's best score among its product's other images."""
    by_product = np.argsort(products, kind="stable")
    first = np.searchsorted(products, products[rows], side="left", sorter=by_product)
    last = np.searchsorted(products, products[rows], side="right", sorter=by_product)
    several = last - first > 1
    rows = rows[several]
    best = np.empty(len(rows), dtype=np.float32)
    for i, (a, b) in enumerate(zip(first[several], last[several], strict=True)):
        others = by_product[a:b]
        others = others[others != rows[i]]
        best[i] = np.max(vectors[others].astype(np.float32) @ vectors[rows[i]].astype(np.float32))
    return rows, best
