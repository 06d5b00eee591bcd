import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lookalike.kernels.evaluation import metrics

RNG = np.random.default_rng(7)

Array = NDArray[Any]


def unit(n: int, dim: int = 8) -> Array:
    x = RNG.standard_normal((n, dim)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def slow_similar(vectors: Array, products: Array, available: Array, query: int, k: int) -> list[tuple[float, int]]:
    """(score, product), by a double loop over images."""
    best: dict[int, float] = {}
    for i in np.flatnonzero(products == query):
        for j in range(len(products)):
            if products[j] != query and available[j]:
                score = float(np.dot(vectors[i].astype(np.float64), vectors[j].astype(np.float64)))
                best[products[j]] = max(min(score, 1.0), best.get(products[j], -2.0))
    return sorted(((score, product) for product, score in best.items()), reverse=True)[:k]


@pytest.mark.parametrize("kind", [np.float32, np.float16])
@pytest.mark.parametrize("gallery_rows", [1, 7, 8192])
def test_search_exactly_is_the_double_loop(monkeypatch: pytest.MonkeyPatch, kind: type, gallery_rows: int) -> None:
    monkeypatch.setattr(metrics, "_GALLERY_ROWS", gallery_rows)
    monkeypatch.setattr(metrics, "_QUERY_ROWS", 5)
    vectors: Array = unit(120).astype(kind)
    products = RNG.integers(0, 40, 120)  # in no order
    available = RNG.random(120) < 0.7
    queries = np.unique(products)[::-1]
    found, scores = metrics.search_exactly(vectors, products, available, queries, 6)
    for i, query in enumerate(queries):
        expected = slow_similar(vectors, products, available, query, 6)
        assert found[i].tolist() == [product for _, product in expected]
        assert scores[i].tolist() == pytest.approx([score for score, _ in expected], abs=1e-6)


def test_search_exactly_pads_where_there_are_fewer_products() -> None:
    found, scores = metrics.search_exactly(
        unit(4), np.array([0, 0, 1, 2]), np.array([True, True, True, False]), np.array([0, 1, 2]), 3
    )
    assert found.tolist() == [[1, -1, -1], [0, -1, -1], found[2].tolist()]
    assert sorted(found[2].tolist()) == [-1, 0, 1]
    assert np.isneginf(scores).tolist() == [[False, True, True], [False, True, True], [False, False, True]]


def test_search_exactly_with_nothing_available_finds_nothing() -> None:
    found, scores = metrics.search_exactly(unit(3), np.arange(3), np.zeros(3, dtype=bool), np.arange(3), 2)
    assert (found == -1).all()
    assert np.isneginf(scores).all()


def test_search_exactly_of_copies_is_no_more_than_one() -> None:
    vectors = np.tile(unit(1), (9, 1)).astype(np.float16) * np.float16(1.001)
    _, scores = metrics.search_exactly(vectors, np.arange(9), np.ones(9, dtype=bool), np.arange(9), 8)
    assert (scores == 1).all()


def test_search_exactly_refuses_a_product_without_images() -> None:
    with pytest.raises(ValueError, match="9"):
        metrics.search_exactly(unit(3), np.arange(3), np.ones(3, dtype=bool), np.array([9]), 2)


def test_knn_recall_counts_what_was_found() -> None:
    truth = np.array([[0.9, 0.8, 0.7]], dtype=np.float32)
    assert metrics.knn_recall(np.array([[0.9, 0.8, 0.7]], dtype=np.float32), truth, 3) == pytest.approx([1])
    assert metrics.knn_recall(np.array([[0.9, 0.7, 0.6]], dtype=np.float32), truth, 3) == pytest.approx([2 / 3])
    assert metrics.knn_recall(np.array([[0.9, -np.inf, -np.inf]], dtype=np.float32), truth, 3) == pytest.approx([1 / 3])
    assert metrics.knn_recall(np.zeros((1, 0), dtype=np.float32), truth, 3) == pytest.approx([0])


def test_knn_recall_takes_any_of_equal_neighbours() -> None:
    truth = np.array([[0.9, 0.5, 0.5]], dtype=np.float32)
    found = np.array([[0.9, 0.5 - 5e-7]], dtype=np.float32)
    assert metrics.knn_recall(found, truth, 2) == pytest.approx([1])


def test_knn_recall_measures_a_short_query_by_what_exists_and_leaves_out_an_empty_one() -> None:
    truth = np.array([[0.9, 0.8, -np.inf], [-np.inf] * 3], dtype=np.float32)
    found = np.array([[0.9, -np.inf, -np.inf], [-np.inf] * 3], dtype=np.float32)
    assert metrics.knn_recall(found, truth, 3).tolist() == [0.5]


def slow_recall(vectors: Array, products: Array, k: int) -> list[bool]:
    hits = []
    for i, product in enumerate(products):
        if (products == product).sum() < 2:
            continue
        order = [j for j in np.argsort(-(vectors @ vectors[i])) if j != i]
        hits.append(any(products[j] == product for j in order[:k]))
    return hits


@pytest.mark.parametrize("rows", [1, 13, 8192])
def test_recall_at_k_is_the_sorted_loop(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(metrics, "_GALLERY_ROWS", rows)
    monkeypatch.setattr(metrics, "_QUERY_ROWS", rows)
    vectors = unit(90, dim=6)
    products = RNG.integers(0, 35, 90)
    for k, hits in metrics.recall_at_k(vectors, products, (1, 5, 20)).items():
        assert hits.tolist() == slow_recall(vectors, products, k)


def test_recall_at_k_measures_the_chosen_rows_only() -> None:
    vectors, products = unit(60), RNG.integers(0, 20, 60)
    several = np.flatnonzero(np.bincount(products)[products] > 1)
    rows = several[::3]
    everything = metrics.recall_at_k(vectors, products, [3])[3]
    assert metrics.recall_at_k(vectors, products, [3], rows)[3].tolist() == everything[::3].tolist()


def test_recall_at_k_of_copies_of_one_picture_is_no_success() -> None:
    vectors = np.tile(unit(1), (30, 1))
    recall = metrics.recall_at_k(vectors, np.arange(30) // 2, [1, 10, 29])
    assert not recall[1].any()
    assert not recall[10].any()
    assert recall[29].all()


def test_recall_at_k_without_a_product_of_two_images_has_no_queries() -> None:
    assert metrics.recall_at_k(unit(5), np.arange(5), [1])[1].shape == (0,)


def test_confidence_interval_of_known_cases() -> None:
    # Newcombe 1998, table I: 81 of 263, and 0 of 20.
    assert metrics.confidence_interval(np.arange(263) < 81) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert metrics.confidence_interval(np.zeros(20)) == pytest.approx((0.0, 0.1611), abs=5e-5)
    low, high = metrics.confidence_interval(np.ones(5))
    assert low == pytest.approx(0.5655, abs=5e-5)
    assert high == 1


def test_wilson_interval_of_pooled_queries() -> None:
    assert metrics.wilson_interval(1.0, 36) == pytest.approx((0.9036, 1.0), abs=5e-5)
    assert metrics.wilson_interval(7 / 34, 34) == pytest.approx((0.1035, 0.3680), abs=5e-5)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_confidence_interval_holds_the_mean(values: list[float]) -> None:
    low, high = metrics.confidence_interval(np.array(values))
    assert 0 <= low <= math.fsum(values) / len(values) + 1e-9
    assert math.fsum(values) / len(values) - 1e-9 <= high <= 1
    assert low < high


def test_confidence_interval_covers_the_truth_of_fractions_at_least_as_often_as_it_says() -> None:
    samples = RNG.binomial(10, 0.97, size=(2000, 100)) / 10  # knn_recall@10 of 100 queries
    intervals = np.array([metrics.confidence_interval(s) for s in samples])
    assert np.mean((intervals[:, 0] <= 0.97) & (intervals[:, 1] >= 0.97)) >= 0.95


def test_confidence_interval_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="no values"):
        metrics.confidence_interval(np.array([]))
