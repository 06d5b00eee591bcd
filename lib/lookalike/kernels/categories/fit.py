"""Fit what predicts categories, and measure it on products that it never saw.

A sample of gallery images is parted by product: no product is on two sides, as the product of a query photo may not be
in the gallery. On `FIT` the classifier is trained, and these images vote; on `CALIBRATE` temperatures and the weight
are chosen, each for the least negative log-likelihood; on `TEST` alone the result is measured. Then the classifier is
trained anew on all of the sample, and all of it votes, with the temperatures and the weight that were chosen.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from sklearn.linear_model import LogisticRegression

from lookalike.errors import NotPredictable
from lookalike.kernels.categories.predictor import (
    Float32s,
    Float64s,
    Int64s,
    Predictor,
    apply_temperature,
    compute_logits,
    count_votes,
    find_references,
    fuse,
    softmax,
)
from lookalike.kernels.categories.same_product import Pair, SameProduct
from lookalike.kernels.evaluation.bootstrap import share_intervals

FIT, CALIBRATE, TEST = 0, 1, 2
MIN_PRODUCTS = 5
"""Categories with fewer products use only the vote."""

MIN_PAIRED = 20
"""Products with two images that it takes to learn what a score says of the same product."""

_SHARE = 0.2  # of the products, to calibrate, and to test
_C = 10.0  # inverse strength of the regularisation: of 1, 10, 100, 1000 the best on clothes of unseen people
_ITERATIONS = 200
_TEMPERATURES = (0.05, 20.0)
_VOTE_TEMPERATURES = (0.001, 1.0)
_WEIGHTS = np.linspace(0, 1, 21)
_BINS = 15

Codes = NDArray[np.integer]


@dataclass(frozen=True)
class Figure:
    """A row's `figures`; see `schemas.FIGURE`."""

    metric: str
    value: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class FitResult:
    predictor: Predictor  # of all images
    measured: Predictor  # of the images of FIT: `figures` are what it is worth
    figures: list[Figure]
    images: int

    @property
    def voted_only(self) -> int:
        return len(self.predictor.categories) - len(self.predictor.classified)


def fit(embeddings: Float32s, categories: Sequence[str], products: Sequence[str], k: int, seed: int) -> FitResult:
    """Fit on images given as `embeddings` (n, dim), L2-normalised, with the category and product of each.

    Raises NotPredictable where fewer than two categories have MIN_PRODUCTS products.
    """
    names, category = np.unique(np.asarray(categories, object), return_inverse=True)
    _, product = np.unique(np.asarray(products, object), return_inverse=True)
    part, classified = split_by_product(category, product, seed)
    if len(classified) < 2 or not all((part == side).any() for side in (CALIBRATE, TEST)):
        raise NotPredictable(
            f"categories can't be told apart: {len(classified)} of {len(names)} have {MIN_PRODUCTS} products with "
            "images, and two must; with one category alone there is nothing to predict"
        )
    fitted = part == FIT
    weights, bias = _train_classifier(embeddings[fitted], category[fitted], classified)
    predictor = Predictor(
        tuple(names.tolist()), classified, weights, bias, embeddings[fitted], category[fitted], k, 1.0, 1.0, 0.5, 1.0
    )
    measured = calibrate(predictor, embeddings[part == CALIBRATE], category[part == CALIBRATE])
    test = part == TEST
    figures = _measure(measured, embeddings[test], category[test], product[test], seed)
    weights, bias = _train_classifier(embeddings, category, classified)
    whole = replace(measured, weights=weights, bias=bias, references=embeddings, reference_categories=category)
    return FitResult(whole, measured, figures, len(category))


def split_by_product(category: Int64s, product: Int64s, seed: int) -> tuple[Codes, Int64s]:
    """The side (n,) of each image, and the categories with enough products to be on all sides.

    Products are dealt out within the category of their first image, so that each category is on every side. If a
    category would have no product on the side of FIT, all its products go there.
    """
    _, first = np.unique(product, return_index=True)
    home = category[first]
    order = np.random.default_rng(seed).permutation(len(first))
    order = order[np.argsort(home[order], kind="stable")]
    sizes = np.bincount(home, minlength=category.max() + 1)
    place = np.empty(len(first), np.int64)
    place[order] = np.arange(len(first)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    held = np.maximum(1, np.rint(_SHARE * sizes)).astype(np.int64)[home]
    side = np.where(place < held, TEST, np.where(place < 2 * held, CALIBRATE, FIT))
    pairs = np.unique(np.stack([category, product]), axis=1)
    products = np.bincount(pairs[0], minlength=len(sizes))
    lacking = np.setdiff1d(pairs[0], category[side[product] == FIT])  # of products that are at home elsewhere
    side[pairs[1][np.isin(pairs[0], lacking)]] = FIT
    return side[product], np.flatnonzero(products >= MIN_PRODUCTS)


def _train_classifier(embeddings: Float32s, category: Int64s, classified: Int64s) -> tuple[Float32s, Float32s]:
    """Weights (m, dim) and bias (m,) for the m `classified` categories, which all occur."""
    known = np.isin(category, classified)
    model = LogisticRegression(C=_C, max_iter=_ITERATIONS).fit(embeddings[known], category[known])
    weights, bias = model.coef_, model.intercept_
    if len(weights) == 1:  # of two categories it only has the second one's
        weights, bias = np.concatenate([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
    return weights.astype(np.float32), bias.astype(np.float32)


def calibrate(predictor: Predictor, embeddings: Float32s, category: Int64s) -> Predictor:
    """`predictor` with the temperatures and the weight that suit these images best."""
    count = len(predictor.categories)
    known = np.isin(category, predictor.classified)
    logits = compute_logits(predictor, embeddings[known])
    place = np.searchsorted(predictor.classified, category[known])
    hot = _minimize(lambda t: _loss(softmax(logits / t), place), *_TEMPERATURES)
    scores, rows = find_references(embeddings, predictor.references, predictor.k)
    codes = predictor.reference_categories[rows]
    vote_hot = _minimize(lambda t: _loss(count_votes(scores, codes, t, count), category), *_VOTE_TEMPERATURES)
    parts = replace(predictor, classifier_temperature=hot, vote_temperature=vote_hot)
    classifier, vote = parts.classify(embeddings), parts.vote(embeddings)
    weight = float(min(_WEIGHTS, key=lambda w: _loss(fuse(classifier, vote, w), category)))
    fused = fuse(classifier, vote, weight)
    temperature = _minimize(lambda t: _loss(apply_temperature(fused, t), category), *_TEMPERATURES)
    return replace(parts, weight=weight, temperature=temperature)


def _minimize(loss: Callable[[float], float], low: float, high: float) -> float:
    """Find where between `low` and `high` the loss is least, on a logarithmic scale."""
    result = minimize_scalar(lambda log: loss(float(np.exp(log))), bounds=np.log([low, high]), method="bounded")
    return float(np.exp(result.x))


def _loss(probabilities: Float64s, codes: Int64s) -> float:
    """Mean negative log-likelihood of the true `codes` (n,) under (n, C)."""
    return float(-np.log(np.maximum(probabilities[np.arange(len(codes)), codes], 1e-12)).mean())


def _measure(predictor: Predictor, embeddings: Float32s, category: Int64s, product: Int64s, seed: int) -> list[Figure]:
    fused = predictor.predict(embeddings)
    parts = {"classifier": predictor.classify(embeddings), "vote": predictor.vote(embeddings), "fused": fused}
    hits = {f"{name}_accuracy@{k}": mark_hits(said, category, k) for name, said in parts.items() for k in (1, 3)}
    intervals = share_intervals(np.stack(list(hits.values())).astype(np.float64), product, seed)
    figures = [
        Figure(name, float(right.mean()), float(low), float(high), len(right))
        for (name, right), low, high in zip(hits.items(), *intervals, strict=True)
    ]
    plain = replace(predictor, classifier_temperature=1.0, vote_temperature=1.0, temperature=1.0)
    for name, probabilities in (("ece_before", plain.predict(embeddings)), ("ece_after", fused)):
        error = calibration_error(probabilities.max(axis=1), mark_hits(probabilities, category, 1))
        figures.append(Figure(name, error, None, None, len(category)))
    return figures


def mark_hits(probabilities: Float64s, category: Int64s, k: int) -> NDArray[np.bool_]:
    """(n,) whether the true category is among the k most probable of (n, C)."""
    top = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return np.asarray((top == category[:, None]).any(axis=1))


def calibration_error(confidence: Float64s, right: NDArray[np.bool_]) -> float:
    """Expected calibration error (Guo et al. 2017): by bins of `confidence` (n,), the mean gap to the share `right`."""
    bins = np.minimum((confidence * _BINS).astype(np.int64), _BINS - 1)
    gaps = np.bincount(bins, weights=confidence - right)
    return float(np.abs(gaps).sum() / len(confidence))


def fit_same_product(pairs: Sequence[Pair], seed: int) -> tuple[SameProduct, Figure] | str:
    """Fit on six of ten products and measure on the others; or say why scores can't tell."""
    _, product = np.unique([pair.product_id for pair in pairs], return_inverse=True)
    products = int(product.max(initial=-1)) + 1
    if products < MIN_PAIRED:
        return f"{products} of the products drawn have two unlike images, and {MIN_PAIRED} must"
    fitted = np.random.default_rng(seed).permutation(products)[product] < 0.6 * products
    scores = np.array([(pair.same, pair.other) for pair in pairs])
    same = np.broadcast_to([True, False], scores.shape)
    line = LogisticRegression(C=np.inf).fit(scores[fitted].reshape(-1, 1), same[fitted].ravel())
    same_product = SameProduct(float(line.coef_[0, 0]), float(line.intercept_[0]))
    if same_product.slope <= 0:
        return "the nearest image of another product is as a rule nearer than other images of the same product"
    test = scores[~fitted].ravel()
    error = calibration_error(same_product.probability(test), same[~fitted].ravel())
    return same_product, Figure("same_product_ece", error, None, None, len(test))
