"""From a network to an embedding: what layers give is pooled, joined, mirrored, given colours, and projected.

Several layers are each pooled and L2-normalised before they are joined, so that none outweighs the others. GeM pooling
is Radenovic et al., "Fine-tuning CNN Image Retrieval with No Human Annotation", 2018, with p = 3.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lookalike.config import ModelSettings
from lookalike.errors import ModelInvalid
from lookalike.kernels.models.colour import ColourHistogram
from lookalike.kernels.models.networks import Network, explain_unknown, run_watched

Projection = tuple[Tensor, Tensor]
"""Weight (out, in) and bias (out,)."""


class Embedding(nn.Module):
    """uint8 pictures -> embeddings, by the settings' layers, pooling, mirrored picture and colours, and `projections`.

    Each projection is a weight (out, in) and a bias (out,), after which the embedding is L2-normalised again.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, loaded: Network, settings: ModelSettings, projections: Sequence[Projection] = ()) -> None:
        super().__init__()
        self.network = loaded.network
        self.pooling = settings.pooling
        self.flip = settings.flip
        self.colour_weight = settings.colour_weight
        self.colours = ColourHistogram()
        self.layers = len(settings.layer)
        self.layer_outputs: dict[int, Any] = {}
        self.register_buffer("mean", 255 * torch.tensor(loaded.preprocessing.mean).reshape(3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(loaded.preprocessing.std).reshape(3, 1, 1))
        for place, layer in enumerate(settings.layer):
            self._watch(place, layer, loaded, settings)
        self.projections = nn.ModuleList(_make_linear(weight, bias) for weight, bias in projections)

    @property
    def parts(self) -> "list[Embedding]":
        return [self]

    def forward(self, images: Tensor) -> Tensor:
        """uint8 (n, size_px, size_px, 3) -> float32 (n, dim)."""
        pixels = images.permute(0, 3, 1, 2).float()  # (n, 3, size_px, size_px)
        embedding = self._pool_layers(pixels)
        if self.flip:
            embedding = nn.functional.normalize(embedding + self._pool_layers(pixels.flip(3)), dim=1)
        if self.colour_weight:
            parts = (1 - self.colour_weight) ** 0.5 * embedding, self.colour_weight**0.5 * self.colours(pixels)
            embedding = torch.cat(parts, dim=1)
        return _project(embedding, self.projections)

    def _pool_layers(self, pixels: Tensor) -> Tensor:
        """What the layers give, each pooled to unit length, joined to unit length."""
        precision = next((parameter.dtype for parameter in self.network.parameters()), pixels.dtype)
        self.network(((pixels - self.mean) / self.std).to(precision))
        layer_outputs, self.layer_outputs = self.layer_outputs, {}
        levels = []
        for place in range(self.layers):
            level = layer_outputs.get(place)
            if not isinstance(level, Tensor):
                raise TypeError(f"the layer gave {type(level).__name__}, not a tensor")
            levels.append(nn.functional.normalize(pool(level.float(), self.pooling), dim=1))
        return nn.functional.normalize(torch.cat(levels, dim=1), dim=1)

    def _watch(self, place: int, layer: str, loaded: Network, settings: ModelSettings) -> None:
        """Keep what `layer` gives in each forward pass. A deep copy of the module binds its hooks to the copy."""
        if layer == "features" and not loaded.classifies:
            self.network.register_forward_hook(partial(self._see_output, place))
            return
        if layer == "features":
            calls = _record_calls(self.network, loaded.preprocessing.size_px)
            classifier = next(call for call in reversed(calls) if isinstance(call.module, nn.Linear | nn.Conv2d))
            if classifier.input.ndim == 2 and settings.pooling != "avg":
                self._replace_global_pooling(settings, calls[: calls.index(classifier)])
            classifier.module.register_forward_pre_hook(partial(self._see_input, place))
            return
        layers = dict(self.network.named_modules())
        if layer not in layers:
            raise explain_unknown(f"layer {layer!r} in {settings.name}", layer, ["features", *layers][:1000])
        layers[layer].register_forward_hook(partial(self._see_output, place))

    def _see_input(self, place: int, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.layer_outputs[place] = inputs[0]

    def _see_output(self, place: int, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        self.layer_outputs[place] = output

    def _replace_global_pooling(self, settings: ModelSettings, calls: "list[_Call]") -> None:
        """Put `pooling` where the network pools its last feature map, as the classifier's input is pooled already."""
        maps = [call for call in calls if call.input.ndim == 4 and call.input.shape[2:].numel() > 1]
        last = maps[-1] if maps else None
        if last and last.output.numel() == last.input.shape[:2].numel() and not list(last.module.parameters()):
            parent, _, child = last.name.rpartition(".")
            replacement = _GlobalPool(settings.pooling, tuple(last.output.shape[1:]))
            self.network.get_submodule(parent).register_module(child, replacement)
            return
        raise ModelInvalid(
            f"model.pooling={settings.pooling} can't be applied in {settings.name}: its own pooling is no module; "
            "set model.layer to the layer to pool, or model.pooling=avg for the network's own"
        )


class JoinedEmbedding(nn.Module):
    """Two embeddings of a picture side by side, then `projections`.

    Before these, the score of two pictures is the mean of both embeddings' scores; `share`, in [0, 1], is that of
    `second`.
    """

    def __init__(
        self, first: Embedding, second: Embedding, share: float, projections: Sequence[Projection] = ()
    ) -> None:
        super().__init__()
        self.second, self.first, self.share = second, first, share
        self.projections = nn.ModuleList(_make_linear(weight, bias) for weight, bias in projections)

    @property
    def parts(self) -> list[Embedding]:
        return [self.first, self.second]

    def forward(self, images: Tensor) -> Tensor:
        """uint8 (n, size_px, size_px, 3) -> float32 (n, dim of both)."""
        second = self.second(images)  # before `first`, which may take from it what both compute alike
        joined = torch.cat([(1 - self.share) ** 0.5 * self.first(images), self.share**0.5 * second], dim=1)
        return _project(joined, self.projections)


def _project(embedding: Tensor, projections: nn.ModuleList) -> Tensor:
    for projection in projections:
        embedding = nn.functional.normalize(projection(embedding), dim=1)
    return embedding


def _make_linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0])
    linear.load_state_dict({"weight": weight.float(), "bias": bias.float()})
    return linear.requires_grad_(False)


class _GlobalPool(nn.Module):
    def __init__(self, pooling: str, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.pooling, self.shape = pooling, shape

    def forward(self, features: Tensor) -> Tensor:
        return pool(features, self.pooling).reshape(-1, *self.shape)


def pool(features: Tensor, pooling: str) -> Tensor:
    """(n, c, h, w), (n, h, w, c) or (n, tokens, c) -> (n, c); (n, c) as it is.

    Inputs are square, so maps are too: the channels are the axis beside the two equal ones, the first of three equal.
    """
    if features.ndim == 2:
        return features
    if features.ndim == 3:
        features = features.transpose(1, 2)
    elif features.shape[2] != features.shape[3]:
        features = features.permute(0, 3, 1, 2)
    features = features.flatten(2)  # (n, c, positions)
    if pooling == "max":
        return features.amax(dim=2)
    if pooling == "gem":
        return features.clamp(min=1e-6).pow(3).mean(dim=2).pow(1 / 3)
    return features.mean(dim=2)


@dataclass(frozen=True)
class _Call:
    name: str
    module: nn.Module
    input: Tensor
    output: Tensor


def _record_calls(network: nn.Module, size_px: int) -> list[_Call]:
    """Every call of a module without children, in the order that the forward pass makes them."""
    calls: list[_Call] = []

    def record(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if inputs and isinstance(inputs[0], Tensor) and isinstance(output, Tensor):
                calls.append(_Call(name, module, inputs[0].to("meta"), output.to("meta")))

        return hook

    leaves = [(name, module) for name, module in network.named_modules() if not list(module.children())]
    handles = [module.register_forward_hook(record(name)) for name, module in leaves]
    run_watched(network, size_px, handles)
    return calls
