"""What a score says of the same product."""

from pathlib import Path

import numpy as np
import pytest
from tests.unit.test_search import gallery_of, rows_of
from tests.vectors import unit

from lookalike.kernels.categories.fit import fit_same_product
from lookalike.kernels.categories.same_product import Pair, SameProduct, draw_pairs


def test_pairs_are_brute_force(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    products = [f"p{i // 3:02d}" for i in range(60)]
    vectors = unit(np.repeat(rng.normal(size=(20, 16)), 3, axis=0) + 0.6 * rng.normal(size=(60, 16)))
    products += ["single", "twin", "twin"]
    vectors = np.concatenate([vectors, unit(rng.normal(size=(1, 16))), np.repeat(unit(rng.normal(size=(1, 16))), 2, 0)])
    rows = rows_of(products, vectors)
    parts = np.array([int(product[1:3]) % 2 if product[1:3].isdigit() else 0 for product in products])
    gallery = gallery_of(tmp_path, rows, parts)
    found = [pair for place in (0, 1) for pair in draw_pairs(gallery, place, 1_000, seed=0)]
    kept = rows.vectors.astype(np.float64)
    expected = []
    for row, product in enumerate(products[:60]):
        scores = kept @ kept[row]
        own = np.array(products) == product
        own[row] = False
        others = np.array(products) != product
        expected.append(Pair(product, scores[own].max(), scores[others].max()))
    assert sorted(pair.product_id for pair in found) == sorted(products[:60])  # neither single nor equal pictures
    for mine, truth in zip(sorted(found), sorted(expected), strict=True):
        assert mine[1:] == pytest.approx(truth[1:], abs=1e-4)
    assert len(draw_pairs(gallery, 0, 7, seed=0)) <= 7


def test_the_probability_is_honest_and_grows_with_the_score() -> None:
    rng = np.random.default_rng(1)
    drawn = [
        Pair(f"p{i // 2}", *scores) for i, scores in enumerate(rng.normal([0.85, 0.7], 0.06, size=(4_000, 2)).tolist())
    ]
    fitted = fit_same_product(drawn, seed=0)
    assert not isinstance(fitted, str)
    same, figure = fitted
    scores = np.linspace(0.5, 1, 20)
    assert (np.diff(same.probability(scores)) > 0).all()
    # By Bayes, of two normal distributions of one width: odds exp((s - 0.775) 0.15 / 0.06^2).
    assert same.probability(scores) == pytest.approx(1 / (1 + np.exp(-(scores - 0.775) * 0.15 / 0.06**2)), abs=0.03)
    assert figure.value < 0.03


def test_scores_that_do_not_tell_are_said_not_to() -> None:
    assert "0 of the products drawn" in str(fit_same_product([], seed=0))
    assert "3 of the products drawn" in str(fit_same_product([Pair(f"p{i % 3}", 0.9, 0.5) for i in range(90)], seed=0))
    reversed_ = [Pair(f"p{i}", 0.6 + 0.001 * (i % 50), 0.8) for i in range(100)]
    assert "as a rule nearer" in str(fit_same_product(reversed_, seed=0))


def test_extremes_are_no_errors() -> None:
    assert SameProduct(1e4, 0.0).probability(np.array([-1.0, 1.0])).tolist() == [0.0, 1.0]
