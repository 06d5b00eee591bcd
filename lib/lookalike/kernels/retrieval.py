"""How good the answers to query photos are: exact search, and per query the figures of its ranking.

In: L2-normalised embeddings (q, dim) and (n, dim), and a label for each row as an integer code; a gallery image is
relevant where its label is the query's. Out: one number per query. recall@k is 1 where one of the k nearest is
relevant, so recall@1 is precision@1 too. MAP@R is Musgrave et al., "A Metric Learning Reality Check", 2020; NDCG is
Jarvelin and Kekalainen, 2002, with binary gains.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lookalike.kernels.metrics import TIE, Codes, Floats

Bools = NDArray[np.bool_]
Figures = NDArray[np.float64]

NO_LABEL = -1
"""The code of a row without a label: it is relevant to no query, and as a query it is left out."""

_QUERY_ROWS = 256
_GALLERY_ROWS = 65_536


@dataclass(frozen=True)
class Ranking:
    """The nearest gallery images of each query that has a relevant one, best first."""

    queries: Codes  # (m,) rows of the queries that have a relevant image
    relevant: Bools  # (m, depth) whether the image at each place is relevant
    total: Codes  # (m,) how many images of the whole gallery are


def ranked(
    queries: NDArray[Any],
    gallery: NDArray[Any],
    query_labels: Codes,
    gallery_labels: Codes,
    own_rows: Codes,
    depth: int,
) -> Ranking:
    """Search `gallery` (n, dim) exactly for each of `queries` (q, dim), and see which answers are relevant.

    `own_rows` (q,) are the rows of the gallery that are the query itself and are left out, -1 where it holds none. An
    irrelevant image that ties with a relevant one goes first, so that copies of one picture never look like success.
    """
    has_own = own_rows >= 0
    total = _counts(gallery_labels, query_labels)
    total[has_own] -= gallery_labels[own_rows[has_own]] == query_labels[has_own]
    asked = np.flatnonzero((query_labels != NO_LABEL) & (total > 0))
    depth = min(depth, len(gallery))
    relevant = np.zeros((len(asked), depth), bool)
    for start in range(0, len(asked), _QUERY_ROWS):
        rows = asked[start : start + _QUERY_ROWS]
        found = _nearest(
            queries[rows].astype(np.float32), gallery, query_labels[rows], gallery_labels, own_rows[rows], depth
        )
        relevant[start : start + len(rows)] = found
    return Ranking(asked, relevant, total[asked])


def _counts(labels: Codes, wanted: Codes) -> Codes:
    """(q,) how often each of `wanted` occurs in `labels`."""
    ordered = np.sort(labels)
    return np.asarray(np.searchsorted(ordered, wanted, side="right") - np.searchsorted(ordered, wanted, side="left"))


def _nearest(
    queries: Floats, gallery: NDArray[Any], query_labels: Codes, gallery_labels: Codes, own_rows: Codes, depth: int
) -> Bools:
    """(q, depth) whether each of the nearest is relevant; what a short gallery lacks is not."""
    scores = np.full((len(queries), depth), -np.inf, np.float32)
    relevant = np.zeros((len(queries), depth), bool)
    for start in range(0, len(gallery), _GALLERY_ROWS):
        block = slice(start, start + _GALLERY_ROWS)
        more = queries @ gallery[block].astype(np.float32).T
        theirs = query_labels[:, None] == gallery_labels[None, block]
        more[theirs] -= TIE
        here = np.flatnonzero((own_rows >= start) & (own_rows < start + more.shape[1]))
        more[here, own_rows[here] - start] = -np.inf
        theirs[here, own_rows[here] - start] = False
        scores = np.concatenate([scores, more], axis=1)
        relevant = np.concatenate([relevant, theirs], axis=1)
        top = np.argpartition(-scores, depth - 1, axis=1)[:, :depth]
        scores, relevant = (np.take_along_axis(values, top, axis=1) for values in (scores, relevant))
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.take_along_axis(relevant, order, axis=1)


def recall_at(ranking: Ranking, k: int) -> Figures:
    """(m,) 1 where one of the k nearest is relevant, else 0."""
    return np.asarray(ranking.relevant[:, :k].any(axis=1), np.float64)


def average_precision_at_r(ranking: Ranking) -> Figures:
    """(m,) mean over the first R places of the precision at each relevant one; R is how many are relevant.

    Of more than `depth` relevant images, as many as `depth` are asked for.
    """
    depth = ranking.relevant.shape[1]
    wanted = np.minimum(ranking.total, depth)
    places = np.arange(1, depth + 1)
    counted = ranking.relevant & (places <= wanted[:, None])
    precision = np.cumsum(ranking.relevant, axis=1) / places
    return np.asarray((precision * counted).sum(axis=1) / wanted, np.float64)


def ndcg_at(ranking: Ranking, k: int) -> Figures:
    """(m,) discounted gain of the first k places against that of the best order."""
    discounts = 1 / np.log2(np.arange(2, min(k, ranking.relevant.shape[1]) + 2))
    best = np.concatenate([[0], np.cumsum(1 / np.log2(np.arange(2, k + 2)))])
    gain = ranking.relevant[:, : len(discounts)] @ discounts
    return np.asarray(gain / best[np.minimum(ranking.total, k)], np.float64)
