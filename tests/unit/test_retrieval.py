"""Figures of rankings, against sums by hand and a brute force that sorts everything."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score
from tests.vectors import unit

from lookalike.kernels.evaluation.retrieval import (
    NO_LABEL,
    Block,
    NearestImages,
    Ranking,
    average_precision_at_r,
    find_first_place,
    ndcg_at,
    rank_gallery,
)


def ranking(*places: str, total: int) -> Ranking:
    """`x` is relevant, `.` is not."""
    flags = np.array([[mark == "x" for mark in line] for line in places])
    return Ranking(flags, np.full(len(places), total))


def searched(
    queries: Any, gallery: Any, asked: Any, labels: Any, own: Any, depth: int, blocks: int = 1
) -> NearestImages:
    """What `rank_gallery` finds by one kind of label, of a gallery in blocks; `own` has a row for each query, or -1."""

    def parts() -> Any:
        for rows in np.array_split(np.arange(len(gallery)), blocks):
            if len(rows):
                theirs = np.flatnonzero(np.isin(own, rows))
                yield Block(gallery[rows], [labels[rows]], theirs, own[theirs] - rows[0])

    (found,) = rank_gallery(queries, [asked], parts(), depth)
    return found


def test_figures_by_hand() -> None:
    found = ranking("x.x.", ".xx.", "....", total=3)
    assert find_first_place(found).tolist() == [1, 2, 0]
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


def test_ndcg_is_that_of_scikit_learn() -> None:
    flags = np.random.default_rng(3).random((50, 30)) < 0.2
    flags = flags[flags.any(axis=1)]
    by_place = np.broadcast_to(-np.arange(30), flags.shape)
    expected = [ndcg_score([truth], [scores], k=10) for truth, scores in zip(flags, by_place, strict=True)]
    assert ndcg_at(Ranking(flags, flags.sum(axis=1)), 10).tolist() == pytest.approx(expected)


def test_a_query_does_not_find_itself() -> None:
    gallery = unit(np.array([[1, 0], [1, 0.1], [0, 1]], float))
    labels = np.array([7, 8, 7])
    found = searched(gallery[:1], gallery, labels[:1], labels, np.array([0]), 3)
    assert found.rows.tolist() == [[1, 2, -1]]
    assert found.relevant.tolist() == [[False, True, False]]
    assert (found.total.tolist(), found.best_row.tolist()) == ([1], [2])


def test_a_copy_of_another_label_goes_first() -> None:
    gallery = unit(np.array([[1, 0], [1, 0]], float))
    for blocks in (1, 2):
        found = searched(gallery[:1], gallery, np.array([1]), np.array([1, 2]), np.array([-1]), 2, blocks)
        assert found.relevant.tolist() == [[False, True]]


def test_queries_without_a_relevant_image_have_none_in_all() -> None:
    gallery = unit(np.array([[1, 0], [0, 1]], float))
    asked = np.array([5, NO_LABEL, 2])
    found = searched(unit(np.ones((3, 2))), gallery, asked, np.array([2, NO_LABEL]), np.full(3, -1), 2)
    assert found.total.tolist() == [0, 0, 1]
    assert found.best_row.tolist() == [-1, -1, 0]


def test_kinds_of_label_are_ranked_by_themselves() -> None:
    gallery = unit(np.array([[1, 0], [1, 0]], float))
    labels = [np.array([1, 2]), np.array([4, 3])]
    none = np.empty(0, np.int64)
    found = rank_gallery(gallery[:1], [np.array([1]), np.array([3])], [Block(gallery, labels, none, none)], 2)
    assert [kind.rows.tolist() for kind in found] == [[[1, 0]], [[0, 1]]]


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 30), st.integers(1, 12), st.integers(1, 4))
def test_ranking_is_that_of_sorting_everything(seed: int, n: int, q: int, depth: int, blocks: int) -> None:
    rng = np.random.default_rng(seed)
    gallery, queries = unit(rng.normal(size=(n, 4))), unit(rng.normal(size=(q, 4)))
    labels, asked = rng.integers(0, 4, n), rng.integers(0, 4, q)
    own = rng.integers(-1, n, q)
    found = searched(queries, gallery, asked, labels, own, depth, blocks)
    for row in range(q):
        others = [g for g in range(n) if g != own[row]]
        order = sorted(others, key=lambda g: -float(queries[row] @ gallery[g]))
        right = [g for g in order if labels[g] == asked[row]]
        empty = [-1] * max(0, depth - len(order))
        assert found.rows[row].tolist() == order[:depth] + empty
        assert found.relevant[row].tolist() == [g in right for g in order[:depth]] + [False] * len(empty)
        assert found.total[row] == len(right)
        assert found.best_row[row] == (right[0] if right else -1)
