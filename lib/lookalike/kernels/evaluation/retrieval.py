"""How good the answers to query photos are: exact search in blocks, and per query the figures of its ranking.

In: L2-normalised embeddings (q, dim) and (n, dim), and labels of each row as integer codes; a gallery image is
relevant where its label is the query's. Out: one number per query. recall@k is 1 where the first relevant image is at
place k or before, so recall@1 is precision@1 too. MAP@R is Musgrave et al., "A Metric Learning Reality Check", 2020;
NDCG is Jarvelin and Kekalainen, 2002, with binary gains.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lookalike.kernels.evaluation.metrics import TIE, Codes, Floats

Bools = NDArray[np.bool_]
Figures = NDArray[np.float64]

NO_LABEL = -1
"""The code of a row without a label: it is relevant to no query, and as a query it finds nothing."""

_QUERY_ROWS = 256


@dataclass(frozen=True)
class Block:
    """Rows of the gallery. `own_queries` and `own_rows` (p,) pair each query with the rows that it is itself."""

    embeddings: NDArray[Any]  # (n, dim)
    labels: Sequence[Codes]  # (n,) for each kind of label
    own_queries: Codes
    own_rows: Codes


class NearestImages:
    """The nearest gallery images of each query by one kind of label, among the blocks seen so far."""

    def __init__(self, labels: Codes, depth: int) -> None:
        q = len(labels)
        self.labels = labels  # (q,)
        self.scores: Floats = np.full(
            (q, depth), -np.inf, np.float32
        )  # best first; TIE is taken off relevant ones, so that they lose ties
        self.relevant: Bools = np.zeros((q, depth), bool)
        self.rows: Codes = np.full((q, depth), -1)  # in the order in which the gallery came; -1 where there is none
        self.total: Codes = np.zeros(q, np.int64)  # relevant images seen
        self.best_score: Floats = np.full(q, -np.inf, np.float32)  # of the nearest relevant image
        self.best_row: Codes = np.full(q, -1)

    def add(self, some: slice, scores: Floats, labels: Codes, first_row: int) -> None:
        """Add n images with `labels` (n,), by their `scores` with the queries `some`: -inf for a query with itself."""
        relevant = (self.labels[some, None] == labels) & (self.labels[some, None] != NO_LABEL) & np.isfinite(scores)
        self.total[some] += relevant.sum(axis=1)
        scores = scores - TIE * relevant.astype(np.float32)
        self._keep_best(some, scores, relevant, first_row)
        depth = self.scores.shape[1]
        scores = np.concatenate([self.scores[some], scores], axis=1)
        relevant = np.concatenate([self.relevant[some], relevant], axis=1)
        top = np.argpartition(-scores, depth - 1, axis=1)[:, :depth]
        order = np.argsort(-np.take_along_axis(scores, top, axis=1), axis=1, kind="stable")
        top = np.take_along_axis(top, order, axis=1)
        self.scores[some] = np.take_along_axis(scores, top, axis=1)
        self.relevant[some] = np.take_along_axis(relevant, top, axis=1)
        known = np.take_along_axis(self.rows[some], np.minimum(top, depth - 1), axis=1)
        rows = np.where(top < depth, known, first_row + top - depth)
        self.rows[some] = np.where(np.isfinite(self.scores[some]), rows, -1)

    def _keep_best(self, some: slice, scores: Floats, relevant: Bools, first_row: int) -> None:
        ours = np.where(relevant, scores, -np.inf)
        place = ours.argmax(axis=1)
        best = ours[np.arange(len(ours)), place]
        better = best > self.best_score[some]
        self.best_row[some] = np.where(better, first_row + place, self.best_row[some])
        self.best_score[some] = np.where(better, best, self.best_score[some])


def rank_gallery(queries: Floats, labels: Sequence[Codes], blocks: Iterable[Block], depth: int) -> list[NearestImages]:
    """Search a gallery exactly for each of `queries` (q, dim), once for each kind of `labels` (q,).

    Ties count against the model: an irrelevant image ranks above a relevant one of equal score, so that copies of one
    picture never look like success.
    """
    by_kind = [NearestImages(each, depth) for each in labels]
    first_row = 0
    for block in blocks:
        embeddings = block.embeddings.astype(np.float32, copy=False).T
        for start in range(0, len(queries), _QUERY_ROWS):
            some = slice(start, start + _QUERY_ROWS)
            scores = queries[some] @ embeddings
            ours = (block.own_queries >= start) & (block.own_queries < start + len(scores))
            scores[block.own_queries[ours] - start, block.own_rows[ours]] = -np.inf
            for nearest, theirs in zip(by_kind, block.labels, strict=True):
                nearest.add(some, scores, theirs, first_row)
        first_row += len(block.embeddings)
    return by_kind


@dataclass(frozen=True)
class Ranking:
    """The nearest gallery images of queries that have a relevant one, best first."""

    relevant: Bools  # (q, depth) whether the image at each place is relevant
    total: Codes  # (q,) how many images of the whole gallery are


def find_first_place(ranking: Ranking) -> Codes:
    """(q,) place of the first relevant image, from 1; 0 where none is among the nearest."""
    return np.where(ranking.relevant.any(axis=1), ranking.relevant.argmax(axis=1) + 1, 0)


def average_precision_at_r(ranking: Ranking) -> Figures:
    """(q,) mean over the first R places of the precision at each relevant one; R is how many are relevant.

    Of more than `depth` relevant images, as many as `depth` are asked for.
    """
    depth = ranking.relevant.shape[1]
    wanted = np.minimum(ranking.total, depth)
    places = np.arange(1, depth + 1)
    counted = ranking.relevant & (places <= wanted[:, None])
    precision = np.cumsum(ranking.relevant, axis=1) / places
    return np.asarray((precision * counted).sum(axis=1) / wanted, np.float64)


def ndcg_at(ranking: Ranking, k: int) -> Figures:
    """(q,) discounted gain of the first k places against that of the best order."""
    discounts = 1 / np.log2(np.arange(2, min(k, ranking.relevant.shape[1]) + 2))
    best = np.concatenate([[0], np.cumsum(1 / np.log2(np.arange(2, k + 2)))])
    gain = ranking.relevant[:, : len(discounts)] @ discounts
    return np.asarray(gain / best[np.minimum(ranking.total, k)], np.float64)
