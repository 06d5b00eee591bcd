"""Model files: what was fitted to a catalog, on top of a network by name, as one .safetensors file.

Its header holds the settings of the network that it stands on; its tensors are `network.NAME`, where training changed
them, and `projections.N.weight` (out, in) and `.bias` (out,), applied one after the other. Where the original network's
embedding is kept beside that of the changed one, `original.weight` and `.bias` project it, and `joined.N.weight` and
`.bias` both together. No code is in it.
"""

import importlib.resources
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pydantic
import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from lookalike import files
from lookalike.config import DEFAULT_MODEL, MODEL_FILE_SUFFIX, NEWEST_DEFAULT, ModelSettings
from lookalike.errors import ModelInvalid
from lookalike.kernels.models.embedding import Projection

_HEADER = "lookalike"
_FORMAT_VERSION = 2  # of a file with an original; others are of version 1, which older releases read
_DEFAULTS = importlib.resources.files("lookalike") / "default_model"


@dataclass(frozen=True)
class Original:
    """The embedding of the network as it was before training, by `projection`, with its `share` of the score.

    It stands beside that of the changed network; `joined` are the projections of both together, in order.
    """

    share: float
    projection: Projection
    joined: tuple[Projection, ...] = ()


@dataclass(frozen=True)
class ModelFile:
    """`settings` of the network below; `network` tensors that replace its own, by name; `projections` in order.

    `original`: what is kept of the network as it was. `figures`: how the training went, if there was one; no part of
    the model_id.
    """

    settings: ModelSettings
    network: Mapping[str, Tensor] = field(default_factory=dict)
    projections: tuple[Projection, ...] = ()
    original: Original | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)

    @property
    def original_settings(self) -> ModelSettings:
        """Of the network as it was before any training, pooled as its classifier takes it."""
        return self.settings.model_copy(update={"pooling": "avg"})

    def projection_tensors(self) -> dict[str, Tensor]:
        """Weights and biases by the names that they have in the file."""
        named = {f"projections.{number}": pair for number, pair in enumerate(self.projections)}
        if self.original:
            named["original"] = self.original.projection
            named |= {f"joined.{number}": pair for number, pair in enumerate(self.original.joined)}
        return {
            f"{prefix}.{name}": tensor
            for prefix, pair in named.items()
            for name, tensor in zip(("weight", "bias"), pair, strict=True)
        }

    def with_projection(self, weight: Tensor, bias: Tensor) -> "ModelFile":
        """Return the same model with one more projection, behind all others."""
        if self.original:
            return replace(self, original=replace(self.original, joined=(*self.original.joined, (weight, bias))))
        return replace(self, projections=(*self.projections, (weight, bias)))


def resolve(settings: ModelSettings) -> ModelFile:
    """Read the model file that `settings` name, or make one of the bare network. Raises ModelInvalid."""
    return read(settings) if settings.is_file or settings.is_default else ModelFile(settings)


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
        content = _read_content(settings)
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
    original = None
    if share := recipe.get("original_share"):
        (projection,) = _read_projections(tensors, "original")
        original = Original(share, projection, _read_projections(tensors, r"joined\.\d+"))
    if settings.precision != "float32":
        base = base.model_copy(update={"precision": settings.precision})
    projections = _read_projections(tensors, r"projections\.\d+")
    return ModelFile(base, network, projections, original, recipe.get("figures", {}))


def _read_content(settings: ModelSettings) -> bytes:
    if not settings.is_default:
        return files.read_bytes(settings.name)
    name = NEWEST_DEFAULT if settings.name == DEFAULT_MODEL else settings.name
    return (_DEFAULTS / f"{name}{MODEL_FILE_SUFFIX}").read_bytes()


def _read_projections(tensors: Mapping[str, Tensor], pattern: str) -> tuple[Projection, ...]:
    """Those whose names match `pattern`, in the order of their numbers."""
    names = {name.removesuffix(".weight") for name in tensors if re.fullmatch(rf"{pattern}\.weight", name)}
    return tuple((tensors[f"{name}.weight"], tensors[f"{name}.bias"]) for name in sorted(names, key=_read_number))


def _read_number(name: str) -> int:
    return int(name.rpartition(".")[2]) if "." in name else 0


def write(uri: str, model: ModelFile) -> None:
    """Write `model` to `uri`, a new file or in place of one, whole or not at all."""
    recipe: dict[str, Any] = {
        "format_version": _FORMAT_VERSION if model.original else 1,
        "model": model.settings.model_dump(mode="json", exclude_defaults=True),
        "figures": model.figures,
    }
    if model.original:
        recipe["original_share"] = model.original.share
    tensors = {f"network.{name}": tensor for name, tensor in model.network.items()} | model.projection_tensors()
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with files.write_atomically(uri) as path:
        # Not save_file, whose files nobody but their owner can read.
        path.write_bytes(safetensors.torch.save(tensors, metadata={_HEADER: json.dumps(recipe)}))
