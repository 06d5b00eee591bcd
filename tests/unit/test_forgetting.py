"""What a training made a model forget: against a count by hand, and models that know nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lookalike.config import ModelSettings
from lookalike.kernels.models import model_file
from lookalike.kernels.models.load import build_model, load_model
from lookalike.kernels.training import forgetting
from lookalike.kernels.training.forgetting import measure_forgetting

PLAIN = ModelSettings(name="efficientnet_lite0")


def test_recall_by_one_picture_of_each_product() -> None:
    """Both pictures of a product lie together, or those of two products are exchanged one for one."""
    angles = np.repeat(np.arange(6), 2)
    embeddings = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    products = np.repeat(np.array(list("abcdef")), 2)
    assert forgetting._measure_recall(embeddings, products) == (1.0, 1.0)
    exchanged = embeddings[[0, 6, 2, 3, 4, 5, 1, 7, 8, 9, 10, 11]]  # a and d are where the other is, half of the time
    at_once, among_five = forgetting._measure_recall(exchanged, products)
    assert at_once == pytest.approx(4 / 6)
    assert among_five > at_once


def test_the_pictures_that_come_with_the_library() -> None:
    products, pictures = forgetting._read_pictures()
    assert len(pictures) == len(products) <= 300
    assert set(np.unique(products, return_counts=True)[1].tolist()) == {6}


def test_a_model_that_knows_nothing_forgot_nearly_all() -> None:
    torch.manual_seed(0)
    blind = model_file.ModelFile(PLAIN, {}, ((torch.randn(2, 1280), torch.randn(2)),))
    found = measure_forgetting(load_model(PLAIN), build_model(blind, "blind"), 2)
    assert found.before[0] > 0.4
    assert found.loss > 0.3
    assert replace(found, after=found.before).loss == 0
