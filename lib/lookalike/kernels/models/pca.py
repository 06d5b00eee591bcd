"""Principal components of embeddings, from sums that can be added up in any order."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]

_LEAST_VARIANCE = 1e-6  # of the largest: a component with less is noise, which whitening must not blow up


@dataclass(frozen=True)
class Moments:
    """Of `n` embeddings: `sums` (dim,) and `products` (dim, dim), the sum of their outer products."""

    n: int
    sums: Floats
    products: Floats

    @property
    def dim(self) -> int:
        return len(self.sums)

    @classmethod
    def of(cls, embeddings: NDArray[np.float32]) -> "Moments":
        """Of embeddings (n, dim)."""
        values = embeddings.astype(np.float64)
        return cls(len(values), values.sum(axis=0), values.T @ values)

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(self.n + other.n, self.sums + other.sums, self.products + other.products)

    def to_bytes(self) -> bytes:
        return np.vstack([self.sums, self.products]).tobytes()

    @classmethod
    def from_bytes(cls, n: int, values: bytes) -> "Moments":
        """What `to_bytes` gave."""
        numbers = np.frombuffer(values)
        dim = math.isqrt(len(numbers))  # of dim * (dim + 1) numbers
        rows = numbers.reshape(dim + 1, dim)
        return cls(n, rows[0], rows[1:])


def fit_projection(moments: Moments, dim: int, whitening: float) -> tuple[Tensor, Tensor]:
    """Weight (dim, moments.dim) and bias (dim,) in float32: on the `dim` main axes around the mean.

    `whitening` is 0 where every axis keeps the weight that it has in the catalog, 1 where all count the same. The sign
    of an axis is that of its largest entry, on every machine.
    """
    mean = moments.sums / moments.n
    variances, axes = np.linalg.eigh(moments.products / moments.n - np.outer(mean, mean))
    variances, axes = variances[::-1][:dim], axes[:, ::-1][:, :dim]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(dim)])
    axes = axes / np.maximum(variances, _LEAST_VARIANCE * variances[0]) ** (whitening / 2)
    weight = axes.T
    return torch.from_numpy(weight).float(), torch.from_numpy(-weight @ mean).float()
