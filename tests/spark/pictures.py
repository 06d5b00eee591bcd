"""Pictures of random pixels, and a network that loads in no time, for tests that read and embed."""

import hashlib
import io
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image

from lookalike.config import ModelSettings
from lookalike.kernels.models.load import load_model
from lookalike.kernels.pictures.images import DecodedPicture, decode

NETWORK = "test_efficientnet"


def model_of(folder: Path, seed: int) -> ModelSettings:
    torch.manual_seed(seed)
    path = folder / f"weights-{seed}.pt"
    torch.save(timm.create_model(NETWORK).state_dict(), path)
    return ModelSettings(name=f"timm/{NETWORK}", weights=str(path))


def picture(seed: int) -> bytes:
    file = io.BytesIO()
    values = np.random.default_rng(seed).integers(0, 256, (40 + seed % 100, 60, 3), dtype=np.uint8)
    Image.fromarray(values).save(file, "PNG")
    return file.getvalue()


def content_hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def truth(content: bytes, settings: ModelSettings) -> np.ndarray:
    """The embedding of one picture, by the model alone."""
    model = load_model(settings)
    decoded = decode(content, model.preprocessing, 10**8, 16)
    assert isinstance(decoded, DecodedPicture)
    with torch.inference_mode():
        return np.asarray(model.module(torch.from_numpy(decoded.pixels[None].copy()))[0])
