"""Which category a query photo is of: a classifier and the vote of its nearest images, fused and calibrated.

The fusion is Pailitao's (Zhang et al., "Visual Search at Alibaba", KDD 2018): what the model says and what search finds
err in different ways. The classifier is a softmax over a linear map of the embedding; each of the k nearest reference
images votes for its category with the softmax of score / temperature; both probabilities are added with a weight. The
temperatures (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017) make them honest: of the queries that
get a category with 0.7, seven of ten are of it.

Here is what services need; `category_fit` fits it.
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

_FLOOR = 1e-3  # of the vote, shared by all categories, so that none is impossible
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

    def probabilities(self, embeddings: Float32s) -> Float64s:
        """(q, C) calibrated probability of each category for each of `embeddings` (q, dim), L2-normalised."""
        found = np.empty((len(embeddings), len(self.categories)))
        for start in range(0, len(embeddings), _QUERY_ROWS):
            some = embeddings[start : start + _QUERY_ROWS]
            fused = pooled(self.classifier(some), self.vote(some), self.weight)
            found[start : start + len(some)] = tempered(fused, self.temperature)
        return found

    def classifier(self, embeddings: Float32s) -> Float64s:
        """(q, C) what the classifier alone says; 0 for categories that it does not know."""
        found = np.zeros((len(embeddings), len(self.categories)))
        found[:, self.classified] = softmax(logits(self, embeddings) / self.classifier_temperature)
        return found

    def vote(self, embeddings: Float32s) -> Float64s:
        """(q, C) what the vote alone says."""
        scores, rows = nearest(embeddings, self.references, self.k)
        return votes(scores, self.reference_categories[rows], self.vote_temperature, len(self.categories))


def logits(predictor: Predictor, embeddings: Float32s) -> Float64s:
    """(q, m) of the classifier."""
    return np.asarray(embeddings @ predictor.weights.T + predictor.bias, np.float64)


def softmax(values: NDArray[Any]) -> Float64s:
    """(q, n) of each line."""
    powers = np.exp(values - values.max(axis=1, keepdims=True), dtype=np.float64)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def nearest(embeddings: Float32s, references: Float32s, k: int) -> tuple[Float32s, Int64s]:
    """Scores and rows (q, k) of the nearest of `references` (n, dim), in no order; fewer columns where n < k."""
    scores = embeddings @ references.T
    if k >= len(references):
        return scores, np.broadcast_to(np.arange(len(references)), scores.shape)
    rows = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    return np.take_along_axis(scores, rows, axis=1), rows


def votes(scores: Float32s, codes: Int64s, temperature: float, categories: int) -> Float64s:
    """(q, categories) shares of the votes of images with these `scores` and category `codes`, both (q, k)."""
    found = np.full((len(scores), categories), _FLOOR / categories)
    shares = (1 - _FLOOR) * softmax(scores / temperature)
    np.add.at(found, (np.arange(len(scores))[:, None], codes), shares)
    return found


def pooled(classifier: Float64s, vote: Float64s, weight: float) -> Float64s:
    """(q, C) both, with the classifier's weight; what it does not know, it leaves to the vote."""
    unknown = np.where(classifier.any(axis=0), 0.0, vote)
    heard = classifier * (1 - unknown.sum(axis=1, keepdims=True)) + unknown
    return np.asarray(weight * heard + (1 - weight) * vote)


def tempered(probabilities: Float64s, temperature: float) -> Float64s:
    """(q, C) flatter where `temperature` is above 1, steeper below, summing to 1 again."""
    with np.errstate(divide="ignore"):
        return softmax(np.log(probabilities) / temperature)


def among(predictor: Predictor, embeddings: Float32s, categories: Collection[str]) -> tuple[list[str], Float64s]:
    """Those of the predictor's categories that are among `categories`, and probabilities (q, these), summing to 1.

    Raises NotPredictable where it knows none.
    """
    known = [place for place, name in enumerate(predictor.categories) if name in categories]
    if not known:
        raise NotPredictable("none of these categories was there when fit_categories last ran: run it again")
    found = predictor.probabilities(embeddings)[:, known]
    return [predictor.categories[place] for place in known], found / found.sum(axis=1, keepdims=True)


def best(probabilities: Float64s, share: float) -> int:
    """How many of the categories, the most probable first, it takes until (C,) `probabilities` sum to `share`.

    All of them for 1, however improbable the last ones are.
    """
    if share >= 1:
        return len(probabilities)
    sums = np.cumsum(np.sort(probabilities)[::-1])
    return int(np.searchsorted(sums, share * sums[-1] - 1e-9)) + 1


def write(path: Path, predictor: Predictor) -> None:
    """Write the predictor as .npz, without pickles; equal predictors give equal bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        for field in fields(predictor):
            array = np.asarray(getattr(predictor, field.name))
            if field.name == "references":
                array = array.astype(np.float16)
            with archive.open(zipfile.ZipInfo(f"{field.name}.npy", _EPOCH), "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


def read(path: Path) -> Predictor:
    """The predictor that `write` wrote."""
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
    return read(fetch_verified(uri, row["sha256"], row["size_bytes"], make_cache_folder(cache), PredictorDamaged, mend))


def latest(rows: Iterable[Mapping[str, Any]], model_id: str) -> Mapping[str, Any]:
    """Of `rows` of `category_predictors` the one that serves the model: the last one fitted. Raises NotPredictable."""
    ours = [row for row in rows if row["model_id"] == model_id]
    if not ours:
        raise NotPredictable(
            f"categories of embeddings of model {model_id} can't be predicted yet: run fit_categories, or name them"
        )
    return max(ours, key=lambda row: (row["fitted_at"], row["path"]))
