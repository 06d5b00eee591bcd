"""Predicting a query's category: by hand where that can be done, else on data whose truth is known."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from tests.vectors import unit

from lookalike.errors import NotPredictable
from lookalike.kernels.categories.fit import (
    CALIBRATE,
    FIT,
    MIN_PRODUCTS,
    TEST,
    calibrate,
    calibration_error,
    fit,
    split_by_product,
)
from lookalike.kernels.categories.predictor import (
    Predictor,
    count_most_probable,
    find_references,
    predict_among,
    read_predictor,
    softmax,
    write_predictor,
)


def small() -> Predictor:
    """Three categories in the plane; c is voted only."""
    references = np.array([[1, 0], [0.8, 0.6], [0, 1], [-1, 0]], np.float32)
    weights, bias = np.array([[2, 0], [0, 2]], np.float32), np.array([0, 0.5], np.float32)
    return Predictor(
        ("a", "b", "c"), np.array([0, 1]), weights, bias, references, np.array([0, 1, 1, 2]), 2, 2.0, 0.1, 0.25, 0.5
    )


def test_classifier_vote_and_fusion_by_hand() -> None:
    predictor, query = small(), np.array([[1, 0], [-1, 0]], np.float32)
    odds = np.exp([[1, 0.25], [-1, 0.25]])  # (2 x + bias) / 2
    classifier = np.column_stack([odds / odds.sum(axis=1, keepdims=True), np.zeros(2)])
    assert predictor.classify(query) == pytest.approx(classifier)
    near = np.exp([1 / 0.1, 0.8 / 0.1])  # of the first query: images 0 and 1, of scores 1 and 0.8
    far = np.exp([1 / 0.1, 0])  # of the second one: 3 and 2
    shares = np.array([[*(near / near.sum()), 0], [0, far[1] / far.sum(), far[0] / far.sum()]])
    vote = predictor.vote(query)
    assert vote == pytest.approx(0.999 * shares + 0.001 / 3, abs=1e-6)
    heard = classifier * (1 - vote[:, 2:])  # of c the classifier knows nothing
    heard[:, 2] = vote[:, 2]
    fused = (0.25 * heard + 0.75 * vote) ** (1 / 0.5)
    assert predictor.predict(query) == pytest.approx(fused / fused.sum(axis=1, keepdims=True))


def test_blocks_of_queries_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    queries = unit(np.random.default_rng(0).normal(size=(50, 2)))
    whole = small().predict(queries)
    monkeypatch.setattr("lookalike.kernels.categories.predictor._QUERY_ROWS", 7)
    assert small().predict(queries) == pytest.approx(whole)


def test_more_neighbours_than_references_are_all_of_them() -> None:
    query = np.array([[1, 0]], np.float32)
    scores, rows = find_references(query, small().references, 9)
    assert (scores.shape, sorted(rows[0])) == ((1, 4), [0, 1, 2, 3])


def test_among_leaves_out_other_categories() -> None:
    query = np.array([[1, 0]], np.float32)
    whole = small().predict(query)[0]
    names, found = predict_among(small(), query, {"a", "c", "elsewhere"})
    assert names == ["a", "c"]
    assert found[0] == pytest.approx(whole[[0, 2]] / whole[[0, 2]].sum())
    with pytest.raises(NotPredictable, match="run it again"):
        predict_among(small(), query, {"elsewhere"})


@pytest.mark.parametrize(("share", "taken"), [(0.0, 1), (0.6, 1), (0.61, 2), (0.9, 2), (0.95, 3), (1.0, 3)])
def test_categories_are_taken_until_they_sum_to_the_share(share: float, taken: int) -> None:
    assert count_most_probable(np.array([0.1, 0.6, 0.3]), share) == taken


def test_a_file_gives_back_what_was_written_and_equal_bytes(tmp_path: Path) -> None:
    for name in "ab":
        write_predictor(tmp_path / name, small())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    found = read_predictor(tmp_path / "a")
    for field in dataclasses.fields(Predictor):
        # Of the references, float16 is stored.
        assert getattr(found, field.name) == pytest.approx(getattr(small(), field.name), abs=5e-4), field.name
    assert found.categories == ("a", "b", "c")
    assert (type(found.k), type(found.weight)) == (int, float)
    assert found.references.dtype == np.float32


def test_no_product_is_on_two_sides_and_each_category_on_all() -> None:
    rng = np.random.default_rng(0)
    category = rng.integers(0, 6, 600)
    product = category * 100 + rng.integers(0, 12, 600)
    category[product % 100 == 3] = (category[product % 100 == 3] + rng.integers(0, 2, 50)[0]) % 6  # at home elsewhere
    category = np.concatenate([category, np.full(8, 6), [7], np.full(4, 8)])
    product = np.concatenate([product, 600 + np.arange(8) % (MIN_PRODUCTS - 1), [0], 700 + np.arange(4) % 2])
    product = np.unique(product, return_inverse=True)[1]
    part, classified = split_by_product(category, product, seed=1)
    sides = np.unique(np.stack([product, part]), axis=1)[0]
    assert len(sides) == len(np.unique(sides))
    assert classified.tolist() == [0, 1, 2, 3, 4, 5]
    for code in (*classified, 6):
        assert set(part[category == code]) == {FIT, CALIBRATE, TEST}
    assert set(part[category > 6]) == {FIT}
    assert 0.15 < (part == TEST).mean() < 0.27


def images(seed: int = 0, n: int = 3_000) -> tuple[np.ndarray, list[str], list[str]]:
    """Of four categories: half the images tell theirs by four dimensions among much that means nothing, half by which
    of many small heaps they are in. A linear map finds the former, the vote the latter; heaps have random categories.
    """
    rng = np.random.default_rng(seed)
    code = rng.integers(0, 4, n)
    directed = rng.random(n) < 0.5
    plain = np.concatenate([4 * np.eye(4)[code] + rng.normal(size=(n, 4)), 3 * rng.normal(size=(n, 24))], axis=1)
    heaps, heap_code = 3 * rng.normal(size=(200, 12)), rng.integers(0, 4, 200)
    heap = np.array([rng.choice(np.flatnonzero(heap_code == c)) for c in code])
    heaped = heaps[heap] + 0.05 * rng.normal(size=(n, 12))
    found = np.concatenate([np.where(directed[:, None], plain, 0), np.where(directed[:, None], 0, heaped)], axis=1)
    return unit(found), [f"c{c}" for c in code], [f"p{i // 2}" for i in range(n)]


def test_fusion_beats_both_where_they_err_on_their_own() -> None:
    fitted = fit(*images(), k=10, seed=0)
    figures = {figure.metric: figure for figure in fitted.figures}
    best_alone = max(figures["classifier_accuracy@1"].value, figures["vote_accuracy@1"].value)
    assert figures["fused_accuracy@1"].value > best_alone + 0.03
    fused_low = figures["fused_accuracy@1"].low
    assert fused_low is not None
    assert fused_low > best_alone
    assert 0 < fitted.predictor.weight < 1
    assert figures["fused_accuracy@3"].value >= figures["fused_accuracy@1"].value
    for figure in fitted.figures:
        if figure.low is not None and figure.high is not None:
            assert figure.low <= figure.value <= figure.high


def test_figures_are_what_the_predictor_says_of_products_it_never_saw() -> None:
    embeddings, categories, products = images(n=1_000)
    fitted = fit(embeddings, categories, products, k=10, seed=3)
    codes = np.unique(categories, return_inverse=True)[1]
    part, _ = split_by_product(codes, np.unique(products, return_inverse=True)[1], seed=3)
    said = fitted.measured.predict(embeddings[part == TEST]).argmax(axis=1)
    figures = {figure.metric: figure.value for figure in fitted.figures}
    assert figures["fused_accuracy@1"] == pytest.approx((said == codes[part == TEST]).mean())
    assert len(fitted.measured.references) == (part == FIT).sum()


def test_what_serves_has_learnt_from_all_images() -> None:
    embeddings, categories, products = images()
    fitted = fit(embeddings[:1_000], categories[:1_000], products[:1_000], k=10, seed=3)
    assert len(fitted.predictor.references) == 1_000
    new, truth = embeddings[1_000:], np.array(categories[1_000:])
    accuracy = [
        (np.array(predictor.categories)[predictor.predict(new).argmax(axis=1)] == truth).mean()
        for predictor in (fitted.measured, fitted.predictor)
    ]
    assert accuracy[1] > accuracy[0] + 0.01


def test_calibration_mends_overconfidence() -> None:
    """A classifier whose logits are four times those of which the categories were drawn; a vote of random images."""
    rng = np.random.default_rng(5)
    embeddings, weights = unit(rng.normal(size=(8_000, 6))), 2 * rng.normal(size=(3, 6)).astype(np.float32)
    truth = softmax(embeddings @ weights.T)
    category = (truth.cumsum(axis=1) < rng.random((8_000, 1))).sum(axis=1)
    references, voters = unit(rng.normal(size=(40, 6))), rng.integers(0, 3, 40)
    too_sure = Predictor(
        ("a", "b", "c"), np.arange(3), 4 * weights, np.zeros(3, np.float32), references, voters, 5, 1.0, 1.0, 0.98, 1.0
    )
    found = calibrate(too_sure, embeddings[:4_000], category[:4_000])
    assert found.classifier_temperature == pytest.approx(4, rel=0.15)
    errors = []
    for predictor in (too_sure, found):
        said = predictor.predict(embeddings[4_000:])
        errors.append(calibration_error(said.max(axis=1), said.argmax(axis=1) == category[4_000:]))
    assert errors[0] > 0.1
    assert errors[1] < 0.03


def test_two_categories_are_told_apart_as_scikit_learn_does() -> None:
    rng = np.random.default_rng(1)
    code = rng.integers(0, 2, 200)
    embeddings = unit(rng.normal(size=(200, 8)) + code[:, None])
    fitted = fit(embeddings, [f"c{c}" for c in code], [f"p{i}" for i in range(200)], k=5, seed=0)
    part, _ = split_by_product(code, np.unique([f"p{i}" for i in range(200)], return_inverse=True)[1], seed=0)
    for predictor, rows in ((fitted.measured, part == FIT), (fitted.predictor, part >= FIT)):
        model = LogisticRegression(C=10, max_iter=200).fit(embeddings[rows], code[rows])
        plain = dataclasses.replace(predictor, classifier_temperature=1.0)
        assert plain.classify(embeddings) == pytest.approx(model.predict_proba(embeddings), abs=1e-4)


def test_categories_that_only_the_vote_knows_are_measured_too() -> None:
    embeddings, categories, products = images(n=800)
    rng = np.random.default_rng(9)
    kind = np.repeat(np.arange(30), 16)  # thirty categories of four products
    rare = unit(rng.normal(size=(30, 40))[kind] + 0.1 * rng.normal(size=(480, 40)))
    names, items = [f"rare{i}" for i in kind], [f"r{i // 4}" for i in range(480)]
    fitted = fit(np.concatenate([embeddings, rare]), [*categories, *names], [*products, *items], k=10, seed=0)
    figures = {figure.metric: figure for figure in fitted.figures}
    assert fitted.voted_only == 30
    assert figures["fused_accuracy@1"].n == pytest.approx(0.2 * 800 + 30 * 4, abs=8)
    assert figures["classifier_accuracy@1"].value < 0.6
    assert figures["fused_accuracy@1"].value > figures["vote_accuracy@1"].value + 0.02


def test_a_category_of_few_products_is_voted_only() -> None:
    embeddings, categories, products = images(n=800)
    rare = unit(np.random.default_rng(9).normal(size=(3, 40)))
    fitted = fit(
        np.concatenate([embeddings, rare]), [*categories, *["rare"] * 3], [*products, "r0", "r1", "r2"], k=10, seed=0
    )
    predictor = fitted.predictor
    assert (predictor.categories[-1], fitted.voted_only) == ("rare", 1)
    assert predictor.classify(rare)[:, -1].tolist() == [0, 0, 0]
    assert (predictor.predict(rare).argmax(axis=1) == len(predictor.categories) - 1).all()


@pytest.mark.parametrize("categories", [["a"] * 60, ["a"] * 57 + ["b"] * 3])
def test_one_category_is_an_error(categories: list[str]) -> None:
    vectors = unit(np.random.default_rng(0).normal(size=(60, 4)))
    with pytest.raises(NotPredictable, match="with one category alone there is nothing to predict"):
        fit(vectors, categories, [f"p{i}" for i in range(60)], k=5, seed=0)


def test_calibration_error_by_hand() -> None:
    # Bins of 1/15: 0.95 and 0.99 together, 0.5 alone. Gaps: 1.94 - 1, and 0.5 - 1.
    error = calibration_error(np.array([0.95, 0.99, 0.5]), np.array([True, False, True]))
    assert error == pytest.approx((0.94 + 0.5) / 3)
