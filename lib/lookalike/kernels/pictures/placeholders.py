"""Which pictures are nearly identical, and which titles name different products: what makes one a placeholder."""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Float32s = NDArray[np.float32]
Int64s = NDArray[np.int64]

# Of 509 product pictures, JPEG of quality 75 and WebP have a cosine of 0.99 with the original, half the size 0.994;
# 4 in 1,000 pictures have another product's at 0.98 or above, nearly always the same product in another colour.
_LARGEST_DISTANCE = 0.02
# Some models put all pictures close together: then pictures must be closer to be counted as one. Share of the distance
# between unlike pictures, which is 0.6 to 0.8 with the default model.
_SHARE_OF_SPREAD = 0.03
_ROUNDING = 1e-5  # of the cosine of equal embeddings
_SIGNS = 63


def make_sign_keys(embeddings: Float32s) -> Int64s:
    """(n,) keys of (n, dim) embeddings: the same for equal ones, often for near ones, hardly ever for others."""
    directions = np.random.default_rng(0).normal(size=(embeddings.shape[1], _SIGNS)).astype(np.float32)
    keys: Int64s = (embeddings @ directions > 0) @ (1 << np.arange(_SIGNS, dtype=np.int64))
    return keys


def choose_leaders(embeddings: Float32s) -> tuple[Int64s, float]:
    """Rows of (n, dim) embeddings such that no leader is nearly identical to an earlier one, and each other row is.

    With them comes the least cosine at which two pictures count as one. Groups are stars around their leaders: chains
    of small steps from one picture to quite another one are none.
    """
    cosines = embeddings @ embeddings.T
    pairs = 1 - cosines[np.triu_indices(len(cosines), 1)]
    spread = float(np.quantile(pairs, 0.9)) if len(pairs) else 0.0
    least = 1 - max(min(_LARGEST_DISTANCE, _SHARE_OF_SPREAD * spread), _ROUNDING)
    leaders: list[int] = []
    is_free = np.ones(len(cosines), bool)
    for row, near in enumerate(cosines >= least):
        if is_free[row]:
            leaders.append(row)
            is_free &= ~near
    return np.array(leaders, np.int64), least


def find_leaders(embeddings: Float32s, leaders: Float32s, least: float) -> Int64s:
    """(n,) number of the nearest of the leaders' embeddings; -1 where its cosine is below `least`."""
    cosines = embeddings @ leaders.T
    nearest = cosines.argmax(axis=1)
    return np.where(cosines[np.arange(len(nearest)), nearest] >= least, nearest, -1)


def count_different_titles(titles: Sequence[str | None]) -> int:
    """How many products the titles speak of: those that share more than half of their words count as one.

    So sellers' titles of one product do. A missing title is taken for one of its own.
    """
    different: list[frozenset[str]] = []
    unnamed = 0
    for title in sorted(titles, key=lambda title: title or ""):
        words = frozenset(re.findall(r"\w+", (title or "").casefold()))
        if not words:
            unnamed += 1
        elif not any(2 * len(words & others) > len(words | others) for others in different):
            different.append(words)
    return len(different) + unnamed
