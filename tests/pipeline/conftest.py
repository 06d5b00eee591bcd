"""What tests of whole jobs share: a small model, and a catalog published once."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torchvision
from tests import catalogs


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Settings for a network that loads in no time; its weights are random."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "squeezenet.pt"
    torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), path)
    return ["model.name=torchvision/squeezenet1_1", f"model.weights={path}", "embed.engine=torch"]
