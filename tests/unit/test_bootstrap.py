"""Intervals of means over clusters, against resampling by hand and against how often they hold the truth."""

import numpy as np
import pytest

from lookalike.kernels.evaluation.bootstrap import RESAMPLES, mean_intervals, share_intervals


def test_clusters_are_drawn_as_wholes() -> None:
    """One product of many queries: the interval is as wide as that of two products, not of many queries."""
    clusters = np.repeat(["a", "b"], 500)
    values = (clusters == "a").astype(float)[None]
    low, high = mean_intervals(values, clusters, 0)
    assert (low[0], high[0]) == (0, 1)


def test_intervals_are_those_of_resampling_by_hand() -> None:
    rng = np.random.default_rng(1)
    clusters = rng.integers(0, 40, 300)
    values = rng.random((2, 300)) * rng.random(40)[clusters]
    low, high = mean_intervals(values, clusters, 0)
    means = []
    for _ in range(4 * RESAMPLES):
        drawn = np.concatenate([np.flatnonzero(clusters == c) for c in rng.integers(0, 40, 40)])
        means.append(values[:, drawn].mean(axis=1))
    expected = np.percentile(means, [2.5, 97.5], axis=0)
    assert np.abs(np.stack([low, high]) - expected).max() < 0.01


def test_clustered_intervals_hold_the_truth_where_independent_ones_do_not() -> None:
    rng = np.random.default_rng(2)
    held = np.zeros(2)
    for _ in range(100):
        clusters = np.repeat(np.arange(50), 8)
        values = (rng.random(50) < 0.6).astype(float)[clusters][None]  # queries of a product succeed or fail together
        for i, drawn in enumerate((clusters, np.arange(400))):
            low, high = mean_intervals(values, drawn, 0)
            held[i] += low[0] <= 0.6 <= high[0]
    assert held[0] >= 88
    assert held[1] < 70


def test_the_seed_decides() -> None:
    values, clusters = np.random.default_rng(0).random((1, 30)), np.arange(30)
    assert mean_intervals(values, clusters, 1) == mean_intervals(values, clusters, 1)
    assert mean_intervals(values, clusters, 1) != mean_intervals(values, clusters, 2)


def test_of_one_cluster_nothing_is_known() -> None:
    low, high = share_intervals(np.array([[0.0, 1.0]]), np.array(["a", "a"]), 0)
    assert np.isnan([low[0], high[0]]).all()


def test_where_all_agree_the_interval_is_no_point() -> None:
    low, high = share_intervals(np.ones((1, 20)), np.repeat(np.arange(10), 2), 0)
    assert (low[0], high[0]) == pytest.approx((0.722, 1.0), abs=0.001)  # Wilson's for 10 of 10
