"""What a training made a model forget: how well it finds, before and after, pictures of another kind.

The pictures come with the library: photos of groceries, on which no model is trained. One photo of each product is the
gallery, all others are queries; the mean is taken over many random galleries, as photos of a product come in bursts.
"""

import importlib.resources
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lookalike.config import EmbedSettings
from lookalike.kernels.models.engines import choose_engine
from lookalike.kernels.models.load import Model
from lookalike.kernels.pictures.images import DecodedPicture, decode

KS = (1, 5)
_GALLERIES = 50
_BATCH = 32


@dataclass(frozen=True)
class Forgetting:
    """recall@k before and after training, for each k of KS."""

    before: tuple[float, ...]
    after: tuple[float, ...]

    @property
    def loss(self) -> float:
        """What recall@1 lost; negative where it gained."""
        return self.before[0] - self.after[0]


def measure_forgetting(before: Model, after: Model, threads: int) -> Forgetting:
    """Measure both models on the pictures that come with the library, on the CPU."""
    products, pictures = _read_pictures()
    return Forgetting(*(_measure_recall(_embed(model, pictures, threads), products) for model in (before, after)))


def _read_pictures() -> tuple[NDArray[np.str_], list[bytes]]:
    file = importlib.resources.files("lookalike") / "outside" / "pictures.parquet"
    rows = pq.read_table(BytesIO(file.read_bytes()))
    return np.array(rows["product"].to_pylist()), rows["picture"].to_pylist()


def _embed(model: Model, pictures: list[bytes], threads: int) -> NDArray[np.float32]:
    forward = choose_engine(model, "auto", threads, "cpu")
    return np.concatenate([forward(batch) for batch in _decode_batches(model, pictures)])


def _decode_batches(model: Model, pictures: list[bytes]) -> Iterator[NDArray[np.uint8]]:
    limits = EmbedSettings()
    for start in range(0, len(pictures), _BATCH):
        decoded = (
            decode(content, model.preprocessing, limits.max_pixels, limits.min_side_px)
            for content in pictures[start : start + _BATCH]
        )
        yield np.stack([picture.pixels for picture in decoded if isinstance(picture, DecodedPicture)])


def _measure_recall(embeddings: NDArray[np.float32], products: NDArray[np.str_]) -> tuple[float, ...]:
    """recall@k by one random picture of each product, the mean over galleries; the same ones for each model."""
    rng = np.random.default_rng(0)
    names = np.unique(products)
    scores = embeddings @ embeddings.T
    hits = []
    for _ in range(_GALLERIES):
        gallery = np.array([rng.choice(np.flatnonzero(products == name)) for name in names])
        queries = np.setdiff1d(np.arange(len(products)), gallery)
        nearest = np.argsort(-scores[np.ix_(queries, gallery)], axis=1, kind="stable")[:, : max(KS)]
        is_right = names[nearest] == products[queries, None]
        hits.append([is_right[:, :k].any(axis=1).mean() for k in KS])
    return tuple(float(value) for value in np.mean(hits, axis=0))
