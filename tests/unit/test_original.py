"""Which axes are kept of a network as it was: against numpy's own decomposition."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from lookalike.config import ModelSettings
from lookalike.kernels.models import colour
from lookalike.kernels.models.embedding import Embedding
from lookalike.kernels.models.load import Model, load_model
from lookalike.kernels.models.original import keep_original

NETWORK, WIDTH = "test_efficientnet", 256


@pytest.fixture
def weights(tmp_path: Path) -> str:
    torch.manual_seed(0)
    torch.save(timm.create_model(NETWORK).state_dict(), tmp_path / "weights.pt")
    return str(tmp_path / "weights.pt")


def embedding_of(model: Model) -> Embedding:
    assert isinstance(model.module, Embedding)
    return model.module


def shared_variance(axes: np.ndarray, rows: np.ndarray) -> float:
    """Which share of the sum of squares of `rows` lies on `axes`."""
    return float(np.square(rows @ axes.T).sum() / np.square(rows).sum())


def test_the_axes_in_which_the_classifier_tells_classes_apart(weights: str) -> None:
    model = load_model(ModelSettings(name=f"timm/{NETWORK}", weights=weights))
    kept = keep_original(embedding_of(model), torch.randn(40, WIDTH), 0.3, 10)
    axes, bias = (tensor.numpy() for tensor in kept.projection)
    assert (kept.share, axes.shape, bias.tolist()) == (0.3, (10, WIDTH), [0.0] * 10)
    np.testing.assert_allclose(axes @ axes.T, np.eye(10), atol=1e-5)
    classifier = torch.load(weights)["classifier.weight"].numpy()
    centred = classifier - classifier.mean(axis=0)
    most = np.sort(np.linalg.eigvalsh(centred.T @ centred))[::-1]
    assert shared_variance(axes, centred) == pytest.approx(most[:10].sum() / most.sum(), rel=1e-4)


def test_colours_keep_the_axes_of_the_training_pictures(weights: str) -> None:
    model = load_model(ModelSettings(name=f"timm/{NETWORK}", weights=weights, colour_weight=0.2))
    embeddings = torch.rand(200, WIDTH + colour.DIM)
    axes = keep_original(embedding_of(model), embeddings, 0.5, 100).projection[0].numpy()
    assert axes.shape == (100, WIDTH + colour.DIM)
    assert not axes[:36, WIDTH:].any()
    assert not axes[36:, :WIDTH].any()
    colours = embeddings[:, WIDTH:].numpy()
    most = np.sort(np.linalg.eigvalsh(colours.T @ colours))[::-1]
    assert shared_variance(axes[36:, WIDTH:], colours) == pytest.approx(most[:64].sum() / most.sum(), rel=1e-4)


def test_without_a_classifier_of_that_width_the_axes_of_the_training_pictures(weights: str) -> None:
    model = load_model(ModelSettings(name=f"timm/{NETWORK}", weights=weights, layer=("blocks.2",)))
    embeddings = torch.rand(200, model.dim)
    axes = keep_original(embedding_of(model), embeddings, 0.5, 5).projection[0].numpy()
    rows = embeddings.numpy()
    most = np.sort(np.linalg.eigvalsh(rows.T @ rows))[::-1]
    assert shared_variance(axes, rows) == pytest.approx(most[:5].sum() / most.sum(), rel=1e-4)
