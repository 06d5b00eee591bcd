"""Model files: what was fitted to a catalog, on top of a network by name, as one .safetensors file.

Its header holds the settings of the network that it stands on; its tensors are `network.NAME`, where training changed
them, and `projections.N.weight` (out, in) and `.bias` (out,), applied one after the other. No code is in it.
"""

import importlib.resources
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pydantic
import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from lookalike import files
from lookalike.config import DEFAULT_MODEL, ModelSettings
from lookalike.errors import ModelInvalid

_HEADER = "lookalike"
_FORMAT_VERSION = 1
_DEFAULT = importlib.resources.files("lookalike") / "default_model" / "default.safetensors"


@dataclass(frozen=True)
class ModelFile:
    """`settings` of the network below; `network` tensors that replace its own, by name; `projections` in order.

    `figures`: how the training went, if there was one; no part of the model_id.
    """

    settings: ModelSettings
    network: Mapping[str, Tensor] = field(default_factory=dict)
    projections: tuple[tuple[Tensor, Tensor], ...] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)

    def projection_tensors(self) -> dict[str, Tensor]:
        """Weights and biases by the names that they have in the file."""
        return {
            f"projections.{number}.{name}": tensor
            for number, pair in enumerate(self.projections)
            for name, tensor in zip(("weight", "bias"), pair, strict=True)
        }

    def with_projection(self, weight: Tensor, bias: Tensor) -> "ModelFile":
        """Return the same model with one more projection."""
        return ModelFile(self.settings, self.network, (*self.projections, (weight, bias)), self.figures)


def resolve(settings: ModelSettings) -> ModelFile:
    """Read the model file that `settings` name, or make one of the bare network. Raises ModelInvalid."""
    return read(settings) if settings.is_file or settings.name == DEFAULT_MODEL else ModelFile(settings)


def read(settings: ModelSettings) -> ModelFile:
    """The model file that `settings.name` names. `precision` may be set beside it. Raises ModelInvalid."""
    others = settings.model_dump(exclude={"name", "precision"}, exclude_defaults=True)
    if others:
        named = ", ".join(f"model.{name}" for name in others)
        raise ModelInvalid(
            f"{named} can't be set beside the model file {settings.name}, which says it itself; set model.name to a "
            "network too, such as efficientnet_lite0"
        )
    try:
        content = _DEFAULT.read_bytes() if settings.name == DEFAULT_MODEL else files.read_bytes(settings.name)
    except Exception as error:  # every file system has its own
        raise ModelInvalid(
            f"model file {settings.name} can't be read ({type(error).__name__}: {error}); "
            "set model.name to a file that fit_pca or fine_tune wrote"
        ) from error
    try:
        tensors = safetensors.torch.load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        recipe = json.loads(header.get("__metadata__", {}).get(_HEADER, "null"))
    except (SafetensorError, ValueError) as error:
        raise ModelInvalid(f"model file {settings.name} is damaged ({error}); write it anew") from error
    if not isinstance(recipe, dict):
        raise ModelInvalid(f"{settings.name} was not written by fit_pca or fine_tune; a state dict is model.weights")
    if recipe.get("format_version", 0) > _FORMAT_VERSION:
        raise ModelInvalid(f"model file {settings.name} was written by a newer version of lookalike: upgrade it")
    try:
        base = ModelSettings.model_validate(recipe.get("model"))
    except pydantic.ValidationError as error:
        raise ModelInvalid(f"model file {settings.name} is damaged ({error}); write it anew") from error
    network = {name.removeprefix("network."): t for name, t in tensors.items() if name.startswith("network.")}
    count = sum(bool(re.fullmatch(r"projections\.\d+\.weight", name)) for name in tensors)
    projections = [(tensors[f"projections.{n}.weight"], tensors[f"projections.{n}.bias"]) for n in range(count)]
    if settings.precision != "float32":
        base = base.model_copy(update={"precision": settings.precision})
    return ModelFile(base, network, tuple(projections), recipe.get("figures", {}))


def write(uri: str, model: ModelFile) -> None:
    """Write `model` to `uri`, a new file or in place of one, whole or not at all."""
    recipe = {
        "format_version": _FORMAT_VERSION,
        "model": model.settings.model_dump(mode="json", exclude_defaults=True),
        "figures": model.figures,
    }
    tensors = {f"network.{name}": tensor for name, tensor in model.network.items()} | model.projection_tensors()
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with files.write_atomically(uri) as path:
        # Not save_file, whose files nobody but their owner can read.
        path.write_bytes(safetensors.torch.save(tensors, metadata={_HEADER: json.dumps(recipe)}))
