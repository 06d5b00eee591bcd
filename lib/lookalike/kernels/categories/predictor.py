"""Which category a query photo is of: a classifier and the vote of its nearest images, fused and calibrated.

The fusion is Pailitao's (Zhang et al., "Visual Search at Alibaba", KDD 2018): what the model says and what search finds
err in different ways. The classifier is a softmax over a linear map of the embedding; each of the k nearest reference
images votes for its category with the softmax of score / temperature; both probabilities are added with a weight. The
temperatures (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017) make them honest: of the queries that
get a category with 0.7, seven of ten are of it.

This module holds what services need; `fit` makes it.
"""

import zipfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lookalike import FORMAT_VERSION, files
from lookalike.errors import FormatTooNew, NotPredictable, PredictorDamaged
from lookalike.kernels.index.shards import fetch_verified, make_cache_folder

Float32s = NDArray[np.float32]
Float64s = NDArray[np.float64]
Int64s = NDArray[np.int64]

_FLOOR = 1e-3  # share of the vote that all categories share, so that none is impossible
_QUERY_ROWS = 256
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip file can say


@dataclass(frozen=True)
class Predictor:
    """What predicts one of C categories; all that a file holds."""

    categories: Sequence[str]  # (C,) sorted
    classified: Int64s  # (m,) codes of those that the classifier knows, ascending; the others are voted only
    weights: Float32s  # (m, dim)
    bias: Float32s  # (m,)
    references: Float32s  # (n, dim) L2-normalised: the images that vote
    reference_categories: Int64s  # (n,) codes
    k: int
    classifier_temperature: float
    vote_temperature: float
    weight: float  # of the classifier
    temperature: float

    @property
    def dim(self) -> int:
        return int(self.references.shape[1])

    def predict(self, embeddings: Float32s) -> Float64s:
        """(q, C) calibrated probability of each category for each of `embeddings` (q, dim), L2-normalised."""
        probabilities = np.empty((len(embeddings), len(self.categories)))
        for start in range(0, len(embeddings), _QUERY_ROWS):
            some = embeddings[start : start + _QUERY_ROWS]
            fused = fuse(self.classify(some), self.vote(some), self.weight)
            probabilities[start : start + len(some)] = apply_temperature(fused, self.temperature)
        return probabilities

    def classify(self, embeddings: Float32s) -> Float64s:
        """(q, C) what the classifier alone says; 0 for categories that it does not know."""
        probabilities = np.zeros((len(embeddings), len(self.categories)))
        probabilities[:, self.classified] = softmax(compute_logits(self, embeddings) / self.classifier_temperature)
        return probabilities

    def vote(self, embeddings: Float32s) -> Float64s:
        """(q, C) what the vote alone says."""
        scores, rows = find_references(embeddings, self.references, self.k)
        return count_votes(scores, self.reference_categories[rows], self.vote_temperature, len(self.categories))


def compute_logits(predictor: Predictor, embeddings: Float32s) -> Float64s:
    """(q, m) logits of the classifier."""
    return np.asarray(embeddings @ predictor.weights.T + predictor.bias, np.float64)


def softmax(values: NDArray[Any]) -> Float64s:
    """(q, n) of each line."""
    powers = np.exp(values - values.max(axis=1, keepdims=True), dtype=np.float64)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def find_references(embeddings: Float32s, references: Float32s, k: int) -> tuple[Float32s, Int64s]:
    """Scores and rows (q, k) of the nearest of `references` (n, dim), in no order; fewer columns where n < k."""
    scores = embeddings @ references.T
    if k >= len(references):
        return scores, np.broadcast_to(np.arange(len(references)), scores.shape)
    rows = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    return np.take_along_axis(scores, rows, axis=1), rows


def count_votes(scores: Float32s, codes: Int64s, temperature: float, categories: int) -> Float64s:
    """(q, categories) shares of the votes of images with these `scores` and category `codes`, both (q, k)."""
    votes = np.full((len(scores), categories), _FLOOR / categories)
    shares = (1 - _FLOOR) * softmax(scores / temperature)
    np.add.at(votes, (np.arange(len(scores))[:, None], codes), shares)
    return votes


def fuse(classifier: Float64s, vote: Float64s, weight: float) -> Float64s:
    """(q, C) weighted mean of both. Categories that the classifier does not know get their vote alone."""
    unknown = np.where(classifier.any(axis=0), 0.0, vote)
    heard = classifier * (1 - unknown.sum(axis=1, keepdims=True)) + unknown
    return np.asarray(weight * heard + (1 - weight) * vote)


def apply_temperature(probabilities: Float64s, temperature: float) -> Float64s:
    """(q, C) flatter where `temperature` is above 1, steeper below, summing to 1 again."""
    with np.errstate(divide="ignore"):
        return softmax(np.log(probabilities) / temperature)


def predict_among(
    predictor: Predictor, embeddings: Float32s, categories: Collection[str]
) -> tuple[list[str], Float64s]:
    """The n of `categories` that the predictor knows, and their probabilities (q, n), which sum to 1.

    Raises NotPredictable if it knows none.
    """
    known = [place for place, name in enumerate(predictor.categories) if name in categories]
    if not known:
        raise NotPredictable("none of these categories was there when fit_categories last ran: run it again")
    probabilities = predictor.predict(embeddings)[:, known]
    return [predictor.categories[place] for place in known], probabilities / probabilities.sum(axis=1, keepdims=True)


def count_most_probable(probabilities: Float64s, share: float) -> int:
    """How many categories, the most probable first, it takes for their `probabilities` (C,) to sum to `share`.

    For a share of 1 it takes all of them, however improbable the last ones are.
    """
    if share >= 1:
        return len(probabilities)
    sums = np.cumsum(np.sort(probabilities)[::-1])
    return int(np.searchsorted(sums, share * sums[-1] - 1e-9)) + 1


def write_predictor(path: Path, predictor: Predictor) -> None:
    """Write the predictor as .npz, without pickles; equal predictors give equal bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        for field in fields(predictor):
            array = np.asarray(getattr(predictor, field.name))
            if field.name == "references":
                array = array.astype(np.float16)
            with archive.open(zipfile.ZipInfo(f"{field.name}.npy", _EPOCH), "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


def read_predictor(path: Path) -> Predictor:
    """The predictor that `write_predictor` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        values: dict[str, Any] = {field.name: arrays[field.name] for field in fields(Predictor)}
    values = {name: value if value.ndim else value.item() for name, value in values.items()}
    values["categories"] = tuple(values["categories"].tolist())
    values["references"] = values["references"].astype(np.float32)
    return Predictor(**values)


def open_predictor(root: str, row: Mapping[str, Any], cache: Path | None = None) -> Predictor:
    """The predictor that `row` of `category_predictors` describes, its file checked as those of shards are.

    Raises PredictorDamaged, FormatTooNew.
    """
    uri = files.join(root, row["path"])
    if row["format_version"] > FORMAT_VERSION:
        raise FormatTooNew(
            f"{uri} has format {row['format_version']}, this library reads up to {FORMAT_VERSION}: upgrade lookalike"
        )
    mend = "run fit_categories"
    folder = make_cache_folder(cache)
    return read_predictor(fetch_verified(uri, row["sha256"], row["size_bytes"], folder, PredictorDamaged, mend))


def pick_latest(rows: Iterable[Mapping[str, Any]], model_id: str) -> Mapping[str, Any]:
    """The row of `category_predictors` that serves the model: the one fitted last. Raises NotPredictable."""
    ours = [row for row in rows if row["model_id"] == model_id]
    if not ours:
        raise NotPredictable(
            f"categories of embeddings of model {model_id} can't be predicted yet: run fit_categories, or name them"
        )
    return max(ours, key=lambda row: (row["fitted_at"], row["path"]))
