"""Models: a name, or a file that was fitted, becomes a module from uint8 pictures to L2-normalised embeddings.

Preprocessing comes with the weights, never from a setting: another mean or deviation costs recall silently. But for the
size: a network that is used at a somewhat larger one than it was trained at finds more, as training pictures are crops
in which things look larger (Touvron et al., "Fixing the train-test resolution discrepancy", 2019).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lookalike.config import ModelSettings, Precision
from lookalike.errors import ModelInvalid
from lookalike.kernels.models import model_file
from lookalike.kernels.models.embedding import Embedding
from lookalike.kernels.models.networks import Network, Preprocessing, load_network, load_tensors


@dataclass(frozen=True)
class Model:
    """`module`: uint8 RGB (n, size_px, size_px, 3) -> float32 (n, dim), L2-normalised; in eval mode, on the CPU."""

    module: Embedding
    preprocessing: Preprocessing
    model_id: str
    dim: int
    precision: Precision = "float32"


def load_model(settings: ModelSettings) -> Model:
    """The model that `settings` names, ready for `lookalike.kernels.models.engines`.

    Raises ModelInvalid for an unknown name or layer, weights that can't be had, and a file that is none of this model.
    """
    fitted = model_file.resolve(settings)
    loaded = load_network(fitted.settings)
    if fitted.network:
        load_tensors(loaded.network, settings.name, {**loaded.network.state_dict(), **fitted.network})
    loaded.network.eval().requires_grad_(False)
    module = Embedding(loaded, fitted.settings, fitted.projections).eval()
    if size_px := fitted.settings.size_px:
        loaded = replace(loaded, preprocessing=replace(loaded.preprocessing, size_px=size_px))
    model_id = f"{loaded.name}-{_compute_fingerprint(fitted, loaded)}"
    dim = _measure_dim(module, loaded.preprocessing.size_px, settings)
    return Model(module, loaded.preprocessing, model_id, dim, fitted.settings.precision)


def resize_input(model: Model, size_px: int) -> Model:
    """`model` for pictures of another size, with the same model_id. Raises ModelInvalid where it takes its own only."""
    _embed_grey(model.module, size_px, model.model_id)
    return replace(model, preprocessing=replace(model.preprocessing, size_px=size_px))


def _compute_fingerprint(fitted: model_file.ModelFile, loaded: Network) -> str:
    """12 hex digits of sha256 over the recipe and every tensor, by name: the same on every machine."""
    settings = fitted.settings
    layer: Any = settings.layer if len(settings.layer) > 1 else settings.layer[0]
    recipe = [loaded.architecture, layer, settings.pooling, asdict(loaded.preprocessing)]
    # What came later is named only where it is used, so that a model without it keeps its model_id.
    extras = settings.model_dump(include={"flip", "colour_weight", "precision"}, exclude_defaults=True)
    recipe += [{name: value} for name, value in extras.items()]
    digest = hashlib.sha256(json.dumps(recipe).encode())
    _add_tensors(digest, loaded.network.state_dict())
    _add_tensors(digest, fitted.projection_tensors())
    return digest.hexdigest()[:12]


def _add_tensors(digest: "hashlib._Hash", tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)


def _measure_dim(module: Embedding, size_px: int, settings: ModelSettings) -> int:
    """The embedding's dim, from one forward pass. Raises ModelInvalid where layer or weights give no embedding."""
    where = f"layer {', '.join(settings.layer)!r} of {settings.name}"
    try:
        embedding = _embed_grey(module, size_px, settings.name)
    except (TypeError, ValueError, IndexError) as error:
        raise ModelInvalid(
            f"{where} gives no embedding ({error}); set model.layer to `features` or to another"
        ) from error
    if embedding.ndim != 2 or not torch.isfinite(embedding).all():
        raise ModelInvalid(f"{where} gives no finite embedding: shape {tuple(embedding.shape)}; check model.weights")
    return int(embedding.shape[1])


def _embed_grey(module: Embedding, size_px: int, name: str) -> Tensor:
    """Of a grey picture, in one forward pass. Raises ModelInvalid where the network does not take this size."""
    try:
        with torch.inference_mode():
            return module(torch.full((1, size_px, size_px, 3), 99, dtype=torch.uint8))  # type: ignore[no-any-return]
    except (AssertionError, RuntimeError) as error:
        raise ModelInvalid(
            f"{name} takes no pictures of {size_px} pixels ({str(error).partition(chr(10))[0]}): leave out size_px"
        ) from error
