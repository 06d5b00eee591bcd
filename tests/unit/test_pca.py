"""PCA from sums against numpy's singular value decomposition."""

import numpy as np
import pytest

from lookalike.kernels.models.pca import Moments, fit_projection


def embeddings(n: int, dim: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(n, dim)) * np.linspace(3, 0.1, dim) + rng.normal(size=dim)
    return values.astype(np.float32)


@pytest.mark.parametrize("whitening", [0.0, 0.5, 1.0])
def test_projection_from_parts_is_that_of_the_whole(whitening: float) -> None:
    values = embeddings(500, 24)
    parts = [Moments.of(part) for part in np.split(values, [7, 300])]
    total = parts[0] + parts[1] + Moments.from_bytes(parts[2].n, parts[2].to_bytes())
    weight, bias = fit_projection(total, 6, whitening)
    found = values @ weight.numpy().T + bias.numpy()

    centred = values - values.mean(axis=0)
    _, lengths, axes = np.linalg.svd(centred.astype(np.float64), full_matrices=False)
    expected = centred @ axes[:6].T
    expected /= (lengths[:6] / np.sqrt(len(values))) ** whitening
    signs = np.sign(np.sum(found * expected, axis=0))
    np.testing.assert_allclose(found, expected * signs, atol=2e-3)


def test_whitening_leaves_axes_without_variance_small() -> None:
    values = embeddings(200, 10)
    values[:, 5:] = values[:, :5]  # rank 5
    weight, bias = fit_projection(Moments.of(values), 9, whitening=1.0)
    assert np.abs(values @ weight.numpy().T + bias.numpy()).max() < 20
