"""How probable it is that a match is the query's own product, by its score.

The score means something else for each model and catalog, so it is learnt from pairs of gallery images: an image and
the nearest other image of its product, and the same image and the nearest image of another product in its category's
whole gallery. The log-odds are a line of the score (Platt, "Probabilities for Support Vector Machines", 1999). There
are as many pairs of one kind as of the other, so the probability assumes that half of all queries show a product of the
gallery.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lookalike.kernels.index import search
from lookalike.kernels.index.search import Gallery

Float64s = NDArray[np.float64]


@dataclass(frozen=True)
class SameProduct:
    """Log-odds by score."""

    slope: float
    intercept: float

    def probability(self, scores: NDArray[np.floating]) -> Float64s:
        """(n,) that matches with these `scores` are the query's own product."""
        return np.asarray((1 + np.tanh((self.slope * np.asarray(scores, np.float64) + self.intercept) / 2)) / 2)


class Pair(NamedTuple):
    """Scores of an image with the nearest other image of its product, and with the nearest of another product."""

    product_id: str
    same: float
    other: float


def draw_pairs(gallery: Gallery, place: int, count: int, seed: int) -> list[Pair]:
    """Pairs of up to `count` random images of the shard at `place` whose product has another image.

    Equal pictures make no pair: that they are the same needs no score. Nor do images without a counterpart.
    """
    shard = gallery.shards[place]
    several = np.flatnonzero(np.bincount(shard.product)[shard.product] > 1)
    rows = np.sort(np.random.default_rng(seed).permutation(several)[:count])
    if not len(rows):
        return []
    embeddings = search.to_float32(shard.vectors[rows])
    others = _find_nearest_other(gallery, embeddings, shard.product[rows] + gallery.product_offsets[place])
    pairs = []
    for row, embedding, other in zip(rows.tolist(), embeddings, others.tolist(), strict=True):
        product = int(shard.product[row])
        own = shard.vectors[shard.product_starts[product] : shard.product_starts[product + 1]]
        own = own[(own != shard.vectors[row]).any(axis=1)]
        if len(own) and np.isfinite(other):
            same = float((search.to_float32(own) @ embedding).max())
            pairs.append(Pair(shard.product_ids[row].as_py(), min(same, 1.0), other))
    return pairs


def _find_nearest_other(gallery: Gallery, embeddings: NDArray[np.float32], own: NDArray[np.int64]) -> Float64s:
    """(q,) score of the nearest image of another product than `own` (q,); nan for none, and for an equal picture."""
    nearest = np.full(len(own), np.nan)
    matches = search.search(gallery, embeddings, 2)  # one of the two may be of the query's own product
    others = np.flatnonzero(gallery.look_up_products(matches.row) != own[matches.group])
    for match in others[::-1].tolist():  # of two, the better one comes last
        group, row = matches.group[match], matches.row[match]
        place = int(np.searchsorted(gallery.row_offsets, row, side="right")) - 1
        vector = search.to_float32(gallery.shards[place].vectors[row - gallery.row_offsets[place]])
        nearest[group] = np.nan if np.array_equal(vector, embeddings[group]) else matches.score[match]
    return nearest
