"""Figures of rankings, against sums by hand and a brute force that sorts everything."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.kernels.retrieval import NO_LABEL, Ranking, average_precision_at_r, ndcg_at, ranked, recall_at


def unit(values: Any) -> Any:
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def ranking(*places: str, total: int) -> Ranking:
    """`x` is relevant, `.` is not."""
    flags = np.array([[mark == "x" for mark in line] for line in places])
    return Ranking(np.arange(len(places)), flags, np.full(len(places), total))


def test_figures_by_hand() -> None:
    found = ranking("x.x.", ".xx.", "....", total=3)
    assert recall_at(found, 1).tolist() == [1, 0, 0]
    assert recall_at(found, 2).tolist() == [1, 1, 0]
    assert average_precision_at_r(found).tolist() == pytest.approx([(1 + 2 / 3) / 3, (1 / 2 + 2 / 3) / 3, 0])
    best = 1 + 1 / math.log2(3) + 1 / 2
    assert ndcg_at(found, 3).tolist() == pytest.approx([1.5 / best, (1 / math.log2(3) + 1 / 2) / best, 0])


def test_only_the_first_r_places_count() -> None:
    assert average_precision_at_r(ranking("..x", total=2)).tolist() == [0]


def test_all_relevant_first_is_perfect() -> None:
    found = ranking("xx..", total=2)
    assert average_precision_at_r(found).tolist() == [1]
    assert ndcg_at(found, 10).tolist() == pytest.approx([1])


def test_more_relevant_than_places() -> None:
    found = ranking("xx", total=50)
    assert average_precision_at_r(found).tolist() == [1]
    assert ndcg_at(found, 2).tolist() == pytest.approx([1])


def test_a_query_does_not_find_itself() -> None:
    gallery = unit(np.array([[1, 0], [1, 0.1], [0, 1]], float))
    labels = np.array([7, 8, 7])
    found = ranked(gallery[:1], gallery, labels[:1], labels, np.array([0]), 3)
    assert found.relevant.tolist() == [[False, True, False]]
    assert found.total.tolist() == [1]


def test_a_copy_of_another_label_goes_first() -> None:
    gallery = unit(np.array([[1, 0], [1, 0]], float))
    found = ranked(gallery[:1], gallery, np.array([1]), np.array([1, 2]), np.array([-1]), 2)
    assert found.relevant.tolist() == [[False, True]]


def test_queries_without_a_relevant_image_are_left_out() -> None:
    gallery = unit(np.array([[1, 0], [0, 1]], float))
    asked = np.array([5, NO_LABEL, 2])
    found = ranked(unit(np.ones((3, 2))), gallery, asked, np.array([2, NO_LABEL]), np.full(3, -1), 2)
    assert found.queries.tolist() == [2]


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 30), st.integers(1, 12))
def test_ranking_is_that_of_sorting_everything(seed: int, n: int, q: int, depth: int) -> None:
    rng = np.random.default_rng(seed)
    gallery, queries = unit(rng.normal(size=(n, 4))), unit(rng.normal(size=(q, 4)))
    labels, asked = rng.integers(0, 4, n), rng.integers(0, 4, q)
    own = rng.integers(-1, n, q)
    found = ranked(queries, gallery, asked, labels, own, depth)
    expected = {}
    for row in range(q):
        others = [g for g in range(n) if g != own[row]]
        order = sorted(others, key=lambda g: -float(queries[row] @ gallery[g]))
        if any(labels[g] == asked[row] for g in others):
            expected[row] = [bool(labels[g] == asked[row]) for g in order][:depth]
    assert found.queries.tolist() == list(expected)
    for flags, truth in zip(found.relevant.tolist(), expected.values(), strict=True):
        assert flags[: len(truth)] == truth
        assert not any(flags[len(truth) :])
