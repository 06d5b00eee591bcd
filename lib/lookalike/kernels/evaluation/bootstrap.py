"""Confidence intervals of means over queries that are not independent: whole clusters are drawn anew.

The queries of one product resemble each other, so resampling queries one by one would promise too narrow an interval.
Drawing clusters with all their queries is the cluster bootstrap (Field and Welsh 2007), with percentile intervals.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lookalike.kernels.evaluation.metrics import wilson_interval

Figures = NDArray[np.float64]

RESAMPLES = 1_000
_HELD = 4_000_000  # numbers in hand at once


def mean_intervals(values: Figures, clusters: NDArray[Any], seed: int) -> tuple[Figures, Figures]:
    """Ends of the 95 % intervals of the means of lines of `values` (m, n); NaN if there is only one cluster.

    `clusters` (n,) are equal where the queries belong together. Gives two arrays (m,).
    """
    from scipy.stats import bootstrap

    names, codes = np.unique(clusters, return_inverse=True)
    count, m = len(names), len(values)
    if count < 2:
        return np.full(m, np.nan), np.full(m, np.nan)
    sums = np.stack([np.bincount(codes, line, count) for line in values])
    sizes = np.bincount(codes, minlength=count)
    interval = bootstrap(
        (sums, sizes),
        lambda sums, sizes, axis: sums.sum(axis=axis) / sizes.sum(axis=axis),
        paired=True,
        vectorized=True,
        axis=-1,
        n_resamples=RESAMPLES,
        batch=max(1, _HELD // (m * count)),
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return interval.low, interval.high


def share_intervals(values: Figures, clusters: NDArray[Any], seed: int) -> tuple[Figures, Figures]:
    """`mean_intervals` of values in [0, 1].

    If all values are equal, as when every query is answered, every resample has the same mean. The interval is then
    Wilson's, of as many values as there are clusters.
    """
    low, high = mean_intervals(values, clusters, seed)
    count = len(np.unique(clusters))
    for line in np.flatnonzero(low == high):
        low[line], high[line] = wilson_interval(float(values[line].mean()), count)
    return low, high
