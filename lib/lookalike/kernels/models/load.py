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
from torch import Tensor, nn

from lookalike.config import ModelSettings, Precision
from lookalike.errors import ModelInvalid
from lookalike.kernels.models import model_file
from lookalike.kernels.models.embedding import Embedding, JoinedEmbedding
from lookalike.kernels.models.model_file import ModelFile, Original
from lookalike.kernels.models.networks import Network, Preprocessing, load_network, load_tensors
from lookalike.kernels.models.shared_layers import share_layers


@dataclass(frozen=True)
class Model:
    """`module`: uint8 RGB (n, size_px, size_px, 3) -> float32 (n, dim), L2-normalised; in eval mode, on the CPU."""

    module: Embedding | JoinedEmbedding
    preprocessing: Preprocessing
    model_id: str
    dim: int
    precision: Precision = "float32"


def load_model(settings: ModelSettings) -> Model:
    """The model that `settings` names, ready for `lookalike.kernels.models.engines`.

    Raises ModelInvalid for an unknown name or layer, weights that can't be had, and a file that is none of this model.
    """
    return build_model(model_file.resolve(settings), settings.name)


def build_model(fitted: ModelFile, name: str) -> Model:
    """The model in a model file, which errors call `name`. Raises ModelInvalid."""
    settings = fitted.settings
    loaded = load_network(settings)
    if fitted.network:
        load_tensors(loaded.network, name, {**loaded.network.state_dict(), **fitted.network})
    loaded.network.eval().requires_grad_(False)
    changed = Embedding(loaded, settings, fitted.projections).eval()
    module: Embedding | JoinedEmbedding = changed
    if size_px := settings.size_px:
        loaded = replace(loaded, preprocessing=replace(loaded.preprocessing, size_px=size_px))
    model_id = f"{loaded.name}-{_compute_fingerprint(fitted, loaded)}"
    if fitted.original:
        module = _join_original(changed, fitted, fitted.original, loaded.preprocessing.size_px)
    dim = _measure_dim(module, loaded.preprocessing.size_px, settings, name)
    return Model(module, loaded.preprocessing, model_id, dim, settings.precision)


def _join_original(changed: Embedding, fitted: ModelFile, original: Original, size_px: int) -> JoinedEmbedding:
    """Put the embedding of the original network beside that of the changed one; layers in common are computed once."""
    settings = fitted.original_settings
    loaded = load_network(settings)
    loaded.network.eval().requires_grad_(False)
    kept = Embedding(loaded, settings, [original.projection])
    if not settings.flip:  # a mirrored picture's pass comes before the other network took anything
        share_layers(kept.network, changed.network, fitted.network, size_px)
    return JoinedEmbedding(changed, kept, original.share, original.joined).eval()


def resize_input(model: Model, size_px: int) -> Model:
    """`model` for pictures of another size, with the same model_id. Raises ModelInvalid where it takes its own only."""
    _embed_grey(model.module, size_px, model.model_id)
    return replace(model, preprocessing=replace(model.preprocessing, size_px=size_px))


def _compute_fingerprint(fitted: ModelFile, loaded: Network) -> str:
    """12 hex digits of sha256 over the recipe and every tensor, by name: the same on every machine."""
    settings = fitted.settings
    layer: Any = settings.layer if len(settings.layer) > 1 else settings.layer[0]
    recipe = [loaded.architecture, layer, settings.pooling, asdict(loaded.preprocessing)]
    # What came later is named only where it is used, so that a model without it keeps its model_id.
    extras = settings.model_dump(include={"flip", "colour_weight", "precision"}, exclude_defaults=True)
    recipe += [{name: value} for name, value in extras.items()]
    if fitted.original:
        recipe.append({"original_share": fitted.original.share})
    digest = hashlib.sha256(json.dumps(recipe).encode())
    _add_tensors(digest, loaded.network.state_dict())
    _add_tensors(digest, fitted.projection_tensors())
    return digest.hexdigest()[:12]


def _add_tensors(digest: "hashlib._Hash", tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)


def _measure_dim(module: nn.Module, size_px: int, settings: ModelSettings, name: str) -> int:
    """The embedding's dim, from one forward pass. Raises ModelInvalid where layer or weights give no embedding."""
    where = f"layer {', '.join(settings.layer)!r} of {name}"
    try:
        embedding = _embed_grey(module, size_px, name)
    except (TypeError, ValueError, IndexError) as error:
        raise ModelInvalid(
            f"{where} gives no embedding ({error}); set model.layer to `features` or to another"
        ) from error
    if embedding.ndim != 2 or not torch.isfinite(embedding).all():
        raise ModelInvalid(f"{where} gives no finite embedding: shape {tuple(embedding.shape)}; check model.weights")
    return int(embedding.shape[1])


def _embed_grey(module: nn.Module, size_px: int, name: str) -> Tensor:
    """Of a grey picture, in one forward pass. Raises ModelInvalid where the network does not take this size."""
    try:
        with torch.inference_mode():
            return module(torch.full((1, size_px, size_px, 3), 99, dtype=torch.uint8))  # type: ignore[no-any-return]
    except (AssertionError, RuntimeError) as error:
        raise ModelInvalid(
            f"{name} takes no pictures of {size_px} pixels ({str(error).partition(chr(10))[0]}): leave out size_px"
        ) from error
