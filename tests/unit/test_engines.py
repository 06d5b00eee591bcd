"""Engines against torch."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

from lookalike.config import ModelSettings, Precision
from lookalike.errors import ModelInvalid
from lookalike.kernels.models.engines import Engine, choose_engine
from lookalike.kernels.models.load import Model, load_model
from lookalike.kernels.pictures.images import DecodedPicture, decode


def tiny(folder: Path, name: str = "test_efficientnet") -> Model:
    torch.manual_seed(0)
    torch.save(timm.create_model(name).state_dict(), folder / "weights.pt")
    return load_model(ModelSettings(name=f"timm/{name}", weights=str(folder / "weights.pt")))


@pytest.mark.parametrize("name", ["test_efficientnet", "test_vit", "test_convnext"])
def test_openvino_agrees_with_torch_for_any_number_of_images(tmp_path: Path, name: str) -> None:
    model = tiny(tmp_path, name)
    torch_forward = choose_engine(model, "torch", threads=1, device="cpu")
    openvino_forward = choose_engine(model, "openvino", threads=1, device="cpu")
    for n in (1, 3, 2, 7):
        images = np.random.default_rng(n).integers(0, 256, (n, 160, 160, 3), dtype=np.uint8)
        expected, found = torch_forward(images), openvino_forward(images)
        assert expected.shape == found.shape == (n, model.dim)
        assert expected.dtype == found.dtype == np.float32
        assert (expected * found).sum(axis=1).min() >= 1 - 1e-3
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "least"), [("float32", 1 - 1e-3), ("bfloat16", 0.98)])
@pytest.mark.parametrize("engine", ["torch", "auto"])
def test_the_default_model_agrees_on_real_pictures(
    shared_data: Path, engine: Engine, precision: Precision, least: float
) -> None:
    model = load_model(ModelSettings(precision=precision))
    paths = [
        *sorted((shared_data / "magento").rglob("*.jpg"))[::64],
        *sorted((shared_data / "clothing").rglob("*.jpg"))[::400],
    ]
    decoded = [decode(path.read_bytes(), model.preprocessing, 10**8, 16) for path in paths]
    images = np.stack([picture.pixels for picture in decoded if isinstance(picture, DecodedPicture)])
    expected = choose_engine(load_model(ModelSettings()), "torch", threads=2, device="cpu")(images)
    found = choose_engine(model, engine, threads=2, device="cpu")(images)
    assert len(images) > 10
    assert found.dtype == np.float32
    assert (expected * found).sum(axis=1).min() >= least


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_a_result_is_not_overwritten_by_the_next(tmp_path: Path, engine: Engine) -> None:
    forward = choose_engine(tiny(tmp_path), engine, threads=1, device="cpu")
    images = np.random.default_rng(0).integers(0, 256, (2, 160, 160, 3), dtype=np.uint8)
    first = forward(images)
    kept = first.copy()
    forward(images[::-1].copy())
    np.testing.assert_array_equal(first, kept)


class Untraceable(torch.nn.Module):
    """A trace of it keeps the values of the traced pictures."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        means = torch.from_numpy(images.numpy().mean(axis=(1, 2), dtype=np.float32))
        return torch.nn.functional.normalize(means + 1e-3, dim=1)


def test_auto_falls_back_to_torch_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    untraceable: Any = Untraceable()
    model = Model(untraceable, tiny(tmp_path).preprocessing, "untraceable-0", 3)
    with caplog.at_level(logging.WARNING):
        forward = choose_engine(model, "auto", threads=1, device="cpu")
    assert "untraceable-0" in caplog.text
    images = np.full((2, 160, 160, 3), (3, 4, 0), dtype=np.uint8)
    np.testing.assert_allclose(forward(images), [[0.6, 0.8, 0]] * 2, atol=1e-3)
    with pytest.raises(ModelInvalid, match=r"untraceable-0.*embed\.engine=torch"):
        choose_engine(model, "openvino", threads=1, device="cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_half_precision_on_a_gpu_agrees(tmp_path: Path) -> None:
    model = tiny(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (5, 160, 160, 3), dtype=np.uint8)
    expected = choose_engine(model, "torch", threads=1, device="cpu")(images)
    found = choose_engine(model, "auto", threads=1, device="cuda")(images)
    assert found.dtype == np.float32
    assert (expected * found).sum(axis=1).min() >= 1 - 1e-3
